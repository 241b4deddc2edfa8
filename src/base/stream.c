/* stream.c - see stream.h.
 *
 * A section is: length of what follows (u32), version (u32), name length (u8), name, body. The length is
 * filled in by stream_end. While reading, `limit` is the end of the innermost open section, so that no
 * getter can pass it whatever the bytes say. */
#include "base/stream.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH 8
#define NAME_MAX_LENGTH 31

struct stream {
    uint8_t *bytes; /* owned when writing */
    size_t used;    /* written, or read so far */
    size_t size;    /* allocated, or the whole input */
    bool reading;
    unsigned depth;
    size_t start[DEPTH]; /* writing: where the section's length field is */
    size_t limit[DEPTH + 1];
    int code; /* first failure, positive errno */
    struct error error;
};

struct stream *stream_new(void)
{
    return calloc(1, sizeof(struct stream));
}

struct stream *stream_open(const void *bytes, size_t length)
{
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    stream->bytes = (uint8_t *)(uintptr_t)bytes; /* never written: reading is set */
    stream->size = length;
    stream->limit[0] = length;
    stream->reading = true;
    return stream;
}

void stream_free(struct stream *stream)
{
    if (!stream)
        return;
    if (!stream->reading)
        free(stream->bytes);
    free(stream);
}

const void *stream_bytes(const struct stream *stream, size_t *ret_length)
{
    *ret_length = stream->used;
    return stream->bytes;
}

static void fail(struct stream *stream, int code, const char *text)
{
    if (!stream->code)
        stream->code = -error_set(&stream->error, code, "%s", text);
}

void stream_fail(struct stream *stream, const char *format, ...)
{
    char text[256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fail(stream, EINVAL, text);
}

int stream_status(const struct stream *stream, struct error *error)
{
    if (stream->code && error)
        *error = stream->error;
    return -stream->code;
}

void stream_put_bytes(struct stream *stream, const void *bytes, size_t length)
{
    if (stream->code || stream->reading || !length)
        return;
    if (length > stream->size - stream->used) {
        size_t size = stream->size ? stream->size : 4096;
        while (size - stream->used < length)
            size *= 2;
        uint8_t *grown = realloc(stream->bytes, size);
        if (!grown) {
            fail(stream, ENOMEM, "no memory for the saved state");
            return;
        }
        stream->bytes = grown;
        stream->size = size;
    }
    memcpy(stream->bytes + stream->used, bytes, length);
    stream->used += length;
}

void stream_put_u8(struct stream *stream, uint8_t value) { stream_put_bytes(stream, &value, sizeof value); }
void stream_put_u16(struct stream *stream, uint16_t value) { stream_put_bytes(stream, &value, sizeof value); }
void stream_put_u32(struct stream *stream, uint32_t value) { stream_put_bytes(stream, &value, sizeof value); }
void stream_put_u64(struct stream *stream, uint64_t value) { stream_put_bytes(stream, &value, sizeof value); }

void stream_begin(struct stream *stream, const char *name, uint32_t version)
{
    size_t length = strlen(name);
    if (stream->depth == DEPTH || length > NAME_MAX_LENGTH || !version) {
        fail(stream, EINVAL, "a saved section is nested too deep or named too long");
        return;
    }
    stream->start[stream->depth++] = stream->used;
    stream_put_u32(stream, 0);
    stream_put_u32(stream, version);
    stream_put_u8(stream, (uint8_t)length);
    stream_put_bytes(stream, name, length);
}

void stream_end(struct stream *stream)
{
    if (stream->code)
        return;
    size_t start = stream->start[--stream->depth];
    size_t length = stream->used - start - sizeof(uint32_t);
    if (length > UINT32_MAX) {
        fail(stream, EFBIG, "a saved section is larger than 4 GiB");
        return;
    }
    uint32_t field = (uint32_t)length;
    memcpy(stream->bytes + start, &field, sizeof field);
}

void stream_get_bytes(struct stream *stream, void *ret_bytes, size_t length)
{
    if (!stream->code && stream->reading && length <= stream->limit[stream->depth] - stream->used) {
        memcpy(ret_bytes, stream->bytes + stream->used, length);
        stream->used += length;
        return;
    }
    fail(stream, EINVAL, "the saved state ends too early");
    memset(ret_bytes, 0, length);
}

uint8_t stream_get_u8(struct stream *stream)
{
    uint8_t value;
    stream_get_bytes(stream, &value, sizeof value);
    return value;
}

uint16_t stream_get_u16(struct stream *stream)
{
    uint16_t value;
    stream_get_bytes(stream, &value, sizeof value);
    return value;
}

uint32_t stream_get_u32(struct stream *stream)
{
    uint32_t value;
    stream_get_bytes(stream, &value, sizeof value);
    return value;
}

uint64_t stream_get_u64(struct stream *stream)
{
    uint64_t value;
    stream_get_bytes(stream, &value, sizeof value);
    return value;
}

uint32_t stream_enter(struct stream *stream, const char *name, uint32_t max_version)
{
    uint32_t length = stream_get_u32(stream);
    if (!stream->code && length > stream->limit[stream->depth] - stream->used)
        fail(stream, EINVAL, "a saved section is longer than what holds it");
    size_t end = stream->used + length;
    uint32_t version = stream_get_u32(stream);
    char found[NAME_MAX_LENGTH + 1] = "";
    uint8_t name_length = stream_get_u8(stream);
    if (name_length > NAME_MAX_LENGTH)
        fail(stream, EINVAL, "a saved section's name is too long");
    else
        stream_get_bytes(stream, found, name_length);
    if (!stream->code && strcmp(found, name) != 0)
        stream_fail(stream, "saved section '%s' where '%s' is due", found, name);
    if (!stream->code && (!version || version > max_version))
        stream_fail(stream, "saved section '%s' has version %u; this program knows up to %u", name, version, max_version);
    if (!stream->code && (stream->depth == DEPTH || stream->used > end))
        stream_fail(stream, "saved section '%s' is malformed", name);
    if (stream->code)
        return 0;
    stream->limit[++stream->depth] = end;
    return version;
}

void stream_leave(struct stream *stream)
{
    if (stream->code)
        return;
    stream->used = stream->limit[stream->depth--];
}
