/* console.c - between the guest's first serial port, or its virtio console, and whoever owns the console.
 *
 * A thread of its own hands the owner what was printed, so that no lock of the board is held while the owner
 * writes, however slowly. The queue between the two is bounded by holding up the vCPU that prints, once it is out of
 * the board's lock again (console_hold); between the crowded mark and the queue's end is far more room than one
 * access of every vCPU can fill.
 *
 * What passes is also read for the line by which Linux says that it panics. Nothing ends because of it: it only
 * gives a reset that follows its reason, for guests whose kernel has no pvpanic driver loaded. */
#include <errno.h>
#include <string.h>

#include "device/platform/uart.h"
#include "machine/machine_private.h"

static void end_line(struct machine *machine, char line[CONSOLE_LINE], size_t *used)
{
    line[*used] = '\0';
    *used = 0;
    const char *panic = strstr(line, "Kernel panic - not syncing");
    if (panic && !machine->panic_text[0])
        memcpy(machine->panic_text, panic, strlen(panic) + 1);
}

/* The board's lock is held. */
static void read_lines(struct machine *machine, char line[CONSOLE_LINE], size_t *used, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] == '\n')
            end_line(machine, line, used);
        else if (*used < CONSOLE_LINE - 1 && bytes[i] != '\r')
            line[(*used)++] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? (char)bytes[i] : '?';
    }
}

/* The queue's lock is held. */
static void enqueue(struct console_queue *queue, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length && queue->used < CONSOLE_QUEUE; i++)
        queue->bytes[(queue->first + queue->used++) % CONSOLE_QUEUE] = bytes[i];
    pthread_cond_signal(&queue->filled);
}

void console_transmit(void *owner, const uint8_t *bytes, size_t length)
{
    struct machine *machine = owner;
    struct console_queue *queue = &machine->console;
    read_lines(machine, machine->line, &machine->line_used, bytes, length);
    if (!machine->config.console_write)
        return;
    pthread_mutex_lock(&queue->lock);
    enqueue(queue, bytes, length);
    if (queue->used > CONSOLE_CROWDED)
        atomic_store(&queue->crowded, true);
    pthread_mutex_unlock(&queue->lock);
}

/* The device waits instead of a vCPU: what is over half of the queue is refused. */
size_t console_write_virtio(void *owner, const void *bytes, size_t length)
{
    struct machine *machine = owner;
    struct console_queue *queue = &machine->console;
    size_t taken = length;
    if (machine->config.console_write) {
        pthread_mutex_lock(&queue->lock);
        size_t limit = atomic_load(&machine->ended) ? CONSOLE_QUEUE : CONSOLE_CROWDED; /* last words: no vCPU writes any more */
        size_t room = queue->used < limit ? limit - queue->used : 0;
        taken = length < room ? length : room;
        enqueue(queue, bytes, taken);
        if (taken < length)
            atomic_store(&queue->refused, true);
        pthread_mutex_unlock(&queue->lock);
    }
    pthread_mutex_lock(&machine->lock);
    read_lines(machine, machine->virtio_line, &machine->virtio_line_used, bytes, taken);
    pthread_mutex_unlock(&machine->lock);
    return taken;
}

const char *console_append(const struct machine *machine)
{
    return machine->config.console_virtio ? "console=hvc0" : "console=ttyS0";
}

void console_hold(struct machine *machine)
{
    struct console_queue *queue = &machine->console;
    if (!atomic_load_explicit(&queue->crowded, memory_order_relaxed))
        return;
    pthread_mutex_lock(&queue->lock);
    while (atomic_load(&queue->crowded) && !atomic_load(&machine->ended))
        pthread_cond_wait(&queue->drained, &queue->lock);
    pthread_mutex_unlock(&queue->lock);
}

void console_release(struct machine *machine)
{
    pthread_mutex_lock(&machine->console.lock);
    pthread_cond_broadcast(&machine->console.drained);
    pthread_mutex_unlock(&machine->console.lock);
}

/* Takes up to `size` bytes; waits for some. 0: there are none and will be none. */
static size_t dequeue(struct console_queue *queue, uint8_t *ret_bytes, size_t size)
{
    size_t length = 0;
    pthread_mutex_lock(&queue->lock);
    while (queue->used == 0 && !queue->closing)
        pthread_cond_wait(&queue->filled, &queue->lock);
    for (; length < size && queue->used > 0; queue->used--) {
        ret_bytes[length++] = queue->bytes[queue->first];
        queue->first = (queue->first + 1) % CONSOLE_QUEUE;
    }
    if (queue->used <= CONSOLE_CROWDED / 2 && atomic_exchange(&queue->crowded, false))
        pthread_cond_broadcast(&queue->drained);
    pthread_mutex_unlock(&queue->lock);
    return length;
}

static void *serve(void *context)
{
    struct machine *machine = context;
    uint8_t bytes[4096];
    size_t length;
    while ((length = dequeue(&machine->console, bytes, sizeof bytes)) > 0) {
        if (atomic_exchange(&machine->console.refused, false))
            services_console_room(machine);
        machine->config.console_write(machine->config.console_owner, bytes, length);
    }
    return NULL;
}

int console_queue_start(struct machine *machine, struct error *error)
{
    if (!machine->config.console_write)
        return 0;
    int code = pthread_create(&machine->console.thread, NULL, serve, machine);
    if (code != 0)
        return error_set(error, code, "cannot start the console's thread: %s", strerror(code));
    machine->console.started = true;
    return 0;
}

void console_queue_end(struct machine *machine)
{
    struct console_queue *queue = &machine->console;
    if (!queue->started)
        return;
    pthread_mutex_lock(&queue->lock);
    queue->closing = true;
    pthread_cond_signal(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
    pthread_join(queue->thread, NULL);
    queue->started = false;
}

void console_room(void *owner)
{
    struct machine *machine = owner;
    if (machine->config.console_ready)
        machine->config.console_ready(machine->config.console_owner);
}

size_t machine_console_input(struct machine *machine, const void *bytes, size_t length)
{
    if (machine->config.console_virtio)
        return services_console_input(machine, bytes, length);
    pthread_mutex_lock(&machine->lock);
    size_t taken = uart_receive(machine->uart, bytes, length);
    pthread_mutex_unlock(&machine->lock);
    return taken;
}
