/* virtio_console.c - fuzzes the console from the driver's side, with a terminal that takes little at a time and a client at
 * the socket of its named port that comes and goes. */
#include "device/virtio/console.h"

#define FUZZ_QUEUES 6u /* the terminal's, the control queues, the named port's */
#include "virtio_peer.h"

#define CONTROL_OUT 3u

struct host {
    struct virtio_device *device;
    struct virtio_peer peer;
};

static size_t show(void *owner, const void *bytes, size_t length)
{
    (void)owner, (void)bytes;
    return length < 5 ? length : 5;
}

static void finish(void *context)
{
    struct host *host = context;
    virtio_console_input(host->device, "typed", 5);
    virtio_console_room(host->device);
    virtio_console_resize(host->device, host->peer.turns, 25);
    virtio_peer_turn(&host->peer, "sent", "sent");
}

/* A control message: ports 0 to 3 or none such, events that exist or nearly, mostly of the right size. */
static size_t control_message(uint8_t *bytes, struct fuzz_input *input)
{
    uint32_t port = (uint32_t)fuzz_take(input, 1);
    uint16_t event = (uint16_t)(fuzz_take(input, 1) % 10), value = (uint16_t)fuzz_take(input, 1);
    port = port < 0xe0 ? port & 3 : port << 24 | port;
    memcpy(bytes, &port, sizeof port);
    memcpy(bytes + 4, &event, sizeof event);
    memcpy(bytes + 6, &value, sizeof value);
    return value & 0x80 ? value & 0xf : 8;
}

/* Something for the device to read on an odd queue, room to write on an even one. */
static void request(struct virtio_fuzz *fuzz, struct fuzz_input *input, unsigned choice)
{
    uint8_t *bytes;
    uint64_t gpa = virtio_fuzz_slot(fuzz, &bytes);
    unsigned queue = choice < 12 ? CONTROL_OUT : choice % FUZZ_QUEUES;
    struct driver_piece piece = {gpa, 0};
    if (queue == CONTROL_OUT)
        piece.length = (uint32_t)control_message(bytes, input);
    else
        piece.length = (uint32_t)fuzz_take(input, 1) * (choice & 1 ? 1 : 30);
    virtio_fuzz_offer(fuzz, queue, &piece, queue & 1, !(queue & 1), FUZZ_NOTIFY | (choice & 2 ? FUZZ_INDIRECT : 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtio_fuzz fuzz;
    struct host host;
    virtio_peer_begin(&host.peer);
    virtio_fuzz_begin(&fuzz);
    struct virtio_console_port port = {"port", host.peer.path};
    struct virtio_console_config config = {.port = &port, .ports = 1, .write = show};
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    host.device = virtio_console_new(&env, &config, NULL);
    virtio_fuzz_add_device(&fuzz, host.device);
    fuzz.finish = finish;
    fuzz.request = request;
    fuzz.context = &host;
    virtio_fuzz_run(&fuzz, data, size);
    virtio_peer_end(&host.peer);
    return 0;
}
