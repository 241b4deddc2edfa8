/* exec_x87.c - x87: control in C, arithmetic by a host thunk around the guest's FXSAVE image.
 *
 * The thunk works on a copy of the image, which is taken over once the memory operand is stored. It leaves
 * the host's x87 unit empty, and never runs a waiting instruction while an exception is pending.
 *
 * The error pointers (FIP, FDP, FOP) are kept as AMD processors show them: set by an instruction that
 * leaves an unmasked exception pending, or loaded; the host's own, which point into the thunk, never show. CS and
 * DS selectors read as zero, which CPUID announces (leaf 7, EBX bit 13). With CR0.NE clear a pending exception is
 * #MF too: the external-interrupt way of the IBM PC is not there. Intel SDM 1, chapter 8. */
#include "isa/x86/vector.h"

#define FSW_EXCEPTIONS 0x3fu
#define FSW_NO_STORE (0x01u | 0x08u | 0x10u) /* IE OE UE: unmasked, the memory operand is not stored */
#define FCW_WRITABLE 0x1f3fu
#define FCW_FIXED 0x0040u
#define FCW_INITIAL 0x037fu

/* insn->sub */
#define SUB_LOAD 0x01u
#define SUB_STORE 0x02u
#define SUB_FLAGS_OUT 0x04u
#define SUB_FLAGS_IN 0x08u
#define SUB_ENVIRONMENT 0x10u /* the memory operand begins with an environment */
#define SUB_NO_WAIT 0x20u

#define ENVIRONMENT16 14u
#define ENVIRONMENT32 28u

/* #NM with CR0.EM or CR0.TS. */
static inline void x87_gate(struct x86_core *core)
{
    if (__builtin_expect(core->cpu.cr0 & (X86_CR0_EM | X86_CR0_TS), 0))
        x86_raise(core, X86_NM, 0);
}

static inline void x87_pending(struct x86_core *core)
{
    if (__builtin_expect(fx_get16(&core->cpu, FX_FSW) & FSW_ES, 0))
        x86_raise(core, X86_MF, 0);
}

void x86_mmx_gate(struct x86_core *core)
{
    if (core->cpu.cr0 & X86_CR0_EM)
        x86_raise_ud(core);
    x87_gate(core);
    x87_pending(core);
}

/* TOP becomes 0; every physical register keeps its value. */
static void top_to_zero(struct x86_cpu *cpu)
{
    uint16_t fsw = fx_get16(cpu, FX_FSW);
    unsigned top = fsw >> FSW_TOP_SHIFT & 7;
    uint8_t old[8][16];
    if (top == 0)
        return;
    memcpy(old, cpu->fx + FX_ST, sizeof old);
    for (unsigned i = 0; i < 8; i++)
        memcpy(cpu->fx + FX_ST + 16 * i, old[(i - top) & 7], 16);
    fx_put16(cpu, FX_FSW, fsw & (uint16_t)~FSW_TOP);
}

void x86_mmx_enter(struct x86_cpu *cpu)
{
    top_to_zero(cpu);
    cpu->fx[FX_FTW] = 0xff;
}

/* The exception summary and busy bits follow flags and masks. */
static void update_summary(struct x86_cpu *cpu)
{
    uint16_t fsw = fx_get16(cpu, FX_FSW) & (uint16_t)~(FSW_ES | FSW_B);
    if (fsw & ~fx_get16(cpu, FX_FCW) & FSW_EXCEPTIONS)
        fsw |= FSW_ES | FSW_B;
    fx_put16(cpu, FX_FSW, fsw);
}

/* Copies the error pointers between an FXSAVE image and an environment in memory, in the form that the mode and the
 * size (14 or 28 bytes) give it. Selectors are zero in protected mode; in real mode the pointers are linear. */
static void pointers_to_environment(const struct x86_cpu *cpu, uint8_t *environment, bool wide, bool real)
{
    uint64_t fip, fdp;
    uint16_t fop = fx_get16(cpu, FX_FOP) & 0x7ff;
    memcpy(&fip, cpu->fx + FX_FIP, 8);
    memcpy(&fdp, cpu->fx + FX_FDP, 8);
    if (wide) {
        uint32_t word[4] = {(uint32_t)fip, (uint32_t)fop << 16, (uint32_t)fdp, 0xffff0000u};
        if (real) {
            word[0] = fip & 0xffff;
            word[1] = (uint32_t)((fip >> 16 & 0xffff) << 12) | fop;
            word[2] = fdp & 0xffff;
            word[3] = (uint32_t)((fdp >> 16 & 0xffff) << 12);
        }
        memcpy(environment + 12, word, sizeof word);
    } else {
        uint16_t word[4] = {(uint16_t)fip, 0, (uint16_t)fdp, 0};
        if (real) {
            word[1] = (uint16_t)((fip >> 16 & 15) << 12 | fop);
            word[3] = (uint16_t)((fdp >> 16 & 15) << 12);
        }
        memcpy(environment + 6, word, sizeof word);
    }
}

static void pointers_from_environment(struct x86_cpu *cpu, const uint8_t *environment, bool wide, bool real)
{
    uint64_t fip, fdp;
    uint16_t fop = 0;
    if (wide) {
        uint32_t word[4];
        memcpy(word, environment + 12, sizeof word);
        fip = real ? (word[0] & 0xffff) | (uint64_t)(word[1] >> 12 & 0xffff) << 16 : word[0];
        fdp = real ? (word[2] & 0xffff) | (uint64_t)(word[3] >> 12 & 0xffff) << 16 : word[2];
        fop = (uint16_t)(real ? word[1] : word[1] >> 16) & 0x7ff;
    } else {
        uint16_t word[4];
        memcpy(word, environment + 6, sizeof word);
        fip = real ? word[0] | (uint64_t)(word[1] >> 12) << 16 : word[0];
        fdp = real ? word[2] | (uint64_t)(word[3] >> 12) << 16 : word[2];
        fop = real ? word[1] & 0x7ff : 0;
    }
    memcpy(cpu->fx + FX_FIP, &fip, 8);
    memcpy(cpu->fx + FX_FDP, &fdp, 8);
    fx_put16(cpu, FX_FOP, fop);
}

/* An instruction left an unmasked exception: note where. */
static void set_pointers(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    uint64_t fip = cpu->reg[X86_RIP] - insn->length, fdp = 0;
    if (insn->flags & X86_INSN_MEMORY)
        fdp = x86_effective(core, insn);
    memcpy(cpu->fx + FX_FIP, &fip, 8);
    memcpy(cpu->fx + FX_FDP, &fdp, 8);
    fx_put16(cpu, FX_FOP, (uint16_t)((insn->opcode & 7) << 8 | insn->modrm));
}

static bool real_layout(const struct x86_core *core)
{
    return !(core->cpu.cr0 & X86_CR0_PE) || (core->cpu.rflags & X86_FLAG_VM);
}

/* The state after an instruction; the image's pointers are the host's, so keep the guest's. */
static void take_image(struct x86_core *core, const struct x86_insn *insn, const uint8_t *image)
{
    struct x86_cpu *cpu = &core->cpu;
    uint16_t before = fx_get16(cpu, FX_FSW);
    memcpy(cpu->fx, image, FX_FOP);
    memcpy(cpu->fx + FX_ST, image + FX_ST, 128);
    if ((fx_get16(cpu, FX_FSW) & ~before & FSW_ES) && !(insn->sub & SUB_ENVIRONMENT))
        set_pointers(core, insn);
}

/* What alignment checking asks of operands of 10 bytes and of environments; the rest has its own size. */
static unsigned operand_alignment(unsigned size)
{
    switch (size) {
    case 10: return 8;
    case 14: case 94: return 2;
    case 28: case 108: return 4;
    default: return size;
    }
}

static inline uint8_t *memory_operand(struct x86_core *core, const struct x86_insn *insn, uint8_t *bounce,
                                      uint64_t *ret_linear)
{
    *ret_linear = x86_linear(core, insn, insn->opsize, insn->sub & SUB_STORE);
    if (__builtin_expect(core->tlb_now == core->tlb[X86_TLB_USER_ALIGN], 0) &&
        (*ret_linear & (operand_alignment(insn->opsize) - 1)) && x86_canonical(*ret_linear))
        x86_raise(core, X86_AC, 0);
    if (insn->sub & SUB_ENVIRONMENT) { /* processors look at the last byte first, as CR2 shows */
        if (insn->sub & SUB_STORE)
            x86_probe_write(core, *ret_linear + insn->opsize - 1, 1);
        else
            x86_probe_read(core, *ret_linear + insn->opsize - 1, 1);
    }
    if (insn->sub & SUB_STORE)
        return bounce;
    return x86_vector_source(core, *ret_linear, insn->opsize, bounce);
}

static void exec_thunk(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    _Alignas(16) uint8_t image[512] __attribute__((uninitialized));
    _Alignas(16) uint8_t bounce[112];
    uint8_t *memory = bounce;
    struct x86_thunk_io io = {.flags = (cpu->rflags & X86_FLAGS_ARITH) | X86_FLAG_FIXED | X86_FLAG_IF,
                             .host_fcw = X86_HOST_FCW};
    uint64_t linear = 0;
    x86_thunk_fn *fn;
    x87_gate(core);
    if (!(insn->sub & SUB_NO_WAIT))
        x87_pending(core);
    if (insn->flags & X86_INSN_MEMORY)
        memory = memory_operand(core, insn, bounce, &linear);
    uint32_t mxcsr = MXCSR_DEFAULT;
    memcpy(image, cpu->fx, sizeof cpu->fx);
    memcpy(image + FX_MXCSR, &mxcsr, sizeof mxcsr);
    memcpy(&fn, &insn->host, sizeof fn);
    fn(memory, image, bounce, bounce, &io);
    if (insn->sub & SUB_STORE) {
        uint16_t fcw, fsw;
        memcpy(&fcw, image + FX_FCW, sizeof fcw);
        memcpy(&fsw, image + FX_FSW, sizeof fsw);
        if (insn->sub & SUB_ENVIRONMENT)
            pointers_to_environment(cpu, bounce, insn->opsize != ENVIRONMENT16 && insn->opsize != 94,
                                    real_layout(core));
        if ((insn->sub & SUB_ENVIRONMENT) || !(fsw & ~fcw & FSW_NO_STORE))
            x86_store_bytes(core, linear, bounce, insn->opsize);
        else
            x86_probe_write(core, linear, insn->opsize);
    } else if (insn->sub & SUB_ENVIRONMENT) {
        pointers_from_environment(cpu, memory, insn->opsize != ENVIRONMENT16 && insn->opsize != 94,
                                  real_layout(core));
    }
    take_image(core, insn, image);
    if (insn->sub & SUB_FLAGS_OUT)
        cpu->rflags = (cpu->rflags & ~(uint64_t)X86_FLAGS_ARITH) | (io.flags & X86_FLAGS_ARITH);
}

static void clear_pointers(struct x86_cpu *cpu)
{
    memset(cpu->fx + FX_FOP, 0, FX_MXCSR - FX_FOP);
}

static void exec_fninit(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    (void)insn;
    x87_gate(core);
    top_to_zero(cpu);
    fx_put16(cpu, FX_FCW, FCW_INITIAL);
    fx_put16(cpu, FX_FSW, 0);
    cpu->fx[FX_FTW] = 0;
    clear_pointers(cpu);
}

static void exec_fnclex(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x87_gate(core);
    fx_put16(&core->cpu, FX_FSW, fx_get16(&core->cpu, FX_FSW) & 0x7f00);
}

static void exec_fnstcw(struct x86_core *core, const struct x86_insn *insn)
{
    x87_gate(core);
    x86_store16(core, x86_linear(core, insn, 2, true), fx_get16(&core->cpu, FX_FCW));
}

static void exec_fldcw(struct x86_core *core, const struct x86_insn *insn)
{
    x87_gate(core);
    x87_pending(core);
    uint16_t value = x86_load16(core, x86_linear(core, insn, 2, false));
    fx_put16(&core->cpu, FX_FCW, (value & FCW_WRITABLE) | FCW_FIXED);
    update_summary(&core->cpu);
}

static void exec_fnstsw(struct x86_core *core, const struct x86_insn *insn)
{
    x87_gate(core);
    x86_store16(core, x86_linear(core, insn, 2, true), fx_get16(&core->cpu, FX_FSW));
}

static void exec_fnstsw_ax(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t *rax = &core->cpu.reg[X86_RAX];
    (void)insn;
    x87_gate(core);
    *rax = (*rax & ~UINT64_C(0xffff)) | fx_get16(&core->cpu, FX_FSW);
}

static void exec_fwait(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    if ((core->cpu.cr0 & X86_CR0_MP) && (core->cpu.cr0 & X86_CR0_TS))
        x86_raise(core, X86_NM, 0);
    x87_pending(core);
}

/* FNOP; and FENI, FDISI, FSETPM, which mattered before the 80387. */
static void exec_fnop(struct x86_core *core, const struct x86_insn *insn)
{
    x87_gate(core);
    if (!(insn->sub & SUB_NO_WAIT))
        x87_pending(core);
}

/* ---- Selection ---- */

static x86_exec_fn *select_control(const struct x86_zydis *z, struct x86_insn *insn)
{
    bool memory = insn->flags & X86_INSN_MEMORY;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_FNINIT: return exec_fninit;
    case ZYDIS_MNEMONIC_FNCLEX: return exec_fnclex;
    case ZYDIS_MNEMONIC_FNSTCW: return exec_fnstcw;
    case ZYDIS_MNEMONIC_FLDCW: return exec_fldcw;
    case ZYDIS_MNEMONIC_FNSTSW: return memory ? exec_fnstsw : exec_fnstsw_ax;
    case ZYDIS_MNEMONIC_FWAIT: return exec_fwait;
    case ZYDIS_MNEMONIC_FENI8087_NOP: case ZYDIS_MNEMONIC_FDISI8087_NOP: case ZYDIS_MNEMONIC_FSETPM287_NOP:
        insn->sub = SUB_NO_WAIT;
        return exec_fnop;
    case ZYDIS_MNEMONIC_FNOP: return exec_fnop;
    default: return NULL;
    }
}

static uint8_t operand_bits(const struct x86_zydis *z)
{
    uint8_t sub = 0;
    for (unsigned i = 0; i < z->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &z->operand[i];
        bool read = operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
        bool written = operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY)
            sub |= (uint8_t)((read ? SUB_LOAD : 0) | (written ? SUB_STORE : 0));
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_FLAGS)
            sub |= (uint8_t)((read ? SUB_FLAGS_IN : 0) | (written ? SUB_FLAGS_OUT : 0));
    }
    return sub;
}

x86_exec_fn *x86_select_x87(const struct x86_zydis *z, struct x86_insn *insn)
{
    if (z->insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT ||
        (z->insn.opcode != 0x9b && (z->insn.opcode < 0xd8 || z->insn.opcode > 0xdf)) ||
        z->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return NULL;
    x86_exec_fn *exec = select_control(z, insn);
    if (exec)
        return exec;
    struct x86_hostcode *host = x86_decoder_hostcode(z->decoder);
    insn->sub = operand_bits(z);
    if (insn->flags & X86_INSN_MEMORY)
        for (unsigned i = 0; i < z->insn.operand_count; i++)
            if (z->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
                insn->opsize = (uint8_t)(z->operand[i].size / 8);
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV: case ZYDIS_MNEMONIC_FNSAVE:
        insn->sub |= SUB_ENVIRONMENT | SUB_NO_WAIT;
        break;
    case ZYDIS_MNEMONIC_FLDENV: case ZYDIS_MNEMONIC_FRSTOR:
        insn->sub |= SUB_ENVIRONMENT;
        break;
    default:
        break;
    }
    unsigned use = (insn->sub & SUB_FLAGS_IN ? X86_THUNK_FLAGS_IN : 0) |
                   (insn->sub & SUB_FLAGS_OUT ? X86_THUNK_FLAGS : 0);
    x86_thunk_fn *fn = host ? x86_hostcode_x87(host, z, use) : NULL;
    if (!fn)
        return NULL;
    memcpy(&insn->host, &fn, sizeof fn);
    return exec_thunk;
}
