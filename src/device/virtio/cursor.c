/* cursor.c - bounded reading and writing of an element's pieces; see virtqueue.h. */
#include <errno.h>
#include <string.h>

#include "device/virtio/virtqueue.h"

struct virtio_cursor virtqueue_readable(const struct virtqueue_element *element)
{
    return (struct virtio_cursor){.iov = element->iov, .count = element->readable, .left = element->readable_bytes};
}

struct virtio_cursor virtqueue_writable(const struct virtqueue_element *element)
{
    return (struct virtio_cursor){.iov = element->iov + element->readable, .count = element->writable,
                                  .left = element->writable_bytes};
}

/* The rest of the current piece, at most `length` bytes of it, and goes past it. */
static struct iovec next_piece(struct virtio_cursor *cursor, uint64_t length)
{
    const struct iovec *piece = cursor->iov;
    size_t rest = piece->iov_len - cursor->offset;
    struct iovec result = {(uint8_t *)piece->iov_base + cursor->offset, length < rest ? (size_t)length : rest};
    cursor->left -= result.iov_len;
    cursor->offset += result.iov_len;
    if (cursor->offset == piece->iov_len) {
        cursor->iov++;
        cursor->count--;
        cursor->offset = 0;
    }
    return result;
}

static uint64_t bounded(const struct virtio_cursor *cursor, uint64_t length)
{
    return length < cursor->left ? length : cursor->left;
}

size_t virtio_cursor_get(struct virtio_cursor *cursor, void *ret_bytes, size_t length)
{
    uint8_t *to = ret_bytes;
    size_t total = (size_t)bounded(cursor, length);
    for (size_t left = total; left;) {
        struct iovec piece = next_piece(cursor, left);
        memcpy(to, piece.iov_base, piece.iov_len);
        to += piece.iov_len;
        left -= piece.iov_len;
    }
    return total;
}

size_t virtio_cursor_put(struct virtio_cursor *cursor, const void *bytes, size_t length)
{
    const uint8_t *from = bytes;
    size_t total = (size_t)bounded(cursor, length);
    for (size_t left = total; left;) {
        struct iovec piece = next_piece(cursor, left);
        memcpy(piece.iov_base, from, piece.iov_len);
        from += piece.iov_len;
        left -= piece.iov_len;
    }
    return total;
}

uint64_t virtio_cursor_zero(struct virtio_cursor *cursor, uint64_t length)
{
    uint64_t total = bounded(cursor, length);
    for (uint64_t left = total; left;) {
        struct iovec piece = next_piece(cursor, left);
        memset(piece.iov_base, 0, piece.iov_len);
        left -= piece.iov_len;
    }
    return total;
}

uint64_t virtio_cursor_skip(struct virtio_cursor *cursor, uint64_t length)
{
    uint64_t total = bounded(cursor, length);
    for (uint64_t left = total; left;)
        left -= next_piece(cursor, left).iov_len;
    return total;
}

int virtio_cursor_pieces(struct virtio_cursor *cursor, uint64_t length, struct iovec *ret_iov, unsigned max)
{
    struct virtio_cursor at = *cursor;
    unsigned count = 0;
    if (length > at.left)
        return -EINVAL;
    while (length) {
        if (count == max)
            return -E2BIG;
        ret_iov[count] = next_piece(&at, length);
        length -= ret_iov[count++].iov_len;
    }
    *cursor = at;
    return (int)count;
}
