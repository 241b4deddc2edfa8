/* virtio_peer.h - a client at a device's unix socket, for fuzz targets of devices that have one: it comes, sends, reads what there is, and
 * goes. */
#ifndef VENEER_TESTS_FUZZ_VIRTIO_PEER_H
#define VENEER_TESTS_FUZZ_VIRTIO_PEER_H

#include <signal.h>
#include <unistd.h>

#include "base/unix.h"
#include "virtio_fuzz.h"

struct virtio_peer {
    char path[64];
    int client; /* -1: none */
    unsigned turns;
};

static inline void virtio_peer_begin(struct virtio_peer *peer)
{
    signal(SIGPIPE, SIG_IGN);
    *peer = (struct virtio_peer){.client = -1};
    snprintf(peer->path, sizeof peer->path, "/tmp/veneer-fuzz-%d", getpid());
}

static inline void virtio_peer_end(struct virtio_peer *peer)
{
    if (peer->client >= 0)
        close(peer->client);
    peer->client = -1;
}

/* Comes when it is not there, and says hello; otherwise says what it says every time, reads, and goes every fourth time. */
static inline void virtio_peer_turn(struct virtio_peer *peer, const char *hello, const char *words)
{
    uint8_t bytes[256];
    bool came = peer->client < 0;
    if (came && unix_connect(peer->path, &peer->client) < 0)
        peer->client = -1;
    if (peer->client < 0)
        return;
    const char *say = came ? hello : words;
    bool broken = *say && write(peer->client, say, strlen(say)) < 0;
    if (broken || read(peer->client, bytes, sizeof bytes) == 0)
        peer->turns |= 3;
    if ((++peer->turns & 3) == 0)
        virtio_peer_end(peer);
}

#endif
