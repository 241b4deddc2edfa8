/* qcow2.c - opening, closing, resizing an image, and its block_ops. */
#include "block/qcow2.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2_private.h"

#define MOST_BACKING 64

static struct qcow2 *qcow2_of(struct block *block)
{
    return (struct qcow2 *)((char *)block - offsetof(struct qcow2, block));
}

static void qcow2_submit(struct block *block, struct block_request *request)
{
    struct qcow2 *q = qcow2_of(block);
    request->next = NULL;
    *q->last = request;
    q->last = &request->next;
}

static void qcow2_kick(struct block *block)
{
    struct qcow2 *q = qcow2_of(block);
    if (q->kicking)
        return;
    q->kicking = true;
    while (q->first || q->below_unkicked) {
        while (q->first) {
            struct block_request *request = q->first;
            q->first = request->next;
            if (!q->first)
                q->last = &q->first;
            qcow2_start(q, request);
        }
        if (q->below_unkicked) {
            q->below_unkicked = false;
            block_kick(q->file);
            if (q->backing)
                block_kick(q->backing);
        }
    }
    q->kicking = false;
}

struct transfer {
    struct block_request request;
    int status;
};

static void transferred(struct block_request *request, int status)
{
    ((struct transfer *)request)->status = status;
}

static int qcow2_transfer(struct block *block, enum block_op op, unsigned flags, uint64_t offset, void *bytes, uint64_t length)
{
    struct qcow2 *q = qcow2_of(block);
    if (q->stage != WB_IDLE || q->epoch_ops[0] + q->epoch_ops[1] || q->allocating || q->waiting)
        return -EBUSY; /* requests are under way */
    struct iovec iov = {bytes, length};
    bool buffers = op == BLOCK_READ || op == BLOCK_WRITE;
    struct transfer transfer = {.request = {.op = op, .flags = flags, .offset = offset, .length = length, .iov = &iov,
                                            .iov_count = buffers ? 1 : 0, .complete = transferred}, .status = 1};
    q->blocking = true;
    qcow2_start_own(q, &transfer.request);
    q->blocking = false;
    assert(transfer.status <= 0);
    return transfer.status;
}

static int qcow2_extent(struct block *block, uint64_t offset, uint64_t length, struct block_extent *ret_extent)
{
    struct qcow2 *q = qcow2_of(block);
    struct map map;
    int status = qcow2_map(q, offset, length, &map);
    if (status < 0)
        return status;
    bool data = map.kind == MAP_DATA || map.kind == MAP_COMPRESSED;
    *ret_extent = (struct block_extent){.length = map.length, .data = data, .allocated = map.kind != MAP_NONE};
    if (map.kind != MAP_NONE || !q->backing || offset >= q->backing->limits.size)
        return 0;
    uint64_t end = q->backing->limits.size - offset;
    status = block_extent(q->backing, offset, map.length < end ? map.length : end, ret_extent);
    ret_extent->allocated = false;
    return status;
}

/* Header fields, in the first sector, which the disk writes whole. */
static int write_header(struct qcow2 *q, uint64_t size, uint64_t autoclear)
{
    uint8_t sector[4096];
    uint32_t length = q->file->limits.sector_size;
    int status = file_read(q, 0, sector, length);
    if (status < 0)
        return status;
    qcow2_put64(sector + QCOW2_AT_SIZE, size);
    qcow2_put32(sector + QCOW2_AT_L1_SIZE, q->l1.count);
    qcow2_put64(sector + QCOW2_AT_L1_OFFSET, q->l1.offset);
    if (q->version >= 3)
        qcow2_put64(sector + QCOW2_AT_AUTOCLEAR, autoclear);
    return file_write(q, 0, sector, length);
}

/* A longer L1 table elsewhere; the header is not written yet. */
static int move_l1(struct qcow2 *q, uint64_t count, struct top_table *ret_old)
{
    uint64_t clusters = (count * 8 + q->cluster_size - 1) >> q->cluster_bits, offset;
    uint64_t *entries = calloc(count, sizeof *entries);
    int status = entries ? qcow2_sync(q) : -ENOMEM;
    if (status == 0)
        status = refcount_take_run(q, clusters, &offset);
    if (status < 0) {
        free(entries);
        return status;
    }
    if (q->l1.count)
        memcpy(entries, q->l1.entries, 8ull * q->l1.count);
    *ret_old = q->l1;
    q->l1 = (struct top_table){.entries = entries, .count = (uint32_t)count, .offset = offset};
    top_mark(&q->l1, 0, (uint32_t)count);
    return qcow2_sync(q); /* the new table and its refcounts, before the header names it */
}

/* What the backing file holds beyond the old end must not appear. */
static int hide_backing(struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint64_t end = q->backing ? q->backing->limits.size : 0;
    if (end > to)
        end = to;
    return from < end ? block_transfer(&q->block, BLOCK_WRITE_ZEROES, 0, from, NULL, end - from) : 0;
}

static int qcow2_resize(struct block *block, uint64_t size, struct error *error)
{
    struct qcow2 *q = qcow2_of(block);
    uint64_t entries = qcow2_l1_entries(size, q->cluster_bits), old_size = block->limits.size;
    if (size < old_size)
        return error_set(error, ENOTSUP, "%s: a qcow2 image cannot be made smaller", q->name);
    if (size > INT64_MAX - 4096 || entries > QCOW2_MAX_L1_BYTES / 8)
        return error_set(error, EFBIG, "%s: %llu bytes is too large for clusters of %llu bytes", q->name,
                         (unsigned long long)size, (unsigned long long)q->cluster_size);
    if (q->stage != WB_IDLE || q->allocating)
        return error_set(error, EBUSY, "%s: requests are under way", q->name);
    struct top_table old = {0};
    int status = entries > q->l1.count ? move_l1(q, entries, &old) : 0;
    block->limits.size = size;
    if (status == 0)
        status = hide_backing(q, old_size, size);
    if (status == 0)
        status = qcow2_sync(q);
    if (status == 0)
        status = write_header(q, size, 0);
    if (status == 0)
        status = block_transfer(q->file, BLOCK_FLUSH, 0, 0, NULL, 0);
    if (status < 0)
        block->limits.size = old_size;
    for (uint64_t at = 0; status == 0 && at < 8ull * old.count; at += q->cluster_size)
        refcount_drop(q, old.offset + at);
    free(old.entries);
    return status < 0 ? error_set(error, -status, "%s: changing its size: %s", q->name, strerror(-status)) : 0;
}

static int image_free(struct qcow2 *q)
{
    block_close(q->backing); /* nothing was written to it */
    int status = block_close(q->file);
    meta_free(q);
    free(q->l1.entries);
    free(q->reftable.entries);
    free(q->freed.offsets);
    free(q->freed_writing.offsets);
    free(q->freed_durable.offsets);
    free(q->freed_draining.offsets);
    free(q->unpacked);
    free(q->name);
    free(q);
    return status;
}

/* Metadata is handed to the host's kernel in an order that a crash of the host during the close would keep, too. For the same
 * reason a failure leaves the image sound, without what was not flushed; clusters may leak. */
static int qcow2_close(struct block *block)
{
    struct qcow2 *q = qcow2_of(block);
    int status = 0;
    if (!block->limits.readonly) {
        status = qcow2_is_dirty(q) || q->freed.count || q->freed_durable.count ? qcow2_sync(q) : 0;
        if (status == 0) /* refcounts that fell at the end of it: nothing else refers to them */
            status = meta_write(q, META_REFCOUNT);
        if (status == 0 && q->growable && q->file->limits.size > q->fresh_from)
            block_resize(q->file, q->fresh_from, NULL); /* otherwise it stays longer than it need be */
    }
    int closed = image_free(q);
    return status < 0 ? status : closed;
}

static const struct block_ops qcow2_ops = {
    .name = "qcow2", .submit = qcow2_submit, .kick = qcow2_kick, .transfer = qcow2_transfer, .extent = qcow2_extent,
    .resize = qcow2_resize, .close = qcow2_close};

static int read_top(struct qcow2 *q, struct top_table *table, uint64_t offset, uint64_t count)
{
    *table = (struct top_table){.offset = offset, .count = (uint32_t)count};
    uint32_t sector = q->file->limits.sector_size;
    size_t bytes = (size_t)((count * 8 + sector - 1) / sector * sector);
    table->entries = calloc(1, bytes ? bytes : 8);
    if (!table->entries)
        return -ENOMEM;
    int status = bytes ? file_read(q, offset, table->entries, bytes) : 0;
    for (uint64_t i = 0; i < count; i++)
        table->entries[i] = be64toh(table->entries[i]);
    return status;
}

static int read_header(struct qcow2 *q, struct qcow2_header *header, const struct block_options *options, struct error *error)
{
    uint64_t size = q->file->limits.size, length = 4096;
    uint8_t *bytes = malloc(1u << QCOW2_MAX_CLUSTER_BITS);
    int status = bytes ? 0 : -ENOMEM;
    if (status == 0)
        status = file_read(q, 0, bytes, length);
    if (status == 0) { /* the first cluster, however large it says to be */
        uint32_t bits = qcow2_get32(bytes + QCOW2_AT_CLUSTER_BITS);
        length = bits >= 12 && bits <= QCOW2_MAX_CLUSTER_BITS ? 1ull << bits : 4096;
        status = file_read(q, 0, bytes, length);
    }
    if (status < 0)
        error_set(error, -status, "%s: reading its header: %s", options->path, strerror(-status));
    else
        status = qcow2_parse(header, bytes, length < size ? length : size, size, options->path, error);
    free(bytes);
    if (status == 0 && !options->readonly && (header->incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT)))
        status = error_set(error, EUCLEAN, "%s is marked %s; `qemu-img check -r all` repairs it", options->path,
                           header->incompatible & QCOW2_CORRUPT ? "corrupt" : "in need of repair (its refcounts were not written)");
    return status;
}

static int open_backing(struct qcow2 *q, const struct qcow2_header *header, const struct block_options *options,
                        struct loop *loop, struct error *error)
{
    if (!header->backing[0])
        return 0;
    if (!header->backing_format[0])
        return error_set(error, EINVAL, "%s does not say which format its backing file %s has, and that is not guessed; "
                         "`qemu-img rebase -u -F FORMAT` records it", options->path, header->backing);
    if (options->depth >= MOST_BACKING)
        return error_set(error, ELOOP, "%s: its chain of backing files does not end, or has more than %d", options->path, MOST_BACKING);
    char *path = qcow2_backing_path(options->path, header->backing);
    if (!path)
        return error_set(error, ENOMEM, "opening %s: no memory", options->path);
    struct block_options below = {.path = path, .format = header->backing_format, .readonly = true, .direct = options->direct,
                                  .unlocked = options->unlocked, .depth = options->depth + 1};
    int status = block_open(&below, loop, &q->backing, error);
    if (status < 0 && !options->depth)
        error_prefix(error, "the backing file of %s", options->path);
    free(path);
    return status;
}

static void set_limits(struct qcow2 *q, const struct qcow2_header *header, const struct block_options *options)
{
    const struct block_limits *below = &q->file->limits;
    struct block_limits *limits = &q->block.limits;
    *limits = (struct block_limits){
        .sector_size = below->sector_size,
        .physical_size = below->physical_size,
        .optimal_size = below->optimal_size,
        .max_iov = below->max_iov - 2, /* what is around the bytes of a first write */
        .max_transfer = 256u << 20,
        .discard_granularity = q->cluster_size,
        .readonly = options->readonly,
        .growable = true,
        .can_discard = true,
    };
    if (q->backing && q->backing->limits.sector_size > limits->sector_size)
        limits->sector_size = q->backing->limits.sector_size;
    if (limits->physical_size < limits->sector_size)
        limits->physical_size = limits->sector_size;
    limits->size = header->size & ~(uint64_t)(limits->sector_size - 1);
}

static int open_image(struct qcow2 *q, const struct block_options *options, struct loop *loop, struct error *error)
{
    struct qcow2_header header;
    int status = read_header(q, &header, options, error);
    if (status < 0)
        return status;
    q->version = header.version;
    q->cluster_bits = header.cluster_bits;
    q->cluster_size = 1ull << header.cluster_bits;
    q->refcount_order = header.refcount_order;
    q->compression = header.compression;
    q->reftable_clusters = header.reftable_clusters;
    q->meta.page_size = q->cluster_size < 4096 ? (size_t)q->cluster_size : 4096;
    q->growable = q->file->limits.growable;
    q->fresh_from = q->growable ? (q->file->limits.size + q->cluster_size - 1) & ~(q->cluster_size - 1) : UINT64_MAX;
    if (q->file->limits.physical_size > q->cluster_size)
        return error_set(error, ENOTSUP, "%s: clusters of %llu bytes, where what is written at once has %u", options->path,
                         (unsigned long long)q->cluster_size, q->file->limits.physical_size);
    status = read_top(q, &q->l1, header.l1_offset, header.l1_size);
    if (status == 0)
        status = read_top(q, &q->reftable, header.reftable_offset, header.reftable_clusters * (q->cluster_size / 8));
    if (status < 0)
        return error_set(error, -status, "%s: reading its tables: %s", options->path, strerror(-status));
    status = open_backing(q, &header, options, loop, error);
    if (status < 0)
        return status;
    set_limits(q, &header, options);
    if (!options->readonly && header.autoclear) {
        status = write_header(q, header.size, 0); /* what these features promise is not kept from here on */
        if (status < 0)
            return error_set(error, -status, "%s: writing its header: %s", options->path, strerror(-status));
    }
    return 0;
}

int qcow2_open(const struct block_options *options, struct block *file, struct loop *loop, struct block **ret_block,
               struct error *error)
{
    struct qcow2 *q = calloc(1, sizeof *q);
    if (!q) {
        block_close(file);
        return error_set(error, ENOMEM, "opening %s: no memory", options->path);
    }
    q->block.ops = &qcow2_ops;
    q->file = file;
    q->last = &q->first;
    q->flush_last = &q->flush_first;
    q->name = strdup(options->path);
    int status = q->name ? open_image(q, options, loop, error) : error_set(error, ENOMEM, "opening %s: no memory", options->path);
    if (status < 0) {
        image_free(q);
        return status;
    }
    *ret_block = &q->block;
    return 0;
}
