/* blk.c - see blk.h.
 *
 * A request is a chain: a header that the device reads, data, and one status byte that it writes last (5.2.6). The data's
 * pieces go to the volume as they lie in guest memory; the status byte is cut off the last piece for that long.
 * Completions come in bursts, so the driver is interrupted once the burst is over (virtqueue_notify_later).
 *
 * A request that has no room for a header or a status byte breaks its queue: there is no way to answer it. */
#include "device/virtio/blk.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define QUEUE_SIZE 256u
#define SECTOR 512u
#define RANGES 16u                    /* of one discard or write-zeroes request */
#define RANGE_SECTORS_MAX (1u << 22)  /* of one range */

enum { F_SEG_MAX = 2, F_RO = 5, F_BLK_SIZE = 6, F_FLUSH = 9, F_TOPOLOGY = 10, F_MQ = 12, F_DISCARD = 13, F_WRITE_ZEROES = 14 };
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
#define RANGE_UNMAP 1u

struct blk_config { /* struct virtio_blk_config; 5.2.4 */
    uint64_t capacity;
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t blk_size;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));
_Static_assert(sizeof(struct blk_config) == 60, "virtio 1.2, 5.2.4");

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct range {
    uint64_t sector;
    uint32_t sectors, flags;
};

struct request {
    struct block_request block;
    struct blk *blk;
    struct virtqueue_element *element;
    struct request *next; /* free list */
    unsigned ranges, range; /* discard, write-zeroes: how many, and the one being done */
    struct range list[RANGES];
};

struct blk {
    struct virtio_device virtio;
    struct block *block;
    struct request *free;
    char serial[VIRTIO_BLK_SERIAL];
    bool write_through; /* the driver does not flush */
};

/* ---- answering ---- */

static uint8_t *status_byte(const struct virtqueue_element *element)
{
    const struct iovec *last = &element->iov[element->readable + element->writable - 1];
    return (uint8_t *)last->iov_base + last->iov_len - 1;
}

/* data: bytes written before the status byte, if it is S_OK. */
static void answer(struct virtqueue_element *element, uint8_t status, uint64_t data)
{
    *status_byte(element) = status;
    element->touched = element->writable_bytes; /* after a failure, who knows how much */
    virtqueue_push(element->queue, element, status == S_OK ? data + 1 : 1);
    virtqueue_notify_later(element->queue);
}

/* ---- requests to the volume ---- */

static struct request *request_new(struct blk *blk, struct virtqueue_element *element)
{
    struct request *request = blk->free;
    if (request)
        blk->free = request->next;
    else
        request = calloc(1, sizeof *request);
    if (!request)
        return NULL;
    request->block = (struct block_request){0};
    request->blk = blk;
    request->element = element;
    return request;
}

static void request_free(struct request *request)
{
    request->next = request->blk->free;
    request->blk->free = request;
}

static uint8_t status_of(int status)
{
    return status == 0 ? S_OK : status == -EOPNOTSUPP ? S_UNSUPP : S_IOERR;
}

static void transferred(struct block_request *block, int status)
{
    struct request *request = (struct request *)block;
    struct virtqueue_element *element = request->element;
    uint64_t length = block->length;
    bool read = block->op == BLOCK_READ;
    request_free(request);
    if (read) {
        element->iov[element->readable + element->writable - 1].iov_len++; /* the status byte's again */
        answer(element, status_of(status), length);
    } else {
        answer(element, status_of(status), 0);
    }
}

/* Reads into, or writes from, all that is left of the pieces: the header is cut off the first, the status byte off the last. */
static void transfer(struct blk *blk, struct virtqueue_element *element, const struct header *header)
{
    bool read = header->type == T_IN;
    struct virtio_cursor data = virtqueue_readable(element);
    virtio_cursor_skip(&data, sizeof *header);
    if (!read && data.offset) { /* header and data share a piece, of which this copy is ours */
        struct iovec *piece = &element->iov[data.iov - element->iov];
        piece->iov_base = (uint8_t *)piece->iov_base + data.offset;
        piece->iov_len -= data.offset;
    }
    if (read)
        data = virtqueue_writable(element);
    uint64_t length = read ? data.left - 1 : data.left;
    struct request *request = NULL;
    if (length && length % SECTOR == 0 && range_within(header->sector, length / SECTOR, blk->block->limits.size / SECTOR))
        request = request_new(blk, element);
    if (!request) {
        answer(element, S_IOERR, 0);
        return;
    }
    unsigned pieces = data.count;
    if (read && --element->iov[element->readable + element->writable - 1].iov_len == 0)
        pieces--;
    request->block = (struct block_request){.op = read ? BLOCK_READ : BLOCK_WRITE, .offset = header->sector * SECTOR,
        .length = length, .iov = data.iov, .iov_count = pieces, .complete = transferred,
        .flags = !read && blk->write_through ? BLOCK_FUA : 0};
    block_submit(blk->block, &request->block);
}

static void flush(struct blk *blk, struct virtqueue_element *element)
{
    struct request *request = request_new(blk, element);
    if (!request) {
        answer(element, S_IOERR, 0);
        return;
    }
    request->block = (struct block_request){.op = BLOCK_FLUSH, .complete = transferred};
    block_submit(blk->block, &request->block);
}

/* ---- discard and write-zeroes ---- */

static void range_done(struct block_request *block, int status);

static void submit_range(struct request *request, enum block_op op)
{
    const struct range *range = &request->list[request->range];
    struct blk *blk = request->blk;
    request->block = (struct block_request){.op = op, .offset = range->sector * SECTOR,
        .length = (uint64_t)range->sectors * SECTOR, .complete = range_done,
        .flags = (op == BLOCK_WRITE_ZEROES && (range->flags & RANGE_UNMAP) ? BLOCK_UNMAP : 0) |
                 (op == BLOCK_WRITE_ZEROES && blk->write_through ? BLOCK_FUA : 0)};
    block_submit(blk->block, &request->block);
}

static void range_done(struct block_request *block, int status)
{
    struct request *request = (struct request *)block;
    if (status == 0 && ++request->range < request->ranges) {
        struct blk *blk = request->blk;
        submit_range(request, block->op);
        block_kick(blk->block);
        return;
    }
    struct virtqueue_element *element = request->element;
    request_free(request);
    answer(element, status_of(status), 0);
}

/* 5.2.6.2: a discard has no flags, and no unknown flag is accepted. */
static uint8_t check_range(const struct blk *blk, const struct range *range, bool discard)
{
    if (range->flags & ~(discard ? 0u : RANGE_UNMAP))
        return S_UNSUPP;
    if (range->sectors == 0 || range->sectors > RANGE_SECTORS_MAX ||
        !range_within(range->sector, range->sectors, blk->block->limits.size / SECTOR))
        return S_IOERR;
    return S_OK;
}

static void ranges(struct blk *blk, struct virtqueue_element *element, bool discard)
{
    struct virtio_cursor in = virtqueue_readable(element);
    virtio_cursor_skip(&in, sizeof(struct header));
    uint64_t count = in.left / sizeof(struct range);
    struct request *request = NULL;
    uint8_t status = blk->block->limits.readonly || count == 0 || count > RANGES || in.left % sizeof(struct range) ? S_IOERR : S_OK;
    if (status == S_OK && !(request = request_new(blk, element)))
        status = S_IOERR;
    for (unsigned i = 0; status == S_OK && i < count; i++) {
        virtio_cursor_get(&in, &request->list[i], sizeof request->list[i]);
        status = check_range(blk, &request->list[i], discard);
    }
    if (status != S_OK) {
        if (request)
            request_free(request);
        answer(element, status, 0);
        return;
    }
    request->ranges = (unsigned)count;
    request->range = 0;
    submit_range(request, discard ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES);
}

static void get_id(struct blk *blk, struct virtqueue_element *element)
{
    struct virtio_cursor out = virtqueue_writable(element);
    size_t length = out.left - 1 < VIRTIO_BLK_SERIAL ? (size_t)out.left - 1 : VIRTIO_BLK_SERIAL;
    virtio_cursor_put(&out, blk->serial, length);
    answer(element, S_OK, length);
}

/* ---- queues ---- */

static void begin(struct blk *blk, struct virtqueue_element *element)
{
    struct header header;
    struct virtio_cursor in = virtqueue_readable(element);
    if (virtio_cursor_get(&in, &header, sizeof header) < sizeof header || element->writable_bytes == 0) {
        struct virtqueue *queue = element->queue;
        virtqueue_break(queue, "a request has no header, or no room for its status");
        virtqueue_drop(queue, element);
        return;
    }
    switch (header.type) {
    case T_IN:
    case T_OUT: transfer(blk, element, &header); break;
    case T_FLUSH: flush(blk, element); break;
    case T_GET_ID: get_id(blk, element); break;
    case T_DISCARD:
    case T_WRITE_ZEROES: ranges(blk, element, header.type == T_DISCARD); break;
    default: answer(element, S_UNSUPP, 0); break;
    }
}

static void process(struct virtio_device *device, struct virtqueue *queue)
{
    struct blk *blk = (struct blk *)device;
    struct virtqueue_element *element;
    while ((element = virtqueue_pop(queue)))
        begin(blk, element);
    block_kick(blk->block);
}

/* A driver that does not know of the flush command must find its writes durable (5.2.6.2). */
static void start(struct virtio_device *device)
{
    struct blk *blk = (struct blk *)device;
    blk->write_through = !virtio_has(device, F_FLUSH);
    block_hurry(blk->block, false);
}

/* What is in flight is waited for, a reset or a pause long, and nothing new comes: no bound on its rate need hold it up. */
static void hurry(struct virtio_device *device)
{
    block_hurry(((struct blk *)device)->block, true);
}

static void resume(struct virtio_device *device)
{
    block_hurry(((struct blk *)device)->block, false);
}

void virtio_blk_resized(struct virtio_device *device)
{
    struct blk *blk = (struct blk *)device;
    uint64_t capacity = blk->block->limits.size / SECTOR;
    virtio_config_set(device, offsetof(struct blk_config, capacity), &capacity, sizeof capacity);
}

/* ---- life ---- */

/* The configuration is loaded already; it must tell of this volume. */
static void load(struct virtio_device *device, struct stream *stream)
{
    const struct blk *blk = (const struct blk *)device;
    struct blk_config config;
    memcpy(&config, device->config, sizeof config);
    if (config.capacity != blk->block->limits.size / SECTOR || config.blk_size != blk->block->limits.sector_size)
        stream_fail(stream, "virtio-blk: the saved disk has %llu sectors, this one has %llu", (unsigned long long)config.capacity,
                    (unsigned long long)(blk->block->limits.size / SECTOR));
}

static void destroy(struct virtio_device *device)
{
    struct blk *blk = (struct blk *)device;
    virtio_device_finish(device);
    while (blk->free) {
        struct request *request = blk->free;
        blk->free = request->next;
        free(request);
    }
    free(blk);
}

static const struct virtio_ops ops = {.name = "virtio-blk", .id = 2, .class_code = 0x010000, .start = start,
                                      .process = process, .stop = hurry, .pause = hurry, .resume = resume, .load = load, .destroy = destroy};

/* What the volume is like, in the terms of 5.2.4. Segments: a queue's size less header and status. */
static void describe(const struct block_limits *limits, unsigned queues, struct blk_config *ret_config)
{
    uint32_t alignment = (uint32_t)(limits->discard_granularity / SECTOR), optimal = limits->optimal_size / limits->sector_size;
    uint32_t segments = QUEUE_SIZE - 2, sector = limits->sector_size;
    unsigned physical = limits->physical_size > sector ? (unsigned)__builtin_ctz(limits->physical_size / sector) : 0;
    if (limits->max_iov && limits->max_iov < segments)
        segments = limits->max_iov;
    *ret_config = (struct blk_config){
        .capacity = limits->size / SECTOR, .seg_max = segments, .blk_size = sector,
        .physical_block_exp = (uint8_t)physical, .min_io_size = (uint16_t)(1u << physical), .opt_io_size = optimal > 1 ? optimal : 0, .num_queues = (uint16_t)queues, .max_discard_sectors = RANGE_SECTORS_MAX,
        .max_discard_seg = RANGES, .discard_sector_alignment = alignment ? alignment : 1,
        .max_write_zeroes_sectors = RANGE_SECTORS_MAX, .max_write_zeroes_seg = RANGES,
        .write_zeroes_may_unmap = limits->can_discard};
}

static uint64_t features(const struct block_limits *limits)
{
    uint64_t bits = VIRTIO_BIT(F_SEG_MAX) | VIRTIO_BIT(F_BLK_SIZE) | VIRTIO_BIT(F_FLUSH) | VIRTIO_BIT(F_TOPOLOGY) | VIRTIO_BIT(F_MQ);
    if (limits->readonly)
        return bits | VIRTIO_BIT(F_RO);
    return bits | VIRTIO_BIT(F_WRITE_ZEROES) | (limits->can_discard ? VIRTIO_BIT(F_DISCARD) : 0);
}

struct virtio_device *virtio_blk_new(const struct virtio_env *env, const struct virtio_blk_config *config, struct error *error)
{
    struct blk_config space;
    if (config->queues < 1 || config->queues > VIRTIO_BLK_QUEUES_MAX) {
        error_set(error, EINVAL, "%u queues: a disk has 1 to %u", config->queues, VIRTIO_BLK_QUEUES_MAX);
        return NULL;
    }
    if (config->serial && strlen(config->serial) > VIRTIO_BLK_SERIAL) {
        error_set(error, EINVAL, "a disk's serial number has at most %u bytes", VIRTIO_BLK_SERIAL);
        return NULL;
    }
    struct blk *blk = calloc(1, sizeof *blk);
    if (!blk) {
        error_set(error, ENOMEM, "virtio-blk: no memory");
        return NULL;
    }
    blk->block = config->block;
    if (config->serial)
        memcpy(blk->serial, config->serial, strlen(config->serial));
    describe(&config->block->limits, config->queues, &space);
    int status = virtio_device_init(&blk->virtio, &ops, env, features(&config->block->limits), &space, sizeof space, error);
    for (unsigned i = 0; status == 0 && i < config->queues; i++)
        if (!virtio_queue_add(&blk->virtio, QUEUE_SIZE))
            status = error_set(error, ENOMEM, "virtio-blk: no memory");
    if (status < 0) {
        destroy(&blk->virtio);
        return NULL;
    }
    return &blk->virtio;
}
