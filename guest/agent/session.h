/* session.h - one connection to the agent and the command it carries.
 *
 * A session serves itself from the event loop. It ends when the client has gone and its command, if it started one,
 * has been reaped; a command whose client goes first is hung up, and killed when that does not end it. */
#ifndef VENEER_GUEST_AGENT_SESSION_H
#define VENEER_GUEST_AGENT_SESSION_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/loop.h"

struct session;

struct session_owner {
    struct loop *loop;
    void *context;
    void (*ended)(void *context, struct session *session); /* the session frees itself after this */
    void (*power_off)(void *context);
};

/* Takes over a connected, non-blocking socket, closed when there is an error. Returns 0 or a negative errno. */
int session_new(const struct session_owner *owner, int socket, struct session **ret_session);
/* Tells a client that it cannot be served, and closes the socket. */
void session_refuse(int socket, const char *why);
/* The process of this session, or 0. */
pid_t session_pid(const struct session *session);
/* Its process has been reaped with this status, as waitpid gives it. */
void session_reaped(struct session *session, int wait_status);
/* Frees a session and kills its command; `ended` is not called. */
void session_free(struct session *session);

#endif
