/* task.h - hardware task switches. Intel SDM 3A chapter 7. Legacy protected mode only. */
#ifndef VENEER_ISA_X86_TASK_H
#define VENEER_ISA_X86_TASK_H

#include "isa/x86/segment.h"

enum x86_task_source { X86_TASK_JUMP, X86_TASK_CALL, X86_TASK_GATE, X86_TASK_RETURN };

/* Switches to the task whose TSS `selector` names; *tss is its descriptor, of which only the type class
 * has been checked. RIP is the old task's resume address. Raises #TS, #NP, #SS, #GP, #PF: in the old task
 * until the new state is loaded, in the new task after that; `rewind` is what the runner will subtract from
 * RIP on such a fault (the length of the instruction, or 0 while an event is delivered). */
void x86_task_switch(struct x86_core *core, uint16_t selector, const struct x86_descriptor *tss,
                     enum x86_task_source source, unsigned ext, unsigned rewind);

/* Follows a task gate found in a descriptor table to its TSS, which must be available. Raises #GP, #NP or #TS. */
void x86_task_gate(struct x86_core *core, const struct x86_descriptor *gate, enum x86_task_source source,
                   unsigned ext, unsigned rewind);

/* IRET with EFLAGS.NT set: returns to the task that the current TSS links to. */
void x86_task_return(struct x86_core *core, unsigned rewind);

#endif
