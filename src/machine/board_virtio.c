/* board_virtio.c - the board's virtio devices and the I/O threads that serve their queues.
 *
 * Each device belongs to one thread. Disks have one each, so that a slow one holds up none of the others; the rest, which
 * move little, share one. Devices are made paused and run while the machine runs.
 *
 * Lock order: an I/O thread may take the board's lock (to interrupt); nobody waits for an I/O thread with that lock held. */
#include "machine/board_virtio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtio/rng.h"
#include "device/virtio/virtio_pci.h"
#include "machine/machine_private.h"
#include "machine/plug.h"

/* A thread that serves queues. */
struct io_thread {
    struct loop *loop;
    pthread_t thread;
};

/* A device on the board. The list is changed under the board's lock, and shrinks only on the machine's own thread. */
struct board_virtio {
    struct board_virtio *next;
    struct machine *machine;
    struct virtio_device *virtio;
    struct io_thread *io; /* its own, or NULL */
};

/* ---- threads ---- */

static void lock_board(void *owner)
{
    struct machine *machine = owner;
    pthread_mutex_lock(&machine->lock);
}

static void unlock_board(void *owner)
{
    struct machine *machine = owner;
    pthread_mutex_unlock(&machine->lock);
}

static void *serve(void *context)
{
    loop_run(context);
    return NULL;
}

/* NULL and an error when there is no thread to be had. */
static struct io_thread *io_thread_new(struct error *error)
{
    struct io_thread *io = calloc(1, sizeof *io);
    if (!io) {
        error_set(error, ENOMEM, "no memory for an I/O thread");
        return NULL;
    }
    if (loop_new(&io->loop, error) < 0) {
        free(io);
        return NULL;
    }
    int code = pthread_create(&io->thread, NULL, serve, io->loop);
    if (code) {
        error_set(error, code, "starting an I/O thread: %s", strerror(code));
        loop_free(io->loop);
        free(io);
        return NULL;
    }
    return io;
}

static void io_thread_free(struct io_thread *io)
{
    if (!io)
        return;
    loop_stop(io->loop);
    pthread_join(io->thread, NULL);
    loop_free(io->loop);
    free(io);
}

/* ---- devices ---- */

/* The device is destroyed. */
static void released(void *owner)
{
    struct board_virtio *board = owner;
    struct machine *machine = board->machine;
    pthread_mutex_lock(&machine->lock);
    struct board_virtio **at = &machine->virtio;
    while (*at != board)
        at = &(*at)->next;
    *at = board->next;
    pthread_mutex_unlock(&machine->lock);
    io_thread_free(board->io);
    free(board);
}

/* Takes board and virtio over. */
static int plug(struct machine *machine, struct board_virtio *board, struct virtio_device *virtio, const char *id,
                unsigned instance, struct error *error)
{
    struct device *device;
    int status = virtio_pci_new(virtio, instance, &device, error);
    if (status < 0) {
        io_thread_free(board->io);
        free(board);
        return status;
    }
    board->virtio = virtio;
    pthread_mutex_lock(&machine->lock);
    board->next = machine->virtio;
    machine->virtio = board;
    bool running = machine->started;
    pthread_mutex_unlock(&machine->lock);
    struct plug_config config = {.id = id, .device = device, .function = virtio_pci_function(device),
                                 .detach = virtio_pci_unplug, .released = released, .owner = board};
    status = plug_add(machine, &config, error);
    if (status < 0) {
        device->ops->destroy(device);
        released(board);
        return status;
    }
    if (running)
        virtio_resume(virtio);
    return 0;
}

int board_virtio_add(struct machine *machine, const struct board_virtio_kind *kind, const void *config, const char *id,
                     unsigned instance, struct error *error)
{
    struct board_virtio *board = calloc(1, sizeof *board);
    if (!board)
        return error_set(error, ENOMEM, "no memory for device '%s'", id);
    board->machine = machine;
    board->io = kind->own_thread ? io_thread_new(error) : NULL;
    if (kind->own_thread && !board->io) {
        free(board);
        return -EAGAIN;
    }
    struct io_thread *io = board->io ? board->io : machine->slow_io;
    struct virtio_env env = {.ram = &machine->ram, .loop = io->loop, .lock = lock_board, .unlock = unlock_board,
                             .owner = machine, .packed = machine->config.virtio_packed};
    struct virtio_device *virtio = kind->make(machine, &env, config, error);
    if (!virtio) {
        io_thread_free(board->io);
        free(board);
        return -EINVAL;
    }
    return plug(machine, board, virtio, id, instance, error);
}

static struct virtio_device *make_rng(struct machine *machine, const struct virtio_env *env, const void *config,
                                      struct error *error)
{
    (void)machine, (void)config;
    return virtio_rng_new(env, NULL, NULL, error);
}

int board_virtio_create(struct machine *machine, struct error *error)
{
    static const struct board_virtio_kind rng = {.make = make_rng};
    machine->slow_io = io_thread_new(error);
    if (!machine->slow_io)
        return -EAGAIN;
    return board_virtio_add(machine, &rng, NULL, "rng", 0, error);
}

/* The first of the list, which may grow while it is walked, at its head. */
static struct board_virtio *first(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    struct board_virtio *board = machine->virtio;
    pthread_mutex_unlock(&machine->lock);
    return board;
}

void board_virtio_resume(struct machine *machine)
{
    for (struct board_virtio *board = first(machine); board; board = board->next)
        virtio_resume(board->virtio);
}

void board_virtio_pause(struct machine *machine)
{
    for (struct board_virtio *board = first(machine); board; board = board->next)
        virtio_pause(board->virtio);
}

void board_virtio_destroy(struct machine *machine)
{
    io_thread_free(machine->slow_io);
    machine->slow_io = NULL;
}
