/* stream.h - the saved form of a VM: little-endian values in named, versioned, length-checked sections.
 *
 * Writing: stream_begin / stream_put_* / stream_end. Reading: stream_enter / stream_get_* / stream_leave.
 * A stream remembers its first failure: later calls do nothing, getters give 0, and stream_status
 * tells. So save and load read as plain lists of fields, with one check at the end.
 * Bytes that are read may be hostile: every getter is bounded by the section it is in.
 * Not thread-safe; one owner. */
#ifndef VENEER_BASE_STREAM_H
#define VENEER_BASE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct stream;

/* An empty stream to write to. NULL when there is no memory. */
struct stream *stream_new(void);
/* A stream that reads the given bytes, which must stay until stream_free. NULL when there is no memory. */
struct stream *stream_open(const void *bytes, size_t length);
/* NULL is allowed. */
void stream_free(struct stream *stream);
/* The bytes written so far; owned by the stream, valid until the next put. */
const void *stream_bytes(const struct stream *stream, size_t *ret_length);

/* Opens a section; sections may nest up to 8 deep. name: at most 31 characters. */
void stream_begin(struct stream *stream, const char *name, uint32_t version);
void stream_end(struct stream *stream);
void stream_put_u8(struct stream *stream, uint8_t value);
void stream_put_u16(struct stream *stream, uint16_t value);
void stream_put_u32(struct stream *stream, uint32_t value);
void stream_put_u64(struct stream *stream, uint64_t value);
void stream_put_bytes(struct stream *stream, const void *bytes, size_t length);

/* Enters the next section, which must have this name and a version of 1 to max_version; returns the
 * version, or 0 after a failure. */
uint32_t stream_enter(struct stream *stream, const char *name, uint32_t max_version);
/* Leaves the section; what was not read of it is skipped. */
void stream_leave(struct stream *stream);
uint8_t stream_get_u8(struct stream *stream);
uint16_t stream_get_u16(struct stream *stream);
uint32_t stream_get_u32(struct stream *stream);
uint64_t stream_get_u64(struct stream *stream);
/* Fills the whole buffer, with zeroes after a failure. */
void stream_get_bytes(struct stream *stream, void *ret_bytes, size_t length);
/* Records a failure of the caller's own check ("vector 300 is out of range"). */
void stream_fail(struct stream *stream, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* 0, or the negative errno of the first failure, with its text. error: may be NULL. */
int stream_status(const struct stream *stream, struct error *error);

#endif
