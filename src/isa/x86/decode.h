/* decode.h - from bytes to struct x86_insn, by Zydis; and the seam to the exec functions.
 *
 * decode.c runs Zydis and fills the operands; then each family in turn is asked for the exec function by
 * mnemonic: integer, system, vector. A mnemonic belongs to one family. A family may change any field of
 * the insn, and may set `host`. */
#ifndef VENEER_ISA_X86_DECODE_H
#define VENEER_ISA_X86_DECODE_H

#include <Zydis/Zydis.h>

#include "isa/x86/cpuid.h"
#include "isa/x86/insn.h"

struct x86_hostcode; /* hostcode.h: host thunks for vector and x87 instructions */

/* What decoding needs; one per core, used on its thread only. */
struct x86_decoder {
    const struct x86_cpuid *cpuid;
    struct x86_hostcode *host;
    ZydisDecoder zydis[3]; /* by enum x86_code_mode */
};

/* Returns 0 or a negative errno. cpuid must outlive the decoder. */
int x86_decoder_init(struct x86_decoder *ret_decoder, const struct x86_cpuid *cpuid, struct error *error);
void x86_decoder_destroy(struct x86_decoder *decoder);

/* Zydis's view of the instruction being decoded. */
struct x86_zydis {
    struct x86_decoder *decoder;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
};

/* What decode.c has filled in before a family is asked:
 *   opsize    the effective operand size by prefixes and mode (1 for byte forms), from Zydis's operand_width
 *   reg       the operand in ModRM.reg or in the opcode; rm: in ModRM.rm; vvvv: in VEX.vvvv
 *   base, index, scale, disp, seg   the memory operand, implied ones included (the one whose segment a prefix
 *             overrides); X86_INSN_MEMORY only when it is the ModRM.rm operand
 *   imm, imm2 first and second immediate, sign-extended where the instruction does; moffs; far pointer
 *   flags     X86_INSN_LOCK, X86_INSN_REP or REPNE (string instructions only), MEMORY, FLAT
 * Zydis has already refused LOCK where it is not allowed. */

/* General registers (RIP and none included): byte offset into x86_cpu.reg; others: their number. */
unsigned x86_register_number(ZydisRegister reg);

/* Each returns the exec function, or NULL when the mnemonic or form is not of this family. */
x86_exec_fn *x86_select_integer(const struct x86_zydis *z, struct x86_insn *insn);
x86_exec_fn *x86_select_system(const struct x86_zydis *z, struct x86_insn *insn);
x86_exec_fn *x86_select_vector(const struct x86_zydis *z, struct x86_insn *insn);

/* exec functions of what cannot be executed. */
void x86_exec_ud(struct x86_core *core, const struct x86_insn *insn);
void x86_exec_gp(struct x86_core *core, const struct x86_insn *insn);

/* True when the model has the Zydis ISA extension of this instruction (decode.c refuses it otherwise). */
bool x86_cpuid_allows(const struct x86_cpuid *cpuid, const ZydisDecodedInstruction *insn);

#endif
