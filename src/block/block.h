/* block.h - the seam between what stores a volume and what uses it.
 *
 * A `struct block` is an array of bytes in whole sectors. Formats (raw, qcow2) and filters (throttle, fault)
 * implement `struct block_ops`; users call the wrappers below, which check the contract, so that
 * implementations stay bare. A filter or format owns the block under it.
 *
 * Requests are asynchronous:
 *   fill a struct block_request, block_submit any number of them, then block_kick.
 * - The caller owns the request and its buffers again when complete() is called, exactly once per request.
 * - complete() runs on the loop's thread, inside block_kick or from the loop, never inside block_submit.
 *   It may submit and kick again.
 * - Requests complete in any order. Reads and writes that overlap while in flight see either order, by sector.
 * - A flush makes durable every write, discard and write-zeroes that completed before it was submitted.
 *
 * All functions belong to the thread of the loop that the block was opened with, or to one thread while
 * that loop is not served. The blocking ones (transfer, resize, extent) may wait for the disk: they are for
 * tools, for formats' metadata and for rare events. */
#ifndef VENEER_BLOCK_BLOCK_H
#define VENEER_BLOCK_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/loop.h"

struct block;

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

#define BLOCK_FUA (1u << 0)   /* write, write-zeroes: durable when complete */
#define BLOCK_UNMAP (1u << 1) /* write-zeroes: the space may be given back */

struct block_request {
    enum block_op op;
    unsigned flags;
    uint64_t offset, length;  /* bytes, whole sectors; both 0 for a flush */
    const struct iovec *iov;  /* read, write: buffers of `length` bytes together; any alignment */
    unsigned iov_count;
    /* status: 0 or a negative errno (-EIO, -ENOSPC ...). After a failed read the buffers hold anything;
     * after a failed write so do the sectors. */
    void (*complete)(struct block_request *request, int status);

    /* Below: the implementation's, while the request is submitted. */
    struct block *block;
    struct block_request *next;
    uint64_t done;
    void *private;
};

struct block_limits {
    uint64_t size;                /* bytes, whole sectors */
    uint32_t sector_size;         /* a power of two, 512 to 4096: the unit of offset and length */
    /* A power of two, at least sector_size: a write that is not whole multiples of it reads and writes back what is beside its
     * bytes. So a blocking one shares no multiple with requests in flight. */
    uint32_t physical_size;
    uint32_t optimal_size;        /* bytes: what best is a multiple of in offset and length */
    uint32_t max_iov;             /* buffers in one request */
    uint64_t max_transfer;        /* bytes in one read or write */
    uint64_t discard_granularity; /* bytes; smaller or unaligned parts of a discard may be ignored */
    bool readonly;
    bool growable;                /* block_resize can make it larger: not a device */
    bool can_discard;             /* otherwise a discard completes and does nothing */
};

/* What a run of bytes is. */
struct block_extent {
    uint64_t length; /* bytes from the offset asked about, at least 1 */
    bool data;       /* stored here or below; otherwise it reads as zeroes */
    bool allocated;  /* by this layer, not by a backing file */
};

struct block_ops {
    const char *name;
    /* Takes the request; block_complete is called later, never from here. */
    void (*submit)(struct block *block, struct block_request *request);
    /* Starts what was submitted; may complete requests. May be called from a completion. */
    void (*kick)(struct block *block);
    /* Does one operation now and returns 0 or a negative errno. Only reads and writes use bytes. */
    int (*transfer)(struct block *block, enum block_op op, unsigned flags, uint64_t offset, void *bytes, uint64_t length);
    int (*extent)(struct block *block, uint64_t offset, uint64_t length, struct block_extent *ret_extent);
    int (*resize)(struct block *block, uint64_t size, struct error *error);
    int (*close)(struct block *block); /* 0 or a negative errno; see block_close */
    /* May be NULL: nothing is held back. See block_hurry. */
    void (*hurry)(struct block *block, bool on);
};

struct block {
    const struct block_ops *ops;
    struct block_limits limits;
    unsigned in_flight; /* submitted here and not complete */
    struct block_request *refused; /* by block_submit; completed by the next kick */
};

/* Submits one request. Nothing need happen before block_kick. A request that breaks the contract (outside
 * the volume, not whole sectors, iov of another length, a write to a read-only block) completes, by
 * block_kick, with -EINVAL, -EROFS or -EOPNOTSUPP. */
void block_submit(struct block *block, struct block_request *request);
/* Starts every request submitted since the last kick. */
void block_kick(struct block *block);

/* One operation, now: it returns when done. Same checks as block_submit. bytes: read or written, NULL for the
 * others. Not ordered with requests in flight. */
int block_transfer(struct block *block, enum block_op op, unsigned flags, uint64_t offset, void *bytes, uint64_t length);
/* Says what [offset, offset + ret->length) is; ret->length <= length. 0 < length, within the volume. */
int block_extent(struct block *block, uint64_t offset, uint64_t length, struct block_extent *ret_extent);
/* Changes the size (whole sectors). No request is in flight beyond the new size. New bytes read as zeroes. */
int block_resize(struct block *block, uint64_t size, struct error *error);
/* Frees the block and what lies under it. No request is in flight. NULL is allowed. What was not flushed
 * is handed to the host's kernel, not made durable. Returns 0, or a negative errno when that could not be done: what was written
 * since the last flush may be lost, as after a crash of the host. The block is gone either way. */
int block_close(struct block *block);

/* While on, requests that were held back (by a bound on their rate) go at once, for who must wait until nothing is in flight. What
 * goes so is paid for later. May complete requests. */
static inline void block_hurry(struct block *block, bool on)
{
    if (block->ops->hurry)
        block->ops->hurry(block, on);
}

/* For implementations. */

/* Ends a request. `request->block` is the block that it was submitted to. */
void block_complete(struct block_request *request, int status);
/* Hands a request that was submitted to a filter on, as it is, to the block below; block_kick is still due. */
static inline void block_forward(struct block *below, struct block_request *request)
{
    below->ops->submit(below, request);
}

#endif
