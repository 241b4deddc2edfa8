/* agent_client.h - the host's side of the guest agent: one command, its streams and its status.
 *
 * Everything here is called from one thread and blocks it. What the agent sends is checked as if a hostile guest had
 * written it. */
#ifndef VENEER_HOST_AGENT_CLIENT_H
#define VENEER_HOST_AGENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "host/agent_protocol.h"

/* Connects to `port` of the guest behind a vsock device's unix socket: "CONNECT port", answered by "OK port". Returns 0,
 * -ECONNREFUSED when nobody listens there (yet), -ETIMEDOUT, or another negative errno, with a sentence. */
int agent_connect(const char *vsock_path, uint32_t port, int *ret_socket, struct error *error);

/* A command and this side of its streams. */
struct agent_call {
    const struct agent_exec *exec;
    int in, out, err; /* the caller's; `in` is read only when exec->flags has AGENT_EXEC_STDIN */
    int signals;      /* a signalfd, or -1: SIGWINCH is told as a new size of `in`'s terminal, others are handed on */
    /* Filters what a person typed: `bytes` of `length` become *ret_length bytes at ret_bytes (room for length + 1).
     * Returns true when the person asks to leave. May be NULL. */
    bool (*typed)(void *owner, const char *bytes, size_t length, char *ret_bytes, size_t *ret_length);
    void *owner;
};

/* What a program that ran the command should exit with. */
#define AGENT_STATUS_FAILED 125 /* veneer or the guest failed, not the command */
#define AGENT_STATUS_SIGNAL 128 /* added to a signal's number */

/* Runs the command. Returns 0 with its status (128 and more for a signal; 126 and 127 with a sentence in `error` when it
 * could not be started, else error's text is empty), -EPIPE when nobody reads its output any more, -ECANCELED when the
 * person left, or another negative errno with a sentence. The socket stays the caller's; closing it ends the command. */
int agent_run(int socket, const struct agent_call *call, int *ret_status, struct error *error);

/* Asks the agent to shut the guest down in its own order. Returns 0 when the agent goes about it. */
int agent_power_off(int socket, struct error *error);

/* The client's state machine without its socket, for agent_run and for fuzzing: takes what the agent sent and queues what
 * is due to `to_agent` and, by stream, to `output`. */
struct agent_client {
    struct agent_buffer in, to_agent, output[AGENT_STREAMS];
    uint32_t window;                  /* STDIN bytes that the agent still takes */
    uint32_t allowed[AGENT_STREAMS];  /* output bytes that it may still send */
    bool greeted, pong, ended, input_closed;
    int status;
    char reason[256];
};

void agent_client_init(struct agent_client *client);
void agent_client_free(struct agent_client *client);
/* Returns 0, or a negative errno with a sentence when the agent does not keep to the protocol or refuses. */
int agent_client_take(struct agent_client *client, const void *bytes, size_t length, struct error *error);
/* `length` bytes of a stream have been passed on; they leave output and come back to the agent as credit. */
int agent_client_passed(struct agent_client *client, enum agent_stream stream, size_t length);

#endif
