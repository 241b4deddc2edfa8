/* raw_ring.c - reads, writes and flushes on io_uring.
 *
 * The ring's own descriptor is in the event loop (readable while completions wait), so that reaping costs no
 * system call beyond the loop's. What the ring did not do whole (cut short, interrupted, refused) goes to the
 * pool, which knows every fallback. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>

#include "block/raw_private.h"

#define ENTRIES 256

static void reap(struct raw *raw)
{
    struct io_uring_cqe *cqes[32];
    unsigned count;
    while ((count = io_uring_peek_batch_cqe(&raw->ring, cqes, 32)) > 0) {
        struct block_request *requests[32];
        int results[32];
        for (unsigned i = 0; i < count; i++) {
            requests[i] = io_uring_cqe_get_data(cqes[i]);
            results[i] = cqes[i]->res;
        }
        io_uring_cq_advance(&raw->ring, count); /* first: a completion may reap again */
        for (unsigned i = 0; i < count; i++) {
            struct block_request *request = requests[i];
            if (results[i] >= 0)
                request->done += (uint64_t)results[i];
            bool whole = request->done == request->length && results[i] >= 0;
            bool again = results[i] >= 0 || results[i] == -EINTR || results[i] == -EAGAIN ||
                         results[i] == -EOPNOTSUPP || results[i] == -EINVAL;
            if (whole || !again)
                raw_end(raw, request, whole ? 0 : results[i]);
            else
                raw_do_later(raw, request);
        }
    }
}

static void ready(void *context, uint32_t events)
{
    struct raw *raw = context;
    (void)events;
    block_kick(&raw->block);
}

/* While the loop polls, completions are seen in the ring's memory, without asking the kernel. */
static bool poller_look(void *context)
{
    struct raw *raw = context;
    if (io_uring_cq_ready(&raw->ring) == 0)
        return false;
    block_kick(&raw->block);
    return true;
}

static bool poller_sleep(void *context)
{
    struct raw *raw = context;
    return io_uring_cq_ready(&raw->ring) != 0;
}

static void poller_wake(void *context)
{
    (void)context; /* the descriptor is in the loop's set always */
}

int raw_ring_open(struct raw *raw)
{
    int status = io_uring_queue_init(ENTRIES, &raw->ring, IORING_SETUP_CLAMP);
    if (status < 0)
        return status;
    /* The registered file spares each operation a reference count. */
    status = io_uring_register_files(&raw->ring, &raw->fd, 1);
    if (status == 0)
        status = loop_add_fd(raw->loop, raw->ring.ring_fd, EPOLLIN, ready, raw, &raw->ring_source);
    if (status < 0) {
        io_uring_queue_exit(&raw->ring);
        return status;
    }
    raw->has_ring = true;
    raw->poller = (struct loop_poller){.look = poller_look, .sleep = poller_sleep, .wake = poller_wake, .context = raw};
    loop_add_poller(raw->loop, &raw->poller);
    return 0;
}

void raw_ring_close(struct raw *raw)
{
    if (!raw->has_ring)
        return;
    loop_remove_poller(raw->loop, &raw->poller);
    loop_remove(raw->ring_source);
    io_uring_unregister_files(&raw->ring); /* the file is let go of now; the ring is taken apart later */
    io_uring_queue_exit(&raw->ring);
}

static int send_all(struct raw *raw)
{
    int sent;
    do
        sent = io_uring_submit(&raw->ring);
    while (sent == -EINTR);
    raw->ring_unsent = io_uring_sq_ready(&raw->ring) > 0;
    return sent < 0 ? sent : 0;
}

void raw_ring_start(struct raw *raw, struct block_request *request)
{
    struct io_uring_sqe *sqe = NULL;
    if (!request->done) /* what is already cut is the pool's */
        sqe = io_uring_get_sqe(&raw->ring);
    if (!sqe && !request->done && send_all(raw) == 0)
        sqe = io_uring_get_sqe(&raw->ring);
    if (!sqe) {
        raw_do_later(raw, request);
        return;
    }
    if (request->op == BLOCK_READ)
        io_uring_prep_readv(sqe, 0, request->iov, request->iov_count, request->offset);
    else if (request->op == BLOCK_WRITE)
        io_uring_prep_writev2(sqe, 0, request->iov, request->iov_count, request->offset,
                              request->flags & BLOCK_FUA ? RWF_DSYNC : 0);
    else
        io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, request);
    raw->ring_unsent = true;
}

void raw_ring_kick(struct raw *raw)
{
    if (raw->ring_unsent)
        send_all(raw); /* what the kernel had no room for goes with the next completion */
    reap(raw);
}
