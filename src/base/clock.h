/* clock.h - time, passed in, so that tests can turn it by hand.
 *
 * A timer fires once, at or after its deadline, on the thread that serves the clock (the VM's event
 * loop; in a test, the caller of the fake clock's advance). Its callback runs with no lock held. */
#ifndef VENEER_BASE_CLOCK_H
#define VENEER_BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_NEVER UINT64_MAX

struct clock_timer; /* made by the clock */

struct clock_ops {
    /* Nanoseconds of a clock that never goes back. Any thread. */
    uint64_t (*now)(void *owner);
    /* Seconds since 1970, UTC, for a guest's battery clock. Any thread. */
    int64_t (*wall)(void *owner);
    /* NULL when there is no memory. */
    struct clock_timer *(*timer_new)(void *owner, void (*fire)(void *context), void *context);
    /* After this returns the callback does not run and will not. NULL is allowed. Not from a callback. */
    void (*timer_free)(void *owner, struct clock_timer *timer);
    /* Deadline in the nanoseconds of `now`; CLOCK_NEVER disarms. Any thread. */
    void (*timer_arm)(void *owner, struct clock_timer *timer, uint64_t deadline);
};

struct clock {
    const struct clock_ops *ops;
    void *owner;
};

static inline uint64_t clock_now(const struct clock *clock) { return clock->ops->now(clock->owner); }
static inline int64_t clock_wall(const struct clock *clock) { return clock->ops->wall(clock->owner); }
static inline struct clock_timer *clock_timer_new(const struct clock *clock, void (*fire)(void *), void *context)
{
    return clock->ops->timer_new(clock->owner, fire, context);
}
static inline void clock_timer_free(const struct clock *clock, struct clock_timer *timer)
{
    clock->ops->timer_free(clock->owner, timer);
}
static inline void clock_timer_arm(const struct clock *clock, struct clock_timer *timer, uint64_t deadline)
{
    clock->ops->timer_arm(clock->owner, timer, deadline);
}

#endif
