/* device.c - the I/O side of a device: what its thread is told, its queues' turns, and how it comes to rest. See virtio.h.
 *
 * The board's side leaves bits (`control`, `kicked`) and raises one signal; `serve` takes them on the I/O thread. So a vCPU
 * that notifies a queue does an atomic or, and a system call only when the thread sleeps.
 *
 *   state        started  stopping  paused   elements in flight
 *   inactive        -        -        any      none
 *   active          x        -        -        any
 *   resetting       x        x        any      fall to none, then inactive, and the transport is told
 *   pausing         x        -        x        fall to none, then `quiet`
 *
 * While the loop is awake it polls the queues that said to be empty (`waiting`) and the driver need not notify; before it
 * sleeps it asks for notifications and looks once more. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "device/virtio/virtio_private.h"

/* ---- any thread ---- */

void virtio_io_kick(struct virtio_device *device, unsigned queue)
{
    atomic_fetch_or(&device->io->kicked, UINT64_C(1) << queue);
    loop_signal_raise(device->io->signal);
}

void virtio_io_control(struct virtio_device *device, unsigned bit)
{
    atomic_fetch_or(&device->io->control, bit);
    loop_signal_raise(device->io->signal);
}

void virtio_io_allow(struct virtio_device *device, bool dma)
{
    if (atomic_exchange(&device->io->dma, dma) || !dma)
        return;
    atomic_store(&device->io->kicked, UINT64_MAX); /* what was notified meanwhile was not looked at */
    loop_signal_raise(device->io->signal);
}

bool virtio_has(const struct virtio_device *device, unsigned feature)
{
    return atomic_load_explicit(&device->driver_features, memory_order_acquire) >> feature & 1;
}

void virtio_config_set(struct virtio_device *device, unsigned offset, const void *bytes, unsigned length)
{
    if (!range_within(offset, length, device->config_size))
        return;
    device->env.lock(device->env.owner);
    memcpy(device->config + offset, bytes, length);
    if (device->transport)
        device->transport->ops->config_changed(device->transport);
    device->env.unlock(device->env.owner);
}

void virtio_config_get(struct virtio_device *device, unsigned offset, void *ret_bytes, unsigned length)
{
    memset(ret_bytes, 0, length);
    if (!range_within(offset, length, device->config_size))
        return;
    device->env.lock(device->env.owner);
    memcpy(ret_bytes, device->config + offset, length);
    device->env.unlock(device->env.owner);
}

static void await_quiet(struct virtio_io *io, bool quiet)
{
    pthread_mutex_lock(&io->lock);
    while (io->quiet != quiet)
        pthread_cond_wait(&io->changed, &io->lock);
    pthread_mutex_unlock(&io->lock);
}

void virtio_pause(struct virtio_device *device)
{
    virtio_io_control(device, VIRTIO_IO_PAUSE);
    await_quiet(device->io, true);
}

void virtio_resume(struct virtio_device *device)
{
    virtio_io_control(device, VIRTIO_IO_RESUME);
    await_quiet(device->io, false);
}

/* ---- the I/O thread ---- */

static void set_quiet(struct virtio_io *io, bool quiet)
{
    pthread_mutex_lock(&io->lock);
    io->quiet = quiet;
    pthread_cond_broadcast(&io->changed);
    pthread_mutex_unlock(&io->lock);
}

void virtio_needs_reset(struct virtio_device *device, const char *reason)
{
    /* Once in a device's life: a hostile driver must not fill the log. */
    if (!device->io->complained)
        log_warning("%s: %s; it does nothing until the guest resets it", device->ops->name, reason);
    device->io->complained = true;
    if (device->transport)
        device->transport->ops->needs_reset(device->transport);
}

/* Gives the queue its turn if it was waiting for one; true when it had. */
static bool turn(struct virtio_device *device, unsigned index)
{
    struct virtio_io *io = device->io;
    uint64_t bit = UINT64_C(1) << index;
    if (!(io->waiting & bit))
        return false;
    io->waiting &= ~bit;
    device->ops->process(device, device->queue[index]);
    return true;
}

static bool idle(const struct virtio_io *io)
{
    return !io->started || io->stopping || io->paused;
}

static bool poller_look(void *context)
{
    struct virtio_device *device = context;
    struct virtio_io *io = device->io;
    bool found = false;
    if (idle(io))
        return false;
    for (uint64_t left = io->waiting; left; left &= left - 1) {
        unsigned index = (unsigned)__builtin_ctzll(left);
        if (virtqueue_available(device->queue[index]))
            found |= turn(device, index);
    }
    return found;
}

/* A broken ring is not touched; nor is one that the function may not reach. */
static void notifications(struct virtio_device *device, bool on)
{
    struct virtio_io *io = device->io;
    for (uint64_t left = io->waiting; left && !idle(io) && atomic_load(&io->dma); left &= left - 1) {
        struct virtqueue *queue = device->queue[__builtin_ctzll(left)];
        if (queue->ring && !queue->broken)
            queue->ring->set_notify(queue, on);
    }
}

static bool poller_sleep(void *context)
{
    struct virtio_device *device = context;
    notifications(device, true);
    for (uint64_t left = device->io->waiting; left && !idle(device->io); left &= left - 1)
        if (virtqueue_available(device->queue[__builtin_ctzll(left)]))
            return true;
    return false;
}

static void poller_wake(void *context)
{
    notifications(context, false);
}

static void process_all(struct virtio_device *device)
{
    device->io->waiting = 0;
    for (unsigned i = 0; i < device->queues; i++) {
        if (!device->queue[i]->ring)
            continue;
        device->io->waiting |= UINT64_C(1) << i;
        turn(device, i);
    }
}

static void start(struct virtio_device *device)
{
    struct virtio_io *io = device->io;
    io->started = true;
    for (unsigned i = 0; i < device->queues; i++) {
        virtqueue_attach(device->queue[i], &io->from[i]);
        io->from[i] = VIRTQUEUE_BEGIN;
    }
    loop_add_poller(device->env.loop, &io->poller);
    if (device->ops->start)
        device->ops->start(device);
    process_all(device);
}

static void stop(struct virtio_device *device)
{
    struct virtio_io *io = device->io;
    if (!io->started || io->stopping)
        return;
    io->stopping = true;
    io->waiting = 0;
    if (device->ops->stop)
        device->ops->stop(device);
}

/* Nothing is in flight: what waited for that goes on. */
static void settle(struct virtio_device *device)
{
    struct virtio_io *io = device->io;
    if (io->in_flight)
        return;
    if (io->stopping) {
        loop_remove_poller(device->env.loop, &io->poller);
        for (unsigned i = 0; i < device->queues; i++)
            virtqueue_detach(device->queue[i]);
        io->started = io->stopping = false;
        device->transport->ops->stopped(device->transport);
    }
    if (io->paused && !io->quiet)
        set_quiet(io, true);
}

static void resume(struct virtio_device *device)
{
    struct virtio_io *io = device->io;
    bool was = io->paused;
    io->paused = false;
    set_quiet(io, false);
    if (!was || !io->started || io->stopping)
        return;
    if (device->ops->resume)
        device->ops->resume(device);
    process_all(device);
}

static void pause_device(struct virtio_device *device)
{
    struct virtio_io *io = device->io;
    if (io->paused)
        return;
    io->paused = true;
    if (io->started && !io->stopping && device->ops->pause)
        device->ops->pause(device);
}

/* The order matters where several bits came at once: what a driver did in one go (start, configuration, reset) is done in
 * that order. A start waits, as its bit, while the device is paused. */
static void serve_control(struct virtio_device *device, unsigned bits)
{
    struct virtio_io *io = device->io;
    if (bits & VIRTIO_IO_RESUME)
        resume(device);
    if (bits & VIRTIO_IO_START) {
        if (!io->paused)
            start(device);
        else if (bits & VIRTIO_IO_STOP)
            io->started = io->stopping = true; /* never begun, so that there is nothing to stop */
        else
            atomic_fetch_or(&io->control, VIRTIO_IO_START);
    }
    if ((bits & VIRTIO_IO_CONFIG) && io->started && device->ops->config_written)
        device->ops->config_written(device);
    if (bits & VIRTIO_IO_STOP)
        stop(device);
    if (bits & VIRTIO_IO_PAUSE)
        pause_device(device);
}

static void notify_now(struct virtio_device *device)
{
    uint64_t left = device->io->notify;
    device->io->notify = 0;
    for (; left; left &= left - 1)
        virtqueue_notify(device->queue[__builtin_ctzll(left)]);
}

static void serve(void *context)
{
    struct virtio_device *device = context;
    struct virtio_io *io = device->io;
    unsigned bits = atomic_exchange(&io->control, 0);
    uint64_t kicked = atomic_exchange(&io->kicked, 0);
    if (bits & VIRTIO_IO_GONE) { /* the last that this thread does with the device */
        device->transport->ops->gone(device->transport);
        return;
    }
    notify_now(device);
    if (bits)
        serve_control(device, bits);
    if (device->queues < 64)
        kicked &= (UINT64_C(1) << device->queues) - 1;
    for (; kicked && !idle(io); kicked &= kicked - 1)
        turn(device, (unsigned)__builtin_ctzll(kicked));
    notify_now(device);
    settle(device);
}

void virtio_io_returned(struct virtio_device *device)
{
    struct virtio_io *io = device->io;
    io->in_flight--;
    /* Not at once: the device is in the middle of something. */
    if (io->in_flight == 0 && (io->stopping || io->paused))
        loop_signal_raise(io->signal);
}

/* ---- making and freeing ---- */

int virtio_device_init(struct virtio_device *device, const struct virtio_ops *ops, const struct virtio_env *env,
                       uint64_t features, const void *config, unsigned size, struct error *error)
{
    *device = (struct virtio_device){.ops = ops, .env = *env};
    device->offered = features | VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX) |
                      VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | (env->packed ? VIRTIO_BIT(VIRTIO_F_RING_PACKED) : 0);
    if (size > VIRTIO_CONFIG_MAX)
        return error_set(error, EINVAL, "%s: %u bytes of configuration are too many", ops->name, size);
    if (size)
        memcpy(device->config, config, size);
    device->config_size = size;
    struct virtio_io *io = device->io = calloc(1, sizeof *io);
    if (io)
        io->signal = loop_signal_new(env->loop, serve, device);
    if (!io || !io->signal) {
        free(io);
        device->io = NULL;
        return error_set(error, ENOMEM, "%s: no memory", ops->name);
    }
    pthread_mutex_init(&io->lock, NULL);
    pthread_cond_init(&io->changed, NULL);
    io->paused = io->quiet = true;
    io->poller = (struct loop_poller){.look = poller_look, .sleep = poller_sleep, .wake = poller_wake, .context = device};
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        io->from[i] = VIRTQUEUE_BEGIN;
    return 0;
}

struct virtqueue *virtio_queue_add(struct virtio_device *device, unsigned size)
{
    if (device->queues == VIRTIO_QUEUES_MAX || size == 0 || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1)))
        return NULL;
    struct virtqueue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return NULL;
    queue->scratch = calloc(size, sizeof *queue->scratch);
    queue->scratch_gpa = calloc(size, sizeof *queue->scratch_gpa);
    if (!queue->scratch || !queue->scratch_gpa) {
        virtqueue_free(queue);
        return NULL;
    }
    queue->device = device;
    queue->index = device->queues;
    queue->size_max = size;
    device->queue[device->queues++] = queue;
    return queue;
}

void virtio_config_allow(struct virtio_device *device, unsigned offset, unsigned length)
{
    if (range_within(offset, length, device->config_size))
        memset(device->config_writable + offset, 0xff, length);
}

void virtio_device_finish(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->queues; i++)
        virtqueue_free(device->queue[i]);
    device->queues = 0;
    if (!device->io)
        return;
    if (device->io->started)
        loop_remove_poller(device->env.loop, &device->io->poller);
    loop_signal_free(device->io->signal);
    pthread_mutex_destroy(&device->io->lock);
    pthread_cond_destroy(&device->io->changed);
    free(device->io);
    device->io = NULL;
}

void virtio_device_destroy(struct virtio_device *device)
{
    if (device)
        device->ops->destroy(device);
}
