/* vcpu.h - the interpreter's VM and vCPU, shared by interpret.c (the engine's operations) and run.c (the loop). */
#ifndef VENEER_ENGINE_SOFT_VCPU_H
#define VENEER_ENGINE_SOFT_VCPU_H

#include <pthread.h>
#include <setjmp.h>

#include "engine/engine.h"
#include "engine/soft/block.h"
#include "engine/soft/codemap.h"
#include "engine/soft/exclusive.h"
#include "engine/soft/tier.h"
#include "isa/x86/core.h"
#include "isa/x86/decode.h"

/* Bits of core.attention: why a vCPU should leave its loop. */
#define ATTENTION_KICK 0x01u
#define ATTENTION_INTERRUPT 0x02u /* engine_ops.interrupt */
#define ATTENTION_NMI 0x04u
#define ATTENTION_STALE 0x08u     /* vcpu.stale has entries */
#define ATTENTION_EXCLUSIVE 0x10u /* another vCPU wants to be alone */

/* Ranges of code that others wrote to. The vCPU drops its blocks of them before it executes another. One that the host does
 * not run for a while, or that is halted, gathers many: dropping everything then costs far more than the room. */
#define STALE_RANGES 256u
struct stale_queue {
    pthread_mutex_t lock;
    unsigned count;
    bool overflow; /* there were more: drop everything */
    struct {
        uint64_t gpa;
        unsigned length; /* within one page */
    } range[STALE_RANGES];
};

struct vcpu_stats {
    uint64_t blocks, instructions; /* executed; a block left early counts whole */
    uint64_t interpreted;          /* single instructions, for a tier */
    uint64_t interrupts, exceptions, uncached;
};

struct engine_vcpu {
    struct x86_core core;
    struct engine_vm *vm;
    unsigned index;
    bool interrupt_waiting; /* the machine may have an interrupt that was not deliverable so far */
    bool kicked;
    jmp_buf escape;
    struct x86_decoder decoder;
    struct x86_insn alone; /* the instruction that executes without a block */
    struct stale_queue stale;
    struct exclusive_member member;
    struct vcpu_stats stats;
    struct block_cache cache;
};

struct engine_vm {
    struct engine_config config;
    const struct tier_ops *tier; /* NULL: interpret all */
    struct code_map map;
    struct exclusive exclusive;
    struct exclusive_member outsider; /* who stops all vCPUs from outside */
    pthread_mutex_t outsider_lock;    /* held by whoever is the outsider */
    struct engine_vcpu *vcpu[CODE_HOLDERS];
};

/* Around every call of the machine: see exclusive.h. On the vCPU's thread. */
static inline void vcpu_outside_begin(struct engine_vcpu *vcpu)
{
    exclusive_leave(&vcpu->vm->exclusive, &vcpu->member);
}
static inline void vcpu_outside_end(struct engine_vcpu *vcpu)
{
    exclusive_enter(&vcpu->vm->exclusive, &vcpu->member);
}

/* What one vCPU may take for code (soft.c): a tier leaves the first half of it to decoded blocks. */
size_t soft_code_share(const struct engine_vm *vm);

/* engine_ops.run (run.c). */
int soft_run(struct engine_vcpu *vcpu, struct engine_exit *ret_exit);

#endif
