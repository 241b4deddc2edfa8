/* exec_shift.c - SHL SHR SAR ROL ROR RCL RCR SHLD SHRD. SDM 2B; counts are masked to 5 or 6 bits, and a masked
 * count of zero leaves all flags alone. */
#include "isa/x86/integer_exec.h"

#define SHIFT(op, instruction, bits)                                                                         \
    X86_INLINE x86_u##bits op##bits(x86_u##bits d, uint64_t s, uint64_t *rflags)                             \
    {                                                                                                        \
        uint8_t count = (uint8_t)(s & (bits == 64 ? 63 : 31));                                               \
        uint32_t ax = x86_flags_ax(*rflags);                                                                 \
        if (count == 0)                                                                                      \
            return d;                                                                                        \
        __asm__(X86_FLAGS_IN instruction " %%cl, %[d]" X86_FLAGS_OUT                                         \
                : [d] "+&r"(d), "+&a"(ax) : "c"(count) : "cc");                                              \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
        return d;                                                                                            \
    }                                                                                                        \
    X86_BINARY_EXEC(op, bits)

#define SHIFT_SIZES(op, instruction)                                                                         \
    SHIFT(op, instruction "b", 8) SHIFT(op, instruction "w", 16) SHIFT(op, instruction "l", 32)              \
    SHIFT(op, instruction "q", 64)
SHIFT_SIZES(rol, "rol")
SHIFT_SIZES(ror, "ror")
SHIFT_SIZES(rcl, "rcl")
SHIFT_SIZES(rcr, "rcr")
SHIFT_SIZES(shl, "shl")
SHIFT_SIZES(shr, "shr")
SHIFT_SIZES(sar, "sar")

/* There is no RM form: the source is CL or an immediate. */
static x86_exec_fn *const shift[][X86_FORMS][4] = {
    [X86_ROL] = X86_FORM_TABLE(rol), [X86_ROR] = X86_FORM_TABLE(ror), [X86_RCL] = X86_FORM_TABLE(rcl),
    [X86_RCR] = X86_FORM_TABLE(rcr), [X86_SHL] = X86_FORM_TABLE(shl), [X86_SHR] = X86_FORM_TABLE(shr),
    [X86_SAR] = X86_FORM_TABLE(sar),
};

x86_exec_fn *x86_group_shift(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);

    return form < X86_FORMS ? shift[what][form][x86_size_index(insn->opsize)] : NULL;
}

/* SHLD and SHRD: destination r/m, source reg, count in CL (insn->sub) or immediate. */
#define DOUBLE(op, instruction, bits)                                                                        \
    X86_INLINE x86_u##bits op##bits(struct x86_core *core, const struct x86_insn *insn, x86_u##bits d)       \
    {                                                                                                        \
        x86_u##bits s = x86_get##bits(core, insn->reg);                                                      \
        uint64_t from = insn->sub ? core->cpu.reg[X86_RCX] : (uint64_t)insn->imm;                            \
        uint8_t count = (uint8_t)(from & (bits == 64 ? 63 : 31));                                            \
        uint32_t ax = x86_flags_ax(core->cpu.rflags);                                                        \
        if (count == 0)                                                                                      \
            return d;                                                                                        \
        __asm__(X86_FLAGS_IN instruction " %%cl, %[s], %[d]" X86_FLAGS_OUT                                   \
                : [d] "+&r"(d), "+&a"(ax) : "c"(count), [s] "r"(s) : "cc");                                  \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, ax);                                            \
        return d;                                                                                            \
    }                                                                                                        \
    static void op##bits##_r(struct x86_core *core, const struct x86_insn *insn)                             \
    {                                                                                                        \
        x86_set##bits(core, insn->rm, op##bits(core, insn, x86_get##bits(core, insn->rm)));                  \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    X86_MODIFY_EXEC(op##bits##_m, bits, *p = op##bits(core, insn, *p), false)
#define DOUBLE_SIZES(op, instruction)                                                                        \
    DOUBLE(op, instruction "w", 16) DOUBLE(op, instruction "l", 32) DOUBLE(op, instruction "q", 64)
DOUBLE_SIZES(shld, "shld")
DOUBLE_SIZES(shrd, "shrd")

static x86_exec_fn *const double_shift[2][2][4] = {
    { X86_WIDE_SIZES(shld, r), X86_WIDE_SIZES(shld, m) },
    { X86_WIDE_SIZES(shrd, r), X86_WIDE_SIZES(shrd, m) },
};

x86_exec_fn *x86_group_double_shift(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    insn->sub = z->operand[2].type == ZYDIS_OPERAND_TYPE_REGISTER;
    return double_shift[what][(insn->flags & X86_INSN_MEMORY) != 0][x86_size_index(insn->opsize)];
}
