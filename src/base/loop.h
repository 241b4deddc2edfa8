/* loop.h - the event loop: file descriptors, timers and posted work on one thread.
 *
 * loop_run serves until loop_stop. Callbacks run on the serving thread, one at a time.
 * loop_post, loop_stop and the clock's functions may be called from any thread; the rest from the
 * serving thread, or before it serves. */
#ifndef VENEER_BASE_LOOP_H
#define VENEER_BASE_LOOP_H

#include <stdint.h>

#include "base/clock.h"
#include "base/error.h"

struct loop;
struct loop_source;

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

/* Serves until loop_stop; returns 0, or a negative errno when waiting itself fails. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* The real clock, whose timers fire on this loop's thread. Valid while the loop is. */
struct clock loop_clock(struct loop *loop);

#endif
