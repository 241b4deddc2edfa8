/* vsock_core.h - the socket protocol of virtio 1.2, 5.10: connections, their states and their credit.
 *
 * Knows neither rings nor sockets. The device (vsock.c) brings the guest's packets and takes those for the guest; the
 * host's side (vsock_host.c, or a test) moves the bytes of a connection, behind vsock_host_ops. Streams only.
 *
 * A connection is named by its host port and its guest port. Memory is bounded whatever both sides do: at most
 * VSOCK_CONNECTIONS of them, each of which holds at most the bytes for which the guest was given credit, and all credit
 * given is at most VSOCK_CREDIT_TOTAL plus the least credit of each. Bytes for the guest are not held at all: they stay
 * in the host's socket until the guest has a buffer and gave credit.
 *
 * One thread: the device's I/O thread. */
#ifndef VENEER_DEVICE_VIRTIO_VSOCK_CORE_H
#define VENEER_DEVICE_VIRTIO_VSOCK_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define VSOCK_CID_HOST 2u
#define VSOCK_CONNECTIONS 2048u
#define VSOCK_CREDIT_EACH (256u << 10)  /* what a connection gets ... */
#define VSOCK_CREDIT_LEAST (16u << 10)  /* ... and when that would exceed the total */
#define VSOCK_CREDIT_TOTAL (32u << 20)
#define VSOCK_PACKET_MAX (64u << 10)    /* payload of one packet, either way */
#define VSOCK_REPLIES 256u              /* resets owed before the guest's packets are left in the ring */

enum vsock_type { VSOCK_TYPE_STREAM = 1 };

enum vsock_op {
    VSOCK_OP_REQUEST = 1, VSOCK_OP_RESPONSE, VSOCK_OP_RST, VSOCK_OP_SHUTDOWN, VSOCK_OP_RW, VSOCK_OP_CREDIT_UPDATE,
    VSOCK_OP_CREDIT_REQUEST
};

/* Flags of VSOCK_OP_SHUTDOWN: the sender will not receive, or not send, any more. */
#define VSOCK_SHUTDOWN_RECEIVE 1u
#define VSOCK_SHUTDOWN_SEND 2u
#define VSOCK_SHUTDOWN_BOTH 3u

/* struct virtio_vsock_hdr, 5.10.6; little-endian, as this host is. */
struct vsock_header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len; /* of the payload that follows */
    uint16_t type, op;
    uint32_t flags;
    uint32_t buf_alloc; /* the sender's buffer for the connection, bytes ... */
    uint32_t fwd_cnt;   /* ... and how many it has taken out of it since the connection began, modulo 2^32 */
} __attribute__((packed));
#define VSOCK_HEADER_SIZE 44u

struct vsock_core;
struct vsock_connection;

/* The host's end of connections. `host` is what the end gave for the connection (vsock_open, or connect's result).
 * Nothing here blocks or calls the core, except as said. */
struct vsock_host_ops {
    /* The guest asks for `port`. Returns 0 and *ret_host; -EINPROGRESS and *ret_host when vsock_connected will tell; or another
     * negative errno: the guest is refused. */
    int (*connect)(void *owner, uint32_t port, struct vsock_connection *connection, void **ret_host);
    /* The guest accepted what vsock_open asked for; host_port is the connection's name. */
    void (*accepted)(void *host, uint32_t host_port);
    /* Like writev and readv on a socket that does not block; -errno, -EAGAIN: vsock_writable or vsock_readable will
     * tell. receive returns 0 at the end. */
    ssize_t (*send)(void *host, const struct iovec *iov, unsigned count);
    ssize_t (*receive)(void *host, const struct iovec *iov, unsigned count);
    /* The guest will not send, or not receive, any more (VSOCK_SHUTDOWN_...). */
    void (*shutdown)(void *host, unsigned how);
    /* The last call for this `host`. */
    void (*close)(void *host);
};

struct vsock_counts {
    uint64_t opened, refused, reset; /* connections */
    uint64_t to_guest, to_host;      /* bytes of payload */
    uint64_t strange;                /* the guest's packets that were against the rules or for nobody */
};

/* NULL when there is no memory. After each call of what stands below, vsock_pending may have become true. */
struct vsock_core *vsock_core_new(uint64_t guest_cid, const struct vsock_host_ops *ops, void *owner);
/* As vsock_core_reset, and frees. NULL is allowed. */
void vsock_core_free(struct vsock_core *core);
/* Closes all connections; nothing is owed to the guest any more. */
void vsock_core_reset(struct vsock_core *core);

/* --- the guest's side */

/* False while more resets are owed than are held: leave the guest's packets where they are until vsock_next took some. */
bool vsock_ready(const struct vsock_core *core);
/* A packet of the guest: its header, and its header->len bytes (the caller saw that they are there). */
void vsock_guest_packet(struct vsock_core *core, const struct vsock_header *header, const struct iovec *payload,
                        unsigned count);
/* True when vsock_next may have something. */
bool vsock_pending(const struct vsock_core *core);
/* Makes the next packet for the guest: the header, and up to `room` bytes of payload in the given pieces (which hold
 * `room` bytes, at least 1; at most VSOCK_PACKET_MAX of them are used). False when there is none. Connections take turns. */
bool vsock_next(struct vsock_core *core, struct vsock_header *ret_header, const struct iovec *payload, unsigned count,
                size_t room);

/* --- the host's side */

/* Asks the guest's port. Returns 0, -EMFILE (too many connections), -EBUSY (the guest does not take its packets) or
 * -ENOMEM; then `host` is still the caller's. ops->accepted or ops->close follows. */
int vsock_open(struct vsock_core *core, uint32_t guest_port, void *host, struct vsock_connection **ret_connection);
/* The outcome of a connect that was in progress: 0 or a negative errno. May call ops->close. */
void vsock_connected(struct vsock_connection *connection, int status);
/* There may be bytes to receive, or room to send, again; hangup: nobody is at the other end any more. May call
 * ops->close. */
void vsock_event(struct vsock_connection *connection, bool readable, bool writable, bool hangup);

unsigned vsock_connections(const struct vsock_core *core);
struct vsock_counts vsock_core_counts(const struct vsock_core *core);

#endif
