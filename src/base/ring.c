#include "base/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_MIN 4096u

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int grow(struct ring *ring, size_t needed)
{
    size_t size = ring->size ? ring->size : SIZE_MIN;
    while (size < needed && size <= SIZE_MAX / 2)
        size *= 2;
    if (size < needed)
        return -ENOMEM;
    if (size == ring->size)
        return 0;
    uint8_t *bytes = malloc(size);
    if (!bytes)
        return -ENOMEM;
    struct iovec iov[2];
    size_t used = 0;
    for (unsigned i = 0, n = ring_pieces(ring, iov); i < n; used += iov[i++].iov_len)
        memcpy(bytes + used, iov[i].iov_base, iov[i].iov_len);
    free(ring->bytes);
    *ring = (struct ring){bytes, size, 0, used};
    return 0;
}

int ring_put(struct ring *ring, const void *bytes, size_t length)
{
    if (length == 0)
        return 0;
    if (length > SIZE_MAX - ring->used || grow(ring, ring->used + length) < 0)
        return -ENOMEM;
    size_t last = (ring->first + ring->used) & (ring->size - 1);
    size_t before_end = at_most(length, ring->size - last);
    memcpy(ring->bytes + last, bytes, before_end);
    memcpy(ring->bytes, (const uint8_t *)bytes + before_end, length - before_end);
    ring->used += length;
    return 0;
}

unsigned ring_pieces(const struct ring *ring, struct iovec ret_iov[2])
{
    if (ring->used == 0) /* and there may be no bytes to point into */
        return 0;
    size_t before_end = at_most(ring->used, ring->size - ring->first);
    ret_iov[0] = (struct iovec){ring->bytes + ring->first, before_end};
    ret_iov[1] = (struct iovec){ring->bytes, ring->used - before_end};
    return before_end < ring->used ? 2 : 1;
}

void ring_skip(struct ring *ring, size_t length)
{
    length = at_most(length, ring->used);
    if (length == ring->used) {
        ring_clear(ring);
        return;
    }
    ring->first = (ring->first + length) & (ring->size - 1);
    ring->used -= length;
}

size_t ring_get(struct ring *ring, void *ret_bytes, size_t length)
{
    struct iovec iov[2];
    size_t got = 0;
    for (unsigned i = 0, n = ring_pieces(ring, iov); i < n; i++) {
        size_t piece = at_most(iov[i].iov_len, length - got);
        memcpy((uint8_t *)ret_bytes + got, iov[i].iov_base, piece);
        got += piece;
    }
    ring_skip(ring, got);
    return got;
}

void ring_clear(struct ring *ring)
{
    free(ring->bytes);
    *ring = (struct ring){0};
}
