/* loop.c - see loop.h.
 *
 * One epoll instance holds the caller's descriptors, one eventfd that other threads write to get the
 * serving thread's attention, and one timerfd armed for the earliest timer. Timers stand in a binary
 * heap under `lock`; so do posted work and the stop flag.
 *
 * A source removed while the batch of ready events that names it is being served is marked dead and
 * freed after the batch. timer_free from another thread waits until that timer's callback has returned. */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NOT_IN_HEAP SIZE_MAX
#define BATCH 32

struct clock_timer {
    uint64_t deadline;
    size_t slot; /* in the heap, or NOT_IN_HEAP */
    void (*fire)(void *context);
    void *context;
};

struct loop_source {
    struct loop *loop;
    struct loop_source *next;
    int fd;
    bool dead;
    void (*ready)(void *context, uint32_t events);
    void *context;
};

struct work {
    struct work *next;
    void (*run)(void *context);
    void *context;
};

struct loop {
    int epoll, event, timer;
    pthread_mutex_t lock;
    pthread_cond_t fired; /* a timer callback returned */
    struct clock_timer **heap;
    size_t heap_used, heap_size;
    uint64_t armed;             /* what the timerfd is set to */
    struct clock_timer *firing; /* its callback runs now */
    pthread_t serving;
    struct work *first, **last;
    bool stop;
    struct loop_source *sources;
};

static uint64_t now_ns(void *owner)
{
    (void)owner;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int64_t wall_seconds(void *owner)
{
    (void)owner;
    return (int64_t)time(NULL);
}

static void set_slot(struct loop *loop, size_t slot, struct clock_timer *timer)
{
    loop->heap[slot] = timer;
    timer->slot = slot;
}

/* Restores the heap order around one slot whose deadline changed. */
static void heap_settle(struct loop *loop, size_t slot)
{
    struct clock_timer *timer = loop->heap[slot];
    while (slot > 0 && loop->heap[(slot - 1) / 2]->deadline > timer->deadline) {
        set_slot(loop, slot, loop->heap[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * slot + 1;
        if (child >= loop->heap_used)
            break;
        if (child + 1 < loop->heap_used && loop->heap[child + 1]->deadline < loop->heap[child]->deadline)
            child++;
        if (loop->heap[child]->deadline >= timer->deadline)
            break;
        set_slot(loop, slot, loop->heap[child]);
        slot = child;
    }
    set_slot(loop, slot, timer);
}

static void heap_remove(struct loop *loop, struct clock_timer *timer)
{
    size_t slot = timer->slot;
    if (slot == NOT_IN_HEAP)
        return;
    timer->slot = NOT_IN_HEAP;
    struct clock_timer *last = loop->heap[--loop->heap_used];
    if (last == timer)
        return;
    set_slot(loop, slot, last);
    heap_settle(loop, slot);
}

/* Sets the timerfd for the earliest timer, when it must fire sooner than it is set to. */
static void arm(struct loop *loop)
{
    uint64_t earliest = loop->heap_used ? loop->heap[0]->deadline : CLOCK_NEVER;
    if (earliest >= loop->armed)
        return;
    loop->armed = earliest;
    if (!earliest)
        earliest = 1; /* 0 would disarm */
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(earliest / 1000000000u),
                                           .tv_nsec = (long)(earliest % 1000000000u)}};
    timerfd_settime(loop->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static struct clock_timer *timer_new(void *owner, void (*fire)(void *), void *context)
{
    struct loop *loop = owner;
    struct clock_timer *timer = calloc(1, sizeof *timer);
    if (!timer)
        return NULL;
    *timer = (struct clock_timer){.slot = NOT_IN_HEAP, .fire = fire, .context = context};
    /* Room in the heap is made here, so that arming cannot fail. Every timer may be armed at once; the
     * count of live timers is kept in heap_size. */
    pthread_mutex_lock(&loop->lock);
    struct clock_timer **grown = realloc(loop->heap, (loop->heap_size + 1) * sizeof(struct clock_timer *));
    if (grown) {
        loop->heap = grown;
        loop->heap_size++;
    }
    pthread_mutex_unlock(&loop->lock);
    if (!grown) {
        free(timer);
        return NULL;
    }
    return timer;
}

static void timer_free(void *owner, struct clock_timer *timer)
{
    struct loop *loop = owner;
    if (!timer)
        return;
    pthread_mutex_lock(&loop->lock);
    heap_remove(loop, timer);
    while (loop->firing == timer && !pthread_equal(loop->serving, pthread_self()))
        pthread_cond_wait(&loop->fired, &loop->lock);
    heap_remove(loop, timer); /* the callback may have armed it again */
    loop->heap_size--;
    pthread_mutex_unlock(&loop->lock);
    free(timer);
}

static void timer_arm(void *owner, struct clock_timer *timer, uint64_t deadline)
{
    struct loop *loop = owner;
    pthread_mutex_lock(&loop->lock);
    timer->deadline = deadline;
    if (deadline == CLOCK_NEVER) {
        heap_remove(loop, timer);
    } else {
        if (timer->slot == NOT_IN_HEAP)
            set_slot(loop, loop->heap_used++, timer);
        heap_settle(loop, timer->slot);
        arm(loop);
    }
    pthread_mutex_unlock(&loop->lock);
}

static const struct clock_ops loop_clock_ops = {
    .now = now_ns, .wall = wall_seconds, .timer_new = timer_new, .timer_free = timer_free, .timer_arm = timer_arm};

struct clock loop_clock(struct loop *loop)
{
    return (struct clock){.ops = &loop_clock_ops, .owner = loop};
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    while (write(loop->event, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void drain(int fd)
{
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
}

int loop_new(struct loop **ret_loop, struct error *error)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return error_set(error, ENOMEM, "making an event loop: no memory");
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->last = &loop->first;
    loop->armed = CLOCK_NEVER;
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->fired, NULL);
    /* The loop's own two descriptors are told from sources by data.ptr: the loop, and its timer field. */
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = loop};
    struct epoll_event timer = {.events = EPOLLIN, .data.ptr = &loop->timer};
    if (loop->epoll < 0 || loop->event < 0 || loop->timer < 0 ||
        epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->event, &event) < 0 ||
        epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->timer, &timer) < 0) {
        int code = errno;
        loop_free(loop);
        return error_set(error, code, "making an event loop: %s", strerror(code));
    }
    *ret_loop = loop;
    return 0;
}

static void free_sources(struct loop *loop, bool only_dead)
{
    for (struct loop_source **at = &loop->sources; *at;) {
        struct loop_source *source = *at;
        if (only_dead && !source->dead) {
            at = &source->next;
            continue;
        }
        *at = source->next;
        free(source);
    }
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    free_sources(loop, false);
    for (struct work *work = loop->first, *next; work; work = next) {
        next = work->next;
        free(work);
    }
    if (loop->epoll >= 0)
        close(loop->epoll);
    if (loop->event >= 0)
        close(loop->event);
    if (loop->timer >= 0)
        close(loop->timer);
    pthread_cond_destroy(&loop->fired);
    pthread_mutex_destroy(&loop->lock);
    free(loop->heap);
    free(loop);
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, void (*ready)(void *context, uint32_t events),
                void *context, struct loop_source **ret_source)
{
    struct loop_source *source = calloc(1, sizeof *source);
    if (!source)
        return -ENOMEM;
    *source = (struct loop_source){.loop = loop, .fd = fd, .ready = ready, .context = context};
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        int code = errno;
        free(source);
        return -code;
    }
    source->next = loop->sources;
    loop->sources = source;
    *ret_source = source;
    return 0;
}

int loop_set_events(struct loop_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(source->loop->epoll, EPOLL_CTL_MOD, source->fd, &event) < 0 ? -errno : 0;
}

void loop_remove(struct loop_source *source)
{
    if (!source)
        return;
    epoll_ctl(source->loop->epoll, EPOLL_CTL_DEL, source->fd, NULL);
    source->dead = true; /* freed after the batch being served, or with the loop */
}

int loop_post(struct loop *loop, void (*run)(void *context), void *context)
{
    struct work *work = malloc(sizeof *work);
    if (!work)
        return -ENOMEM;
    *work = (struct work){.run = run, .context = context};
    pthread_mutex_lock(&loop->lock);
    *loop->last = work;
    loop->last = &work->next;
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
    return 0;
}

void loop_stop(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->stop = true;
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
}

/* Runs the timers that are due, then arms for the next. */
static void serve_timers(struct loop *loop)
{
    drain(loop->timer);
    pthread_mutex_lock(&loop->lock);
    loop->armed = CLOCK_NEVER;
    uint64_t now = now_ns(loop);
    while (loop->heap_used && loop->heap[0]->deadline <= now) {
        struct clock_timer *timer = loop->heap[0];
        heap_remove(loop, timer);
        loop->firing = timer;
        pthread_mutex_unlock(&loop->lock);
        timer->fire(timer->context);
        pthread_mutex_lock(&loop->lock);
        loop->firing = NULL;
        pthread_cond_broadcast(&loop->fired);
    }
    arm(loop);
    pthread_mutex_unlock(&loop->lock);
}

/* Runs posted work; returns true when the loop was asked to stop. */
static bool serve_posted(struct loop *loop)
{
    drain(loop->event);
    pthread_mutex_lock(&loop->lock);
    struct work *work = loop->first;
    loop->first = NULL;
    loop->last = &loop->first;
    bool stop = loop->stop;
    loop->stop = false;
    pthread_mutex_unlock(&loop->lock);
    while (work) {
        struct work *next = work->next;
        work->run(work->context);
        free(work);
        work = next;
    }
    return stop;
}

int loop_run(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->serving = pthread_self();
    pthread_mutex_unlock(&loop->lock);
    for (bool stop = false; !stop;) {
        struct epoll_event events[BATCH];
        int n = epoll_wait(loop->epoll, events, BATCH, -1);
        if (n < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < n; i++) {
            void *what = events[i].data.ptr;
            if (what == loop) {
                stop |= serve_posted(loop);
            } else if (what == &loop->timer) {
                serve_timers(loop);
            } else {
                struct loop_source *source = what;
                if (!source->dead)
                    source->ready(source->context, events[i].events);
            }
        }
        free_sources(loop, true);
    }
    return 0;
}
