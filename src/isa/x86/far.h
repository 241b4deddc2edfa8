/* far.h - control transfers that load CS. Intel SDM 2: JMP, CALL, RET, IRET; 3A chapter 5.8. */
#ifndef VENEER_ISA_X86_FAR_H
#define VENEER_ISA_X86_FAR_H

#include "isa/x86/core.h"

/* Each runs inside an exec function: RIP is past the instruction, faults are raised with nothing changed.
 * opsize: 2 4 8 bytes. */
void x86_far_jump(struct x86_core *core, uint16_t selector, uint64_t offset, unsigned opsize);
void x86_far_call(struct x86_core *core, uint16_t selector, uint64_t offset, unsigned opsize);
/* release: bytes of parameters that RETF takes off the stack. */
void x86_far_return(struct x86_core *core, unsigned opsize, unsigned release);
void x86_iret(struct x86_core *core, unsigned opsize);

#endif
