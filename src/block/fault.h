/* fault.h - a filter that makes a volume fail, by plan. For tests of what stands above it. */
#ifndef VENEER_BLOCK_FAULT_H
#define VENEER_BLOCK_FAULT_H

#include "block/block.h"

#define FAULT_HOLD 1

struct fault_plan {
    /* Asked once for each operation, blocking ones included, in their order. 0: it is done. A negative errno: it fails so
     * and is not done. FAULT_HOLD: a request waits for fault_release (a blocking one is done). */
    int (*decide)(void *context, enum block_op op, uint64_t offset, uint64_t length);
    void *context;
};

/* Takes `below`, unless it fails. 0 or -ENOMEM. */
int fault_new(struct block *below, const struct fault_plan *plan, struct block **ret_block);
/* Hands on up to `count` held requests, the oldest first, or the newest. Returns how many there were. */
unsigned fault_release(struct block *fault, unsigned count, bool newest);

#endif
