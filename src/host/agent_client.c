/* agent_client.c - see agent_client.h.
 *
 * The socket is always read: what comes is bounded by the windows, so a reader of standard output who stops for a while
 * holds up the command but neither this program nor what travels the other way. Streams are written in pieces that a
 * ready descriptor takes at once, since they may be blocking and shared with other programs. */
#include "host/agent_client.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_SECONDS 10
#define READ_SIZE 65536u
#define TO_AGENT_CROWDED (128u * 1024)
#define SIGNALS_TO_LEAVE 3 /* so many SIGINTs in a row, without a word from the agent between them */

static int read_answer(int fd, char *answer, size_t size)
{
    for (size_t used = 0; used + 1 < size; used++) {
        ssize_t n = recv(fd, answer + used, 1, 0); /* one by one: what follows the line is not ours to take */
        if (n <= 0)
            return n < 0 && errno == EAGAIN ? -ETIMEDOUT : n < 0 && errno != ECONNRESET ? -errno : -ECONNREFUSED;
        if (answer[used] == '\n') {
            answer[used] = '\0';
            return 0;
        }
    }
    return -EPROTO;
}

static int ask_port(int fd, uint32_t port)
{
    char line[32], answer[32];
    struct timeval patience = {.tv_sec = CONNECT_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int length = snprintf(line, sizeof line, "CONNECT %u\n", port);
    if (send(fd, line, (size_t)length, MSG_NOSIGNAL) != length)
        return errno == EPIPE || errno == ECONNRESET ? -ECONNREFUSED : -errno;
    int r = read_answer(fd, answer, sizeof answer);
    if (r == 0 && (strncmp(answer, "OK ", 3) != 0 || !isdigit((unsigned char)answer[3])))
        r = -EPROTO;
    patience.tv_sec = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return r;
}

int agent_connect(const char *vsock_path, uint32_t port, int *ret_socket, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(vsock_path) >= sizeof address.sun_path)
        return error_set(error, ENAMETOOLONG, "'%s' is too long for a socket's path", vsock_path);
    memcpy(address.sun_path, vsock_path, strlen(vsock_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
    if (r == 0)
        r = ask_port(fd, port);
    if (r == 0) {
        *ret_socket = fd;
        return 0;
    }
    if (fd >= 0)
        close(fd);
    if (r == -ECONNREFUSED)
        return error_set(error, -r, "nobody in the guest listens on vsock port %u", port);
    return error_set(error, -r, "reaching the guest through '%s': %s", vsock_path, strerror(-r));
}

void agent_client_init(struct agent_client *client)
{
    uint8_t payload[8];
    *client = (struct agent_client){.window = AGENT_WINDOW};
    client->allowed[AGENT_STDOUT] = client->allowed[AGENT_STDERR] = AGENT_WINDOW;
    agent_u32_put(payload, AGENT_MAGIC);
    agent_u32_put(payload + 4, AGENT_VERSION);
    /* Not told when it fails: then the agent asks for a greeting. */
    agent_buffer_frame(&client->to_agent, AGENT_HELLO, AGENT_STDIN, payload, sizeof payload);
}

void agent_client_free(struct agent_client *client)
{
    agent_buffer_free(&client->in);
    agent_buffer_free(&client->to_agent);
    for (unsigned i = 0; i < AGENT_STREAMS; i++)
        agent_buffer_free(&client->output[i]);
}

static int bad(struct error *error, const char *what)
{
    return error_set(error, EPROTO, "the guest's agent does not keep to the protocol: %s", what);
}

/* A guest's sentence: whatever it holds, it must not write to a person's terminal what moves the cursor. */
static void copy_text(const struct agent_frame *frame, uint32_t offset, char *ret_text, size_t size)
{
    size_t used = 0;
    for (; offset < frame->length && used + 1 < size; offset++)
        ret_text[used++] = isprint(frame->payload[offset]) ? (char)frame->payload[offset] : '?';
    ret_text[used] = '\0';
}

static int take_data(struct agent_client *client, const struct agent_frame *frame, struct error *error)
{
    if (frame->stream == AGENT_STDIN) {
        client->input_closed = true;
        return frame->length ? bad(error, "it sends standard input") : 0;
    }
    if (frame->length > client->allowed[frame->stream])
        return bad(error, "output beyond its window");
    if (!frame->length) /* the stream's end, of which EXIT tells anyway */
        return 0;
    uint8_t *at = agent_buffer_room(&client->output[frame->stream], frame->length);
    if (!at)
        return error_set(error, ENOMEM, "no memory for the command's output");
    memcpy(at, frame->payload, frame->length);
    client->output[frame->stream].used += frame->length;
    client->allowed[frame->stream] -= frame->length;
    return 0;
}

static int take_exit(struct agent_client *client, const struct agent_frame *frame, struct error *error)
{
    uint32_t end = agent_frame_u32(frame, 0), status = agent_frame_u32(frame, 4);
    if (frame->length < 8 || end > AGENT_NOT_STARTED || status > 255)
        return bad(error, "it tells of an end that there is not");
    client->ended = true;
    client->status = (int)status + (end == AGENT_SIGNALLED ? AGENT_STATUS_SIGNAL : 0);
    if (end == AGENT_NOT_STARTED)
        copy_text(frame, 8, client->reason, sizeof client->reason);
    return 0;
}

static int take_frame(struct agent_client *client, const struct agent_frame *frame, struct error *error)
{
    if (frame->type == AGENT_FAULT) {
        char text[256];
        copy_text(frame, 0, text, sizeof text);
        return error_set(error, EPROTO, "the guest's agent says: %s", text);
    }
    if (!client->greeted) {
        uint32_t version = agent_frame_u32(frame, 4);
        client->greeted = frame->type == AGENT_HELLO && agent_frame_u32(frame, 0) == AGENT_MAGIC && version == AGENT_VERSION;
        return client->greeted ? 0 : bad(error, "no greeting, or one of another version");
    }
    switch (frame->type) {
    case AGENT_DATA:
        return take_data(client, frame, error);
    case AGENT_CREDIT: {
        uint32_t more = agent_frame_u32(frame, 0);
        if (frame->stream != AGENT_STDIN || frame->length != 4 || more > AGENT_WINDOW - client->window)
            return bad(error, "credit beyond the window");
        client->window += more;
        return 0;
    }
    case AGENT_EXIT:
        return take_exit(client, frame, error);
    case AGENT_PONG:
        client->pong = true;
        return 0;
    default:
        return bad(error, "a frame that only a client may send");
    }
}

int agent_client_take(struct agent_client *client, const void *bytes, size_t length, struct error *error)
{
    if (!length)
        return 0;
    uint8_t *at = agent_buffer_room(&client->in, length);
    if (!at)
        return error_set(error, ENOMEM, "no memory for what the guest sends");
    memcpy(at, bytes, length);
    client->in.used += length;
    struct agent_frame frame;
    int size = 0, r = 0;
    while (r == 0 && !client->ended && client->in.used &&
           (size = agent_frame_parse(client->in.bytes + client->in.first, client->in.used, &frame)) > 0) {
        r = take_frame(client, &frame, error);
        agent_buffer_drop(&client->in, (size_t)size);
    }
    if (client->ended) /* nothing comes after it that could matter */
        agent_buffer_drop(&client->in, client->in.used);
    return r == 0 && size < 0 ? bad(error, "no frame starts so") : r;
}

int agent_client_passed(struct agent_client *client, enum agent_stream stream, size_t length)
{
    agent_buffer_drop(&client->output[stream], length);
    size_t passed = AGENT_WINDOW - client->allowed[stream] - client->output[stream].used;
    if (passed < AGENT_WINDOW / 2)
        return 0;
    uint8_t payload[4];
    agent_u32_put(payload, (uint32_t)passed);
    client->allowed[stream] += (uint32_t)passed;
    return agent_buffer_frame(&client->to_agent, AGENT_CREDIT, stream, payload, sizeof payload);
}

/* One command under way. */
struct run {
    const struct agent_call *call;
    struct agent_client client;
    int socket;
    bool input_open, lost; /* lost: the socket takes no more; it may still give */
    unsigned interrupts;
};

static int lost(struct error *error)
{
    return error_set(error, ECONNRESET, "the connection to the guest was lost");
}

static int from_agent(struct run *run, struct error *error)
{
    uint8_t bytes[READ_SIZE];
    ssize_t n = recv(run->socket, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n <= 0)
        return lost(error);
    run->interrupts = 0;
    return agent_client_take(&run->client, bytes, (size_t)n, error);
}

/* A failure to send is not yet an end: what the agent said before may stand in the socket. */
static void to_agent(struct run *run)
{
    struct agent_buffer *queue = &run->client.to_agent;
    ssize_t n = send(run->socket, queue->bytes + queue->first, queue->used, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        agent_buffer_drop(queue, (size_t)n);
    else if (n < 0 && errno != EINTR && errno != EAGAIN)
        run->lost = true;
    if (run->lost)
        agent_buffer_drop(queue, queue->used);
}

static int end_input(struct run *run)
{
    run->input_open = false;
    return agent_buffer_frame(&run->client.to_agent, AGENT_DATA, AGENT_STDIN, NULL, 0);
}

static int read_input(struct run *run, struct error *error)
{
    char typed[16384], filtered[sizeof typed + 1];
    const char *bytes = typed;
    size_t room = run->client.window - 1; /* a filter may let out one byte that it held back */
    ssize_t n = read(run->call->in, typed, room < sizeof typed ? room : sizeof typed);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n <= 0)
        return end_input(run);
    size_t length = (size_t)n;
    if (run->call->typed) {
        if (run->call->typed(run->call->owner, typed, length, filtered, &length))
            return error_set(error, ECANCELED, "left; the command was hung up");
        bytes = filtered;
    }
    run->client.window -= (uint32_t)length;
    return length ? agent_buffer_frame(&run->client.to_agent, AGENT_DATA, AGENT_STDIN, bytes, (uint32_t)length) : 0;
}

static int write_output(struct run *run, enum agent_stream stream, int fd)
{
    struct agent_buffer *queue = &run->client.output[stream];
    ssize_t n = write(fd, queue->bytes + queue->first, queue->used < PIPE_BUF ? queue->used : PIPE_BUF);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    return n < 0 ? -errno : agent_client_passed(&run->client, stream, (size_t)n);
}

static int tell_size(struct run *run)
{
    struct winsize size;
    uint8_t payload[4];
    if (ioctl(run->call->in, TIOCGWINSZ, &size) < 0)
        return 0;
    agent_u32_put(payload, size.ws_row | (uint32_t)size.ws_col << 16);
    return agent_buffer_frame(&run->client.to_agent, AGENT_RESIZE, AGENT_STDIN, payload, sizeof payload);
}

static int take_signal(struct run *run, struct error *error)
{
    struct signalfd_siginfo info;
    if (read(run->call->signals, &info, sizeof info) != sizeof info)
        return 0;
    if (info.ssi_signo == SIGWINCH)
        return tell_size(run);
    if (info.ssi_signo == SIGINT && ++run->interrupts >= SIGNALS_TO_LEAVE)
        return error_set(error, ECANCELED, "interrupted; the guest does not answer");
    uint8_t payload[4];
    agent_u32_put(payload, info.ssi_signo);
    return agent_buffer_frame(&run->client.to_agent, AGENT_SIGNAL, AGENT_STDIN, payload, sizeof payload);
}

enum { AT_SOCKET, AT_IN, AT_OUT, AT_ERR, AT_SIGNALS, POLLED };

static void ask(const struct run *run, struct pollfd polled[POLLED])
{
    const struct agent_client *client = &run->client;
    const struct agent_call *call = run->call;
    bool input = run->input_open && client->window > 1 && client->to_agent.used < TO_AGENT_CROWDED && !client->ended;
    polled[AT_SOCKET] = (struct pollfd){client->ended ? -1 : run->socket, (short)(POLLIN | (client->to_agent.used ? POLLOUT : 0)), 0};
    polled[AT_IN] = (struct pollfd){input ? call->in : -1, POLLIN, 0};
    polled[AT_OUT] = (struct pollfd){client->output[AGENT_STDOUT].used ? call->out : -1, POLLOUT, 0};
    polled[AT_ERR] = (struct pollfd){client->output[AGENT_STDERR].used ? call->err : -1, POLLOUT, 0};
    polled[AT_SIGNALS] = (struct pollfd){call->signals, POLLIN, 0};
}

/* Serves what poll found. */
static int serve(struct run *run, const struct pollfd polled[POLLED], struct error *error)
{
    int r = 0;
    if (polled[AT_OUT].revents)
        r = write_output(run, AGENT_STDOUT, run->call->out);
    if (r == 0 && polled[AT_ERR].revents)
        r = write_output(run, AGENT_STDERR, run->call->err);
    if (r == -EPIPE)
        return error_set(error, EPIPE, "nobody reads the command's output any more");
    if (r < 0)
        return error_set(error, -r, "passing on the command's output: %s", strerror(-r));
    if (polled[AT_SIGNALS].revents)
        r = take_signal(run, error);
    if (r == 0 && polled[AT_IN].revents)
        r = read_input(run, error);
    if (r == -ENOMEM)
        return error_set(error, ENOMEM, "no memory for the command's input");
    if (r == 0 && run->client.to_agent.used && !run->lost)
        to_agent(run);
    if (r == 0 && polled[AT_SOCKET].revents & (POLLIN | POLLHUP | POLLERR))
        r = from_agent(run, error);
    if (run->client.input_closed)
        run->input_open = false;
    return r;
}

int agent_run(int socket, const struct agent_call *call, int *ret_status, struct error *error)
{
    struct run run = {.call = call, .socket = socket, .input_open = call->exec->flags & AGENT_EXEC_STDIN};
    agent_client_init(&run.client);
    int r = agent_buffer_exec(&run.client.to_agent, call->exec);
    if (r < 0)
        error_set(error, -r, r == -E2BIG ? "the command's arguments and environment are too long" : "no memory for the command");
    else
        to_agent(&run);
    while (r == 0 && !(run.client.ended && !run.client.output[AGENT_STDOUT].used && !run.client.output[AGENT_STDERR].used)) {
        struct pollfd polled[POLLED];
        ask(&run, polled);
        if (poll(polled, POLLED, -1) >= 0)
            r = serve(&run, polled, error);
        else if (errno != EINTR)
            r = error_set(error, errno, "waiting for the guest: %s", strerror(errno));
    }
    if (r == 0) {
        *ret_status = run.client.status;
        snprintf(error->text, sizeof error->text, "%s", run.client.reason);
    }
    agent_client_free(&run.client);
    return r;
}

int agent_power_off(int socket, struct error *error)
{
    struct agent_exec none = {.flags = 0};
    struct agent_call call = {.exec = &none, .in = -1, .out = -1, .err = -1, .signals = -1};
    struct run run = {.call = &call, .socket = socket};
    struct timeval patience = {.tv_sec = CONNECT_SECONDS};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    agent_client_init(&run.client);
    int r = agent_buffer_frame(&run.client.to_agent, AGENT_POWER_OFF, AGENT_STDIN, NULL, 0);
    if (r < 0)
        error_set(error, ENOMEM, "no memory");
    else
        to_agent(&run);
    while (r == 0 && !run.client.pong) {
        struct pollfd polled = {socket, POLLIN, 0};
        r = poll(&polled, 1, CONNECT_SECONDS * 1000) > 0 ? from_agent(&run, error)
                                                         : error_set(error, ETIMEDOUT, "the guest's agent does not answer");
    }
    agent_client_free(&run.client);
    return r;
}
