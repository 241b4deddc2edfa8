/* vsock_private.h - what vsock_core.c (connections) and vsock_packet.c (packets) share. */
#ifndef VENEER_DEVICE_VIRTIO_VSOCK_PRIVATE_H
#define VENEER_DEVICE_VIRTIO_VSOCK_PRIVATE_H

#include "base/ring.h"
#include "device/virtio/vsock_core.h"

#define BUCKETS 512u
#define RESETS (VSOCK_REPLIES + VSOCK_CONNECTIONS + 1)

enum connection_state { CONNECTING, REQUESTED, OPEN, DRAINING };

/* Packets that are due, besides RW. */
#define DUE_REQUEST 0x01u
#define DUE_RESPONSE 0x02u
#define DUE_CREDIT_UPDATE 0x04u
#define DUE_CREDIT_REQUEST 0x08u

struct vsock_connection {
    struct vsock_core *core;
    struct vsock_connection *chain;           /* in its bucket; or in the list of all that drain */
    struct vsock_connection *previous, *next; /* in the ready list */
    bool ready;
    enum connection_state state;
    void *host; /* NULL once closed: nothing can be moved any more */
    uint32_t host_port, guest_port;
    unsigned due;
    bool readable;       /* a receive may give something */
    bool passed;         /* the host's end knows that the guest will not send any more */
    bool finished;       /* the host's end gave all it will */
    bool deaf;           /* the host's end takes nothing any more */
    unsigned guest_shut; /* VSOCK_SHUTDOWN_ flags that the guest sent */
    unsigned told_shut;  /* ... and that it was sent */

    /* Guest to host. */
    uint32_t granted;             /* our buffer, as told */
    uint32_t rx_count, forwarded; /* bytes from the guest, and of them passed on; modulo 2^32 */
    uint32_t told_forwarded;      /* as last told */
    struct ring held;             /* for the host, which has not taken it yet */

    /* Host to guest. */
    uint32_t peer_buffer, peer_taken, tx_count;
    bool begged; /* for credit, since it was last given */
};

struct reset {
    uint64_t src_cid;
    uint32_t host_port, guest_port;
    uint16_t type;
};

struct vsock_core {
    uint64_t guest_cid;
    const struct vsock_host_ops *ops;
    void *owner;
    struct vsock_connection *bucket[BUCKETS], *draining;
    struct vsock_connection *ready_first, *ready_last;
    unsigned connections;
    uint64_t granted;
    uint32_t next_port;
    struct reset reset[RESETS];
    unsigned reset_first, resets;
    struct vsock_counts counts;
};

static inline bool may_send(const struct vsock_connection *c)
{
    return c->state == OPEN && c->readable && !c->finished && !(c->guest_shut & VSOCK_SHUTDOWN_RECEIVE);
}

/* What the guest can still take, in bytes; 0 as well for counts that make no sense. */
static inline uint32_t credit(const struct vsock_connection *c)
{
    uint32_t in_flight = c->tx_count - c->peer_taken;
    return in_flight < c->peer_buffer ? c->peer_buffer - in_flight : 0;
}

/* What the guest is not told yet of what the host's end will not do any more. The end of what is sent comes after the last byte;
 * `finished` is set once that was taken. */
static inline unsigned shut_due(const struct vsock_connection *c)
{
    unsigned flags = (c->finished ? VSOCK_SHUTDOWN_SEND : 0) | (c->deaf ? VSOCK_SHUTDOWN_RECEIVE : 0);
    return c->state == OPEN ? flags & ~c->told_shut : 0;
}

/* vsock_core.c. The functions that may free the connection say so. */

/* The connection of this name, or NULL. */
struct vsock_connection *connection_find(struct vsock_core *core, uint32_t host_port, uint32_t guest_port);
/* A new one, with its credit; NULL when there are too many or there is no memory. */
struct vsock_connection *connection_begin(struct vsock_core *core, uint32_t host_port, uint32_t guest_port,
                                          enum connection_state state);
/* Both sides agreed. */
void connection_opened(struct vsock_connection *c);
/* Puts the connection into the ready list, or takes it out, as is due (invariant 3). */
void connection_settle(struct vsock_connection *c);
/* To the end of the ready list, or out of it. */
void connection_rotate(struct vsock_connection *c);
/* Marks a credit update due when the guest knows of room for less than half. */
void connection_tell_credit(struct vsock_connection *c);
/* The host's end takes nothing any more: what is held, or comes, is for nobody. */
void connection_turn_deaf(struct vsock_connection *c);
/* Closes the host's end, if that is open. */
void connection_close_host(struct vsock_connection *c);
/* What the guest shut reaches the host's end once nothing is held; a connection shut both ways is over then. True when it
 * was freed. */
bool connection_finish(struct vsock_connection *c);
/* Ends the connection for the guest; bytes that are held for the host still go there. May free it. */
void connection_end(struct vsock_connection *c);
/* ... and the guest is told. May free it. */
void connection_end_with_reset(struct vsock_connection *c);
void vsock_owe_reset(struct vsock_core *core, uint64_t src_cid, uint32_t host_port, uint32_t guest_port, uint16_t type);

#endif
