/* agent_protocol.c - see agent_protocol.h. Needs nothing but libc: the agent is linked with this very file. */
#include "host/agent_protocol.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define EXEC_HEAD 16u      /* what stands before an EXEC frame's strings */
#define KEEP_EMPTY 16384u  /* an empty buffer larger than this is freed */

static uint32_t get_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

void agent_u32_put(uint8_t *ret_bytes, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        ret_bytes[i] = (uint8_t)(value >> (8 * i));
}

void agent_header_put(uint8_t ret_bytes[AGENT_HEADER], enum agent_type type, enum agent_stream stream, uint32_t length)
{
    agent_u32_put(ret_bytes, length);
    ret_bytes[4] = (uint8_t)type;
    ret_bytes[5] = (uint8_t)stream;
    ret_bytes[6] = ret_bytes[7] = 0;
}

int agent_frame_parse(const uint8_t *bytes, size_t length, struct agent_frame *ret_frame)
{
    if (length < AGENT_HEADER)
        return 0;
    uint32_t payload = get_u32(bytes);
    uint8_t type = bytes[4], stream = bytes[5];
    bool streams = type == AGENT_DATA || type == AGENT_CREDIT;
    if (type < AGENT_HELLO || type > AGENT_FAULT || bytes[6] || bytes[7])
        return -EPROTO;
    if (payload > (type == AGENT_EXEC ? AGENT_EXEC_MAX : AGENT_PAYLOAD_MAX))
        return -EPROTO;
    if (stream >= (streams ? AGENT_STREAMS : 1))
        return -EPROTO;
    if (length - AGENT_HEADER < payload)
        return 0;
    *ret_frame = (struct agent_frame){type, stream, payload, bytes + AGENT_HEADER};
    return (int)(AGENT_HEADER + payload);
}

uint32_t agent_frame_u32(const struct agent_frame *frame, uint32_t offset)
{
    return offset + 4 <= frame->length ? get_u32(frame->payload + offset) : 0;
}

uint16_t agent_frame_u16(const struct agent_frame *frame, uint32_t offset)
{
    return offset + 2 <= frame->length ? (uint16_t)(frame->payload[offset] | frame->payload[offset + 1] << 8) : 0;
}

static int refuse(const char **ret_why, const char *why)
{
    *ret_why = why;
    return -EPROTO;
}

/* Takes `count` strings from *at; the last byte before `end` is a NUL. Returns false when there are fewer. */
static bool take_strings(const char **at, const char *end, uint32_t count, const char **ret_strings)
{
    for (uint32_t i = 0; i < count; i++) {
        if (*at == end)
            return false;
        ret_strings[i] = *at;
        *at += strlen(*at) + 1;
    }
    ret_strings[count] = NULL;
    return true;
}

static const char *check_environment(const struct agent_exec *exec)
{
    for (uint32_t i = 0; i < exec->envc; i++)
        if (exec->env[i][0] == '=' || !strchr(exec->env[i], '='))
            return "an environment entry is not NAME=VALUE";
    return NULL;
}

int agent_exec_parse(const struct agent_frame *frame, struct agent_exec *ret_exec, const char **ret_why)
{
    if (frame->length <= EXEC_HEAD || frame->payload[frame->length - 1])
        return refuse(ret_why, "the command is cut off");
    struct agent_exec exec = {.flags = agent_frame_u32(frame, 0), .rows = agent_frame_u16(frame, 4),
                              .columns = agent_frame_u16(frame, 6), .argc = agent_frame_u32(frame, 8),
                              .envc = agent_frame_u32(frame, 12)};
    if (exec.flags & ~AGENT_EXEC_FLAGS)
        return refuse(ret_why, "the command has flags that this agent does not know");
    if (exec.argc < 1 || exec.argc > AGENT_STRINGS_MAX || exec.envc > AGENT_STRINGS_MAX)
        return refuse(ret_why, "the command has no arguments, or too many");
    exec.argv = calloc((size_t)exec.argc + exec.envc + 2, sizeof *exec.argv);
    if (!exec.argv)
        return -ENOMEM;
    exec.env = exec.argv + exec.argc + 1;
    const char *at = (const char *)frame->payload + EXEC_HEAD, *end = (const char *)frame->payload + frame->length;
    const char *fixed[3];
    bool whole = take_strings(&at, end, 2, fixed) && take_strings(&at, end, exec.argc, exec.argv) &&
                 take_strings(&at, end, exec.envc, exec.env) && at == end;
    const char *why = whole ? check_environment(&exec) : "the command's strings do not fit their count";
    if (why) {
        free(exec.argv);
        return refuse(ret_why, why);
    }
    exec.directory = fixed[0];
    exec.user = fixed[1];
    *ret_exec = exec;
    return 0;
}

uint8_t *agent_buffer_room(struct agent_buffer *buffer, size_t length)
{
    if (length > SIZE_MAX / 4 - buffer->used)
        return NULL;
    if (buffer->size - buffer->first - buffer->used < length && buffer->first) {
        memmove(buffer->bytes, buffer->bytes + buffer->first, buffer->used);
        buffer->first = 0;
    }
    if (buffer->size - buffer->used < length) {
        size_t size = buffer->size ? buffer->size : 512;
        while (size - buffer->used < length)
            size *= 2;
        uint8_t *grown = realloc(buffer->bytes, size);
        if (!grown)
            return NULL;
        buffer->bytes = grown;
        buffer->size = size;
    }
    return buffer->bytes + buffer->first + buffer->used;
}

void agent_buffer_drop(struct agent_buffer *buffer, size_t length)
{
    buffer->first += length;
    buffer->used -= length;
    if (buffer->used)
        return;
    buffer->first = 0;
    if (buffer->size > KEEP_EMPTY)
        agent_buffer_free(buffer);
}

void agent_buffer_free(struct agent_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct agent_buffer){NULL, 0, 0, 0};
}

int agent_buffer_frame(struct agent_buffer *buffer, enum agent_type type, enum agent_stream stream, const void *payload,
                       uint32_t length)
{
    uint8_t *at = agent_buffer_room(buffer, (size_t)AGENT_HEADER + length);
    if (!at)
        return -ENOMEM;
    agent_header_put(at, type, stream, length);
    if (length)
        memcpy(at + AGENT_HEADER, payload, length);
    buffer->used += AGENT_HEADER + length;
    return 0;
}

static size_t strings_size(const char **strings, uint32_t count)
{
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++)
        size += strlen(strings[i]) + 1;
    return size;
}

static uint8_t *put_strings(uint8_t *at, const char **strings, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        size_t size = strlen(strings[i]) + 1;
        memcpy(at, strings[i], size);
        at += size;
    }
    return at;
}

int agent_buffer_exec(struct agent_buffer *buffer, const struct agent_exec *exec)
{
    const char *fixed[] = {exec->directory, exec->user};
    size_t length = EXEC_HEAD + strings_size(fixed, 2) + strings_size(exec->argv, exec->argc) +
                    strings_size(exec->env, exec->envc);
    if (length > AGENT_EXEC_MAX || exec->argc > AGENT_STRINGS_MAX || exec->envc > AGENT_STRINGS_MAX)
        return -E2BIG;
    uint8_t *at = agent_buffer_room(buffer, AGENT_HEADER + length);
    if (!at)
        return -ENOMEM;
    agent_header_put(at, AGENT_EXEC, AGENT_STDIN, (uint32_t)length);
    at += AGENT_HEADER;
    agent_u32_put(at, exec->flags);
    agent_u32_put(at + 4, exec->rows | (uint32_t)exec->columns << 16);
    agent_u32_put(at + 8, exec->argc);
    agent_u32_put(at + 12, exec->envc);
    at = put_strings(at + EXEC_HEAD, fixed, 2);
    at = put_strings(at, exec->argv, exec->argc);
    put_strings(at, exec->env, exec->envc);
    buffer->used += AGENT_HEADER + length;
    return 0;
}
