/* throttle.c - a virtual schedule for each bound: `due` is when the next request would start if all kept exactly to
 * the rate; a request may start up to BURST before it. Waiting requests keep their order. */
#include "block/throttle.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#define SECOND 1000000000u
#define BURST (SECOND / 10)

struct bound {
    uint64_t rate; /* units a second; 0: none */
    uint64_t due;  /* ns */
};

struct throttle {
    struct block block;
    struct block *below;
    struct clock clock;
    struct clock_timer *timer;
    struct bound operations, bytes;
    struct block_request *first, **last; /* waiting */
    bool hurried;
};

static struct throttle *throttle_of(struct block *block)
{
    return (struct throttle *)((char *)block - offsetof(struct throttle, block));
}

static uint64_t starts_at(const struct bound *bound)
{
    return bound->rate && bound->due > BURST ? bound->due - BURST : 0;
}

static void charge(struct bound *bound, uint64_t now, uint64_t units)
{
    if (!bound->rate)
        return;
    /* 128 bits: a transfer of 2^30 bytes, in ns, does not fit the product in 64 with room to spare. */
    uint64_t cost = (uint64_t)((unsigned __int128)units * SECOND / bound->rate);
    bound->due = (bound->due > now ? bound->due : now) + cost;
}

/* Hands on what may start now, and sets the timer for the first that may not. */
static void dispatch(struct throttle *throttle)
{
    uint64_t now = clock_now(&throttle->clock);
    while (throttle->first) {
        struct block_request *request = throttle->first;
        uint64_t operations = starts_at(&throttle->operations), bytes = starts_at(&throttle->bytes);
        uint64_t start = operations > bytes ? operations : bytes;
        if (start > now && !throttle->hurried) {
            clock_timer_arm(&throttle->clock, throttle->timer, start);
            return;
        }
        throttle->first = request->next;
        if (!throttle->first)
            throttle->last = &throttle->first;
        charge(&throttle->operations, now, 1);
        if (request->op == BLOCK_READ || request->op == BLOCK_WRITE)
            charge(&throttle->bytes, now, request->length);
        block_forward(throttle->below, request);
    }
}

static void fire(void *context)
{
    struct throttle *throttle = context;
    dispatch(throttle);
    block_kick(throttle->below);
}

static void throttle_submit(struct block *block, struct block_request *request)
{
    struct throttle *throttle = throttle_of(block);
    if (request->op == BLOCK_FLUSH) {
        block_forward(throttle->below, request);
        return;
    }
    request->next = NULL;
    *throttle->last = request;
    throttle->last = &request->next;
}

static void throttle_kick(struct block *block)
{
    struct throttle *throttle = throttle_of(block);
    dispatch(throttle);
    block_kick(throttle->below);
}

static void throttle_hurry(struct block *block, bool on)
{
    throttle_of(block)->hurried = on;
    throttle_kick(block);
}

static int throttle_transfer(struct block *block, enum block_op op, unsigned flags, uint64_t offset, void *bytes, uint64_t length)
{
    return block_transfer(throttle_of(block)->below, op, flags, offset, bytes, length);
}

static int throttle_extent(struct block *block, uint64_t offset, uint64_t length, struct block_extent *ret_extent)
{
    return block_extent(throttle_of(block)->below, offset, length, ret_extent);
}

static int throttle_resize(struct block *block, uint64_t size, struct error *error)
{
    struct throttle *throttle = throttle_of(block);
    int status = block_resize(throttle->below, size, error);
    block->limits = throttle->below->limits;
    return status;
}

static int throttle_close(struct block *block)
{
    struct throttle *throttle = throttle_of(block);
    clock_timer_free(&throttle->clock, throttle->timer);
    int status = block_close(throttle->below);
    free(throttle);
    return status;
}

static const struct block_ops throttle_ops = {
    .name = "throttle", .submit = throttle_submit, .kick = throttle_kick, .transfer = throttle_transfer,
    .extent = throttle_extent, .resize = throttle_resize, .close = throttle_close,
    .hurry = throttle_hurry};

int throttle_new(struct block *below, const struct clock *clock, uint64_t iops, uint64_t bps, struct block **ret_block)
{
    struct throttle *throttle = calloc(1, sizeof *throttle);
    if (!throttle)
        return -ENOMEM;
    throttle->block = (struct block){.ops = &throttle_ops, .limits = below->limits};
    throttle->below = below;
    throttle->clock = *clock;
    throttle->operations.rate = iops;
    throttle->bytes.rate = bps;
    throttle->last = &throttle->first;
    throttle->timer = clock_timer_new(clock, fire, throttle);
    if (!throttle->timer) {
        free(throttle);
        return -ENOMEM;
    }
    *ret_block = &throttle->block;
    return 0;
}
