/* control.c - see control.h.
 *
 * A connection is either reading (no request is being served), waiting for a verb that replies later, or writing its
 * reply; it is in the loop only for what it is about. A call outlives its connection when the client goes first. */
#include "host/control.h"

#include <errno.h>
#include <json-c/json_tokener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/agent_protocol.h" /* struct agent_buffer */

#define NESTING_MAX 16

struct client {
    struct control *control;
    int fd; /* -1: a free place */
    struct loop_source *source;
    struct agent_buffer in, out;
    struct control_call *call; /* served now, replied to later */
    uint64_t last;             /* control->turn when it last sent or was sent something */
    bool ends;                 /* close once `out` is sent */
};

struct control_call {
    struct client *client; /* NULL: has gone */
};

struct control {
    struct loop *loop;
    const struct control_verb *verbs;
    void *owner;
    int listener;
    struct loop_source *source;
    uint64_t turn;
    struct client client[CONTROL_CLIENTS_MAX];
};

static struct json_object *outcome(int status, struct json_object *reply, const char *text)
{
    if (status < 0 || !reply) {
        json_object_put(reply);
        reply = json_object_new_object();
    }
    json_object_object_add(reply, "ok", json_object_new_boolean(status >= 0));
    if (status < 0)
        json_object_object_add(reply, "error", json_object_new_string(text));
    return reply;
}

/* The reply's line, or NULL without memory. Takes `reply` over. */
static char *text_of(struct json_object *reply)
{
    const char *text = json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PLAIN);
    char *line = NULL;
    if (!text || asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    json_object_put(reply);
    return line;
}

static int parse(const char *line, size_t length, struct json_object **ret_request, struct error *error)
{
    struct json_tokener *tokener = json_tokener_new_ex(NESTING_MAX);
    if (!tokener)
        return error_set(error, ENOMEM, "no memory for the request");
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *request = json_tokener_parse_ex(tokener, line, (int)length);
    enum json_tokener_error why = json_tokener_get_error(tokener);
    size_t end = json_tokener_get_parse_end(tokener);
    json_tokener_free(tokener);
    if (why != json_tokener_success || end != length) {
        json_object_put(request);
        return error_set(error, EINVAL, "the request is not one JSON object on one line: %s",
                         why == json_tokener_success ? "something follows it" : json_tokener_error_desc(why));
    }
    if (!json_object_is_type(request, json_type_object)) {
        json_object_put(request);
        return error_set(error, EINVAL, "the request is not one JSON object on one line: it is JSON of another kind");
    }
    *ret_request = request;
    return 0;
}

static int serve(const struct control_verb *verbs, void *owner, struct control_call *call, struct json_object *request,
                 struct json_object *reply, struct error *error)
{
    const char *name;
    int r = control_string(request, "verb", true, &name, error);
    if (r < 0)
        return r;
    for (; verbs->name; verbs++)
        if (strcmp(verbs->name, name) == 0)
            return verbs->serve(owner, call, request, reply, error);
    return error_set(error, EINVAL, "there is no verb '%.60s'", name);
}

char *control_line(const struct control_verb *verbs, void *owner, struct control_call *call, const char *line, size_t length)
{
    struct error error = {""};
    struct json_object *request = NULL, *reply = json_object_new_object();
    int r = parse(line, length, &request, &error);
    if (r == 0)
        r = serve(verbs, owner, call, request, reply, &error);
    json_object_put(request);
    if (r == CONTROL_LATER) {
        json_object_put(reply);
        return NULL;
    }
    return text_of(outcome(r, reply, error.text));
}

static void drop(struct client *client)
{
    loop_remove(client->source);
    client->source = NULL;
    close(client->fd);
    client->fd = -1;
    if (client->call)
        client->call->client = NULL;
    client->call = NULL;
    client->ends = false;
    agent_buffer_free(&client->in);
    agent_buffer_free(&client->out);
}

static void queue(struct client *client, char *line)
{
    size_t length = line ? strlen(line) : 0;
    uint8_t *at = line ? agent_buffer_room(&client->out, length) : NULL;
    if (at) {
        memcpy(at, line, length);
        client->out.used += length;
    } else {
        client->ends = true; /* it will see that no reply comes */
    }
    free(line);
}

/* Serves the line that is there, if a whole one is. Returns false when nothing more can be done now. */
static bool take_line(struct client *client)
{
    struct control *control = client->control;
    const char *bytes = (const char *)client->in.bytes + client->in.first;
    const char *end = client->in.used ? memchr(bytes, '\n', client->in.used) : NULL;
    if (client->call || client->out.used || client->ends)
        return false;
    if (!end) {
        if (client->in.used < CONTROL_LINE_MAX)
            return false;
        queue(client, text_of(outcome(-E2BIG, NULL, "the request's line is longer than 65536 bytes")));
        client->ends = true;
        return true;
    }
    client->call = calloc(1, sizeof *client->call);
    if (!client->call) {
        client->ends = true;
        return true;
    }
    client->call->client = client;
    struct control_call *call = client->call;
    char *line = control_line(control->verbs, control->owner, call, bytes, (size_t)(end - bytes));
    agent_buffer_drop(&client->in, (size_t)(end - bytes) + 1);
    if (line) { /* else control_reply frees the call, or has done so already */
        client->call = NULL;
        free(call);
        queue(client, line);
    }
    return true;
}

/* Sends what it can. Returns false when the client has gone. */
static bool flush(struct client *client)
{
    while (client->out.used) {
        ssize_t n = send(client->fd, client->out.bytes + client->out.first, client->out.used, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        client->last = ++client->control->turn;
        agent_buffer_drop(&client->out, (size_t)n);
    }
    return true;
}

static void go_on(struct client *client)
{
    bool here = flush(client);
    while (here && take_line(client))
        here = flush(client);
    if (!here || (client->ends && !client->out.used)) {
        drop(client);
        return;
    }
    /* While a reply is due nothing is read; the connection's end (EPOLLHUP) is told of without being asked for. */
    loop_set_events(client->source, client->out.used ? EPOLLOUT : client->call ? 0u : (uint32_t)EPOLLIN);
}

static void on_client(void *context, uint32_t events)
{
    struct client *client = context;
    bool reads = !client->call && !client->out.used;
    if (reads && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        uint8_t *at = agent_buffer_room(&client->in, 4096);
        ssize_t n = at ? recv(client->fd, at, 4096, MSG_DONTWAIT) : 0;
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
            drop(client);
            return;
        }
        client->in.used += n > 0 ? (size_t)n : 0;
        client->last = ++client->control->turn;
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        drop(client);
        return;
    }
    go_on(client);
}

/* A free place, or that of the connection which has been idle for the longest; a call that is served keeps its place. */
static struct client *find_place(struct control *control)
{
    struct client *oldest = NULL;
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        struct client *client = &control->client[i];
        if (client->fd < 0)
            return client;
        if (!client->call && (!oldest || client->last < oldest->last))
            oldest = client;
    }
    if (oldest)
        drop(oldest);
    return oldest;
}

static void on_connection(void *context, uint32_t events)
{
    struct control *control = context;
    (void)events;
    int fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct client *client = find_place(control);
    if (!client || loop_add_fd(control->loop, fd, EPOLLIN, on_client, client, &client->source) < 0) {
        close(fd);
        return;
    }
    client->fd = fd;
    client->last = ++control->turn;
}

int control_new(struct loop *loop, const char *path, const struct control_verb *verbs, void *owner, struct control **ret_control,
                struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct control *control = calloc(1, sizeof *control);
    if (!control)
        return error_set(error, ENOMEM, "no memory for the control socket");
    *control = (struct control){.loop = loop, .verbs = verbs, .owner = owner};
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        control->client[i] = (struct client){.control = control, .fd = -1};
    int r = strlen(path) < sizeof address.sun_path ? 0 : -ENAMETOOLONG;
    control->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (r == 0) {
        memcpy(address.sun_path, path, strlen(path) + 1);
        if (control->listener < 0 || bind(control->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
            chmod(path, 0600) < 0 || listen(control->listener, 64) < 0)
            r = -errno;
    }
    if (r == 0)
        r = loop_add_fd(loop, control->listener, EPOLLIN, on_connection, control, &control->source);
    if (r < 0) {
        control_free(control);
        return error_set(error, -r, "making the control socket '%s': %s", path, strerror(-r));
    }
    *ret_control = control;
    return 0;
}

void control_free(struct control *control)
{
    if (!control)
        return;
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        if (control->client[i].fd >= 0) {
            flush(&control->client[i]);
            free(control->client[i].call);
            control->client[i].call = NULL;
            drop(&control->client[i]);
        }
    loop_remove(control->source);
    if (control->listener >= 0)
        close(control->listener);
    free(control);
}

void control_reply(struct control_call *call, int status, struct json_object *reply, const char *text)
{
    struct client *client = call->client;
    free(call);
    if (!client) {
        json_object_put(reply);
        return;
    }
    client->call = NULL;
    queue(client, text_of(outcome(status, reply, text)));
    /* Not served from here: the caller may be a verb that this connection is in the middle of. */
    loop_set_events(client->source, EPOLLOUT);
}

bool control_call_waited_for(const struct control_call *call)
{
    return call->client != NULL;
}

int control_string(struct json_object *request, const char *key, bool required, const char **ret_value, struct error *error)
{
    struct json_object *value;
    if (!json_object_object_get_ex(request, key, &value))
        return required ? error_set(error, EINVAL, "the request lacks \"%s\"", key) : 0;
    if (!json_object_is_type(value, json_type_string))
        return error_set(error, EINVAL, "\"%s\" is not a string", key);
    if (strlen(json_object_get_string(value)) != (size_t)json_object_get_string_len(value))
        return error_set(error, EINVAL, "\"%s\" has a NUL in it", key);
    *ret_value = json_object_get_string(value);
    return 0;
}

int control_number(struct json_object *request, const char *key, bool required, uint64_t max, uint64_t *ret_value,
                   struct error *error)
{
    struct json_object *value;
    if (!json_object_object_get_ex(request, key, &value))
        return required ? error_set(error, EINVAL, "the request lacks \"%s\"", key) : 0;
    if (!json_object_is_type(value, json_type_int))
        return error_set(error, EINVAL, "\"%s\" is not a whole number", key);
    /* get_int64 and get_uint64 both saturate: a negative number is known by the first, a large one by the second. */
    if (json_object_get_int64(value) < 0 || json_object_get_uint64(value) > max)
        return error_set(error, EINVAL, "\"%s\" is out of range", key);
    *ret_value = json_object_get_uint64(value);
    return 0;
}

int control_flag(struct json_object *request, const char *key, bool *ret_value, struct error *error)
{
    struct json_object *value;
    if (!json_object_object_get_ex(request, key, &value))
        return 0;
    if (!json_object_is_type(value, json_type_boolean))
        return error_set(error, EINVAL, "\"%s\" is not true or false", key);
    *ret_value = json_object_get_boolean(value);
    return 0;
}
