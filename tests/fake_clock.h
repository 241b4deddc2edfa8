/* fake_clock.h - a clock turned by hand, for tests of devices: timers fire inside fake_clock_advance. */
#ifndef VENEER_TESTS_FAKE_CLOCK_H
#define VENEER_TESTS_FAKE_CLOCK_H

#include <stdlib.h>

#include "base/clock.h"

struct clock_timer {
    struct clock_timer *next;
    uint64_t deadline;
    void (*fire)(void *context);
    void *context;
};

struct fake_clock {
    uint64_t now; /* nanoseconds */
    int64_t wall_base; /* wall time when now was 0 */
    struct clock_timer *timers;
    struct clock clock;
};

static uint64_t fake_now(void *owner)
{
    return ((struct fake_clock *)owner)->now;
}

static int64_t fake_wall(void *owner)
{
    const struct fake_clock *fake = owner;
    return fake->wall_base + (int64_t)(fake->now / 1000000000u);
}

static struct clock_timer *fake_timer_new(void *owner, void (*fire)(void *), void *context)
{
    struct fake_clock *fake = owner;
    struct clock_timer *timer = malloc(sizeof *timer);
    if (!timer)
        return NULL;
    *timer = (struct clock_timer){.next = fake->timers, .deadline = CLOCK_NEVER, .fire = fire, .context = context};
    fake->timers = timer;
    return timer;
}

static void fake_timer_free(void *owner, struct clock_timer *timer)
{
    struct fake_clock *fake = owner;
    for (struct clock_timer **link = &fake->timers; *link; link = &(*link)->next) {
        if (*link == timer) {
            *link = timer->next;
            free(timer);
            return;
        }
    }
}

static void fake_timer_arm(void *owner, struct clock_timer *timer, uint64_t deadline)
{
    (void)owner;
    timer->deadline = deadline;
}

static const struct clock_ops fake_clock_ops = {
    .now = fake_now, .wall = fake_wall, .timer_new = fake_timer_new, .timer_free = fake_timer_free,
    .timer_arm = fake_timer_arm};

static inline void fake_clock_open(struct fake_clock *fake, uint64_t now, int64_t wall)
{
    *fake = (struct fake_clock){.now = now, .wall_base = wall};
    fake->clock = (struct clock){.ops = &fake_clock_ops, .owner = fake};
}

/* Goes on by ns, firing each timer at its deadline (or now, for one that is past), at most `limit` of
 * them; returns how many fired. */
static inline unsigned fake_clock_run(struct fake_clock *fake, uint64_t ns, unsigned limit)
{
    uint64_t target = fake->now + ns;
    unsigned fired = 0;
    while (fired < limit) {
        struct clock_timer *first = NULL;
        for (struct clock_timer *timer = fake->timers; timer; timer = timer->next)
            if (timer->deadline != CLOCK_NEVER && timer->deadline <= target && (!first || timer->deadline < first->deadline))
                first = timer;
        if (!first)
            break;
        if (first->deadline > fake->now)
            fake->now = first->deadline;
        first->deadline = CLOCK_NEVER;
        first->fire(first->context);
        fired++;
    }
    fake->now = target;
    return fired;
}

static inline unsigned fake_clock_advance(struct fake_clock *fake, uint64_t ns)
{
    return fake_clock_run(fake, ns, 1000000);
}

#endif
