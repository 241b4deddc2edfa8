/* board_virtio.c - the board's virtio devices and the I/O threads that serve their queues.
 *
 * Each device belongs to one thread. Disks have one each, so that a slow one holds up none of the others; the rest, which
 * move little, share one. Devices are made paused and run while the machine runs.
 *
 * Lock order: an I/O thread may take the board's lock (to interrupt); nobody waits for an I/O thread with that lock held. */
#include "machine/board_virtio.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtio/rng.h"
#include "device/virtio/virtio_pci.h"
#include "machine/machine_private.h"
#include "machine/plug.h"

/* A thread that serves queues, from io_thread_go on. */
struct io_thread {
    struct loop *loop;
    pthread_t thread;
    sem_t go;
    bool gone; /* it was told to */
};

/* A device on the board. The list is changed under the board's lock. */
struct board_virtio {
    struct board_virtio *next;
    struct machine *machine;
    char id[PLUG_ID];
    enum machine_kind kind;
    struct virtio_device *virtio;
    struct device *device;
    struct virtio_device *(*make)(struct machine *machine, const struct virtio_env *env, const void *config, void **ret_owned,
                                  struct error *error);
    struct io_thread *io, *own_io; /* that serves it; the same, or NULL when it is shared */
    void (*release)(void *owned);
    void *owned;
    void (*gone)(void *context); /* whom to tell that it is out of use */
    void *gone_context;
};

/* ---- threads ---- */

static void lock_board(void *owner)
{
    machine_lock_deferring(owner);
}

static void unlock_board(void *owner)
{
    machine_unlock_waking(owner);
}

static void *serve(void *context)
{
    struct io_thread *io = context;
    while (sem_wait(&io->go) < 0)
        ; /* interrupted */
    loop_run(io->loop);
    return NULL;
}

/* Until io_thread_go the loop is the caller's. The device's name is the thread's, for who looks what costs time. NULL and an error when
 * there is no thread to be had. */
static struct io_thread *io_thread_new(const char *device, struct error *error)
{
    char name[16]; /* the kernel's limit */
    struct io_thread *io = calloc(1, sizeof *io);
    if (!io) {
        error_set(error, ENOMEM, "no memory for an I/O thread");
        return NULL;
    }
    if (loop_new(&io->loop, error) < 0) {
        free(io);
        return NULL;
    }
    sem_init(&io->go, 0, 0);
    int code = pthread_create(&io->thread, NULL, serve, io);
    if (code) {
        error_set(error, code, "starting an I/O thread: %s", strerror(code));
        sem_destroy(&io->go);
        loop_free(io->loop);
        free(io);
        return NULL;
    }
    snprintf(name, sizeof name, "io-%.12s", device);
    pthread_setname_np(io->thread, name);
    return io;
}

static void io_thread_go(struct io_thread *io)
{
    if (io && !io->gone)
        sem_post(&io->go);
    if (io)
        io->gone = true;
}

/* The loop stays, and is the caller's again. */
static void io_thread_stop(struct io_thread *io)
{
    if (!io)
        return;
    io_thread_go(io);
    loop_stop(io->loop);
    pthread_join(io->thread, NULL);
}

static void io_thread_free(struct io_thread *io)
{
    if (!io)
        return;
    sem_destroy(&io->go);
    loop_free(io->loop);
    free(io);
}

/* ---- devices ---- */

/* The virtio device is destroyed, or was never made. */
static void board_free(struct board_virtio *board)
{
    io_thread_stop(board->own_io);
    if (board->release && board->virtio)
        board->release(board->owned);
    io_thread_free(board->own_io);
    free(board);
}

static void released(void *owner)
{
    board_free(owner);
}

static void unlink_board(struct board_virtio *board)
{
    struct board_virtio **at = &board->machine->virtio;
    while (*at && *at != board)
        at = &(*at)->next;
    if (*at)
        *at = board->next;
}

static void tell_gone(void *context)
{
    struct board_virtio *board = context;
    board->gone(board->gone_context);
}

/* On the I/O thread. What board_virtio_call posted before the device left the list comes first. */
static void io_gone(void *context)
{
    struct board_virtio *board = context;
    if (loop_post(board->io->loop, tell_gone, board) < 0)
        tell_gone(board);
}

static void detach(struct device *device, void (*gone)(void *context), void *context)
{
    struct virtio_device *virtio = virtio_pci_virtio(device);
    struct machine *machine = virtio->env.owner;
    struct board_virtio *board = machine->virtio;
    while (board->virtio != virtio)
        board = board->next;
    unlink_board(board);
    board->gone = gone;
    board->gone_context = context;
    virtio_pci_unplug(device, io_gone, board);
}

/* Puts what is made on the bus. The list has it first, since the guest may eject it at once. */
static int plug(struct board_virtio *board, struct error *error)
{
    struct machine *machine = board->machine;
    pthread_mutex_lock(&machine->lock);
    board->next = machine->virtio;
    machine->virtio = board;
    bool running = machine->started;
    pthread_mutex_unlock(&machine->lock);
    if (running)
        virtio_resume(board->virtio);
    struct plug_config config = {.id = board->id, .kind = board->kind, .device = board->device, .function = virtio_pci_function(board->device),
                                 .detach = detach, .released = released, .owner = board};
    int status = plug_add(machine, &config, error);
    if (status < 0) {
        pthread_mutex_lock(&machine->lock);
        unlink_board(board);
        pthread_mutex_unlock(&machine->lock);
        if (running)
            virtio_pause(board->virtio);
        board->device->ops->destroy(board->device);
    }
    return status;
}

/* Fills in board->virtio and board->device, or leaves both NULL. */
static int make(struct board_virtio *board, const struct board_virtio_config *config, struct error *error)
{
    struct machine *machine = board->machine;
    struct virtio_env env = {.ram = &machine->ram, .loop = board->io->loop, .lock = lock_board, .unlock = unlock_board,
                             .owner = machine, .packed = machine->config.virtio_packed};
    board->virtio = config->make(machine, &env, config->config, &board->owned, error);
    return board->virtio ? virtio_pci_new(board->virtio, config->instance, &board->device, error) : -EINVAL;
}

int board_virtio_add(struct machine *machine, const struct board_virtio_config *config, struct error *error)
{
    struct board_virtio *board = calloc(1, sizeof *board);
    if (!board)
        return error_set(error, ENOMEM, "no memory for device '%s'", config->id);
    board->machine = machine;
    snprintf(board->id, sizeof board->id, "%s", config->id);
    board->kind = config->kind;
    board->make = config->make;
    board->release = config->release;
    board->own_io = config->own_thread ? io_thread_new(config->id, error) : NULL;
    board->io = config->own_thread ? board->own_io : machine->slow_io;
    int status = board->io ? make(board, config, error) : -ENOMEM;
    io_thread_go(board->own_io);
    if (status == 0)
        status = plug(board, error);
    if (status < 0)
        board_free(board);
    return status;
}

/* ---- calls ---- */

struct call {
    struct board_virtio *board;
    void (*work)(struct virtio_device *virtio, void *owned, void *context);
    void *context;
    sem_t done;
};

static void run_call(void *context)
{
    struct call *call = context;
    call->work(call->board->virtio, call->board->owned, call->context);
    sem_post(&call->done);
}

int board_virtio_call(struct machine *machine, const char *id,
                      struct virtio_device *(*make_function)(struct machine *, const struct virtio_env *, const void *, void **,
                                                             struct error *),
                      void (*work)(struct virtio_device *virtio, void *owned, void *context), void *context,
                      struct error *error)
{
    struct call call = {.work = work, .context = context};
    pthread_mutex_lock(&machine->lock);
    call.board = machine->virtio;
    while (call.board && (call.board->make != make_function || strcmp(call.board->id, id) != 0))
        call.board = call.board->next;
    if (!call.board) {
        pthread_mutex_unlock(&machine->lock);
        return error_set(error, ENOENT, "the machine has no such device '%s'", id);
    }
    sem_init(&call.done, 0, 0);
    int status = loop_post(call.board->io->loop, run_call, &call);
    pthread_mutex_unlock(&machine->lock);
    if (status < 0)
        error_set(error, -status, "no memory for a message to device '%s'", id);
    while (status == 0 && sem_wait(&call.done) < 0)
        ; /* interrupted */
    sem_destroy(&call.done);
    return status;
}

/* ---- the board's ---- */

static struct virtio_device *make_rng(struct machine *machine, const struct virtio_env *env, const void *config,
                                      void **ret_owned, struct error *error)
{
    (void)machine, (void)config, (void)ret_owned;
    return virtio_rng_new(env, NULL, NULL, error);
}

int board_virtio_create(struct machine *machine, struct error *error)
{
    static const struct board_virtio_config rng = {.id = "rng", .make = make_rng};
    machine->slow_io = io_thread_new("others", error);
    if (!machine->slow_io)
        return -ENOMEM;
    int status = board_virtio_add(machine, &rng, error);
    if (status == 0)
        status = board_disks_create(machine, error);
    io_thread_go(machine->slow_io); /* after a failure too: what was made is taken off with its help */
    return status;
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
    io_thread_stop(machine->slow_io);
    io_thread_free(machine->slow_io);
    machine->slow_io = NULL;
}
