/* irqchip_test.c - local APICs, I/O APIC and 8259s together, as a board wires them. */
#include "device/irq/irqchip.h"

#include "device_check.h"
#include "fake_clock.h"

#define VCPUS 4u
#define LAPIC UINT64_C(0xFEE00000)
#define TSC_HZ UINT64_C(2000000000)

enum { ID = 0x20, TPR = 0x80, PPR = 0xA0, EOI = 0xB0, LDR = 0xD0, DFR = 0xE0, SVR = 0xF0, ISR = 0x100, TMR = 0x180,
       IRR = 0x200, ESR = 0x280, ICR = 0x300, ICR_HIGH = 0x310, LVT_TIMER = 0x320, LINT0 = 0x350, LVT_ERROR = 0x370,
       COUNT = 0x380, COUNT_NOW = 0x390, DIVIDE = 0x3E0 };

static struct fake_clock fake;
static unsigned interrupts[VCPUS], nmis[VCPUS], inits[VCPUS], sipis[VCPUS];
static uint8_t sipi_vector;

static uint64_t read_tsc(void *owner, unsigned vcpu)
{
    (void)owner, (void)vcpu;
    return fake.now * 2;
}

static void on_interrupt(void *owner, unsigned vcpu)
{
    (void)owner;
    interrupts[vcpu]++;
}

static void on_nmi(void *owner, unsigned vcpu)
{
    (void)owner;
    nmis[vcpu]++;
}

static void on_init(void *owner, unsigned vcpu)
{
    (void)owner;
    inits[vcpu]++;
}

static void on_sipi(void *owner, unsigned vcpu, uint8_t vector)
{
    (void)owner;
    sipis[vcpu]++;
    sipi_vector = vector;
}

static struct irqchip *make(void)
{
    struct irqchip_config config = {.vcpus = VCPUS, .clock = &fake.clock, .tsc_hz = TSC_HZ, .tsc_read = read_tsc,
                                    .interrupt = on_interrupt, .nmi = on_nmi, .init = on_init, .sipi = on_sipi};
    return irqchip_new(&config);
}

static uint32_t get(struct irqchip *chip, unsigned vcpu, unsigned reg)
{
    return (uint32_t)irqchip_mmio_read(chip, vcpu, LAPIC + reg, 4);
}

static void put(struct irqchip *chip, unsigned vcpu, unsigned reg, uint32_t value)
{
    irqchip_mmio_write(chip, vcpu, LAPIC + reg, 4, value);
}

static struct irqchip *make_enabled(void)
{
    struct irqchip *chip = make();
    for (unsigned i = 0; i < VCPUS; i++) {
        put(chip, i, SVR, 0x1FF);
        put(chip, i, LDR, 1u << (24 + i));
    }
    return chip;
}

static void destroy(struct irqchip *chip)
{
    irqchip_device(chip)->ops->destroy(irqchip_device(chip));
}

static void send(struct irqchip *chip, unsigned from, uint32_t high, uint32_t low)
{
    put(chip, from, ICR_HIGH, high);
    put(chip, from, ICR, low);
}

static void test_registers(void)
{
    struct irqchip *chip = make();
    uint64_t value = 0;
    CHECK_EQ(get(chip, 2, ID), 2 << 24);
    CHECK_EQ(get(chip, 0, 0x30), 0x00050014);
    CHECK_EQ(get(chip, 0, SVR), 0xFF);
    CHECK_EQ(get(chip, 0, DFR), 0xFFFFFFFF);
    CHECK_EQ(get(chip, 0, LVT_TIMER), 0x10000);
    CHECK_EQ(get(chip, 0, LINT0), 0x700); /* virtual wire */
    CHECK_EQ(get(chip, 1, LINT0), 0x10000);
    put(chip, 0, LVT_TIMER, 0x20); /* masked while the APIC is off */
    CHECK_EQ(get(chip, 0, LVT_TIMER), 0x10020);
    CHECK_EQ(irqchip_msr_read(chip, 0, 0x1B, &value), 0);
    CHECK_EQ(value, 0xFEE00900);
    CHECK_EQ(irqchip_msr_read(chip, 3, 0x1B, &value), 0);
    CHECK_EQ(value, 0xFEE00800);
    irqchip_tpr_write(chip, 0, 5);
    CHECK_EQ(get(chip, 0, TPR), 0x50);
    put(chip, 0, TPR, 0x73);
    CHECK_EQ(irqchip_tpr_read(chip, 0), 7);
    CHECK_EQ(get(chip, 0, PPR), 0x73);
    CHECK_EQ(irqchip_mmio_read(chip, 0, LAPIC + TPR + 4, 4), 0);
    CHECK_EQ(irqchip_mmio_read(chip, 0, LAPIC + 0x31, 1), 0x00);
    CHECK_EQ(irqchip_mmio_read(chip, 0, LAPIC + 0x32, 1), 0x05);
    put(chip, 0, SVR, 0x1FF);
    get(chip, 0, 0x3F0); /* no such register */
    put(chip, 0, ESR, 0);
    CHECK_EQ(get(chip, 0, ESR), 0x80);
    put(chip, 0, ESR, 0);
    CHECK_EQ(get(chip, 0, ESR), 0);
    destroy(chip);
}

static void test_priorities(void)
{
    struct irqchip *chip = make_enabled();
    CHECK(!irqchip_pending(chip, 0));
    send(chip, 1, 0, 0x4041); /* fixed to 0 */
    CHECK(irqchip_pending(chip, 0));
    CHECK_EQ(interrupts[0], 1);
    send(chip, 1, 0, 0x4062);
    send(chip, 1, 0, 0x4061);
    CHECK_EQ(get(chip, 0, IRR + 0x30), 6);
    CHECK_EQ(irqchip_ack(chip, 0), 0x62);
    CHECK_EQ(get(chip, 0, PPR), 0x60);
    CHECK(!irqchip_pending(chip, 0)); /* 0x61 is of the same class */
    CHECK_EQ(irqchip_ack(chip, 0), -1);
    send(chip, 1, 0, 0x4071);
    CHECK_EQ(irqchip_ack(chip, 0), 0x71);
    CHECK_EQ(get(chip, 0, ISR + 0x30), 0x20004);
    put(chip, 0, EOI, 0);
    CHECK(!irqchip_pending(chip, 0));
    put(chip, 0, EOI, 0);
    CHECK_EQ(irqchip_ack(chip, 0), 0x61);
    put(chip, 0, EOI, 0);
    put(chip, 0, TPR, 0x40); /* masks class 4 */
    CHECK(!irqchip_pending(chip, 0));
    put(chip, 0, TPR, 0x3F);
    CHECK(irqchip_pending(chip, 0));
    CHECK_EQ(irqchip_ack(chip, 0), 0x41);
    put(chip, 0, EOI, 0);
    put(chip, 0, EOI, 0); /* one too many does no harm */
    send(chip, 0, 0, 0x4005); /* an illegal vector */
    CHECK(!irqchip_pending(chip, 0));
    put(chip, 0, ESR, 0);
    CHECK_EQ(get(chip, 0, ESR), 0x20);
    destroy(chip);
}

static unsigned taken(struct irqchip *chip, int vector)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < VCPUS; i++) {
        if (irqchip_ack(chip, i) == vector) {
            mask |= 1u << i;
            put(chip, i, EOI, 0);
        }
    }
    return mask;
}

static void test_destinations(void)
{
    struct irqchip *chip = make_enabled();
    send(chip, 0, 2u << 24, 0x4050);
    CHECK_EQ(taken(chip, 0x50), 4);
    send(chip, 0, 0xFFu << 24, 0x4050);
    CHECK_EQ(taken(chip, 0x50), 15);
    send(chip, 0, 0x0Au << 24, 0x4850); /* logical, flat */
    CHECK_EQ(taken(chip, 0x50), 10);
    send(chip, 0, 0, 0x44050); /* self */
    CHECK_EQ(taken(chip, 0x50), 1);
    send(chip, 2, 0, 0x84050); /* all */
    CHECK_EQ(taken(chip, 0x50), 15);
    send(chip, 2, 0, 0xC4050); /* all but self */
    CHECK_EQ(taken(chip, 0x50), 11);
    send(chip, 0, 9u << 24, 0x4050); /* nobody */
    CHECK_EQ(taken(chip, 0x50), 0);
    unsigned seen = 0;
    for (unsigned i = 0; i < 4; i++) { /* lowest priority takes turns */
        send(chip, 0, 0x0Fu << 24, 0x4950);
        unsigned who = taken(chip, 0x50);
        CHECK(__builtin_popcount(who) == 1);
        seen |= who;
    }
    CHECK_EQ(seen, 15);
    for (unsigned i = 0; i < 3; i++)
        put(chip, i, TPR, 0x20);
    for (unsigned i = 0; i < 4; i++) { /* and goes to whom it disturbs least */
        send(chip, 0, 0x0Fu << 24, 0x4950);
        CHECK_EQ(taken(chip, 0x50), 8);
    }
    for (unsigned i = 0; i < VCPUS; i++) { /* clusters of two */
        put(chip, i, DFR, 0x0FFFFFFF);
        put(chip, i, LDR, (i / 2) << 28 | 1u << (24 + i % 2));
    }
    send(chip, 0, 0x12u << 24, 0x4850);
    CHECK_EQ(taken(chip, 0x50), 8);
    send(chip, 0, 0xF1u << 24, 0x4850);
    CHECK_EQ(taken(chip, 0x50), 5);
    destroy(chip);
}

static void test_startup(void)
{
    struct irqchip *chip = make_enabled();
    put(chip, 2, TPR, 0x30);
    send(chip, 0, 2u << 24, 0x4500); /* INIT */
    CHECK_EQ(inits[2], 1);
    CHECK_EQ(get(chip, 2, TPR), 0);
    CHECK_EQ(get(chip, 2, SVR), 0xFF);
    send(chip, 0, 2u << 24, 0x8500); /* de-assert: nothing */
    CHECK_EQ(inits[2], 1);
    send(chip, 0, 2u << 24, 0x4699);
    CHECK_EQ(sipis[2], 1);
    CHECK_EQ(sipi_vector, 0x99);
    send(chip, 0, 0, 0xC4400); /* NMI to the others */
    CHECK_EQ(nmis[0], 0);
    CHECK_EQ(nmis[1] + nmis[2] + nmis[3], 3);
    destroy(chip);
}

static void test_x2apic(void)
{
    struct irqchip *chip = make_enabled();
    uint64_t value = 0;
    CHECK_EQ(irqchip_msr_read(chip, 1, 0x802, &value), -1); /* not in x2APIC mode */
    CHECK(irqchip_claims_mmio(chip, 1, LAPIC + 0xFFF));
    CHECK(!irqchip_claims_mmio(chip, 1, LAPIC + 0x1000));
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x1B, 0xFEE00400), -1); /* extended without enabled */
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x1B, 0xFEE00801), -1); /* a reserved bit */
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x1B, 0xFEE00C00), 0);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x1B, 0xFEE00800), -1); /* no way back but through disabled */
    CHECK(!irqchip_claims_mmio(chip, 1, LAPIC));
    CHECK_EQ(irqchip_msr_read(chip, 1, 0x802, &value), 0);
    CHECK_EQ(value, 1);
    CHECK_EQ(irqchip_msr_read(chip, 1, 0x80D, &value), 0);
    CHECK_EQ(value, 2);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x80D, 0), -1);
    CHECK_EQ(irqchip_msr_read(chip, 1, 0x80E, &value), -1);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x80B, 1), -1);
    CHECK_EQ(irqchip_msr_read(chip, 1, 0x80B, &value), -1);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x808, 0x100), -1);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x830, UINT64_C(0x300004050)), 0);
    CHECK_EQ(irqchip_msr_read(chip, 1, 0x830, &value), 0);
    CHECK_EQ(value, UINT64_C(0x300004050));
    CHECK_EQ(taken(chip, 0x50), 8);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x830, UINT64_C(0xFFFFFFFF00004050)), 0);
    for (unsigned i = 0; i < VCPUS; i++)
        CHECK_EQ(irqchip_ack(chip, i), 0x50);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x80B, 0), 0);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x830, 0x100000), -1);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x83F, 0x77), 0);
    CHECK_EQ(irqchip_ack(chip, 1), 0x77);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x80B, 0), 0);
    send(chip, 0, 0x02u << 24, 0x4855); /* an 8-bit logical destination reaches cluster 0 */
    CHECK_EQ(irqchip_ack(chip, 1), 0x55);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x1B, 0xFEE00000), 0);
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x1B, 0xFEE00C00), -1); /* disabled to x2APIC */
    CHECK_EQ(irqchip_msr_write(chip, 1, 0x1B, 0xFEC10800), 0); /* the page may move */
    CHECK(irqchip_claims_mmio(chip, 1, 0xFEC10020));
    CHECK(!irqchip_claims_mmio(chip, 1, LAPIC));
    destroy(chip);
}

static void test_timer(void)
{
    struct irqchip *chip = make_enabled();
    uint64_t value = 0;
    put(chip, 0, DIVIDE, 0x0B); /* by 1: nanoseconds */
    put(chip, 0, LVT_TIMER, 0xEC);
    put(chip, 0, COUNT, 1000);
    fake_clock_advance(&fake, 400);
    CHECK_EQ(get(chip, 0, COUNT_NOW), 600);
    fake_clock_advance(&fake, 599);
    CHECK(!irqchip_pending(chip, 0));
    fake_clock_advance(&fake, 1);
    CHECK_EQ(irqchip_ack(chip, 0), 0xEC);
    put(chip, 0, EOI, 0);
    CHECK_EQ(get(chip, 0, COUNT_NOW), 0);
    fake_clock_advance(&fake, 10000);
    CHECK(!irqchip_pending(chip, 0));
    put(chip, 0, DIVIDE, 0x03); /* by 16 */
    put(chip, 0, LVT_TIMER, 0x200EC);
    put(chip, 0, COUNT, 62500); /* 1 ms */
    unsigned fired = 0;
    for (unsigned i = 0; i < 1000; i++) {
        fake_clock_advance(&fake, 100000);
        if (irqchip_ack(chip, 0) == 0xEC) {
            put(chip, 0, EOI, 0);
            fired++;
        }
    }
    CHECK_EQ(fired, 100);
    put(chip, 0, COUNT, 1);
    CHECK(fake_clock_advance(&fake, 10000000) <= 101); /* a bound on how often */
    irqchip_ack(chip, 0);
    put(chip, 0, EOI, 0);
    put(chip, 0, COUNT, 0);
    fake_clock_advance(&fake, 1000000);
    irqchip_ack(chip, 0);
    put(chip, 0, EOI, 0);
    CHECK(!irqchip_pending(chip, 0));

    CHECK_EQ(irqchip_msr_write(chip, 0, 0x6E0, 5), 0); /* not in deadline mode: ignored */
    put(chip, 0, LVT_TIMER, 0x400EC);
    CHECK(!irqchip_pending(chip, 0));
    CHECK_EQ(irqchip_msr_write(chip, 0, 0x6E0, read_tsc(NULL, 0) + 2000), 0);
    put(chip, 0, COUNT, 5); /* ignored */
    fake_clock_advance(&fake, 999);
    CHECK(!irqchip_pending(chip, 0));
    CHECK_EQ(irqchip_msr_read(chip, 0, 0x6E0, &value), 0);
    CHECK(value != 0);
    fake_clock_advance(&fake, 2);
    CHECK_EQ(irqchip_ack(chip, 0), 0xEC);
    put(chip, 0, EOI, 0);
    CHECK_EQ(irqchip_msr_read(chip, 0, 0x6E0, &value), 0);
    CHECK_EQ(value, 0);
    CHECK_EQ(irqchip_msr_write(chip, 0, 0x6E0, 1), 0); /* past: at once */
    CHECK_EQ(irqchip_ack(chip, 0), 0xEC);
    CHECK_EQ(irqchip_msr_write(chip, 0, 0x6E0, UINT64_MAX), 0);
    put(chip, 0, LVT_TIMER, 0xEC); /* leaving the mode disarms */
    put(chip, 0, LVT_TIMER, 0x400EC);
    CHECK_EQ(irqchip_msr_read(chip, 0, 0x6E0, &value), 0);
    CHECK_EQ(value, 0);
    destroy(chip);
}

static void ioapic_put(struct irqchip *chip, unsigned index, uint32_t value)
{
    device_put(irqchip_device(chip), IRQCHIP_REGION_IOAPIC, 0, 4, index);
    device_put(irqchip_device(chip), IRQCHIP_REGION_IOAPIC, 0x10, 4, value);
}

static uint32_t ioapic_get(struct irqchip *chip, unsigned index)
{
    device_put(irqchip_device(chip), IRQCHIP_REGION_IOAPIC, 0, 4, index);
    return (uint32_t)device_get(irqchip_device(chip), IRQCHIP_REGION_IOAPIC, 0x10, 4);
}

static void route(struct irqchip *chip, unsigned pin, uint32_t high, uint32_t low)
{
    ioapic_put(chip, 0x11 + 2 * pin, high);
    ioapic_put(chip, 0x10 + 2 * pin, low);
}

static void test_ioapic(void)
{
    struct irqchip *chip = make_enabled();
    struct irq_line timer = irqchip_line(chip, 0), serial = irqchip_line(chip, 4), pci = irqchip_line(chip, 17);
    CHECK_EQ(ioapic_get(chip, 1), 0x00170020);
    CHECK_EQ(ioapic_get(chip, 0x10), 0x10000);
    irq_set(&serial, 1);
    irq_set(&serial, 0);
    route(chip, 4, 1u << 24, 0x34);
    CHECK(!irqchip_pending(chip, 1)); /* an edge while masked is lost */
    irq_set(&serial, 1);
    CHECK_EQ(irqchip_ack(chip, 1), 0x34);
    put(chip, 1, EOI, 0);
    irq_set(&serial, 1);
    CHECK(!irqchip_pending(chip, 1));
    irq_set(&serial, 0);
    route(chip, 2, 3u << 24, 0x35); /* ISA 0 is pin 2 */
    irq_set(&timer, 1);
    CHECK_EQ(irqchip_ack(chip, 3), 0x35);
    put(chip, 3, EOI, 0);

    route(chip, 17, 1u << 24, 0x8045); /* level */
    irq_set(&pci, 1);
    CHECK_EQ(ioapic_get(chip, 0x10 + 34), 0xC045); /* Remote IRR */
    CHECK_EQ(irqchip_ack(chip, 1), 0x45);
    CHECK_EQ(get(chip, 1, TMR + 0x20), 0x20);
    irq_set(&pci, 0);
    irq_set(&pci, 1);
    CHECK(!irqchip_pending(chip, 1)); /* held by Remote IRR */
    put(chip, 1, EOI, 0);
    CHECK_EQ(irqchip_ack(chip, 1), 0x45); /* still asserted: again */
    irq_set(&pci, 0);
    put(chip, 1, EOI, 0);
    CHECK(!irqchip_pending(chip, 1));
    CHECK_EQ(ioapic_get(chip, 0x10 + 34), 0x8045);
    irq_set(&pci, 1);
    CHECK_EQ(irqchip_ack(chip, 1), 0x45);
    ioapic_put(chip, 0x10 + 34, 0x18045); /* masked meanwhile */
    put(chip, 1, EOI, 0);
    CHECK(!irqchip_pending(chip, 1));
    ioapic_put(chip, 0x10 + 34, 0x8045); /* unmasking delivers the level */
    CHECK_EQ(irqchip_ack(chip, 1), 0x45);
    irq_set(&pci, 0);
    device_put(irqchip_device(chip), IRQCHIP_REGION_IOAPIC, 0x40, 4, 0x45); /* EOI register */
    CHECK_EQ(ioapic_get(chip, 0x10 + 34), 0x8045);
    destroy(chip);
}

static void test_msi(void)
{
    struct irqchip *chip = make_enabled();
    struct msi_sink sink = irqchip_msi(chip);
    sink.send(sink.owner, 0xFEE02000, 0x0066);
    CHECK_EQ(taken(chip, 0x66), 4);
    sink.send(sink.owner, 0xFEEFF000, 0x0066);
    CHECK_EQ(taken(chip, 0x66), 15);
    sink.send(sink.owner, 0xFEE0600C, 0x0066); /* logical 6, redirection hint: one of 1 and 2 */
    CHECK(__builtin_popcount(taken(chip, 0x66)) == 1);
    sink.send(sink.owner, 0xFED02000, 0x0066); /* not an interrupt address */
    CHECK_EQ(taken(chip, 0x66), 0);
    sink.send(sink.owner, 0xFEE01000, 0x0400);
    CHECK_EQ(nmis[1] > 0, 1);
    destroy(chip);
}

static void pic_init(struct irqchip *chip, uint8_t master, uint8_t slave)
{
    struct device *device = irqchip_device(chip);
    for (unsigned i = 0; i < 2; i++) {
        unsigned region = i ? IRQCHIP_REGION_PIC_SLAVE : IRQCHIP_REGION_PIC_MASTER;
        device_put(device, region, 0, 1, 0x11);
        device_put(device, region, 1, 1, i ? slave : master);
        device_put(device, region, 1, 1, i ? 2 : 4);
        device_put(device, region, 1, 1, 1);
        device_put(device, region, 1, 1, 0);
    }
}

static void test_pic(void)
{
    struct irqchip *chip = make();
    struct device *device = irqchip_device(chip);
    struct irq_line timer = irqchip_line(chip, 0), serial = irqchip_line(chip, 4), clock = irqchip_line(chip, 8);
    irq_set(&timer, 1);
    CHECK(!irqchip_pending(chip, 0)); /* not initialised yet */
    irq_set(&timer, 0);
    device_put(device, IRQCHIP_REGION_PIC_MASTER, 1, 1, 0xFB); /* how Linux finds it */
    CHECK_EQ(device_get(device, IRQCHIP_REGION_PIC_MASTER, 1, 1), 0xFB);
    pic_init(chip, 0x30, 0x38);
    irq_set(&serial, 1);
    CHECK(irqchip_pending(chip, 0));
    CHECK(!irqchip_pending(chip, 1));
    CHECK_EQ(irqchip_ack(chip, 0), 0x34);
    irq_set(&timer, 1); /* of higher priority: nests */
    CHECK_EQ(irqchip_ack(chip, 0), 0x30);
    device_put(device, IRQCHIP_REGION_PIC_MASTER, 0, 1, 0x0B);
    CHECK_EQ(device_get(device, IRQCHIP_REGION_PIC_MASTER, 0, 1), 0x11);
    irq_set(&clock, 1); /* the slave's, of higher priority than 4 but below 0 */
    CHECK(!irqchip_pending(chip, 0));
    device_put(device, IRQCHIP_REGION_PIC_MASTER, 0, 1, 0x20); /* EOI */
    CHECK_EQ(irqchip_ack(chip, 0), 0x38);
    device_put(device, IRQCHIP_REGION_PIC_SLAVE, 0, 1, 0x20);
    device_put(device, IRQCHIP_REGION_PIC_MASTER, 0, 1, 0x62); /* specific EOI */
    device_put(device, IRQCHIP_REGION_PIC_MASTER, 0, 1, 0x0B);
    CHECK_EQ(device_get(device, IRQCHIP_REGION_PIC_MASTER, 0, 1), 0x10);
    device_put(device, IRQCHIP_REGION_PIC_MASTER, 0, 1, 0x20);
    irq_set(&serial, 0);
    irq_set(&serial, 1);
    put(chip, 0, SVR, 0x1FF);
    put(chip, 0, LINT0, 0x10700); /* LINT0 masked: nothing passes */
    CHECK(!irqchip_pending(chip, 0));
    put(chip, 0, LINT0, 0x700);
    CHECK(irqchip_pending(chip, 0));
    irq_set(&serial, 0); /* it goes before it was acknowledged */
    CHECK(!irqchip_pending(chip, 0));
    CHECK_EQ(irqchip_msr_write(chip, 0, 0x1B, 0xFEE00100), 0); /* no APIC: the 8259 is alone */
    irq_set(&serial, 1);
    CHECK_EQ(irqchip_ack(chip, 0), 0x34);
    device_put(device, IRQCHIP_REGION_ELCR, 0, 2, 0xFFFF);
    CHECK_EQ(device_get(device, IRQCHIP_REGION_ELCR, 0, 2), 0xDEF8);
    device_put(device, IRQCHIP_REGION_PIC_MASTER, 0, 1, 0x20);
    CHECK_EQ(irqchip_ack(chip, 0), 0x34); /* a level stays */
    destroy(chip);
}

static void test_saved(void)
{
    struct irqchip *chip = make_enabled(), *other = make();
    struct irq_line pci = irqchip_line(chip, 18);
    route(chip, 18, 1u << 24, 0x8045);
    irq_set(&pci, 1);
    pic_init(chip, 0x30, 0x38);
    put(chip, 0, LVT_TIMER, 0x200EC);
    put(chip, 0, COUNT, 1000000);
    irqchip_msr_write(chip, 2, 0x1B, 0xFEE00C00);
    irqchip_msr_write(chip, 2, 0x832, 0x400ED);
    irqchip_msr_write(chip, 2, 0x6E0, read_tsc(NULL, 0) + 1000000);
    send(chip, 0, 3u << 24, 0x4099);
    send(chip, 0, 3u << 24, 0x4088);
    CHECK_EQ(irqchip_ack(chip, 3), 0x99);
    fake_clock_advance(&fake, 300000);
    check_round_trip(irqchip_device(chip), irqchip_device(other));
    CHECK(irqchip_pending(other, 1));
    CHECK(!irqchip_pending(other, 3));
    CHECK_EQ(irqchip_ack(other, 1), 0x45);
    put(other, 3, EOI, 0);
    CHECK_EQ(irqchip_ack(other, 3), 0x88);
    fake_clock_advance(&fake, 200001);
    CHECK_EQ(irqchip_ack(other, 2), 0xED);
    CHECK(!irqchip_pending(other, 0));
    fake_clock_advance(&fake, 1500000);
    CHECK_EQ(irqchip_ack(other, 0), 0xEC);
    check_hostile(irqchip_device(chip));
    destroy(chip);
    destroy(other);
    struct irqchip_config config = {.vcpus = IRQCHIP_VCPUS + 1, .clock = &fake.clock, .tsc_hz = 1};
    CHECK(irqchip_new(&config) == NULL);
}

int main(void)
{
    fake_clock_open(&fake, 1000000, 0);
    test_registers();
    test_priorities();
    test_destinations();
    test_startup();
    test_x2apic();
    test_timer();
    test_ioapic();
    test_msi();
    test_pic();
    test_saved();
    CHECK(!fake.timers);
    CHECK_DONE();
}
