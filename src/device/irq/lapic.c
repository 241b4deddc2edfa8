/* lapic.c - see lapic.h. The registers and the acceptance of interrupts; lapic_timer.c has the timer.
 *
 * An interrupt goes through three sets of 256 bits. IRR holds what was accepted and not yet taken by the
 * processor; lapic_ack moves the highest of them to ISR, where it keeps others of its class (vector / 16) and
 * below out until the guest's EOI clears it. TMR remembers which were level-triggered: their EOI goes on to the
 * I/O APIC. What may pass is decided by PPR, the higher of the task's priority and of what is in service.
 *
 * The 8259s stand beside all that: an ExtINT has no vector here, is not in IRR or ISR, and ignores PPR.
 * Whether one is pending is the level of LINT0, so it can go away again before it is taken.
 *
 * The same registers are reached as memory (xAPIC) and as MSRs (x2APIC); the two differ in what exists
 * and in how errors show: memory accesses set a bit in ESR, MSR accesses are #GP.
 *
 * Invariants: vectors below 16 are never in IRR, ISR or TMR; `pending` is what a fresh look would give
 * (update is called after each change of what it depends on). */
#include "device/irq/lapic.h"

#include <errno.h>
#include <string.h>

#define BASE_BSP 0x100u
#define BASE_X2APIC 0x400u
#define BASE_ENABLE 0x800u
#define BASE_ADDRESS UINT64_C(0x000FFFFFFFFFF000)
#define BASE_RESET UINT64_C(0xFEE00000)

#define VERSION 0x00050014u /* an integrated APIC, six local vectors */
#define SVR_ENABLE 0x100u
#define SVR_WRITABLE 0x3FFu
#define LVT_MASKED 0x10000u
#define ESR_SEND_VECTOR 0x20u
#define ESR_RECEIVE_VECTOR 0x40u
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

static const uint32_t lvt_writable[LAPIC_LVTS] = {
    [LAPIC_TIMER] = 0x700FF, [LAPIC_THERMAL] = 0x107FF, [LAPIC_COUNTERS] = 0x107FF,
    [LAPIC_LINT0] = 0x1A7FF, [LAPIC_LINT1] = 0x1A7FF,   [LAPIC_ERROR] = 0x100FF};

/* Atomic, as lapic_claims reads it without the board's lock. */
static uint64_t base_of(const struct lapic *lapic)
{
    return __atomic_load_n(&lapic->base, __ATOMIC_RELAXED);
}

static bool enabled(const struct lapic *lapic)
{
    return base_of(lapic) & BASE_ENABLE;
}

static bool x2apic(const struct lapic *lapic)
{
    return (base_of(lapic) & (BASE_ENABLE | BASE_X2APIC)) == (BASE_ENABLE | BASE_X2APIC);
}

/* ---- vectors and priorities ---- */

static void vector_set(uint32_t bits[8], unsigned vector)
{
    bits[vector / 32] |= 1u << vector % 32;
}

static void vector_clear(uint32_t bits[8], unsigned vector)
{
    bits[vector / 32] &= ~(1u << vector % 32);
}

static bool vector_test(const uint32_t bits[8], unsigned vector)
{
    return bits[vector / 32] >> vector % 32 & 1;
}

/* The highest vector, or -1. */
static int vector_highest(const uint32_t bits[8])
{
    for (int i = 7; i >= 0; i--)
        if (bits[i])
            return 32 * i + 31 - __builtin_clz(bits[i]);
    return -1;
}

uint8_t lapic_priority(const struct lapic *lapic)
{
    int serving = vector_highest(lapic->isr);
    uint32_t class = serving < 0 ? 0 : (uint32_t)serving & 0xF0;
    return (uint8_t)((lapic->tpr & 0xF0) >= class ? lapic->tpr : class);
}

/* The vector that may interrupt the processor now, or -1. */
static int deliverable(const struct lapic *lapic)
{
    int vector = enabled(lapic) ? vector_highest(lapic->irr) : -1;
    return vector >= 0 && (vector & 0xF0) > (lapic_priority(lapic) & 0xF0) ? vector : -1;
}

/* Whether the 8259s have the processor's attention: through LINT0, or past a disabled APIC. */
static bool extint_pending(const struct lapic *lapic)
{
    if (lapic->extint)
        return true;
    if (!lapic->lint0)
        return false;
    uint32_t lvt = lapic->lvt[LAPIC_LINT0];
    return !enabled(lapic) || (!(lvt & LVT_MASKED) && (lvt >> 8 & 7) == APIC_EXTINT);
}

/* Works out `pending` again. The vCPU is told each time it is true, not only on changes: it may have looked,
 * found interrupts disabled, and be waiting for exactly this vector. */
static void update(struct lapic *lapic)
{
    bool pending = extint_pending(lapic) || deliverable(lapic) >= 0;
    __atomic_store_n(&lapic->pending, pending, __ATOMIC_RELEASE);
    if (pending)
        lapic->host->interrupt(lapic->host->owner, lapic->index);
}

bool lapic_pending(const struct lapic *lapic)
{
    return __atomic_load_n(&lapic->pending, __ATOMIC_ACQUIRE);
}

int lapic_ack(struct lapic *lapic)
{
    int vector;
    if (extint_pending(lapic)) {
        lapic->extint = false;
        vector = lapic->host->extint(lapic->host->owner);
    } else {
        vector = deliverable(lapic);
        if (vector >= 0) {
            vector_clear(lapic->irr, (unsigned)vector);
            vector_set(lapic->isr, (unsigned)vector);
        }
    }
    update(lapic);
    return vector;
}

/* ---- acceptance ---- */

/* Records an error and, when it is new, raises the error vector: a bad error vector ends here too. */
static void record_error(struct lapic *lapic, uint32_t bit)
{
    if (lapic->esr_next & bit)
        return;
    lapic->esr_next |= bit;
    lapic_local(lapic, LAPIC_ERROR);
}

bool lapic_accepts(const struct lapic *lapic)
{
    return enabled(lapic) && (lapic->svr & SVR_ENABLE);
}

void lapic_fixed(struct lapic *lapic, uint8_t vector, bool level)
{
    if (!lapic_accepts(lapic))
        return;
    if (vector < 16) {
        record_error(lapic, ESR_RECEIVE_VECTOR);
        return;
    }
    /* An interrupt that is pending already is not counted: IRR is one bit, as in hardware. */
    vector_set(lapic->irr, vector);
    if (level)
        vector_set(lapic->tmr, vector);
    else
        vector_clear(lapic->tmr, vector);
    update(lapic);
}

void lapic_extint(struct lapic *lapic)
{
    lapic->extint = true;
    update(lapic);
}

void lapic_local(struct lapic *lapic, enum lapic_lvt which)
{
    uint32_t lvt = lapic->lvt[which];
    if (!enabled(lapic) || (lvt & LVT_MASKED))
        return;
    switch (which == LAPIC_TIMER || which == LAPIC_ERROR ? APIC_FIXED : (lvt >> 8 & 7)) {
    case APIC_FIXED:
        lapic_fixed(lapic, (uint8_t)lvt, which == LAPIC_LINT0 && (lvt & 0x8000));
        break;
    case APIC_NMI:
        lapic->host->nmi(lapic->host->owner, lapic->index);
        break;
    default: /* ExtINT is a level (extint_pending); SMI and INIT through a local vector do nothing here */
        break;
    }
}

/* The 8259s' output. As ExtINT it is looked at as a level; a guest that programs LINT0 as fixed or NMI (to
 * find out whether the timer can arrive that way) gets one interrupt for each rise. */
void lapic_lint0(struct lapic *lapic, bool level)
{
    bool rises = level && !lapic->lint0;
    lapic->lint0 = level;
    if (rises)
        lapic_local(lapic, LAPIC_LINT0);
    update(lapic);
}

static bool matches_logical(const struct lapic *lapic, const struct apic_message *message)
{
    uint32_t destination = message->destination;
    if (x2apic(lapic)) /* LDR: cluster in the high half, a bit in the low one */
        return destination >> 16 == lapic->index >> 4 && (destination >> (lapic->index & 15) & 1);
    if (destination > 0xFF)
        return false;
    uint32_t ldr = lapic->ldr >> 24;
    if (lapic->dfr >> 28 == 0xF) /* flat */
        return (ldr & destination) != 0;
    if (lapic->dfr >> 28 == 0) /* cluster */
        return (ldr >> 4 == destination >> 4 || destination >> 4 == 0xF) && (ldr & destination & 0xF) != 0;
    return false;
}

/* A destination of all ones is everybody, in physical and logical mode. An APIC that is off by its base register
 * hears nothing, not even INIT; one that is off by SVR still hears INIT, NMI and start-up. */
bool lapic_matches(const struct lapic *lapic, const struct apic_message *message)
{
    if (!enabled(lapic))
        return false;
    if (message->destination == (message->wide ? 0xFFFFFFFFu : 0xFFu))
        return true;
    return message->logical ? matches_logical(lapic, message) : message->destination == lapic->index;
}

/* ---- register writes ---- */

/* EOI ends what has the highest priority in service: the guest does not say which, interrupts nest. */
static void end_of_interrupt(struct lapic *lapic)
{
    int vector = vector_highest(lapic->isr);
    if (vector < 0)
        return;
    vector_clear(lapic->isr, (unsigned)vector);
    if (vector_test(lapic->tmr, (unsigned)vector))
        lapic->host->eoi(lapic->host->owner, (uint8_t)vector);
    update(lapic);
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
        record_error(lapic, ESR_SEND_VECTOR);
    else
        lapic->host->send(lapic->host->owner, lapic->index, low >> 18 & 3, &message);
}

/* While SVR has the APIC off, local vectors cannot be unmasked. */
static void write_lvt(struct lapic *lapic, unsigned which, uint32_t value)
{
    value &= lvt_writable[which];
    if (!(lapic->svr & SVR_ENABLE))
        value |= LVT_MASKED;
    if (which == LAPIC_TIMER)
        lapic_timer_set_mode(lapic, value);
    lapic->lvt[which] = value;
    if (which == LAPIC_TIMER)
        lapic_timer_arm(lapic);
    update(lapic);
}

static void write_svr(struct lapic *lapic, uint32_t value)
{
    lapic->svr = value & SVR_WRITABLE;
    if (!(lapic->svr & SVR_ENABLE))
        for (unsigned i = 0; i < LAPIC_LVTS; i++)
            lapic->lvt[i] |= LVT_MASKED;
    update(lapic);
}

void lapic_tpr_write(struct lapic *lapic, uint32_t value)
{
    lapic->tpr = value & 0xFF;
    update(lapic);
}

/* The bits that a register accepts; in x2APIC mode others are #GP. 0 with *ret_exists false: no such register. */
static uint32_t writable_bits(unsigned reg, bool x2, bool *ret_exists)
{
    *ret_exists = true;
    if (reg >= REG_LVT && reg < REG_LVT_END)
        return lvt_writable[reg - REG_LVT] | LVT_READ_ONLY;
    switch (reg) {
    case REG_TPR: return 0xFF;
    case REG_EOI: return x2 ? 0 : UINT32_MAX;
    case REG_ESR: return x2 ? 0 : UINT32_MAX;
    case REG_SVR: return SVR_WRITABLE;
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
        send_icr(lapic, x2apic(lapic));
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
    return x2apic(lapic) ? (lapic->index >> 4) << 16 | 1u << (lapic->index & 15) : lapic->ldr;
}

/* Arbitration priority: as the P6 family had it. */
static uint32_t arbitration(const struct lapic *lapic)
{
    int waiting = vector_highest(lapic->irr);
    uint32_t class = waiting < 0 ? 0 : (uint32_t)waiting & 0xF0;
    uint32_t priority = lapic_priority(lapic);
    return class > (priority & 0xF0) ? class : priority;
}

/* False when there is no such register to read. */
static bool read_register(const struct lapic *lapic, unsigned reg, uint32_t *ret_value)
{
    bool x2 = x2apic(lapic), exists = true;
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
    uint64_t base = base_of(lapic);
    return (base & (BASE_ENABLE | BASE_X2APIC)) == BASE_ENABLE && (gpa & ~UINT64_C(0xFFF)) == (base & BASE_ADDRESS);
}

/* A register is the low four of sixteen bytes; the rest reads as zero. */
uint64_t lapic_mmio_read(struct lapic *lapic, unsigned offset, unsigned size)
{
    uint32_t value;
    unsigned byte = offset & 15;
    if (byte >= 4)
        return 0;
    if (!read_register(lapic, offset >> 4 & 0xFF, &value)) {
        record_error(lapic, ESR_REGISTER);
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
        record_error(lapic, ESR_REGISTER);
}

/* IA32_APIC_BASE: mode, place, and which processor is the bootstrap one (fixed here). */
static int write_base(struct lapic *lapic, uint64_t value)
{
    uint64_t old = base_of(lapic);
    uint64_t mode = value & (BASE_ENABLE | BASE_X2APIC), old_mode = old & (BASE_ENABLE | BASE_X2APIC);
    if (value & ~(BASE_ADDRESS | BASE_BSP | BASE_ENABLE | BASE_X2APIC))
        return -1;
    /* SDM "Local x2APIC state transitions": out of x2APIC mode only to disabled, into it only from xAPIC. */
    if (mode == BASE_X2APIC || (mode == BASE_ENABLE && old_mode == (BASE_ENABLE | BASE_X2APIC)) ||
        (mode == (BASE_ENABLE | BASE_X2APIC) && old_mode == 0))
        return -1;
    value = (value & ~(uint64_t)BASE_BSP) | (old & BASE_BSP);
    __atomic_store_n(&lapic->base, value, __ATOMIC_RELAXED);
    if (old_mode && !mode)
        lapic_init(lapic);
    if (mode == (BASE_ENABLE | BASE_X2APIC) && old_mode == BASE_ENABLE)
        lapic->icr = (uint32_t)lapic->icr; /* the upper half is not kept */
    update(lapic);
    return 0;
}

int lapic_msr_read(struct lapic *lapic, uint32_t msr, uint64_t *ret_value)
{
    uint32_t value;
    if (msr == MSR_BASE) {
        *ret_value = base_of(lapic);
        return 0;
    }
    if (msr == MSR_TSC_DEADLINE) {
        *ret_value = lapic_timer_deadline(lapic);
        return 0;
    }
    if (msr - MSR_X2APIC > 0xFF || !x2apic(lapic) || !read_register(lapic, msr - MSR_X2APIC, &value))
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
    if (msr - MSR_X2APIC > 0xFF || !x2apic(lapic))
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

/* ---- life ---- */

void lapic_init(struct lapic *lapic)
{
    lapic->tpr = lapic->ldr = lapic->esr = lapic->esr_next = 0;
    lapic->dfr = UINT32_MAX;
    lapic->svr = 0xFF;
    lapic->icr = 0;
    lapic->divide = 0;
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        lapic->lvt[i] = LVT_MASKED;
    memset(lapic->irr, 0, sizeof lapic->irr);
    memset(lapic->isr, 0, sizeof lapic->isr);
    memset(lapic->tmr, 0, sizeof lapic->tmr);
    lapic->extint = false;
    lapic_timer_stop(lapic);
    update(lapic);
}

void lapic_reset(struct lapic *lapic)
{
    uint64_t base = BASE_RESET | BASE_ENABLE | (lapic->index == 0 ? BASE_BSP : 0);
    __atomic_store_n(&lapic->base, base, __ATOMIC_RELAXED);
    lapic_init(lapic);
    if (lapic->index == 0) /* virtual wire mode, as firmware leaves it */
        lapic->lvt[LAPIC_LINT0] = APIC_EXTINT << 8;
    update(lapic);
}

int lapic_open(struct lapic *lapic, const struct lapic_host *host, unsigned index)
{
    lapic->host = host;
    lapic->index = index;
    lapic->timer = clock_timer_new(host->clock, lapic_timer_fired, lapic);
    return lapic->timer ? 0 : -ENOMEM;
}

void lapic_close(struct lapic *lapic)
{
    if (lapic->timer)
        clock_timer_free(lapic->host->clock, lapic->timer);
    lapic->timer = NULL;
}

void lapic_save(const struct lapic *lapic, struct stream *stream)
{
    const uint32_t words[] = {lapic->tpr, lapic->ldr, lapic->dfr, lapic->svr, lapic->esr, lapic->esr_next,
                              lapic->divide, lapic->count};
    stream_put_u64(stream, base_of(lapic));
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        stream_put_u32(stream, words[i]);
    stream_put_u64(stream, lapic->icr);
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        stream_put_u32(stream, lapic->lvt[i]);
    for (unsigned i = 0; i < 8; i++) {
        stream_put_u32(stream, lapic->irr[i]);
        stream_put_u32(stream, lapic->isr[i]);
        stream_put_u32(stream, lapic->tmr[i]);
    }
    stream_put_u8(stream, lapic->extint);
    stream_put_u8(stream, lapic->counting);
    stream_put_u64(stream, lapic->counting ? clock_now(lapic->host->clock) - lapic->start : 0);
    stream_put_u64(stream, lapic->deadline);
}

/* What no sequence of guest accesses can bring about is refused. */
static bool sound(const struct lapic *lapic)
{
    uint64_t mode = lapic->base & (BASE_ENABLE | BASE_X2APIC);
    bool ok = !(lapic->base & ~(BASE_ADDRESS | BASE_BSP | BASE_ENABLE | BASE_X2APIC)) && mode != BASE_X2APIC;
    ok = ok && !(lapic->base & BASE_BSP) == (lapic->index != 0);
    ok = ok && lapic->tpr <= 0xFF && !(lapic->svr & ~SVR_WRITABLE) && !(lapic->divide & ~0xBu);
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        ok = ok && !(lapic->lvt[i] & ~lvt_writable[i]);
    ok = ok && !((lapic->irr[0] | lapic->isr[0] | lapic->tmr[0]) & 0xFFFF);
    return ok && !(lapic->counting && lapic->count == 0);
}

void lapic_load(struct lapic *lapic, struct stream *stream)
{
    uint32_t *const words[] = {&lapic->tpr, &lapic->ldr, &lapic->dfr, &lapic->svr, &lapic->esr, &lapic->esr_next,
                               &lapic->divide, &lapic->count};
    lapic_timer_stop(lapic);
    lapic->base = stream_get_u64(stream);
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        *words[i] = stream_get_u32(stream);
    lapic->icr = stream_get_u64(stream);
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        lapic->lvt[i] = stream_get_u32(stream);
    for (unsigned i = 0; i < 8; i++) {
        lapic->irr[i] = stream_get_u32(stream);
        lapic->isr[i] = stream_get_u32(stream);
        lapic->tmr[i] = stream_get_u32(stream);
    }
    lapic->extint = stream_get_u8(stream) != 0;
    lapic->counting = stream_get_u8(stream) != 0;
    lapic->start = clock_now(lapic->host->clock) - stream_get_u64(stream);
    lapic->deadline = stream_get_u64(stream);
    if (!sound(lapic)) {
        stream_fail(stream, "local APIC %u: a register has an impossible value", lapic->index);
        return;
    }
    lapic_timer_arm(lapic);
    update(lapic);
}
