/* native.h - which guest instructions run on the host as they are, and how their bytes change for that. */
#ifndef VENEER_ENGINE_TRANSLATE_NATIVE_H
#define VENEER_ENGINE_TRANSLATE_NATIVE_H

#include <Zydis/Zydis.h>

#include "engine/translate/emit.h"

enum native_kind {
    NATIVE_NO,       /* interpret it */
    NATIVE_REGISTER, /* no memory operand: copy the bytes */
    NATIVE_MEMORY,   /* one explicit memory operand */
    NATIVE_LEA,      /* an address that is not accessed */
    NATIVE_PUSH, NATIVE_POP,  /* of a register or constant, 64 bits */
    NATIVE_JCC, NATIVE_JMP, NATIVE_CALL,  /* direct */
    NATIVE_JMP_INDIRECT, NATIVE_CALL_INDIRECT, NATIVE_RET,
    NATIVE_NOP,
    NATIVE_BITS, NATIVE_STRING, NATIVE_LEAVE, NATIVE_PUSH_MEMORY, /* special.h */
    NATIVE_SYSTEM, NATIVE_SWITCH, NATIVE_PUSHF, NATIVE_POPF, /* system.h */
    NATIVE_FLDCW, NATIVE_CPUID
};

/* What the compiler needs to know of one instruction. */
struct native {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    enum native_kind kind;
    const ZydisDecodedOperand *memory; /* the explicit memory operand, or NULL */
    unsigned size;       /* of the memory access, bytes */
    bool read, write;    /* of memory */
    bool vector;         /* uses XMM or YMM registers */
    bool x87;            /* uses x87 or MMX registers */
    bool unlocked;       /* its LOCK prefix is left out (compile.c) */
    bool reads_r10, reads_r11, writes_r10, writes_r11; /* as operands, not in the address */
    uint32_t flags_read, flags_undefined, flags_written; /* masks of arithmetic flags; written: certainly */
};

/* Classifies the instruction at `bytes` (64-bit code, complete). */
void native_classify(const ZydisDecoder *decoder, const uint8_t *bytes, unsigned length, struct native *ret_native);

/* Emits the instruction with its memory operand replaced by [address + index + disp]; index may be EMIT_NONE, but
 * not RSP. Without LOCK if n->unlocked. */
void native_emit_memory(struct emit *e, const struct native *n, const uint8_t *bytes, unsigned address, unsigned index,
                        int32_t disp);

/* The hardware number of a 64-bit address register, or EMIT_NONE. */
unsigned native_register(ZydisRegister reg);

#endif
