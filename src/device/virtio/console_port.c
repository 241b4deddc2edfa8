/* console_port.c - the bytes of a console's port: the guest's queues on one side, the terminal's owner or a unix socket on the
 * other. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/virtio/console_private.h"

#define TURN 32u /* buffers of a queue */

static void drop_client(struct console_port *port)
{
    loop_remove(port->client_source);
    port->client_source = NULL;
    if (port->client >= 0)
        close(port->client);
    port->client = -1;
    port->readable = false;
    ring_clear(&port->out);
    port->due |= DUE_OPEN;
}

void console_port_flush(struct console_port *port)
{
    struct console *console = port->console;
    struct iovec iov[2];
    while (port->out.used > 0 && console_host_open(port)) {
        ring_pieces(&port->out, iov);
        ssize_t n = console_is_terminal(port)
                        ? (ssize_t)console->write(console->owner, iov[0].iov_base, iov[0].iov_len)
                        : send(port->client, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == EAGAIN))
            return; /* who takes nothing now will tell */
        if (n < 0 && errno != EINTR)
            drop_client(port);
        else if (n > 0)
            ring_skip(&port->out, (size_t)n);
    }
    ring_clear(&port->out);
}

/* From the guest. */
static bool take_output(struct console_port *port)
{
    struct virtqueue_element *element;
    unsigned taken = 0;
    console_port_flush(port);
    while (taken < TURN && port->out.used < CONSOLE_OUT_MAX && (element = virtqueue_pop(port->tx))) {
        struct virtio_cursor cursor = virtqueue_readable(element);
        uint8_t bytes[4096];
        size_t n;
        bool fits = cursor.left <= CONSOLE_WRITE_MAX;
        while (fits && (n = virtio_cursor_get(&cursor, bytes, sizeof bytes)) > 0)
            fits = ring_put(&port->out, bytes, n) == 0;
        virtqueue_push(port->tx, element, 0);
        taken++;
        if (!fits) {
            virtqueue_break(port->tx, "one buffer has more output than the device takes");
            break;
        }
        console_port_flush(port);
    }
    if (taken)
        virtqueue_notify(port->tx);
    if (taken && port->console->size_due)
        console_tell_size(port->console);
    return taken == TURN;
}

/* From the client. Its end is only looked for when all that it sent was handed on, so that the guest sees it after that. */
static void receive(struct console_port *port)
{
    uint8_t bytes[CONSOLE_IN_MAX];
    while (port->client >= 0 && port->readable && port->in.used == 0) {
        ssize_t n = recv(port->client, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n > 0 && ring_put(&port->in, bytes, (size_t)n) < 0)
            n = 0;
        if (n > 0)
            return;
        if (n < 0 && errno == EAGAIN)
            port->readable = false;
        else if (n == 0 || errno != EINTR)
            drop_client(port);
    }
}

/* Into one buffer of the guest; returns how many bytes. */
static size_t fill(struct console_port *port, struct virtqueue_element *element)
{
    struct virtio_cursor out = virtqueue_writable(element);
    struct iovec iov[2];
    size_t put = 0;
    pthread_mutex_lock(&port->console->lock);
    for (unsigned i = 0, n = ring_pieces(&port->in, iov); i < n; i++)
        put += virtio_cursor_put(&out, iov[i].iov_base, iov[i].iov_len);
    ring_skip(&port->in, put);
    pthread_mutex_unlock(&port->console->lock);
    return put;
}

static size_t waiting(struct console_port *port)
{
    pthread_mutex_lock(&port->console->lock);
    size_t used = port->in.used;
    pthread_mutex_unlock(&port->console->lock);
    return used;
}

/* To the guest: a terminal's from the start, a named port's while a program there has it open. */
static bool give_input(struct console_port *port)
{
    unsigned given = 0;
    bool open = console_is_terminal(port) ? !port->console->multiport || port->added : port->guest_open;
    while (open && given < TURN) {
        if (!console_is_terminal(port) && port->in.used == 0)
            receive(port);
        struct virtqueue_element *element = waiting(port) ? virtqueue_pop(port->rx) : NULL;
        if (!element)
            break;
        size_t put = fill(port, element);
        virtqueue_push(port->rx, element, put);
        given++;
        if (put == 0) {
            virtqueue_break(port->rx, "a buffer for input has no room");
            break;
        }
    }
    if (given)
        virtqueue_notify(port->rx);
    return given == TURN;
}

static void on_client(void *context, uint32_t events)
{
    struct console_port *port = context;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        port->readable = true;
    /* A client that is gone altogether takes nothing any more; what it sent is still handed on. */
    if ((events & (EPOLLHUP | EPOLLERR)) && !port->guest_open && !port->console->paused)
        drop_client(port);
    console_serve(port->console);
}

static void on_listener(void *context, uint32_t events)
{
    struct console_port *port = context;
    (void)events;
    if (port->console->paused) { /* waits until it goes on */
        loop_set_events(port->listen_source, 0);
        return;
    }
    int fd = accept4(port->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (loop_add_fd(port->console->device.env.loop, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, on_client, port,
                    &port->client_source) < 0) {
        close(fd);
        return;
    }
    loop_set_events(port->listen_source, 0); /* one at a time */
    port->client = fd;
    port->readable = true;
    port->due |= DUE_OPEN;
    console_serve(port->console);
}

void console_port_told(struct console_port *port)
{
    if (port->listen_source && port->client < 0)
        loop_set_events(port->listen_source, EPOLLIN);
}

int console_port_start(struct console_port *port)
{
    return port->listener < 0 ? 0
                              : loop_add_fd(port->console->device.env.loop, port->listener, EPOLLIN, on_listener, port,
                                            &port->listen_source);
}

void console_port_stop(struct console_port *port)
{
    drop_client(port);
    loop_remove(port->listen_source);
    port->listen_source = NULL;
    port->added = port->guest_open = false;
    port->due = 0;
}

bool console_port_serve(struct console_port *port)
{
    return take_output(port) | give_input(port);
}
