/* core.c - what is derived from the architectural state, and the way out of an instruction. */
#include "isa/x86/core.h"

#include "isa/x86/cpuid.h"
#include "isa/x86/paging.h"

static enum x86_tlb_context data_context(const struct x86_cpu *cpu)
{
    if (x86_cpl(cpu) == 3)
        return (cpu->cr0 & X86_CR0_AM) && (cpu->rflags & X86_FLAG_AC) ? X86_TLB_USER_ALIGN : X86_TLB_USER;
    if ((cpu->cr4 & X86_CR4_SMAP) && !(cpu->rflags & X86_FLAG_AC))
        return X86_TLB_SUPERVISOR_SMAP;
    return X86_TLB_SUPERVISOR;
}

void x86_mode_changed(struct x86_core *core)
{
    const struct x86_cpu *cpu = &core->cpu;
    uint32_t code = cpu->seg[X86_CS].attr;
    core->long_mode = (cpu->efer & X86_EFER_LMA) != 0;
    if (core->long_mode && (code & X86_ATTR_L))
        core->mode = X86_CODE64;
    else
        core->mode = code & X86_ATTR_DB ? X86_CODE32 : X86_CODE16;
    core->tlb_now = core->tlb[data_context(cpu)];
    core->debug_armed = (cpu->rflags & (X86_FLAG_TF | X86_FLAG_RF)) || (cpu->dr[7] & 0xff) || core->pending_dr6;
}

/* The physical address width that the CPU model advertises; 40 bits without a model. */
static uint8_t physical_bits(const struct x86_cpuid *cpuid)
{
    for (unsigned i = 0; cpuid && i < cpuid->leaves; i++) {
        unsigned bits = cpuid->leaf[i].eax & 0xff;
        if (cpuid->leaf[i].function == 0x80000008u && bits >= 32 && bits <= 52)
            return (uint8_t)bits;
    }
    return 40;
}

void x86_core_attach(struct x86_core *core)
{
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++) {
        for (unsigned i = 0; i < X86_TLB_ENTRIES; i++) {
            struct x86_tlb_entry *entry = &core->tlb[context][i];
            *entry = (struct x86_tlb_entry){
                .read_tag = X86_TLB_NONE, .write_tag = X86_TLB_NONE, .exec_tag = X86_TLB_NONE};
        }
        for (unsigned i = 0; i < X86_TLB_ENTRIES / 64; i++)
            core->tlb_used[context][i] = 0;
    }
    for (unsigned half = 0; half < 2; half++) {
        core->large[half].low = UINT64_MAX;
        core->large[half].high = 0;
    }
    core->phys_bits = physical_bits(core->cpuid);
    core->pending_dr6 = 0;
    x86_mode_changed(core);
}

/* Vectors whose delivery pushes an error code. */
static bool has_error_code(enum x86_vector vector)
{
    switch (vector) {
    case X86_DF:
    case X86_TS:
    case X86_NP:
    case X86_SSF:
    case X86_GP:
    case X86_PF:
    case X86_AC: return true;
    default: return false;
    }
}

void x86_raise(struct x86_core *core, enum x86_vector vector, uint32_t error_code)
{
    core->raised = (struct x86_event){.valid = true,
                                      .has_error = has_error_code(vector),
                                      .vector = (uint8_t)vector,
                                      .error_code = has_error_code(vector) ? error_code : 0};
    longjmp(*core->escape, 1);
}

void x86_raise_ud(struct x86_core *core)
{
    x86_raise(core, X86_UD, 0);
}

void x86_raise_gp(struct x86_core *core, uint32_t error_code)
{
    x86_raise(core, X86_GP, error_code);
}

void x86_raise_pf(struct x86_core *core, uint64_t linear, uint32_t error_code)
{
    core->raised_cr2 = linear;
    x86_raise(core, X86_PF, error_code);
}
