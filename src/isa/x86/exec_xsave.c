/* exec_xsave.c - FXSAVE, FXRSTOR, the XSAVE family, XGETBV and XSETBV. Intel SDM 1, chapter 13.
 *
 * A component is in its initial configuration when its registers hold the initial values; that is
 * what XSTATE_BV, XSAVEOPT and XGETBV(1) report. */
#include "isa/x86/cpuid.h"
#include "isa/x86/vector.h"

#define FXSAVE_BYTES 512u
#define XMM_OFFSET 160u
#define HEADER_BYTES 64u
#define COMPACTED (UINT64_C(1) << 63)
#define AREA_BYTES (X86_XSAVE_AVX + X86_XSAVE_AVX_SIZE)

/* insn->sub */
#define SUB_W 0x01u        /* 64-bit error pointers */
#define SUB_OPTIMIZE 0x02u /* components in their initial configuration are not written */
#define SUB_COMPACT 0x04u
#define SUB_SUPERVISOR 0x08u

struct header {
    uint64_t xstate_bv, xcomp_bv, reserved[6];
};

static unsigned vector_count(const struct x86_insn *insn) { return insn->mode == X86_CODE64 ? 16 : 8; }

static bool all_zero(const void *bytes, size_t length)
{
    const uint8_t *byte = bytes;
    for (size_t i = 0; i < length; i++)
        if (byte[i])
            return false;
    return true;
}

/* XINUSE: the components that are not in their initial configuration. */
static uint64_t components_in_use(const struct x86_cpu *cpu, unsigned count)
{
    uint64_t used = 0;
    if (fx_get16(cpu, FX_FCW) != 0x037f || !all_zero(cpu->fx + FX_FSW, FX_MXCSR - FX_FSW) ||
        !all_zero(cpu->fx + FX_ST, 128))
        used |= X86_XCR0_X87;
    for (unsigned i = 0; i < count; i++) {
        if (!all_zero(cpu->ymm[i], 16))
            used |= X86_XCR0_SSE;
        if (!all_zero(cpu->ymm[i] + 16, 16))
            used |= X86_XCR0_AVX;
    }
    return used;
}

/* The first 24 bytes: x87 control and error pointers, in the 64-bit form or with 32-bit pointers and
 * selectors of zero. */
static void put_x87_head(const struct x86_cpu *cpu, uint8_t *image, bool w)
{
    memcpy(image, cpu->fx, FX_MXCSR);
    image[FX_FTW + 1] = 0;
    if (!w) {
        memset(image + FX_FIP + 4, 0, 4);
        memset(image + FX_FDP + 4, 0, 4);
    }
}

static void put_mxcsr(const struct x86_cpu *cpu, uint8_t *image)
{
    uint32_t word[2] = {fx_mxcsr(cpu), MXCSR_VALID};
    memcpy(image + FX_MXCSR, word, sizeof word);
}

static void put_xmm(const struct x86_cpu *cpu, uint8_t *image, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memcpy(image + XMM_OFFSET + 16 * i, cpu->ymm[i], 16);
}

/* Takes over the x87 part of an image. The host's own FXRSTOR settles what reserved bits of FCW and FSW
 * become. */
static void get_x87(struct x86_cpu *cpu, const uint8_t *from, bool w)
{
    _Alignas(16) uint8_t image[FXSAVE_BYTES] = {0};
    uint32_t mxcsr = MXCSR_DEFAULT;
    memcpy(image, from, FX_FIP);
    memcpy(image + FX_MXCSR, &mxcsr, sizeof mxcsr);
    memcpy(image + FX_ST, from + FX_ST, 128);
    __asm__ volatile("fxrstor64 %0\n\tfxsave64 %0\n\tfninit"
                     : "+m"(image)
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                       "xmm12", "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)",
                       "st(7)");
    memcpy(cpu->fx, image, FX_FOP);
    memcpy(cpu->fx + FX_FOP, from + FX_FOP, FX_MXCSR - FX_FOP);
    cpu->fx[FX_FOP + 1] &= 7;
    if (!w) {
        memset(cpu->fx + FX_FIP + 4, 0, 4);
        memset(cpu->fx + FX_FDP + 4, 0, 4);
    }
    memcpy(cpu->fx + FX_ST, image + FX_ST, 128);
}

static void initial_x87(struct x86_cpu *cpu)
{
    memset(cpu->fx, 0, FX_MXCSR);
    memset(cpu->fx + FX_ST, 0, 128);
    fx_put16(cpu, FX_FCW, 0x037f);
}

static uint32_t image_mxcsr(struct x86_core *core, const uint8_t *image)
{
    uint32_t value;
    memcpy(&value, image + FX_MXCSR, sizeof value);
    if (value & ~MXCSR_VALID)
        x86_raise_gp(core, 0);
    return value;
}

static uint64_t area(struct x86_core *core, const struct x86_insn *insn, unsigned size, bool write, unsigned alignment)
{
    uint64_t linear = x86_linear(core, insn, size, write);
    if (linear & (alignment - 1))
        x86_raise_gp(core, 0);
    return linear;
}

/* ---- FXSAVE, FXRSTOR ---- */

static void fx_gate(struct x86_core *core)
{
    if (core->cpu.cr0 & (X86_CR0_EM | X86_CR0_TS))
        x86_raise(core, X86_NM, 0);
}

static void exec_fxsave(struct x86_core *core, const struct x86_insn *insn)
{
    uint8_t image[FXSAVE_BYTES];
    fx_gate(core);
    uint64_t linear = area(core, insn, FXSAVE_BYTES, true, 16);
    put_x87_head(&core->cpu, image, insn->sub & SUB_W);
    put_mxcsr(&core->cpu, image);
    memcpy(image + FX_ST, core->cpu.fx + FX_ST, 128);
    put_xmm(&core->cpu, image, vector_count(insn));
    x86_probe_write(core, linear, FXSAVE_BYTES);
    x86_store_bytes(core, linear, image, XMM_OFFSET + 16 * vector_count(insn));
}

static void exec_fxrstor(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    uint8_t image[FXSAVE_BYTES];
    fx_gate(core);
    uint64_t linear = area(core, insn, FXSAVE_BYTES, false, 16);
    x86_load_bytes(core, linear, image, sizeof image);
    fx_set_mxcsr(cpu, image_mxcsr(core, image));
    get_x87(cpu, image, insn->sub & SUB_W);
    for (unsigned i = 0; i < vector_count(insn); i++)
        memcpy(cpu->ymm[i], image + XMM_OFFSET + 16 * i, 16);
}

/* ---- XSAVE ---- */

static void xsave_gate(struct x86_core *core)
{
    if (!(core->cpu.cr4 & X86_CR4_OSXSAVE))
        x86_raise_ud(core);
    if (core->cpu.cr0 & X86_CR0_TS)
        x86_raise(core, X86_NM, 0);
}

/* RFBM: the components asked for. No supervisor component exists, so XSS adds none. */
static uint64_t requested(const struct x86_core *core)
{
    const struct x86_cpu *cpu = &core->cpu;
    return ((cpu->reg[X86_RDX] << 32) | (uint32_t)cpu->reg[X86_RAX]) & cpu->xcr0;
}

static unsigned area_size(uint64_t components)
{
    return components & X86_XCR0_AVX ? AREA_BYTES : X86_XSAVE_AVX;
}

/* Stores the components in `write` (x87, SSE, AVX); the area has been probed. */
static void store_components(struct x86_core *core, const struct x86_insn *insn, uint64_t linear, uint64_t write)
{
    const struct x86_cpu *cpu = &core->cpu;
    unsigned count = vector_count(insn);
    uint8_t image[FXSAVE_BYTES];
    if (write & X86_XCR0_X87) {
        put_x87_head(cpu, image, insn->sub & SUB_W);
        x86_store_bytes(core, linear, image, FX_MXCSR);
        x86_store_bytes(core, linear + FX_ST, cpu->fx + FX_ST, 128);
    }
    if (write & X86_XCR0_SSE) {
        put_xmm(cpu, image, count);
        x86_store_bytes(core, linear + XMM_OFFSET, image + XMM_OFFSET, 16 * count);
    }
    if (write & X86_XCR0_AVX) {
        for (unsigned i = 0; i < count; i++)
            memcpy(image + 16 * i, cpu->ymm[i] + 16, 16);
        x86_store_bytes(core, linear + X86_XSAVE_AVX, image, 16 * count);
    }
}

static void exec_xsave(struct x86_core *core, const struct x86_insn *insn)
{
    const struct x86_cpu *cpu = &core->cpu;
    xsave_gate(core);
    if ((insn->sub & SUB_SUPERVISOR) && x86_cpl(cpu) != 0)
        x86_raise_gp(core, 0);
    uint64_t asked = requested(core), used = components_in_use(cpu, vector_count(insn));
    uint64_t linear = area(core, insn, area_size(asked), true, 64);
    uint64_t write = insn->sub & (SUB_OPTIMIZE | SUB_COMPACT) ? asked & used : asked;
    uint64_t header[2] = {asked & used, 0};
    bool mxcsr = asked & (X86_XCR0_SSE | X86_XCR0_AVX);
    unsigned header_bytes = 8;
    if (insn->sub & SUB_COMPACT) {
        header[1] = COMPACTED | asked;
        header_bytes = 16;
        /* Here MXCSR belongs to SSE: another value than the initial one makes the component count as used. */
        if ((asked & X86_XCR0_SSE) && fx_mxcsr(cpu) != MXCSR_DEFAULT) {
            header[0] |= X86_XCR0_SSE;
            write |= X86_XCR0_SSE;
        }
        mxcsr = write & X86_XCR0_SSE;
    } else {
        header[0] |= x86_load64(core, linear + X86_XSAVE_HEADER) & ~asked;
    }
    x86_probe_write(core, linear, area_size(asked));
    store_components(core, insn, linear, write);
    if (mxcsr) {
        uint8_t image[FX_ST];
        put_mxcsr(cpu, image);
        x86_store_bytes(core, linear + FX_MXCSR, image + FX_MXCSR, 8);
    }
    x86_store_bytes(core, linear + X86_XSAVE_HEADER, header, header_bytes);
}

/* ---- XRSTOR ---- */

/* #GP for a header that the standard or compacted form does not allow. */
static void check_header(struct x86_core *core, const struct x86_insn *insn, const struct header *header)
{
    uint64_t allowed = core->cpu.xcr0;
    bool bad;
    if (header->xcomp_bv & COMPACTED) {
        uint64_t format = header->xcomp_bv & ~COMPACTED;
        bad = (format & ~allowed) || (header->xstate_bv & ~format) ||
              !all_zero(header->reserved, sizeof header->reserved);
    } else {
        bad = (insn->sub & SUB_SUPERVISOR) || header->xcomp_bv || (header->xstate_bv & ~allowed) ||
              header->reserved[0];
    }
    if (bad)
        x86_raise_gp(core, 0);
}

static void exec_xrstor(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    uint8_t image[AREA_BYTES] __attribute__((uninitialized));
    struct header header;
    unsigned count = vector_count(insn);
    xsave_gate(core);
    if ((insn->sub & SUB_SUPERVISOR) && x86_cpl(cpu) != 0)
        x86_raise_gp(core, 0);
    uint64_t asked = requested(core);
    uint64_t linear = area(core, insn, area_size(asked), false, 64);
    x86_load_bytes(core, linear, image, X86_XSAVE_AVX);
    memcpy(&header, image + X86_XSAVE_HEADER, sizeof header);
    check_header(core, insn, &header);
    uint64_t load = asked & header.xstate_bv;
    if (load & X86_XCR0_AVX)
        x86_load_bytes(core, linear + X86_XSAVE_AVX, image + X86_XSAVE_AVX, 16 * count);
    uint32_t mxcsr = fx_mxcsr(cpu);
    if (!(header.xcomp_bv & COMPACTED)) {
        if (asked & (X86_XCR0_SSE | X86_XCR0_AVX))
            mxcsr = image_mxcsr(core, image);
    } else if (asked & X86_XCR0_SSE) {
        mxcsr = load & X86_XCR0_SSE ? image_mxcsr(core, image) : MXCSR_DEFAULT;
    }
    /* Nothing can fault from here on. */
    fx_set_mxcsr(cpu, mxcsr);
    if (load & X86_XCR0_X87)
        get_x87(cpu, image, insn->sub & SUB_W);
    else if (asked & X86_XCR0_X87)
        initial_x87(cpu);
    static const uint8_t zero[16];
    for (unsigned i = 0; i < count; i++) {
        if (asked & X86_XCR0_SSE)
            memcpy(cpu->ymm[i], load & X86_XCR0_SSE ? image + XMM_OFFSET + 16 * i : zero, 16);
        if (asked & X86_XCR0_AVX)
            memcpy(cpu->ymm[i] + 16, load & X86_XCR0_AVX ? image + X86_XSAVE_AVX + 16 * i : zero, 16);
    }
}

/* ---- XCR0 ---- */

static void exec_xgetbv(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    (void)insn;
    if (!(cpu->cr4 & X86_CR4_OSXSAVE))
        x86_raise_ud(core);
    uint32_t index = (uint32_t)cpu->reg[X86_RCX];
    uint64_t value = cpu->xcr0;
    if (index == 1)
        value &= components_in_use(cpu, 16) | (fx_mxcsr(cpu) != MXCSR_DEFAULT ? X86_XCR0_SSE : 0);
    else if (index != 0)
        x86_raise_gp(core, 0);
    cpu->reg[X86_RAX] = (uint32_t)value;
    cpu->reg[X86_RDX] = value >> 32;
}

static void exec_xsetbv(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    (void)insn;
    if (!(cpu->cr4 & X86_CR4_OSXSAVE))
        x86_raise_ud(core);
    uint64_t value = cpu->reg[X86_RDX] << 32 | (uint32_t)cpu->reg[X86_RAX];
    if (x86_cpl(cpu) != 0 || (uint32_t)cpu->reg[X86_RCX] != 0 || (value & ~core->cpuid->xcr0_mask) ||
        !(value & X86_XCR0_X87) || ((value & X86_XCR0_AVX) && !(value & X86_XCR0_SSE)))
        x86_raise_gp(core, 0);
    cpu->xcr0 = value;
}

x86_exec_fn *x86_select_xsave(const struct x86_zydis *z, struct x86_insn *insn)
{
    uint8_t sub = 0;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE64: case ZYDIS_MNEMONIC_FXRSTOR64: case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT64: case ZYDIS_MNEMONIC_XSAVEC64: case ZYDIS_MNEMONIC_XSAVES64:
    case ZYDIS_MNEMONIC_XRSTOR64: case ZYDIS_MNEMONIC_XRSTORS64:
        sub = SUB_W;
        break;
    default:
        break;
    }
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE: case ZYDIS_MNEMONIC_FXSAVE64:
        insn->sub = sub;
        return exec_fxsave;
    case ZYDIS_MNEMONIC_FXRSTOR: case ZYDIS_MNEMONIC_FXRSTOR64:
        insn->sub = sub;
        return exec_fxrstor;
    case ZYDIS_MNEMONIC_XSAVE: case ZYDIS_MNEMONIC_XSAVE64:
        insn->sub = sub;
        return exec_xsave;
    case ZYDIS_MNEMONIC_XSAVEOPT: case ZYDIS_MNEMONIC_XSAVEOPT64:
        insn->sub = sub | SUB_OPTIMIZE;
        return exec_xsave;
    case ZYDIS_MNEMONIC_XSAVEC: case ZYDIS_MNEMONIC_XSAVEC64:
        insn->sub = sub | SUB_COMPACT;
        return exec_xsave;
    case ZYDIS_MNEMONIC_XSAVES: case ZYDIS_MNEMONIC_XSAVES64:
        insn->sub = sub | SUB_COMPACT | SUB_SUPERVISOR;
        return exec_xsave;
    case ZYDIS_MNEMONIC_XRSTOR: case ZYDIS_MNEMONIC_XRSTOR64:
        insn->sub = sub;
        return exec_xrstor;
    case ZYDIS_MNEMONIC_XRSTORS: case ZYDIS_MNEMONIC_XRSTORS64:
        insn->sub = sub | SUB_SUPERVISOR;
        return exec_xrstor;
    case ZYDIS_MNEMONIC_XGETBV: return exec_xgetbv;
    case ZYDIS_MNEMONIC_XSETBV:
        insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
        return exec_xsetbv;
    default: return NULL;
    }
}
