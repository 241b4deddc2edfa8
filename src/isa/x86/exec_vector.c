/* exec_vector.c - SSE, AVX and MMX instructions that compute: gates, operands, and a host thunk.
 *
 * SIMD floating-point exceptions (Intel SDM 1, 11.5): the thunk runs with all of them masked and the flags
 * clear. When a flag comes up that the guest has unmasked, the destination gets its old value back and #XM is
 * raised. One flag may then differ from the processor's: with an unmasked overflow or underflow, PE tells whether
 * the infinite or denormal result is inexact, and not the one with the unbounded exponent. */
#include "isa/x86/vector.h"

#include <immintrin.h>

/* insn->sub of an instruction that goes through a thunk */
#define SUB_ALIGNED 0x01u /* the memory operand must be aligned to its size */
#define SUB_GPR_REG 0x02u /* ModRM.reg is a general register; always written */
#define SUB_GPR_RM_READ 0x04u
#define SUB_GPR_RM_WRITTEN 0x08u
#define SUB_FLAGS 0x10u
#define SUB_STRING 0x20u /* PCMPxSTRx: EAX and EDX in, ECX out */
#define SUB_ECX 0x40u    /* PCMPxSTRI */
#define SUB_MXCSR 0x80u

/* insn->imm2 of an MMX instruction */
#define MMX_REG 0x01u /* ModRM.reg, .rm is an MMX register */
#define MMX_RM 0x02u
#define MMX_REG_WRITTEN 0x04u
#define MMX_RM_WRITTEN 0x08u
#define MMX_LOAD 0x10u
#define MMX_STORE 0x20u

void x86_sse_gate_fail(struct x86_core *core)
{
    if ((core->cpu.cr0 & X86_CR0_EM) || !(core->cpu.cr4 & X86_CR4_OSFXSR))
        x86_raise_ud(core);
    x86_raise(core, X86_NM, 0);
}

void x86_avx_gate_fail(struct x86_core *core)
{
    const struct x86_cpu *cpu = &core->cpu;
    uint64_t state = X86_XCR0_SSE | X86_XCR0_AVX;
    if (!(cpu->cr0 & X86_CR0_PE) || (cpu->rflags & X86_FLAG_VM) || !(cpu->cr4 & X86_CR4_OSXSAVE) ||
        (cpu->xcr0 & state) != state)
        x86_raise_ud(core);
    x86_raise(core, X86_NM, 0);
}

struct x86_hostcode *x86_decoder_hostcode(struct x86_decoder *decoder)
{
    if (!decoder->host && x86_hostcode_new(&decoder->host, NULL) < 0)
        return NULL;
    return decoder->host;
}

static inline x86_thunk_fn *thunk_of(const struct x86_insn *insn)
{
    x86_thunk_fn *fn;
    memcpy(&fn, &insn->host, sizeof fn);
    return fn;
}

/* ---- MXCSR ---- */

/* Runs the thunk under the guest's rounding, DAZ and FTZ with everything masked; returns the flags raised. */
static inline uint32_t run_masked(x86_thunk_fn *fn, void *rm, void *reg, void *third, void *extra,
                                  struct x86_thunk_io *io, uint32_t mxcsr)
{
    io->mxcsr = (mxcsr & ~MXCSR_FLAGS) | MXCSR_MASKS;
    fn(rm, reg, third, extra, io);
    if (__builtin_expect((io->mxcsr & ~MXCSR_FLAGS) != MXCSR_DEFAULT, 0))
        _mm_setcsr(MXCSR_DEFAULT);
    return io->mxcsr_out & MXCSR_FLAGS;
}

/* DPPS and DPPD compute in steps; an earlier one's flags stay. (No other of these opcodes uses MXCSR.) */
static bool is_dot_product(const struct x86_insn *insn)
{
    return insn->opcode == 0x40 || insn->opcode == 0x41;
}

/* VCVTPS2PH does not look at FTZ, but a tiny result shows: it is a denormal half. (What was rounded to zero or
 * up to the smallest normal number is inexact, and flagged anyway.) */
static uint32_t tiny_halves(const struct x86_insn *insn, const void *result)
{
    unsigned count = insn->flags & X86_INSN_MEMORY ? insn->opsize / 2u : 8;
    uint16_t half[8];
    if (insn->opcode != 0x1d) /* no other instruction with this opcode uses MXCSR */
        return 0;
    memcpy(half, result, count * sizeof *half);
    for (unsigned i = 0; i < count; i++)
        if ((half[i] & 0x7c00) == 0 && (half[i] & 0x03ff) != 0)
            return 0x10; /* UE */
    return 0;
}

/* With some exception unmasked. Returns the guest's new flags, or raises #XM (#UD without CR4.OSXMMEXCPT) with
 * MXCSR updated and *dest, the register that the instruction writes, as it was. */
static uint32_t run_unmasked(struct x86_core *core, x86_thunk_fn *fn, void *rm, void *reg, void *third,
                             void *extra, struct x86_thunk_io *io, uint32_t mxcsr, void *dest)
{
    const uint32_t pre_computation = 0x07, underflow = 0x10; /* IE DE ZE; UE */
    uint32_t unmasked = ~mxcsr >> 7 & MXCSR_FLAGS, flags = 0;
    uint8_t old[32];
    memcpy(old, dest, sizeof old);
    if (unmasked & underflow) {
        /* An unmasked underflow is raised for a tiny result even if exact, and FTZ does not count. With it
         * masked only FTZ tells tininess, so ask that way first. */
        flags = run_masked(fn, rm, reg, third, extra, io, mxcsr | MXCSR_FTZ) & underflow;
        memcpy(dest, old, sizeof old);
        mxcsr &= ~MXCSR_FTZ;
    }
    flags |= run_masked(fn, rm, reg, third, extra, io, mxcsr);
    if (unmasked & underflow)
        flags |= tiny_halves(core->insn, rm);
    if (!(flags & unmasked))
        return flags;
    memcpy(dest, old, sizeof old);
    if ((flags & unmasked & pre_computation) && !is_dot_product(core->insn))
        flags &= pre_computation; /* nothing was computed */
    fx_set_mxcsr(&core->cpu, fx_mxcsr(&core->cpu) | flags);
    if (!(core->cpu.cr4 & X86_CR4_OSXMMEXCPT))
        x86_raise_ud(core);
    x86_raise(core, X86_XM, 0);
}

/* Runs a thunk made with X86_THUNK_MXCSR; returns the flags to add to the guest's. dest: the register that
 * it writes (32 bytes that may be rewritten, if none). */
static inline uint32_t run_fp(struct x86_core *core, x86_thunk_fn *fn, void *rm, void *reg, void *third,
                              void *extra, struct x86_thunk_io *io, void *dest)
{
    uint32_t mxcsr = fx_mxcsr(&core->cpu);
    if (__builtin_expect((mxcsr & MXCSR_MASKS) == MXCSR_MASKS, 1))
        return run_masked(fn, rm, reg, third, extra, io, mxcsr);
    return run_unmasked(core, fn, rm, reg, third, extra, io, mxcsr, dest);
}

/* ---- exec functions ---- */

enum { KIND_REGISTER, KIND_LOAD, KIND_STORE, KIND_RM_WRITTEN /* ModRM.rm is a register, the destination */ };

static inline void gate(struct x86_core *core, bool vex)
{
    if (vex)
        x86_avx_gate(core);
    else
        x86_sse_gate(core);
}

/* Vector operands and at most one memory operand; `fp`: uses MXCSR. */
static inline __attribute__((always_inline)) void run_plain(struct x86_core *core, const struct x86_insn *insn,
                                                            bool vex, int kind, bool fp)
{
    struct x86_cpu *cpu = &core->cpu;
    struct x86_thunk_io io;
    _Alignas(32) uint8_t bounce[32];
    void *rm = bounce;
    uint64_t linear = 0;
    gate(core, vex);
    if (kind != KIND_REGISTER)
        linear = x86_vector_linear(core, insn, insn->opsize, kind == KIND_STORE, insn->sub & SUB_ALIGNED);
    if (kind == KIND_LOAD)
        rm = x86_vector_source(core, linear, insn->opsize, bounce);
    if (kind == KIND_REGISTER)
        rm = cpu->ymm[insn->rm];
    void *reg = cpu->ymm[insn->reg], *third = cpu->ymm[insn->vvvv], *extra = cpu->ymm[insn->imm2];
    if (fp) {
        uint32_t flags = run_fp(core, thunk_of(insn), rm, reg, third, extra, &io, reg);
        fx_set_mxcsr(cpu, fx_mxcsr(cpu) | flags);
    } else {
        thunk_of(insn)(rm, reg, third, extra, NULL);
    }
    if (kind == KIND_STORE)
        x86_vector_store(core, linear, bounce, insn->opsize);
}

#define PLAIN(name, vex, kind, fp)                                          \
    static void name(struct x86_core *core, const struct x86_insn *insn)    \
    {                                                                       \
        run_plain(core, insn, vex, kind, fp);                               \
    }
PLAIN(sse_register, false, KIND_REGISTER, false)
PLAIN(sse_load, false, KIND_LOAD, false)
PLAIN(sse_store, false, KIND_STORE, false)
PLAIN(sse_fp_register, false, KIND_REGISTER, true)
PLAIN(sse_fp_load, false, KIND_LOAD, true)
PLAIN(avx_register, true, KIND_REGISTER, false)
PLAIN(avx_load, true, KIND_LOAD, false)
PLAIN(avx_store, true, KIND_STORE, false)
PLAIN(avx_fp_register, true, KIND_REGISTER, true)
PLAIN(avx_fp_load, true, KIND_LOAD, true)

static x86_exec_fn *const plain[2][2][3] = {
    /* [vex][fp][kind] */
    {{sse_register, sse_load, sse_store}, {sse_fp_register, sse_fp_load, NULL}},
    {{avx_register, avx_load, avx_store}, {avx_fp_register, avx_fp_load, NULL}},
};

static inline uint64_t *gpr(struct x86_core *core, unsigned offset)
{
    return (uint64_t *)(void *)((char *)core->cpu.reg + offset);
}

/* What goes into and comes out of general registers and flags. */
static void io_in(struct x86_core *core, const struct x86_insn *insn, struct x86_thunk_io *io)
{
    if (insn->sub & SUB_GPR_RM_READ)
        io->rax = *gpr(core, insn->rm);
    if (insn->sub & SUB_STRING) {
        io->rax = core->cpu.reg[X86_RAX];
        io->rdx = core->cpu.reg[X86_RDX];
    }
}

static void io_out(struct x86_core *core, const struct x86_insn *insn, const struct x86_thunk_io *io)
{
    if (insn->sub & SUB_GPR_REG)
        *gpr(core, insn->reg) = io->rax;
    if (insn->sub & SUB_GPR_RM_WRITTEN)
        *gpr(core, insn->rm) = io->rax;
    if (insn->sub & SUB_ECX)
        core->cpu.reg[X86_RCX] = io->rcx;
    if (insn->sub & SUB_FLAGS)
        core->cpu.rflags = (core->cpu.rflags & ~(uint64_t)X86_FLAGS_ARITH) | (io->flags & X86_FLAGS_ARITH);
}

/* Any mix of vector, memory and general operands and flags. insn->imm: enum above. */
static inline __attribute__((always_inline)) void run_general(struct x86_core *core, const struct x86_insn *insn,
                                                              bool vex)
{
    struct x86_cpu *cpu = &core->cpu;
    struct x86_thunk_io io = {0};
    _Alignas(32) uint8_t bounce[32];
    bool gpr_rm = insn->sub & (SUB_GPR_RM_READ | SUB_GPR_RM_WRITTEN);
    void *rm = bounce;
    uint64_t linear = 0;
    gate(core, vex);
    if (insn->flags & X86_INSN_MEMORY) {
        bool store = insn->imm == KIND_STORE;
        linear = x86_vector_linear(core, insn, insn->opsize, store, insn->sub & SUB_ALIGNED);
        if (!store)
            rm = x86_vector_source(core, linear, insn->opsize, bounce);
        else if (insn->sub & SUB_MXCSR)
            x86_probe_write(core, linear, insn->opsize); /* #PF comes before #XM */
    } else if (!gpr_rm) {
        rm = cpu->ymm[insn->rm];
    }
    void *reg = insn->sub & SUB_GPR_REG ? bounce : cpu->ymm[insn->reg];
    void *third = cpu->ymm[insn->vvvv], *extra = cpu->ymm[insn->imm2];
    uint32_t flags = 0;
    io_in(core, insn, &io);
    if (insn->sub & SUB_MXCSR)
        flags = run_fp(core, thunk_of(insn), rm, reg, third, extra, &io, insn->imm == KIND_RM_WRITTEN ? rm : reg);
    else
        thunk_of(insn)(rm, reg, third, extra, &io);
    if (insn->imm == KIND_STORE && (insn->flags & X86_INSN_MEMORY))
        x86_vector_store(core, linear, bounce, insn->opsize);
    fx_set_mxcsr(cpu, fx_mxcsr(cpu) | flags);
    io_out(core, insn, &io);
}

static void sse_general(struct x86_core *core, const struct x86_insn *insn) { run_general(core, insn, false); }
static void avx_general(struct x86_core *core, const struct x86_insn *insn) { run_general(core, insn, true); }

static inline uint8_t *mmx_register(struct x86_cpu *cpu, unsigned number)
{
    return cpu->fx + FX_ST + 16 * number; /* TOP is 0 */
}

/* An instruction with an MMX operand, perhaps with XMM, general and memory operands as well. */
static void exec_mmx(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    struct x86_thunk_io io = {0};
    _Alignas(16) uint8_t bounce[32];
    void *rm = bounce, *reg = bounce;
    uint64_t linear = 0;
    uint32_t flags = 0;
    x86_mmx_gate(core);
    if (insn->imm2 & (MMX_LOAD | MMX_STORE))
        linear = x86_vector_linear(core, insn, insn->opsize, insn->imm2 & MMX_STORE, insn->sub & SUB_ALIGNED);
    if (insn->imm2 & MMX_LOAD)
        rm = x86_vector_source(core, linear, insn->opsize, bounce);
    else if (insn->imm2 & MMX_STORE)
        x86_probe_write(core, linear, insn->opsize);
    x86_mmx_enter(cpu);
    if (insn->imm2 & MMX_RM)
        rm = mmx_register(cpu, insn->rm);
    else if (!(insn->imm2 & (MMX_LOAD | MMX_STORE)) && !(insn->sub & (SUB_GPR_RM_READ | SUB_GPR_RM_WRITTEN)))
        rm = cpu->ymm[insn->rm];
    if (insn->imm2 & MMX_REG)
        reg = mmx_register(cpu, insn->reg);
    else if (!(insn->sub & SUB_GPR_REG))
        reg = cpu->ymm[insn->reg];
    io_in(core, insn, &io);
    if (insn->sub & SUB_MXCSR)
        flags = run_fp(core, thunk_of(insn), rm, reg, bounce, bounce, &io, reg);
    else
        thunk_of(insn)(rm, reg, bounce, bounce, &io);
    fx_set_mxcsr(cpu, fx_mxcsr(cpu) | flags);
    if (insn->imm2 & MMX_REG_WRITTEN)
        memset((uint8_t *)reg + 8, 0xff, 2);
    if (insn->imm2 & MMX_RM_WRITTEN)
        memset((uint8_t *)rm + 8, 0xff, 2);
    if (insn->imm2 & MMX_STORE)
        x86_vector_store(core, linear, bounce, insn->opsize);
    io_out(core, insn, &io);
}

static void exec_emms(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_mmx_gate(core);
    x86_mmx_enter(&core->cpu);
    core->cpu.fx[FX_FTW] = 0;
}

static void exec_vzeroupper(struct x86_core *core, const struct x86_insn *insn)
{
    x86_avx_gate(core);
    unsigned count = insn->mode == X86_CODE64 ? 16 : 8;
    for (unsigned i = 0; i < count; i++)
        memset(core->cpu.ymm[i] + 16, 0, 16);
}

static void exec_vzeroall(struct x86_core *core, const struct x86_insn *insn)
{
    x86_avx_gate(core);
    memset(core->cpu.ymm, 0, insn->mode == X86_CODE64 ? 16 * 32 : 8 * 32);
}

static void load_mxcsr(struct x86_core *core, const struct x86_insn *insn)
{
    uint32_t value = x86_load32(core, x86_linear(core, insn, 4, false));
    if (value & ~MXCSR_VALID)
        x86_raise_gp(core, 0);
    fx_set_mxcsr(&core->cpu, value);
}

static void exec_ldmxcsr(struct x86_core *core, const struct x86_insn *insn)
{
    x86_sse_gate(core);
    load_mxcsr(core, insn);
}

static void exec_vldmxcsr(struct x86_core *core, const struct x86_insn *insn)
{
    x86_avx_gate(core);
    load_mxcsr(core, insn);
}

static void exec_stmxcsr(struct x86_core *core, const struct x86_insn *insn)
{
    x86_sse_gate(core);
    x86_store32(core, x86_linear(core, insn, 4, true), fx_mxcsr(&core->cpu));
}

static void exec_vstmxcsr(struct x86_core *core, const struct x86_insn *insn)
{
    x86_avx_gate(core);
    x86_store32(core, x86_linear(core, insn, 4, true), fx_mxcsr(&core->cpu));
}

/* ---- Selection ---- */

/* Instructions over floating-point elements that only move or combine bits: MXCSR plays no part. */
static bool only_moves_bits(ZydisMnemonic mnemonic)
{
    static const uint16_t list[] = {
#define M(name) ZYDIS_MNEMONIC_##name, ZYDIS_MNEMONIC_V##name,
        M(ANDPS) M(ANDPD) M(ANDNPS) M(ANDNPD) M(ORPS) M(ORPD) M(XORPS) M(XORPD) M(MOVAPS) M(MOVAPD) M(MOVUPS)
        M(MOVUPD) M(MOVSS) M(MOVSD) M(MOVLPS) M(MOVLPD) M(MOVHPS) M(MOVHPD) M(MOVLHPS) M(MOVHLPS) M(MOVNTPS)
        M(MOVNTPD) M(MOVMSKPS) M(MOVMSKPD) M(MOVSHDUP) M(MOVSLDUP) M(MOVDDUP) M(SHUFPS) M(SHUFPD) M(UNPCKLPS)
        M(UNPCKLPD) M(UNPCKHPS) M(UNPCKHPD) M(BLENDPS) M(BLENDPD) M(BLENDVPS) M(BLENDVPD) M(INSERTPS)
        M(EXTRACTPS)
#undef M
        ZYDIS_MNEMONIC_VBROADCASTSS, ZYDIS_MNEMONIC_VBROADCASTSD, ZYDIS_MNEMONIC_VBROADCASTF128,
        ZYDIS_MNEMONIC_VPERMILPS, ZYDIS_MNEMONIC_VPERMILPD, ZYDIS_MNEMONIC_VPERM2F128, ZYDIS_MNEMONIC_VPERMPS,
        ZYDIS_MNEMONIC_VPERMPD, ZYDIS_MNEMONIC_VINSERTF128, ZYDIS_MNEMONIC_VEXTRACTF128, ZYDIS_MNEMONIC_VTESTPS,
        ZYDIS_MNEMONIC_VTESTPD, ZYDIS_MNEMONIC_MOVNTSS, ZYDIS_MNEMONIC_MOVNTSD,
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        if (list[i] == mnemonic)
            return true;
    return false;
}

static bool uses_mxcsr(const struct x86_zydis *z)
{
    bool fp = false;
    switch (z->insn.mnemonic) { /* Zydis gives these no element type */
    case ZYDIS_MNEMONIC_ROUNDSS: case ZYDIS_MNEMONIC_ROUNDSD: case ZYDIS_MNEMONIC_VROUNDSS: case ZYDIS_MNEMONIC_VROUNDSD:
        return true;
    default:
        break;
    }
    for (unsigned i = 0; i < z->insn.operand_count; i++) {
        ZydisElementType type = z->operand[i].element_type;
        fp |= type == ZYDIS_ELEMENT_TYPE_FLOAT16 || type == ZYDIS_ELEMENT_TYPE_FLOAT32 ||
              type == ZYDIS_ELEMENT_TYPE_FLOAT64;
    }
    return fp && !only_moves_bits(z->insn.mnemonic);
}

/* Whether the memory operand must be aligned: 16 bytes in legacy forms but for a few, and the moves that
 * say so in VEX forms. */
static bool wants_alignment(const struct x86_zydis *z, unsigned size)
{
    if (size < 16)
        return false;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVAPS: case ZYDIS_MNEMONIC_VMOVAPD: case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS: case ZYDIS_MNEMONIC_VMOVNTPD: case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
        return true;
    case ZYDIS_MNEMONIC_MOVUPS: case ZYDIS_MNEMONIC_MOVUPD: case ZYDIS_MNEMONIC_MOVDQU: case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI: case ZYDIS_MNEMONIC_PCMPESTRM: case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return false;
    case ZYDIS_MNEMONIC_SHA1MSG1: case ZYDIS_MNEMONIC_SHA1MSG2: case ZYDIS_MNEMONIC_SHA1NEXTE:
    case ZYDIS_MNEMONIC_SHA1RNDS4: case ZYDIS_MNEMONIC_SHA256MSG1: case ZYDIS_MNEMONIC_SHA256MSG2:
    case ZYDIS_MNEMONIC_SHA256RNDS2:
        /* AMD processors take these misaligned. */
        return z->decoder->cpuid->vendor == X86_VENDOR_INTEL;
    default:
        return z->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX;
    }
}

/* What the operands amount to. */
struct operands {
    bool mmx, load, store, gpr, rm_written;
    uint8_t mmx_bits;
    uint8_t sub;
};

static void note_register(struct operands *set, struct x86_insn *insn, const ZydisDecodedOperand *operand)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(operand->reg.value);
    int id = ZydisRegisterGetId(operand->reg.value);
    bool read = operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    bool written = operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    bool in_reg = operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
    bool in_rm = operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
    if (class == ZYDIS_REGCLASS_FLAGS) {
        set->sub |= written ? SUB_FLAGS : 0;
    } else if (class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM || class == ZYDIS_REGCLASS_MMX) {
        bool mmx = class == ZYDIS_REGCLASS_MMX;
        uint8_t *field = in_reg                                                  ? &insn->reg
                         : in_rm                                                 ? &insn->rm
                         : operand->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD ? &insn->vvvv
                                                                                 : &insn->imm2;
        *field = (uint8_t)id;
        set->mmx |= mmx;
        set->rm_written |= in_rm && written;
        if (mmx && in_reg)
            set->mmx_bits |= (uint8_t)(MMX_REG | (written ? MMX_REG_WRITTEN : 0));
        if (mmx && in_rm)
            set->mmx_bits |= (uint8_t)(MMX_RM | (written ? MMX_RM_WRITTEN : 0));
    } else if (operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
        set->sub |= id == 1 ? SUB_ECX : SUB_STRING;
        set->gpr = true;
    } else {
        set->gpr = true;
        if (in_reg) {
            insn->reg = (uint8_t)(id * 8);
            set->sub |= SUB_GPR_REG;
        } else {
            insn->rm = (uint8_t)(id * 8);
            set->sub |= (uint8_t)((read ? SUB_GPR_RM_READ : 0) | (written ? SUB_GPR_RM_WRITTEN : 0));
        }
    }
}

static void note_operands(const struct x86_zydis *z, struct x86_insn *insn, struct operands *set)
{
    memset(set, 0, sizeof *set);
    insn->reg = insn->rm = insn->vvvv = insn->imm2 = 0;
    for (unsigned i = 0; i < z->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &z->operand[i];
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            note_register(set, insn, operand);
        } else if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            insn->opsize = (uint8_t)(operand->size / 8);
            set->load |= operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
            set->store |= operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
            if (wants_alignment(z, insn->opsize))
                set->sub |= SUB_ALIGNED;
        }
    }
}

static x86_exec_fn *select_thunk(const struct x86_zydis *z, struct x86_insn *insn)
{
    struct operands set;
    struct x86_hostcode *host = x86_decoder_hostcode(z->decoder);
    bool vex = z->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    note_operands(z, insn, &set);
    if (uses_mxcsr(z))
        set.sub |= SUB_MXCSR;
    unsigned use = (set.sub & SUB_MXCSR ? X86_THUNK_MXCSR : 0) | (set.sub & SUB_FLAGS ? X86_THUNK_FLAGS : 0);
    x86_thunk_fn *fn = host ? x86_hostcode_vector(host, z, use) : NULL;
    if (!fn || (set.load && set.store))
        return NULL;
    memcpy(&insn->host, &fn, sizeof fn);
    insn->sub = set.sub;
    insn->imm = set.store ? KIND_STORE : set.load ? KIND_LOAD : set.rm_written ? KIND_RM_WRITTEN : KIND_REGISTER;
    if (set.mmx) {
        insn->imm2 = (uint8_t)(set.mmx_bits | (set.load ? MMX_LOAD : 0) | (set.store ? MMX_STORE : 0));
        return exec_mmx;
    }
    int kind = set.store ? KIND_STORE : set.load ? KIND_LOAD : KIND_REGISTER;
    bool fp = set.sub & SUB_MXCSR;
    if (set.gpr || (set.sub & SUB_FLAGS) || !plain[vex][fp][kind] || (fp && set.rm_written))
        return vex ? avx_general : sse_general;
    return plain[vex][fp][kind];
}

static bool is_vector(const ZydisDecodedInstruction *insn)
{
    switch (insn->meta.isa_set) {
    case ZYDIS_ISA_SET_AES: case ZYDIS_ISA_SET_AVX: case ZYDIS_ISA_SET_AVX2: case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_AVXAES: case ZYDIS_ISA_SET_AVX_GFNI: case ZYDIS_ISA_SET_AVX_VNNI: case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FMA: case ZYDIS_ISA_SET_GFNI: case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_PENTIUMMMX: case ZYDIS_ISA_SET_SHA: case ZYDIS_ISA_SET_SSE: case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX: case ZYDIS_ISA_SET_SSE3: case ZYDIS_ISA_SET_SSE4: case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSE4A: case ZYDIS_ISA_SET_SSSE3: case ZYDIS_ISA_SET_SSSE3MMX: case ZYDIS_ISA_SET_VAES:
    case ZYDIS_ISA_SET_VPCLMULQDQ: case ZYDIS_ISA_SET_SSEMXCSR:
        return true;
    default:
        return false;
    }
}

/* Of these ISA sets, but without a vector operand. */
static x86_exec_fn *select_control(const struct x86_zydis *z, bool *ret_mine)
{
    *ret_mine = true;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_EMMS: return exec_emms;
    case ZYDIS_MNEMONIC_VZEROUPPER: return exec_vzeroupper;
    case ZYDIS_MNEMONIC_VZEROALL: return exec_vzeroall;
    case ZYDIS_MNEMONIC_LDMXCSR: return exec_ldmxcsr;
    case ZYDIS_MNEMONIC_VLDMXCSR: return exec_vldmxcsr;
    case ZYDIS_MNEMONIC_STMXCSR: return exec_stmxcsr;
    case ZYDIS_MNEMONIC_VSTMXCSR: return exec_vstmxcsr;
    case ZYDIS_MNEMONIC_LFENCE: case ZYDIS_MNEMONIC_MFENCE: case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_MOVNTI: case ZYDIS_MNEMONIC_CRC32: case ZYDIS_MNEMONIC_POPCNT:
        *ret_mine = false;
        return NULL;
    default:
        return NULL;
    }
}

x86_exec_fn *x86_select_vector(const struct x86_zydis *z, struct x86_insn *insn)
{
    bool mine;
    x86_exec_fn *exec = x86_select_x87(z, insn);
    if (!exec)
        exec = x86_select_xsave(z, insn);
    if (exec)
        return z->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK ? x86_exec_ud : exec;
    if (!is_vector(&z->insn))
        return NULL;
    exec = select_control(z, &mine);
    if (!mine)
        return NULL;
    if (!exec)
        exec = x86_select_masked(z, insn);
    if (!exec)
        exec = x86_select_move(z, insn);
    if (!exec)
        exec = select_thunk(z, insn);
    return exec && (z->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK) ? x86_exec_ud : exec;
}
