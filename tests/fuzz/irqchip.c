/* irqchip.c - fuzzes the interrupt controllers: registers, MSRs, lines and messages, of three vCPUs.
 *
 * Asserted besides: irqchip_pending tells exactly whether irqchip_ack gives a vector. */
#include "device/irq/irqchip.h"

#include "device_fuzz.h"

#define VCPUS 3u

struct context {
    struct irqchip *chip;
    struct fake_clock *fake;
};

static uint64_t read_tsc(void *owner, unsigned vcpu)
{
    const struct context *context = owner;
    return context->fake->now * 2 + vcpu;
}

static void ignore(void *owner, unsigned vcpu)
{
    (void)owner;
    FUZZ_ASSERT(vcpu < VCPUS);
}

static void ignore_sipi(void *owner, unsigned vcpu, uint8_t vector)
{
    (void)vector;
    ignore(owner, vcpu);
}

static void take(struct irqchip *chip, unsigned vcpu)
{
    bool pending = irqchip_pending(chip, vcpu);
    int vector = irqchip_ack(chip, vcpu);
    FUZZ_ASSERT(pending == (vector >= 0) && vector < 256);
}

static void msr(struct fuzz_input *input, struct irqchip *chip, unsigned vcpu, bool write)
{
    uint32_t which = (uint32_t)fuzz_take(input, 1), number = which == 0 ? 0x1B : which == 1 ? 0x6E0 : 0x800 + which;
    uint64_t value;
    if (write && which == 0) /* so that valid modes are met often */
        irqchip_msr_write(chip, vcpu, number, 0xFEE00000 | fuzz_take(input, 2));
    else if (write)
        irqchip_msr_write(chip, vcpu, number, fuzz_take(input, 5));
    else
        irqchip_msr_read(chip, vcpu, number, &value);
}

static void other(struct fuzz_input *input, void *opaque)
{
    struct context *context = opaque;
    struct irqchip *chip = context->chip;
    unsigned choice = (unsigned)fuzz_take(input, 1), vcpu = choice / 16 % VCPUS;
    uint64_t page = IRQCHIP_LAPIC_BASE;
    struct irq_line line = irqchip_line(chip, choice / 16);
    struct msi_sink sink = irqchip_msi(chip);
    switch (choice % 16) {
    case 0: case 1: case 2: take(chip, vcpu); break;
    case 3: irqchip_tpr_write(chip, vcpu, fuzz_take(input, 1) & 15); break;
    case 4: FUZZ_ASSERT(irqchip_tpr_read(chip, vcpu) < 16); break;
    case 5: case 6: msr(input, chip, vcpu, true); break;
    case 7: msr(input, chip, vcpu, false); break;
    case 8: irqchip_mmio_read(chip, vcpu, page + (fuzz_take(input, 2) & 0xFFF), 1u << (choice / 16 & 3)); break;
    case 9: case 10: case 11: /* aligned registers, which are most of what there is */
        page += 16 * (fuzz_take(input, 1) & 0x3F);
        irqchip_mmio_write(chip, vcpu, page, 4, fuzz_take(input, 4));
        break;
    case 12:
        page += fuzz_take(input, 2) & 0xFFF;
        irqchip_mmio_write(chip, vcpu, page, 8, fuzz_take(input, 8));
        break;
    case 13: irq_set(&line, (int)(fuzz_take(input, 1) & 1)); break;
    case 14: line = irqchip_line(chip, 8 + choice / 16); irq_set(&line, (int)(fuzz_take(input, 1) & 1)); break;
    default:
        page += fuzz_take(input, 3);
        sink.send(sink.owner, page, (uint32_t)fuzz_take(input, 3));
        break;
    }
}

/* As a running guest has them, so that an input need not find that out: the first byte asks for it. */
static void set_up(struct irqchip *chip)
{
    static const uint8_t words[] = {0x11, 0x30, 0x04, 0x01, 0x00};
    struct device *device = irqchip_device(chip);
    for (unsigned i = 0; i < VCPUS; i++) {
        irqchip_mmio_write(chip, i, IRQCHIP_LAPIC_BASE + 0xF0, 4, 0x1FF);
        irqchip_mmio_write(chip, i, IRQCHIP_LAPIC_BASE + 0xD0, 4, 1u << (24 + i));
    }
    for (unsigned i = 0; i < sizeof words; i++) {
        device->ops->write(device, IRQCHIP_REGION_PIC_MASTER, i > 0, 1, words[i]);
        device->ops->write(device, IRQCHIP_REGION_PIC_SLAVE, i > 0, 1, i == 1 ? 0x38 : words[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_region regions[] = {{IRQCHIP_REGION_IOAPIC, 0x48}, {IRQCHIP_REGION_PIC_MASTER, 2},
                                                 {IRQCHIP_REGION_PIC_SLAVE, 2}, {IRQCHIP_REGION_ELCR, 2}};
    struct fake_clock fake;
    fake_clock_open(&fake, 1000, 0);
    struct context context = {NULL, &fake};
    struct irqchip_config config = {.vcpus = VCPUS, .clock = &fake.clock, .tsc_hz = 2000000000, .owner = &context,
                                    .tsc_read = read_tsc, .interrupt = ignore, .nmi = ignore, .init = ignore,
                                    .sipi = ignore_sipi};
    context.chip = irqchip_new(&config);
    struct device *device = irqchip_device(context.chip);
    struct fuzz_target target = {.device = device, .regions = regions, .count = 4, .fake = &fake, .other = other,
                                 .context = &context};
    if (size && data[0] & 1)
        set_up(context.chip);
    fuzz_device(&target, data + (size > 0), size - (size > 0));
    for (unsigned i = 0; i < VCPUS; i++)
        take(context.chip, i);
    device->ops->destroy(device);
    return 0;
}
