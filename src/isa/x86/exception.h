/* exception.h - delivery of exceptions and interrupts, in every mode. Intel SDM 3A chapter 6. */
#ifndef VENEER_ISA_X86_EXCEPTION_H
#define VENEER_ISA_X86_EXCEPTION_H

#include "isa/x86/core.h"

#define X86_DR6_BD UINT64_C(0x2000) /* an access to a debug register with DR7.GD */
#define X86_DR6_BS UINT64_C(0x4000) /* single step */
#define X86_DR6_BT UINT64_C(0x8000) /* a task switch to a TSS with T set */

/* Delivers core->raised after an escape: RIP has been rewound for a fault. Handles faults while delivering:
 * #DF by table 6-5, then shutdown (cpu.activity = X86_SHUTDOWN) on a third. Uses an escape of its own and returns
 * normally in each case. Sets CR2 and DR6 as the vector demands, and RF in the pushed flags for faults. */
void x86_deliver_raised(struct x86_core *core);

/* Delivers an external interrupt or an NMI at an instruction boundary. Wakes a halted vCPU. */
void x86_deliver_interrupt(struct x86_core *core, uint8_t vector);
void x86_deliver_nmi(struct x86_core *core);

/* Delivers cpu.event, which another engine accepted and left behind; without one does nothing. */
void x86_deliver_pending(struct x86_core *core);

/* True when a maskable interrupt may be taken now: IF set, no STI or MOV SS shadow, no event pending. */
static inline bool x86_interruptible(const struct x86_core *core)
{
    return (core->cpu.rflags & X86_FLAG_IF) && !core->cpu.sti_shadow && !core->cpu.mov_ss_shadow;
}

/* The single-step trap and data-breakpoint traps that the instruction just finished caused (TF as it
 * was before it: `traced`); call after each instruction while core->debug_armed. True when #DB was delivered. */
bool x86_after_insn_debug(struct x86_core *core, bool traced);
/* The instruction breakpoint check before an instruction; true when #DB was delivered instead. */
bool x86_before_insn_debug(struct x86_core *core);

/* INT n / INT3 / INTO / INT1 and friends, from an exec function (RIP is past the instruction). */
void x86_software_interrupt(struct x86_core *core, uint8_t vector, bool is_int3_or_into, bool is_int1);

#endif
