/* session.c - see session.h.
 *
 * Invariants:
 * - A stream's descriptor is in the loop only while something can be done with it: readable output while the client
 *   has given credit and `out` has room, writable input while `input` holds bytes. epoll tells of a hang-up even when no
 *   event is asked for, so a paused descriptor leaves the loop.
 * - The client is read only while `out` is not crowded, so nothing that a client sends makes the agent's memory grow:
 *   `input` is bounded by the window, `out` by OUT_CROWDED and one frame, `in` by one frame.
 * - EXIT is the last frame: it is sent once the process has been reaped and what it printed has been read. Children
 *   that it left behind may keep the streams open; they are not waited for. */
#include "session.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/agent_protocol.h"
#include "spawn.h"

#define READ_SIZE 65536u
#define OUT_CROWDED (128u * 1024)
#define HANGUP_NS UINT64_C(5000000000)  /* from SIGHUP to SIGKILL for a command whose client has gone */
#define TERMINAL_NS UINT64_C(200000000) /* how long the last output of a terminal that was given away is waited for */
#define END_OF_INPUT 4                  /* Ctrl-D */
#define REASON_MAX 400u                 /* a sentence that says why a command was not started */

struct stream {
    struct session *session;
    int fd; /* -1: closed or never there */
    struct loop_source *source;
    uint32_t window; /* STDIN: what the client may still send; else what it still takes */
};

struct session {
    struct session_owner owner;
    struct clock clock;
    int socket; /* -1: the client has gone */
    struct loop_source *source;
    struct clock_timer *timer;
    struct agent_buffer in, out, input;
    bool greeted, started, terminal, reaped, finished, input_ends;
    pid_t pid;
    int wait_status;
    uint32_t passed; /* STDIN bytes given to the command and not yet credited */
    struct stream stream[AGENT_STREAMS];
};

static void pump(struct session *session);

static void close_stream(struct stream *stream)
{
    loop_remove(stream->source);
    stream->source = NULL;
    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = -1;
}

/* Sends a frame; a client that memory cannot be found for is let go. */
static void send_frame(struct session *session, enum agent_type type, enum agent_stream stream, const void *payload, uint32_t length)
{
    if (session->socket >= 0 && agent_buffer_frame(&session->out, type, stream, payload, length) < 0)
        shutdown(session->socket, SHUT_RDWR);
}

static void send_u32(struct session *session, enum agent_type type, enum agent_stream stream, uint32_t value)
{
    uint8_t payload[4];
    agent_u32_put(payload, value);
    send_frame(session, type, stream, payload, sizeof payload);
}

static void send_exit(struct session *session, enum agent_end end, uint32_t status, const char why[REASON_MAX])
{
    uint8_t payload[8 + REASON_MAX];
    size_t length = strnlen(why, REASON_MAX);
    agent_u32_put(payload, end);
    agent_u32_put(payload + 4, status);
    memcpy(payload + 8, why, length);
    send_frame(session, AGENT_EXIT, AGENT_STDIN, payload, (uint32_t)(8 + length));
    session->finished = true;
}

static void fault(struct session *session, const char *why)
{
    send_frame(session, AGENT_FAULT, AGENT_STDIN, why, (uint32_t)strlen(why));
    session->finished = true;
}

static void end(struct session *session)
{
    session->owner.ended(session->owner.context, session);
    session_free(session);
}

/* The client has gone, or is sent away. */
static void hang_up(struct session *session)
{
    loop_remove(session->source);
    session->source = NULL;
    close(session->socket);
    session->socket = -1;
    for (unsigned i = 0; i < AGENT_STREAMS; i++)
        close_stream(&session->stream[i]);
    agent_buffer_free(&session->in);
    agent_buffer_free(&session->out);
    agent_buffer_free(&session->input);
    if (!session->started || session->reaped)
        return;
    kill(-session->pid, SIGHUP);
    kill(-session->pid, SIGCONT);
    clock_timer_arm(&session->clock, session->timer, clock_now(&session->clock) + HANGUP_NS);
}

/* The command's client is gone and it did not heed SIGHUP, or its terminal stays open without a reader's news. */
static void on_timer(void *context)
{
    struct session *session = context;
    if (!session->reaped) {
        if (session->socket < 0)
            kill(-session->pid, SIGKILL);
        return;
    }
    close_stream(&session->stream[AGENT_STDOUT]);
    /* A timer may not free itself, as pumping might: the socket's next event does it. */
    loop_set_events(session->source, EPOLLIN | EPOLLOUT);
}

static void on_stream(void *context, uint32_t events)
{
    (void)events;
    pump(((struct stream *)context)->session);
}

static void watch(struct stream *stream, uint32_t events, bool wanted)
{
    if (wanted && !stream->source) {
        if (loop_add_fd(stream->session->owner.loop, stream->fd, events, on_stream, stream, &stream->source) < 0)
            close_stream(stream);
    } else if (!wanted && stream->source) {
        loop_remove(stream->source);
        stream->source = NULL;
    }
}

/* Gives the command what has come for it. */
static void pump_input(struct session *session)
{
    struct stream *stream = &session->stream[AGENT_STDIN];
    while (session->input.used && stream->fd >= 0) {
        ssize_t n = write(stream->fd, session->input.bytes + session->input.first, session->input.used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            send_frame(session, AGENT_DATA, AGENT_STDIN, NULL, 0); /* the command closed it: no more is wanted */
            close_stream(stream);
            break;
        }
        agent_buffer_drop(&session->input, (size_t)n);
        session->passed += (uint32_t)n;
    }
    if (stream->fd < 0) { /* what still comes is taken and dropped */
        session->passed += (uint32_t)session->input.used;
        agent_buffer_drop(&session->input, session->input.used);
    } else if (!session->input.used && session->input_ends) {
        session->input_ends = false;
        if (!session->terminal)
            close_stream(stream);
        else if (write(stream->fd, &(char){END_OF_INPUT}, 1) < 0)
            close_stream(stream);
    }
    if (session->passed >= AGENT_WINDOW / 2) {
        send_u32(session, AGENT_CREDIT, AGENT_STDIN, session->passed);
        stream->window += session->passed;
        session->passed = 0;
    }
}

/* Reads what the command printed, straight into a frame. Returns false when there is nothing to read now. */
static bool read_output(struct session *session, enum agent_stream which)
{
    struct stream *stream = &session->stream[which];
    size_t room = stream->window < READ_SIZE ? stream->window : READ_SIZE;
    uint8_t *at = agent_buffer_room(&session->out, AGENT_HEADER + room);
    if (!at)
        return false;
    ssize_t n = read(stream->fd, at + AGENT_HEADER, room);
    if (n < 0 && errno == EINTR)
        return true;
    if (n < 0 && errno == EAGAIN) {
        if (!session->reaped)
            return false;
        if (session->terminal) /* the hang-up that ends it is on its way, unless the command gave its terminal away */
            clock_timer_arm(&session->clock, session->timer, clock_now(&session->clock) + TERMINAL_NS);
        else
            close_stream(stream);
        return false;
    }
    if (n <= 0) {
        close_stream(stream);
        return false;
    }
    agent_header_put(at, AGENT_DATA, which, (uint32_t)n);
    session->out.used += AGENT_HEADER + (size_t)n;
    stream->window -= (uint32_t)n;
    return true;
}

static bool readable(const struct session *session, const struct stream *stream)
{
    return stream->fd >= 0 && stream->window > 0 && session->out.used < OUT_CROWDED;
}

/* Sends what it can. Returns false when the client has gone. */
static bool flush(struct session *session)
{
    while (session->out.used) {
        ssize_t n = send(session->socket, session->out.bytes + session->out.first, session->out.used, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n < 0)
            return false;
        agent_buffer_drop(&session->out, (size_t)n);
    }
    return true;
}

static void pump_output(struct session *session)
{
    for (enum agent_stream i = AGENT_STDOUT; i < AGENT_STREAMS; i++)
        while (readable(session, &session->stream[i]) && read_output(session, i))
            ;
    bool open = session->stream[AGENT_STDOUT].fd >= 0 || session->stream[AGENT_STDERR].fd >= 0;
    if (!session->reaped || open || session->finished)
        return;
    static const char none[REASON_MAX];
    if (WIFSIGNALED(session->wait_status))
        send_exit(session, AGENT_SIGNALLED, (uint32_t)WTERMSIG(session->wait_status), none);
    else
        send_exit(session, AGENT_EXITED, (uint32_t)WEXITSTATUS(session->wait_status), none);
}

/* Moves everything that can move, then asks the loop for what it waits for. Ends the session when it is over. */
static void pump(struct session *session)
{
    if (session->socket >= 0) {
        bool here, crowded;
        do { /* what was left because of the crowd may be the last: no event would tell of it again */
            if (session->started) {
                pump_input(session);
                pump_output(session);
            }
            crowded = session->out.used >= OUT_CROWDED;
            here = flush(session);
        } while (here && crowded && session->out.used < OUT_CROWDED);
        if (!here)
            hang_up(session);
    }
    if (session->socket < 0) {
        if (!session->started || session->reaped)
            end(session);
        return;
    }
    watch(&session->stream[AGENT_STDIN], EPOLLOUT, session->stream[AGENT_STDIN].fd >= 0 && session->input.used);
    for (unsigned i = AGENT_STDOUT; i < AGENT_STREAMS; i++)
        watch(&session->stream[i], EPOLLIN, readable(session, &session->stream[i]));
    loop_set_events(session->source, (session->out.used < OUT_CROWDED ? EPOLLIN : 0u) | (session->out.used ? EPOLLOUT : 0u));
}

static void start(struct session *session, const struct agent_frame *frame)
{
    struct agent_exec exec;
    const char *why = "no memory";
    if (agent_exec_parse(frame, &exec, &why) < 0) {
        fault(session, why);
        return;
    }
    struct spawned spawned;
    int status;
    char reason[REASON_MAX];
    if (spawn_command(&exec, &spawned, &status, reason, sizeof reason) < 0) {
        send_exit(session, AGENT_NOT_STARTED, (uint32_t)status, reason);
    } else {
        session->started = true;
        session->terminal = exec.flags & AGENT_EXEC_TERMINAL;
        session->pid = spawned.pid;
        for (unsigned i = 0; i < AGENT_STREAMS; i++)
            session->stream[i].fd = spawned.fd[i];
    }
    free(exec.argv);
}

static void take_data(struct session *session, const struct agent_frame *frame)
{
    struct stream *stream = &session->stream[AGENT_STDIN];
    if (frame->stream != AGENT_STDIN || frame->length > stream->window || session->input_ends) {
        fault(session, "input beyond its window or its end");
        return;
    }
    stream->window -= frame->length;
    if (!frame->length) {
        session->input_ends = true;
        return;
    }
    uint8_t *at = agent_buffer_room(&session->input, frame->length);
    if (!at) {
        fault(session, "no memory for the input");
        return;
    }
    memcpy(at, frame->payload, frame->length);
    session->input.used += frame->length;
}

static void take_credit(struct session *session, const struct agent_frame *frame)
{
    struct stream *stream = &session->stream[frame->stream];
    uint32_t more = agent_frame_u32(frame, 0);
    if (frame->stream == AGENT_STDIN || frame->length != 4 || more > AGENT_WINDOW - stream->window)
        fault(session, "credit beyond the window");
    else
        stream->window += more;
}

static void resize(struct session *session, const struct agent_frame *frame)
{
    struct winsize size = {.ws_row = agent_frame_u16(frame, 0), .ws_col = agent_frame_u16(frame, 2)};
    if (session->terminal && session->stream[AGENT_STDOUT].fd >= 0)
        ioctl(session->stream[AGENT_STDOUT].fd, TIOCSWINSZ, &size);
}

static void take_signal(struct session *session, const struct agent_frame *frame)
{
    uint32_t number = agent_frame_u32(frame, 0);
    if (number < 1 || number > 64)
        fault(session, "there is no such signal");
    else if (!session->reaped)
        kill(-session->pid, (int)number);
}

static void greet(struct session *session, const struct agent_frame *frame)
{
    uint32_t version = agent_frame_u32(frame, 4);
    uint8_t payload[8];
    if (frame->type != AGENT_HELLO || agent_frame_u32(frame, 0) != AGENT_MAGIC || version < 1) {
        fault(session, "this is the agent of veneer; it expects its greeting");
        return;
    }
    agent_u32_put(payload, AGENT_MAGIC);
    agent_u32_put(payload + 4, version < AGENT_VERSION ? version : AGENT_VERSION);
    send_frame(session, AGENT_HELLO, AGENT_STDIN, payload, sizeof payload);
    session->greeted = true;
}

/* One frame of the client. Before a command there are requests, after it was started what concerns it. */
static void take_frame(struct session *session, const struct agent_frame *frame)
{
    if (!session->greeted) {
        greet(session, frame);
    } else if (frame->type == AGENT_PING) {
        send_frame(session, AGENT_PONG, AGENT_STDIN, frame->payload, frame->length);
    } else if (frame->type == AGENT_EXEC && !session->started) {
        start(session, frame);
    } else if (frame->type == AGENT_POWER_OFF && !session->started) {
        send_frame(session, AGENT_PONG, AGENT_STDIN, NULL, 0);
        session->owner.power_off(session->owner.context);
    } else if (!session->started) {
        fault(session, "there is no command that this could concern");
    } else if (frame->type == AGENT_DATA) {
        take_data(session, frame);
    } else if (frame->type == AGENT_CREDIT) {
        take_credit(session, frame);
    } else if (frame->type == AGENT_RESIZE) {
        resize(session, frame);
    } else if (frame->type == AGENT_SIGNAL) {
        take_signal(session, frame);
    } else {
        fault(session, "this does not belong in a client's mouth here");
    }
}

static void take_frames(struct session *session)
{
    struct agent_frame frame;
    int size = 0;
    while (!session->finished && session->in.used &&
           (size = agent_frame_parse(session->in.bytes + session->in.first, session->in.used, &frame)) > 0) {
        take_frame(session, &frame);
        agent_buffer_drop(&session->in, (size_t)size);
    }
    if (!session->finished && size < 0)
        fault(session, "this is no frame of the agent's protocol");
    if (session->finished) /* what else it says comes too late to matter */
        agent_buffer_drop(&session->in, session->in.used);
}

static void on_socket(void *context, uint32_t events)
{
    struct session *session = context;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        uint8_t *at = agent_buffer_room(&session->in, READ_SIZE);
        ssize_t n = at ? recv(session->socket, at, READ_SIZE, 0) : 0;
        if (n > 0) {
            session->in.used += (size_t)n;
            take_frames(session);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            hang_up(session);
        }
    }
    pump(session);
}

void session_reaped(struct session *session, int wait_status)
{
    session->reaped = true;
    session->wait_status = wait_status;
    clock_timer_arm(&session->clock, session->timer, CLOCK_NEVER);
    close_stream(&session->stream[AGENT_STDIN]);
    pump(session);
}

pid_t session_pid(const struct session *session)
{
    return session->started && !session->reaped ? session->pid : 0;
}

int session_new(const struct session_owner *owner, int socket, struct session **ret_session)
{
    struct session *session = calloc(1, sizeof *session);
    int r = -ENOMEM;
    if (session) {
        session->owner = *owner;
        session->clock = loop_clock(owner->loop);
        session->socket = socket;
        for (unsigned i = 0; i < AGENT_STREAMS; i++)
            session->stream[i] = (struct stream){.session = session, .fd = -1, .window = AGENT_WINDOW};
        session->timer = clock_timer_new(&session->clock, on_timer, session);
        if (session->timer)
            r = loop_add_fd(owner->loop, socket, EPOLLIN, on_socket, session, &session->source);
    }
    if (r < 0) {
        if (session && session->timer)
            clock_timer_free(&session->clock, session->timer);
        free(session);
        close(socket);
        return r;
    }
    *ret_session = session;
    return 0;
}

void session_refuse(int socket, const char *why)
{
    struct agent_buffer out = {NULL, 0, 0, 0};
    if (agent_buffer_frame(&out, AGENT_FAULT, AGENT_STDIN, why, (uint32_t)strlen(why)) == 0 &&
        send(socket, out.bytes, out.used, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        errno = 0; /* then it is not told */
    agent_buffer_free(&out);
    close(socket);
}

void session_free(struct session *session)
{
    if (session->started && !session->reaped)
        kill(-session->pid, SIGKILL);
    session->reaped = true; /* hang_up need not */
    if (session->socket >= 0)
        hang_up(session);
    clock_timer_free(&session->clock, session->timer);
    free(session);
}
