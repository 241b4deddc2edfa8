/* loop.c - see loop.h.
 *
 * One epoll instance holds the caller's descriptors, one eventfd that other threads write to get the
 * serving thread's attention, and one timerfd armed for the earliest timer. Timers stand in a binary
 * heap under `lock`; so do posted work and the stop flag.
 *
 * A raised signal is pushed on a stack without a lock; whoever raises one writes the eventfd only while `asleep` is set,
 * and takes the flag back, so that a burst costs one write. The serving thread sets `asleep` and then looks at the
 * stack; a raiser pushes and then looks at `asleep`. Both are sequentially consistent: one of them sees the other.
 *
 * A source removed while the batch of ready events that names it is being served is marked dead and
 * freed after the batch. timer_free from another thread waits until that timer's callback has returned. */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
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
#define POLL_MIN 10000u     /* ns; less is not worth it */
#define POLL_SYSTEM 5000u   /* ns between looks at the descriptors while polling */

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

struct loop_signal {
    struct loop *loop;
    struct loop_signal *next; /* on the stack, while `raised` */
    _Atomic bool raised;
    bool dead; /* serving thread's */
    void (*call)(void *context);
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

    struct loop_signal *_Atomic signals; /* raised, not served */
    _Atomic bool asleep;
    _Atomic uint64_t woken_at; /* when a raiser last wrote the eventfd */
    struct loop_poller *pollers;
    uint64_t poll_ns, poll_max; /* how long to look before sleeping now, and ever */
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

/* On one processor whoever is polled for waits for the poller. */
static uint64_t poll_limit(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 1 ? LOOP_POLL_MAX : 0;
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
    loop->poll_max = poll_limit();
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

/* Those freed after they were raised. */
static void drop_signals(struct loop *loop)
{
    struct loop_signal *signal = atomic_exchange(&loop->signals, NULL), *next;
    for (; signal; signal = next) {
        next = signal->next;
        if (signal->dead)
            free(signal);
        else
            atomic_store(&signal->raised, false);
    }
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    free_sources(loop, false);
    drop_signals(loop);
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

struct loop_signal *loop_signal_new(struct loop *loop, void (*raised)(void *context), void *context)
{
    struct loop_signal *signal = calloc(1, sizeof *signal);
    if (signal)
        *signal = (struct loop_signal){.loop = loop, .call = raised, .context = context};
    return signal;
}

void loop_signal_raise(struct loop_signal *signal)
{
    struct loop *loop = signal->loop;
    if (atomic_exchange(&signal->raised, true))
        return; /* it is on the stack, and its callback is still to come */
    signal->next = atomic_load(&loop->signals);
    while (!atomic_compare_exchange_weak(&loop->signals, &signal->next, signal))
        ;
    if (atomic_load(&loop->asleep) && atomic_exchange(&loop->asleep, false)) {
        atomic_store_explicit(&loop->woken_at, now_ns(loop), memory_order_relaxed);
        wake(loop);
    }
}

void loop_signal_free(struct loop_signal *signal)
{
    if (!signal)
        return;
    if (atomic_load(&signal->raised))
        signal->dead = true; /* freed when it is taken from the stack */
    else
        free(signal);
}

/* True when there was one. */
static bool serve_signals(struct loop *loop)
{
    struct loop_signal *signal = atomic_load_explicit(&loop->signals, memory_order_acquire), *next;
    if (!signal)
        return false;
    for (signal = atomic_exchange(&loop->signals, NULL); signal; signal = next) {
        next = signal->next;
        if (signal->dead) {
            free(signal);
            continue;
        }
        atomic_store(&signal->raised, false); /* before the call: a raise from here on calls again */
        signal->call(signal->context);
    }
    return true;
}

void loop_add_poller(struct loop *loop, struct loop_poller *poller)
{
    poller->next = loop->pollers;
    loop->pollers = poller;
}

void loop_remove_poller(struct loop *loop, struct loop_poller *poller)
{
    for (struct loop_poller **at = &loop->pollers; *at; at = &(*at)->next)
        if (*at == poller) {
            *at = poller->next;
            return;
        }
}

static bool look(struct loop *loop)
{
    bool found = false;
    for (struct loop_poller *poller = loop->pollers, *next; poller; poller = next) {
        next = poller->next;
        found |= poller->look(poller->context);
    }
    return found;
}

/* Serves what the descriptors have, after waiting for at most `timeout` ms (-1: for ever). Returns 1 when the loop was asked to
 * stop, 0, or a negative errno; *ret_found tells whether there was anything. */
static int serve_descriptors(struct loop *loop, int timeout, bool *ret_found)
{
    struct epoll_event events[BATCH];
    int stop = 0, n = epoll_wait(loop->epoll, events, BATCH, timeout);
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
    *ret_found = n > 0;
    return stop;
}

/* Waits. A short sleep tells that polling would have found what woke it; a long one, that it would have been in vain. */
static int sleep_once(struct loop *loop, bool *ret_found)
{
    int timeout = -1;
    uint64_t slept = now_ns(loop);
    atomic_store(&loop->asleep, true);
    for (struct loop_poller *poller = loop->pollers; poller; poller = poller->next)
        if (poller->sleep(poller->context))
            timeout = 0;
    if (atomic_load(&loop->signals))
        timeout = 0;
    int status = serve_descriptors(loop, timeout, ret_found);
    atomic_store(&loop->asleep, false);
    for (struct loop_poller *poller = loop->pollers; poller; poller = poller->next)
        poller->wake(poller->context);
    if (timeout == 0)
        return status;
    /* What counts is when the news came, not how long the host then took to run this thread. */
    uint64_t news = atomic_load_explicit(&loop->woken_at, memory_order_relaxed);
    slept = (news > slept ? news : now_ns(loop)) - slept;
    if (slept > LOOP_POLL_MAX)
        loop->poll_ns = loop->poll_ns / 2 < POLL_MIN ? 0 : loop->poll_ns / 2;
    else
        loop->poll_ns = loop->poll_ns * 2 < POLL_MIN ? POLL_MIN : loop->poll_ns * 2;
    if (loop->poll_ns > loop->poll_max)
        loop->poll_ns = loop->poll_max;
    return status;
}

/* Looks at signals and pollers until nothing came for poll_ns; at the descriptors now and then. Once without pollers. */
static int poll_a_while(struct loop *loop)
{
    uint64_t now = now_ns(loop), idle_since = now, system = now;
    do {
        bool found = serve_signals(loop), found_fd = false;
        found |= look(loop);
        now = now_ns(loop);
        if (now - system >= POLL_SYSTEM) {
            int status = serve_descriptors(loop, 0, &found_fd);
            if (status)
                return status;
            system = now;
        }
        if (found || found_fd)
            idle_since = now;
        else
            __builtin_ia32_pause();
    } while (loop->pollers && now - idle_since < loop->poll_ns);
    return 0;
}

int loop_run(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->serving = pthread_self();
    pthread_mutex_unlock(&loop->lock);
    for (int status = 0; status == 0;) {
        bool found;
        status = poll_a_while(loop);
        if (status == 0)
            status = sleep_once(loop, &found);
        if (status < 0)
            return status;
    }
    return 0;
}
