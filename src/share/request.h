/* request.h - one request while it is served: its bytes are read once, in order, and the reply is put together. */
#ifndef VENEER_SHARE_REQUEST_H
#define VENEER_SHARE_REQUEST_H

#include <limits.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "share/share.h"

struct inode;

/* The longest fixed part of a request. */
#define REQUEST_ARGUMENT_MAX 128

/* A position in a list of iovecs. */
struct cursor {
    const struct iovec *iov;
    unsigned count; /* that are left, the current one included */
    size_t skip;    /* bytes of the current one that are done */
};

struct request {
    struct fuse_in_header header; /* copied once */
    _Alignas(8) uint8_t argument[REQUEST_ARGUMENT_MAX]; /* the operation's fixed part, copied once */
    struct cursor in;
    size_t in_left; /* bytes of the request that are left, by the header's length */
    struct cursor out; /* behind the reply's header */
    size_t out_left, out_used; /* room for the reply's body, and how much of it is written */
    struct inode *inode; /* header.nodeid, pinned while the operation runs; NULL for those without */
};

/* Moves a cursor on; stops at the end. */
void cursor_advance(struct cursor *cursor, size_t length);
/* Fills iovecs for the next `length` bytes, at most `max` of them; returns how many, and the bytes they cover. */
unsigned cursor_slice(const struct cursor *cursor, size_t length, struct iovec *ret_iov, unsigned max, size_t *ret_bytes);

/* Takes the next bytes of the request. Returns 0 or -EINVAL when there are not as many. */
int request_take(struct request *request, void *ret_bytes, size_t length);
/* Takes a string with its terminating zero into a buffer. Returns 0, -EINVAL (no terminator) or -ENAMETOOLONG. */
int request_take_string(struct request *request, char *ret_text, size_t size);
/* The same, and it is a name within one folder: not empty, no '/', neither "." nor "..". Longer than NAME_MAX is
 * -ENAMETOOLONG. */
int request_take_name(struct request *request, char ret_name[NAME_MAX + 1]);
/* Appends to the reply's body. Returns 0, or -EINVAL when there is no room; then nothing is written. */
int request_reply(struct request *request, const void *bytes, size_t length);

#endif
