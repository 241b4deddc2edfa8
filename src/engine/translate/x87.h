/* x87.h - x87 and MMX instructions as host code, on the guest's x87 state in the host's registers. */
#ifndef VENEER_ENGINE_TRANSLATE_X87_H
#define VENEER_ENGINE_TRANSLATE_X87_H

#include "engine/translate/native.h"
#include "engine/translate/vcpu.h"

/* True when the instruction is an x87 one by its encoding, whether or not it runs as it is. */
bool x87_encoding(const ZydisDecodedInstruction *insn);

/* True when the x87 or MMX instruction may run as host code while the state is resident. */
bool x87_runs(const ZydisDecodedInstruction *insn);

/* The guest's x87 state may be resident: no instruction on it is due an exception, and none that runs as host
 * code can leave one pending, since all are masked. */
bool x87_allowed(const struct x86_cpu *cpu);

/* Emit the load of the guest's state and the save of it, which leaves the host's state as C code wants it.
 * They keep the flags and change RAX, RDX and R10. */
void x87_emit_load(struct emit *e, const struct translate_vcpu *t);
void x87_emit_save(struct emit *e, const struct translate_vcpu *t);

#endif
