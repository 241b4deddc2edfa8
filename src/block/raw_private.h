/* raw_private.h - the parts of raw.c, raw_io.c and raw_ring.c. */
#ifndef VENEER_BLOCK_RAW_PRIVATE_H
#define VENEER_BLOCK_RAW_PRIVATE_H

#include <liburing.h>
#include <stdatomic.h>

#include "block/block.h"
#include "block/pool.h"

struct raw {
    struct block block;
    int fd;
    bool device;  /* a block device, not a file */
    bool direct;  /* O_DIRECT: buffers, too, are aligned to sectors */
    atomic_bool no_punch, no_zero; /* the file system cannot; learnt on the first refusal */
    struct loop *loop; /* NULL: everything is done by kick */
    struct block_request *first, **last; /* submitted, not started */
    bool kicking;
    struct pool *pool; /* made when it is first needed */
    bool has_ring;
    struct io_uring ring;
    struct loop_source *ring_source;
    struct loop_poller poller;
    bool ring_unsent; /* SQEs that the kernel has not been told of */
};

/* raw_io.c: does a whole request, or what is left of it after request->done bytes, on the calling thread.
 * Any thread. 0 or a negative errno. */
int raw_do(struct raw *raw, const struct block_request *request);
/* Reads what the page cache holds without waiting; returns the count of bytes, 0 when there is none. */
uint64_t raw_read_cached(struct raw *raw, const struct block_request *request);
/* Whether O_DIRECT would refuse the request's buffers; raw_do copies them through aligned memory. */
bool raw_needs_bounce(const struct raw *raw, const struct block_request *request);

/* raw.c: does the rest of the request on a thread of the pool. */
void raw_do_later(struct raw *raw, struct block_request *request);

/* raw_ring.c: the request on io_uring. */
int raw_ring_open(struct raw *raw);
void raw_ring_close(struct raw *raw);
void raw_ring_start(struct raw *raw, struct block_request *request);
/* Tells the kernel of what was started, and completes what is done. */
void raw_ring_kick(struct raw *raw);

#endif
