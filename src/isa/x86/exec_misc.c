/* exec_misc.c - flag instructions, fences and hints, RDRAND, BOUND, decimal adjustment, UD0-UD2. */
#include "isa/x86/integer_exec.h"

static void nop(struct x86_core *core, const struct x86_insn *insn) { (void)core, (void)insn; }
static void spin(struct x86_core *core, const struct x86_insn *insn)
{
    (void)core, (void)insn;
    __asm__ volatile("pause");
}

#define FLAG_EXEC(name, expression)                                                                          \
    static void name(struct x86_core *core, const struct x86_insn *insn)                                     \
    {                                                                                                        \
        uint64_t f = core->cpu.rflags;                                                                       \
        (void)insn;                                                                                          \
        core->cpu.rflags = (expression);                                                                     \
    }
FLAG_EXEC(clc, f & ~(uint64_t)X86_FLAG_CF)
FLAG_EXEC(stc, f | X86_FLAG_CF)
FLAG_EXEC(cmc, f ^ X86_FLAG_CF)
FLAG_EXEC(cld, f & ~(uint64_t)X86_FLAG_DF)
FLAG_EXEC(std, f | X86_FLAG_DF)

#define LOW_FLAGS (X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF | X86_FLAG_SF)
#define AH (X86_RAX * 8 + 1)
#define AL (X86_RAX * 8)

static void lahf(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_set8(core, AH, (uint8_t)core->cpu.rflags);
}
FLAG_EXEC(sahf, (f & ~(uint64_t)LOW_FLAGS) | (x86_get8(core, AH) & LOW_FLAGS))

/* The guest's memory is host memory and vCPUs are host threads, so the host's fences are the guest's. */
#define FENCE(name)                                                                                          \
    static void name(struct x86_core *core, const struct x86_insn *insn)                                     \
    {                                                                                                        \
        (void)core, (void)insn;                                                                              \
        __asm__ volatile(#name : : : "memory");                                                              \
    }
FENCE(lfence)
FENCE(sfence)
FENCE(mfence)

/* CLFLUSH, CLFLUSHOPT, CLWB: nothing to flush, but the address must be readable. */
static void clflush(struct x86_core *core, const struct x86_insn *insn)
{
    x86_probe_read(core, x86_linear(core, insn, 1, false), 1);
}

#define RANDOM(op, bits)                                                                                     \
    static void op##bits(struct x86_core *core, const struct x86_insn *insn)                                 \
    {                                                                                                        \
        x86_u##bits value;                                                                                   \
        uint32_t ax;                                                                                         \
        __asm__ volatile(#op " %[value]" X86_FLAGS_OUT : [value] "=&r"(value), "=&a"(ax) : : "cc");          \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, ax);                                            \
        x86_set##bits(core, insn->rm, value);                                                                \
    }
RANDOM(rdrand, 16) RANDOM(rdrand, 32) RANDOM(rdrand, 64)
RANDOM(rdseed, 16) RANDOM(rdseed, 32) RANDOM(rdseed, 64)
static x86_exec_fn *const random_exec[2][4] = { { NULL, rdrand16, rdrand32, rdrand64 },
                                                { NULL, rdseed16, rdseed32, rdseed64 } };

static void bound(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t second = (x86_effective(core, insn) + insn->opsize) & (insn->addrsize == 2 ? UINT16_MAX : UINT32_MAX);
    uint64_t linear = x86_linear(core, insn, insn->opsize, false);
    int64_t index, lower, upper;

    if (insn->opsize == 2) {
        index = (int16_t)x86_get16(core, insn->reg);
        lower = (int16_t)x86_load16(core, linear);
        upper = (int16_t)x86_load16(core, x86_linear_access(core, insn->seg, second, 2, false));
    } else {
        index = (int32_t)x86_get32(core, insn->reg);
        lower = (int32_t)x86_load32(core, linear);
        upper = (int32_t)x86_load32(core, x86_linear_access(core, insn->seg, second, 4, false));
    }
    if (index < lower || index > upper)
        x86_raise(core, X86_BR, 0);
}

/* --- Decimal adjustment: not in 64-bit code, so not on the host. SDM 2A/2B, their pseudocode. --- */

/* SF, ZF and PF of AL; the rest as given. */
static uint64_t flags_of_al(const struct x86_core *core, uint64_t flags)
{
    uint8_t al = x86_get8(core, AL);
    uint64_t f = flags & ~(uint64_t)(X86_FLAG_SF | X86_FLAG_ZF | X86_FLAG_PF);

    f |= al & X86_FLAG_SF;
    f |= al == 0 ? X86_FLAG_ZF : 0;
    f |= __builtin_parity(al) ? 0 : X86_FLAG_PF;
    return f;
}

static void set_carries(struct x86_core *core, bool adjust, bool carry)
{
    core->cpu.rflags &= ~(uint64_t)(X86_FLAG_AF | X86_FLAG_CF);
    core->cpu.rflags |= (adjust ? X86_FLAG_AF : 0) | (carry ? X86_FLAG_CF : 0);
}

static bool low_digit_overflows(const struct x86_core *core)
{
    return (x86_get8(core, AL) & 15) > 9 || (core->cpu.rflags & X86_FLAG_AF);
}

static void aaa(struct x86_core *core, const struct x86_insn *insn)
{
    bool adjust = low_digit_overflows(core);

    (void)insn;
    if (adjust)
        x86_set16(core, AL, (uint16_t)(x86_get16(core, AL) + 0x106));
    x86_set8(core, AL, x86_get8(core, AL) & 15);
    core->cpu.rflags = flags_of_al(core, core->cpu.rflags);
    set_carries(core, adjust, adjust);
}

static void aas(struct x86_core *core, const struct x86_insn *insn)
{
    bool adjust = low_digit_overflows(core);

    (void)insn;
    if (adjust)
        x86_set16(core, AL, (uint16_t)(x86_get16(core, AL) - 0x106));
    x86_set8(core, AL, x86_get8(core, AL) & 15);
    core->cpu.rflags = flags_of_al(core, core->cpu.rflags);
    set_carries(core, adjust, adjust);
}

static void aam(struct x86_core *core, const struct x86_insn *insn)
{
    uint8_t base = (uint8_t)insn->imm, al = x86_get8(core, AL);

    if (base == 0)
        x86_raise(core, X86_DE, 0);
    x86_set8(core, AH, al / base);
    x86_set8(core, AL, al % base);
    core->cpu.rflags = flags_of_al(core, core->cpu.rflags & ~(uint64_t)(X86_FLAG_CF | X86_FLAG_AF | X86_FLAG_OF));
}

static void aad(struct x86_core *core, const struct x86_insn *insn)
{
    uint8_t value = (uint8_t)(x86_get8(core, AL) + x86_get8(core, AH) * (uint8_t)insn->imm);

    x86_set16(core, AL, value);
    core->cpu.rflags = flags_of_al(core, core->cpu.rflags & ~(uint64_t)(X86_FLAG_CF | X86_FLAG_AF | X86_FLAG_OF));
}

static void daa(struct x86_core *core, const struct x86_insn *insn)
{
    uint8_t al = x86_get8(core, AL);
    bool low = low_digit_overflows(core), high = al > 0x99 || (core->cpu.rflags & X86_FLAG_CF);

    (void)insn;
    x86_set8(core, AL, (uint8_t)(al + (low ? 6 : 0) + (high ? 0x60 : 0)));
    core->cpu.rflags = flags_of_al(core, core->cpu.rflags);
    set_carries(core, low, high);
}

static void das(struct x86_core *core, const struct x86_insn *insn)
{
    uint8_t al = x86_get8(core, AL);
    bool low = low_digit_overflows(core), high = al > 0x99 || (core->cpu.rflags & X86_FLAG_CF);

    (void)insn;
    x86_set8(core, AL, (uint8_t)(al - (low ? 6 : 0) - (high ? 0x60 : 0)));
    core->cpu.rflags = flags_of_al(core, core->cpu.rflags);
    set_carries(core, low, high || (low && al < 6));
}

static void salc(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_set8(core, AL, core->cpu.rflags & X86_FLAG_CF ? 0xff : 0);
}

static x86_exec_fn *const simple[] = {
    [X86_NOP] = nop,         [X86_PAUSE] = spin,    [X86_CLC] = clc,       [X86_STC] = stc,
    [X86_CMC] = cmc,         [X86_CLD] = cld,       [X86_STD] = std,       [X86_LAHF] = lahf,
    [X86_SAHF] = sahf,       [X86_LFENCE] = lfence, [X86_SFENCE] = sfence, [X86_MFENCE] = mfence,
    [X86_CLFLUSH] = clflush, [X86_BOUND] = bound,   [X86_AAA] = aaa,       [X86_AAS] = aas,
    [X86_AAM] = aam,         [X86_AAD] = aad,       [X86_DAA] = daa,       [X86_DAS] = das,
    [X86_SALC] = salc,
};

x86_exec_fn *x86_group_misc(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    /* On AMD processors 0F 0D is undefined with a register; F3 90 with REX.B exchanges like 90 does. */
    bool amd_undefined = what == X86_NOP && insn->opcode == 0x0d && insn->modrm >= 0xc0 &&
                         z->insn.opcode_map == ZYDIS_OPCODE_MAP_0F &&
                         z->decoder->cpuid->vendor == X86_VENDOR_AMD;

    if (what == X86_PAUSE && z->insn.raw.rex.B) {
        insn->reg = X86_R8 * 8;
        insn->rm = X86_RAX * 8;
        return x86_exec_xchg(insn->opsize);
    }
    if (what == X86_UNDEFINED || amd_undefined) {
        insn->flags |= X86_INSN_ENDS;
        return x86_exec_ud;
    }
    if (what == X86_RDRAND || what == X86_RDSEED)
        return random_exec[what == X86_RDSEED][x86_size_index(insn->opsize)];
    return simple[what];
}
