/* qcow2_io.c - requests on an image: cut into parts, started, completed. */
#include "block/qcow2_io.h"

#include <errno.h>
#include <stdlib.h>

#define DIRTY_MOST 512 /* pages: the write that reaches it waits for a writeback */

static void task_run(struct task *task);

struct op *op_new(struct task *task)
{
    struct op *op = calloc(1, sizeof *op);
    if (op)
        op->task = task;
    return op;
}

void op_free(struct op *op)
{
    free(op->iov);
    free(op->bounce);
    free(op);
}

int op_slice(struct op *op, uint64_t length, void *head, uint64_t head_length, void *tail, uint64_t tail_length)
{
    const struct block_request *request = op->task->request;
    uint64_t skip = op->task->pos;
    if (!skip && length == request->length && !head_length && !tail_length) {
        op->io.iov = request->iov;
        op->io.iov_count = request->iov_count;
        return 0;
    }
    unsigned count = 0;
    op->iov = malloc((request->iov_count + 2) * sizeof *op->iov);
    if (!op->iov)
        return -ENOMEM;
    if (head_length)
        op->iov[count++] = (struct iovec){head, head_length};
    for (unsigned i = 0; i < request->iov_count && length; i++) {
        struct iovec iov = request->iov[i];
        if (skip >= iov.iov_len) {
            skip -= iov.iov_len;
            continue;
        }
        iov = (struct iovec){(char *)iov.iov_base + skip, iov.iov_len - (size_t)skip};
        skip = 0;
        if (iov.iov_len > length)
            iov.iov_len = (size_t)length;
        length -= iov.iov_len;
        op->iov[count++] = iov;
    }
    if (tail_length)
        op->iov[count++] = (struct iovec){tail, tail_length};
    op->io.iov = op->iov;
    op->io.iov_count = count;
    return 0;
}

void qcow2_below(struct qcow2 *q, struct block *below, struct block_request *request)
{
    if (!q->blocking) {
        q->below_unkicked = true;
        block_submit(below, request);
        return;
    }
    int status = 0;
    uint64_t offset = request->offset;
    if (!request->iov_count)
        status = block_transfer(below, request->op, request->flags, offset, NULL, request->length);
    for (unsigned i = 0; i < request->iov_count && status == 0; i++) {
        status = block_transfer(below, request->op, request->flags, offset, request->iov[i].iov_base, request->iov[i].iov_len);
        offset += request->iov[i].iov_len;
    }
    request->complete(request, status);
}

/* Ends the task. What must be durable, or has left much metadata unwritten, waits for a writeback. */
static void task_end(struct task *task)
{
    struct qcow2 *q = task->q;
    struct block_request *request = task->request;
    int status = task->status;
    free(task);
    bool changes = request->op != BLOCK_READ;
    if (status == 0 && changes && ((request->flags & BLOCK_FUA) || q->meta.dirty > DIRTY_MOST))
        qcow2_flush(q, request);
    else
        block_complete(request, status);
}

void task_part_done(struct task *task, int status)
{
    if (status < 0 && task->status == 0)
        task->status = status;
    if (--task->pending == 0 && !task->waits)
        task_end(task);
}

int task_wait(struct task *task)
{
    task->waits = true;
    task->next = task->q->waiting;
    task->q->waiting = task;
    return 1;
}

void qcow2_wake(struct qcow2 *q)
{
    struct task *task = q->waiting;
    q->waiting = NULL;
    for (struct task *next; task; task = next) {
        next = task->next;
        task->waits = false;
        task_run(task);
    }
}

static void plain_done(struct block_request *request, int status)
{
    struct op *op = (struct op *)request;
    struct task *task = op->task;
    struct qcow2 *q = task->q;
    if (op->in_epoch && --q->epoch_ops[op->epoch] == 0)
        freed_settle(q);
    op_free(op);
    task_part_done(task, status);
    block_kick(&q->block);
}

/* A part that is one read or write below. */
static int start_plain(struct task *task, struct block *below, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = task->q;
    struct op *op = op_new(task);
    if (!op)
        return -ENOMEM;
    op->io.op = task->request->op;
    op->io.offset = offset;
    op->io.length = length;
    op->io.complete = plain_done;
    int status = op_slice(op, length, NULL, 0, NULL, 0);
    if (status < 0) {
        op_free(op);
        return status;
    }
    if (below == q->file) {
        op->in_epoch = true;
        op->epoch = q->epoch;
        q->epoch_ops[op->epoch]++;
    }
    task->pos += length;
    task->pending++;
    qcow2_below(q, below, &op->io);
    return 0;
}

/* Bytes that are known at once: `from`, or zeroes when it is NULL. */
static void give(struct task *task, const uint8_t *from, uint64_t length)
{
    const struct block_request *request = task->request;
    uint64_t skip = task->pos;
    task->pos += length;
    for (unsigned i = 0; length; i++) {
        const struct iovec *iov = &request->iov[i];
        if (skip >= iov->iov_len) {
            skip -= iov->iov_len;
            continue;
        }
        size_t part = iov->iov_len - (size_t)skip < length ? iov->iov_len - (size_t)skip : (size_t)length;
        if (from)
            memcpy((char *)iov->iov_base + skip, from, part);
        else
            memset((char *)iov->iov_base + skip, 0, part);
        from = from ? from + part : NULL;
        length -= part;
        skip = 0;
    }
}

static int start_read(struct task *task, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = task->q;
    struct map map;
    int status = qcow2_map(q, offset, length, &map);
    if (status < 0)
        return status;
    uint64_t end = q->file->limits.size;
    if (map.kind == MAP_COMPRESSED) {
        status = qcow2_unpack(q, map.entry);
        if (status == 0)
            give(task, q->unpacked + (offset & (q->cluster_size - 1)), map.length);
        return status;
    }
    if (map.kind == MAP_DATA && map.host < end) /* the last cluster's end may be cut off */
        return start_plain(task, q->file, map.host, map.length < end - map.host ? map.length : end - map.host);
    if (map.kind == MAP_NONE && q->backing && offset < q->backing->limits.size) {
        end = q->backing->limits.size;
        return start_plain(task, q->backing, offset, map.length < end - offset ? map.length : end - offset);
    }
    give(task, NULL, map.length);
    return 0;
}

static int start_write(struct task *task, uint64_t offset, uint64_t length)
{
    struct map map;
    int status = qcow2_map(task->q, offset, length, &map);
    if (status < 0)
        return status;
    if (map.kind != MAP_DATA || !map.owned)
        return start_allocating(task, offset, length, &map);
    /* An entry beyond the file's end would make it as large as its author liked. */
    uint64_t end = ((map.host + map.length - 1) | (task->q->cluster_size - 1)) + 1;
    uint64_t there = (task->q->file->limits.size + task->q->cluster_size - 1) & ~(task->q->cluster_size - 1);
    if (end > there)
        return -EIO;
    status = file_reach(task->q, map.host + map.length);
    return status < 0 ? status : start_plain(task, task->q->file, map.host, map.length);
}

static int start_part(struct task *task)
{
    const struct block_request *request = task->request;
    uint64_t offset = request->offset + task->pos, length = request->length - task->pos;
    if (qcow2_map_waits(task->q, offset, &task->asked))
        return task_wait(task);
    if (request->op == BLOCK_READ)
        return start_read(task, offset, length);
    if (request->op == BLOCK_WRITE)
        return start_write(task, offset, length);
    return start_zeroing(task, offset, length);
}

static void task_run(struct task *task)
{
    task->pending++; /* so that no part's end ends the task here */
    while (task->status == 0 && task->pos < task->request->length && !task->waits) {
        int status = start_part(task);
        if (status < 0 && task->status == 0)
            task->status = status;
    }
    task_part_done(task, 0);
}

void qcow2_start(struct qcow2 *q, struct block_request *request)
{
    if (request->op == BLOCK_FLUSH) {
        qcow2_flush(q, request);
        return;
    }
    struct task *task = malloc(sizeof *task);
    if (!task) {
        block_complete(request, -ENOMEM);
        return;
    }
    *task = (struct task){.q = q, .request = request};
    task_run(task);
}

void qcow2_start_own(struct qcow2 *q, struct block_request *request)
{
    request->block = &q->block;
    q->block.in_flight++;
    qcow2_start(q, request);
}
