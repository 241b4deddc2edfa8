/* virtio_vsock.c - fuzzes the rings of the socket device, with clients of the host that connect and send. The protocol behind them has
 * a target of its own: vsock.c. */
#include "device/virtio/vsock.h"

#include <stddef.h>

#define FUZZ_QUEUES 3u /* to the guest, from it, events */
#include "virtio_peer.h"

#define CID 3u
#define HOST_CID 2u
#define PORT 3u

/* 5.10.6 */
struct packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, length;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

struct host {
    struct virtio_peer peer;
    uint32_t port;  /* of the host's end of the last connection that it began */
    const uint8_t *buffer[FUZZ_SIZE_MAX]; /* to the guest, by ID */
};

static void finish(void *context)
{
    struct host *host = context;
    virtio_peer_turn(&host->peer, "CONNECT 3\nsent", "sent");
}

/* A packet of the right form mostly, that belongs to the host's last connection or to one that the guest begins. */
static uint32_t packet(struct host *host, uint8_t *bytes, struct fuzz_input *input)
{
    unsigned op = (unsigned)fuzz_take(input, 1), odd = op >> 4;
    uint32_t length = (uint32_t)fuzz_take(input, 1);
    struct packet packet = {.src_cid = odd == 15 ? fuzz_take(input, 8) : CID, .dst_cid = odd == 14 ? fuzz_take(input, 8) : HOST_CID,
                            .src_port = odd & 1 ? 7 : PORT, .dst_port = odd & 1 ? 1 : host->port, .length = odd == 13 ? length << 8 : length,
                            .type = odd == 12 ? 2 : 1, .op = (uint16_t)(op & 15), .flags = length & 3, .buf_alloc = 4096,
                            .fwd_cnt = odd == 11 ? length : 0};
    memcpy(bytes, &packet, sizeof packet);
    return (uint32_t)sizeof packet + (odd == 10 ? length / 2 : length);
}

static void request(struct virtio_fuzz *fuzz, struct fuzz_input *input, unsigned choice)
{
    struct host *host = fuzz->context;
    uint8_t *bytes;
    uint64_t gpa = virtio_fuzz_slot(fuzz, &bytes);
    unsigned queue = choice < 13 ? 1 : choice < 22 ? 0 : 2;
    uint32_t length = queue == 1 ? packet(host, bytes, input) : 32 * (uint32_t)fuzz_take(input, 1), head = length < 44 ? length : 44;
    struct driver_piece pieces[2] = {{gpa, head}, {gpa + head, length - head}};
    int id = virtio_fuzz_offer(fuzz, queue, pieces, queue == 1 ? 2 : 0, queue == 1 ? 0 : 2, FUZZ_NOTIFY | (choice & 1 ? FUZZ_INDIRECT : 0));
    if (id >= 0 && queue == 0)
        host->buffer[id] = bytes;
}

/* Remembers whom the host's packets are from, so that answers meet a connection. */
static void used(struct virtio_fuzz *fuzz, unsigned queue, unsigned id, uint32_t written)
{
    struct host *host = fuzz->context;
    if (queue == 0 && written >= sizeof(struct packet) && host->buffer[id])
        memcpy(&host->port, host->buffer[id] + offsetof(struct packet, src_port), sizeof host->port);
    if (queue == 0)
        host->buffer[id] = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtio_fuzz fuzz;
    struct host host = {.port = 0};
    virtio_peer_begin(&host.peer);
    virtio_fuzz_begin(&fuzz);
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    virtio_fuzz_add_device(&fuzz, virtio_vsock_new(&env, host.peer.path, CID, NULL));
    fuzz.finish = finish;
    fuzz.request = request;
    fuzz.used = used;
    fuzz.context = &host;
    virtio_fuzz_run(&fuzz, data, size);
    virtio_peer_end(&host.peer);
    return 0;
}
