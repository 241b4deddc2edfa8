/* qcow2_load.c - L2 pages that requests need are read asynchronously, so that a miss in the cache holds up nobody else.
 *
 * A task whose page is not cached asks for it and waits; when it has come, tasks that wait are tried again. All others (allocation,
 * refcounts, blocking operations) still read what they need at once by meta_get, which makes a load of the same page that is under way
 * stale: the page may change and be evicted before the load's bytes come. A task asks for a page once. When it is not there afterwards
 * (the load failed, or was stale, or the page was evicted again) meta_get reads it and says what is wrong.
 *
 * A load is counted in its epoch: the cluster that it reads is not used for something else meanwhile. */
#include <stdlib.h>

#include "block/qcow2_private.h"

struct load {
    struct block_request io;
    struct iovec iov;
    struct load *next;
    struct qcow2 *q;
    struct meta_page *page;
    unsigned epoch;
    bool stale;
};

static struct load *find_load(const struct qcow2 *q, uint64_t offset)
{
    struct load *load = q->loads;
    while (load && (load->page->offset != offset || load->stale))
        load = load->next;
    return load;
}

void meta_make_stale(struct qcow2 *q, uint64_t offset)
{
    struct load *load = find_load(q, offset);
    if (load)
        load->stale = true;
}

static void loaded(struct block_request *request, int status)
{
    struct load *load = (struct load *)request;
    struct qcow2 *q = load->q;
    struct load **link = &q->loads;
    while (*link != load)
        link = &(*link)->next;
    *link = load->next;
    if (status == 0 && !load->stale)
        meta_insert(q, load->page);
    else
        free(load->page);
    if (--q->epoch_ops[load->epoch] == 0)
        freed_settle(q);
    free(load);
    qcow2_wake(q);
    block_kick(&q->block);
}

bool meta_load(struct qcow2 *q, uint64_t offset, uint64_t *asked)
{
    offset &= ~(uint64_t)(q->meta.page_size - 1);
    if (q->blocking || meta_find(q, META_L2, offset))
        return false;
    if (find_load(q, offset))
        return true;
    uint64_t size = q->file->limits.size;
    if (*asked == offset || size < q->meta.page_size || offset > size - q->meta.page_size)
        return false;
    struct load *load = calloc(1, sizeof *load);
    struct meta_page *page = malloc(sizeof *page + q->meta.page_size);
    if (!load || !page) {
        free(load);
        free(page);
        return false;
    }
    *page = (struct meta_page){.offset = offset, .class = META_L2};
    *load = (struct load){.q = q, .page = page, .iov = {page->bytes, q->meta.page_size}, .next = q->loads, .epoch = q->epoch};
    load->io = (struct block_request){.op = BLOCK_READ, .offset = offset, .length = q->meta.page_size, .iov = &load->iov,
                                      .iov_count = 1, .complete = loaded};
    *asked = offset;
    q->loads = load;
    q->epoch_ops[q->epoch]++;
    qcow2_below(q, q->file, &load->io);
    return true;
}
