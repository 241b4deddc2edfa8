/* control.c - any bytes as lines on a control socket, to verbs that look at every kind of member. */
#include <stdlib.h>
#include <string.h>

#include "host/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int serve_all(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                     struct error *error)
{
    const char *text = NULL;
    uint64_t number = 0;
    bool flag = false;
    (void)owner, (void)call;
    int r = control_string(request, "text", true, &text, error);
    if (r == 0)
        r = control_number(request, "number", false, 1000, &number, error);
    if (r == 0)
        r = control_flag(request, "flag", &flag, error);
    if (r < 0)
        return r;
    if (number > 1000 || strlen(text) > CONTROL_LINE_MAX)
        abort();
    json_object_object_add(reply, "text", json_object_new_string(text));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct control_verb verbs[] = {{"all", serve_all}, {NULL, NULL}};
    const char *at = (const char *)data, *end = at + size;
    for (unsigned lines = 0; at < end && lines < 64; lines++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline ? newline : end) - at);
        char *reply = control_line(verbs, NULL, NULL, at, length);
        if (!reply || !strchr(reply, '\n') || strchr(reply, '\n')[1] || !strstr(reply, "\"ok\":"))
            abort();
        free(reply);
        at += length + 1;
    }
    return 0;
}
