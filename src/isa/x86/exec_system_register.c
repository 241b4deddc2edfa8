/* exec_system_register.c - control and debug registers. Intel SDM 3A, sections 2.5 and 17.2. */
#include "isa/x86/cpuid.h"
#include "isa/x86/exception.h"
#include "isa/x86/paging.h"
#include "isa/x86/system.h"

#define CR0_BITS                                                                                             \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | \
     X86_CR0_CD | X86_CR0_PG)
#define CR3_NO_FLUSH (UINT64_C(1) << 63)

static bool has(const struct x86_core *core, enum x86_feature_word word, unsigned bit)
{
    return x86_cpuid_has(core->cpuid, X86_FEATURE(word, bit));
}

/* ---- CR0 ---- */

/* Entering long mode: CR0.PG is being set with EFER.LME. */
static void check_long_mode_entry(struct x86_core *core)
{
    const struct x86_cpu *cpu = &core->cpu;
    if (!(cpu->cr4 & X86_CR4_PAE) || (cpu->seg[X86_CS].attr & X86_ATTR_L) || (cpu->tr.attr & 15) < 8)
        x86_raise_gp(core, 0);
}

/* MOV CR0: every refusal first, then LMA follows PG, then the TLB forgets what PG, WP and PE decided. */
static void write_cr0(struct x86_core *core, uint64_t value)
{
    struct x86_cpu *cpu = &core->cpu;
    uint64_t old = cpu->cr0;
    bool paging = (value & X86_CR0_PG) != 0, was_paging = (old & X86_CR0_PG) != 0;
    if (value >> 32 || (paging && !(value & X86_CR0_PE)) || ((value & X86_CR0_NW) && !(value & X86_CR0_CD)))
        x86_raise_gp(core, 0);
    if (was_paging && !paging && (core->mode == X86_CODE64 || (cpu->cr4 & X86_CR4_PCIDE)))
        x86_raise_gp(core, 0);
    if (paging && !was_paging && (cpu->efer & X86_EFER_LME))
        check_long_mode_entry(core);
    if (paging && !was_paging && !(cpu->efer & X86_EFER_LME) && (cpu->cr4 & X86_CR4_PAE) &&
        !x86_pdptes_valid(core, cpu->cr3))
        x86_raise_gp(core, 0);
    cpu->cr0 = (value & CR0_BITS) | X86_CR0_ET;
    if (paging && (cpu->efer & X86_EFER_LME))
        cpu->efer |= X86_EFER_LMA;
    else
        cpu->efer &= ~(uint64_t)X86_EFER_LMA;
    x86_mode_changed(core);
    if ((old ^ cpu->cr0) & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE))
        x86_tlb_flush(core, false);
}

static void clts(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_require_cpl0(core);
    core->cpu.cr0 &= ~(uint64_t)X86_CR0_TS;
}

/* LMSW changes MP, EM, TS, and can set but not clear PE. */
static void lmsw(struct x86_core *core, const struct x86_insn *insn)
{
    x86_require_cpl0(core);
    uint64_t value = x86_read_rm16(core, insn) & 15, old = core->cpu.cr0;
    write_cr0(core, (old & ~UINT64_C(14)) | value);
}

/* The memory form stores 16 bits, the register form as much of CR0 as the operand holds. */
static void smsw(struct x86_core *core, const struct x86_insn *insn)
{
    if ((core->cpu.cr4 & X86_CR4_UMIP) && (core->cpu.cr0 & X86_CR0_PE) && x86_cpl(&core->cpu) != 0)
        x86_raise_gp(core, 0);
    x86_write_rm16(core, insn, core->cpu.cr0);
}

/* ---- CR3, CR4 ---- */

/* MOV CR3. With PCIDs, bit 63 says that what is known of the new one still holds. */
static void write_cr3(struct x86_core *core, uint64_t value)
{
    struct x86_cpu *cpu = &core->cpu;
    bool pcid = (cpu->cr4 & X86_CR4_PCIDE) != 0, keep = (value & CR3_NO_FLUSH) != 0;
    if (pcid)
        value &= ~CR3_NO_FLUSH;
    if (core->long_mode && value >> core->phys_bits)
        x86_raise_gp(core, 0);
    if (!core->long_mode && (cpu->cr0 & X86_CR0_PG) && (cpu->cr4 & X86_CR4_PAE) && !x86_pdptes_valid(core, value))
        x86_raise_gp(core, 0);
    cpu->cr3 = value & (core->long_mode ? UINT64_MAX : UINT32_MAX);
    if (pcid)
        x86_tlb_switch(core, keep);
    else
        x86_tlb_flush(core, true);
}

/* The bits of CR4 that the CPU model has. */
static uint64_t cr4_allowed(const struct x86_core *core)
{
    static const struct {
        uint8_t word, bit;
        uint32_t cr4;
    } gate[] = {
        {X86_WORD_1_EDX, 4, X86_CR4_TSD},
        {X86_WORD_1_EDX, 2, X86_CR4_DE},                {X86_WORD_1_EDX, 3, X86_CR4_PSE},
        {X86_WORD_1_EDX, 6, X86_CR4_PAE},               {X86_WORD_1_EDX, 7, X86_CR4_MCE},
        {X86_WORD_1_EDX, 13, X86_CR4_PGE},              {X86_WORD_1_EDX, 24, X86_CR4_OSFXSR},
        {X86_WORD_1_EDX, 25, X86_CR4_OSXMMEXCPT},       {X86_WORD_7_ECX, 2, X86_CR4_UMIP},
        {X86_WORD_7_EBX, 0, X86_CR4_FSGSBASE},          {X86_WORD_1_ECX, 17, X86_CR4_PCIDE},
        {X86_WORD_1_ECX, 26, X86_CR4_OSXSAVE},          {X86_WORD_7_EBX, 7, X86_CR4_SMEP},
        {X86_WORD_7_EBX, 20, X86_CR4_SMAP},
    };
    uint64_t allowed = X86_CR4_PCE;
    for (unsigned i = 0; i < sizeof(gate) / sizeof(gate[0]); i++) {
        if (has(core, gate[i].word, gate[i].bit))
            allowed |= gate[i].cr4;
    }
    return allowed;
}

/* MOV CR4: bits beyond the CPU model are reserved; those that page walks depend on empty the TLB. */
static void write_cr4(struct x86_core *core, uint64_t value)
{
    const uint64_t paging_bits = X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP;
    struct x86_cpu *cpu = &core->cpu;
    uint64_t changed = cpu->cr4 ^ value;
    if (value & ~cr4_allowed(core))
        x86_raise_gp(core, 0);
    if (core->long_mode && !(value & X86_CR4_PAE))
        x86_raise_gp(core, 0);
    if ((value & changed & X86_CR4_PCIDE) && (!core->long_mode || (cpu->cr3 & 0xfff)))
        x86_raise_gp(core, 0);
    if (!core->long_mode && (cpu->cr0 & X86_CR0_PG) && (value & X86_CR4_PAE) && (changed & paging_bits) &&
        !x86_pdptes_valid(core, cpu->cr3))
        x86_raise_gp(core, 0);
    cpu->cr4 = value;
    x86_mode_changed(core);
    if (changed & paging_bits)
        x86_tlb_flush(core, false);
}

static void mov_to_cr(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t value = *x86_gpr(core, insn->rm);
    x86_require_cpl0(core);
    if (insn->mode != X86_CODE64)
        value = (uint32_t)value;
    switch (insn->sub) {
    case 0: write_cr0(core, value); return;
    case 2: core->cpu.cr2 = value; return;
    case 3: write_cr3(core, value); return;
    case 4: write_cr4(core, value); return;
    case 8:
        if (value > 15)
            x86_raise_gp(core, 0);
        core->cpu.cr8 = value;
        core->env->tpr_write(core->owner, (uint8_t)value);
        return;
    default: x86_raise_ud(core);
    }
}

static void mov_from_cr(struct x86_core *core, const struct x86_insn *insn)
{
    const struct x86_cpu *cpu = &core->cpu;
    uint64_t value = 0;
    x86_require_cpl0(core);
    switch (insn->sub) {
    case 0: value = cpu->cr0; break;
    case 2: value = cpu->cr2; break;
    case 3: value = cpu->cr3; break;
    case 4: value = cpu->cr4; break;
    case 8: value = core->env->tpr_read(core->owner); break;
    default: x86_raise_ud(core);
    }
    x86_gpr_set(core, insn->rm, insn->mode == X86_CODE64 ? 8 : 4, value);
}

/* ---- debug registers ---- */

/* The register that `sub` means: 4 and 5 are 6 and 7 unless CR4.DE. Also #GP and general detection. */
static unsigned debug_register(struct x86_core *core, const struct x86_insn *insn)
{
    unsigned number = insn->sub;
    if (number > 7 || ((number == 4 || number == 5) && (core->cpu.cr4 & X86_CR4_DE)))
        x86_raise_ud(core);
    x86_require_cpl0(core);
    if (core->cpu.dr[7] & 0x2000) {
        core->raised_dr6 = X86_DR6_BD;
        x86_raise(core, X86_DB, 0);
    }
    return number == 4 || number == 5 ? number + 2 : number;
}

static void mov_to_dr(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    unsigned number = debug_register(core, insn);
    uint64_t value = *x86_gpr(core, insn->rm);
    bool was_armed = (cpu->dr[7] & 0xff) != 0;
    if (insn->mode != X86_CODE64)
        value = (uint32_t)value;
    if (number >= 6 && value >> 32)
        x86_raise_gp(core, 0);
    if (number == 6)
        value = (value & 0xe00f) | 0xffff0ff0;
    else if (number == 7)
        value = (value & 0xffff23ff) | 0x400;
    cpu->dr[number] = value;
    if (number != 6 && (was_armed || (cpu->dr[7] & 0xff)))
        x86_tlb_flush(core, false); /* pages with data breakpoints have no tags */
    x86_mode_changed(core);
}

static void mov_from_dr(struct x86_core *core, const struct x86_insn *insn)
{
    unsigned number = debug_register(core, insn);
    x86_gpr_set(core, insn->rm, insn->mode == X86_CODE64 ? 8 : 4, core->cpu.dr[number]);
}

static bool is_class(const ZydisDecodedOperand *operand, ZydisRegisterClass class)
{
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(operand->reg.value) == class;
}

static x86_exec_fn *select_mov(const struct x86_zydis *z, struct x86_insn *insn)
{
    for (unsigned i = 0; i < 2; i++) {
        bool control = is_class(&z->operand[i], ZYDIS_REGCLASS_CONTROL);
        if (!control && !is_class(&z->operand[i], ZYDIS_REGCLASS_DEBUG))
            continue;
        insn->sub = (uint8_t)ZydisRegisterGetId(z->operand[i].reg.value);
        insn->rm = (uint8_t)((unsigned)ZydisRegisterGetId(z->operand[1 - i].reg.value) * 8);
        if (i == 0 || !control)
            insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
        if (control)
            return i == 0 ? mov_to_cr : mov_from_cr;
        return i == 0 ? mov_to_dr : mov_from_dr;
    }
    return NULL;
}

x86_exec_fn *x86_select_system_register(const struct x86_zydis *z, struct x86_insn *insn)
{
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOV: return select_mov(z, insn);
    case ZYDIS_MNEMONIC_SMSW: return smsw;
    case ZYDIS_MNEMONIC_CLTS:
        insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
        return clts;
    case ZYDIS_MNEMONIC_LMSW:
        insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
        return lmsw;
    default: return NULL;
    }
}
