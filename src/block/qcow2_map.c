/* qcow2_map.c - where a guest offset is in the file; "Cluster mapping" of the specification. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_private.h"

static unsigned l2_bits(const struct qcow2 *q)
{
    return q->cluster_bits - 3; /* entries of an L2 table, as a power of two */
}

/* The L2 table at which an L1 entry points, checked. */
static int l2_offset(const struct qcow2 *q, uint64_t l1_entry, uint64_t *ret_offset)
{
    uint64_t offset = l1_entry & QCOW2_OFFSET_MASK;
    if ((offset & (q->cluster_size - 1)) || offset >= q->file->limits.size ||
        (offset && qcow2_reserved(q, offset, q->cluster_size)))
        return -EIO;
    *ret_offset = offset;
    return 0;
}

static uint64_t in_table(const struct qcow2 *q, uint64_t offset)
{
    return (offset >> q->cluster_bits & ((1ull << l2_bits(q)) - 1)) * 8;
}

bool qcow2_map_waits(struct qcow2 *q, uint64_t offset, uint64_t *asked)
{
    uint64_t table = 0;
    int status = l2_offset(q, q->l1.entries[offset >> (q->cluster_bits + l2_bits(q))], &table);
    return status == 0 && table && meta_load(q, table + in_table(q, offset), asked);
}

/* The page with the entry of a guest offset, and the entry's index on it; NULL where there is no L2 table. */
static int find_entry(struct qcow2 *q, uint64_t offset, struct meta_page **ret_page, uint32_t *ret_index)
{
    uint64_t table = 0, l1_index = offset >> (q->cluster_bits + l2_bits(q));
    *ret_page = NULL;
    *ret_index = 0;
    int status = l2_offset(q, q->l1.entries[l1_index], &table);
    if (status < 0 || !table)
        return status;
    uint64_t at = in_table(q, offset);
    *ret_index = (uint32_t)(at & (q->meta.page_size - 1)) / 8;
    return meta_get(q, META_L2, table + at, ret_page);
}

static int decode(const struct qcow2 *q, uint64_t entry, struct map *map)
{
    *map = (struct map){.entry = entry};
    if (entry & QCOW2_COMPRESSED) {
        map->kind = MAP_COMPRESSED;
        return 0;
    }
    map->host = entry & QCOW2_OFFSET_MASK;
    map->owned = entry & QCOW2_COPIED;
    if ((map->host & (q->cluster_size - 1)) || (map->host && qcow2_reserved(q, map->host, q->cluster_size)))
        return -EIO;
    if (q->version >= 3 && (entry & QCOW2_ZERO))
        map->kind = MAP_ZERO;
    else
        map->kind = map->host ? MAP_DATA : MAP_NONE;
    return 0;
}

/* Whether cluster number i after the first continues its run. */
static bool continues(const struct map *first, const struct map *map, uint64_t i, uint64_t cluster_size)
{
    if (map->kind != first->kind || map->kind == MAP_COMPRESSED)
        return false;
    if (map->kind == MAP_DATA)
        return map->owned == first->owned && map->host == first->host + i * cluster_size;
    return !first->host && !map->host;
}

int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t length, struct map *ret_map)
{
    struct meta_page *page;
    uint32_t index;
    int status = find_entry(q, offset, &page, &index);
    if (status < 0)
        return status;
    uint64_t within = offset & (q->cluster_size - 1), run;
    struct map map = {.kind = MAP_NONE};
    if (!page) {
        uint64_t reach = 1ull << (q->cluster_bits + l2_bits(q));
        run = reach - (offset & (reach - 1));
    } else {
        status = decode(q, qcow2_get64(page->bytes + 8 * index), &map);
        if (status < 0)
            return status;
        uint64_t count = 1;
        for (struct map next; (index + count) * 8 < q->meta.page_size && count * q->cluster_size - within < length; count++)
            if (decode(q, qcow2_get64(page->bytes + 8 * (index + count)), &next) < 0 ||
                !continues(&map, &next, count, q->cluster_size))
                break;
        run = count * q->cluster_size - within;
        if (map.kind == MAP_DATA)
            map.host += within;
    }
    map.length = run < length ? run : length;
    *ret_map = map;
    return 0;
}

/* A new L2 table: empty, or a copy of one that a snapshot shares. In a copy no entry is this image's alone. */
static int new_l2(struct qcow2 *q, uint32_t index, uint64_t old)
{
    uint64_t offset, count;
    int status = refcount_take(q, 1, &offset, &count);
    if (status < 0)
        return status;
    uint8_t *bytes = calloc(1, q->cluster_size);
    status = bytes ? 0 : -ENOMEM;
    for (uint64_t at = 0; old && status == 0 && at < q->cluster_size; at += q->meta.page_size) {
        struct meta_page *page;
        status = meta_get(q, META_L2, old + at, &page);
        if (status == 0)
            memcpy(bytes + at, page->bytes, q->meta.page_size);
    }
    for (uint64_t at = 0; old && status == 0 && at < q->cluster_size; at += 8)
        qcow2_put64(bytes + at, qcow2_get64(bytes + at) & ~QCOW2_COPIED);
    if (status == 0)
        status = file_write(q, offset, bytes, q->cluster_size);
    free(bytes);
    if (status < 0) {
        refcount_drop(q, offset);
        return status;
    }
    q->l1.entries[index] = offset | QCOW2_COPIED;
    top_mark(&q->l1, index, index + 1);
    if (old)
        freed_add(q, old);
    return 0;
}

int qcow2_own_l2(struct qcow2 *q, uint64_t offset)
{
    uint32_t index = (uint32_t)(offset >> (q->cluster_bits + l2_bits(q)));
    uint64_t table, references, entry = q->l1.entries[index];
    int status = l2_offset(q, entry, &table);
    if (status < 0 || (table && (entry & QCOW2_COPIED)))
        return status;
    if (!table)
        return new_l2(q, index, 0);
    status = refcount_get(q, table, &references);
    if (status < 0)
        return status;
    if (references != 1)
        return new_l2(q, index, table);
    q->l1.entries[index] = entry | QCOW2_COPIED;
    top_mark(&q->l1, index, index + 1);
    return 0;
}

/* Frees what an entry refers to: a cluster, or the clusters in which a compressed one lies. */
static void free_entry(struct qcow2 *q, uint64_t entry)
{
    if (entry & QCOW2_COMPRESSED) {
        unsigned shift = 62 - (q->cluster_bits - 8);
        uint64_t start = entry & ((1ull << shift) - 1), sectors = entry >> shift & ((1ull << (62 - shift)) - 1);
        uint64_t last = (start & ~511ull) + sectors * 512;
        for (uint64_t at = start & ~(q->cluster_size - 1); at <= last; at += q->cluster_size)
            freed_add(q, at);
    } else if (entry & QCOW2_OFFSET_MASK) {
        freed_add(q, entry & QCOW2_OFFSET_MASK);
    }
}

int qcow2_set(struct qcow2 *q, uint64_t offset, uint64_t entry)
{
    struct meta_page *page;
    uint32_t index;
    int status = find_entry(q, offset, &page, &index);
    if (status < 0 || !page)
        return status < 0 ? status : -EIO;
    uint64_t old = qcow2_get64(page->bytes + 8 * index);
    qcow2_put64(page->bytes + 8 * index, entry);
    meta_mark(q, page);
    bool kept = !(old & QCOW2_COMPRESSED) && (old & QCOW2_OFFSET_MASK) == (entry & QCOW2_OFFSET_MASK);
    if (!kept)
        free_entry(q, old);
    return 0;
}
