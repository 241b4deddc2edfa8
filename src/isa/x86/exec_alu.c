/* exec_alu.c - ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT; with LOCK too. SDM 2A/2B. */
#include "isa/x86/integer_exec.h"

/* type op##bits(type d, type s, uint64_t *rflags) by the host's own `op`. */
#define ALU(op, instruction, bits)                                                                           \
    X86_INLINE x86_u##bits op##bits(x86_u##bits d, x86_u##bits s, uint64_t *rflags)                          \
    {                                                                                                        \
        uint32_t ax;                                                                                         \
        __asm__(instruction " %[s], %[d]" X86_FLAGS_OUT : [d] "+r"(d), "=&a"(ax) : [s] "r"(s) : "cc");       \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
        return d;                                                                                            \
    }                                                                                                        \
    X86_INLINE void op##_locked##bits(x86_u##bits *p, x86_u##bits s, uint64_t *rflags)                       \
    {                                                                                                        \
        uint32_t ax;                                                                                         \
        __asm__ volatile("lock " instruction " %[s], %[p]" X86_FLAGS_OUT                                     \
                         : [p] "+m"(*p), "=&a"(ax) : [s] "r"(s) : "cc", "memory");                           \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
    }

/* The same with the carry flag as input. */
#define ALU_CARRY(op, instruction, bits)                                                                     \
    X86_INLINE x86_u##bits op##bits(x86_u##bits d, x86_u##bits s, uint64_t *rflags)                          \
    {                                                                                                        \
        uint32_t ax;                                                                                         \
        __asm__("btl $0, %k[f]\n\t" instruction " %[s], %[d]" X86_FLAGS_OUT                                  \
                : [d] "+r"(d), "=&a"(ax) : [s] "r"(s), [f] "r"(*rflags) : "cc");                             \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
        return d;                                                                                            \
    }                                                                                                        \
    X86_INLINE void op##_locked##bits(x86_u##bits *p, x86_u##bits s, uint64_t *rflags)                       \
    {                                                                                                        \
        uint32_t ax;                                                                                         \
        __asm__ volatile("btl $0, %k[f]\n\tlock " instruction " %[s], %[p]" X86_FLAGS_OUT                    \
                         : [p] "+m"(*p), "=&a"(ax) : [s] "r"(s), [f] "r"(*rflags) : "cc", "memory");         \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
    }

#define COMPARE(op, instruction, bits)                                                                       \
    X86_INLINE void op##bits(x86_u##bits d, x86_u##bits s, uint64_t *rflags)                                 \
    {                                                                                                        \
        uint32_t ax;                                                                                         \
        __asm__(instruction " %[s], %[d]" X86_FLAGS_OUT : "=&a"(ax) : [d] "r"(d), [s] "r"(s) : "cc");        \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
    }

#define LOCKED_EXEC(op, bits)                                                                                \
    X86_MODIFY_EXEC(op##_locked##bits##_mr, bits,                                                            \
                    op##_locked##bits(p, x86_get##bits(core, insn->reg), &core->cpu.rflags), true)           \
    X86_MODIFY_EXEC(op##_locked##bits##_mi, bits,                                                            \
                    op##_locked##bits(p, (x86_u##bits)insn->imm, &core->cpu.rflags), true)

#define ALL_SIZES(define, op, instruction)                                                                   \
    define(op, instruction "b", 8) define(op, instruction "w", 16) define(op, instruction "l", 32)           \
    define(op, instruction "q", 64)
#define WRITING(op) X86_BINARY_EXEC(op, 8) X86_BINARY_EXEC(op, 16) X86_BINARY_EXEC(op, 32)                   \
    X86_BINARY_EXEC(op, 64) LOCKED_EXEC(op, 8) LOCKED_EXEC(op, 16) LOCKED_EXEC(op, 32) LOCKED_EXEC(op, 64)
#define COMPARING(op) X86_COMPARE_EXEC(op, 8) X86_COMPARE_EXEC(op, 16) X86_COMPARE_EXEC(op, 32)              \
    X86_COMPARE_EXEC(op, 64)

ALL_SIZES(ALU, add, "add") WRITING(add)
ALL_SIZES(ALU, or, "or") WRITING(or)
ALL_SIZES(ALU_CARRY, adc, "adc") WRITING(adc)
ALL_SIZES(ALU_CARRY, sbb, "sbb") WRITING(sbb)
ALL_SIZES(ALU, and, "and") WRITING(and)
ALL_SIZES(ALU, sub, "sub") WRITING(sub)
ALL_SIZES(ALU, xor, "xor") WRITING(xor)
ALL_SIZES(COMPARE, cmp, "cmp") COMPARING(cmp)
ALL_SIZES(COMPARE, test, "test") COMPARING(test)

static x86_exec_fn *const alu[][X86_FORMS][4] = {
    [X86_ADD] = X86_FORM_TABLE(add), [X86_OR] = X86_FORM_TABLE(or),   [X86_ADC] = X86_FORM_TABLE(adc),
    [X86_SBB] = X86_FORM_TABLE(sbb), [X86_AND] = X86_FORM_TABLE(and), [X86_SUB] = X86_FORM_TABLE(sub),
    [X86_XOR] = X86_FORM_TABLE(xor), [X86_CMP] = X86_FORM_TABLE(cmp), [X86_TEST] = X86_FORM_TABLE(test),
};

#define LOCKED_TABLE(op) { X86_SIZES(op##_locked, mr), X86_SIZES(op##_locked, mi) }
static x86_exec_fn *const alu_locked[][2][4] = {
    [X86_ADD] = LOCKED_TABLE(add), [X86_OR] = LOCKED_TABLE(or),   [X86_ADC] = LOCKED_TABLE(adc),
    [X86_SBB] = LOCKED_TABLE(sbb), [X86_AND] = LOCKED_TABLE(and), [X86_SUB] = LOCKED_TABLE(sub),
    [X86_XOR] = LOCKED_TABLE(xor),
};

x86_exec_fn *x86_group_alu(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);
    unsigned size = x86_size_index(insn->opsize);

    if (form >= X86_FORMS)
        return NULL;
    if (insn->flags & X86_INSN_LOCK) {
        if (what > X86_XOR || (form != X86_MR && form != X86_MI))
            return NULL;
        return alu_locked[what][form == X86_MI][size];
    }
    return alu[what][form][size];
}

#define UNARY(op, instruction, bits, merge)                                                                  \
    X86_INLINE x86_u##bits op##bits(x86_u##bits d, uint64_t *rflags)                                         \
    {                                                                                                        \
        uint32_t ax;                                                                                         \
        __asm__(instruction " %[d]" X86_FLAGS_OUT : [d] "+r"(d), "=&a"(ax) : : "cc");                        \
        *rflags = merge(*rflags, ax);                                                                        \
        return d;                                                                                            \
    }                                                                                                        \
    X86_INLINE void op##_locked##bits(x86_u##bits *p, uint64_t *rflags)                                      \
    {                                                                                                        \
        uint32_t ax;                                                                                         \
        __asm__ volatile("lock " instruction " %[p]" X86_FLAGS_OUT                                           \
                         : [p] "+m"(*p), "=&a"(ax) : : "cc", "memory");                                      \
        *rflags = merge(*rflags, ax);                                                                        \
    }                                                                                                        \
    static void op##bits##_r(struct x86_core *core, const struct x86_insn *insn)                             \
    {                                                                                                        \
        x86_set##bits(core, insn->reg, op##bits(x86_get##bits(core, insn->reg), &core->cpu.rflags));         \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    X86_MODIFY_EXEC(op##bits##_m, bits, *p = op##bits(*p, &core->cpu.rflags), false)                         \
    X86_MODIFY_EXEC(op##_locked##bits##_m, bits, op##_locked##bits(p, &core->cpu.rflags), true)

#define MERGE_NONE(rflags, ax) ((void)(ax), (rflags)) /* NOT leaves the flags alone */
#define UNARY_SIZES(op, instruction, merge)                                                                  \
    UNARY(op, instruction "b", 8, merge) UNARY(op, instruction "w", 16, merge)                               \
    UNARY(op, instruction "l", 32, merge) UNARY(op, instruction "q", 64, merge)

UNARY_SIZES(inc, "inc", x86_flags_merge_keep_carry)
UNARY_SIZES(dec, "dec", x86_flags_merge_keep_carry)
UNARY_SIZES(neg, "neg", x86_flags_merge)
UNARY_SIZES(not, "not", MERGE_NONE)

#define UNARY_TABLE(op) { X86_SIZES(op, r), X86_SIZES(op, m), X86_SIZES(op##_locked, m) }
static x86_exec_fn *const unary[][3][4] = {
    [X86_INC] = UNARY_TABLE(inc),
    [X86_DEC] = UNARY_TABLE(dec),
    [X86_NEG] = UNARY_TABLE(neg),
    [X86_NOT] = UNARY_TABLE(not),
};

x86_exec_fn *x86_group_unary(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);
    unsigned size = x86_size_index(insn->opsize);

    if (insn->flags & X86_INSN_LOCK)
        return form == X86_M ? unary[what][2][size] : NULL;
    if (form != X86_R && form != X86_M)
        return NULL;
    return unary[what][form == X86_M][size];
}
