/* exec_muldiv.c - MUL IMUL DIV IDIV. A division that would fault on the host is refused before: #DE. */
#include "isa/x86/integer_exec.h"

/* The accumulator goes through another register, as AX carries the flags in and out. */
#define MULTIPLY(op, instruction, bits, a)                                                                   \
    X86_INLINE void op##bits(struct x86_core *core, x86_u##bits s)                                           \
    {                                                                                                        \
        x86_u##bits low = x86_get##bits(core, X86_RAX * 8), high;                                            \
        uint64_t ax = x86_flags_ax(core->cpu.rflags);                                                        \
        __asm__(X86_FLAGS_IN "mov %[low], %%" a "\n\t" instruction " %[s]\n\tmov %%" a ", %[low]"            \
                X86_FLAGS_OUT : "+&a"(ax), [low] "+&r"(low), "=&d"(high) : [s] "r"(s) : "cc");               \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, (uint32_t)ax);                                  \
        x86_set##bits(core, X86_RAX * 8, low);                                                               \
        x86_set##bits(core, X86_RDX * 8, high);                                                              \
    }

/* AX = AL * s. */
#define MULTIPLY8(op, instruction)                                                                           \
    X86_INLINE void op##8(struct x86_core *core, uint8_t s)                                                  \
    {                                                                                                        \
        uint16_t product;                                                                                    \
        uint8_t al = x86_get8(core, X86_RAX * 8);                                                            \
        uint64_t ax = x86_flags_ax(core->cpu.rflags);                                                        \
        __asm__(X86_FLAGS_IN "mov %[al], %%al\n\t" instruction " %[s]\n\tmov %%ax, %[product]"               \
                X86_FLAGS_OUT : "+&a"(ax), [product] "=&r"(product) : [s] "r"(s), [al] "r"(al) : "cc");      \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, (uint32_t)ax);                                  \
        x86_set16(core, X86_RAX * 8, product);                                                               \
    }

MULTIPLY8(mul, "mulb")
MULTIPLY(mul, "mulw", 16, "ax")
MULTIPLY(mul, "mull", 32, "eax")
MULTIPLY(mul, "mulq", 64, "rax")
MULTIPLY8(imul, "imulb")
MULTIPLY(imul, "imulw", 16, "ax")
MULTIPLY(imul, "imull", 32, "eax")
MULTIPLY(imul, "imulq", 64, "rax")

typedef unsigned __int128 u128;

static bool div_fits(u128 dividend, uint64_t divisor, unsigned bits)
{
    return divisor != 0 && dividend >> bits < divisor;
}

/* |dividend| / |divisor| must stay below 2^(bits-1), or reach it when the quotient is negative. */
static bool idiv_fits(__int128 dividend, int64_t divisor, unsigned bits)
{
    bool negative = (dividend < 0) != (divisor < 0);
    u128 from = dividend < 0 ? -(u128)dividend : (u128)dividend;
    u128 by = divisor < 0 ? -(u128)(__int128)divisor : (u128)divisor;

    return divisor != 0 && from < (by << (bits - 1)) + (negative ? by : 0);
}

#define DIVIDE(op, instruction, bits, a, wide_type, narrow_type)                                             \
    X86_INLINE void op##bits(struct x86_core *core, x86_u##bits s)                                           \
    {                                                                                                        \
        x86_u##bits low = x86_get##bits(core, X86_RAX * 8), high = x86_get##bits(core, X86_RDX * 8);         \
        uint64_t ax = x86_flags_ax(core->cpu.rflags);                                                        \
        if (!op##_fits((wide_type)((u128)high << bits | low), (narrow_type)s, bits))                         \
            x86_raise(core, X86_DE, 0);                                                                      \
        __asm__(X86_FLAGS_IN "mov %[low], %%" a "\n\t" instruction " %[s]\n\tmov %%" a ", %[low]"            \
                X86_FLAGS_OUT : "+&a"(ax), [low] "+&r"(low), "+&d"(high) : [s] "r"(s) : "cc");               \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, (uint32_t)ax);                                  \
        x86_set##bits(core, X86_RAX * 8, low);                                                               \
        x86_set##bits(core, X86_RDX * 8, high);                                                              \
    }

/* AL = AX / s, AH = the remainder. */
#define DIVIDE8(op, instruction, wide_type, narrow_type)                                                     \
    X86_INLINE void op##8(struct x86_core *core, uint8_t s)                                                  \
    {                                                                                                        \
        uint16_t value = x86_get16(core, X86_RAX * 8);                                                       \
        uint64_t ax = x86_flags_ax(core->cpu.rflags);                                                        \
        if (!op##_fits((wide_type)value, (narrow_type)s, 8))                                                 \
            x86_raise(core, X86_DE, 0);                                                                      \
        __asm__(X86_FLAGS_IN "mov %[value], %%ax\n\t" instruction " %[s]\n\tmov %%ax, %[value]"              \
                X86_FLAGS_OUT : "+&a"(ax), [value] "+&r"(value) : [s] "r"(s) : "cc");                        \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, (uint32_t)ax);                                  \
        x86_set16(core, X86_RAX * 8, value);                                                                 \
    }

DIVIDE8(div, "divb", uint16_t, uint8_t)
DIVIDE(div, "divw", 16, "ax", u128, uint16_t)
DIVIDE(div, "divl", 32, "eax", u128, uint32_t)
DIVIDE(div, "divq", 64, "rax", u128, uint64_t)
DIVIDE8(idiv, "idivb", int16_t, int8_t)
DIVIDE(idiv, "idivw", 16, "ax", int32_t, int16_t)
DIVIDE(idiv, "idivl", 32, "eax", int64_t, int32_t)
DIVIDE(idiv, "idivq", 64, "rax", __int128, int64_t)

#define ACCUMULATOR_EXEC(op, bits)                                                                           \
    static void op##bits##_r(struct x86_core *core, const struct x86_insn *insn)                             \
    {                                                                                                        \
        op##bits(core, x86_get##bits(core, insn->reg));                                                      \
    }                                                                                                        \
    static void op##bits##_m(struct x86_core *core, const struct x86_insn *insn)                             \
    {                                                                                                        \
        op##bits(core, x86_load##bits(core, x86_linear(core, insn, bits / 8, false)));                       \
    }
#define ACCUMULATOR_SIZES(op)                                                                                \
    ACCUMULATOR_EXEC(op, 8) ACCUMULATOR_EXEC(op, 16) ACCUMULATOR_EXEC(op, 32) ACCUMULATOR_EXEC(op, 64)
ACCUMULATOR_SIZES(mul)
ACCUMULATOR_SIZES(imul)
ACCUMULATOR_SIZES(div)
ACCUMULATOR_SIZES(idiv)

#define ACCUMULATOR_TABLE(op) { X86_SIZES(op, r), X86_SIZES(op, m) }
static x86_exec_fn *const accumulator[][2][4] = {
    [X86_MUL] = ACCUMULATOR_TABLE(mul),
    [X86_IMUL] = ACCUMULATOR_TABLE(imul),
    [X86_DIV] = ACCUMULATOR_TABLE(div),
    [X86_IDIV] = ACCUMULATOR_TABLE(idiv),
};

/* IMUL with two and three operands: the low half of the product. */
#define PRODUCT(bits, suffix)                                                                                \
    X86_INLINE x86_u##bits product##bits(struct x86_core *core, x86_u##bits d, x86_u##bits s)                \
    {                                                                                                        \
        uint32_t ax = x86_flags_ax(core->cpu.rflags);                                                        \
        __asm__(X86_FLAGS_IN "imul" suffix " %[s], %[d]" X86_FLAGS_OUT                                       \
                : [d] "+&r"(d), "+&a"(ax) : [s] "r"(s) : "cc");                                              \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, ax);                                            \
        return d;                                                                                            \
    }                                                                                                        \
    static void product##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                       \
    {                                                                                                        \
        x86_set##bits(core, insn->reg,                                                                       \
                      product##bits(core, x86_get##bits(core, insn->reg), x86_get##bits(core, insn->rm)));   \
    }                                                                                                        \
    static void product##bits##_rm(struct x86_core *core, const struct x86_insn *insn)                       \
    {                                                                                                        \
        x86_u##bits s = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        x86_set##bits(core, insn->reg, product##bits(core, x86_get##bits(core, insn->reg), s));              \
    }                                                                                                        \
    static void product##bits##_rri(struct x86_core *core, const struct x86_insn *insn)                      \
    {                                                                                                        \
        x86_set##bits(core, insn->reg,                                                                       \
                      product##bits(core, x86_get##bits(core, insn->rm), (x86_u##bits)insn->imm));           \
    }                                                                                                        \
    static void product##bits##_rmi(struct x86_core *core, const struct x86_insn *insn)                      \
    {                                                                                                        \
        x86_u##bits s = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        x86_set##bits(core, insn->reg, product##bits(core, s, (x86_u##bits)insn->imm));                      \
    }
PRODUCT(16, "w")
PRODUCT(32, "l")
PRODUCT(64, "q")

static x86_exec_fn *const product[2][2][4] = {
    { X86_WIDE_SIZES(product, rr), X86_WIDE_SIZES(product, rm) },
    { X86_WIDE_SIZES(product, rri), X86_WIDE_SIZES(product, rmi) },
};

x86_exec_fn *x86_group_muldiv(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);
    unsigned size = x86_size_index(insn->opsize);
    unsigned explicit = 0;

    for (unsigned i = 0; i < z->insn.operand_count; i++)
        explicit += z->operand[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
    if (explicit >= 2) /* IMUL */
        return product[explicit == 3][form == X86_RM][size];
    if (!(insn->flags & X86_INSN_MEMORY))
        insn->reg = insn->rm;
    return accumulator[what][(insn->flags & X86_INSN_MEMORY) != 0][size];
}
