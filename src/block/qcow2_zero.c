/* qcow2_zero.c - discards and write-zeroes: by changing entries where whole clusters are meant, by writing zeroes at the
 * edges and where version 2 has no entry that says zero. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_io.h"

static void zeroes_written(struct block_request *request, int status)
{
    struct op *op = (struct op *)request;
    struct task *task = op->task;
    struct qcow2 *q = task->q;
    op_free(op);
    task_part_done(task, status);
    block_kick(&q->block);
}

/* Zeroes within one cluster, as a write of the image's own. */
static int write_zero_bytes(struct task *task, uint64_t offset, uint64_t length)
{
    struct op *op = op_new(task);
    if (!op)
        return -ENOMEM;
    op->bounce = calloc(1, length);
    op->iov = malloc(sizeof *op->iov);
    if (!op->bounce || !op->iov) {
        op_free(op);
        return -ENOMEM;
    }
    *op->iov = (struct iovec){op->bounce, length};
    op->io = (struct block_request){.op = BLOCK_WRITE, .offset = offset, .length = length, .iov = op->iov, .iov_count = 1,
                                    .complete = zeroes_written};
    task->pos += length;
    task->pending++;
    qcow2_start_own(task->q, &op->io);
    return 0;
}

/* The entry that makes one cluster zeroes. */
static uint64_t zero_entry(const struct qcow2 *q, const struct task *task, const struct map *map)
{
    bool release = task->request->op == BLOCK_DISCARD || (task->request->flags & BLOCK_UNMAP);
    uint64_t zero = q->backing ? QCOW2_ZERO : 0;
    if (q->version < 3)
        return 0;
    if (release || !map->owned || !map->host || (map->kind != MAP_DATA && map->kind != MAP_ZERO))
        return zero;
    return (map->host & QCOW2_OFFSET_MASK) | QCOW2_COPIED | QCOW2_ZERO;
}

static int zero_cluster(struct task *task, uint64_t offset, uint64_t length, const struct map *map)
{
    struct qcow2 *q = task->q;
    if (q->frozen || is_allocating(q, offset, q->cluster_size))
        return task_wait(task);
    int status = qcow2_own_l2(q, offset);
    if (status == 0)
        status = qcow2_set(q, offset, zero_entry(q, task, map));
    if (status == 0)
        task->pos += length;
    return status;
}

int start_zeroing(struct task *task, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = task->q;
    bool discard = task->request->op == BLOCK_DISCARD;
    uint64_t in_cluster = q->cluster_size - (offset & (q->cluster_size - 1));
    bool to_end = offset + length == q->block.limits.size;
    bool whole = in_cluster == q->cluster_size && (length >= in_cluster || to_end);
    uint64_t part = length < in_cluster ? length : in_cluster;
    struct map map;
    int status = qcow2_map(q, offset, length, &map);
    if (status < 0)
        return status;
    /* What is zeroes already, or is not to be touched, is passed over in one step. */
    bool zero_already = (map.kind == MAP_ZERO && (!map.host || !discard)) || (map.kind == MAP_NONE && !q->backing);
    bool untouched = discard && (map.kind == MAP_NONE || (q->version < 3 && q->backing));
    if (zero_already || untouched || (discard && !whole)) {
        task->pos += zero_already || untouched ? map.length : part;
        return 0;
    }
    if (whole && (q->version >= 3 || !q->backing))
        return zero_cluster(task, offset, part, &map);
    return write_zero_bytes(task, offset, part);
}
