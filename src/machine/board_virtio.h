/* board_virtio.h - putting virtio devices on the board, at the start or while the guest runs. */
#ifndef VENEER_MACHINE_BOARD_VIRTIO_H
#define VENEER_MACHINE_BOARD_VIRTIO_H

#include "device/virtio/virtio.h"
#include "machine/machine.h"

/* A device to put on the board. */
struct board_virtio_config {
    const char *id;    /* its name; see plug.h */
    enum machine_kind kind;
    unsigned instance; /* tells devices of one kind apart in a saved state */
    bool own_thread;   /* served by a thread of its own, else by the one that slow devices share */
    /* Makes the device for env->loop; NULL and an error. The caller's thread. With own_thread the loop is not served yet; the shared
     * one is served once the board is made. *ret_owned may be set to what `release` is to be called with. */
    struct virtio_device *(*make)(struct machine *machine, const struct virtio_env *env, const void *config, void **ret_owned,
                                  struct error *error);
    const void *config;
    /* Frees what the device used, when it is destroyed and its own thread has ended; not called when make failed. May be NULL. */
    void (*release)(void *owned);
};

/* Makes a device and plugs it in, in the first free PCI slot. Any thread, without the board's lock. Returns 0 or a
 * negative errno. */
int board_virtio_add(struct machine *machine, const struct board_virtio_config *config, struct error *error);

/* Calls work(virtio, owned, context) on the thread that serves the device `id` with that make function, and waits for it. -ENOENT when
 * there is none. Any thread but an I/O thread, without the board's lock. */
int board_virtio_call(struct machine *machine, const char *id,
                      struct virtio_device *(*make)(struct machine *, const struct virtio_env *, const void *, void **,
                                                    struct error *),
                      void (*work)(struct virtio_device *virtio, void *owned, void *context), void *context,
                      struct error *error);

/* board_disk.c: the disks of the machine's config. */
int board_disks_create(struct machine *machine, struct error *error);

#endif
