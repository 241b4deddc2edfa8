/* vsock_core.c - see vsock_core.h.
 *
 * The states of a connection, by who asked for it:
 *
 *     guest REQUEST --> CONNECTING --(host's end connected)--> OPEN, RESPONSE is due
 *     vsock_open    --> REQUESTED, REQUEST is due --(guest RESPONSE)--> OPEN
 *     OPEN --(both directions shut by the guest, all delivered)--> RST is owed, gone
 *     OPEN --(guest RST, or it broke the rules)--> DRAINING while bytes for the host are held, then gone
 *
 * A connection that is DRAINING has no name any more: the guest may use its port again. What a slow host has not taken
 * yet is not lost by it, as a guest whose program ends sends RST some seconds after it gave up waiting for ours.
 *
 * Invariants:
 *   1. held <= granted: what is held for the host was covered by credit; more is a violation and resets.
 *   2. granted of all connections together <= VSOCK_CREDIT_TOTAL + connections * VSOCK_CREDIT_LEAST.
 *   3. a connection is in the ready list exactly when it may have a packet for the guest, and then it has a name.
 *   4. tx_count - peer_taken <= peer_buffer, modulo 2^32, for a guest that keeps to the rules.
 *   5. resets owed <= VSOCK_REPLIES + VSOCK_CONNECTIONS: the guest's packets are only read below VSOCK_REPLIES
 *      (each owes one at most), connections are only opened below it, and each owes one at its end. */
#include "device/virtio/vsock_core.h"

#include <errno.h>
#include <stdlib.h>

#include "device/virtio/vsock_private.h"

#define FIRST_HOST_PORT 0x40000000u /* above what programs listen on */

static unsigned bucket_of(uint32_t host_port, uint32_t guest_port)
{
    return (host_port * 0x9e3779b1u ^ guest_port * 0x85ebca6bu) >> 16 & (BUCKETS - 1);
}

struct vsock_connection *connection_find(struct vsock_core *core, uint32_t host_port, uint32_t guest_port)
{
    struct vsock_connection *c = core->bucket[bucket_of(host_port, guest_port)];
    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->chain;
    return c;
}

static void unchain(struct vsock_connection **at, struct vsock_connection *c)
{
    while (*at != c)
        at = &(*at)->chain;
    *at = c->chain;
}

/* --- the ready list */

static bool has_packet(const struct vsock_connection *c)
{
    return c->state != DRAINING && (c->due || shut_due(c) || (may_send(c) && (credit(c) > 0 || !c->begged)));
}

static void ready_remove(struct vsock_connection *c)
{
    if (!c->ready)
        return;
    struct vsock_core *core = c->core;
    *(c->previous ? &c->previous->next : &core->ready_first) = c->next;
    *(c->next ? &c->next->previous : &core->ready_last) = c->previous;
    c->ready = false;
}

static void ready_append(struct vsock_connection *c)
{
    struct vsock_core *core = c->core;
    c->previous = core->ready_last;
    c->next = NULL;
    *(c->previous ? &c->previous->next : &core->ready_first) = c;
    core->ready_last = c;
    c->ready = true;
}

/* Puts the connection into the ready list, or takes it out, as is due (invariant 3). */
void connection_settle(struct vsock_connection *c)
{
    bool due = has_packet(c);
    if (due && !c->ready)
        ready_append(c);
    else if (!due)
        ready_remove(c);
}

void connection_rotate(struct vsock_connection *c)
{
    ready_remove(c);
    if (has_packet(c))
        ready_append(c);
}

/* --- the end of connections */

void vsock_owe_reset(struct vsock_core *core, uint64_t src_cid, uint32_t host_port, uint32_t guest_port, uint16_t type)
{
    core->reset[(core->reset_first + core->resets++) % RESETS] = (struct reset){src_cid, host_port, guest_port, type};
}

void connection_close_host(struct vsock_connection *c)
{
    if (c->host)
        c->core->ops->close(c->host);
    c->host = NULL;
}

/* Takes the connection out of whatever list holds it, and frees it. */
static void forget(struct vsock_connection *c)
{
    struct vsock_core *core = c->core;
    ready_remove(c);
    unchain(c->state == DRAINING ? &core->draining : &core->bucket[bucket_of(c->host_port, c->guest_port)], c);
    connection_close_host(c);
    core->connections--;
    core->granted -= c->granted;
    ring_clear(&c->held);
    free(c);
}

/* Ends the connection for the guest; bytes that are held for the host still go there. */
void connection_end(struct vsock_connection *c)
{
    struct vsock_core *core = c->core;
    if (c->state != OPEN || !c->held.used || !c->host || c->deaf) {
        forget(c);
        return;
    }
    ready_remove(c);
    unchain(&core->bucket[bucket_of(c->host_port, c->guest_port)], c);
    c->state = DRAINING;
    c->due = 0;
    c->chain = core->draining;
    core->draining = c;
}

void connection_end_with_reset(struct vsock_connection *c)
{
    vsock_owe_reset(c->core, VSOCK_CID_HOST, c->host_port, c->guest_port, VSOCK_TYPE_STREAM);
    c->core->counts.reset++;
    connection_end(c);
}

/* --- the beginning */

struct vsock_connection *connection_begin(struct vsock_core *core, uint32_t host_port, uint32_t guest_port,
                                          enum connection_state state)
{
    if (core->connections >= VSOCK_CONNECTIONS)
        return NULL;
    struct vsock_connection *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->core = core;
    c->state = state;
    c->host_port = host_port;
    c->guest_port = guest_port;
    c->granted = core->granted + VSOCK_CREDIT_EACH <= VSOCK_CREDIT_TOTAL ? VSOCK_CREDIT_EACH : VSOCK_CREDIT_LEAST;
    core->granted += c->granted;
    core->connections++;
    struct vsock_connection **bucket = &core->bucket[bucket_of(host_port, guest_port)];
    c->chain = *bucket;
    *bucket = c;
    return c;
}

int vsock_open(struct vsock_core *core, uint32_t guest_port, void *host, struct vsock_connection **ret_connection)
{
    if (core->resets >= VSOCK_REPLIES)
        return -EBUSY;
    if (core->connections >= VSOCK_CONNECTIONS)
        return -EMFILE;
    do {
        core->next_port = core->next_port < FIRST_HOST_PORT || core->next_port == UINT32_MAX - 1 ? FIRST_HOST_PORT
                                                                                                 : core->next_port + 1;
    } while (connection_find(core, core->next_port, guest_port));
    struct vsock_connection *c = connection_begin(core, core->next_port, guest_port, REQUESTED);
    if (!c)
        return -ENOMEM;
    c->host = host;
    c->due = DUE_REQUEST;
    *ret_connection = c;
    connection_settle(c);
    return 0;
}

void connection_opened(struct vsock_connection *c)
{
    c->state = OPEN;
    c->readable = true; /* not known: the first receive tells */
    c->core->counts.opened++;
}

void vsock_connected(struct vsock_connection *c, int status)
{
    if (status < 0) {
        c->core->counts.refused++;
        connection_end_with_reset(c);
        return;
    }
    connection_opened(c);
    c->due |= DUE_RESPONSE;
    connection_settle(c);
}

/* --- what is held for the host */

/* Tells the guest of room when what it knows of is less than half. */
void connection_tell_credit(struct vsock_connection *c)
{
    if (c->state == OPEN && c->granted - (c->rx_count - c->told_forwarded) < c->granted / 2 &&
        c->forwarded != c->told_forwarded)
        c->due |= DUE_CREDIT_UPDATE;
}

/* The host's end broke: what is held, or comes, is for nobody. */
void connection_turn_deaf(struct vsock_connection *c)
{
    c->deaf = true;
    c->forwarded += (uint32_t)c->held.used;
    ring_clear(&c->held);
}

/* Passes on what is held. */
static void flush(struct vsock_connection *c)
{
    while (c->held.used > 0 && c->host) {
        struct iovec iov[2];
        ssize_t n = c->core->ops->send(c->host, iov, ring_pieces(&c->held, iov));
        if (n == -EAGAIN)
            return;
        if (n < 0) {
            connection_turn_deaf(c);
            return;
        }
        ring_skip(&c->held, (size_t)n);
        c->forwarded += (uint32_t)n;
        c->core->counts.to_host += (uint64_t)n;
    }
}

/* What the guest shut reaches the host's end once nothing is held; a connection shut both ways is over then. True when it is
 * gone. */
bool connection_finish(struct vsock_connection *c)
{
    if (c->held.used)
        return false;
    if (c->state == DRAINING || c->guest_shut == VSOCK_SHUTDOWN_BOTH) {
        if (c->state != DRAINING)
            vsock_owe_reset(c->core, VSOCK_CID_HOST, c->host_port, c->guest_port, VSOCK_TYPE_STREAM);
        forget(c);
        return true;
    }
    if ((c->guest_shut & VSOCK_SHUTDOWN_SEND) && !c->passed && c->host) {
        c->passed = true;
        c->core->ops->shutdown(c->host, VSOCK_SHUTDOWN_SEND);
    }
    return false;
}

/* --- news of the host's end */

void vsock_event(struct vsock_connection *c, bool readable, bool writable, bool hangup)
{
    c->readable |= readable | hangup;
    if (c->state == CONNECTING)
        return;
    if (hangup && (c->state == REQUESTED || c->state == DRAINING)) {
        if (c->state == REQUESTED)
            connection_end_with_reset(c);
        else
            forget(c);
        return;
    }
    if (c->state == REQUESTED)
        return;
    if (hangup)
        connection_turn_deaf(c);
    if (writable)
        flush(c);
    if (c->deaf && c->state == DRAINING) {
        forget(c);
        return;
    }
    connection_tell_credit(c);
    if (!connection_finish(c))
        connection_settle(c);
}

/* --- the core */

struct vsock_core *vsock_core_new(uint64_t guest_cid, const struct vsock_host_ops *ops, void *owner)
{
    struct vsock_core *core = calloc(1, sizeof *core);
    if (core) {
        core->guest_cid = guest_cid;
        core->ops = ops;
        core->owner = owner;
    }
    return core;
}

void vsock_core_reset(struct vsock_core *core)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        while (core->bucket[i])
            forget(core->bucket[i]);
    while (core->draining)
        forget(core->draining);
    core->reset_first = core->resets = 0;
}

void vsock_core_free(struct vsock_core *core)
{
    if (!core)
        return;
    vsock_core_reset(core);
    free(core);
}

unsigned vsock_connections(const struct vsock_core *core)
{
    return core->connections;
}

struct vsock_counts vsock_core_counts(const struct vsock_core *core)
{
    return core->counts;
}
