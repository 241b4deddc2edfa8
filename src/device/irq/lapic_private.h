/* lapic_private.h - what the parts of a local APIC share: lapic.c, lapic_registers.c. */
#ifndef VENEER_DEVICE_IRQ_LAPIC_PRIVATE_H
#define VENEER_DEVICE_IRQ_LAPIC_PRIVATE_H

#include "device/irq/lapic.h"

/* IA32_APIC_BASE */
#define LAPIC_BASE_BSP 0x100u
#define LAPIC_BASE_X2APIC 0x400u
#define LAPIC_BASE_ENABLE 0x800u
#define LAPIC_BASE_MODE (LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC)
#define LAPIC_BASE_ADDRESS UINT64_C(0x000FFFFFFFFFF000)

#define LAPIC_SVR_ENABLE 0x100u
#define LAPIC_SVR_WRITABLE 0x3FFu
#define LAPIC_LVT_MASKED 0x10000u

/* The bits of each local vector that keep what is written. */
extern const uint32_t lapic_lvt_writable[LAPIC_LVTS];

/* Atomic, as lapic_claims reads it without the board's lock. */
static inline uint64_t lapic_base(const struct lapic *lapic)
{
    return __atomic_load_n(&lapic->base, __ATOMIC_RELAXED);
}

static inline bool lapic_enabled(const struct lapic *lapic)
{
    return lapic_base(lapic) & LAPIC_BASE_ENABLE;
}

static inline bool lapic_x2apic(const struct lapic *lapic)
{
    return (lapic_base(lapic) & LAPIC_BASE_MODE) == LAPIC_BASE_MODE;
}

/* Sets of vectors: IRR, ISR, TMR. */
static inline void lapic_vector_set(uint32_t bits[8], unsigned vector)
{
    bits[vector / 32] |= 1u << vector % 32;
}

static inline void lapic_vector_clear(uint32_t bits[8], unsigned vector)
{
    bits[vector / 32] &= ~(1u << vector % 32);
}

static inline bool lapic_vector_test(const uint32_t bits[8], unsigned vector)
{
    return bits[vector / 32] >> vector % 32 & 1;
}

/* The highest vector, or -1. */
static inline int lapic_vector_highest(const uint32_t bits[8])
{
    for (int i = 7; i >= 0; i--)
        if (bits[i])
            return 32 * i + 31 - __builtin_clz(bits[i]);
    return -1;
}

/* Works out `pending` again: after each change of what it depends on. */
void lapic_update(struct lapic *lapic);
/* Records an error (a bit of ESR) and, when it is new, raises the error vector. */
void lapic_record_error(struct lapic *lapic, uint32_t bit);

#endif
