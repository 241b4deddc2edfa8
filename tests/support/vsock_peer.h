/* vsock_peer.h - the host's end of sockets, in memory: what tests put between vsock_core and nothing. */
#ifndef VENEER_TESTS_SUPPORT_VSOCK_PEER_H
#define VENEER_TESTS_SUPPORT_VSOCK_PEER_H

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "device/virtio/vsock_core.h"

#define PEER_BYTES 65536u

/* One end. `open` from open or connect until close. */
struct peer {
    bool open, accepted, end, broken;
    unsigned shut;      /* VSOCK_SHUTDOWN_ flags that arrived */
    uint32_t host_port; /* as told to accepted */
    size_t room;        /* how many bytes it takes now */
    size_t taken, have; /* bytes that arrived; that it has to send */
    uint8_t arrived[PEER_BYTES], due[PEER_BYTES];
    struct vsock_connection *connection;
};

/* All ends of a core; the owner of its ops. */
struct peers {
    struct peer *peer;
    unsigned count;
    int connect_status; /* of a guest's request */
    uint32_t asked_port;
};

static inline struct peer *peer_free(struct peers *peers)
{
    for (unsigned i = 0; i < peers->count; i++) {
        if (!peers->peer[i].open) {
            struct peer *peer = &peers->peer[i];
            peer->open = true;
            peer->accepted = peer->end = peer->broken = false;
            peer->shut = 0;
            peer->room = PEER_BYTES;
            peer->taken = peer->have = 0;
            return peer;
        }
    }
    return NULL;
}

static inline int peer_connect(void *owner, uint32_t port, struct vsock_connection *connection, void **ret_host)
{
    struct peers *peers = owner;
    peers->asked_port = port;
    if (peers->connect_status < 0 && peers->connect_status != -EINPROGRESS)
        return peers->connect_status;
    struct peer *peer = peer_free(peers);
    if (!peer)
        return -EMFILE;
    peer->connection = connection;
    *ret_host = peer;
    return peers->connect_status;
}

static inline void peer_accepted(void *host, uint32_t host_port)
{
    struct peer *peer = host;
    peer->accepted = true;
    peer->host_port = host_port;
}

static inline ssize_t peer_send(void *host, const struct iovec *iov, unsigned count)
{
    struct peer *peer = host;
    size_t sent = 0;
    if (peer->broken)
        return -EPIPE;
    for (unsigned i = 0; i < count; i++) {
        size_t n = iov[i].iov_len < peer->room ? iov[i].iov_len : peer->room;
        /* What does not fit in the record is counted only. */
        size_t kept = n < PEER_BYTES - peer->taken % PEER_BYTES ? n : PEER_BYTES - peer->taken % PEER_BYTES;
        if (kept)
            memcpy(peer->arrived + peer->taken % PEER_BYTES, iov[i].iov_base, kept);
        peer->taken += n;
        peer->room -= n;
        sent += n;
    }
    return sent ? (ssize_t)sent : -EAGAIN;
}

static inline ssize_t peer_receive(void *host, const struct iovec *iov, unsigned count)
{
    struct peer *peer = host;
    size_t received = 0;
    if (peer->broken)
        return -ECONNRESET;
    if (!peer->have)
        return peer->end ? 0 : -EAGAIN;
    for (unsigned i = 0; i < count && peer->have; i++) {
        size_t n = iov[i].iov_len < peer->have ? iov[i].iov_len : peer->have;
        memcpy(iov[i].iov_base, peer->due, n);
        memmove(peer->due, peer->due + n, peer->have - n);
        peer->have -= n;
        received += n;
    }
    return (ssize_t)received;
}

static inline void peer_shutdown(void *host, unsigned how)
{
    ((struct peer *)host)->shut |= how;
}

static inline void peer_close(void *host)
{
    ((struct peer *)host)->open = false;
}

static const struct vsock_host_ops peer_ops = {.connect = peer_connect, .accepted = peer_accepted, .send = peer_send,
                                               .receive = peer_receive, .shutdown = peer_shutdown, .close = peer_close};

#endif
