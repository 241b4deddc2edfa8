/* kvmclock_test.c - the structures that a guest reads its time from. */
#include "device/platform/kvmclock.h"

#include "device_check.h"
#include "fake_clock.h"

#define TSC_HZ UINT64_C(2445432100)

struct time_info {
    uint32_t version, pad;
    uint64_t tsc, system_time;
    uint32_t multiplier;
    int8_t shift;
    uint8_t flags, pad2[2];
};

static struct fake_clock fake;

static uint64_t read_tsc(void *owner, unsigned vcpu)
{
    (void)owner, (void)vcpu;
    return (uint64_t)((unsigned __int128)fake.now * TSC_HZ / 1000000000u) + 777;
}

static struct device *make(struct ram *ram, uint64_t hz)
{
    struct kvmclock_config config = {.clock = &fake.clock, .ram = ram, .vcpus = 3, .tsc_hz = hz, .tsc_read = read_tsc};
    return kvmclock_new(&config);
}

/* The guest's arithmetic: pvclock-abi.h. */
static uint64_t guest_time(const struct time_info *info, uint64_t tsc)
{
    uint64_t delta = tsc - info->tsc;
    delta = info->shift < 0 ? delta >> -info->shift : delta << info->shift;
    return info->system_time + (uint64_t)((unsigned __int128)delta * info->multiplier >> 32);
}

static void test_time(struct ram *ram)
{
    struct device *clock = make(ram, TSC_HZ);
    struct time_info info, second;
    uint64_t value = 0;
    fake_clock_advance(&fake, 123456789);
    CHECK_EQ(kvmclock_msr_write(clock, 0, 0x4B564D01, 0x1000 | 1), 0);
    CHECK_EQ(kvmclock_msr_read(clock, 0, 0x4B564D01, &value), 0);
    CHECK_EQ(value, 0x1001);
    ram_read(ram, 0x1000, &info, sizeof info);
    CHECK(info.version != 0 && !(info.version & 1));
    CHECK_EQ(info.flags, 1);
    CHECK_EQ(guest_time(&info, read_tsc(NULL, 0)), 123456789);
    fake_clock_advance(&fake, UINT64_C(3600000000000));
    uint64_t want = UINT64_C(3600123456789), got = guest_time(&info, read_tsc(NULL, 0));
    CHECK(got > want - 2000 && got < want + 2000); /* 2^-32 of an hour is below a microsecond */
    /* A vCPU that asks later agrees to the nanosecond. */
    CHECK_EQ(kvmclock_msr_write(clock, 2, 0x12, 0x2FF0 | 1), 0);
    ram_read(ram, 0x2FF0, &second, sizeof second);
    CHECK_EQ(guest_time(&second, read_tsc(NULL, 2)), got);
    /* The rate that Linux computes from the structure, in kHz. */
    uint64_t khz = (UINT64_C(1000000) << 32) / info.multiplier;
    khz = info.shift < 0 ? khz << -info.shift : khz >> info.shift;
    CHECK(khz >= TSC_HZ / 1000 - 1 && khz <= TSC_HZ / 1000 + 1);

    CHECK_EQ(kvmclock_msr_write(clock, 0, 0x4B564D01, 0x10000000 | 1), -1);
    CHECK_EQ(kvmclock_msr_write(clock, 0, 0x4B564D01, UINT64_MAX), -1);
    kvmclock_msr_read(clock, 0, 0x4B564D01, &value);
    CHECK_EQ(value, 0x1001);
    CHECK_EQ(kvmclock_msr_write(clock, 0, 0x4B564D02, 0), -1);
    CHECK_EQ(kvmclock_msr_write(clock, 1, 0x4B564D01, 0x10000000), 0); /* off: no address is looked at */

    struct device *other = make(ram, TSC_HZ);
    struct saved good = device_saved(clock);
    CHECK_EQ(device_loaded(other, good.bytes, good.length), 0); /* which writes the structures anew */
    ram_read(ram, 0x1000, &second, sizeof second);
    CHECK(second.version != info.version);
    got = guest_time(&second, read_tsc(NULL, 0));
    CHECK(got > want - 2000 && got < want + 2000);
    for (size_t length = 0; length < good.length; length++)
        CHECK(device_loaded(other, good.bytes, length) != 0);
    for (size_t bit = 0; bit < 8 * good.length; bit++) {
        good.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        device_loaded(other, good.bytes, good.length);
        good.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(good.bytes);
    other->ops->destroy(other);
    clock->ops->destroy(clock);
}

static void test_wall(struct ram *ram)
{
    struct device *clock = make(ram, TSC_HZ);
    uint32_t info[3];
    fake_clock_advance(&fake, 250000000);
    CHECK_EQ(kvmclock_msr_write(clock, 0, 0x4B564D00, 0x3000), 0);
    ram_read(ram, 0x3000, info, sizeof info);
    CHECK(!(info[0] & 1));
    CHECK_EQ(info[1], clock_wall(&fake.clock) - 1);
    CHECK_EQ(info[2], 750000000);
    CHECK_EQ(kvmclock_msr_write(clock, 0, 0x11, UINT64_MAX - 3), -1);
    clock->ops->destroy(clock);
}

static void test_rates(struct ram *ram)
{
    static const uint64_t rates[] = {1, 1000, 999999999, 1000000000, 1000000001, 4294967296, 5000000000, UINT64_MAX};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        struct device *clock = make(ram, rates[i]);
        struct time_info info;
        CHECK_EQ(kvmclock_msr_write(clock, 0, 0x4B564D01, 1), 0);
        ram_read(ram, 0, &info, sizeof info);
        CHECK(info.multiplier != 0);
        if (rates[i] >= 1000 && rates[i] <= 5000000000) {
            uint64_t got = guest_time(&info, info.tsc + rates[i]) - info.system_time; /* one second */
            CHECK(got >= 999999990 && got <= 1000000000);
        }
        clock->ops->destroy(clock);
    }
    CHECK(make(ram, 0) == NULL);
}

int main(void)
{
    struct ram ram;
    fake_clock_open(&fake, 0, 1700000000);
    CHECK_EQ(ram_open(&ram, 0x10000, UINT64_C(1) << 31, UINT64_C(1) << 32, NULL), 0);
    test_time(&ram);
    test_wall(&ram);
    test_rates(&ram);
    ram_close(&ram);
    CHECK_DONE();
}
