/* irqchip.h - the interrupt controllers of a board: local APICs, one I/O APIC, an 8259 pair.
 *
 * One device, saved as one. Every function is called with the board's lock held, unless it says
 * otherwise; so are the callbacks of struct irqchip_config (they only wake or mark a vCPU, and never call
 * back in here).
 *
 * Wiring: ISA interrupt n drives 8259 input n and I/O APIC pin n, except that ISA 0 (the 8254) drives
 * pin 2: the MADT needs that one override. Pins 16-23 have no 8259 input. The 8259s reach vCPU 0
 * through LINT0, which starts as ExtINT, unmasked, as firmware leaves it (virtual wire mode). */
#ifndef VENEER_DEVICE_IRQ_IRQCHIP_H
#define VENEER_DEVICE_IRQ_IRQCHIP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "device/device.h"

#define IRQCHIP_VCPUS 64          /* at most */
#define IRQCHIP_GSIS 24           /* pins of the I/O APIC */
#define IRQCHIP_TIMER_HZ 1000000000u /* what the local APIC's timer counts at before its divider */
#define IRQCHIP_IOAPIC_BASE 0xFEC00000u
#define IRQCHIP_IOAPIC_SIZE 0x1000u
#define IRQCHIP_IOAPIC_ID 0u      /* for the MADT; I/O APIC IDs are apart from local ones */
#define IRQCHIP_LAPIC_BASE 0xFEE00000u

/* Regions of irqchip_device for bus_map. */
enum {
    IRQCHIP_REGION_IOAPIC,     /* MMIO IRQCHIP_IOAPIC_BASE, IRQCHIP_IOAPIC_SIZE */
    IRQCHIP_REGION_PIC_MASTER, /* ports 0x20-0x21 */
    IRQCHIP_REGION_PIC_SLAVE,  /* ports 0xA0-0xA1 */
    IRQCHIP_REGION_ELCR        /* ports 0x4D0-0x4D1 */
};

struct irqchip;

struct irqchip_config {
    unsigned vcpus;            /* 1 to IRQCHIP_VCPUS; the APIC ID of a vCPU is its index */
    const struct clock *clock; /* outlives the chip; its callbacks come with the board's lock held */
    uint64_t tsc_hz;           /* of the guest's TSC, for TSC-deadline timers; not 0 */
    void *owner;
    uint64_t (*tsc_read)(void *owner, unsigned vcpu); /* the guest's TSC now; from any thread */
    /* irqchip_pending(vcpu) has become true, or stays so with a higher vector: see engine interrupt. */
    void (*interrupt)(void *owner, unsigned vcpu);
    void (*nmi)(void *owner, unsigned vcpu);
    void (*init)(void *owner, unsigned vcpu); /* its local APIC is reset already */
    /* Start-up IPI: a vCPU that waits for one begins at vector << 12; others ignore it. */
    void (*sipi)(void *owner, unsigned vcpu, uint8_t vector);
};

/* In the state of a powered-up board. NULL when there is no memory or the config is out of range. */
struct irqchip *irqchip_new(const struct irqchip_config *config);

/* For the board's reset, save, load and destroy (which frees the chip), and for bus_map. */
struct device *irqchip_device(struct irqchip *chip);

/* The wire of ISA interrupt 0-15, or of GSI 16-23. Level changes go to both controllers. */
struct irq_line irqchip_line(struct irqchip *chip, unsigned irq);
struct msi_sink irqchip_msi(struct irqchip *chip);

/* True when irqchip_ack would give a vector. Any thread, no lock: a hint when the lock is not held. */
bool irqchip_pending(const struct irqchip *chip, unsigned vcpu);
/* Takes the interrupt that the processor accepts now: its vector, or -1 when there is none. */
int irqchip_ack(struct irqchip *chip, unsigned vcpu);

/* CR8: bits 7:4 of the task priority. cr8 is 0-15. */
uint8_t irqchip_tpr_read(const struct irqchip *chip, unsigned vcpu);
void irqchip_tpr_write(struct irqchip *chip, unsigned vcpu, uint8_t cr8);

/* IA32_APIC_BASE (0x1B), IA32_TSC_DEADLINE (0x6E0), x2APIC (0x800-0x8FF). 0, or -1: #GP. */
bool irqchip_claims_msr(uint32_t msr);
int irqchip_msr_read(struct irqchip *chip, unsigned vcpu, uint32_t msr, uint64_t *ret_value);
int irqchip_msr_write(struct irqchip *chip, unsigned vcpu, uint32_t msr, uint64_t value);

/* The vCPU's TSC was set: its TSC-deadline timer looks again. */
void irqchip_tsc_moved(struct irqchip *chip, unsigned vcpu);

/* True when gpa is in the vCPU's own xAPIC page now (APIC_BASE may move it, x2APIC mode removes it);
 * accesses then go to these instead of the bus. Any thread for the vCPU's own; no lock. */
bool irqchip_claims_mmio(const struct irqchip *chip, unsigned vcpu, uint64_t gpa);
uint64_t irqchip_mmio_read(struct irqchip *chip, unsigned vcpu, uint64_t gpa, unsigned size);
void irqchip_mmio_write(struct irqchip *chip, unsigned vcpu, uint64_t gpa, unsigned size, uint64_t value);

#endif
