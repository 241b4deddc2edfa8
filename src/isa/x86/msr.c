/* msr.c - the model-specific registers that a core holds itself; the rest is the machine's.
 *
 * What is not listed raises #GP, as on hardware: kernels probe for registers that way. The list is what the CPU model
 * advertises, and what Debian's kernel reads without probing on a processor of either vendor's family; a
 * register of the latter kind holds the value that says "nothing to do here". */
#include "isa/x86/msr.h"

#include <x86intrin.h>

#include "isa/x86/cpuid.h"
#include "isa/x86/paging.h"

enum msr {
    MSR_P5_MC_ADDR = 0x0, MSR_P5_MC_TYPE = 0x1, MSR_TSC = 0x10, MSR_KVM_WALL_CLOCK = 0x11, MSR_KVM_SYSTEM_TIME = 0x12,
    MSR_PLATFORM_ID = 0x17, MSR_APIC_BASE = 0x1b, MSR_TSC_ADJUST = 0x3b, MSR_SPEC_CTRL = 0x48, MSR_PRED_CMD = 0x49,
    MSR_UCODE_WRITE = 0x79, MSR_UCODE_REV = 0x8b, MSR_MTRR_CAP = 0xfe, MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_FLUSH_CMD = 0x10b, MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179, MSR_MCG_STATUS = 0x17a, MSR_MISC_ENABLE = 0x1a0, MSR_DEBUGCTL = 0x1d9,
    MSR_MTRR_VARIABLE = 0x200, MSR_MTRR_FIX64K = 0x250, MSR_MTRR_FIX16K = 0x258, MSR_MTRR_FIX4K = 0x268,
    MSR_PAT = 0x277, MSR_MTRR_DEF_TYPE = 0x2ff, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC = 0x800, MSR_XSS = 0xda0,
    MSR_KVM = 0x4b564d00,
};
/* These do not fit an enum's int. */
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define MSR_AMD_SYSCFG 0xc0010010u
#define MSR_AMD_HWCR 0xc0010015u
#define MSR_AMD_NB_CFG 0xc001001fu
#define MSR_AMD_PATCH_LOADER 0xc0010020u
#define MSR_AMD_INT_PENDING 0xc0010055u
#define MSR_AMD_VM_CR 0xc0010114u
#define MSR_AMD_VM_HSAVE 0xc0010117u
#define MSR_AMD_LS_CFG 0xc0011020u
#define MSR_AMD_DC_CFG 0xc0011022u
#define MSR_AMD_DE_CFG 0xc0011029u

#define MTRR_CAP UINT64_C(0x508) /* write-combining, fixed ranges, 8 variable ranges */
#define SPEC_CTRL_BITS UINT64_C(7) /* IBRS STIBP SSBD */
#define HWCR_TSC_AT_P0 (UINT64_C(1) << 24)
#define NB_CFG_EXTENDED_CONFIG (UINT64_C(1) << 46) /* PCI configuration space through ports CF8h, CFCh is whole */
#define DE_CFG_LFENCE (UINT64_C(1) << 1) /* LFENCE serializes */

uint64_t x86_tsc(const struct x86_core *core)
{
    return __rdtsc() + core->cpu.tsc_offset;
}

static bool is_amd(const struct x86_core *core)
{
    return core->cpuid->vendor == X86_VENDOR_AMD;
}

static bool has(const struct x86_core *core, enum x86_feature_word word, unsigned bit)
{
    return x86_cpuid_has(core->cpuid, X86_FEATURE(word, bit));
}

/* SPEC_CTRL and PRED_CMD are there when either vendor's bits say so. */
static bool has_speculation(const struct x86_core *core)
{
    return is_amd(core) || has(core, X86_WORD_7_EDX, 26);
}

/* Registers of the local APIC and of the paravirtual interface. */
static bool is_outside(uint32_t msr)
{
    return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE || (msr >= MSR_X2APIC && msr < MSR_X2APIC + 0x100) ||
           msr == MSR_KVM_WALL_CLOCK || msr == MSR_KVM_SYSTEM_TIME || (msr >= MSR_KVM && msr < MSR_KVM + 0x100);
}

/* ---- memory types ---- */

/* Where an MTRR's value is kept, or NULL. */
static uint64_t *mtrr_slot(struct x86_cpu *cpu, uint32_t msr)
{
    if (msr >= MSR_MTRR_VARIABLE && msr < MSR_MTRR_VARIABLE + 16)
        return msr & 1 ? &cpu->mtrr.mask[(msr - MSR_MTRR_VARIABLE) / 2] : &cpu->mtrr.base[(msr - MSR_MTRR_VARIABLE) / 2];
    if (msr == MSR_MTRR_FIX64K)
        return &cpu->mtrr.fixed[0];
    if (msr == MSR_MTRR_FIX16K || msr == MSR_MTRR_FIX16K + 1)
        return &cpu->mtrr.fixed[1 + msr - MSR_MTRR_FIX16K];
    if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8)
        return &cpu->mtrr.fixed[3 + msr - MSR_MTRR_FIX4K];
    return msr == MSR_MTRR_DEF_TYPE ? &cpu->mtrr.def_type : NULL;
}

/* UC, WC, WT, WP, WB: what an MTRR may hold. */
static bool memory_type(uint64_t type)
{
    return type <= 6 && type != 2 && type != 3;
}

/* Reserved bits of each kind of MTRR are #GP. SDM 3A, 11.11.2. */
static bool mtrr_valid(const struct x86_core *core, uint32_t msr, uint64_t value)
{
    uint64_t beyond = ~((UINT64_C(1) << core->phys_bits) - 1);
    if (msr == MSR_MTRR_DEF_TYPE)
        return memory_type(value & 0xff) && !(value & ~UINT64_C(0xcff));
    if (msr < MSR_MTRR_VARIABLE + 16) {
        if (msr & 1)
            return !(value & (beyond | 0x7ff));
        return memory_type(value & 0xff) && !(value & (beyond | 0xf00));
    }
    for (unsigned i = 0; i < 64; i += 8) {
        if (!memory_type(value >> i & 0xff))
            return false;
    }
    return true;
}

/* ---- EFER and the time-stamp counter ---- */

/* LMA follows CR0.PG and is not for WRMSR to change; LME may change only while paging is off. */
static int write_efer(struct x86_core *core, uint64_t value)
{
    struct x86_cpu *cpu = &core->cpu;
    uint64_t allowed = X86_EFER_LMA, changed;
    if (has(core, X86_WORD_81_EDX, 11))
        allowed |= X86_EFER_SCE;
    if (has(core, X86_WORD_81_EDX, 20))
        allowed |= X86_EFER_NXE;
    if (has(core, X86_WORD_81_EDX, 29))
        allowed |= X86_EFER_LME;
    if (is_amd(core))
        allowed |= X86_EFER_AUTOIBRS;
    value = (value & ~(uint64_t)X86_EFER_LMA) | (cpu->efer & X86_EFER_LMA);
    changed = value ^ cpu->efer;
    if ((value & ~allowed) || ((changed & X86_EFER_LME) && (cpu->cr0 & X86_CR0_PG)))
        return -1;
    cpu->efer = value;
    if (changed & X86_EFER_NXE)
        x86_tlb_flush(core, false);
    return 0;
}

/* Moves the TSC, and IA32_TSC_ADJUST with it (Intel SDM 3B, 18.17.3). */
static void move_tsc(struct x86_core *core, uint64_t delta)
{
    core->cpu.tsc_offset += delta;
    core->cpu.tsc_adjust += delta;
    if (core->env->tsc_moved)
        core->env->tsc_moved(core->owner, core->cpu.tsc_offset);
}

/* ---- registers that are an address, or a plain field ---- */

/* Registers that hold a canonical address. */
static uint64_t *address_slot(struct x86_cpu *cpu, uint32_t msr)
{
    switch (msr) {
    case MSR_LSTAR: return &cpu->lstar;
    case MSR_CSTAR: return &cpu->cstar;
    case MSR_FS_BASE: return &cpu->seg[X86_FS].base;
    case MSR_GS_BASE: return &cpu->seg[X86_GS].base;
    case MSR_KERNEL_GS_BASE: return &cpu->kernel_gs_base;
    case MSR_SYSENTER_ESP: return &cpu->sysenter_esp;
    case MSR_SYSENTER_EIP: return &cpu->sysenter_eip;
    default: return NULL;
    }
}

static int read_amd(uint32_t msr, uint64_t *ret_value)
{
    switch (msr) {
    case MSR_AMD_HWCR: *ret_value = HWCR_TSC_AT_P0; return 0;
    case MSR_AMD_NB_CFG: *ret_value = NB_CFG_EXTENDED_CONFIG; return 0;
    case MSR_AMD_DE_CFG: *ret_value = DE_CFG_LFENCE; return 0;
    case MSR_AMD_SYSCFG:
    case MSR_AMD_INT_PENDING:
    case MSR_AMD_VM_CR:
    case MSR_AMD_VM_HSAVE:
    case MSR_AMD_LS_CFG:
    case MSR_AMD_DC_CFG: *ret_value = 0; return 0;
    default: return -1;
    }
}

static int read_rest(const struct x86_core *core, uint32_t msr, uint64_t *ret_value)
{
    const struct x86_cpu *cpu = &core->cpu;
    switch (msr) {
    case MSR_P5_MC_ADDR:
    case MSR_P5_MC_TYPE:
    case MSR_MCG_CAP: /* no banks */
    case MSR_DEBUGCTL: *ret_value = 0; return 0;
    case MSR_PLATFORM_ID: *ret_value = 0; return is_amd(core) ? -1 : 0;
    case MSR_UCODE_REV: *ret_value = is_amd(core) ? 0x01000065 : UINT64_C(0x100000000); return 0;
    case MSR_TSC: *ret_value = x86_tsc(core); return 0;
    case MSR_TSC_ADJUST: *ret_value = cpu->tsc_adjust; return 0;
    case MSR_SPEC_CTRL: *ret_value = cpu->spec_ctrl; return has_speculation(core) ? 0 : -1;
    case MSR_MTRR_CAP: *ret_value = MTRR_CAP; return 0;
    case MSR_ARCH_CAPABILITIES: *ret_value = core->cpuid->arch_capabilities; return has(core, X86_WORD_7_EDX, 29) ? 0 : -1;
    case MSR_SYSENTER_CS: *ret_value = cpu->sysenter_cs; return 0;
    case MSR_MCG_STATUS: *ret_value = cpu->mcg_status; return 0;
    case MSR_MISC_ENABLE: *ret_value = cpu->misc_enable; return 0;
    case MSR_PAT: *ret_value = cpu->pat; return 0;
    case MSR_XSS: *ret_value = cpu->xss; return has(core, X86_WORD_D1_EAX, 3) ? 0 : -1;
    case MSR_EFER: *ret_value = cpu->efer; return 0;
    case MSR_STAR: *ret_value = cpu->star; return 0;
    case MSR_SFMASK: *ret_value = cpu->sfmask; return 0;
    case MSR_TSC_AUX: *ret_value = cpu->tsc_aux; return 0;
    default: return is_amd(core) ? read_amd(msr, ret_value) : -1;
    }
}

int x86_msr_read(struct x86_core *core, uint32_t msr, uint64_t *ret_value)
{
    const uint64_t *slot;
    if (is_outside(msr))
        return core->env->msr_read(core->owner, msr, ret_value);
    slot = address_slot(&core->cpu, msr);
    if (!slot)
        slot = mtrr_slot(&core->cpu, msr);
    if (!slot)
        return read_rest(core, msr, ret_value);
    *ret_value = *slot;
    return 0;
}

/* AMD's registers exist so that kernels which look at them find their defaults; what they write is dropped
 * where it has no effect here. */
static int write_amd(uint32_t msr)
{
    switch (msr) {
    case MSR_AMD_SYSCFG:
    case MSR_AMD_HWCR:
    case MSR_AMD_NB_CFG:
    case MSR_AMD_PATCH_LOADER:
    case MSR_AMD_INT_PENDING:
    case MSR_AMD_VM_CR:
    case MSR_AMD_LS_CFG:
    case MSR_AMD_DC_CFG:
    case MSR_AMD_DE_CFG: return 0;
    default: return -1;
    }
}

static int set_if(bool valid, uint64_t *slot, uint64_t value)
{
    if (!valid)
        return -1;
    *slot = value;
    return 0;
}

static int write_rest(struct x86_core *core, uint32_t msr, uint64_t value)
{
    struct x86_cpu *cpu = &core->cpu;
    switch (msr) {
    case MSR_P5_MC_ADDR:
    case MSR_P5_MC_TYPE:
    case MSR_UCODE_REV: return 0;
    case MSR_UCODE_WRITE: return is_amd(core) ? -1 : 0;
    case MSR_DEBUGCTL: return value ? -1 : 0;
    case MSR_TSC: move_tsc(core, value - x86_tsc(core)); return 0;
    case MSR_TSC_ADJUST: move_tsc(core, value - cpu->tsc_adjust); return 0;
    case MSR_SPEC_CTRL: return set_if(has_speculation(core) && !(value & ~SPEC_CTRL_BITS), &cpu->spec_ctrl, value);
    case MSR_PRED_CMD: return has_speculation(core) && value <= 1 ? 0 : -1;
    case MSR_FLUSH_CMD: return has(core, X86_WORD_7_EDX, 28) && value <= 1 ? 0 : -1;
    case MSR_SYSENTER_CS: cpu->sysenter_cs = (uint32_t)value; return 0;
    case MSR_MCG_STATUS: return set_if(!(value & ~UINT64_C(7)), &cpu->mcg_status, value);
    case MSR_MISC_ENABLE: cpu->misc_enable = value; return 0;
    case MSR_PAT: return set_if(x86_pat_valid(value), &cpu->pat, value);
    case MSR_XSS: return set_if(has(core, X86_WORD_D1_EAX, 3) && value == 0, &cpu->xss, value);
    case MSR_EFER: return write_efer(core, value);
    case MSR_STAR: cpu->star = value; return 0;
    case MSR_SFMASK: cpu->sfmask = (uint32_t)value; return 0;
    case MSR_TSC_AUX: return set_if(!(value >> 32), &cpu->tsc_aux, value);
    default: return is_amd(core) ? write_amd(msr) : -1;
    }
}

int x86_msr_write(struct x86_core *core, uint32_t msr, uint64_t value)
{
    uint64_t *slot;
    if (is_outside(msr))
        return core->env->msr_write(core->owner, msr, value);
    slot = address_slot(&core->cpu, msr);
    if (slot)
        return set_if(x86_canonical(value), slot, value);
    slot = mtrr_slot(&core->cpu, msr);
    if (slot)
        return set_if(mtrr_valid(core, msr, value), slot, value);
    return write_rest(core, msr, value);
}
