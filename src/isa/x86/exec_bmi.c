/* exec_bmi.c - BMI1, BMI2 and ADX, run on the host's own units. SDM 2A-2C.
 *
 * As decoded: reg is ModRM.reg, rm or memory ModRM.rm, vvvv the VEX register. The 16-bit size does not
 * exist, and operand sizes come from VEX.W. */
#include "isa/x86/integer_exec.h"

/* x86_u##bits op##bits(rm, vvvv, rflags): the pattern `text` computes %[d] from %[s] (r/m) and %[v]. */
#define VEX(op, text, bits, to)                                                                              \
    X86_INLINE x86_u##bits op##bits(x86_u##bits s, x86_u##bits v, uint64_t *rflags)                          \
    {                                                                                                        \
        x86_u##bits d;                                                                                       \
        uint32_t ax = x86_flags_ax(*rflags);                                                                 \
        __asm__(X86_FLAGS_IN text X86_FLAGS_OUT                                                              \
                : [d] "=&r"(d), "+&a"(ax) : [s] "r"(s), [v] "r"(v) : "cc");                                  \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
        return d;                                                                                            \
    }                                                                                                        \
    static void op##bits##_r(struct x86_core *core, const struct x86_insn *insn)                             \
    {                                                                                                        \
        x86_set##bits(core, insn->to, op##bits(x86_get##bits(core, insn->rm), x86_get##bits(core, insn->vvvv), \
                                               &core->cpu.rflags));                                          \
    }                                                                                                        \
    static void op##bits##_m(struct x86_core *core, const struct x86_insn *insn)                             \
    {                                                                                                        \
        x86_u##bits s = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        x86_set##bits(core, insn->to, op##bits(s, x86_get##bits(core, insn->vvvv), &core->cpu.rflags));      \
    }
#define VEX_SIZES(op, text, to) VEX(op, text, 32, to) VEX(op, text, 64, to)

VEX_SIZES(andn, "andn %[s], %[v], %[d]", reg)
VEX_SIZES(bextr, "bextr %[v], %[s], %[d]", reg)
VEX_SIZES(bzhi, "bzhi %[v], %[s], %[d]", reg)
VEX_SIZES(pdep, "pdep %[s], %[v], %[d]", reg)
VEX_SIZES(pext, "pext %[s], %[v], %[d]", reg)
VEX_SIZES(sarx, "sarx %[v], %[s], %[d]", reg)
VEX_SIZES(shlx, "shlx %[v], %[s], %[d]", reg)
VEX_SIZES(shrx, "shrx %[v], %[s], %[d]", reg)
VEX_SIZES(blsi, "blsi %[s], %[d]", vvvv)
VEX_SIZES(blsmsk, "blsmsk %[s], %[d]", vvvv)
VEX_SIZES(blsr, "blsr %[s], %[d]", vvvv)

/* RORX: the count is an immediate; no flags. */
#define RORX(bits)                                                                                           \
    X86_INLINE x86_u##bits rorx##bits(x86_u##bits s, int64_t imm)                                            \
    {                                                                                                        \
        unsigned count = (unsigned)imm & (bits - 1);                                                         \
        return s >> count | s << (-count & (bits - 1));                                                      \
    }                                                                                                        \
    static void rorx##bits##_r(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        x86_set##bits(core, insn->reg, rorx##bits(x86_get##bits(core, insn->rm), insn->imm));                \
    }                                                                                                        \
    static void rorx##bits##_m(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        x86_u##bits s = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        x86_set##bits(core, insn->reg, rorx##bits(s, insn->imm));                                            \
    }
RORX(32)
RORX(64)

/* MULX: rDX times r/m; the low half is written first, so that equal destinations keep the high half. */
#define MULX(bits, wide)                                                                                     \
    X86_INLINE void mulx##bits(struct x86_core *core, const struct x86_insn *insn, x86_u##bits s)            \
    {                                                                                                        \
        wide product = (wide)x86_get##bits(core, X86_RDX * 8) * s;                                           \
        x86_set##bits(core, insn->vvvv, (x86_u##bits)product);                                               \
        x86_set##bits(core, insn->reg, (x86_u##bits)(product >> bits));                                      \
    }                                                                                                        \
    static void mulx##bits##_r(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        mulx##bits(core, insn, x86_get##bits(core, insn->rm));                                               \
    }                                                                                                        \
    static void mulx##bits##_m(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        mulx##bits(core, insn, x86_load##bits(core, x86_linear(core, insn, bits / 8, false)));               \
    }
MULX(32, uint64_t)
MULX(64, unsigned __int128)

/* ADCX and ADOX: an addition through CF or OF alone. */
#define CHAIN(op, bits)                                                                                      \
    X86_INLINE x86_u##bits op##bits(x86_u##bits d, x86_u##bits s, uint64_t *rflags)                          \
    {                                                                                                        \
        uint32_t ax = x86_flags_ax(*rflags);                                                                 \
        __asm__(X86_FLAGS_IN #op " %[s], %[d]" X86_FLAGS_OUT                                                 \
                : [d] "+&r"(d), "+&a"(ax) : [s] "r"(s) : "cc");                                              \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
        return d;                                                                                            \
    }                                                                                                        \
    static void op##bits##_r(struct x86_core *core, const struct x86_insn *insn)                             \
    {                                                                                                        \
        x86_set##bits(core, insn->reg,                                                                       \
                      op##bits(x86_get##bits(core, insn->reg), x86_get##bits(core, insn->rm),                \
                               &core->cpu.rflags));                                                          \
    }                                                                                                        \
    static void op##bits##_m(struct x86_core *core, const struct x86_insn *insn)                             \
    {                                                                                                        \
        x86_u##bits s = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        x86_set##bits(core, insn->reg, op##bits(x86_get##bits(core, insn->reg), s, &core->cpu.rflags));      \
    }
CHAIN(adcx, 32)
CHAIN(adcx, 64)
CHAIN(adox, 32)
CHAIN(adox, 64)

#define BMI_TABLE(op) { { op##32_r, op##64_r }, { op##32_m, op##64_m } }
static x86_exec_fn *const bmi[][2][2] = {
    [X86_ANDN] = BMI_TABLE(andn),     [X86_BEXTR] = BMI_TABLE(bextr), [X86_BLSI] = BMI_TABLE(blsi),
    [X86_BLSMSK] = BMI_TABLE(blsmsk), [X86_BLSR] = BMI_TABLE(blsr),   [X86_BZHI] = BMI_TABLE(bzhi),
    [X86_MULX] = BMI_TABLE(mulx),     [X86_PDEP] = BMI_TABLE(pdep),   [X86_PEXT] = BMI_TABLE(pext),
    [X86_RORX] = BMI_TABLE(rorx),     [X86_SARX] = BMI_TABLE(sarx),   [X86_SHLX] = BMI_TABLE(shlx),
    [X86_SHRX] = BMI_TABLE(shrx),     [X86_ADCX] = BMI_TABLE(adcx),   [X86_ADOX] = BMI_TABLE(adox),
};

x86_exec_fn *x86_group_bmi(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    insn->opsize = (uint8_t)(z->operand[0].size / 8);
    return bmi[what][(insn->flags & X86_INSN_MEMORY) != 0][insn->opsize == 8];
}
