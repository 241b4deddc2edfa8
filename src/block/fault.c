#include "block/fault.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

struct fault {
    struct block block;
    struct block *below;
    struct fault_plan plan;
    struct block_request *failed; /* completed by the next kick */
    struct block_request *held;   /* the newest first */
};

static struct fault *fault_of(struct block *block)
{
    return (struct fault *)((char *)block - offsetof(struct fault, block));
}

static void fault_submit(struct block *block, struct block_request *request)
{
    struct fault *fault = fault_of(block);
    int verdict = fault->plan.decide(fault->plan.context, request->op, request->offset, request->length);
    if (verdict == 0) {
        block_forward(fault->below, request);
        return;
    }
    struct block_request **list = verdict < 0 ? &fault->failed : &fault->held;
    request->done = verdict < 0 ? (uint64_t)-verdict : 0;
    request->next = *list;
    *list = request;
}

static void fault_kick(struct block *block)
{
    struct fault *fault = fault_of(block);
    while (fault->failed) {
        struct block_request *request = fault->failed;
        fault->failed = request->next;
        block_complete(request, -(int)request->done);
    }
    block_kick(fault->below);
}

unsigned fault_release(struct block *block, unsigned count, bool newest)
{
    struct fault *fault = fault_of(block);
    unsigned released = 0;
    while (released < count && fault->held) {
        struct block_request **link = &fault->held;
        while (!newest && (*link)->next)
            link = &(*link)->next;
        struct block_request *request = *link;
        *link = request->next;
        request->next = NULL;
        block_forward(fault->below, request);
        released++;
    }
    block_kick(fault->below);
    return released;
}

static int fault_transfer(struct block *block, enum block_op op, unsigned flags, uint64_t offset, void *bytes, uint64_t length)
{
    struct fault *fault = fault_of(block);
    int verdict = fault->plan.decide(fault->plan.context, op, offset, length);
    return verdict < 0 ? verdict : block_transfer(fault->below, op, flags, offset, bytes, length);
}

static int fault_extent(struct block *block, uint64_t offset, uint64_t length, struct block_extent *ret_extent)
{
    return block_extent(fault_of(block)->below, offset, length, ret_extent);
}

static int fault_resize(struct block *block, uint64_t size, struct error *error)
{
    struct fault *fault = fault_of(block);
    int status = block_resize(fault->below, size, error);
    block->limits = fault->below->limits;
    return status;
}

static int fault_close(struct block *block)
{
    struct fault *fault = fault_of(block);
    int status = block_close(fault->below);
    free(fault);
    return status;
}

static const struct block_ops fault_ops = {
    .name = "fault", .submit = fault_submit, .kick = fault_kick, .transfer = fault_transfer, .extent = fault_extent,
    .resize = fault_resize, .close = fault_close};

int fault_new(struct block *below, const struct fault_plan *plan, struct block **ret_block)
{
    struct fault *fault = calloc(1, sizeof *fault);
    if (!fault)
        return -ENOMEM;
    fault->block = (struct block){.ops = &fault_ops, .limits = below->limits};
    fault->below = below;
    fault->plan = *plan;
    *ret_block = &fault->block;
    return 0;
}
