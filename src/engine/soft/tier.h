/* tier.h - what a faster way to execute blocks plugs into the software vCPU's loop.
 *
 * The loop (run.c) finds the block at RIP and offers it to the tier, which executes it, and as much of what
 * follows as it likes, or declines, whereupon the loop interprets the block. A tier never changes what is
 * executed, only how. All on the vCPU's thread. */
#ifndef VENEER_ENGINE_SOFT_TIER_H
#define VENEER_ENGINE_SOFT_TIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "isa/x86/core.h"

struct block;
struct engine_vcpu;

struct tier_ops {
    size_t vcpu_size; /* of the structure that starts with a struct engine_vcpu; zeroed before open */
    int (*open)(struct engine_vcpu *vcpu, struct error *error);
    void (*close)(struct engine_vcpu *vcpu);
    /* The calling thread is about to run the vCPU. */
    void (*thread)(struct engine_vcpu *vcpu);
    /* Executes from the start of `block`, to which RIP = linear leads, in 64-bit code without debugging or
     * shadows. False: declined, nothing happened. *ret_plain: whether the loop may go on without a look at
     * mode, interrupts and activity. May leave by core->escape. */
    bool (*run)(struct engine_vcpu *vcpu, struct block *block, uint64_t linear, bool *ret_plain);
    /* The block's code changed, or its memory is needed; all of them. */
    void (*dropped)(struct engine_vcpu *vcpu, struct block *block);
    void (*flushed)(struct engine_vcpu *vcpu);
    /* The page with this flag byte gets RAM_PAGE_CODE: from now on the tier's own stores to it are made known
     * (env.code_written). All vCPUs are stopped; called for each of them, on the thread of one. */
    void (*code_appears)(struct engine_vcpu *vcpu, const uint8_t *flags);
    /* As in struct x86_env_ops. */
    void (*mapping_changed)(struct engine_vcpu *vcpu, enum x86_flush scope, uint64_t linear);
    void (*stats)(const struct engine_vcpu *vcpu, FILE *out);
};

#endif
