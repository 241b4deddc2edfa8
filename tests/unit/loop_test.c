/* The event loop: descriptors, timers in order, posted work, and removal at awkward moments. */
#include "base/loop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "check.h"

static struct loop *loop;
static char order[16];
static int used;
static struct loop_source *sources[2];
static int pipe_ends[2];

static void note(void *context)
{
    order[used++] = *(const char *)context;
}

static void stop(void *context)
{
    note(context);
    loop_stop(loop);
}

/* Both descriptors are ready in one batch; the first callback removes both sources. */
static void remove_both(void *context, uint32_t events)
{
    (void)events;
    note(context);
    loop_remove(sources[0]);
    loop_remove(sources[1]);
}

static void *post_from_thread(void *context)
{
    loop_post(loop, note, context);
    loop_post(loop, stop, "z");
    return NULL;
}

static struct loop_signal *signals[2];
static _Atomic unsigned given; /* what the poller may take */
static unsigned taken, slept, woken;

static void *raise_from_thread(void *context)
{
    (void)context;
    for (unsigned i = 0; i < 1000; i++) {
        atomic_fetch_add(&given, 1);
        loop_signal_raise(signals[0]);
    }
    loop_signal_raise(signals[1]);
    return NULL;
}

static bool poller_look(void *context)
{
    unsigned all = atomic_load(&given), was = taken;
    (void)context;
    taken = all;
    return all != was;
}

static void take(void *context)
{
    poller_look(context);
}

static bool poller_sleep(void *context)
{
    (void)context;
    slept++;
    return atomic_load(&given) != taken;
}

static void poller_wake(void *context)
{
    (void)context;
    woken++;
}

/* Signals from another thread: none is lost, and what was stored before is seen. A poller is looked at until it is removed. */
static void test_signals(void)
{
    static struct loop_poller poller = {.look = poller_look, .sleep = poller_sleep, .wake = poller_wake};
    pthread_t thread;
    used = 0;
    memset(order, 0, sizeof order);
    signals[0] = loop_signal_new(loop, stop, "s");
    loop_signal_raise(signals[0]);
    loop_signal_raise(signals[0]); /* one call for both */
    CHECK_EQ(loop_run(loop), 0);
    CHECK_STR(order, "s");
    loop_signal_raise(signals[0]);
    loop_signal_free(signals[0]); /* while raised */

    signals[0] = loop_signal_new(loop, take, NULL);
    signals[1] = loop_signal_new(loop, stop, "t");
    loop_add_poller(loop, &poller);
    pthread_create(&thread, NULL, raise_from_thread, NULL);
    CHECK_EQ(loop_run(loop), 0);
    pthread_join(thread, NULL);
    CHECK_STR(order, "st");
    CHECK_EQ(taken, 1000);
    CHECK(slept > 0);
    CHECK_EQ(slept, woken);
    loop_remove_poller(loop, &poller);
    unsigned before = slept;
    loop_signal_raise(signals[1]);
    CHECK_EQ(loop_run(loop), 0);
    CHECK_EQ(slept, before);
    loop_signal_free(signals[0]);
    loop_signal_free(signals[1]);
}

int main(void)
{
    struct error error;
    CHECK_EQ(loop_new(&loop, &error), 0);
    struct clock clock = loop_clock(loop);

    struct clock_timer *a = clock_timer_new(&clock, note, "a"), *b = clock_timer_new(&clock, note, "b"),
                       *c = clock_timer_new(&clock, stop, "c"), *never = clock_timer_new(&clock, note, "!");
    uint64_t now = clock_now(&clock);
    clock_timer_arm(&clock, c, now + 3000000);
    clock_timer_arm(&clock, a, now + 1000000);
    clock_timer_arm(&clock, never, now + 500000);
    clock_timer_arm(&clock, b, now + 2000000);
    clock_timer_arm(&clock, never, CLOCK_NEVER);
    CHECK_EQ(loop_run(loop), 0);
    CHECK_STR(order, "abc");

    clock_timer_arm(&clock, a, now); /* in the past: at once; freed while armed */
    clock_timer_free(&clock, a);
    clock_timer_arm(&clock, c, 0);
    CHECK_EQ(loop_run(loop), 0);
    CHECK_STR(order, "abcc");

    CHECK_EQ(pipe(pipe_ends), 0);
    CHECK_EQ(write(pipe_ends[1], "x", 1), 1);
    int copy = dup(pipe_ends[0]);
    CHECK_EQ(loop_add_fd(loop, pipe_ends[0], EPOLLIN, remove_both, "r", &sources[0]), 0);
    CHECK_EQ(loop_add_fd(loop, copy, EPOLLIN, remove_both, "r", &sources[1]), 0);
    struct loop_source *bad;
    CHECK(loop_add_fd(loop, -1, EPOLLIN, remove_both, "r", &bad) < 0);
    pthread_t thread;
    clock_timer_arm(&clock, b, clock_now(&clock) + 1000000);
    clock_timer_arm(&clock, c, clock_now(&clock) + 2000000);
    CHECK_EQ(loop_run(loop), 0);
    CHECK_STR(order, "abccrbc");

    pthread_create(&thread, NULL, post_from_thread, "p");
    CHECK_EQ(loop_run(loop), 0);
    pthread_join(thread, NULL);
    CHECK_STR(order, "abccrbcpz");

    clock_timer_free(&clock, b);
    clock_timer_free(&clock, c);
    clock_timer_free(&clock, never);
    clock_timer_free(&clock, NULL);
    test_signals();
    loop_free(loop);
    loop_free(NULL);
    close(copy);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    CHECK_DONE();
}
