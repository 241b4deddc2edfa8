/* vsock_host.c - see vsock_host.h.
 *
 * Descriptors are waited for edge-triggered, both ways at once, so that a connection costs no system call but those
 * that move its bytes: the core remembers that a socket may be readable until a receive says that it is not.
 *
 * A client that has not said what it wants yet is no connection of the core. There are at most HANDSHAKES of them: one
 * more, and the oldest goes. So clients that connect and say nothing keep nobody else away. */
#include "device/virtio/vsock_host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/unix.h"

#define BACKLOG 128
#define HANDSHAKES 64u
#define LINE_MAX_BYTES 32u
#define RETRY_NS UINT64_C(5000000)
#define RETRIES 300u /* of 5 ms: a guest gives up after 2 seconds */
#define MANY_ACCEPTS 16u

struct vsock_socket {
    struct vsock_host *host;
    struct vsock_socket *previous, *next; /* in `handshakes` or `waiting`; neither once connected */
    int fd;                               /* -1 while it waits to connect */
    struct loop_source *source;
    struct vsock_connection *connection; /* NULL during the handshake */
    char line[LINE_MAX_BYTES];           /* of the handshake */
    unsigned line_used;
    uint32_t port;    /* that a waiting one wants */
    unsigned retries; /* of a waiting one */
};

struct list {
    struct vsock_socket *first, *last;
    unsigned count;
};

struct vsock_host {
    struct loop *loop;
    char path[VSOCK_PATH_MAX + 1];
    int listener;
    struct loop_source *source;
    struct vsock_core *core;
    void (*changed)(void *owner);
    void *owner;
    struct list handshakes, waiting;
    struct clock clock;
    struct clock_timer *retry; /* for those that wait, and for accept */
    bool starved;              /* of descriptors: not accepting until the timer */
};

static void append(struct list *list, struct vsock_socket *socket)
{
    socket->previous = list->last;
    socket->next = NULL;
    *(list->last ? &list->last->next : &list->first) = socket;
    list->last = socket;
    list->count++;
}

static void take_out(struct list *list, struct vsock_socket *socket)
{
    *(socket->previous ? &socket->previous->next : &list->first) = socket->next;
    *(socket->next ? &socket->next->previous : &list->last) = socket->previous;
    list->count--;
}

static void destroy(struct vsock_socket *socket)
{
    loop_remove(socket->source);
    if (socket->fd >= 0)
        close(socket->fd);
    free(socket);
}

static void drop_handshake(struct vsock_socket *socket)
{
    take_out(&socket->host->handshakes, socket);
    destroy(socket);
}

static void arm_retry(struct vsock_host *host)
{
    clock_timer_arm(&host->clock, host->retry, clock_now(&host->clock) + RETRY_NS);
}

/* --- the ops */

static void on_socket(void *context, uint32_t events);

static int watch(struct vsock_socket *socket)
{
    return loop_add_fd(socket->host->loop, socket->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, on_socket, socket,
                       &socket->source);
}

static int dial(struct vsock_socket *socket)
{
    char path[VSOCK_PATH_MAX + 16];
    snprintf(path, sizeof path, "%s_%" PRIu32, socket->host->path, socket->port);
    int status = unix_connect(path, &socket->fd);
    return status < 0 ? status : watch(socket);
}

static int unix_dial(void *owner, uint32_t port, struct vsock_connection *connection, void **ret_host)
{
    struct vsock_host *host = owner;
    struct vsock_socket *socket = calloc(1, sizeof *socket);
    if (!socket)
        return -ENOMEM;
    *socket = (struct vsock_socket){.host = host, .fd = -1, .port = port, .connection = connection};
    int status = dial(socket);
    if (status < 0 && status != -EAGAIN) {
        destroy(socket);
        return status;
    }
    *ret_host = socket;
    if (status == 0)
        return 0;
    append(&host->waiting, socket); /* the listener's backlog is full */
    arm_retry(host);
    return -EINPROGRESS;
}

static void unix_accepted(void *context, uint32_t host_port)
{
    struct vsock_socket *socket = context;
    char line[32];
    int length = snprintf(line, sizeof line, "OK %" PRIu32 "\n", host_port);
    /* The socket is new and has room; a client that is gone is noticed as a hang-up. */
    if (send(socket->fd, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT) != length)
        shutdown(socket->fd, SHUT_RDWR);
}

static ssize_t unix_send(void *context, const struct iovec *iov, unsigned count)
{
    struct vsock_socket *socket = context;
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = count};
    ssize_t n;
    do
        n = sendmsg(socket->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t unix_receive(void *context, const struct iovec *iov, unsigned count)
{
    struct vsock_socket *socket = context;
    ssize_t n;
    do
        n = readv(socket->fd, iov, (int)count);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void unix_shutdown(void *context, unsigned how)
{
    struct vsock_socket *socket = context;
    if (socket->fd >= 0)
        shutdown(socket->fd, how == VSOCK_SHUTDOWN_SEND ? SHUT_WR : SHUT_RD);
}

static void unix_close(void *context)
{
    struct vsock_socket *socket = context;
    if (socket->fd < 0)
        take_out(&socket->host->waiting, socket);
    destroy(socket);
}

const struct vsock_host_ops vsock_unix_ops = {.connect = unix_dial, .accepted = unix_accepted, .send = unix_send,
                                              .receive = unix_receive, .shutdown = unix_shutdown, .close = unix_close};

/* --- clients */

/* "CONNECT <port>\n" */
static bool parse_line(const char *line, size_t length, uint32_t *ret_port)
{
    static const char word[] = "CONNECT ";
    size_t at = sizeof word - 1;
    uint64_t port = 0;
    if (length < at + 2 || memcmp(line, word, at) != 0)
        return false;
    for (; at < length - 1; at++) {
        if (line[at] < '0' || line[at] > '9')
            return false;
        port = port * 10 + (uint64_t)(line[at] - '0');
        if (port >= UINT32_MAX) /* which stands for any port */
            return false;
    }
    *ret_port = (uint32_t)port;
    return line[at] == '\n';
}

/* Takes the line's bytes and none of what follows. 1: it is complete; 0: more must come; negative: it never will be. */
static int read_line(struct vsock_socket *socket)
{
    for (;;) {
        char *at = socket->line + socket->line_used;
        size_t room = sizeof socket->line - socket->line_used;
        if (room == 0)
            return -EINVAL;
        ssize_t n = recv(socket->fd, at, room, MSG_PEEK | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            return -EPIPE;
        const char *end = memchr(at, '\n', (size_t)n);
        n = recv(socket->fd, at, end ? (size_t)(end - at) + 1 : (size_t)n, MSG_DONTWAIT);
        if (n <= 0)
            return -EPIPE;
        socket->line_used += (unsigned)n;
        if (end)
            return 1;
    }
}

static void shake(struct vsock_socket *socket)
{
    int status = read_line(socket);
    if (status == 0)
        return;
    uint32_t port;
    struct vsock_host *host = socket->host;
    if (status < 0 || !parse_line(socket->line, socket->line_used, &port) ||
        vsock_open(host->core, port, socket, &socket->connection) < 0) {
        drop_handshake(socket);
        return;
    }
    take_out(&host->handshakes, socket);
    host->changed(host->owner);
}

static void on_socket(void *context, uint32_t events)
{
    struct vsock_socket *socket = context;
    struct vsock_host *host = socket->host;
    if (!socket->connection) {
        shake(socket);
        return;
    }
    vsock_event(socket->connection, events & (EPOLLIN | EPOLLRDHUP), events & EPOLLOUT, events & (EPOLLHUP | EPOLLERR));
    host->changed(host->owner);
}

static void greet(struct vsock_host *host, int fd)
{
    struct vsock_socket *socket = calloc(1, sizeof *socket);
    if (!socket) {
        close(fd);
        return;
    }
    *socket = (struct vsock_socket){.host = host, .fd = fd};
    if (watch(socket) < 0) {
        destroy(socket);
        return;
    }
    if (host->handshakes.count == HANDSHAKES)
        drop_handshake(host->handshakes.first);
    append(&host->handshakes, socket);
    shake(socket); /* what it wants is often there already */
}

static void on_client(void *context, uint32_t events)
{
    struct vsock_host *host = context;
    (void)events;
    for (unsigned i = 0; i < MANY_ACCEPTS; i++) {
        int fd = accept4(host->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            greet(host, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            host->starved = true;
            loop_set_events(host->source, 0);
            arm_retry(host);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void on_retry(void *context)
{
    struct vsock_host *host = context;
    if (!host->core)
        return;
    if (host->starved) {
        host->starved = false;
        loop_set_events(host->source, EPOLLIN);
    }
    for (struct vsock_socket *socket = host->waiting.first, *next; socket; socket = next) {
        next = socket->next;
        int status = dial(socket);
        if (status == -EAGAIN && ++socket->retries < RETRIES)
            continue;
        if (socket->fd >= 0) /* else the list is left when it is closed */
            take_out(&host->waiting, socket);
        vsock_connected(socket->connection, status);
    }
    if (host->waiting.count)
        arm_retry(host);
    host->changed(host->owner);
}

/* --- the whole */

int vsock_host_new(struct loop *loop, const char *path, void (*changed)(void *owner), void *owner,
                   struct vsock_host **ret_host, struct error *error)
{
    if (strlen(path) > VSOCK_PATH_MAX)
        return error_set(error, ENAMETOOLONG, "vsock socket '%s': its path has more than %u bytes", path, VSOCK_PATH_MAX);
    struct vsock_host *host = calloc(1, sizeof *host);
    if (!host)
        return error_set(error, ENOMEM, "vsock: no memory");
    *host = (struct vsock_host){.loop = loop, .listener = -1, .changed = changed, .owner = owner, .clock = loop_clock(loop)};
    host->retry = clock_timer_new(&host->clock, on_retry, host);
    int status = host->retry ? unix_listen(path, BACKLOG, "vsock socket", &host->listener, error)
                             : error_set(error, ENOMEM, "vsock: no memory");
    if (status < 0) {
        vsock_host_free(host);
        return status;
    }
    memcpy(host->path, path, strlen(path) + 1); /* from here on the file is ours to remove */
    *ret_host = host;
    return 0;
}

int vsock_host_start(struct vsock_host *host, struct vsock_core *core)
{
    host->core = core;
    return loop_add_fd(host->loop, host->listener, EPOLLIN, on_client, host, &host->source);
}

void vsock_host_stop(struct vsock_host *host)
{
    loop_remove(host->source);
    host->source = NULL;
    host->core = NULL;
    host->starved = false;
    while (host->handshakes.first)
        drop_handshake(host->handshakes.first);
    clock_timer_arm(&host->clock, host->retry, CLOCK_NEVER);
}

void vsock_host_free(struct vsock_host *host)
{
    if (!host)
        return;
    clock_timer_free(&host->clock, host->retry);
    if (host->listener >= 0)
        close(host->listener);
    if (host->path[0])
        unlink(host->path);
    free(host);
}
