/* virtio_private.h - what the parts of the core share: queues, their two ring formats, the device, and its transport.
 *
 * Who touches what: the `setup` of a queue is the transport's (board's lock), and constant from the moment DRIVER_OK
 * is set until the reset that follows has ended, so that the I/O thread reads it without a lock. The rest of a queue is the
 * I/O thread's. */
#ifndef VENEER_DEVICE_VIRTIO_VIRTIO_PRIVATE_H
#define VENEER_DEVICE_VIRTIO_VIRTIO_PRIVATE_H

#include <pthread.h>

#include "device/virtio/virtio.h"

/* Status bits; virtio 1.2, 2.1. */
enum { VIRTIO_ACKNOWLEDGE = 1, VIRTIO_DRIVER = 2, VIRTIO_DRIVER_OK = 4, VIRTIO_FEATURES_OK = 8, VIRTIO_NEEDS_RESET = 64,
       VIRTIO_FAILED = 128 };
/* Descriptor flags; 2.7.5 and 2.8.1. */
enum { VIRTQ_NEXT = 1, VIRTQ_WRITE = 2, VIRTQ_INDIRECT = 4, VIRTQ_AVAIL = 1 << 7, VIRTQ_USED = 1 << 15 };

#define VIRTQ_DESCRIPTOR 16u /* bytes, in both formats */
#define VIRTQUEUE_CLASSES 3u /* sizes of elements */

/* What the driver told of a queue. */
struct virtqueue_setup {
    uint16_t size;
    bool enabled;
    uint64_t descriptors, driver, device; /* GPA of the three areas */
};

/* Where a queue stands: all that is saved of it. */
struct virtqueue_position {
    uint16_t avail, used;          /* free-running (split), or a slot of the ring (packed) */
    bool avail_wrap, used_wrap;    /* packed */
};

/* One descriptor as both formats have it, copied from the guest. */
struct virtqueue_descriptor {
    uint64_t gpa;
    uint32_t length;
    uint16_t flags;
    uint16_t other; /* next (split), buffer ID (packed) */
};

/* A ring format. */
struct virtqueue_ring {
    /* Sizes of the driver and device areas, and their alignments; 2.7 and 2.8. */
    unsigned driver_bytes, driver_per_entry, device_bytes, device_per_entry, driver_align, device_align;
    /* True when the driver has made something available. */
    bool (*available)(struct virtqueue *queue);
    /* Reads one chain into queue->scratch and fills the element's id, descriptors and position. False: none, or a broken queue. */
    bool (*take)(struct virtqueue *queue, struct virtqueue_element *ret_head);
    void (*untake)(struct virtqueue *queue, const struct virtqueue_element *element);
    void (*put)(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written);
    /* Does the driver want to be interrupted for the last `count` that were put (chains, or slots)? */
    bool (*wants_interrupt)(struct virtqueue *queue, uint16_t count);
    /* Whether the driver is to notify of the next chain. */
    void (*set_notify)(struct virtqueue *queue, bool on);
};

extern const struct virtqueue_ring virtqueue_split, virtqueue_packed;

struct virtqueue {
    struct virtio_device *device;
    unsigned index, size_max;
    struct virtqueue_setup setup; /* see the top */

    /* The I/O thread's. */
    const struct virtqueue_ring *ring; /* NULL: not live */
    unsigned size;
    bool broken, event_idx, indirect;
    uint8_t *descriptors, *driver, *device_area; /* the three areas */
    struct virtqueue_position position;
    uint16_t unsignalled;   /* put since the driver was last interrupted or did not want it */
    unsigned in_flight;     /* elements */
    unsigned slots;         /* of the ring that they take */

    /* The chain being read. */
    struct iovec *scratch;
    uint64_t *scratch_gpa;
    unsigned pieces, readable;
    uint64_t readable_bytes, writable_bytes;
    struct virtqueue_element *free[VIRTQUEUE_CLASSES];
};

/* queue.c */
/* Makes the queue live by its setup; a bad one leaves it broken. */
void virtqueue_attach(struct virtqueue *queue, const struct virtqueue_position *from);
void virtqueue_detach(struct virtqueue *queue);
void virtqueue_free(struct virtqueue *queue);
/* For ring formats: starts a chain, adds a descriptor's range to it; false when it broke the queue. */
void virtqueue_chain_begin(struct virtqueue *queue);
bool virtqueue_chain_add(struct virtqueue *queue, const struct virtqueue_descriptor *descriptor);
/* Reads all of an indirect table: its entries are chained by `next` (split), or all are used in turn (packed). */
bool virtqueue_chain_indirect(struct virtqueue *queue, const struct virtqueue_descriptor *table, bool packed);
/* Entry n of a table in this process's memory, read once. */
struct virtqueue_descriptor virtqueue_descriptor_read(const uint8_t *table, unsigned n, bool packed);
/* Stores to the ring's areas: 16 bits, with release order, marked as written. */
void virtqueue_store16(struct virtqueue *queue, uint8_t *area, uint64_t gpa, unsigned offset, uint16_t value);

static inline uint16_t virtqueue_load16(const uint8_t *from)
{
    return __atomic_load_n((const uint16_t *)(const void *)from, __ATOMIC_ACQUIRE);
}

/* device.c: the I/O side. What the transport asks for is a bit of `control`. */
enum { VIRTIO_IO_RESUME = 1, VIRTIO_IO_START = 2, VIRTIO_IO_CONFIG = 4, VIRTIO_IO_STOP = 8, VIRTIO_IO_PAUSE = 16,
       VIRTIO_IO_GONE = 32 };

struct virtio_io {
    struct loop_signal *signal;
    _Atomic uint64_t kicked;   /* a bit a queue */
    _Atomic unsigned control;
    _Atomic bool dma;          /* the function may reach memory */

    /* The I/O thread's. */
    uint64_t waiting;          /* queues whose last pop gave NULL */
    uint64_t notify;           /* queues that virtqueue_notify_later was called for */
    bool started, stopping, paused;
    unsigned in_flight;
    struct loop_poller poller;
    struct virtqueue_position from[VIRTIO_QUEUES_MAX]; /* where queues start; load sets it before START */

    pthread_mutex_t lock;      /* of the next two, and to wait for them */
    pthread_cond_t changed;
    bool quiet;                /* paused, and nothing in flight */
    bool complained;
};

/* Where a queue begins that no saved state says otherwise of. */
#define VIRTQUEUE_BEGIN ((struct virtqueue_position){.avail_wrap = true, .used_wrap = true})

/* Any thread. */
void virtio_io_kick(struct virtio_device *device, unsigned queue);
void virtio_io_control(struct virtio_device *device, unsigned bit);
void virtio_io_allow(struct virtio_device *device, bool dma);
void virtio_io_returned(struct virtio_device *device); /* I/O thread: an element came back */

/* The transport; each call is made on the I/O thread without the board's lock, but config_changed, which has it. */
struct virtio_transport_ops {
    void (*interrupt)(struct virtio_transport *transport, unsigned queue);
    void (*config_changed)(struct virtio_transport *transport);
    void (*needs_reset)(struct virtio_transport *transport);
    void (*stopped)(struct virtio_transport *transport); /* the reset has ended */
    void (*gone)(struct virtio_transport *transport);    /* VIRTIO_IO_GONE: this thread has let go of the device */
};

struct virtio_transport {
    const struct virtio_transport_ops *ops;
};

#endif
