/* console.h - the virtio console device (virtio 1.2, 5.3): a terminal for the guest (hvc0), and named ports
 * (/dev/virtio-ports/NAME) that are unix sockets of the host.
 *
 * Port 0 is the terminal, if there is one; named ports count from 1. A named port has one client at a time. Nothing
 * is lost while either side is slow: the other is held up. Bytes that a guest writes while no client is there are dropped, as
 * on a serial line without a cable. */
#ifndef VENEER_DEVICE_VIRTIO_CONSOLE_H
#define VENEER_DEVICE_VIRTIO_CONSOLE_H

#include "device/virtio/virtio.h"

#define VIRTIO_CONSOLE_PORTS_MAX 16u /* with the terminal */
#define VIRTIO_CONSOLE_NAME_MAX 63u

struct virtio_console_port {
    const char *name; /* 1 to VIRTIO_CONSOLE_NAME_MAX bytes, without '/'; copied */
    const char *path; /* of the socket; copied */
};

struct virtio_console_config {
    const struct virtio_console_port *port;
    unsigned ports;
    /* What the guest writes to the terminal; returns how many bytes it took; when it took fewer virtio_console_room is due. The I/O
     * thread. NULL: there is no terminal. */
    size_t (*write)(void *owner, const void *bytes, size_t length);
    /* The terminal takes input again after it took less than it was offered. The I/O thread. May be NULL. */
    void (*room)(void *owner);
    void *owner;
};

/* Listens at the sockets at once; clients wait until the guest's driver is there. NULL and an error. */
struct virtio_device *virtio_console_new(const struct virtio_env *env, const struct virtio_console_config *config,
                                         struct error *error);
/* Typed bytes for the terminal; returns how many it took. Any thread. */
size_t virtio_console_input(struct virtio_device *device, const void *bytes, size_t length);
/* config.write takes bytes again. Any thread. */
void virtio_console_room(struct virtio_device *device);
/* The terminal's size. Any thread that does not hold the board's lock. */
void virtio_console_resize(struct virtio_device *device, unsigned columns, unsigned rows);
/* Checks a port's name. Returns 0 or -EINVAL with a reason. */
int virtio_console_check_name(const char *name, struct error *error);

#endif
