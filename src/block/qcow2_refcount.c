/* qcow2_refcount.c - which clusters are used; "Host cluster management" of the specification. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_private.h"

static unsigned block_bits(const struct qcow2 *q)
{
    return q->cluster_bits + 3 - q->refcount_order; /* refcounts in one refcount block, as a power of two */
}

/* Entries narrower than a byte start at its low end; wider ones are big-endian. */
static uint64_t read_count(const uint8_t *bytes, uint64_t index, unsigned order)
{
    if (order < 3) {
        unsigned width = 1u << order, shift = (unsigned)(index << order & 7);
        return bytes[index << order >> 3] >> shift & ((1u << width) - 1);
    }
    uint64_t value = 0;
    size_t size = (size_t)1 << (order - 3);
    for (size_t i = 0; i < size; i++)
        value = value << 8 | bytes[index * size + i];
    return value;
}

static void write_count(uint8_t *bytes, uint64_t index, unsigned order, uint64_t value)
{
    if (order < 3) {
        unsigned width = 1u << order, shift = (unsigned)(index << order & 7);
        uint8_t mask = (uint8_t)(((1u << width) - 1) << shift);
        uint8_t *byte = &bytes[index << order >> 3];
        *byte = (uint8_t)((*byte & ~mask) | (value << shift & mask));
        return;
    }
    size_t size = (size_t)1 << (order - 3);
    for (size_t i = size; i-- > 0; value >>= 8)
        bytes[index * size + i] = (uint8_t)value;
}

bool qcow2_reserved(const struct qcow2 *q, uint64_t offset, uint64_t length)
{
    uint64_t end = offset + length;
    uint64_t l1_end = q->l1.offset + 8ull * q->l1.count, table_end = q->reftable.offset + 8ull * q->reftable.count;
    return offset < q->cluster_size || (offset < l1_end && q->l1.offset < end) ||
           (offset < table_end && q->reftable.offset < end);
}

/* The page with the refcount of a cluster and the refcount's place in it. *ret_page is NULL where there is no refcount
 * block: all of its clusters are free. */
static int find(struct qcow2 *q, uint64_t cluster, struct meta_page **ret_page, uint64_t *ret_index)
{
    uint64_t number = cluster >> block_bits(q);
    *ret_page = NULL;
    *ret_index = 0;
    if (number >= q->reftable.count || !q->reftable.entries[number])
        return 0;
    uint64_t block = q->reftable.entries[number] & ~511ull;
    if ((block & (q->cluster_size - 1)) || block >= q->file->limits.size || qcow2_reserved(q, block, q->cluster_size))
        return -EIO; /* no image is so */
    uint64_t bit = (cluster & ((1ull << block_bits(q)) - 1)) << q->refcount_order;
    int status = meta_get(q, META_REFCOUNT, block + (bit >> 3), ret_page);
    *ret_index = (bit & (q->meta.page_size * 8 - 1)) >> q->refcount_order;
    return status;
}

int refcount_get(struct qcow2 *q, uint64_t offset, uint64_t *ret_count)
{
    struct meta_page *page;
    uint64_t index;
    int status = find(q, offset >> q->cluster_bits, &page, &index);
    if (status == 0)
        *ret_count = page ? read_count(page->bytes, index, q->refcount_order) : 0;
    return status;
}

int refcount_drop(struct qcow2 *q, uint64_t offset)
{
    struct meta_page *page;
    uint64_t index;
    int status = find(q, offset >> q->cluster_bits, &page, &index);
    if (status < 0)
        return status;
    uint64_t count = page ? read_count(page->bytes, index, q->refcount_order) : 0;
    if (!count)
        return -EIO; /* an image whose counts are too low */
    write_count(page->bytes, index, q->refcount_order, count - 1);
    meta_mark(q, page);
    if (count == 1 && offset >> q->cluster_bits < q->free_hint)
        q->free_hint = offset >> q->cluster_bits;
    return 0;
}

static int clear_cluster(struct qcow2 *q, uint64_t offset)
{
    void *zeroes = calloc(1, q->cluster_size);
    int status = zeroes ? file_write(q, offset, zeroes, q->cluster_size) : -ENOMEM;
    free(zeroes);
    return status;
}

/* A larger refcount table, with the refcount blocks that count it, lies where the old one's reach ends. Blocking, in the
 * order that keeps the invariants; rare: a table of one 64 KiB cluster reaches 16 TiB. */
static int grow_table(struct qcow2 *q)
{
    unsigned bits = block_bits(q);
    uint64_t per_cluster = q->cluster_size / 8, old_clusters = q->reftable_clusters;
    uint64_t clusters = old_clusters * 2, first = (uint64_t)q->reftable.count << bits;
    uint64_t blocks = 1;
    while (blocks << bits < blocks + clusters)
        blocks++;
    if (clusters * q->cluster_size > QCOW2_MAX_REFTABLE_BYTES || first > QCOW2_OFFSET_MASK >> q->cluster_bits)
        return -ENOSPC;
    uint64_t at = first << q->cluster_bits, old_offset = q->reftable.offset;
    uint64_t *entries = calloc(clusters * per_cluster, 8);
    uint8_t *counts = calloc(blocks, q->cluster_size), *raw = malloc(clusters * q->cluster_size);
    int status = entries && counts && raw ? 0 : -ENOMEM;
    if (status == 0) {
        memcpy(entries, q->reftable.entries, 8ull * q->reftable.count);
        for (uint64_t i = 0; i < blocks; i++)
            entries[q->reftable.count + i] = at + i * q->cluster_size;
        for (uint64_t i = 0; i < blocks + clusters; i++) /* blocks follow each other, so do their counts */
            write_count(counts, i, q->refcount_order, 1);
        for (uint64_t i = 0; i < clusters * per_cluster; i++)
            qcow2_put64(raw + 8 * i, entries[i]);
        status = meta_write(q, META_REFCOUNT);
    }
    if (status == 0)
        status = file_write(q, at, counts, blocks * q->cluster_size);
    at += blocks * q->cluster_size;
    if (status == 0)
        status = file_write(q, at, raw, clusters * q->cluster_size);
    if (status == 0)
        status = block_transfer(q->file, BLOCK_FLUSH, 0, 0, NULL, 0);
    uint8_t sector[4096];
    uint32_t sector_size = q->file->limits.sector_size;
    if (status == 0)
        status = file_read(q, 0, sector, sector_size);
    if (status == 0) {
        qcow2_put64(sector + QCOW2_AT_REFTABLE_OFFSET, at);
        qcow2_put32(sector + QCOW2_AT_REFTABLE_CLUSTERS, (uint32_t)clusters);
        status = file_write(q, 0, sector, sector_size);
    }
    if (status == 0)
        status = block_transfer(q->file, BLOCK_FLUSH, 0, 0, NULL, 0);
    free(counts);
    free(raw);
    if (status < 0) {
        free(entries);
        return status;
    }
    free(q->reftable.entries);
    q->reftable = (struct top_table){.entries = entries, .count = (uint32_t)(clusters * per_cluster), .offset = at};
    q->reftable_clusters = (uint32_t)clusters;
    for (uint64_t i = 0; i < old_clusters && status == 0; i++)
        status = refcount_drop(q, old_offset + i * q->cluster_size);
    return status;
}

/* A refcount block for clusters that have none: it is the first of them, and counts itself. */
static int add_block(struct qcow2 *q, uint64_t number)
{
    uint64_t first = number << block_bits(q), last = first + (1ull << block_bits(q));
    while (first < last && qcow2_reserved(q, first << q->cluster_bits, q->cluster_size))
        first++;
    if (first == last || first > QCOW2_OFFSET_MASK >> q->cluster_bits)
        return -ENOSPC;
    uint64_t offset = first << q->cluster_bits, index;
    int status = clear_cluster(q, offset);
    if (status < 0)
        return status;
    struct meta_page *page;
    q->reftable.entries[number] = offset;
    status = find(q, first, &page, &index);
    if (status < 0) {
        q->reftable.entries[number] = 0;
        return status;
    }
    write_count(page->bytes, index, q->refcount_order, 1);
    meta_mark(q, page);
    top_mark(&q->reftable, (uint32_t)number, (uint32_t)number + 1);
    return 0;
}

static bool is_free(const struct qcow2 *q, const struct meta_page *page, uint64_t index, uint64_t cluster)
{
    return read_count(page->bytes, index, q->refcount_order) == 0 &&
           !qcow2_reserved(q, cluster << q->cluster_bits, q->cluster_size);
}

int refcount_take(struct qcow2 *q, uint64_t want, uint64_t *ret_offset, uint64_t *ret_count)
{
    for (uint64_t cluster = q->free_hint;;) {
        struct meta_page *page;
        uint64_t index, number = cluster >> block_bits(q);
        if (cluster > QCOW2_OFFSET_MASK >> q->cluster_bits)
            return -ENOSPC;
        int status = number >= q->reftable.count ? grow_table(q) : 0;
        if (status == 0)
            status = find(q, cluster, &page, &index);
        if (status == 0 && !page) {
            status = add_block(q, number);
            if (status == 0)
                continue;
        }
        if (status < 0)
            return status;
        uint64_t on_page = q->meta.page_size * 8 >> q->refcount_order;
        while (index < on_page && !is_free(q, page, index, cluster))
            index++, cluster++;
        uint64_t count = 0;
        while (count < want && index + count < on_page && is_free(q, page, index + count, cluster + count))
            count++;
        if (!count)
            continue;
        status = file_reach(q, (cluster + count) << q->cluster_bits);
        if (status < 0)
            return status;
        for (uint64_t i = 0; i < count; i++)
            write_count(page->bytes, index + i, q->refcount_order, 1);
        meta_mark(q, page);
        q->free_hint = cluster + count;
        *ret_offset = cluster << q->cluster_bits;
        *ret_count = count;
        return 0;
    }
}

/* A run longer than what one refcount block counts: in regions that have none yet, their blocks first. */
static int take_regions(struct qcow2 *q, uint64_t count, uint64_t *ret_offset)
{
    unsigned bits = block_bits(q);
    uint64_t number = q->reftable.count, blocks = 1;
    while (number && !q->reftable.entries[number - 1])
        number--;
    while (blocks << bits < blocks + count)
        blocks++;
    uint64_t first = number << bits;
    if (number + blocks > q->reftable.count) {
        int grown = grow_table(q); /* its own blocks lie where the old one's reach ended */
        return grown < 0 ? grown : take_regions(q, count, ret_offset);
    }
    int status = 0;
    for (uint64_t i = 0; i < blocks && status == 0; i++) {
        status = clear_cluster(q, (first + i) << q->cluster_bits);
        if (status == 0) {
            q->reftable.entries[number + i] = (first + i) << q->cluster_bits;
            top_mark(&q->reftable, (uint32_t)(number + i), (uint32_t)(number + i) + 1);
        }
    }
    for (uint64_t i = 0; i < blocks + count && status == 0; i++) {
        struct meta_page *page;
        uint64_t index;
        status = find(q, first + i, &page, &index);
        if (status == 0) {
            write_count(page->bytes, index, q->refcount_order, 1);
            meta_mark(q, page);
        }
    }
    *ret_offset = (first + blocks) << q->cluster_bits;
    return status;
}

int refcount_take_run(struct qcow2 *q, uint64_t count, uint64_t *ret_offset)
{
    uint64_t offset = 0, have = 0, hint = q->free_hint;
    if (count >= 1ull << (block_bits(q) - 1))
        return take_regions(q, count, ret_offset);
    while (have < count) {
        uint64_t next, got;
        int status = refcount_take(q, count - have, &next, &got);
        bool adjacent = have && next == offset + have * q->cluster_size;
        for (; have && (status < 0 || !adjacent); have--) /* too short a run: given back */
            refcount_drop(q, offset + (have - 1) * q->cluster_size);
        if (status < 0)
            return status;
        offset = have ? offset : next;
        have += got;
        q->free_hint = (offset >> q->cluster_bits) + have; /* beyond what was given back, too */
    }
    q->free_hint = hint;
    *ret_offset = offset;
    return 0;
}

int freed_add(struct qcow2 *q, uint64_t offset)
{
    struct freed *freed = &q->freed;
    if (freed->count == freed->room) {
        size_t room = freed->room ? 2 * freed->room : 64;
        uint64_t *offsets = realloc(freed->offsets, room * sizeof *offsets);
        if (!offsets)
            return -ENOMEM; /* the cluster leaks */
        freed->offsets = offsets;
        freed->room = room;
    }
    freed->offsets[freed->count++] = offset;
    return 0;
}

/* When there is no memory, they leak: a waste that an image check finds, nothing worse. */
void freed_move(struct freed *from, struct freed *to)
{
    if (!from->count)
        return;
    if (!to->count) {
        struct freed other = *to;
        *to = *from;
        *from = other;
        return;
    }
    uint64_t *offsets = realloc(to->offsets, (to->count + from->count) * sizeof *offsets);
    if (offsets) {
        memcpy(offsets + to->count, from->offsets, from->count * sizeof *offsets);
        to->offsets = offsets;
        to->count = to->room = to->count + from->count;
    }
    from->count = 0;
}

void freed_settle(struct qcow2 *q)
{
    for (;;) {
        if (!q->freed_draining.count) {
            if (!q->freed_durable.count)
                return;
            freed_move(&q->freed_durable, &q->freed_draining);
            q->epoch ^= 1; /* what starts now finds the new entries */
        }
        if (q->epoch_ops[q->epoch ^ 1])
            return;
        for (size_t i = 0; i < q->freed_draining.count; i++)
            refcount_drop(q, q->freed_draining.offsets[i]); /* a failure leaks it */
        q->freed_draining.count = 0;
    }
}
