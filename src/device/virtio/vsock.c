/* vsock.c - see vsock.h. The rings of the socket device; vsock_core.c has the protocol. */
#include "device/virtio/vsock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "device/virtio/vsock_host.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUES };

#define QUEUE_SIZE 256u
#define EVENT_QUEUE_SIZE 16u
#define TURN 64u /* packets each way, before other devices of the loop get theirs */
#define EVENT_TRANSPORT_RESET 0u
#define FEATURE_STREAM 0

struct vsock {
    struct virtio_device device;
    struct virtqueue *queue[QUEUES];
    struct vsock_core *core;
    struct vsock_host *host;
    struct loop_signal *more;         /* there is work left after a turn */
    struct virtqueue_element *spare;  /* a buffer of the guest that turned out not to be needed yet */
    bool active;                      /* between start and stop */
    bool reset_due;                   /* the guest is to be told that its connections are gone */
    struct iovec iov[VIRTQUEUE_SEGMENTS_MAX];
};

/* --- host to guest */

static void send_event(struct vsock *vsock)
{
    struct virtqueue_element *element = vsock->reset_due ? virtqueue_pop(vsock->queue[QUEUE_EVENT]) : NULL;
    if (!element)
        return;
    const uint32_t event = EVENT_TRANSPORT_RESET;
    struct virtio_cursor out = virtqueue_writable(element);
    virtqueue_push(vsock->queue[QUEUE_EVENT], element, virtio_cursor_put(&out, &event, sizeof event));
    virtqueue_notify(vsock->queue[QUEUE_EVENT]);
    vsock->reset_due = false;
}

/* Fills one buffer of the guest. False when there is no buffer, or nothing to send. */
static bool send_packet(struct vsock *vsock)
{
    struct virtqueue *queue = vsock->queue[QUEUE_RX];
    struct virtqueue_element *element = vsock->spare ? vsock->spare : virtqueue_pop(queue);
    vsock->spare = NULL;
    if (!element)
        return false;
    struct vsock_header header;
    struct virtio_cursor head = virtqueue_writable(element), body = head;
    virtio_cursor_skip(&body, VSOCK_HEADER_SIZE);
    if (body.left == 0) {
        virtqueue_push(queue, element, 0);
        virtqueue_break(queue, "a buffer has no room for a packet");
        return false;
    }
    size_t room = body.left < VSOCK_PACKET_MAX ? body.left : VSOCK_PACKET_MAX;
    int pieces = virtio_cursor_pieces(&body, room, vsock->iov, VIRTQUEUE_SEGMENTS_MAX);
    if (pieces < 0 || !vsock_next(vsock->core, &header, vsock->iov, (unsigned)pieces, room)) {
        vsock->spare = element;
        return false;
    }
    virtio_cursor_put(&head, &header, sizeof header);
    virtqueue_push(queue, element, VSOCK_HEADER_SIZE + header.len);
    return true;
}

static bool serve_rx(struct vsock *vsock)
{
    unsigned sent = 0;
    while (sent < TURN && vsock_pending(vsock->core) && send_packet(vsock))
        sent++;
    if (sent)
        virtqueue_notify(vsock->queue[QUEUE_RX]);
    return sent == TURN;
}

/* --- guest to host */

static bool receive_packet(struct vsock *vsock, struct virtqueue_element *element)
{
    struct vsock_header header;
    struct virtio_cursor in = virtqueue_readable(element);
    if (virtio_cursor_get(&in, &header, sizeof header) != sizeof header)
        return false;
    uint32_t length = header.op == VSOCK_OP_RW ? header.len : 0;
    if (length > VSOCK_PACKET_MAX) { /* the connection is reset for it; its bytes are not looked at */
        vsock_guest_packet(vsock->core, &header, NULL, 0);
        return true;
    }
    int pieces = virtio_cursor_pieces(&in, length, vsock->iov, VIRTQUEUE_SEGMENTS_MAX);
    if (pieces < 0)
        return false;
    vsock_guest_packet(vsock->core, &header, vsock->iov, (unsigned)pieces);
    return true;
}

static bool serve_tx(struct vsock *vsock)
{
    struct virtqueue *queue = vsock->queue[QUEUE_TX];
    unsigned received = 0;
    while (received < TURN && vsock_ready(vsock->core)) {
        struct virtqueue_element *element = virtqueue_pop(queue);
        if (!element)
            break;
        bool good = receive_packet(vsock, element);
        virtqueue_push(queue, element, 0);
        received++;
        if (!good) {
            virtqueue_break(queue, "a packet is shorter than its header says");
            break;
        }
    }
    if (received)
        virtqueue_notify(queue);
    return received == TURN;
}

/* A turn of everything. What the guest sent goes first, as it may close, or give credit to, what would be sent. */
static void pump(void *context)
{
    struct vsock *vsock = context;
    if (!vsock->active)
        return;
    send_event(vsock);
    bool full = vsock_ready(vsock->core);
    bool more = serve_tx(vsock) | serve_rx(vsock);
    /* Resets that were owed held the guest's packets up, and some were taken: none of the rings will ask again. */
    if (more || (!full && vsock_ready(vsock->core)))
        loop_signal_raise(vsock->more);
}

/* --- a device */

static struct vsock *of(struct virtio_device *device)
{
    return (struct vsock *)device;
}

static void vsock_start(struct virtio_device *device)
{
    struct vsock *vsock = of(device);
    vsock->active = true;
    if (vsock_host_start(vsock->host, vsock->core) < 0)
        virtio_needs_reset(device, "the host's socket cannot be waited for");
}

static void vsock_process(struct virtio_device *device, struct virtqueue *queue)
{
    (void)queue;
    pump(device);
}

static void vsock_stop(struct virtio_device *device)
{
    struct vsock *vsock = of(device);
    vsock->active = false;
    vsock_core_reset(vsock->core);
    vsock_host_stop(vsock->host);
    if (vsock->spare)
        virtqueue_drop(vsock->queue[QUEUE_RX], vsock->spare);
    vsock->spare = NULL;
}

static void vsock_pause(struct virtio_device *device)
{
    struct vsock *vsock = of(device);
    if (vsock->spare)
        virtqueue_unpop(vsock->queue[QUEUE_RX], vsock->spare);
    vsock->spare = NULL;
}

static void vsock_save(const struct virtio_device *device, struct stream *stream)
{
    stream_put_u8(stream, ((const struct vsock *)device)->reset_due);
}

/* The connections stayed behind. */
static void vsock_load(struct virtio_device *device, struct stream *stream)
{
    stream_get_u8(stream);
    of(device)->reset_due = true;
}

static void vsock_destroy(struct virtio_device *device)
{
    struct vsock *vsock = of(device);
    if (vsock->host && vsock->active) { /* the machine ended without a reset */
        vsock_core_reset(vsock->core);
        vsock_host_stop(vsock->host);
    }
    virtio_device_finish(device);
    vsock_host_free(vsock->host);
    vsock_core_free(vsock->core);
    loop_signal_free(vsock->more);
    free(vsock);
}

static const struct virtio_ops vsock_ops = {
    .name = "virtio-vsock", .id = 19, .class_code = 0x078000, .start = vsock_start, .process = vsock_process,
    .stop = vsock_stop, .pause = vsock_pause, .save = vsock_save, .load = vsock_load, .destroy = vsock_destroy};

struct virtio_device *virtio_vsock_new(const struct virtio_env *env, const char *path, uint64_t guest_cid,
                                       struct error *error)
{
    if (guest_cid < VSOCK_CID_MIN || guest_cid > VSOCK_CID_MAX) {
        error_set(error, EINVAL, "vsock: a guest's CID is %u to %" PRIu64, VSOCK_CID_MIN, VSOCK_CID_MAX);
        return NULL;
    }
    struct vsock *vsock = calloc(1, sizeof *vsock);
    if (!vsock) {
        error_set(error, ENOMEM, "vsock: no memory");
        return NULL;
    }
    int status = virtio_device_init(&vsock->device, &vsock_ops, env, VIRTIO_BIT(FEATURE_STREAM), &guest_cid, sizeof guest_cid,
                                    error);
    for (unsigned i = 0; status == 0 && i < QUEUES; i++)
        if (!(vsock->queue[i] = virtio_queue_add(&vsock->device, i == QUEUE_EVENT ? EVENT_QUEUE_SIZE : QUEUE_SIZE)))
            status = error_set(error, ENOMEM, "vsock: no memory");
    if (status == 0)
        status = vsock_host_new(env->loop, path, pump, vsock, &vsock->host, error);
    if (status == 0) {
        vsock->core = vsock_core_new(guest_cid, &vsock_unix_ops, vsock->host);
        vsock->more = loop_signal_new(env->loop, pump, vsock);
        if (!vsock->core || !vsock->more)
            status = error_set(error, ENOMEM, "vsock: no memory");
    }
    if (status < 0) {
        vsock_destroy(&vsock->device);
        return NULL;
    }
    return &vsock->device;
}

struct vsock_counts virtio_vsock_counts(const struct virtio_device *device)
{
    return vsock_core_counts(((const struct vsock *)device)->core);
}
