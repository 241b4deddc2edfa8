/* insn.h - one decoded instruction, ready to execute.
 *
 * x86_decode turns bytes into a struct x86_insn whose `exec` does the work on a struct x86_core.
 * Registers are byte offsets into x86_cpu.reg, so that AH..BH (offset + 1) need no case of their own, and
 * an address that lacks a base or index uses X86_ZERO. */
#ifndef VENEER_ISA_X86_INSN_H
#define VENEER_ISA_X86_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "isa/x86/state.h"

struct x86_core;
struct x86_insn;

/* Executes an instruction, and may go on with those that follow it in memory up to core->insn_end (common
 * ones do, see X86_NEXT), so whoever wants just one sets insn_end = insn + 1. On entry reg[X86_RIP] is already
 * the next instruction's address and core->insn is this instruction; on return it is the last one executed. A fault leaves by x86_raise (core.h), which does not return; until
 * everything that can fault has been checked, no architectural state may have changed. */
typedef void x86_exec_fn(struct x86_core *core, const struct x86_insn *insn);

/* What decoding depends on besides the bytes: derived from CS and EFER. */
enum x86_code_mode { X86_CODE16, X86_CODE32, X86_CODE64 };

#define X86_INSN_MAX 15 /* bytes */

/* x86_insn.flags */
#define X86_INSN_LOCK 0x0001u
#define X86_INSN_REP 0x0002u      /* F3 as a repeat prefix */
#define X86_INSN_REPNE 0x0004u    /* F2 as a repeat prefix */
#define X86_INSN_MEMORY 0x0008u   /* the r/m operand is memory */
#define X86_INSN_FLAT 0x0010u     /* 64-bit code and addresses, no FS/GS: base + index + disp is linear */
#define X86_INSN_ENDS 0x0020u     /* the last of its block: a branch, or what may change mode, paging,
                                     interrupts or the code itself */
#define X86_INSN_BRANCH 0x0040u   /* direct near branch; target = next RIP + imm */
#define X86_INSN_CONDITIONAL 0x0080u
#define X86_INSN_PRIVILEGED 0x0100u /* may depend on or change state other than registers and memory */

struct x86_insn {
    x86_exec_fn *exec;
    const void *host;   /* host code or table of a vector/x87 instruction (hostcall.h), or NULL */
    int64_t imm;        /* immediate, sign-extended; branch displacement; moffs address */
    int32_t disp;
    uint16_t flags;
    uint8_t length;     /* 1..15 bytes */
    uint8_t mode;       /* enum x86_code_mode it was decoded in */
    uint8_t opsize;     /* operand size in bytes: 1 2 4 8, or the vector/memory size 16, 32 ... */
    uint8_t addrsize;   /* 2 4 8 */
    uint8_t reg;        /* byte offset into reg[] of the reg operand (or vector register number) */
    uint8_t rm;         /* byte offset into reg[] of the r/m operand when not memory (or vector number) */
    uint8_t vvvv;       /* byte offset or vector number of the third operand */
    uint8_t base, index; /* byte offsets into reg[] */
    uint8_t scale;      /* shift: 0..3 */
    uint8_t seg;        /* enum x86_seg of the memory operand */
    uint8_t opcode;     /* last opcode byte */
    uint8_t modrm;      /* raw ModRM byte, for groups */
    uint8_t sub;        /* free for the exec function: condition code, shift kind, flags */
    uint8_t imm2;       /* ENTER's level, a far pointer's selector is imm >> 32, EXTRQ's second ... */
    uint8_t bytes[X86_INSN_MAX]; /* as fetched */
};

/* Decodes the instruction at `bytes`. Returns its length; or 0 when `available` (at most 15 are looked
 * at) is too short to tell. Invalid or unsupported encodings give a struct whose exec raises #UD (or #GP
 * when longer than 15 bytes), so the caller has no error case. The decoder (decode.h) says which
 * extensions exist and holds host code; it belongs to one thread. */
struct x86_decoder;
unsigned x86_decode(struct x86_decoder *decoder, enum x86_code_mode mode, const uint8_t *bytes,
                    size_t available, struct x86_insn *ret_insn);

#endif
