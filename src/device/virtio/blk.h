/* blk.h - the virtio block device over a volume; virtio 1.2, 5.2. */
#ifndef VENEER_DEVICE_VIRTIO_BLK_H
#define VENEER_DEVICE_VIRTIO_BLK_H

#include "block/block.h"
#include "device/virtio/virtio.h"

#define VIRTIO_BLK_QUEUES_MAX 16u
#define VIRTIO_BLK_SERIAL 20u /* bytes, without an end */

struct virtio_blk_config {
    struct block *block; /* opened with env's loop; stays the caller's, and outlives the device */
    unsigned queues;     /* 1 to VIRTIO_BLK_QUEUES_MAX */
    const char *serial;  /* at most VIRTIO_BLK_SERIAL bytes; or NULL */
};

/* NULL and an error when the config is out of range or there is no memory. */
struct virtio_device *virtio_blk_new(const struct virtio_env *env, const struct virtio_blk_config *config, struct error *error);
/* The volume's size has changed: tells the driver. I/O thread. */
void virtio_blk_resized(struct virtio_device *device);

#endif
