/* lapic_registers.c - the registers of a local APIC; Intel SDM volume 3, "Local APIC".
 *
 * The same registers are reached as memory (xAPIC) and as MSRs (x2APIC); the two differ in what exists
 * and in how errors show: memory accesses set a bit in ESR, MSR accesses are #GP. */
#include "device/irq/lapic_private.h"

#define VERSION 0x00050014u /* an integrated APIC, six local vectors */
#define ESR_SEND_VECTOR 0x20u
#define ESR_REGISTER 0x80u
#define ICR_BUSY 0x1000u
#define ICR_RESERVED 0xFFF32000u /* bit 12 is not among them: guests write back what they read */
#define MSR_BASE 0x1Bu
#define MSR_TSC_DEADLINE 0x6E0u
#define MSR_X2APIC 0x800u

/* Register numbers: MMIO offset / 16, MSR - 0x800. */
enum {
    REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_APR = 0x09, REG_PPR = 0x0A, REG_EOI = 0x0B,
    REG_REMOTE = 0x0C, REG_LDR = 0x0D, REG_DFR = 0x0E, REG_SVR = 0x0F, REG_ISR = 0x10, REG_TMR = 0x18,
    REG_IRR = 0x20, REG_ESR = 0x28, REG_ICR_LOW = 0x30, REG_ICR_HIGH = 0x31, REG_LVT = 0x32,
    REG_LVT_END = REG_LVT + LAPIC_LVTS, REG_COUNT = 0x38, REG_COUNT_NOW = 0x39, REG_DIVIDE = 0x3E, REG_SELF = 0x3F
};

/* Delivery status and remote IRR: a write may carry them (Linux does, as it switches off), and drops them. */
#define LVT_READ_ONLY 0x5000u

/* ---- register writes ---- */

/* EOI ends what has the highest priority in service: the guest does not say which, interrupts nest. */
static void end_of_interrupt(struct lapic *lapic)
{
    int vector = lapic_vector_highest(lapic->isr);
    if (vector < 0)
        return;
    lapic_vector_clear(lapic->isr, (unsigned)vector);
    if (lapic_vector_test(lapic->tmr, (unsigned)vector))
        lapic->host->eoi(lapic->host->owner, (uint8_t)vector);
    lapic_update(lapic);
}

static void send_icr(struct lapic *lapic, bool wide)
{
    uint32_t low = (uint32_t)lapic->icr;
    struct apic_message message = {
        .destination = wide ? (uint32_t)(lapic->icr >> 32) : (uint32_t)(lapic->icr >> 56),
        .wide = wide,
        .logical = low >> 11 & 1,
        .level = false, /* interprocessor interrupts are edge-triggered; only INIT looks at the bit */
        .vector = (uint8_t)low,
        .mode = low >> 8 & 7,
    };
    if (message.mode == APIC_INIT && (low & 0xC000) == 0x8000)
        return; /* INIT level de-assert: for APICs before the Pentium 4 */
    if ((message.mode == APIC_FIXED || message.mode == APIC_LOWEST) && message.vector < 16)
        lapic_record_error(lapic, ESR_SEND_VECTOR);
    else
        lapic->host->send(lapic->host->owner, lapic->index, low >> 18 & 3, &message);
}

/* While SVR has the APIC off, local vectors cannot be unmasked. */
static void write_lvt(struct lapic *lapic, unsigned which, uint32_t value)
{
    value &= lapic_lvt_writable[which];
    if (!(lapic->svr & LAPIC_SVR_ENABLE))
        value |= LAPIC_LVT_MASKED;
    if (which == LAPIC_TIMER)
        lapic_timer_set_mode(lapic, value);
    lapic->lvt[which] = value;
    if (which == LAPIC_TIMER)
        lapic_timer_arm(lapic);
    lapic_update(lapic);
}

static void write_svr(struct lapic *lapic, uint32_t value)
{
    lapic->svr = value & LAPIC_SVR_WRITABLE;
    if (!(lapic->svr & LAPIC_SVR_ENABLE))
        for (unsigned i = 0; i < LAPIC_LVTS; i++)
            lapic->lvt[i] |= LAPIC_LVT_MASKED;
    lapic_update(lapic);
}

void lapic_tpr_write(struct lapic *lapic, uint32_t value)
{
    lapic->tpr = value & 0xFF;
    lapic_update(lapic);
}

/* The bits that a register accepts; in x2APIC mode others are #GP. 0 with *ret_exists false: no such register. */
static uint32_t writable_bits(unsigned reg, bool x2, bool *ret_exists)
{
    *ret_exists = true;
    if (reg >= REG_LVT && reg < REG_LVT_END)
        return lapic_lvt_writable[reg - REG_LVT] | LVT_READ_ONLY;
    switch (reg) {
    case REG_TPR: return 0xFF;
    case REG_EOI: return x2 ? 0 : UINT32_MAX;
    case REG_ESR: return x2 ? 0 : UINT32_MAX;
    case REG_SVR: return LAPIC_SVR_WRITABLE;
    case REG_COUNT: return UINT32_MAX;
    case REG_DIVIDE: return 0xB;
    case REG_ICR_LOW: return ~ICR_RESERVED;
    case REG_SELF: *ret_exists = x2; return 0xFF;
    case REG_LDR: case REG_DFR: case REG_ICR_HIGH: *ret_exists = !x2; return UINT32_MAX;
    default: *ret_exists = false; return 0;
    }
}

static void write_register(struct lapic *lapic, unsigned reg, uint32_t value)
{
    if (reg >= REG_LVT && reg < REG_LVT_END) {
        write_lvt(lapic, reg - REG_LVT, value);
        return;
    }
    switch (reg) {
    case REG_TPR: lapic_tpr_write(lapic, value); break;
    case REG_EOI: end_of_interrupt(lapic); break;
    case REG_LDR: lapic->ldr = value & 0xFF000000; break;
    case REG_DFR: lapic->dfr = value | 0x0FFFFFFF; break;
    case REG_SVR: write_svr(lapic, value); break;
    case REG_ESR: /* a write shows what was gathered since the last one, whatever is written */
        lapic->esr = lapic->esr_next;
        lapic->esr_next = 0;
        break;
    case REG_ICR_HIGH: lapic->icr = (uint32_t)lapic->icr | (uint64_t)(value & 0xFF000000) << 32; break;
    case REG_ICR_LOW:
        lapic->icr = (lapic->icr & ~UINT64_C(0xFFFFFFFF)) | (value & ~(ICR_RESERVED | ICR_BUSY));
        send_icr(lapic, lapic_x2apic(lapic));
        break;
    case REG_COUNT: lapic_timer_set_count(lapic, value); break;
    case REG_DIVIDE: lapic_timer_set_divide(lapic, value); break;
    case REG_SELF: lapic_fixed(lapic, (uint8_t)value, false); break;
    default: break;
    }
}

/* ---- register reads ---- */

static uint32_t ldr_of(const struct lapic *lapic)
{
    return lapic_x2apic(lapic) ? (lapic->index >> 4) << 16 | 1u << (lapic->index & 15) : lapic->ldr;
}

/* Arbitration priority: as the P6 family had it. */
static uint32_t arbitration(const struct lapic *lapic)
{
    int waiting = lapic_vector_highest(lapic->irr);
    uint32_t class = waiting < 0 ? 0 : (uint32_t)waiting & 0xF0;
    uint32_t priority = lapic_priority(lapic);
    return class > (priority & 0xF0) ? class : priority;
}

/* False when there is no such register to read. */
static bool read_register(const struct lapic *lapic, unsigned reg, uint32_t *ret_value)
{
    bool x2 = lapic_x2apic(lapic), exists = true;
    uint32_t value = 0;
    if (reg >= REG_ISR && reg < REG_ISR + 8) {
        value = lapic->isr[reg - REG_ISR];
    } else if (reg >= REG_TMR && reg < REG_TMR + 8) {
        value = lapic->tmr[reg - REG_TMR];
    } else if (reg >= REG_IRR && reg < REG_IRR + 8) {
        value = lapic->irr[reg - REG_IRR];
    } else if (reg >= REG_LVT && reg < REG_LVT_END) {
        value = lapic->lvt[reg - REG_LVT];
    } else {
        switch (reg) {
        case REG_ID: value = x2 ? lapic->index : lapic->index << 24; break;
        case REG_VERSION: value = VERSION; break;
        case REG_TPR: value = lapic->tpr; break;
        case REG_PPR: value = lapic_priority(lapic); break;
        case REG_LDR: value = ldr_of(lapic); break;
        case REG_SVR: value = lapic->svr; break;
        case REG_ESR: value = lapic->esr; break;
        case REG_ICR_LOW: value = (uint32_t)lapic->icr; break;
        case REG_COUNT: value = lapic->count; break;
        case REG_COUNT_NOW: value = lapic_timer_count(lapic); break;
        case REG_DIVIDE: value = lapic->divide; break;
        case REG_APR: value = arbitration(lapic); exists = !x2; break;
        case REG_DFR: value = lapic->dfr; exists = !x2; break;
        case REG_ICR_HIGH: value = (uint32_t)(lapic->icr >> 32); exists = !x2; break;
        case REG_EOI: case REG_REMOTE: exists = !x2; break;
        default: exists = false; break;
        }
    }
    *ret_value = value;
    return exists;
}

/* ---- the two ways to the registers ---- */

bool lapic_claims(const struct lapic *lapic, uint64_t gpa)
{
    uint64_t base = lapic_base(lapic);
    return (base & LAPIC_BASE_MODE) == LAPIC_BASE_ENABLE && (gpa & ~UINT64_C(0xFFF)) == (base & LAPIC_BASE_ADDRESS);
}

/* A register is the low four of sixteen bytes; the rest reads as zero. */
uint64_t lapic_mmio_read(struct lapic *lapic, unsigned offset, unsigned size)
{
    uint32_t value;
    unsigned byte = offset & 15;
    if (byte >= 4)
        return 0;
    if (!read_register(lapic, offset >> 4 & 0xFF, &value)) {
        lapic_record_error(lapic, ESR_REGISTER);
        return 0;
    }
    uint64_t shifted = value >> (8 * byte);
    return size >= 4 ? shifted : shifted & ((UINT64_C(1) << 8 * size) - 1);
}

/* "All accesses must be 32-bit": others are dropped, as is what is not aligned. */
void lapic_mmio_write(struct lapic *lapic, unsigned offset, unsigned size, uint64_t value)
{
    bool exists;
    if (size < 4 || (offset & 15))
        return;
    writable_bits(offset >> 4 & 0xFF, false, &exists);
    if (exists)
        write_register(lapic, offset >> 4 & 0xFF, (uint32_t)value);
    else
        lapic_record_error(lapic, ESR_REGISTER);
}

/* IA32_APIC_BASE: mode, place, and which processor is the bootstrap one (fixed here). */
static int write_base(struct lapic *lapic, uint64_t value)
{
    uint64_t old = lapic_base(lapic);
    uint64_t mode = value & LAPIC_BASE_MODE, old_mode = old & LAPIC_BASE_MODE;
    if (value & ~(LAPIC_BASE_ADDRESS | LAPIC_BASE_BSP | LAPIC_BASE_MODE))
        return -1;
    /* SDM "Local x2APIC state transitions": out of x2APIC mode only to disabled, into it only from xAPIC. */
    if (mode == LAPIC_BASE_X2APIC || (mode == LAPIC_BASE_ENABLE && old_mode == LAPIC_BASE_MODE) ||
        (mode == LAPIC_BASE_MODE && old_mode == 0))
        return -1;
    value = (value & ~(uint64_t)LAPIC_BASE_BSP) | (old & LAPIC_BASE_BSP);
    __atomic_store_n(&lapic->base, value, __ATOMIC_RELAXED);
    if (old_mode && !mode)
        lapic_init(lapic);
    if (mode == LAPIC_BASE_MODE && old_mode == LAPIC_BASE_ENABLE)
        lapic->icr = (uint32_t)lapic->icr; /* the upper half is not kept */
    lapic_update(lapic);
    return 0;
}

int lapic_msr_read(struct lapic *lapic, uint32_t msr, uint64_t *ret_value)
{
    uint32_t value;
    if (msr == MSR_BASE) {
        *ret_value = lapic_base(lapic);
        return 0;
    }
    if (msr == MSR_TSC_DEADLINE) {
        *ret_value = lapic_timer_deadline(lapic);
        return 0;
    }
    if (msr - MSR_X2APIC > 0xFF || !lapic_x2apic(lapic) || !read_register(lapic, msr - MSR_X2APIC, &value))
        return -1;
    *ret_value = msr - MSR_X2APIC == REG_ICR_LOW ? lapic->icr : value;
    return 0;
}

int lapic_msr_write(struct lapic *lapic, uint32_t msr, uint64_t value)
{
    if (msr == MSR_BASE)
        return write_base(lapic, value);
    if (msr == MSR_TSC_DEADLINE) {
        lapic_timer_set_deadline(lapic, value);
        return 0;
    }
    if (msr - MSR_X2APIC > 0xFF || !lapic_x2apic(lapic))
        return -1;
    bool exists;
    unsigned reg = msr - MSR_X2APIC;
    uint32_t bits = writable_bits(reg, true, &exists);
    uint64_t allowed = reg == REG_ICR_LOW ? bits | UINT64_C(0xFFFFFFFF00000000) : bits;
    if (!exists || (value & ~allowed))
        return -1;
    if (reg == REG_ICR_LOW) /* one 64-bit register here, destination and all */
        lapic->icr = value;
    write_register(lapic, reg, (uint32_t)value);
    return 0;
}
