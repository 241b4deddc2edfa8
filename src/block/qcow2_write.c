/* qcow2_write.c - writes to clusters that have no place in the file of their own yet.
 *
 *   take clusters -> read what they hold around the new bytes -> write all -> set the L2 entries
 * The clusters are in nobody's sight until the last step, so a failure anywhere gives them back. Whoever wants to change
 * the mapping of the same guest clusters meanwhile waits. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2_io.h"

bool is_allocating(const struct qcow2 *q, uint64_t guest, uint64_t length)
{
    for (const struct op *op = q->allocating; op; op = op->next)
        if (guest < op->guest + op->clusters * q->cluster_size && op->guest < guest + length)
            return true;
    return false;
}

static void give_back(struct qcow2 *q, const struct op *op, uint64_t from)
{
    for (uint64_t i = from; !op->kept && i < op->clusters; i++)
        refcount_drop(q, op->host + i * q->cluster_size);
}

/* The last step; also the end of what failed. */
static void finish(struct op *op, int status)
{
    struct task *task = op->task;
    struct qcow2 *q = task->q;
    uint64_t i = 0;
    for (; status == 0 && i < op->clusters; i++)
        status = qcow2_set(q, op->guest + i * q->cluster_size, (op->host + i * q->cluster_size) | QCOW2_COPIED);
    if (status < 0)
        give_back(q, op, i ? i - 1 : 0);
    struct op **link = &q->allocating;
    while (*link != op)
        link = &(*link)->next;
    *link = op->next;
    op_free(op);
    task_part_done(task, status);
}

static void written(struct block_request *request, int status)
{
    struct op *op = (struct op *)request;
    struct qcow2 *q = op->task->q;
    if (status == 0 && q->frozen) {
        op->next_published = q->published_later;
        q->published_later = op;
        return;
    }
    finish(op, status);
    qcow2_wake(q);
    block_kick(&q->block);
}

void qcow2_publish_waiting(struct qcow2 *q)
{
    struct op *op = q->published_later;
    q->published_later = NULL;
    for (struct op *next; op; op = next) {
        next = op->next_published;
        finish(op, 0);
    }
    qcow2_wake(q);
}

static void filled(struct block_request *request, int status)
{
    struct op *op = ((struct fill *)request)->op;
    struct qcow2 *q = op->task->q;
    if (status < 0 && op->task->status == 0)
        op->task->status = status;
    if (--op->filling)
        return;
    if (op->task->status < 0)
        written(&op->io, op->task->status);
    else
        qcow2_below(q, q->file, &op->io);
    block_kick(&q->block);
}

/* Asks for what a range of guest bytes holds now. Beyond the volume's end it stays zeroes. */
static void fill(struct op *op, struct fill *part, uint64_t guest, uint8_t *bytes, uint64_t length)
{
    struct qcow2 *q = op->task->q;
    uint64_t size = q->block.limits.size, there = guest < size ? size - guest : 0;
    if (there > length)
        there = length;
    if (!there)
        return;
    op->filling++;
    part->op = op;
    part->iov = (struct iovec){bytes, there};
    part->request = (struct block_request){.op = BLOCK_READ, .offset = guest, .length = there, .iov = &part->iov,
                                           .iov_count = 1, .complete = filled};
    qcow2_start_own(q, &part->request);
}

static bool reads_zero(const struct qcow2 *q, const struct map *map, uint64_t first_cluster)
{
    return map->kind == MAP_ZERO ||
           (map->kind == MAP_NONE && (!q->backing || first_cluster >= q->backing->limits.size));
}

/* How many of the run's clusters nobody is at. */
static uint64_t undisturbed(const struct qcow2 *q, uint64_t guest, uint64_t clusters)
{
    uint64_t free = 0;
    while (free < clusters && !is_allocating(q, guest + free * q->cluster_size, q->cluster_size))
        free++;
    return free;
}

/* Fills in the operation for `length` bytes at `offset`, its clusters taken. */
static int prepare(struct op *op, uint64_t offset, uint64_t length, bool fresh, const struct map *map)
{
    struct qcow2 *q = op->task->q;
    bool zero = reads_zero(q, map, op->guest);
    op->head = offset - op->guest;
    op->tail = op->guest + op->clusters * q->cluster_size - (offset + length);
    op->io = (struct block_request){.op = BLOCK_WRITE, .offset = op->host, .complete = written};
    if (zero && fresh) { /* a part of the file that was never written is zeroes already */
        op->io.offset += op->head;
        op->head = op->tail = 0;
    }
    if (op->head + op->tail) {
        op->bounce = calloc(1, op->head + op->tail);
        if (!op->bounce)
            return -ENOMEM;
    }
    op->io.length = op->head + length + op->tail;
    int status = op_slice(op, length, op->bounce, op->head, op->bounce ? op->bounce + op->head : NULL, op->tail);
    if (status < 0)
        return status;
    op->next = q->allocating;
    q->allocating = op;
    op->task->pos += length;
    op->task->pending++;
    op->filling = 1; /* this function */
    if (op->head && !zero)
        fill(op, &op->fills[0], op->guest, op->bounce, op->head);
    if (op->tail && !zero)
        fill(op, &op->fills[1], offset + length, op->bounce + op->head, op->tail);
    if (--op->filling == 0) {
        if (op->task->status < 0)
            written(&op->io, op->task->status);
        else
            qcow2_below(q, q->file, &op->io);
    }
    return 0;
}

int start_allocating(struct task *task, uint64_t offset, uint64_t length, const struct map *map)
{
    struct qcow2 *q = task->q;
    uint64_t mask = q->cluster_size - 1, guest = offset & ~mask;
    uint64_t clusters = undisturbed(q, guest, (offset + map->length - guest + mask) >> q->cluster_bits);
    if (q->frozen || !clusters)
        return task_wait(task);
    int status = qcow2_own_l2(q, offset);
    if (status < 0)
        return status;
    struct op *op = op_new(task);
    if (!op)
        return -ENOMEM;
    op->guest = guest;
    op->kept = map->kind == MAP_ZERO && map->host && map->owned;
    bool fresh = false;
    if (op->kept) {
        op->host = map->host;
        op->clusters = 1;
    } else {
        status = refcount_take(q, clusters, &op->host, &op->clusters);
        if (status < 0) {
            op_free(op);
            return status;
        }
        fresh = op->host >= q->fresh_from;
        uint64_t end = op->host + op->clusters * q->cluster_size;
        q->fresh_from = end > q->fresh_from ? end : q->fresh_from;
    }
    uint64_t most = op->guest + op->clusters * q->cluster_size - offset;
    if (length > map->length)
        length = map->length;
    status = prepare(op, offset, length < most ? length : most, fresh, map);
    if (status < 0) {
        give_back(q, op, 0);
        op_free(op);
    }
    return status;
}
