/* console.c - see console.h: the device, its control messages (5.3.6.2), and what reaches it from other threads.
 *
 * Queues: 0 and 1 are port 0's, 2 and 3 carry control messages, 4 and 5 are port 1's, and so on; even ones go to the
 * guest. A driver without MULTIPORT has the first two only. A terminal alone does without it: its size then goes by
 * configuration space, on which all drivers agree. */
#include "device/virtio/console.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/unix.h"
#include "device/virtio/console_private.h"

enum { FEATURE_SIZE, FEATURE_MULTIPORT, FEATURE_EMERGENCY };
enum { EVENT_DEVICE_READY, EVENT_DEVICE_ADD, EVENT_DEVICE_REMOVE, EVENT_PORT_READY, EVENT_CONSOLE_PORT, EVENT_RESIZE,
       EVENT_PORT_OPEN, EVENT_PORT_NAME };

#define QUEUE_SIZE 128u
#define TURN 64u
#define BACKLOG 4

/* struct virtio_console_config, 5.3.4. */
struct layout {
    uint16_t columns, rows;
    uint32_t ports;
    uint32_t emergency;
};

struct control {
    uint32_t id;
    uint16_t event, value;
} __attribute__((packed));

static struct console *of(struct virtio_device *device)
{
    return (struct console *)device;
}

/* --- control messages to the guest */

/* Sends the first message that is due for the port. False when there is none, or no buffer. */
static bool send_due(struct console_port *port)
{
    static const struct { unsigned due; uint16_t event; } order[] = {
        {DUE_ADD, EVENT_DEVICE_ADD}, {DUE_CONSOLE, EVENT_CONSOLE_PORT}, {DUE_NAME, EVENT_PORT_NAME},
        {DUE_RESIZE, EVENT_RESIZE}, {DUE_OPEN, EVENT_PORT_OPEN}};
    struct console *console = port->console;
    unsigned n = 0;
    while (n < sizeof order / sizeof *order && !(port->due & order[n].due))
        n++;
    struct virtqueue_element *element = n < sizeof order / sizeof *order ? virtqueue_pop(console->control_rx) : NULL;
    if (!element)
        return false;
    struct {
        struct control control;
        uint8_t more[VIRTIO_CONSOLE_NAME_MAX];
    } message = {.control = {.id = (uint32_t)(port - console->port), .event = order[n].event}};
    size_t length = 0;
    if (order[n].due == DUE_NAME) {
        length = strlen(port->name);
        memcpy(message.more, port->name, length);
    } else if (order[n].due == DUE_RESIZE) { /* Linux before 2025 takes the first for the rows */
        pthread_mutex_lock(&console->lock);
        const uint16_t size[2] = {console->columns, console->rows};
        pthread_mutex_unlock(&console->lock);
        length = sizeof size;
        memcpy(message.more, size, length);
    } else {
        message.control.value = order[n].due == DUE_OPEN ? console_host_open(port) : 1;
    }
    struct virtio_cursor out = virtqueue_writable(element);
    length += sizeof message.control;
    size_t put = virtio_cursor_put(&out, &message, length);
    virtqueue_push(console->control_rx, element, put);
    if (put != length) {
        virtqueue_break(console->control_rx, "a buffer has no room for a control message");
        return false;
    }
    port->due &= ~order[n].due;
    if (order[n].due == DUE_OPEN)
        console_port_told(port);
    return true;
}

static void send_control(struct console *console)
{
    unsigned sent = 0;
    for (unsigned i = 0; i < console->ports; i++) {
        struct console_port *port = &console->port[i];
        if (!console->ready)
            port->due = 0; /* READY starts it all anew */
        if (!port->added)
            port->due &= DUE_ADD;
        while (send_due(port))
            sent++;
        if (!port->added)
            console_port_told(port); /* there is nobody to tell */
    }
    if (sent)
        virtqueue_notify(console->control_rx);
}

/* --- control messages of the guest */

static void take_message(struct console *console, const struct control *message)
{
    if (message->event == EVENT_DEVICE_READY && message->value) {
        console->ready = true;
        for (unsigned i = console->write ? 0 : 1; i < console->ports; i++)
            console->port[i].due = DUE_ADD;
        return;
    }
    if (message->id >= console->ports)
        return;
    struct console_port *port = &console->port[message->id];
    if (message->event == EVENT_PORT_READY) {
        port->added = message->value;
        if (!port->added)
            port->guest_open = false;
        else
            port->due |= (console_is_terminal(port) ? DUE_CONSOLE | (console->columns ? DUE_RESIZE : 0) : DUE_NAME) | DUE_OPEN;
    } else if (message->event == EVENT_PORT_OPEN) {
        port->guest_open = message->value && port->added;
    }
}

static bool take_control(struct console *console)
{
    struct virtqueue_element *element;
    unsigned taken = 0;
    while (taken < TURN && (element = virtqueue_pop(console->control_tx))) {
        struct control message;
        struct virtio_cursor in = virtqueue_readable(element);
        if (virtio_cursor_get(&in, &message, sizeof message) == sizeof message)
            take_message(console, &message);
        virtqueue_push(console->control_tx, element, 0);
        taken++;
    }
    if (taken)
        virtqueue_notify(console->control_tx);
    return taken == TURN;
}

/* --- a turn */

void console_serve(struct console *console)
{
    bool more = false;
    if (!console->active || console->paused)
        return;
    if (console->multiport)
        more |= take_control(console);
    for (unsigned i = 0; i < (console->multiport ? console->ports : 1u); i++)
        more |= console_port_serve(&console->port[i]);
    if (console->multiport)
        send_control(console);
    pthread_mutex_lock(&console->lock);
    bool room = console->refused && console->port[0].in.used < CONSOLE_IN_MAX / 2;
    if (room)
        console->refused = false;
    pthread_mutex_unlock(&console->lock);
    if (room && console->room)
        console->room(console->owner);
    if (more)
        loop_signal_raise(console->work);
}

/* What other threads left. */
static void on_work(void *context)
{
    struct console *console = context;
    uint8_t bytes[256];
    size_t n;
    if (console->paused)
        return;
    pthread_mutex_lock(&console->lock);
    n = ring_get(&console->emergency, bytes, sizeof bytes);
    if (console->resized && console->port[0].added)
        console->port[0].due |= DUE_RESIZE;
    console->resized = false;
    pthread_mutex_unlock(&console->lock);
    if (n > 0 && console->port[0].out.used < CONSOLE_OUT_MAX && ring_put(&console->port[0].out, bytes, n) == 0)
        loop_signal_raise(console->work); /* for the rest */
    console_port_flush(&console->port[0]);
    console_serve(console);
}

size_t virtio_console_input(struct virtio_device *device, const void *bytes, size_t length)
{
    struct console *console = of(device);
    pthread_mutex_lock(&console->lock);
    size_t room = CONSOLE_IN_MAX - console->port[0].in.used, taken = length < room ? length : room;
    if (ring_put(&console->port[0].in, bytes, taken) < 0)
        taken = 0;
    console->refused |= taken < length;
    pthread_mutex_unlock(&console->lock);
    loop_signal_raise(console->work);
    return taken;
}

void virtio_console_room(struct virtio_device *device)
{
    loop_signal_raise(of(device)->work);
}

void virtio_console_resize(struct virtio_device *device, unsigned columns, unsigned rows)
{
    struct console *console = of(device);
    const uint16_t size[2] = {(uint16_t)columns, (uint16_t)rows};
    pthread_mutex_lock(&console->lock);
    bool news = console->columns != size[0] || console->rows != size[1];
    console->columns = size[0];
    console->rows = size[1];
    console->resized |= news;
    pthread_mutex_unlock(&console->lock);
    if (!news)
        return;
    virtio_config_set(device, offsetof(struct layout, columns), size, sizeof size);
    loop_signal_raise(console->work);
}

/* A guest's last words, perhaps: each write is one character (5.3.5). The board's lock is held. */
static void config_stored(struct virtio_device *device, unsigned offset, unsigned length)
{
    struct console *console = of(device);
    if (offset > offsetof(struct layout, emergency) || offset + length <= offsetof(struct layout, emergency))
        return;
    pthread_mutex_lock(&console->lock);
    if (console->emergency.used < CONSOLE_IN_MAX)
        ring_put(&console->emergency, &device->config[offsetof(struct layout, emergency)], 1);
    pthread_mutex_unlock(&console->lock);
    loop_signal_raise(console->work);
}

/* --- a device */

void console_tell_size(struct console *console)
{
    pthread_mutex_lock(&console->lock);
    const uint16_t size[2] = {console->columns, console->rows};
    console->size_due = false;
    pthread_mutex_unlock(&console->lock);
    if (size[0])
        virtio_config_set(&console->device, offsetof(struct layout, columns), size, sizeof size);
}

static void console_start(struct virtio_device *device)
{
    struct console *console = of(device);
    console->multiport = virtio_has(device, FEATURE_MULTIPORT);
    console->active = true;
    console->size_due = !console->multiport;
    for (unsigned i = 1; i < console->ports && console->multiport; i++)
        if (console_port_start(&console->port[i]) < 0)
            virtio_needs_reset(device, "the socket of a port cannot be waited for");
}

static void console_process(struct virtio_device *device, struct virtqueue *queue)
{
    (void)queue;
    console_serve(of(device));
}

static void console_stop(struct virtio_device *device)
{
    struct console *console = of(device);
    console->active = console->ready = false;
    for (unsigned i = 1; i < console->ports; i++)
        console_port_stop(&console->port[i]);
    console->port[0].added = console->port[0].guest_open = false;
    console->port[0].due = 0;
}

static void console_pause(struct virtio_device *device)
{
    console_port_flush(&of(device)->port[0]); /* it may be the end */
    of(device)->paused = true;
}

static void console_resume(struct virtio_device *device)
{
    struct console *console = of(device);
    console->paused = false;
    for (unsigned i = 1; i < console->ports; i++)
        console_port_told(&console->port[i]);
    on_work(console);
}

static void put_ring(struct stream *stream, const struct ring *ring)
{
    struct iovec iov[2];
    stream_put_u32(stream, (uint32_t)ring->used);
    for (unsigned i = 0, n = ring_pieces(ring, iov); i < n; i++)
        stream_put_bytes(stream, iov[i].iov_base, iov[i].iov_len);
}

static void get_ring(struct stream *stream, struct ring *ring, size_t most)
{
    uint32_t left = stream_get_u32(stream);
    uint8_t bytes[1024];
    ring_clear(ring);
    if (left > most)
        stream_fail(stream, "the saved console holds %u bytes, more than it can", left);
    while (left > 0 && stream_status(stream, NULL) == 0) {
        size_t n = left < sizeof bytes ? left : sizeof bytes;
        stream_get_bytes(stream, bytes, n);
        if (ring_put(ring, bytes, n) < 0)
            stream_fail(stream, "no memory for what the saved console holds");
        left -= (uint32_t)n;
    }
}

/* Clients stay behind; the guest is told. */
static void console_save(const struct virtio_device *device, struct stream *stream)
{
    const struct console *console = (const struct console *)device;
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&console->lock; /* typed bytes may still come */
    pthread_mutex_lock(lock);
    stream_put_u32(stream, console->ports);
    stream_put_u8(stream, console->ready);
    for (unsigned i = 0; i < console->ports; i++) {
        const struct console_port *port = &console->port[i];
        stream_put_u8(stream, (uint8_t)(port->added | port->guest_open << 1));
        stream_put_u8(stream, (uint8_t)port->due);
        put_ring(stream, &port->in);
        put_ring(stream, &port->out);
    }
    pthread_mutex_unlock(lock);
}

static void console_load(struct virtio_device *device, struct stream *stream)
{
    struct console *console = of(device);
    uint32_t ports = stream_get_u32(stream);
    if (ports != console->ports)
        stream_fail(stream, "the saved console has %u ports, this one %u", ports, console->ports);
    console->ready = stream_get_u8(stream) != 0;
    for (unsigned i = 0; i < console->ports && stream_status(stream, NULL) == 0; i++) {
        struct console_port *port = &console->port[i];
        uint8_t state = stream_get_u8(stream);
        port->due = stream_get_u8(stream) & DUE_ALL;
        port->added = state & 1;
        port->guest_open = state >> 1 & 1;
        if (i > 0)
            port->due |= DUE_OPEN;
        get_ring(stream, &port->in, CONSOLE_IN_MAX);
        get_ring(stream, &port->out, CONSOLE_OUT_MAX + CONSOLE_WRITE_MAX);
    }
}

static void console_destroy(struct virtio_device *device)
{
    struct console *console = of(device);
    if (console->active)
        console_stop(device);
    for (unsigned i = 0; i < VIRTIO_CONSOLE_PORTS_MAX; i++) {
        struct console_port *port = &console->port[i];
        ring_clear(&port->in);
        ring_clear(&port->out);
        if (port->listener >= 0)
            close(port->listener);
        if (port->path)
            unlink(port->path);
        free(port->path);
    }
    virtio_device_finish(device);
    loop_signal_free(console->work);
    ring_clear(&console->emergency);
    pthread_mutex_destroy(&console->lock);
    free(console);
}

static const struct virtio_ops console_ops = {
    .name = "virtio-console", .id = 3, .class_code = 0x078000, .start = console_start, .process = console_process,
    .stop = console_stop, .pause = console_pause, .resume = console_resume, .config_stored = config_stored,
    .save = console_save, .load = console_load, .destroy = console_destroy};

int virtio_console_check_name(const char *name, struct error *error)
{
    size_t length = strlen(name);
    if (length == 0 || length > VIRTIO_CONSOLE_NAME_MAX || strchr(name, '/'))
        return error_set(error, EINVAL, "a port's name has 1 to %u bytes and no '/'", VIRTIO_CONSOLE_NAME_MAX);
    return 0;
}

static int add_queues(struct console *console)
{
    for (unsigned i = 0; i < console->ports; i++) {
        struct console_port *port = &console->port[i];
        port->rx = virtio_queue_add(&console->device, QUEUE_SIZE);
        port->tx = virtio_queue_add(&console->device, QUEUE_SIZE);
        if (!port->rx || !port->tx)
            return -ENOMEM;
        if (i > 0)
            continue;
        console->control_rx = virtio_queue_add(&console->device, QUEUE_SIZE);
        console->control_tx = virtio_queue_add(&console->device, QUEUE_SIZE);
        if (!console->control_rx || !console->control_tx)
            return -ENOMEM;
    }
    return 0;
}

static int open_ports(struct console *console, const struct virtio_console_config *config, struct error *error)
{
    for (unsigned i = 0; i < config->ports; i++) {
        struct console_port *port = &console->port[i + 1];
        int status = virtio_console_check_name(config->port[i].name, error);
        if (status < 0)
            return status;
        memcpy(port->name, config->port[i].name, strlen(config->port[i].name) + 1);
        status = unix_listen(config->port[i].path, BACKLOG, "port socket", &port->listener, error);
        if (status < 0)
            return status;
        port->path = strdup(config->port[i].path);
        if (!port->path)
            return error_set(error, ENOMEM, "virtio-console: no memory");
    }
    return 0;
}

struct virtio_device *virtio_console_new(const struct virtio_env *env, const struct virtio_console_config *config,
                                         struct error *error)
{
    if (config->ports >= VIRTIO_CONSOLE_PORTS_MAX) {
        error_set(error, EINVAL, "a console has at most %u named ports", VIRTIO_CONSOLE_PORTS_MAX - 1);
        return NULL;
    }
    struct console *console = calloc(1, sizeof *console);
    if (!console) {
        error_set(error, ENOMEM, "virtio-console: no memory");
        return NULL;
    }
    console->ports = config->ports + 1;
    console->write = config->write;
    console->room = config->room;
    console->owner = config->owner;
    pthread_mutex_init(&console->lock, NULL);
    for (unsigned i = 0; i < VIRTIO_CONSOLE_PORTS_MAX; i++) {
        console->port[i].console = console;
        console->port[i].listener = console->port[i].client = -1;
    }
    struct layout layout = {.ports = console->ports};
    int status = virtio_device_init(&console->device, &console_ops, env,
                                    VIRTIO_BIT(FEATURE_SIZE) | VIRTIO_BIT(FEATURE_EMERGENCY) |
                                        (config->ports ? VIRTIO_BIT(FEATURE_MULTIPORT) : 0),
                                    &layout, sizeof layout, error);
    if (status == 0)
        virtio_config_allow(&console->device, offsetof(struct layout, emergency), sizeof layout.emergency);
    if (status == 0 && (add_queues(console) < 0 || !(console->work = loop_signal_new(env->loop, on_work, console))))
        status = error_set(error, ENOMEM, "virtio-console: no memory");
    if (status == 0)
        status = open_ports(console, config, error);
    if (status < 0) {
        console_destroy(&console->device);
        return NULL;
    }
    return &console->device;
}
