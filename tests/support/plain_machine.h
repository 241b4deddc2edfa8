/* plain_machine.h - the answers of a machine without MSRs of its own and without task priority, for tests that have no more. */
#ifndef VENEER_TESTS_PLAIN_MACHINE_H
#define VENEER_TESTS_PLAIN_MACHINE_H

#include "engine/engine.h"

static inline int plain_msr_read(void *machine, unsigned vcpu, uint32_t msr, uint64_t *ret_value)
{
    (void)machine, (void)vcpu, (void)msr, (void)ret_value;
    return -1;
}

static inline int plain_msr_write(void *machine, unsigned vcpu, uint32_t msr, uint64_t value)
{
    (void)machine, (void)vcpu, (void)msr, (void)value;
    return -1;
}

static inline uint8_t plain_tpr_read(void *machine, unsigned vcpu)
{
    (void)machine, (void)vcpu;
    return 0;
}

static inline void plain_tpr_write(void *machine, unsigned vcpu, uint8_t cr8)
{
    (void)machine, (void)vcpu, (void)cr8;
}

/* In a struct engine_machine_ops. */
#define PLAIN_MACHINE_OPS                                                                                    \
    .msr_read = plain_msr_read, .msr_write = plain_msr_write, .tpr_read = plain_tpr_read, .tpr_write = plain_tpr_write

#endif
