/* virtio.h - a virtio device: what its author writes, and what the core does for it; virtio 1.2, chapter 2.
 *
 * Two sides. The board's side (registers, configuration space, interrupts) is run by the transport
 * (virtio_pci.h) under the board's lock. The I/O side (queues, the device's own work) runs on one thread, that of the
 * loop in virtio_env; several devices may share it. vCPUs never wait for it.
 *
 * A life:  init -> (start -> process ... -> stop)*  -> destroy, with pause and resume around a saved state.
 *   start    the driver set DRIVER_OK, or a saved state goes on: features and queues are settled.
 *   process  the queue has buffers, after virtqueue_pop had said that it had none (or after start or resume).
 *   stop     the driver resets the device: release what is held. The reset is over, and the driver sees it, when every popped
 *            element was given back (pushed or dropped): so nothing is written to the guest's memory after it.
 *   pause    the machine stops, to be saved or to end: process is not called, pop gives nothing; in-flight elements are waited for.
 *            An element held for the driver's sake (not for I/O that will end by itself) goes back by virtqueue_unpop.
 *   resume   it goes on; process is called for every queue.
 * An implementation embeds struct virtio_device first, and calls virtio_device_init in its constructor. */
#ifndef VENEER_DEVICE_VIRTIO_VIRTIO_H
#define VENEER_DEVICE_VIRTIO_VIRTIO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "base/stream.h"
#include "device/virtio/virtqueue.h"
#include "memory/ram.h"

#define VIRTIO_QUEUES_MAX 63u /* one MSI-X vector each, and one for configuration */
#define VIRTIO_CONFIG_MAX 256u

/* Feature bits of the core; a device offers only its own (bits 0-23, 50-63). Virtio 1.2, chapter 6. */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX 29
#define VIRTIO_F_VERSION_1 32
#define VIRTIO_F_ACCESS_PLATFORM 33
#define VIRTIO_F_RING_PACKED 34
#define VIRTIO_F_IN_ORDER 35
#define VIRTIO_F_NOTIFICATION_DATA 38
#define VIRTIO_F_RING_RESET 40
#define VIRTIO_BIT(feature) (UINT64_C(1) << (feature))

struct virtio_device;
struct virtio_transport;

struct virtio_ops {
    const char *name;    /* "virtio-rng": of the saved section and in messages */
    uint16_t id;         /* virtio device ID, chapter 5 */
    uint32_t class_code; /* PCI, 24 bits */
    /* I/O thread; see the top. process is required, the others may be NULL. */
    void (*start)(struct virtio_device *device);
    void (*process)(struct virtio_device *device, struct virtqueue *queue);
    void (*stop)(struct virtio_device *device);
    void (*pause)(struct virtio_device *device);
    void (*resume)(struct virtio_device *device);
    /* The driver wrote to configuration space (see virtio_config_get). I/O thread; several writes may come as one. */
    void (*config_written)(struct virtio_device *device);
    /* The same at once, for each write and before DRIVER_OK too: [offset, offset + length) of device->config was stored. A vCPU's
     * thread, with the board's lock held; NULL for nearly every device. */
    void (*config_stored)(struct virtio_device *device, unsigned offset, unsigned length);
    /* The device's own state, inside an open section, while paused; NULL: there is none. load leaves what it finds wrong in the
     * stream's status (stream_fail). The board's lock is held. */
    void (*save)(const struct virtio_device *device, struct stream *stream);
    void (*load)(struct virtio_device *device, struct stream *stream);
    /* Frees the device; nothing is in flight, and the loop's thread does not serve it any more. */
    void (*destroy)(struct virtio_device *device);
};

/* What the board gives to each device. */
struct virtio_env {
    struct ram *ram;
    struct loop *loop; /* of the I/O thread */
    void (*lock)(void *owner), (*unlock)(void *owner); /* the board's lock */
    void *owner;
    bool packed; /* offer packed rings */
};

/* Embedded first in each device. The fields are the core's. */
struct virtio_device {
    const struct virtio_ops *ops;
    struct virtio_env env;
    struct virtio_transport *transport;
    uint64_t offered;
    _Atomic uint64_t driver_features; /* as accepted */
    struct virtqueue *queue[VIRTIO_QUEUES_MAX];
    unsigned queues;
    /* Configuration space, under the board's lock. */
    uint8_t config[VIRTIO_CONFIG_MAX], config_writable[VIRTIO_CONFIG_MAX];
    unsigned config_size;
    struct virtio_io *io; /* device.c */
};

/* features: the device's own bits. config: the initial configuration space, size bytes (at most VIRTIO_CONFIG_MAX).
 * Returns 0 or a negative errno. After a failure virtio_device_finish is still due. */
int virtio_device_init(struct virtio_device *device, const struct virtio_ops *ops, const struct virtio_env *env,
                       uint64_t features, const void *config, unsigned size, struct error *error);
/* Adds the next queue, of at most `size` descriptors (a power of two up to VIRTQUEUE_SIZE_MAX). After init, before the
 * transport is made. NULL when there is no memory or there are VIRTIO_QUEUES_MAX. */
struct virtqueue *virtio_queue_add(struct virtio_device *device, unsigned size);
/* Lets the driver write `length` bytes of configuration space at `offset`. Before the transport is made. */
void virtio_config_allow(struct virtio_device *device, unsigned offset, unsigned length);
/* Frees what the core has; the first step of a device's destroy. */
void virtio_device_finish(struct virtio_device *device);
/* Calls ops->destroy. For a device that has no transport yet, and for transports. NULL is allowed. */
void virtio_device_destroy(struct virtio_device *device);

/* True when the driver accepted the feature (a bit's number). Valid from start on. */
bool virtio_has(const struct virtio_device *device, unsigned feature);
/* Changes configuration space and tells the driver (virtio 1.2, 2.5). Any thread that does not hold the board's lock. */
void virtio_config_set(struct virtio_device *device, unsigned offset, const void *bytes, unsigned length);
void virtio_config_get(struct virtio_device *device, unsigned offset, void *ret_bytes, unsigned length);
/* The device cannot go on until it is reset (virtio 1.2, 2.1.2). I/O thread. */
void virtio_needs_reset(struct virtio_device *device, const char *reason);

/* For the machine; any thread but the loop's, without the board's lock. The loop must be served. */
/* A device is made paused. pause returns when nothing is in flight; both may be repeated. */
void virtio_pause(struct virtio_device *device);
void virtio_resume(struct virtio_device *device);

#endif
