/* board_virtio.h - putting virtio devices on the board, at the start or while the guest runs. */
#ifndef VENEER_MACHINE_BOARD_VIRTIO_H
#define VENEER_MACHINE_BOARD_VIRTIO_H

#include "device/virtio/virtio.h"
#include "machine/machine.h"

/* How one kind of device is made. */
struct board_virtio_kind {
    /* The device on env->loop, which is served already; NULL and an error. The caller's thread. */
    struct virtio_device *(*make)(struct machine *machine, const struct virtio_env *env, const void *config, struct error *error);
    bool own_thread; /* served by a thread of its own, else by the one that slow devices share */
};

/* Makes a device and plugs it in (see plug.h: `id` is its name there), in the first free PCI slot. instance: tells devices of one
 * kind apart in a saved state. Any thread, without the board's lock. Returns 0 or a negative errno. */
int board_virtio_add(struct machine *machine, const struct board_virtio_kind *kind, const void *config, const char *id,
                     unsigned instance, struct error *error);

#endif
