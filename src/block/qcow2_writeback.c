/* qcow2_writeback.c - metadata goes to the file: refcount blocks; refcount table; L2 tables; L1 table; with a flush
 * after each that wrote something, and one at the end. The same steps serve a guest's flush (asynchronously, one step for
 * each flush of the file that completes) and closing (at once). */
#include <errno.h>

#include "block/qcow2_private.h"

static bool top_dirty(const struct top_table *table)
{
    return table->dirty_from < table->dirty_to;
}

bool qcow2_is_dirty(const struct qcow2 *q)
{
    return q->meta.dirty || top_dirty(&q->l1) || top_dirty(&q->reftable);
}

/* Entries that lost their references have been written; they are durable with the next flush. */
static void l2_written(struct qcow2 *q)
{
    freed_move(&q->freed, &q->freed_writing);
}

/* Writes what the next stage consists of. *ret_stage becomes the stage that is due after a flush. */
static int advance(struct qcow2 *q, enum writeback_stage *stage)
{
    int status = 0;
    switch (*stage) {
    case WB_IDLE:
        *stage = WB_FINAL;
        if (!qcow2_is_dirty(q))
            return 0;
        *stage = WB_REFTABLE;
        return meta_write(q, META_REFCOUNT);
    case WB_REFTABLE:
        if (top_dirty(&q->reftable)) {
            *stage = WB_L2;
            return top_write(q, &q->reftable);
        }
        __attribute__((fallthrough));
    case WB_L2:
        status = meta_write(q, META_L2);
        *stage = top_dirty(&q->l1) ? WB_L1 : WB_FINAL;
        break;
    case WB_L1:
        status = top_write(q, &q->l1);
        *stage = WB_FINAL;
        break;
    case WB_FINAL:
        break;
    }
    if (status == 0 && *stage == WB_FINAL)
        l2_written(q);
    return status;
}

static void start(struct qcow2 *q);

static void thaw(struct qcow2 *q)
{
    if (!q->frozen)
        return;
    q->frozen = false;
    qcow2_publish_waiting(q);
}

static void end(struct qcow2 *q, int status)
{
    struct block_request *request = q->serving;
    q->serving = NULL;
    q->stage = WB_IDLE;
    thaw(q);
    if (status == 0) {
        freed_move(&q->freed_writing, &q->freed_durable);
        freed_settle(q);
    } else {
        freed_move(&q->freed_writing, &q->freed);
    }
    for (struct block_request *next; request; request = next) {
        next = request->next;
        block_complete(request, status);
    }
    qcow2_wake(q);
    if (q->stage == WB_IDLE && q->flush_first)
        start(q);
}

static void step(struct qcow2 *q)
{
    int status = advance(q, &q->stage);
    if (status < 0) {
        end(q, status);
        return;
    }
    if (q->stage == WB_FINAL)
        thaw(q);
    q->wb_request.op = BLOCK_FLUSH;
    qcow2_below(q, q->file, &q->wb_request);
}

static void flushed(struct block_request *request, int status)
{
    struct qcow2 *q = (struct qcow2 *)((char *)request - offsetof(struct qcow2, wb_request));
    if (status < 0 || q->stage == WB_FINAL)
        end(q, status);
    else
        step(q);
    block_kick(&q->block);
}

static void start(struct qcow2 *q)
{
    q->serving = q->flush_first;
    q->flush_first = NULL;
    q->flush_last = &q->flush_first;
    q->frozen = qcow2_is_dirty(q);
    q->wb_request = (struct block_request){.complete = flushed};
    step(q);
}

void qcow2_flush(struct qcow2 *q, struct block_request *request)
{
    request->next = NULL;
    *q->flush_last = request;
    q->flush_last = &request->next;
    if (q->stage == WB_IDLE && !q->serving)
        start(q);
}

int qcow2_sync(struct qcow2 *q)
{
    enum writeback_stage stage = WB_IDLE;
    int status = 0;
    while (status == 0) {
        status = advance(q, &stage);
        if (status == 0)
            status = block_transfer(q->file, BLOCK_FLUSH, 0, 0, NULL, 0);
        if (stage == WB_FINAL)
            break;
    }
    if (status < 0) {
        freed_move(&q->freed_writing, &q->freed);
        return status;
    }
    freed_move(&q->freed_writing, &q->freed_durable);
    freed_settle(q);
    return 0;
}
