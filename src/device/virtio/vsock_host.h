/* vsock_host.h - the host's end of a guest's sockets: unix sockets, in the convention of Firecracker and Cloud Hypervisor.
 *
 * Who wants a port of the guest connects to PATH, writes "CONNECT <port>\n" and reads "OK <number>\n"; what follows is the
 * stream. A refusal is the end of the file. A guest that connects to port P of the host (CID 2) reaches the socket
 * PATH_P. One thread (the loop's), but for new and free. */
#ifndef VENEER_DEVICE_VIRTIO_VSOCK_HOST_H
#define VENEER_DEVICE_VIRTIO_VSOCK_HOST_H

#include "base/error.h"
#include "base/loop.h"
#include "device/virtio/vsock.h"
#include "device/virtio/vsock_core.h"

struct vsock_host;

/* The ops for a core whose owner is the vsock_host. */
extern const struct vsock_host_ops vsock_unix_ops;

/* Listens at path; clients wait there until vsock_host_start. changed(owner): the core may have packets for the guest; the
 * loop's thread. Returns 0 or a negative errno with a sentence. */
int vsock_host_new(struct loop *loop, const char *path, void (*changed)(void *owner), void *owner,
                   struct vsock_host **ret_host, struct error *error);
/* Serves clients, for this core, until vsock_host_stop; the core is reset before that. Returns 0 or a negative errno. */
int vsock_host_start(struct vsock_host *host, struct vsock_core *core);
void vsock_host_stop(struct vsock_host *host);
/* After stop. Removes the socket file. NULL is allowed. */
void vsock_host_free(struct vsock_host *host);

#endif
