/* irqchip.c - see irqchip.h. It carries messages between the controllers and chooses who gets them.
 *
 *   device line --> 8259 pair --> LINT0 of local APIC 0 --> vCPU 0
 *        |
 *        +--------> I/O APIC pin --+
 *   MSI ---------------------------+--> message --> the local APICs it matches --> their vCPUs
 *   ICR of a local APIC -----------+
 *
 * A line is wired to both controllers at once, as on a PC; the guest masks the one that it does not use.
 * A message is only a struct; nothing of it is queued, so that delivery is done when the call returns. The
 * one way back is the end of a level-triggered interrupt, from a local APIC to the I/O APIC, which may deliver
 * again at once: that is one message for each EOI, so the two cannot keep each other busy. */
#include "device/irq/irqchip.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "device/irq/ioapic.h"
#include "device/irq/lapic.h"
#include "device/irq/pic.h"

#define SAVED_VERSION 1
#define ISA_INPUTS 16u
#define ISA_TIMER_PIN 2u /* where ISA interrupt 0 enters the I/O APIC */
#define CASCADE 2u

struct irqchip {
    struct device device;
    struct irqchip_config config;
    struct lapic_host host;
    struct ioapic ioapic;
    struct pic pic;
    unsigned next; /* where the search for a lowest-priority target begins */
    struct lapic lapic[];
};

/* ---- delivery ---- */

/* Lowest priority looks only at those that could take it; fixed delivery drops what one cannot take. */
static bool takes_fixed(const struct lapic *lapic, const struct apic_message *message)
{
    return lapic_matches(lapic, message) && lapic_accepts(lapic);
}

/* The target whose priority is lowest; equals take turns. NULL when nobody matches. */
static struct lapic *lowest(struct irqchip *chip, const struct apic_message *message)
{
    struct lapic *best = NULL;
    for (unsigned i = 0; i < chip->config.vcpus; i++) {
        struct lapic *lapic = &chip->lapic[(chip->next + i) % chip->config.vcpus];
        if (takes_fixed(lapic, message) && (!best || lapic_priority(lapic) < lapic_priority(best)))
            best = lapic;
    }
    if (best)
        chip->next = (best->index + 1) % chip->config.vcpus;
    return best;
}

/* Gives the message to one local APIC; false when it cannot take it. */
static bool deliver_one(struct irqchip *chip, struct lapic *lapic, const struct apic_message *message)
{
    const struct irqchip_config *config = &chip->config;
    switch (message->mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        if (!lapic_accepts(lapic))
            return false;
        lapic_fixed(lapic, message->vector, message->level);
        return true;
    case APIC_NMI:
        config->nmi(config->owner, lapic->index);
        return true;
    case APIC_INIT:
        lapic_init(lapic);
        config->init(config->owner, lapic->index);
        return true;
    case APIC_SIPI:
        config->sipi(config->owner, lapic->index, message->vector);
        return true;
    case APIC_EXTINT:
        lapic_extint(lapic);
        return true;
    case APIC_SMI: /* there is no system management mode */
    default:
        return false;
    }
}

static bool deliver(void *owner, const struct apic_message *message)
{
    struct irqchip *chip = owner;
    bool taken = false;
    if (message->mode == APIC_LOWEST) {
        struct lapic *lapic = lowest(chip, message);
        return lapic && deliver_one(chip, lapic, message);
    }
    for (unsigned i = 0; i < chip->config.vcpus; i++)
        if (lapic_matches(&chip->lapic[i], message))
            taken |= deliver_one(chip, &chip->lapic[i], message);
    return taken;
}

/* An ICR write of vCPU `index`. With a shorthand the destination field means nothing, and an APIC that is off by
 * its base register is reached as well: INIT to "all but self" starts every processor. */
static void send(void *owner, unsigned index, enum apic_shorthand shorthand, const struct apic_message *message)
{
    struct irqchip *chip = owner;
    if (shorthand == APIC_NONE) {
        deliver(chip, message);
        return;
    }
    for (unsigned i = 0; i < chip->config.vcpus; i++) {
        bool self = i == index;
        if ((shorthand == APIC_SELF && !self) || (shorthand == APIC_OTHERS && self))
            continue;
        deliver_one(chip, &chip->lapic[i], message);
    }
}

static void broadcast_eoi(void *owner, uint8_t vector)
{
    struct irqchip *chip = owner;
    ioapic_eoi(&chip->ioapic, vector);
}

static void lapic_interrupts(void *owner, unsigned index)
{
    struct irqchip *chip = owner;
    chip->config.interrupt(chip->config.owner, index);
}

static void lapic_nmi(void *owner, unsigned index)
{
    struct irqchip *chip = owner;
    chip->config.nmi(chip->config.owner, index);
}

static uint64_t read_tsc(void *owner, unsigned index)
{
    struct irqchip *chip = owner;
    return chip->config.tsc_read(chip->config.owner, index);
}

static int take_extint(void *owner)
{
    struct irqchip *chip = owner;
    return pic_ack(&chip->pic);
}

static void pic_output(void *owner, bool level)
{
    struct irqchip *chip = owner;
    lapic_lint0(&chip->lapic[0], level);
}

/* ---- what comes in ---- */

/* Input 2 of the 8259s is their cascade, so no device has it; pin 2 of the I/O APIC has the 8254 for it. */
static void set_line(void *owner, unsigned irq, int level)
{
    struct irqchip *chip = owner;
    if (irq < ISA_INPUTS && irq != CASCADE)
        pic_line(&chip->pic, irq, level != 0);
    if (irq == 0)
        ioapic_line(&chip->ioapic, ISA_TIMER_PIN, level != 0);
    else if (irq < IOAPIC_PINS && irq != CASCADE)
        ioapic_line(&chip->ioapic, irq, level != 0);
}

struct irq_line irqchip_line(struct irqchip *chip, unsigned irq)
{
    return (struct irq_line){.set = set_line, .owner = chip, .pin = irq};
}

/* SDM "Message Signalled Interrupts": the address names the target, the data the interrupt. */
static void send_msi(void *owner, uint64_t address, uint32_t data)
{
    if (address >> 20 != IRQCHIP_LAPIC_BASE >> 20)
        return;
    bool logical = address >> 2 & 1, redirect = address >> 3 & 1;
    struct apic_message message = {
        .destination = address >> 12 & 0xFF,
        .logical = logical,
        .level = data >> 15 & 1,
        .vector = (uint8_t)data,
        .mode = data >> 8 & 7,
    };
    if (redirect && logical && message.mode == APIC_FIXED)
        message.mode = APIC_LOWEST;
    deliver(owner, &message);
}

struct msi_sink irqchip_msi(struct irqchip *chip)
{
    return (struct msi_sink){.send = send_msi, .owner = chip};
}

/* ---- the processors' side ---- */

bool irqchip_pending(const struct irqchip *chip, unsigned vcpu)
{
    return lapic_pending(&chip->lapic[vcpu]);
}

int irqchip_ack(struct irqchip *chip, unsigned vcpu)
{
    return lapic_ack(&chip->lapic[vcpu]);
}

uint8_t irqchip_tpr_read(const struct irqchip *chip, unsigned vcpu)
{
    return (uint8_t)(chip->lapic[vcpu].tpr >> 4);
}

void irqchip_tpr_write(struct irqchip *chip, unsigned vcpu, uint8_t cr8)
{
    lapic_tpr_write(&chip->lapic[vcpu], (uint32_t)cr8 << 4);
}

void irqchip_tsc_moved(struct irqchip *chip, unsigned vcpu)
{
    lapic_timer_arm(&chip->lapic[vcpu]);
}

bool irqchip_claims_msr(uint32_t msr)
{
    return msr == 0x1B || msr == 0x6E0 || (msr >= 0x800 && msr <= 0x8FF);
}

int irqchip_msr_read(struct irqchip *chip, unsigned vcpu, uint32_t msr, uint64_t *ret_value)
{
    return lapic_msr_read(&chip->lapic[vcpu], msr, ret_value);
}

int irqchip_msr_write(struct irqchip *chip, unsigned vcpu, uint32_t msr, uint64_t value)
{
    return lapic_msr_write(&chip->lapic[vcpu], msr, value);
}

bool irqchip_claims_mmio(const struct irqchip *chip, unsigned vcpu, uint64_t gpa)
{
    return lapic_claims(&chip->lapic[vcpu], gpa);
}

uint64_t irqchip_mmio_read(struct irqchip *chip, unsigned vcpu, uint64_t gpa, unsigned size)
{
    return lapic_mmio_read(&chip->lapic[vcpu], gpa & 0xFFF, size);
}

void irqchip_mmio_write(struct irqchip *chip, unsigned vcpu, uint64_t gpa, unsigned size, uint64_t value)
{
    lapic_mmio_write(&chip->lapic[vcpu], gpa & 0xFFF, size, value);
}

/* ---- the device ---- */

static struct irqchip *of(struct device *device)
{
    return (struct irqchip *)device; /* embedded first */
}

/* The 8259s and ELCRs are byte registers: the bytes of a wider access go to the ports that follow. */
static uint64_t chip_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    struct irqchip *chip = of(device);
    if (region == IRQCHIP_REGION_IOAPIC)
        return ioapic_read(&chip->ioapic, offset, size);
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        unsigned port = (unsigned)(offset + i) & 1;
        uint64_t byte = region == IRQCHIP_REGION_ELCR ? pic_elcr_read(&chip->pic, port)
                                                      : pic_read(&chip->pic, region == IRQCHIP_REGION_PIC_SLAVE, port);
        value |= byte << (8 * i);
    }
    return value;
}

static void chip_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct irqchip *chip = of(device);
    if (region == IRQCHIP_REGION_IOAPIC) {
        ioapic_write(&chip->ioapic, offset, value);
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        unsigned port = (unsigned)(offset + i) & 1;
        uint8_t byte = (uint8_t)(value >> (8 * i));
        if (region == IRQCHIP_REGION_ELCR)
            pic_elcr_write(&chip->pic, port, byte);
        else
            pic_write(&chip->pic, region == IRQCHIP_REGION_PIC_SLAVE, port, byte);
    }
}

static void chip_reset(struct device *device)
{
    struct irqchip *chip = of(device);
    ioapic_reset(&chip->ioapic);
    for (unsigned i = 0; i < chip->config.vcpus; i++)
        lapic_reset(&chip->lapic[i]);
    pic_reset(&chip->pic);
    chip->next = 0;
}

static void chip_save(const struct device *device, struct stream *stream)
{
    const struct irqchip *chip = (const struct irqchip *)device;
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_put_u32(stream, chip->config.vcpus);
    stream_put_u32(stream, chip->next);
    pic_save(&chip->pic, stream);
    ioapic_save(&chip->ioapic, stream);
    for (unsigned i = 0; i < chip->config.vcpus; i++)
        lapic_save(&chip->lapic[i], stream);
    stream_end(stream);
}

static int chip_load(struct device *device, struct stream *stream, struct error *error)
{
    struct irqchip *chip = of(device);
    const struct irqchip old = *chip; /* for the levels of the lines, should the load fail */
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    uint32_t vcpus = stream_get_u32(stream);
    if (vcpus != chip->config.vcpus)
        stream_fail(stream, "the saved machine has %u vCPUs, this one %u", vcpus, chip->config.vcpus);
    chip->next = stream_get_u32(stream) % chip->config.vcpus;
    pic_load(&chip->pic, stream);
    ioapic_load(&chip->ioapic, stream);
    for (unsigned i = 0; i < chip->config.vcpus; i++)
        lapic_load(&chip->lapic[i], stream);
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status) {
        chip->ioapic.level = old.ioapic.level;
        chip->pic.chip[0].lines = old.pic.chip[0].lines;
        chip->pic.chip[1].lines = old.pic.chip[1].lines;
        chip_reset(device);
    }
    return status;
}

static void chip_destroy(struct device *device)
{
    struct irqchip *chip = of(device);
    for (unsigned i = 0; i < chip->config.vcpus; i++)
        lapic_close(&chip->lapic[i]);
    free(chip);
}

static const struct device_ops irqchip_ops = {
    .name = "irqchip",
    .reset = chip_reset,
    .read = chip_read,
    .write = chip_write,
    .save = chip_save,
    .load = chip_load,
    .destroy = chip_destroy,
};

struct device *irqchip_device(struct irqchip *chip)
{
    return &chip->device;
}

struct irqchip *irqchip_new(const struct irqchip_config *config)
{
    if (config->vcpus < 1 || config->vcpus > IRQCHIP_VCPUS || !config->tsc_hz)
        return NULL;
    struct irqchip *chip = calloc(1, sizeof *chip + config->vcpus * sizeof chip->lapic[0]);
    if (!chip)
        return NULL;
    chip->device.ops = &irqchip_ops;
    chip->config = *config;
    chip->host = (struct lapic_host){.owner = chip, .clock = config->clock, .tsc_hz = config->tsc_hz,
                                     .tsc_read = read_tsc, .send = send, .eoi = broadcast_eoi,
                                     .interrupt = lapic_interrupts, .nmi = lapic_nmi, .extint = take_extint};
    chip->ioapic.owner = chip->pic.owner = chip;
    chip->ioapic.deliver = deliver;
    chip->pic.output = pic_output;
    for (unsigned i = 0; i < config->vcpus; i++) {
        if (lapic_open(&chip->lapic[i], &chip->host, i) != 0) {
            chip_destroy(&chip->device);
            return NULL;
        }
    }
    chip_reset(&chip->device);
    return chip;
}
