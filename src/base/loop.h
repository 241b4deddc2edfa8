/* loop.h - the event loop: file descriptors, timers, signals and posted work on one thread.
 *
 * loop_run serves until loop_stop. Callbacks run on the serving thread, one at a time.
 * loop_post, loop_signal_new, loop_signal_raise, loop_stop and the clock's functions may be called from any thread; the rest
 * from the serving thread, or before it serves.
 *
 * A loop with pollers does not sleep at once when there is nothing to do: it looks at them again and again
 * for a time that follows from how long it slept lately (0 to LOOP_POLL_MAX), since waking a thread costs more than
 * many looks. A loop that sleeps long polls no more, so that an idle one costs nothing. */
#ifndef VENEER_BASE_LOOP_H
#define VENEER_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/error.h"

struct loop;
struct loop_source;
struct loop_signal;

#define LOOP_POLL_MAX 100000u /* ns */

int loop_new(struct loop **ret_loop, struct error *error);
/* Frees the loop and every source still in it; not from a callback. NULL is allowed. */
void loop_free(struct loop *loop);

/* Calls ready(context, events) while the descriptor has any of `events` (EPOLLIN, EPOLLOUT ...; level
 * triggered). The descriptor stays the caller's. Returns 0 or a negative errno. */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, void (*ready)(void *context, uint32_t events),
                void *context, struct loop_source **ret_source);
/* Changes the events waited for; 0 pauses. Returns 0 or a negative errno. */
int loop_set_events(struct loop_source *source, uint32_t events);
/* Removes a source; allowed in its own callback. NULL is allowed. */
void loop_remove(struct loop_source *source);

/* Runs work(context) on the serving thread, in the order posted. Returns 0 or -ENOMEM. */
int loop_post(struct loop *loop, void (*work)(void *context), void *context);

/* Calls raised(context) on the serving thread after one or more raises. NULL when there is no memory. */
struct loop_signal *loop_signal_new(struct loop *loop, void (*raised)(void *context), void *context);
/* Never fails, and is cheap while the loop is awake. What the caller stored before is visible to the callback. */
void loop_signal_raise(struct loop_signal *signal);
/* NULL is allowed. The callback does not run any more when it is freed on the serving thread, or while nobody serves. */
void loop_signal_free(struct loop_signal *signal);

/* Something in memory that the loop looks at before it sleeps. */
struct loop_poller {
    bool (*look)(void *context);  /* serves what is there; true when there was something */
    bool (*sleep)(void *context); /* the loop will sleep: ask to be woken. True: something is there, do not sleep */
    void (*wake)(void *context);  /* the loop is awake: nobody needs to wake it */
    void *context;
    struct loop_poller *next; /* the loop's */
};

/* The poller is the caller's and stays until it is removed (not from its own callbacks). Starts awake. */
void loop_add_poller(struct loop *loop, struct loop_poller *poller);
void loop_remove_poller(struct loop *loop, struct loop_poller *poller);

/* Serves until loop_stop; returns 0, or a negative errno when waiting itself fails. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* The real clock, whose timers fire on this loop's thread. Valid while the loop is. */
struct clock loop_clock(struct loop *loop);

#endif
