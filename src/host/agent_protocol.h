/* agent_protocol.h - what veneer and the agent inside a guest say to each other, shared by both.
 *
 * A connection is a stream of bytes (vsock, or a unix socket in tests) and carries one command. What goes over it
 * are frames: a header of AGENT_HEADER bytes and a payload; every number is little-endian.
 *
 *   offset  size
 *        0     4  length of the payload
 *        4     1  type (enum agent_type)
 *        5     1  stream of DATA and CREDIT (enum agent_stream), else 0
 *        6     2  0
 *
 * Either side opens with HELLO; the client need not wait for the agent's before it goes on. Either side may send
 * DATA on a stream only within that stream's window: AGENT_WINDOW bytes at first, and what CREDIT adds.
 * docs/agent.md tells the whole. No part of a frame is trusted by either side. */
#ifndef VENEER_HOST_AGENT_PROTOCOL_H
#define VENEER_HOST_AGENT_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#define AGENT_PORT 1024u       /* vsock port on which the agent listens */
#define AGENT_READY_PORT 1025u /* vsock port of the host to which the agent connects once it listens */
#define AGENT_MAGIC 0x544e4756u
#define AGENT_VERSION 1u
#define AGENT_HEADER 8u
#define AGENT_PAYLOAD_MAX 65536u         /* of any frame but EXEC */
#define AGENT_EXEC_MAX (1024u * 1024u)   /* of an EXEC frame */
#define AGENT_WINDOW (256u * 1024u)      /* bytes of a stream that may be under way */
#define AGENT_STRINGS_MAX 16384u         /* arguments and environment of one command */

enum agent_type {
    AGENT_HELLO = 1, /* both: u32 AGENT_MAGIC, u32 version: the client's highest, the agent's choice */
    AGENT_EXEC,      /* client: start a command; see agent_exec_parse */
    AGENT_DATA,      /* both: bytes of a stream; an empty one ends it */
    AGENT_CREDIT,    /* both: u32 bytes that the receiver of a stream has passed on */
    AGENT_RESIZE,    /* client: u16 rows, u16 columns of its terminal */
    AGENT_SIGNAL,    /* client: u32 Linux signal number, for the command's process group */
    AGENT_EXIT,      /* agent: u32 enum agent_end, u32 status; then a sentence, when it was not started */
    AGENT_PING,      /* client: any payload */
    AGENT_PONG,      /* agent: the same payload */
    AGENT_POWER_OFF, /* client: shut the guest down in its own order; the agent answers PONG and goes about it */
    AGENT_FAULT,     /* agent: a sentence; what the client sent cannot be served. The connection ends */
};

enum agent_stream { AGENT_STDIN, AGENT_STDOUT, AGENT_STDERR, AGENT_STREAMS };

enum agent_end {
    AGENT_EXITED,      /* the status is the command's */
    AGENT_SIGNALLED,   /* the status is the number of the signal that ended it */
    AGENT_NOT_STARTED, /* the status is what a shell gives: 127 not found, 126 not executable */
};

#define AGENT_EXEC_TERMINAL 0x1u /* give the command a terminal: one stream, STDOUT, carries all it prints */
#define AGENT_EXEC_STDIN 0x2u    /* the client sends STDIN; else the command's is empty */
#define AGENT_EXEC_FLAGS 0x3u

struct agent_frame {
    uint8_t type, stream;
    uint32_t length;
    const uint8_t *payload; /* within the bytes that were parsed */
};

/* A command to start. The strings belong to whoever filled the structure. */
struct agent_exec {
    uint32_t flags;
    uint16_t rows, columns; /* of the terminal; 0: unknown */
    const char *directory;  /* "": the user's home */
    const char *user;       /* NAME or UID, with :GROUP or :GID; "": the agent's own */
    uint32_t argc, envc;
    const char **argv; /* argc pointers and NULL */
    const char **env;  /* NAME=VALUE, envc pointers and NULL; added to what the user gets anyway */
};

/* Looks for a whole frame at the start of `bytes`. Returns how many bytes it takes, 0 when there are too few yet, or
 * -EPROTO when no frame can start so: unknown type, bad stream or padding, or a payload longer than its type may have. */
int agent_frame_parse(const uint8_t *bytes, size_t length, struct agent_frame *ret_frame);

/* A payload's little-endian number at `offset`, or 0 where the payload is too short. */
uint32_t agent_frame_u32(const struct agent_frame *frame, uint32_t offset);
uint16_t agent_frame_u16(const struct agent_frame *frame, uint32_t offset);

/* Writes a header. */
void agent_header_put(uint8_t ret_bytes[AGENT_HEADER], enum agent_type type, enum agent_stream stream, uint32_t length);
void agent_u32_put(uint8_t *ret_bytes, uint32_t value);

/* Decodes an EXEC frame: u32 flags, u16 rows, u16 columns, u32 argc, u32 envc, then the strings, each ended by NUL:
 * directory, user, arguments, environment. The strings point into the frame; the two arrays are one block at
 * ret_exec->argv, to be freed. Returns 0, -ENOMEM, or -EPROTO with ret_why told what is wrong. */
int agent_exec_parse(const struct agent_frame *frame, struct agent_exec *ret_exec, const char **ret_why);

/* Bytes that were received or are to be sent: a queue in one growing block. */
struct agent_buffer {
    uint8_t *bytes;
    size_t first, used, size; /* the queue is bytes[first .. first + used) */
};

/* Makes room for `length` more bytes at the end and returns where they go (the caller then adds to `used`), or NULL. */
uint8_t *agent_buffer_room(struct agent_buffer *buffer, size_t length);
/* Drops bytes from the front; a large block that has become empty is given back. */
void agent_buffer_drop(struct agent_buffer *buffer, size_t length);
void agent_buffer_free(struct agent_buffer *buffer);
/* Append a whole frame. Return 0, -ENOMEM, or -E2BIG when a command is longer than a frame; then nothing is appended. */
int agent_buffer_frame(struct agent_buffer *buffer, enum agent_type type, enum agent_stream stream, const void *payload,
                       uint32_t length);
int agent_buffer_exec(struct agent_buffer *buffer, const struct agent_exec *exec);

#endif
