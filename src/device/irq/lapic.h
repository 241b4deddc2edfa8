/* lapic.h - one local APIC, as irqchip.c sees it: xAPIC and x2APIC registers, priorities, timer.
 *
 * Intel SDM volume 3, chapter "Advanced Programmable Interrupt Controller". What concerns other
 * controllers leaves through struct lapic_host. The board's lock is held in every call but lapic_pending. */
#ifndef VENEER_DEVICE_IRQ_LAPIC_H
#define VENEER_DEVICE_IRQ_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/stream.h"

/* Delivery modes of interrupt messages and local vectors. */
enum apic_mode {
    APIC_FIXED = 0,
    APIC_LOWEST = 1,
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_SIPI = 6,
    APIC_EXTINT = 7
};

enum apic_shorthand { APIC_NONE, APIC_SELF, APIC_ALL, APIC_OTHERS };

/* What an ICR write, an I/O APIC pin or an MSI sends. */
struct apic_message {
    uint32_t destination;
    bool wide; /* a 32-bit x2APIC destination; else 8 bits, of which 0xFF is everybody */
    bool logical;
    bool level;
    uint8_t vector;
    enum apic_mode mode;
};

enum lapic_lvt { LAPIC_TIMER, LAPIC_THERMAL, LAPIC_COUNTERS, LAPIC_LINT0, LAPIC_LINT1, LAPIC_ERROR, LAPIC_LVTS };

struct lapic_host {
    void *owner;
    const struct clock *clock;
    uint64_t tsc_hz;
    uint64_t (*tsc_read)(void *owner, unsigned index);
    void (*send)(void *owner, unsigned index, enum apic_shorthand shorthand, const struct apic_message *message);
    void (*eoi)(void *owner, uint8_t vector); /* a level-triggered one */
    void (*interrupt)(void *owner, unsigned index);
    void (*nmi)(void *owner, unsigned index);
    int (*extint)(void *owner); /* the 8259s' vector */
};

struct lapic {
    const struct lapic_host *host;
    unsigned index; /* of the vCPU, and the APIC ID */
    uint64_t base;  /* IA32_APIC_BASE */
    uint32_t tpr, ldr, dfr, svr, esr, esr_next;
    uint64_t icr;
    uint32_t lvt[LAPIC_LVTS];
    uint32_t irr[8], isr[8], tmr[8];
    bool lint0;  /* level of the 8259s' output */
    bool extint; /* an ExtINT message is to be taken */
    bool pending; /* lapic_pending's answer; atomic */
    struct clock_timer *timer;
    uint32_t divide, count; /* TDCR, TICR */
    uint64_t start;         /* clock time when the count was written, or when this period began */
    bool counting;
    uint64_t deadline; /* IA32_TSC_DEADLINE; 0: disarmed */
};

/* 0 or -ENOMEM. lapic_close accepts a zeroed one. */
int lapic_open(struct lapic *lapic, const struct lapic_host *host, unsigned index);
void lapic_close(struct lapic *lapic);
void lapic_reset(struct lapic *lapic); /* power-up */
void lapic_init(struct lapic *lapic);  /* INIT: the base register stays */

/* Whether the message is for this one. */
bool lapic_matches(const struct lapic *lapic, const struct apic_message *message);
/* Enabled, by APIC_BASE and by the spurious-vector register: takes fixed interrupts. */
bool lapic_accepts(const struct lapic *lapic);
void lapic_fixed(struct lapic *lapic, uint8_t vector, bool level);
void lapic_extint(struct lapic *lapic);
void lapic_lint0(struct lapic *lapic, bool level);
uint8_t lapic_priority(const struct lapic *lapic); /* PPR */

bool lapic_pending(const struct lapic *lapic);
int lapic_ack(struct lapic *lapic);

void lapic_tpr_write(struct lapic *lapic, uint32_t value);
bool lapic_claims(const struct lapic *lapic, uint64_t gpa);
uint64_t lapic_mmio_read(struct lapic *lapic, unsigned offset, unsigned size);
void lapic_mmio_write(struct lapic *lapic, unsigned offset, unsigned size, uint64_t value);
/* 0, or -1: #GP. */
int lapic_msr_read(struct lapic *lapic, uint32_t msr, uint64_t *ret_value);
int lapic_msr_write(struct lapic *lapic, uint32_t msr, uint64_t value);

/* Fields in an open section. load leaves what it found wrong in the stream's status. */
void lapic_save(const struct lapic *lapic, struct stream *stream);
void lapic_load(struct lapic *lapic, struct stream *stream);

/* lapic_timer.c: the parts of the timer that the registers need. */
void lapic_timer_fired(void *context);
void lapic_timer_stop(struct lapic *lapic);
void lapic_timer_arm(struct lapic *lapic);
uint32_t lapic_timer_count(const struct lapic *lapic); /* TCCR */
void lapic_timer_set_count(struct lapic *lapic, uint32_t count);
void lapic_timer_set_divide(struct lapic *lapic, uint32_t divide);
void lapic_timer_set_mode(struct lapic *lapic, uint32_t lvt); /* before lvt[] is changed to this */
uint64_t lapic_timer_deadline(const struct lapic *lapic);
void lapic_timer_set_deadline(struct lapic *lapic, uint64_t deadline);
/* Raises a local vector, as its delivery mode says. */
void lapic_local(struct lapic *lapic, enum lapic_lvt which);

#endif
