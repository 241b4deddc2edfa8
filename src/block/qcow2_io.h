/* qcow2_io.h - requests under way and their parts: qcow2_io.c starts them, qcow2_write.c has the writes that allocate. */
#ifndef VENEER_BLOCK_QCOW2_IO_H
#define VENEER_BLOCK_QCOW2_IO_H

#include "block/qcow2_private.h"

/* A request under way, cut into parts that are adjacent in the file. */
struct task {
    struct task *next; /* waiting, or free */
    struct qcow2 *q;
    struct block_request *request;
    uint64_t pos;     /* bytes whose parts were started */
    unsigned pending; /* parts under way */
    bool waits;       /* in q->waiting */
    uint64_t asked;   /* for qcow2_map_waits */
    int status;       /* the first failure */
};

/* The old contents of a cluster around what is written to it. */
struct fill {
    struct block_request request;
    struct iovec iov;
    struct op *op;
};

/* A part of a task: one request below, or, for a write that allocates, two reads and then one. */
struct op {
    struct block_request io;
    struct op *next; /* in q->allocating, or free */
    struct op *next_published;
    struct task *task;
    struct iovec *iov; /* io.iov when it is not the guest's */
    bool in_epoch;     /* counted in q->epoch_ops[epoch] */
    unsigned epoch;
    /* Of an allocating write: */
    uint64_t guest, host, clusters; /* offsets of the first cluster; count */
    bool kept;                      /* the clusters were this image's before */
    uint8_t *bounce;                /* what is written before and after the guest's bytes */
    uint64_t head, tail;            /* bytes of it */
    struct fill fills[2];
    unsigned filling;
};

/* NULL when there is no memory. */
struct op *op_new(struct task *task);
void op_free(struct op *op);
/* The buffers of `length` bytes of the task's request from task->pos on, with room for one more at either end. */
int op_slice(struct op *op, uint64_t length, void *head, uint64_t head_length, void *tail, uint64_t tail_length);
/* A part is over. */
void task_part_done(struct task *task, int status);
/* Makes the part wait and returns 1, which says so. */
int task_wait(struct task *task);

/* qcow2_write.c: starts a part of up to `length` bytes at an offset that needs new clusters. Advances task->pos.
 * 0, a negative errno, or 1: the task waits. */
int start_allocating(struct task *task, uint64_t offset, uint64_t length, const struct map *map);
/* qcow2_zero.c: a part of a discard or write-zeroes. The same. */
int start_zeroing(struct task *task, uint64_t offset, uint64_t length);
/* Whether an allocating write is under way in any of the clusters. */
bool is_allocating(const struct qcow2 *q, uint64_t guest, uint64_t length);

#endif
