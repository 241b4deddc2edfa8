/* virtqueue.h - one virtqueue, device side: split and packed rings; virtio 1.2, 2.6 to 2.8.
 *
 * Everything here is called on the device's I/O thread, between the device's start and stop (virtio.h).
 * What the driver wrote is read once, copied and then checked. A ring that breaks the rules (an index out of range, a
 * chain that is too long or that loops, memory that is not RAM, a writable part before a readable one) makes
 * the queue broken: virtqueue_pop gives nothing any more and the driver sees DEVICE_NEEDS_RESET.
 *
 *     while ((element = virtqueue_pop(queue))) {
 *         struct virtio_cursor in = virtqueue_readable(element), out = virtqueue_writable(element);
 *         ... virtio_cursor_get(&in, &header, sizeof header) ... virtio_cursor_put(&out, &answer, sizeof answer) ...
 *         virtqueue_push(queue, element, written);
 *     }
 *     virtqueue_notify(queue);
 *
 * The last pop, which gives NULL, is what asks for the next call of the device's `process`. */
#ifndef VENEER_DEVICE_VIRTIO_VIRTQUEUE_H
#define VENEER_DEVICE_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define VIRTQUEUE_SIZE_MAX 1024u
#define VIRTQUEUE_SEGMENTS_MAX 1024u /* of one element; never more than the queue's size */

struct virtio_device;
struct virtqueue;

/* A chain of descriptors: what the device may read, then what it may write, as pieces of guest RAM in this process.
 * The bytes are the guest's, which may change them at any time: copy, then check. */
struct virtqueue_element {
    struct virtqueue *queue;
    struct iovec *iov;  /* readable pieces, then writable ones; no piece is empty */
    unsigned readable, writable; /* how many of each */
    uint64_t readable_bytes, writable_bytes;
    /* A device that lets others write through iov (preadv, io_uring) sets how many bytes from the first writable one
     * on may have been written, when that can be more than what it will tell virtqueue_push. Starts as 0. */
    uint64_t touched;
    void *owner; /* the device's, NULL at first */
    struct virtqueue_element *next; /* the device's while it has the element: for a list */

    /* The queue's part. */
    uint64_t *gpa; /* of each piece */
    unsigned capacity;
    uint16_t id;          /* head of the chain (split), buffer ID (packed) */
    uint16_t descriptors; /* how many ring slots it takes (packed) */
    uint16_t position;    /* where it was found */
};

/* The next available chain, or NULL when there is none now (or the queue is stopped, paused or broken). The element belongs
 * to the queue; give it back by exactly one of push, drop and unpop. */
struct virtqueue_element *virtqueue_pop(struct virtqueue *queue);

/* Hands the element back to the driver as used, with `written` bytes counted from its first writable one
 * (virtio 1.2, 2.7.8). Marks the guest's pages dirty and tells engines of changed code. In any order. Does not
 * interrupt: see virtqueue_notify. After a reset began, nothing reaches the ring; the call is still due. */
void virtqueue_push(struct virtqueue *queue, struct virtqueue_element *element, uint64_t written);
/* Gives an element back without telling the driver: for the device's `stop` only. */
void virtqueue_drop(struct virtqueue *queue, struct virtqueue_element *element);
/* Puts the element that was popped last (of those not pushed) back as the next to pop: for the device's `pause`. Nothing may have
 * been written to it. */
void virtqueue_unpop(struct virtqueue *queue, struct virtqueue_element *element);

/* Interrupts the driver, if it wants to know of what was pushed since the last call. Once per batch. */
void virtqueue_notify(struct virtqueue *queue);
/* The same, when the callbacks that the loop runs now have ended: for completions that come one by one in a burst. */
void virtqueue_notify_later(struct virtqueue *queue);

/* True when virtqueue_pop would probably give an element. */
bool virtqueue_available(struct virtqueue *queue);
/* Declares the queue broken for a reason that the device found ("a request has no header"). Logged once. */
void virtqueue_break(struct virtqueue *queue, const char *reason);
/* Its number in the device. */
unsigned virtqueue_index(const struct virtqueue *queue);
/* Its size in descriptors, as the driver set it; 0 while the driver has not enabled the queue. */
unsigned virtqueue_size(const struct virtqueue *queue);
/* Popped elements that were not given back. */
unsigned virtqueue_in_flight(const struct virtqueue *queue);

/* A place in an element's pieces: what is before it is done. */
struct virtio_cursor {
    const struct iovec *iov;
    unsigned count;  /* pieces left, the current one included */
    size_t offset;   /* in the current piece */
    uint64_t left;   /* bytes */
};

struct virtio_cursor virtqueue_readable(const struct virtqueue_element *element);
struct virtio_cursor virtqueue_writable(const struct virtqueue_element *element);
/* Copy up to `length` bytes and go past them; return how many there were. */
size_t virtio_cursor_get(struct virtio_cursor *cursor, void *ret_bytes, size_t length);
size_t virtio_cursor_put(struct virtio_cursor *cursor, const void *bytes, size_t length);
/* Stores `length` zero bytes, at most what is left; returns how many. */
uint64_t virtio_cursor_zero(struct virtio_cursor *cursor, uint64_t length);
/* Goes past up to `length` bytes; returns how many. */
uint64_t virtio_cursor_skip(struct virtio_cursor *cursor, uint64_t length);
/* The next `length` bytes as pieces, without copying, and goes past them. Returns how many pieces there are, or -E2BIG (more than
 * max) or -EINVAL (fewer bytes are left), and then has not moved. */
int virtio_cursor_pieces(struct virtio_cursor *cursor, uint64_t length, struct iovec *ret_iov, unsigned max);

#endif
