/* exec_system.c - the system family: who executes what, and MSRs, CPUID, time and TLB instructions. */
#include "isa/x86/cpuid.h"
#include "isa/x86/msr.h"
#include "isa/x86/paging.h"
#include "isa/x86/system.h"

uint16_t x86_read_rm16(struct x86_core *core, const struct x86_insn *insn)
{
    if (insn->flags & X86_INSN_MEMORY)
        return x86_load16(core, x86_linear(core, insn, 2, false));
    return (uint16_t)*x86_gpr(core, insn->rm);
}

void x86_write_rm16(struct x86_core *core, const struct x86_insn *insn, uint64_t value)
{
    if (insn->flags & X86_INSN_MEMORY)
        x86_store16(core, x86_linear(core, insn, 2, true), (uint16_t)value);
    else
        x86_gpr_set(core, insn->rm, insn->opsize, value);
}

/* ---- MSRs, CPUID ---- */

static void rdmsr(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t value;
    (void)insn;
    x86_require_cpl0(core);
    if (x86_msr_read(core, (uint32_t)core->cpu.reg[X86_RCX], &value))
        x86_raise_gp(core, 0);
    core->cpu.reg[X86_RAX] = (uint32_t)value;
    core->cpu.reg[X86_RDX] = value >> 32;
}

static void wrmsr(struct x86_core *core, const struct x86_insn *insn)
{
    const uint64_t *reg = core->cpu.reg;
    (void)insn;
    x86_require_cpl0(core);
    if (x86_msr_write(core, (uint32_t)reg[X86_RCX], reg[X86_RDX] << 32 | (uint32_t)reg[X86_RAX]))
        x86_raise_gp(core, 0);
}

static void cpuid(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    const struct x86_cpuid_context context = {.apic_id = core->apic_id, .cr4 = cpu->cr4, .xcr0 = cpu->xcr0,
                                              .xss = cpu->xss, .misc_enable = cpu->misc_enable};
    uint32_t answer[4];
    (void)insn;
    x86_cpuid_query(core->cpuid, (uint32_t)cpu->reg[X86_RAX], (uint32_t)cpu->reg[X86_RCX], &context, answer);
    cpu->reg[X86_RAX] = answer[0];
    cpu->reg[X86_RBX] = answer[1];
    cpu->reg[X86_RCX] = answer[2];
    cpu->reg[X86_RDX] = answer[3];
}

/* ---- time ---- */

static void require_tsc(struct x86_core *core)
{
    if ((core->cpu.cr4 & X86_CR4_TSD) && x86_cpl(&core->cpu) != 0)
        x86_raise_gp(core, 0);
}

static void rdtsc(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    require_tsc(core);
    uint64_t tsc = x86_tsc(core);
    core->cpu.reg[X86_RAX] = (uint32_t)tsc;
    core->cpu.reg[X86_RDX] = tsc >> 32;
}

static void rdtscp(struct x86_core *core, const struct x86_insn *insn)
{
    rdtsc(core, insn);
    core->cpu.reg[X86_RCX] = (uint32_t)core->cpu.tsc_aux;
}

static void rdpid(struct x86_core *core, const struct x86_insn *insn)
{
    *x86_gpr(core, insn->rm) = (uint32_t)core->cpu.tsc_aux;
}

/* No performance counter exists, so every index is out of range. */
static void rdpmc(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_raise_gp(core, 0);
}

/* ---- TLB and caches ---- */

static void invlpg(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t linear = x86_effective(core, insn);
    x86_require_cpl0(core);
    if (core->mode != X86_CODE64)
        linear = (uint32_t)(linear + core->cpu.seg[insn->seg].base);
    else if (insn->seg == X86_FS || insn->seg == X86_GS)
        linear += core->cpu.seg[insn->seg].base;
    if (!core->long_mode || x86_canonical(linear))
        x86_tlb_flush_page(core, linear);
}

/* The TLB keeps only the current PCID's entries and the global ones; what the engine keeps of others, all of it goes. */
static void invpcid(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t descriptor[2], type = *x86_gpr(core, insn->reg);
    x86_require_cpl0(core);
    if (core->mode != X86_CODE64)
        type = (uint32_t)type;
    x86_load_bytes(core, x86_linear(core, insn, 16, false), descriptor, 16);
    if (type > 3 || (type <= 1 && (descriptor[0] >> 12 ||
                                   ((descriptor[0] & 0xfff) && !(core->cpu.cr4 & X86_CR4_PCIDE)))))
        x86_raise_gp(core, 0);
    if (type == 0) {
        if (!x86_canonical(descriptor[1]))
            x86_raise_gp(core, 0);
        if (descriptor[0] == (core->cpu.cr4 & X86_CR4_PCIDE ? core->cpu.cr3 & 0xfff : 0))
            x86_tlb_flush_page(core, descriptor[1]);
        else
            x86_tlb_flush(core, true);
    } else {
        x86_tlb_flush(core, type != 2);
    }
}

static void wbinvd(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_require_cpl0(core);
}

/* ---- FS and GS bases ---- */

static void fsgsbase(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_segment *seg = &core->cpu.seg[insn->sub & 7];
    if (!(core->cpu.cr4 & X86_CR4_FSGSBASE))
        x86_raise_ud(core);
    if (insn->sub & 8) {
        uint64_t base = *x86_gpr(core, insn->rm);
        if (insn->opsize < 8) /* an operand-size prefix is ignored */
            base = (uint32_t)base;
        if (!x86_canonical(base))
            x86_raise_gp(core, 0);
        seg->base = base;
    } else {
        x86_gpr_set(core, insn->rm, insn->opsize < 8 ? 4 : 8, seg->base);
    }
}

static void swapgs(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    uint64_t base = cpu->seg[X86_GS].base;
    (void)insn;
    x86_require_cpl0(core);
    cpu->seg[X86_GS].base = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
}

/* CLAC and STAC. */
static void set_ac(struct x86_core *core, const struct x86_insn *insn)
{
    if (x86_cpl(&core->cpu) != 0)
        x86_raise_ud(core);
    if (insn->sub)
        core->cpu.rflags |= X86_FLAG_AC;
    else
        core->cpu.rflags &= ~(uint64_t)X86_FLAG_AC;
    x86_mode_changed(core);
}

/* Linux's KVM calling convention; a call from above level 0 is refused with -EPERM as KVM does. */
static void hypercall(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t *reg = core->cpu.reg, mask = core->mode == X86_CODE64 ? UINT64_MAX : UINT32_MAX;
    const uint64_t argument[4] = {reg[X86_RBX] & mask, reg[X86_RCX] & mask, reg[X86_RDX] & mask, reg[X86_RSI] & mask};
    (void)insn;
    if (x86_cpl(&core->cpu) != 0)
        reg[X86_RAX] = (uint64_t)-1 & mask;
    else
        reg[X86_RAX] = core->env->hypercall(core->owner, reg[X86_RAX] & mask, argument) & mask;
}

x86_exec_fn *x86_select_system(const struct x86_zydis *z, struct x86_insn *insn)
{
    x86_exec_fn *exec = x86_select_system_segment(z, insn);
    if (!exec)
        exec = x86_select_system_register(z, insn);
    if (!exec)
        exec = x86_select_system_control(z, insn);
    if (!exec)
        exec = x86_select_system_io(z, insn);
    if (exec)
        return exec;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
        insn->flags |= X86_INSN_ENDS; /* it serializes: what follows is fetched anew */
        return cpuid;
    /* These only read or write registers: the block goes on. */
    case ZYDIS_MNEMONIC_RDTSC: return rdtsc;
    case ZYDIS_MNEMONIC_RDTSCP: return rdtscp;
    case ZYDIS_MNEMONIC_RDPID: return rdpid;
    case ZYDIS_MNEMONIC_SWAPGS: return swapgs;
    case ZYDIS_MNEMONIC_RDFSBASE: insn->sub = X86_FS; return fsgsbase;
    case ZYDIS_MNEMONIC_RDGSBASE: insn->sub = X86_GS; return fsgsbase;
    case ZYDIS_MNEMONIC_WRFSBASE: insn->sub = X86_FS | 8; return fsgsbase;
    case ZYDIS_MNEMONIC_WRGSBASE: insn->sub = X86_GS | 8; return fsgsbase;
    default: break;
    }
    insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_CLAC: insn->sub = 0; return set_ac;
    case ZYDIS_MNEMONIC_STAC: insn->sub = 1; return set_ac;
    case ZYDIS_MNEMONIC_RDMSR: return rdmsr;
    case ZYDIS_MNEMONIC_WRMSR: return wrmsr;
    case ZYDIS_MNEMONIC_RDPMC: return rdpmc;
    case ZYDIS_MNEMONIC_INVLPG: return invlpg;
    case ZYDIS_MNEMONIC_INVPCID: return invpcid;
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_INVD: return wbinvd;
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL: return hypercall;
    default: break;
    }
    insn->flags &= (uint16_t)~(X86_INSN_ENDS | X86_INSN_PRIVILEGED);
    return NULL;
}
