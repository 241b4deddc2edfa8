/* vsock_packet.c - the packets of the socket protocol: what the guest's mean, and those that are made for it. */
#include <errno.h>

#include "device/virtio/vsock_private.h"

/* --- from the guest to the host */

/* Keeps the payload from byte `from` on. False when there is no memory. */
static bool hold(struct vsock_connection *c, const struct iovec *payload, unsigned count, size_t from)
{
    for (unsigned i = 0; i < count; i++) {
        size_t skip = from < payload[i].iov_len ? from : payload[i].iov_len;
        from -= skip;
        if (ring_put(&c->held, (const uint8_t *)payload[i].iov_base + skip, payload[i].iov_len - skip) < 0)
            return false;
    }
    return true;
}

static void guest_data(struct vsock_connection *c, const struct vsock_header *header, const struct iovec *payload,
                       unsigned count)
{
    uint32_t length = header->len;
    if ((c->guest_shut & VSOCK_SHUTDOWN_SEND) || length > VSOCK_PACKET_MAX || length > c->granted - c->held.used) {
        c->core->counts.strange++;
        connection_end_with_reset(c);
        return;
    }
    c->rx_count += length;
    ssize_t sent = 0;
    if (!c->deaf && c->host && c->held.used == 0 && length > 0) {
        sent = c->core->ops->send(c->host, payload, count);
        if (sent < 0 && sent != -EAGAIN)
            connection_turn_deaf(c);
        sent = sent < 0 ? 0 : sent;
        c->core->counts.to_host += (uint64_t)sent;
    }
    if (c->deaf || !c->host) {
        c->forwarded += length; /* the guest is told that nobody receives; until it sees that, its credit goes on */
    } else {
        c->forwarded += (uint32_t)sent;
        if (!hold(c, payload, count, (size_t)sent)) {
            connection_end_with_reset(c);
            return;
        }
    }
    connection_tell_credit(c);
    connection_settle(c);
}

static void guest_shutdown(struct vsock_connection *c, uint32_t flags)
{
    unsigned news = flags & VSOCK_SHUTDOWN_BOTH & ~c->guest_shut;
    c->guest_shut |= news;
    if ((news & VSOCK_SHUTDOWN_RECEIVE) && c->host)
        c->core->ops->shutdown(c->host, VSOCK_SHUTDOWN_RECEIVE);
    if (!connection_finish(c))
        connection_settle(c);
}

static void guest_request(struct vsock_core *core, const struct vsock_header *header)
{
    struct vsock_connection *c = connection_begin(core, header->dst_port, header->src_port, CONNECTING);
    if (!c) {
        core->counts.refused++;
        vsock_owe_reset(core, VSOCK_CID_HOST, header->dst_port, header->src_port, header->type);
        return;
    }
    c->peer_buffer = header->buf_alloc;
    c->peer_taken = header->fwd_cnt;
    int status = core->ops->connect(core->owner, c->host_port, c, &c->host);
    if (status != -EINPROGRESS)
        vsock_connected(c, status);
}

/* A packet of a connection in a state in which it may come. */
static void guest_operation(struct vsock_connection *c, const struct vsock_header *header, const struct iovec *payload,
                            unsigned count)
{
    switch (header->op) {
    case VSOCK_OP_RESPONSE:
        connection_opened(c);
        c->core->ops->accepted(c->host, c->host_port);
        connection_settle(c);
        break;
    case VSOCK_OP_SHUTDOWN:
        guest_shutdown(c, header->flags);
        break;
    case VSOCK_OP_RW:
        guest_data(c, header, payload, count);
        break;
    case VSOCK_OP_CREDIT_REQUEST:
        c->due |= DUE_CREDIT_UPDATE;
        connection_settle(c);
        break;
    default: /* a credit update was taken with the header */
        connection_settle(c);
        break;
    }
}

static bool allowed(enum connection_state state, uint16_t op)
{
    if (state == REQUESTED)
        return op == VSOCK_OP_RESPONSE;
    return state == OPEN && (op == VSOCK_OP_SHUTDOWN || op == VSOCK_OP_RW || op == VSOCK_OP_CREDIT_UPDATE ||
                             op == VSOCK_OP_CREDIT_REQUEST);
}

bool vsock_ready(const struct vsock_core *core)
{
    return core->resets < VSOCK_REPLIES;
}

void vsock_guest_packet(struct vsock_core *core, const struct vsock_header *header, const struct iovec *payload,
                        unsigned count)
{
    if (header->src_cid != core->guest_cid) { /* whom could one answer? */
        core->counts.strange++;
        return;
    }
    bool known = header->type == VSOCK_TYPE_STREAM && header->dst_cid == VSOCK_CID_HOST;
    struct vsock_connection *c = known ? connection_find(core, header->dst_port, header->src_port) : NULL;
    if (header->op == VSOCK_OP_RST) { /* never answered */
        if (c && c->state != OPEN)
            core->counts.refused++;
        if (c)
            connection_end(c);
        return;
    }
    if (known && !c && header->op == VSOCK_OP_REQUEST) {
        guest_request(core, header);
        return;
    }
    if (!c || !allowed(c->state, header->op)) {
        core->counts.strange++;
        if (c)
            connection_end_with_reset(c);
        else
            vsock_owe_reset(core, header->dst_cid, header->dst_port, header->src_port, header->type);
        return;
    }
    uint32_t before = credit(c);
    c->peer_buffer = header->buf_alloc;
    c->peer_taken = header->fwd_cnt;
    if (credit(c) > before)
        c->begged = false;
    guest_operation(c, header, payload, count);
}

/* --- from the host to the guest */

bool vsock_pending(const struct vsock_core *core)
{
    return core->resets > 0 || core->ready_first;
}

static void fill_header(struct vsock_connection *c, uint16_t op, struct vsock_header *ret_header)
{
    *ret_header = (struct vsock_header){
        .src_cid = VSOCK_CID_HOST, .dst_cid = c->core->guest_cid, .src_port = c->host_port, .dst_port = c->guest_port,
        .type = VSOCK_TYPE_STREAM, .op = op, .buf_alloc = c->granted, .fwd_cnt = c->forwarded};
    c->told_forwarded = c->forwarded; /* every packet tells it */
    c->due &= ~DUE_CREDIT_UPDATE;
}

/* Receives up to `room` bytes into the pieces; returns how many, 0 when there are none now. */
static uint32_t receive(struct vsock_connection *c, const struct iovec *payload, unsigned count, size_t room)
{
    size_t most = credit(c) < VSOCK_PACKET_MAX ? credit(c) : VSOCK_PACKET_MAX;
    if (most > room)
        most = room;
    struct iovec iov[64];
    unsigned used = 0;
    for (size_t left = most; left > 0 && used < count && used < 64; used++) {
        iov[used] = payload[used];
        if (iov[used].iov_len > left)
            iov[used].iov_len = left;
        left -= iov[used].iov_len;
    }
    ssize_t n = c->core->ops->receive(c->host, iov, used);
    if (n > 0) {
        c->tx_count += (uint32_t)n;
        c->core->counts.to_guest += (uint64_t)n;
        return (uint32_t)n;
    }
    c->readable = false;
    if (n != -EAGAIN)
        c->finished = true;
    if (n != 0 && n != -EAGAIN)
        connection_turn_deaf(c);
    return 0;
}

/* One packet of the connection; false when there turned out to be none. */
static bool make_packet(struct vsock_connection *c, struct vsock_header *header, const struct iovec *payload, unsigned count,
                        size_t room)
{
    static const struct { unsigned due; uint16_t op; } order[] = {
        {DUE_REQUEST, VSOCK_OP_REQUEST}, {DUE_RESPONSE, VSOCK_OP_RESPONSE}, {DUE_CREDIT_REQUEST, VSOCK_OP_CREDIT_REQUEST}};
    for (unsigned i = 0; i < sizeof order / sizeof *order; i++) {
        if (c->due & order[i].due) {
            c->due &= ~order[i].due;
            fill_header(c, order[i].op, header);
            return true;
        }
    }
    if (may_send(c) && credit(c) == 0 && !c->begged) {
        c->begged = true;
        fill_header(c, VSOCK_OP_CREDIT_REQUEST, header);
        return true;
    }
    uint32_t length = may_send(c) && credit(c) > 0 ? receive(c, payload, count, room) : 0;
    if (length > 0) {
        fill_header(c, VSOCK_OP_RW, header);
        header->len = length;
        return true;
    }
    unsigned shut = shut_due(c);
    if (shut) {
        fill_header(c, VSOCK_OP_SHUTDOWN, header);
        c->told_shut |= shut;
        header->flags = c->told_shut;
        if (c->told_shut == VSOCK_SHUTDOWN_BOTH)
            connection_close_host(c); /* the name stays until the guest resets it */
        return true;
    }
    if (c->due & DUE_CREDIT_UPDATE) {
        fill_header(c, VSOCK_OP_CREDIT_UPDATE, header);
        return true;
    }
    return false;
}

static void next_reset(struct vsock_core *core, struct vsock_header *header)
{
    const struct reset *reset = &core->reset[core->reset_first];
    *header = (struct vsock_header){
        .src_cid = reset->src_cid, .dst_cid = core->guest_cid, .src_port = reset->host_port, .dst_port = reset->guest_port,
        .type = reset->type, .op = VSOCK_OP_RST};
    core->reset_first = (core->reset_first + 1) % RESETS;
    core->resets--;
}

bool vsock_next(struct vsock_core *core, struct vsock_header *ret_header, const struct iovec *payload, unsigned count,
                size_t room)
{
    if (core->resets > 0) {
        next_reset(core, ret_header);
        return true;
    }
    /* Each turn either makes a packet or finds that the connection has none and takes it off the list. */
    while (core->ready_first) {
        struct vsock_connection *c = core->ready_first;
        bool made = make_packet(c, ret_header, payload, count, room);
        connection_rotate(c);
        if (made)
            return true;
    }
    return false;
}

