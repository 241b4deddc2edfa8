/* rng.h - the virtio entropy device: the host's random bytes for the guest; virtio 1.2, 5.4. */
#ifndef VENEER_DEVICE_VIRTIO_RNG_H
#define VENEER_DEVICE_VIRTIO_RNG_H

#include "device/virtio/virtio.h"

/* random(owner, ...) fills `length` bytes, or fewer, and returns how many; called on the I/O thread. NULL: getrandom(2).
 * Returns NULL and an error when there is no memory. */
struct virtio_device *virtio_rng_new(const struct virtio_env *env, size_t (*random)(void *owner, void *bytes, size_t length),
                                     void *owner, struct error *error);

#endif
