/* control.h - a running machine's control socket: JSON lines, one request, one reply.
 *
 * A request is an object with the member "verb"; what else is in it is the verb's affair. A reply is an object with
 * "ok": true and what the verb adds, or "ok": false and "error": a sentence. Requests of one connection are served one
 * after the other. What clients send is bounded: lines, nesting, connections; an idle connection gives way to a new one
 * when all places are taken. Everything here happens on the loop's thread. */
#ifndef VENEER_HOST_CONTROL_H
#define VENEER_HOST_CONTROL_H

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

#define CONTROL_LINE_MAX 65536u
#define CONTROL_CLIENTS_MAX 64u
#define CONTROL_LATER 1

struct control;
struct control_call; /* a request whose reply is due */

struct control_verb {
    const char *name; /* NULL ends a table */
    /* Serves a request. Returns 0 (what was added to `reply` is sent), a negative errno with a sentence, or CONTROL_LATER:
     * control_reply will be called once with `call`. */
    int (*serve)(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                 struct error *error);
};

/* Listens on `path`, which must not exist, mode 0600. verbs and owner outlive it. Returns 0 or a negative errno with a
 * sentence. */
int control_new(struct loop *loop, const char *path, const struct control_verb *verbs, void *owner, struct control **ret_control,
                struct error *error);
/* Sends what can be sent at once and closes every connection; late replies must not follow. NULL is allowed. */
void control_free(struct control *control);

/* Replies to a call that was left for later: status 0 with `reply` (or NULL), or a negative errno with a sentence. Takes
 * `reply` over. A client that has gone meanwhile is no error. */
void control_reply(struct control_call *call, int status, struct json_object *reply, const char *text);

/* Whether the client of a call that was left for later is still there. */
bool control_call_waited_for(const struct control_call *call);

/* Serves one line without a socket, for tests and fuzzing: returns the reply's text, to be freed, or NULL when it comes
 * later. */
char *control_line(const struct control_verb *verbs, void *owner, struct control_call *call, const char *line, size_t length);

/* A request's member. Return 0, or -EINVAL with a sentence: missing (only where `required`, else the value stays as it is),
 * of another type, or out of range. The string is the request's. */
int control_string(struct json_object *request, const char *key, bool required, const char **ret_value, struct error *error);
int control_number(struct json_object *request, const char *key, bool required, uint64_t max, uint64_t *ret_value,
                   struct error *error);
int control_flag(struct json_object *request, const char *key, bool *ret_value, struct error *error);

/* The client's side: sends a request and waits for its reply, -ETIMEDOUT after timeout_ms (-1: never). A refusal is an
 * error like any other, with the machine's sentence. *ret_reply is to be put with json_object_put; NULL: not wanted. */
int control_request(const char *path, struct json_object *request, int timeout_ms, struct json_object **ret_reply,
                    struct error *error);
/* The same of the machine of that name; -ENOENT when none runs. Takes `request` over. */
int control_ask(const char *machine, struct json_object *request, int timeout_ms, struct json_object **ret_reply,
                struct error *error);

#endif
