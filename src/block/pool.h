/* pool.h - a few threads for operations that block, whose ends are told on a loop's thread. */
#ifndef VENEER_BLOCK_POOL_H
#define VENEER_BLOCK_POOL_H

#include "base/error.h"
#include "base/loop.h"

struct pool;

struct pool_job {
    struct pool_job *next;
    void (*work)(struct pool_job *job); /* on a thread of the pool */
    void (*done)(struct pool_job *job); /* afterwards, on the loop's thread */
};

/* Threads are started as they are needed, at most `threads`. */
int pool_new(struct loop *loop, unsigned threads, struct pool **ret_pool, struct error *error);
/* No job is under way. NULL is allowed. */
void pool_free(struct pool *pool);
/* Loop's thread. The job is the pool's until done() is called. When no thread can be had the work is done
 * before this returns. */
void pool_run(struct pool *pool, struct pool_job *job);

#endif
