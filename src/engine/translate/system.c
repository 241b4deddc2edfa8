/* system.c - see system.h.
 *
 * RFLAGS in struct x86_cpu hold everything but the arithmetic flags, which are the host's. IF, DF and AC are therefore
 * bits in memory; where the host's flags are live they are changed with PEXT, PDEP and LEA.
 *
 * STI keeps interrupts out for one more instruction. The trace that follows would leave at its entry when there is
 * one, so STI notes in `shadow_at` where that is, and the shadow is cast there by whoever handles the exit
 * (run.c). */
#include "engine/translate/system.h"
#include "isa/x86/segment.h"

#define ASSUMED (X86_CR4_TSD | X86_CR4_FSGSBASE | X86_CR4_SMAP)
#define GS_BASE(number) (GS_CPU(seg) + (number) * sizeof(struct x86_segment) + offsetof(struct x86_segment, base))
#define GS_SELECTOR(number) (GS_CPU(seg) + (number) * sizeof(struct x86_segment) + offsetof(struct x86_segment, selector))

static bool is_user(unsigned context)
{
    return context == X86_TLB_USER || context == X86_TLB_USER_ALIGN;
}

static bool of_class(const ZydisDecodedOperand *operand, ZydisRegisterClass class)
{
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(operand->reg.value) == class;
}

static enum native_kind move_kind(const struct native *n)
{
    const ZydisDecodedOperand *to = &n->operand[0], *from = &n->operand[1];
    if (of_class(to, ZYDIS_REGCLASS_GPR64) && of_class(from, ZYDIS_REGCLASS_CONTROL) &&
        from->reg.value != ZYDIS_REGISTER_CR8)
        return NATIVE_SYSTEM;
    bool wide = of_class(to, ZYDIS_REGCLASS_GPR64) || of_class(to, ZYDIS_REGCLASS_GPR32);
    return wide && of_class(from, ZYDIS_REGCLASS_SEGMENT) ? NATIVE_SYSTEM : NATIVE_NO;
}

enum native_kind system_kind(const struct native *n)
{
    switch (n->insn.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
    case ZYDIS_MNEMONIC_SWAPGS:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE: return NATIVE_SYSTEM;
    case ZYDIS_MNEMONIC_MOV: return move_kind(n);
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STI: return NATIVE_SWITCH;
    case ZYDIS_MNEMONIC_PUSHFQ: return NATIVE_PUSHF;
    case ZYDIS_MNEMONIC_POPFQ: return NATIVE_POPF;
    case ZYDIS_MNEMONIC_CPUID: return NATIVE_CPUID;
    default: return NATIVE_NO;
    }
}

bool system_allows(const struct translate_vcpu *t, unsigned context, const struct native *n)
{
    bool user = is_user(context);
    if (n->vector && n->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && !t->assumed_avx)
        return false;
    switch (n->insn.mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP: return !user || !(t->assumed_cr4 & X86_CR4_TSD);
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE: return (t->assumed_cr4 & X86_CR4_FSGSBASE) != 0;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC: return !user && (t->assumed_cr4 & X86_CR4_SMAP);
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_SWAPGS: return !user;
    case ZYDIS_MNEMONIC_MOV: return !user || !of_class(&n->operand[1], ZYDIS_REGCLASS_CONTROL);
    default: return true;
    }
}

bool system_repeats(const struct native *n)
{
    return n->kind != NATIVE_SWITCH && n->insn.mnemonic != ZYDIS_MNEMONIC_RDTSC &&
           n->insn.mnemonic != ZYDIS_MNEMONIC_RDTSCP;
}

/* AVX instructions do not raise #UD. */
static bool avx_enabled(const struct x86_cpu *cpu)
{
    const uint64_t avx = X86_XCR0_SSE | X86_XCR0_AVX;
    return (cpu->cr4 & X86_CR4_OSXSAVE) && (cpu->xcr0 & avx) == avx;
}

/* Traces for a supervisor's contexts take CPL for 0: levels 1 and 2 are interpreted. */
bool system_agrees(const struct translate_vcpu *t)
{
    const struct x86_cpu *cpu = &t->soft.core.cpu;
    unsigned cpl = x86_cpl(cpu);
    return (cpu->cr4 & ASSUMED) == t->assumed_cr4 && avx_enabled(cpu) == t->assumed_avx && (cpl == 0 || cpl == 3);
}

void system_assume(struct translate_vcpu *t)
{
    t->assumed_cr4 = t->soft.core.cpu.cr4 & ASSUMED;
    t->assumed_avx = avx_enabled(&t->soft.core.cpu);
}

/* PEXT or PDEP r11, r11, gs:[offset]. */
static void pack(struct emit *e, bool deposit, size_t offset)
{
    emit8(e, 0x65);
    emit8(e, 0xc4);
    emit8(e, 0x62); /* R = 0: R11; X, B set; map 0f38 */
    emit8(e, 0x80 | (~H_R11 & 15) << 3 | (deposit ? 3 : 2));
    emit8(e, 0xf5);
    emit8(e, (H_R11 & 7) << 3 | 4);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offset);
}

/* R11 = RFLAGS of struct x86_cpu without the bits that the mask at gs:[keep] lacks; flags stay. */
static void load_without(struct emit *e, size_t keep)
{
    emit_load(e, H_R11, GS_CPU(rflags));
    pack(e, false, keep);
    pack(e, true, keep);
}

/* op dword gs:[rflags], imm32, by group 1 of opcode 0x81; destroys the flags. */
static void change(struct emit *e, unsigned group, uint32_t value)
{
    emit8(e, 0x65);
    emit8(e, 0x81);
    emit8(e, group << 3 | 4);
    emit8(e, 0x25);
    emit32(e, (uint32_t)GS_CPU(rflags));
    emit32(e, value);
}

static void clear_flag(struct emit *e, uint32_t flag, size_t keep, bool flags_live)
{
    if (!flags_live) {
        change(e, 4, ~flag);
        return;
    }
    load_without(e, keep);
    emit_store(e, H_R11, GS_CPU(rflags));
}

static void set_direction(struct emit *e)
{
    load_without(e, GS(keep_df));
    emit_lea(e, H_R11, H_R11, EMIT_NONE, 0, X86_FLAG_DF);
    emit_store(e, H_R11, GS_CPU(rflags));
}

static void swap_gs(struct emit *e)
{
    emit_load(e, H_R10, GS_BASE(X86_GS));
    emit_load(e, H_R11, GS_CPU(kernel_gs_base));
    emit_store(e, H_R11, GS_BASE(X86_GS));
    emit_store(e, H_R10, GS_CPU(kernel_gs_base));
}

/* mov r32, r32 */
static void move32(struct emit *e, unsigned to, unsigned from)
{
    emit_rex(e, false, from, 0, to);
    emit8(e, 0x89);
    emit8(e, 0xc0 | (from & 7) << 3 | (to & 7));
}

static void read_tsc(struct emit *e, bool with_aux)
{
    emit8(e, 0x0f); /* rdtsc */
    emit8(e, 0x31);
    emit_rorx(e, H_RDX, H_RDX, 32);
    emit_lea(e, H_RDX, H_RDX, H_RAX, 0, 0);
    emit_load(e, H_R11, GS_CPU(tsc_offset));
    emit_lea(e, H_RDX, H_RDX, H_R11, 0, 0);
    move32(e, H_RAX, H_RDX);
    emit_rorx(e, H_RDX, H_RDX, 32);
    move32(e, H_RDX, H_RDX);
    if (with_aux)
        emit_gs(e, false, 0x8b, H_RCX, GS_CPU(tsc_aux));
}

/* A register's destination: R10 and R11 live in memory. */
static unsigned host_of(unsigned reg) { return reg == H_R10 || reg == H_R11 ? H_R11 : reg; }

static void finish(struct emit *e, unsigned reg)
{
    if (reg == H_R10 || reg == H_R11)
        emit_store(e, H_R11, GS_REG(reg));
}

static void read_base(struct emit *e, const struct native *n, unsigned segment)
{
    unsigned reg = native_register(n->operand[0].reg.value);
    emit_gs(e, n->insn.operand_width == 64, 0x8b, host_of(reg), GS_BASE(segment));
    finish(e, reg);
}

static void move_from(struct emit *e, const struct native *n)
{
    unsigned reg = native_register(n->operand[0].reg.value), from = n->operand[1].reg.value;
    switch (from) {
    case ZYDIS_REGISTER_CR0: emit_load(e, host_of(reg), GS_CPU(cr0)); break;
    case ZYDIS_REGISTER_CR2: emit_load(e, host_of(reg), GS_CPU(cr2)); break;
    case ZYDIS_REGISTER_CR3: emit_load(e, host_of(reg), GS_CPU(cr3)); break;
    case ZYDIS_REGISTER_CR4: emit_load(e, host_of(reg), GS_CPU(cr4)); break;
    default: { /* movzx r32, word: segment registers are numbered as in the instruction */
        size_t offset = GS_SELECTOR((unsigned)ZydisRegisterGetId((ZydisRegister)from));
        unsigned to = host_of(reg);
        emit8(e, 0x65);
        emit_rex(e, false, to, 0, 0);
        emit8(e, 0x0f);
        emit8(e, 0xb7);
        emit8(e, (to & 7) << 3 | 4);
        emit8(e, 0x25);
        emit32(e, (uint32_t)offset);
    }
    }
    finish(e, reg);
}

void system_emit(struct emit *e, const struct native *n, bool flags_live)
{
    switch (n->insn.mnemonic) {
    case ZYDIS_MNEMONIC_CLI: clear_flag(e, X86_FLAG_IF, GS(keep_if), flags_live); break;
    case ZYDIS_MNEMONIC_CLD: clear_flag(e, X86_FLAG_DF, GS(keep_df), flags_live); break;
    case ZYDIS_MNEMONIC_STD: set_direction(e); break;
    case ZYDIS_MNEMONIC_SWAPGS: swap_gs(e); break;
    case ZYDIS_MNEMONIC_RDTSC: read_tsc(e, false); break;
    case ZYDIS_MNEMONIC_RDTSCP: read_tsc(e, true); break;
    case ZYDIS_MNEMONIC_RDFSBASE: read_base(e, n, X86_FS); break;
    case ZYDIS_MNEMONIC_RDGSBASE: read_base(e, n, X86_GS); break;
    default: move_from(e, n);
    }
}

/* ---- what ends a block ---- */

static void go(struct emit *e, const struct translate_vcpu *t, unsigned context, uint64_t next)
{
    emit_save_flags(e);
    emit_mov_imm(e, H_R10, next);
    emit_jmp_to(e, t->thunks.indirect[context]);
}

/* AC decides between the two contexts of a supervisor, CR4.SMAP being set: the trace's own says what it is. */
static void switch_ac(struct emit *e, const struct translate_vcpu *t, bool set, unsigned context, uint64_t next)
{
    unsigned to = set ? X86_TLB_SUPERVISOR : X86_TLB_SUPERVISOR_SMAP;
    if (to != context) {
        emit_load(e, H_R11, GS_CPU(rflags));
        emit_lea(e, H_R11, H_R11, EMIT_NONE, 0, set ? (int32_t)X86_FLAG_AC : -(int32_t)X86_FLAG_AC);
        emit_store(e, H_R11, GS_CPU(rflags));
        emit_mov_imm(e, H_R11, (uint64_t)(uintptr_t)t->soft.core.tlb[to]);
        emit_store(e, H_R11, offsetof(struct translate_vcpu, soft.core.tlb_now));
    }
    go(e, t, to, next);
}

/* With an interrupt waiting, STI is interpreted. */
static uint32_t enable_interrupts(struct emit *e, const struct translate_vcpu *t, unsigned context, uint64_t next)
{
    emit_store(e, H_RCX, GS(spill));
    emit8(e, 0x65); /* movzx ecx, byte gs:[interrupt_waiting] */
    emit8(e, 0x0f);
    emit8(e, 0xb6);
    emit8(e, 0x0c);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offsetof(struct translate_vcpu, soft.interrupt_waiting));
    uint32_t none = emit_jrcxz(e);
    uint32_t leave = emit_jmp(e);
    emit_patch8(e, none);
    emit_load(e, H_RCX, GS(spill));
    load_without(e, GS(keep_if));
    emit_lea(e, H_R11, H_R11, EMIT_NONE, 0, X86_FLAG_IF);
    emit_store(e, H_R11, GS_CPU(rflags));
    emit_mov_imm(e, H_R10, next);
    emit_store(e, H_R10, GS(shadow_at));
    emit_save_flags(e);
    emit_jmp_to(e, t->thunks.indirect[context]);
    return leave;
}

uint32_t system_emit_switch(struct emit *e, const struct translate_vcpu *t, const struct native *n, unsigned context,
                            uint64_t next)
{
    if (n->insn.mnemonic == ZYDIS_MNEMONIC_STI)
        return enable_interrupts(e, t, context, next);
    switch_ac(e, t, n->insn.mnemonic == ZYDIS_MNEMONIC_STAC, context, next);
    return 0;
}

/* ---- PUSHF, POPF ---- */

#define LOW_FLAGS (X86_FLAGS_ARITH & 0xffu)

static void emit_code(struct emit *e, const char *bytes, size_t length) { emit_bytes(e, bytes, length); }
#define CODE(e, bytes) emit_code(e, bytes, sizeof(bytes) - 1)

void system_emit_get_flags(struct emit *e)
{
    emit_store(e, H_RAX, GS(spill));
    CODE(e, "\x9f");                 /* lahf */
    CODE(e, "\x0f\x90\xc0");         /* seto al */
    emit_gs(e, false, 0x89, H_RAX, GS(flags));
    CODE(e, "\x44\x0f\xb6\xd8");     /* movzx r11d, al */
    CODE(e, "\x41\xc1\xe3\x0b");     /* shl r11d, 11 */
    CODE(e, "\x0f\xb6\xc4");         /* movzx eax, ah */
    CODE(e, "\x25");                 /* and eax, the low arithmetic flags */
    emit32(e, LOW_FLAGS);
    CODE(e, "\x41\x09\xc3");         /* or r11d, eax */
    emit_gs(e, false, 0x8b, H_RAX, GS_CPU(rflags));
    CODE(e, "\x25");                 /* and eax, the others */
    emit32(e, ~(uint32_t)(X86_FLAGS_ARITH | X86_FLAG_RF | X86_FLAG_VM));
    CODE(e, "\x41\x09\xc3");         /* or r11d, eax */
    emit_store(e, H_R11, GS(target));
    emit_gs(e, false, 0x8b, H_RAX, GS(flags));
    CODE(e, "\x04\x7f");             /* add al, 0x7f: OF */
    CODE(e, "\x9e");                 /* sahf */
    emit_load(e, H_RAX, GS(spill));
}

uint32_t system_emit_set_flags(struct emit *e)
{
    emit_mov(e, H_R11, H_R10);
    emit_gs(e, true, 0x33, H_R11, GS_CPU(rflags)); /* xor r11, gs:[rflags] */
    CODE(e, "\x49\xf7\xc3");                       /* test r11, all but the arithmetic ones */
    emit32(e, ~(uint32_t)X86_FLAGS_ARITH);
    uint32_t leave = emit_jcc(e, CC_NE);
    emit_store(e, H_RAX, GS(spill));
    CODE(e, "\x44\x89\xd0");                       /* mov eax, r10d */
    CODE(e, "\x41\xc1\xea\x0b");                   /* shr r10d, 11 */
    CODE(e, "\x41\x83\xe2\x01");                   /* and r10d, 1 */
    CODE(e, "\xc1\xe0\x08");                       /* shl eax, 8 */
    CODE(e, "\x44\x09\xd0");                       /* or eax, r10d */
    CODE(e, "\x04\x7f\x9e");                       /* add al, 0x7f; sahf */
    emit_load(e, H_RAX, GS(spill));
    return leave;
}
