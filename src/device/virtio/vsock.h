/* vsock.h - the virtio socket device (virtio 1.2, 5.10): sockets between the guest and unix sockets of the host.
 *
 * vsock_host.h tells what the host's programs see. Connections are not saved: a guest that is loaded is told that its
 * transport was reset, and its programs see their connections end. */
#ifndef VENEER_DEVICE_VIRTIO_VSOCK_H
#define VENEER_DEVICE_VIRTIO_VSOCK_H

#include "device/virtio/virtio.h"
#include "device/virtio/vsock_core.h"

/* The longest path, so that PATH_4294967295 is a socket's path too. */
#define VSOCK_PATH_MAX 96u
#define VSOCK_CID_MIN 3u
#define VSOCK_CID_MAX UINT64_C(0xfffffffe) /* 32 bits (5.10.4); the last one stands for any */

/* path: the host's socket, listened to at once; clients wait until the guest's driver is there. NULL and an error. */
struct virtio_device *virtio_vsock_new(const struct virtio_env *env, const char *path, uint64_t guest_cid,
                                       struct error *error);
/* While the device's thread does not serve it. */
struct vsock_counts virtio_vsock_counts(const struct virtio_device *device);

#endif
