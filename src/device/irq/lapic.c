/* lapic.c - see lapic.h. The acceptance of interrupts, and the whole; lapic_registers.c has the registers, lapic_timer.c the
 * timer.
 *
 * An interrupt goes through three sets of 256 bits. IRR holds what was accepted and not yet taken by the
 * processor; lapic_ack moves the highest of them to ISR, where it keeps others of its class (vector / 16) and
 * below out until the guest's EOI clears it. TMR remembers which were level-triggered: their EOI goes on to the
 * I/O APIC. What may pass is decided by PPR, the higher of the task's priority and of what is in service.
 *
 * The 8259s stand beside all that: an ExtINT has no vector here, is not in IRR or ISR, and ignores PPR.
 * Whether one is pending is the level of LINT0, so it can go away again before it is taken.
 *
 * Invariants: vectors below 16 are never in IRR, ISR or TMR; `pending` is what a fresh look would give
 * (lapic_update is called after each change of what it depends on). */
#include "device/irq/lapic.h"

#include <errno.h>
#include <string.h>

#include "device/irq/lapic_private.h"

#define BASE_RESET UINT64_C(0xFEE00000)
#define ESR_RECEIVE_VECTOR 0x40u

const uint32_t lapic_lvt_writable[LAPIC_LVTS] = {
    [LAPIC_TIMER] = 0x700FF, [LAPIC_THERMAL] = 0x107FF, [LAPIC_COUNTERS] = 0x107FF,
    [LAPIC_LINT0] = 0x1A7FF, [LAPIC_LINT1] = 0x1A7FF,   [LAPIC_ERROR] = 0x100FF};

/* ---- vectors and priorities ---- */

uint8_t lapic_priority(const struct lapic *lapic)
{
    int serving = lapic_vector_highest(lapic->isr);
    uint32_t class = serving < 0 ? 0 : (uint32_t)serving & 0xF0;
    return (uint8_t)((lapic->tpr & 0xF0) >= class ? lapic->tpr : class);
}

/* The vector that may interrupt the processor now, or -1. */
static int deliverable(const struct lapic *lapic)
{
    int vector = lapic_enabled(lapic) ? lapic_vector_highest(lapic->irr) : -1;
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
    return !lapic_enabled(lapic) || (!(lvt & LAPIC_LVT_MASKED) && (lvt >> 8 & 7) == APIC_EXTINT);
}

/* Works out `pending` again. The vCPU is told each time it is true, not only on changes: it may have looked,
 * found interrupts disabled, and be waiting for exactly this vector. */
void lapic_update(struct lapic *lapic)
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
            lapic_vector_clear(lapic->irr, (unsigned)vector);
            lapic_vector_set(lapic->isr, (unsigned)vector);
        }
    }
    lapic_update(lapic);
    return vector;
}

/* ---- acceptance ---- */

/* Records an error and, when it is new, raises the error vector: a bad error vector ends here too. */
void lapic_record_error(struct lapic *lapic, uint32_t bit)
{
    if (lapic->esr_next & bit)
        return;
    lapic->esr_next |= bit;
    lapic_local(lapic, LAPIC_ERROR);
}

bool lapic_accepts(const struct lapic *lapic)
{
    return lapic_enabled(lapic) && (lapic->svr & LAPIC_SVR_ENABLE);
}

void lapic_fixed(struct lapic *lapic, uint8_t vector, bool level)
{
    if (!lapic_accepts(lapic))
        return;
    if (vector < 16) {
        lapic_record_error(lapic, ESR_RECEIVE_VECTOR);
        return;
    }
    /* An interrupt that is pending already is not counted: IRR is one bit, as in hardware. */
    lapic_vector_set(lapic->irr, vector);
    if (level)
        lapic_vector_set(lapic->tmr, vector);
    else
        lapic_vector_clear(lapic->tmr, vector);
    lapic_update(lapic);
}

void lapic_extint(struct lapic *lapic)
{
    lapic->extint = true;
    lapic_update(lapic);
}

void lapic_local(struct lapic *lapic, enum lapic_lvt which)
{
    uint32_t lvt = lapic->lvt[which];
    if (!lapic_enabled(lapic) || (lvt & LAPIC_LVT_MASKED))
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
    lapic_update(lapic);
}

static bool matches_logical(const struct lapic *lapic, const struct apic_message *message)
{
    uint32_t destination = message->destination;
    if (lapic_x2apic(lapic)) /* LDR: cluster in the high half, a bit in the low one */
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
    if (!lapic_enabled(lapic))
        return false;
    if (message->destination == (message->wide ? 0xFFFFFFFFu : 0xFFu))
        return true;
    return message->logical ? matches_logical(lapic, message) : message->destination == lapic->index;
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
        lapic->lvt[i] = LAPIC_LVT_MASKED;
    memset(lapic->irr, 0, sizeof lapic->irr);
    memset(lapic->isr, 0, sizeof lapic->isr);
    memset(lapic->tmr, 0, sizeof lapic->tmr);
    lapic->extint = false;
    lapic_timer_stop(lapic);
    lapic_update(lapic);
}

void lapic_reset(struct lapic *lapic)
{
    uint64_t base = BASE_RESET | LAPIC_BASE_ENABLE | (lapic->index == 0 ? LAPIC_BASE_BSP : 0);
    __atomic_store_n(&lapic->base, base, __ATOMIC_RELAXED);
    lapic_init(lapic);
    if (lapic->index == 0) /* virtual wire mode, as firmware leaves it */
        lapic->lvt[LAPIC_LINT0] = APIC_EXTINT << 8;
    lapic_update(lapic);
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
    stream_put_u64(stream, lapic_base(lapic));
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
    uint64_t mode = lapic->base & LAPIC_BASE_MODE;
    bool ok = !(lapic->base & ~(LAPIC_BASE_ADDRESS | LAPIC_BASE_BSP | LAPIC_BASE_MODE)) && mode != LAPIC_BASE_X2APIC;
    ok = ok && !(lapic->base & LAPIC_BASE_BSP) == (lapic->index != 0);
    ok = ok && lapic->tpr <= 0xFF && !(lapic->svr & ~LAPIC_SVR_WRITABLE) && !(lapic->divide & ~0xBu);
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        ok = ok && !(lapic->lvt[i] & ~lapic_lvt_writable[i]);
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
    lapic_update(lapic);
}
