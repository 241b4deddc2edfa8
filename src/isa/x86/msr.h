/* msr.h - model-specific registers. Intel SDM 4; AMD APM 2 appendix A. */
#ifndef VENEER_ISA_X86_MSR_H
#define VENEER_ISA_X86_MSR_H

#include "isa/x86/core.h"

/* RDMSR and WRMSR of a register, at any privilege (the caller checked). Return 0, or -1: #GP(0).
 * Writing one may change mode or paging; the caller's instruction ends its block. */
int x86_msr_read(struct x86_core *core, uint32_t msr, uint64_t *ret_value);
int x86_msr_write(struct x86_core *core, uint32_t msr, uint64_t value);

/* The guest's time-stamp counter now. */
uint64_t x86_tsc(const struct x86_core *core);

/* True when each byte of a PAT value is a memory type: 0 1 4 5 6 7. */
static inline bool x86_pat_valid(uint64_t pat)
{
    for (unsigned i = 0; i < 64; i += 8) {
        unsigned type = pat >> i & 0xff;
        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

#endif
