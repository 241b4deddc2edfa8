/* integer.h - how the integer family is put together: groups of mnemonics, operand forms.
 *
 * Private to exec_*.c of this family. exec_integer.c pairs each mnemonic with a group function and the number of
 * the operation within it; the group picks the exec function by operand form and size. */
#ifndef VENEER_ISA_X86_INTEGER_H
#define VENEER_ISA_X86_INTEGER_H

#include "isa/x86/decode.h"
#include "isa/x86/insn.h"

/* Operand forms of a destination (and first source) and a source. After x86_form, insn->reg is the
 * destination register (the source register when the destination is memory), and insn->rm the source
 * register of FORM_RR. */
enum x86_form { X86_RR, X86_RM, X86_MR, X86_RI, X86_MI, X86_R, X86_M, X86_NO_FORM };
#define X86_FORMS 5 /* binary ones */
enum x86_form x86_form(const struct x86_zydis *z, struct x86_insn *insn);

/* 0..3 for an operand of 1, 2, 4 or 8 bytes. */
static inline unsigned x86_size_index(unsigned bytes) { return (unsigned)__builtin_ctz(bytes | 8) & 3; }

/* The groups: each gives the exec function of operation `what` (numbered as the group likes) in the form
 * and size at hand, or NULL. */
typedef x86_exec_fn *x86_group_fn(const struct x86_zydis *z, struct x86_insn *insn, unsigned what);
x86_group_fn x86_group_alu, x86_group_unary, x86_group_move, x86_group_extend, x86_group_condition,
    x86_group_stack, x86_group_branch, x86_group_shift, x86_group_double_shift, x86_group_muldiv, x86_group_bit,
    x86_group_scan, x86_group_crc32, x86_group_bmi, x86_group_exchange, x86_group_string, x86_group_misc;

/* XCHG of the registers insn->reg and insn->rm. */
x86_exec_fn *x86_exec_xchg(unsigned size);

enum x86_alu { X86_ADD, X86_OR, X86_ADC, X86_SBB, X86_AND, X86_SUB, X86_XOR, X86_CMP, X86_TEST };
enum x86_unary { X86_INC, X86_DEC, X86_NEG, X86_NOT };
enum x86_move { X86_MOV, X86_LEA, X86_MOVBE, X86_BSWAP, X86_XLAT, X86_WIDEN_LOW, X86_WIDEN_HIGH };
enum x86_extend { X86_ZERO_EXTEND, X86_SIGN_EXTEND };
enum x86_conditional { X86_CMOV, X86_SET }; /* what: kind << 4 | condition */
enum x86_stack { X86_PUSH, X86_POP, X86_PUSHA, X86_POPA, X86_ENTER, X86_LEAVE };
enum x86_branch { X86_JMP, X86_CALL, X86_RET, X86_JCXZ, X86_LOOP, X86_LOOPE, X86_LOOPNE, X86_JCC = 16 };
enum x86_shift { X86_ROL, X86_ROR, X86_RCL, X86_RCR, X86_SHL, X86_SHR, X86_SAR };
enum x86_muldiv { X86_MUL, X86_IMUL, X86_DIV, X86_IDIV };
enum x86_bit { X86_BT, X86_BTS, X86_BTR, X86_BTC };
enum x86_scan { X86_BSF, X86_BSR, X86_TZCNT, X86_LZCNT, X86_POPCNT };
enum x86_bmi {
    X86_ANDN, X86_BEXTR, X86_BLSI, X86_BLSMSK, X86_BLSR, X86_BZHI, X86_MULX, X86_PDEP, X86_PEXT, X86_RORX,
    X86_SARX, X86_SHLX, X86_SHRX, X86_ADCX, X86_ADOX
};
enum x86_exchange { X86_XCHG, X86_XADD, X86_CMPXCHG, X86_CMPXCHG8B, X86_CMPXCHG16B };
enum x86_string { X86_MOVS, X86_STOS, X86_LODS, X86_CMPS, X86_SCAS };
enum x86_misc {
    X86_NOP, X86_PAUSE, X86_CLC, X86_STC, X86_CMC, X86_CLD, X86_STD, X86_LAHF, X86_SAHF, X86_LFENCE, X86_SFENCE,
    X86_MFENCE, X86_CLFLUSH, X86_RDRAND, X86_RDSEED, X86_BOUND, X86_UNDEFINED, X86_AAA, X86_AAS, X86_AAM, X86_AAD,
    X86_DAA, X86_DAS, X86_SALC
};

#endif
