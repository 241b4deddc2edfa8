/* raw_private.h - the parts of raw.c, raw_io.c, raw_direct.c and raw_ring.c. */
#ifndef VENEER_BLOCK_RAW_PRIVATE_H
#define VENEER_BLOCK_RAW_PRIVATE_H

#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>

#include "block/block.h"
#include "block/pool.h"

#define RAW_BOUNCES 4u

struct raw {
    struct block block;
    int fd;
    bool device;  /* a block device, not a file */
    bool direct;  /* O_DIRECT */
    uint32_t direct_unit, direct_memory; /* what it takes: multiples of it, as offsets and lengths; as addresses */
    atomic_bool no_punch, no_zero, no_discard; /* the file system cannot; learnt on the first refusal */
    struct loop *loop; /* NULL: everything is done by kick */
    struct block_request *first, **last; /* submitted, not started */
    bool kicking;
    unsigned under_way; /* started, not complete */
    bool lone;          /* one is under way beside which there must be no other */
    pthread_mutex_t bounce_lock; /* of the next two */
    void *bounce[RAW_BOUNCES];   /* memory that raw_bounce has used and nobody uses now */
    unsigned bounces;
    struct pool *pool; /* made when it is first needed */
    bool has_ring;
    struct io_uring ring;
    struct loop_source *ring_source;
    struct loop_poller poller;
    bool ring_unsent; /* SQEs that the kernel has not been told of */
};

#define RAW_PART 16 /* buffers per system call once a request has been cut */

/* raw_io.c: does a whole request, or what is left of it after request->done bytes, on the calling thread.
 * Any thread. 0 or a negative errno. A write may be followed by raw_trim. */
int raw_do(struct raw *raw, const struct block_request *request);
/* The same for a read or write whose buffers O_DIRECT takes. */
int raw_read(struct raw *raw, const struct block_request *request);
int raw_write(struct raw *raw, const struct block_request *request);
/* Reads what the page cache holds without waiting; returns the count of bytes, 0 when there is none. */
uint64_t raw_read_cached(struct raw *raw, const struct block_request *request);
/* Fills `part` with up to RAW_PART buffers of the request's bytes from `skip` on. Returns their count. */
unsigned raw_take_iov(const struct block_request *request, uint64_t skip, struct iovec part[RAW_PART]);

/* raw_direct.c: finds out what O_DIRECT takes; the limits are there. 0 or a negative errno. */
int raw_direct_open(struct raw *raw, const char *path, struct error *error);
void raw_direct_close(struct raw *raw);
/* Whether O_DIRECT would refuse the read or write, or be slow at it; raw_do has raw_bounce do it, through memory of ours. */
bool raw_needs_bounce(const struct raw *raw, const struct block_request *request);
int raw_bounce(struct raw *raw, const struct block_request *request);
/* Whether the request reads and writes back what is beside its bytes. */
bool raw_is_lone(const struct raw *raw, const struct block_request *request);
/* After such a request, on the loop's thread: takes away what was written beyond the volume's end. */
void raw_trim(struct raw *raw, const struct block_request *request);

/* raw.c: does the rest of the request on a thread of the pool. */
void raw_do_later(struct raw *raw, struct block_request *request);
/* Completes a request that was started. */
void raw_end(struct raw *raw, struct block_request *request, int status);

/* raw_ring.c: the request on io_uring. */
int raw_ring_open(struct raw *raw);
void raw_ring_close(struct raw *raw);
void raw_ring_start(struct raw *raw, struct block_request *request);
/* Tells the kernel of what was started, and completes what is done. */
void raw_ring_kick(struct raw *raw);

#endif
