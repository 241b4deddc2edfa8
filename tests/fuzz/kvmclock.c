/* kvmclock.c - fuzzes the paravirtual clock's MSRs; the structures go to a small RAM. */
#include "device/platform/kvmclock.h"

#include "device_fuzz.h"

#define VCPUS 3u

struct context {
    struct device *kvmclock;
    struct fake_clock *fake;
};

static uint64_t read_tsc(void *owner, unsigned vcpu)
{
    const struct fake_clock *fake = owner;
    return fake->now * 3 + vcpu;
}

static void msr(struct fuzz_input *input, void *opaque)
{
    static const uint32_t msrs[] = {0x11, 0x12, 0x4B564D00, 0x4B564D01, 0x4B564D02};
    struct context *context = opaque;
    unsigned choice = (unsigned)fuzz_take(input, 1);
    uint32_t number = msrs[choice % 5];
    unsigned vcpu = choice / 8 % VCPUS;
    uint64_t value;
    if (choice & 0x80) {
        kvmclock_msr_write(context->kvmclock, vcpu, number, fuzz_take(input, choice & 0x40 ? 8 : 2));
    } else if (kvmclock_msr_read(context->kvmclock, vcpu, number, &value) == 0) {
        FUZZ_ASSERT(kvmclock_claims_msr(number));
    }
    if (choice == 0x7F)
        kvmclock_update(context->kvmclock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ram ram; /* kept: mapping it for each input would be most of the time */
    static const struct fuzz_region regions[] = {{0, 8}};
    struct fake_clock fake;
    if (!ram.size && ram_open(&ram, 0x4000, UINT64_C(1) << 31, UINT64_C(1) << 32, NULL) != 0)
        abort();
    fake_clock_open(&fake, 1000, 1700000000);
    struct kvmclock_config config = {.clock = &fake.clock, .ram = &ram, .vcpus = VCPUS, .tsc_hz = 3000000000,
                                     .owner = &fake, .tsc_read = read_tsc};
    struct context context = {kvmclock_new(&config), &fake};
    struct fuzz_target target = {.device = context.kvmclock, .regions = regions, .count = 1, .fake = &fake,
                                 .other = msr, .context = &context, .changes = true};
    fuzz_device(&target, data, size);
    context.kvmclock->ops->destroy(context.kvmclock);
    return 0;
}
