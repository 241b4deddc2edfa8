/* qcow2_cache.c - metadata pages in memory, and blocking I/O to the file. */
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "block/qcow2_private.h"

#define CLEAN_PAGES 1024 /* kept at most, 4 MiB: L2 entries for 32 GiB of 64 KiB clusters */
#define GROW_BY (8u << 20) /* the file, and an eighth of that while it is small */

int file_reach(struct qcow2 *q, uint64_t end)
{
    uint64_t size = q->file->limits.size;
    if (end <= size)
        return 0;
    if (!q->growable)
        return -ENOSPC;
    if (end > INT64_MAX - GROW_BY)
        return -EFBIG;
    /* In steps, since each is a system call; the close cuts the rest off. */
    uint64_t step = end < 8ull * GROW_BY ? GROW_BY / 8 : GROW_BY;
    return block_resize(q->file, (end + step - 1) / step * step, NULL);
}

int file_read(struct qcow2 *q, uint64_t offset, void *bytes, uint64_t length)
{
    uint64_t size = q->file->limits.size, there = offset < size ? size - offset : 0;
    if (there > length)
        there = length;
    memset((uint8_t *)bytes + there, 0, length - there);
    return there ? block_transfer(q->file, BLOCK_READ, 0, offset, bytes, there) : 0;
}

int file_write(struct qcow2 *q, uint64_t offset, const void *bytes, uint64_t length)
{
    union { const void *given; void *taken; } same = {bytes}; /* a write does not change them */
    int status = file_reach(q, offset + length);
    if (offset + length > q->fresh_from)
        q->fresh_from = (offset + length + q->cluster_size - 1) & ~(q->cluster_size - 1);
    return status < 0 ? status : block_transfer(q->file, BLOCK_WRITE, 0, offset, same.taken, length);
}

static void lru_remove(struct meta *meta, struct meta_page *page)
{
    *(page->newer ? &page->newer->older : &meta->newest) = page->older;
    *(page->older ? &page->older->newer : &meta->oldest) = page->newer;
}

static void lru_add(struct meta *meta, struct meta_page *page)
{
    page->newer = NULL;
    page->older = meta->newest;
    *(meta->newest ? &meta->newest->newer : &meta->oldest) = page;
    meta->newest = page;
}

static struct meta_page **slot_of(struct meta *meta, uint64_t offset)
{
    uint64_t number = offset / meta->page_size;
    return &meta->hash[(number ^ number >> 10) % META_HASH];
}

static void evict(struct meta *meta, struct meta_page *page)
{
    struct meta_page **link = slot_of(meta, page->offset);
    while (*link != page)
        link = &(*link)->hash_next;
    *link = page->hash_next;
    lru_remove(meta, page);
    meta->count--;
    free(page);
}

/* Room for one more: the oldest clean page goes. Dirty ones stay, however many: a writeback is asked for before they are
 * too many (qcow2_io.c). */
static void make_room(struct meta *meta)
{
    if (meta->count - meta->dirty < CLEAN_PAGES)
        return;
    for (struct meta_page *page = meta->oldest; page; page = page->newer)
        if (!page->dirty) {
            evict(meta, page);
            return;
        }
}

struct meta_page *meta_find(struct qcow2 *q, enum meta_class class, uint64_t offset)
{
    struct meta_page *page = *slot_of(&q->meta, offset);
    while (page && (page->offset != offset || page->class != class))
        page = page->hash_next;
    return page;
}

void meta_insert(struct qcow2 *q, struct meta_page *page)
{
    struct meta *meta = &q->meta;
    make_room(meta);
    struct meta_page **slot = slot_of(meta, page->offset);
    page->hash_next = *slot;
    *slot = page;
    lru_add(meta, page);
    meta->count++;
}

int meta_get(struct qcow2 *q, enum meta_class class, uint64_t offset, struct meta_page **ret_page)
{
    struct meta *meta = &q->meta;
    offset &= ~(uint64_t)(meta->page_size - 1);
    struct meta_page *page = meta_find(q, class, offset);
    if (page) {
        if (page != meta->newest) {
            lru_remove(meta, page);
            lru_add(meta, page);
        }
        *ret_page = page;
        return 0;
    }
    page = malloc(sizeof *page + meta->page_size);
    if (!page)
        return -ENOMEM;
    *page = (struct meta_page){.offset = offset, .class = class};
    int status = file_read(q, offset, page->bytes, meta->page_size);
    if (status < 0) {
        free(page);
        return status;
    }
    meta_make_stale(q, offset);
    meta_insert(q, page);
    *ret_page = page;
    return 0;
}

void meta_mark(struct qcow2 *q, struct meta_page *page)
{
    q->meta.dirty += !page->dirty;
    page->dirty = true;
}

int meta_write(struct qcow2 *q, enum meta_class class)
{
    for (struct meta_page *page = q->meta.oldest; page && q->meta.dirty; page = page->newer) {
        if (!page->dirty || page->class != class)
            continue;
        int status = file_write(q, page->offset, page->bytes, q->meta.page_size);
        if (status < 0)
            return status;
        page->dirty = false;
        q->meta.dirty--;
    }
    return 0;
}

void meta_free(struct qcow2 *q)
{
    for (struct meta_page *page = q->meta.oldest, *next; page; page = next) {
        next = page->newer;
        free(page);
    }
}

void top_mark(struct top_table *table, uint32_t from, uint32_t to)
{
    bool clean = table->dirty_from >= table->dirty_to;
    if (clean || from < table->dirty_from)
        table->dirty_from = from;
    if (clean || to > table->dirty_to)
        table->dirty_to = to;
}

/* In whole sectors, each of which the disk writes whole or not at all. */
int top_write(struct qcow2 *q, struct top_table *table)
{
    if (table->dirty_from >= table->dirty_to)
        return 0;
    uint32_t per_sector = q->file->limits.sector_size / 8;
    uint8_t sector[4096];
    for (uint32_t at = table->dirty_from / per_sector * per_sector; at < table->dirty_to; at += per_sector) {
        for (uint32_t i = 0; i < per_sector; i++)
            qcow2_put64(sector + 8 * i, at + i < table->count ? table->entries[at + i] : 0);
        int status = file_write(q, table->offset + 8ull * at, sector, 8ull * per_sector);
        if (status < 0)
            return status;
    }
    table->dirty_from = table->dirty_to = 0;
    return 0;
}
