/* qcow2_private.h - the parts of an open qcow2 image.
 *
 * Invariants, which hold on the disk at every moment, whatever write is the last that arrives:
 *  1. A cluster's refcount is at least the number of references to it (leaks are possible, nothing worse).
 *  2. What an L1 or L2 entry points to was written and made durable before the entry.
 *  3. A cluster is used again only after the entry that pointed to it is durably gone, and no request is at it.
 * Metadata changes in memory, in pages marked dirty and in copies of the two top tables, and is written by
 * qcow2_writeback.c in the order refcount blocks, refcount table, L2, L1, with a flush between. So a guest's flush costs
 * two or three of the host's, and a write that is not flushed costs no metadata write at all. */
#ifndef VENEER_BLOCK_QCOW2_PRIVATE_H
#define VENEER_BLOCK_QCOW2_PRIVATE_H

#include <stddef.h>

#include "block/block.h"
#include "block/qcow2_format.h"

enum meta_class { META_REFCOUNT, META_L2 };

/* A piece of a metadata cluster: a cluster, or 4 KiB of a larger one. */
struct meta_page {
    uint64_t offset; /* in the file */
    struct meta_page *hash_next, *newer, *older;
    enum meta_class class;
    bool dirty;
    uint8_t bytes[];
};

#define META_HASH 1024

struct meta {
    struct meta_page *hash[META_HASH];
    struct meta_page *newest, *oldest;
    size_t page_size;
    unsigned count, dirty; /* of pages */
};

/* One of the two top tables: all of it in memory, in host order. */
struct top_table {
    uint64_t *entries;
    uint32_t count;
    uint64_t offset;
    uint32_t dirty_from, dirty_to; /* entries not written; from >= to: none */
};

/* Clusters that lost a reference. */
struct freed {
    uint64_t *offsets;
    size_t count, room;
};

struct load; /* of a page, under way */
struct task; /* a request under way */
struct op;   /* a part of one */

enum writeback_stage { WB_IDLE, WB_REFTABLE, WB_L2, WB_L1, WB_FINAL };

struct qcow2 {
    struct block block;
    struct block *file, *backing; /* backing: NULL when there is none */
    char *name;
    unsigned version, cluster_bits, refcount_order, compression;
    uint64_t cluster_size;
    uint32_t reftable_clusters;
    struct top_table l1, reftable;
    struct meta meta;
    struct load *loads;
    uint64_t free_hint;  /* cluster index: below it none is free */
    uint64_t fresh_from; /* file offset: beyond it nothing was ever written */
    bool growable;       /* the file can be made larger */
    uint64_t unpacked_entry; /* the compressed cluster that `unpacked` holds; 0: none */
    uint8_t *unpacked;

    struct block_request *first, **last; /* submitted, not started */
    bool kicking;
    bool below_unkicked; /* something was submitted below */
    bool blocking;       /* qcow2_transfer is under way: I/O below is done at once */
    struct task *waiting;
    struct op *allocating; /* allocating writes whose entries are not set yet */
    struct op *published_later; /* those of them that are written, while frozen */

    /* Writeback. While frozen, no L1 or L2 entry changes: what is being written must not come to refer to clusters whose
     * refcounts are not written. */
    enum writeback_stage stage;
    bool frozen;
    int wb_status;
    struct block_request wb_request;
    struct block_request *flush_first, **flush_last; /* waiting for the next writeback */
    struct block_request *serving;                   /* waiting for this one */

    /* Freed clusters, in the order of their life: since the last L2 write; in the L2 write under way; durable;
     * durable and waiting for I/O of the older epoch to end. */
    struct freed freed, freed_writing, freed_durable, freed_draining;
    unsigned epoch, epoch_ops[2];
};

/* qcow2_cache.c */

/* The page with the byte at `offset` of the file, valid until the next call. 0 or a negative errno. */
int meta_get(struct qcow2 *q, enum meta_class class, uint64_t offset, struct meta_page **ret_page);
/* The page at a page's offset if it is cached, or NULL. */
struct meta_page *meta_find(struct qcow2 *q, enum meta_class class, uint64_t offset);
/* Takes a page that is not cached, with its bytes. */
void meta_insert(struct qcow2 *q, struct meta_page *page);
void meta_mark(struct qcow2 *q, struct meta_page *page);
/* Writes the dirty pages of one class to the file. */
int meta_write(struct qcow2 *q, enum meta_class class);
void meta_free(struct qcow2 *q);
/* Blocking file I/O: reading beyond the end gives zeroes, writing beyond it makes the file larger. */
int file_read(struct qcow2 *q, uint64_t offset, void *bytes, uint64_t length);
int file_write(struct qcow2 *q, uint64_t offset, const void *bytes, uint64_t length);
/* Makes the file at least so large. */
int file_reach(struct qcow2 *q, uint64_t end);
void top_mark(struct top_table *table, uint32_t from, uint32_t to);
int top_write(struct qcow2 *q, struct top_table *table);

/* qcow2_load.c */

/* Whether a task that needs the L2 page with the byte at `offset` is to wait for it: it is being read. *asked: the task's, 0 at
 * first; the page that it waited for last. */
bool meta_load(struct qcow2 *q, uint64_t offset, uint64_t *asked);
/* The page was read otherwise. */
void meta_make_stale(struct qcow2 *q, uint64_t offset);

/* qcow2_refcount.c */

/* Takes 1 to `want` adjacent free clusters, their refcount 1. 0 or a negative errno. */
int refcount_take(struct qcow2 *q, uint64_t want, uint64_t *ret_offset, uint64_t *ret_count);
/* All `count` of them adjacent. */
int refcount_take_run(struct qcow2 *q, uint64_t count, uint64_t *ret_offset);
int refcount_get(struct qcow2 *q, uint64_t offset, uint64_t *ret_count);
/* One reference less, at once: for clusters that no written entry refers to. */
int refcount_drop(struct qcow2 *q, uint64_t offset);
/* One reference less once invariant 3 allows. */
int freed_add(struct qcow2 *q, uint64_t offset);
void freed_move(struct freed *from, struct freed *to);
/* Drops what may be dropped. */
void freed_settle(struct qcow2 *q);
/* Whether the cluster holds the header or a top table. */
bool qcow2_reserved(const struct qcow2 *q, uint64_t offset, uint64_t length);

/* qcow2_map.c */

enum map_kind { MAP_NONE, MAP_ZERO, MAP_DATA, MAP_COMPRESSED };

struct map {
    enum map_kind kind;
    uint64_t length; /* bytes from the offset asked about, all of this kind; data adjacent in the file */
    uint64_t host;   /* data: of the byte asked about; zero: of the cluster kept for it, or 0 */
    bool owned;      /* data, zero: nobody else refers to the cluster */
    uint64_t entry;
};

/* Whether a task is to wait before it asks where `offset` is; see meta_load. */
bool qcow2_map_waits(struct qcow2 *q, uint64_t offset, uint64_t *asked);
int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t length, struct map *ret_map);
/* Makes the L2 table of a guest offset exist and be this image's alone. Not while frozen. */
int qcow2_own_l2(struct qcow2 *q, uint64_t offset);
/* Sets one entry in an owned table and frees what the old one referred to, unless the new one does, too. */
int qcow2_set(struct qcow2 *q, uint64_t offset, uint64_t entry);

/* qcow2_compressed.c: the contents of a compressed cluster in q->unpacked. */
int qcow2_unpack(struct qcow2 *q, uint64_t entry);

/* qcow2_io.c */

/* Starts a request that was submitted; block_complete ends it. */
void qcow2_start(struct qcow2 *q, struct block_request *request);
/* The same for a request of the image's own, on the image, that was filled in but not submitted. */
void qcow2_start_own(struct qcow2 *q, struct block_request *request);
/* Starts requests that waited for a change of metadata. */
void qcow2_wake(struct qcow2 *q);
/* Sets the entries of what was written while frozen. */
void qcow2_publish_waiting(struct qcow2 *q);
/* Hands a request to a block below. */
void qcow2_below(struct qcow2 *q, struct block *below, struct block_request *request);

/* qcow2_writeback.c */

bool qcow2_is_dirty(const struct qcow2 *q);
/* The request completes when all that is complete now is durable. */
void qcow2_flush(struct qcow2 *q, struct block_request *request);
/* Now, blocking; no request is in flight. */
int qcow2_sync(struct qcow2 *q);

#endif
