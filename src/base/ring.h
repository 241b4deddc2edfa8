/* ring.h - a first-in, first-out queue of bytes that grows as it is filled and holds no memory while it is empty.
 *
 * A zeroed struct is an empty ring. How much it may hold is its user's to bound. One owner. */
#ifndef VENEER_BASE_RING_H
#define VENEER_BASE_RING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring {
    uint8_t *bytes;
    size_t size; /* a power of two, or 0 */
    size_t first, used;
};

/* Appends. Returns 0, or -ENOMEM and then nothing was appended. */
int ring_put(struct ring *ring, const void *bytes, size_t length);
/* The bytes in it, in order, as at most two pieces; returns how many pieces. Valid until the next change. */
unsigned ring_pieces(const struct ring *ring, struct iovec ret_iov[2]);
/* Takes the first `length` bytes out (at most what it holds) without looking at them. */
void ring_skip(struct ring *ring, size_t length);
/* Takes up to `length` bytes out; returns how many. */
size_t ring_get(struct ring *ring, void *ret_bytes, size_t length);
/* Makes it empty. */
void ring_clear(struct ring *ring);

#endif
