/* board_clock.c - the clock that devices get: the loop's, with the board's lock held around each timer. */
#include <stdlib.h>

#include "machine/machine_private.h"

struct board_timer {
    struct machine *machine;
    struct clock_timer *inner;
    void (*fire)(void *context);
    void *context;
};

static uint64_t now(void *owner)
{
    return clock_now(&((struct machine *)owner)->loop_clock);
}

static int64_t wall(void *owner)
{
    return clock_wall(&((struct machine *)owner)->loop_clock);
}

static void fire(void *context)
{
    struct board_timer *timer = context;
    pthread_mutex_lock(&timer->machine->lock);
    timer->fire(timer->context);
    pthread_mutex_unlock(&timer->machine->lock);
}

static struct clock_timer *timer_new(void *owner, void (*callback)(void *), void *context)
{
    struct machine *machine = owner;
    struct board_timer *timer = malloc(sizeof *timer);
    if (!timer)
        return NULL;
    *timer = (struct board_timer){machine, NULL, callback, context};
    timer->inner = clock_timer_new(&machine->loop_clock, fire, timer);
    if (!timer->inner) {
        free(timer);
        return NULL;
    }
    return (struct clock_timer *)timer;
}

static void timer_free(void *owner, struct clock_timer *opaque)
{
    struct board_timer *timer = (struct board_timer *)opaque;
    if (!timer)
        return;
    clock_timer_free(&((struct machine *)owner)->loop_clock, timer->inner);
    free(timer);
}

static void timer_arm(void *owner, struct clock_timer *opaque, uint64_t deadline)
{
    clock_timer_arm(&((struct machine *)owner)->loop_clock, ((struct board_timer *)opaque)->inner, deadline);
}

struct clock board_clock(struct machine *machine)
{
    static const struct clock_ops ops = {now, wall, timer_new, timer_free, timer_arm};
    return (struct clock){&ops, machine};
}
