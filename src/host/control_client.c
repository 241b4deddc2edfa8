/* control_client.c - the client's side of control.h. A machine's reply is read with a bound, as any peer's. */
#include <errno.h>
#include <json-c/json_tokener.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "host/agent_protocol.h" /* struct agent_buffer */
#include "host/control.h"
#include "host/registry.h"

#define REPLY_MAX (1u << 20)

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits until the socket can be read, at most to `deadline` (-1: none). */
static int wait_readable(int fd, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline < 0 ? -1 : deadline - now_ms();
        if (deadline >= 0 && left < 0)
            left = 0;
        struct pollfd polled = {fd, POLLIN, 0};
        int n = poll(&polled, 1, (int)left);
        if (n > 0)
            return 0;
        if (n == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

static int read_line(int fd, int64_t deadline, struct agent_buffer *line)
{
    while (line->used < REPLY_MAX) {
        uint8_t *at = agent_buffer_room(line, 4096);
        if (!at)
            return -ENOMEM;
        int r = wait_readable(fd, deadline);
        if (r < 0)
            return r;
        ssize_t n = recv(fd, at, 4096, 0);
        if (n == 0 || (n < 0 && errno != EINTR))
            return n == 0 ? -ECONNRESET : -errno;
        line->used += n > 0 ? (size_t)n : 0;
        if (n > 0 && memchr(at, '\n', (size_t)n))
            return 0;
    }
    return -EMSGSIZE;
}

static int exchange(const char *path, const char *text, int64_t deadline, struct agent_buffer *line)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    struct iovec part[2] = {{(void *)(uintptr_t)text, strlen(text)}, {(void *)(uintptr_t)"\n", 1}};
    struct msghdr message = {.msg_iov = part, .msg_iovlen = 2};
    int r = 0;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        r = -errno;
    else if (sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)(part[0].iov_len + 1))
        r = -EIO;
    if (r == 0)
        r = read_line(fd, deadline, line);
    close(fd);
    return r;
}

static int judge(struct json_object *reply, struct error *error)
{
    struct json_object *ok, *text;
    if (!json_object_object_get_ex(reply, "ok", &ok))
        return error_set(error, EPROTO, "the machine's reply cannot be understood");
    if (json_object_get_boolean(ok))
        return 0;
    bool told = json_object_object_get_ex(reply, "error", &text);
    return error_set(error, EREMOTEIO, "%s", told ? json_object_get_string(text) : "the machine refused");
}

int control_request(const char *path, struct json_object *request, int timeout_ms, struct json_object **ret_reply,
                    struct error *error)
{
    struct agent_buffer line = {NULL, 0, 0, 0};
    int64_t deadline = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
    int r = exchange(path, json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN), deadline, &line);
    if (r < 0) {
        agent_buffer_free(&line);
        if (r == -ETIMEDOUT)
            return error_set(error, ETIMEDOUT, "the machine does not answer");
        return error_set(error, -r, "asking the machine through '%s': %s", path, strerror(-r));
    }
    struct json_tokener *tokener = json_tokener_new_ex(16);
    struct json_object *reply = tokener ? json_tokener_parse_ex(tokener, (const char *)line.bytes + line.first, (int)line.used) : NULL;
    if (tokener)
        json_tokener_free(tokener);
    agent_buffer_free(&line);
    r = judge(reply, error);
    if (r == 0 && ret_reply)
        *ret_reply = reply;
    else
        json_object_put(reply);
    return r;
}

int control_ask(const char *machine, struct json_object *request, int timeout_ms, struct json_object **ret_reply,
                struct error *error)
{
    char path[REGISTRY_PATH_MAX];
    int r = registry_find(machine, "control.sock", path, error);
    if (r == 0)
        r = control_request(path, request, timeout_ms, ret_reply, error);
    json_object_put(request);
    return r;
}
