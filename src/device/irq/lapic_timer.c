/* lapic_timer.c - the timer of a local APIC; Intel SDM volume 3, "APIC Timer".
 *
 * The count is never stepped: `start` says when it began, and what it is now follows from the clock. All
 * arithmetic on clock times is by differences, so that it stays right whatever the clock's origin is.
 * The clock's callback may come late, or for a deadline that was since changed; it looks for itself. */
#include "device/irq/irqchip.h"
#include "device/irq/lapic.h"

#define NS_PER_SECOND 1000000000u
#define NS_PER_COUNT (NS_PER_SECOND / IRQCHIP_TIMER_HZ)
/* A period shorter than this is served at this one, so that a guest cannot occupy the host's event loop. */
#define PERIOD_MIN_NS 100000u

enum { MODE_ONE_SHOT = 0, MODE_PERIODIC = 1, MODE_DEADLINE = 2 };

static unsigned mode_of(uint32_t lvt)
{
    return lvt >> 17 & 3;
}

/* TDCR bits 3, 1 and 0: 000 divides by 2 ... 110 by 128, 111 by 1. */
static unsigned divider(uint32_t divide)
{
    unsigned code = (divide & 3) | (divide >> 1 & 4);
    return 1u << ((code + 1) & 7);
}

static uint64_t tick_ns(const struct lapic *lapic)
{
    return (uint64_t)divider(lapic->divide) * NS_PER_COUNT;
}

static uint64_t elapsed_ns(const struct lapic *lapic)
{
    return clock_now(lapic->host->clock) - lapic->start;
}

static void arm_after(struct lapic *lapic, uint64_t ns)
{
    uint64_t now = clock_now(lapic->host->clock);
    clock_timer_arm(lapic->host->clock, lapic->timer, ns < CLOCK_NEVER - 1 - now ? now + ns : CLOCK_NEVER - 1);
}

/* Nanoseconds until the TSC reaches the deadline, rounded up; 0 when it has. */
static uint64_t until_deadline(const struct lapic *lapic)
{
    uint64_t tsc = lapic->host->tsc_read(lapic->host->owner, lapic->index);
    if (tsc >= lapic->deadline)
        return 0;
    unsigned __int128 ns = (unsigned __int128)(lapic->deadline - tsc) * NS_PER_SECOND / lapic->host->tsc_hz + 1;
    return ns < UINT64_MAX / 4 ? (uint64_t)ns : UINT64_MAX / 4;
}

void lapic_timer_stop(struct lapic *lapic)
{
    lapic->counting = false;
    lapic->count = 0;
    lapic->deadline = 0;
    clock_timer_arm(lapic->host->clock, lapic->timer, CLOCK_NEVER);
}

/* The TSC decides, not the clock that woke us: converting between them rounds, and the two drift apart over
 * a long wait. Too early just waits again. */
static void service_deadline(struct lapic *lapic)
{
    if (!lapic->deadline)
        return;
    uint64_t wait = until_deadline(lapic);
    if (wait) {
        arm_after(lapic, wait);
        return;
    }
    lapic->deadline = 0;
    lapic_local(lapic, LAPIC_TIMER);
}

/* Periods that passed unserved (the host was busy) make one interrupt, as they would in IRR. `start` moves on by
 * whole periods, so that lateness does not shift the ones to come. */
static void service_count(struct lapic *lapic)
{
    if (!lapic->counting)
        return;
    uint64_t period = lapic->count * tick_ns(lapic), elapsed = elapsed_ns(lapic);
    if (elapsed < period) {
        arm_after(lapic, period - elapsed);
        return;
    }
    if (mode_of(lapic->lvt[LAPIC_TIMER]) == MODE_PERIODIC) {
        lapic->start += elapsed - elapsed % period;
        uint64_t wait = period - elapsed % period;
        arm_after(lapic, wait < PERIOD_MIN_NS && period < PERIOD_MIN_NS ? PERIOD_MIN_NS : wait);
    } else {
        lapic->counting = false;
    }
    lapic_local(lapic, LAPIC_TIMER);
}

/* Serves what is due and arms the clock for the rest. */
void lapic_timer_arm(struct lapic *lapic)
{
    if (mode_of(lapic->lvt[LAPIC_TIMER]) == MODE_DEADLINE)
        service_deadline(lapic);
    else
        service_count(lapic);
}

void lapic_timer_fired(void *context)
{
    lapic_timer_arm(context);
}

uint32_t lapic_timer_count(const struct lapic *lapic)
{
    if (!lapic->counting)
        return 0;
    uint64_t ticks = elapsed_ns(lapic) / tick_ns(lapic);
    if (mode_of(lapic->lvt[LAPIC_TIMER]) == MODE_PERIODIC)
        return lapic->count - (uint32_t)(ticks % lapic->count);
    return ticks < lapic->count ? lapic->count - (uint32_t)ticks : 0;
}

void lapic_timer_set_count(struct lapic *lapic, uint32_t count)
{
    if (mode_of(lapic->lvt[LAPIC_TIMER]) == MODE_DEADLINE)
        return; /* "writes to the initial-count register are ignored" */
    lapic_timer_stop(lapic);
    if (!count)
        return;
    lapic->count = count;
    lapic->start = clock_now(lapic->host->clock);
    lapic->counting = true;
    lapic_timer_arm(lapic);
}

/* What was counted stays counted; only the rest runs at the new rate. */
void lapic_timer_set_divide(struct lapic *lapic, uint32_t divide)
{
    uint64_t counted = lapic->counting ? lapic->count - lapic_timer_count(lapic) : 0;
    lapic->divide = divide & 0xB;
    if (!lapic->counting)
        return;
    lapic->start = clock_now(lapic->host->clock) - counted * tick_ns(lapic);
    lapic_timer_arm(lapic);
}

/* Going to or from TSC-deadline mode disarms the timer. */
void lapic_timer_set_mode(struct lapic *lapic, uint32_t lvt)
{
    if ((mode_of(lvt) == MODE_DEADLINE) != (mode_of(lapic->lvt[LAPIC_TIMER]) == MODE_DEADLINE))
        lapic_timer_stop(lapic);
}

uint64_t lapic_timer_deadline(const struct lapic *lapic)
{
    return mode_of(lapic->lvt[LAPIC_TIMER]) == MODE_DEADLINE ? lapic->deadline : 0;
}

void lapic_timer_set_deadline(struct lapic *lapic, uint64_t deadline)
{
    if (mode_of(lapic->lvt[LAPIC_TIMER]) != MODE_DEADLINE)
        return;
    lapic_timer_stop(lapic);
    lapic->deadline = deadline;
    lapic_timer_arm(lapic);
}
