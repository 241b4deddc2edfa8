/* vsock.c - fuzzes the socket protocol from both sides at once: packets of a hostile guest, and ends on the host that
 * come, go, break and are slow. Asserts what must hold whatever they do: packets are well formed and fit, the work
 * ends, and no end of the host stays behind. */
#include "device/virtio/vsock_core.h"

#include "device_fuzz.h"
#include "support/vsock_peer.h"

#define CID 3u
#define PEERS 8u

struct context {
    struct vsock_core *core;
    struct peers peers;
    uint8_t bytes[VSOCK_PACKET_MAX];
};

/* A packet: the op and a port pair from a small set, so that it often meets a connection. Host ports that the core
 * named itself start at 0x40000000. */
static void guest_says(struct context *context, struct fuzz_input *input)
{
    unsigned op = (unsigned)fuzz_take(input, 1), ports = (unsigned)fuzz_take(input, 1), odd = op >> 4;
    struct vsock_header header = {
        .src_cid = odd == 15 ? fuzz_take(input, 8) : CID, .dst_cid = odd == 14 ? fuzz_take(input, 8) : VSOCK_CID_HOST,
        .src_port = ports & 3, .dst_port = (ports >> 2 & 3) | (ports & 0x10 ? 0x40000000u : 0),
        .type = odd == 13 ? (uint16_t)fuzz_take(input, 2) : 1, .op = op & 0xF, .flags = (uint32_t)fuzz_take(input, 1),
        .buf_alloc = odd == 12 ? (uint32_t)fuzz_take(input, 4) : 256u << (ports >> 5),
        .fwd_cnt = odd == 11 ? (uint32_t)fuzz_take(input, 4) : 0};
    if (header.op == VSOCK_OP_RW)
        header.len = (uint32_t)fuzz_take(input, 1) << (odd & 0xF);
    uint32_t carried = header.len > VSOCK_PACKET_MAX ? 0 : header.len; /* as the device does */
    struct iovec iov[2] = {{context->bytes, carried / 2}, {context->bytes + carried / 2, carried - carried / 2}};
    if (vsock_ready(context->core))
        vsock_guest_packet(context->core, &header, iov, 2);
}

static void guest_takes(struct context *context, struct fuzz_input *input)
{
    size_t room = 1 + fuzz_take(input, 2);
    struct vsock_header header;
    struct iovec iov[2] = {{context->bytes, room / 3}, {context->bytes + room / 3, room - room / 3}};
    memset(&header, 0xAA, sizeof header);
    bool pending = vsock_pending(context->core);
    if (!vsock_next(context->core, &header, iov, 2, room)) {
        FUZZ_ASSERT(!vsock_pending(context->core));
        return;
    }
    FUZZ_ASSERT(pending && header.len <= room && header.dst_cid == CID);
    FUZZ_ASSERT(header.op >= VSOCK_OP_REQUEST && header.op <= VSOCK_OP_CREDIT_REQUEST);
    FUZZ_ASSERT((header.op == VSOCK_OP_RW) == (header.len > 0));
    FUZZ_ASSERT(header.op == VSOCK_OP_RST || header.buf_alloc >= VSOCK_CREDIT_LEAST);
}

static void host_does(struct context *context, struct fuzz_input *input)
{
    unsigned choice = (unsigned)fuzz_take(input, 1);
    struct peer *peer = &context->peers.peer[choice & (PEERS - 1)];
    if (!peer->open) {
        struct peer *fresh = peer_free(&context->peers);
        if (fresh && vsock_open(context->core, choice >> 3 & 3, fresh, &fresh->connection) < 0)
            fresh->open = false;
        return;
    }
    switch (choice >> 3 & 7) {
    case 0: peer->room = fuzz_take(input, 2); break;
    case 1: peer->have = fuzz_take(input, 2); break;
    case 2: peer->end = true; break;
    case 3: peer->broken = true; break;
    default: break;
    }
    vsock_event(peer->connection, choice & 0x40, choice & 0x80, peer->broken);
}

/* Connects in progress come to an end in the order of the ends. */
static void host_answers(struct context *context, struct fuzz_input *input, bool *waiting)
{
    unsigned choice = (unsigned)fuzz_take(input, 1);
    struct peer *peer = &context->peers.peer[choice & (PEERS - 1)];
    if (!waiting[choice & (PEERS - 1)] || !peer->open)
        return;
    waiting[choice & (PEERS - 1)] = false;
    vsock_connected(peer->connection, choice & 0x80 ? -ECONNREFUSED : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct context *context = calloc(1, sizeof *context);
    bool waiting[PEERS] = {false}, before[PEERS];
    context->peers = (struct peers){calloc(PEERS, sizeof(struct peer)), PEERS, 0, 0};
    context->core = vsock_core_new(CID, &peer_ops, &context->peers);
    for (unsigned i = 0; i < 4 * FUZZ_OPERATIONS && input.left; i++) {
        unsigned choice = (unsigned)fuzz_take(&input, 1);
        for (unsigned p = 0; p < PEERS; p++)
            before[p] = context->peers.peer[p].open;
        switch (choice % 8) {
        case 0: case 1: case 2: guest_says(context, &input); break;
        case 3: case 4: guest_takes(context, &input); break;
        case 5: case 6: host_does(context, &input); break;
        default:
            if (choice < 0xF8)
                context->peers.connect_status = choice & 0x80 ? -EINPROGRESS : choice & 0x40 ? -ECONNREFUSED : 0;
            else if (choice == 0xFF)
                vsock_core_reset(context->core);
            else
                host_answers(context, &input, waiting);
            break;
        }
        for (unsigned p = 0; p < PEERS; p++) {
            if (!context->peers.peer[p].open)
                waiting[p] = false;
            else if (!before[p] && choice % 8 < 3 && context->peers.connect_status == -EINPROGRESS)
                waiting[p] = true;
        }
        FUZZ_ASSERT(vsock_connections(context->core) <= VSOCK_CONNECTIONS);
    }
    /* Whatever happened, the guest can take all that is due. */
    for (unsigned i = 0; vsock_pending(context->core); i++) {
        FUZZ_ASSERT(i < 1000000);
        struct vsock_header header;
        struct iovec iov = {context->bytes, sizeof context->bytes};
        vsock_next(context->core, &header, &iov, 1, sizeof context->bytes);
    }
    vsock_core_free(context->core);
    for (unsigned p = 0; p < PEERS; p++)
        FUZZ_ASSERT(!context->peers.peer[p].open);
    free(context->peers.peer);
    free(context);
    return 0;
}
