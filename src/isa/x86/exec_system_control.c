/* exec_system_control.c - interrupts, flags, far transfers, HLT and the fast system calls. */
#include "isa/x86/cpuid.h"
#include "isa/x86/exception.h"
#include "isa/x86/far.h"
#include "isa/x86/paging.h"
#include "isa/x86/system.h"

/* ---- software interrupts ---- */

/* RIP is past the instruction, and is what the frame gets; a fault on the way rewinds it. */
static void int_n(struct x86_core *core, const struct x86_insn *insn)
{
    x86_software_interrupt(core, (uint8_t)insn->imm, false, false);
}

static void int3(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_software_interrupt(core, X86_BP, true, false);
}

static void int1(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_software_interrupt(core, X86_DB, false, true);
}

static void into(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    if (core->cpu.rflags & X86_FLAG_OF)
        x86_software_interrupt(core, X86_OF, true, false);
}

static void iret(struct x86_core *core, const struct x86_insn *insn)
{
    x86_iret(core, insn->opsize);
}

/* ---- far transfers ---- */

/* The operand of a far JMP or CALL: in the instruction, or in memory as offset and selector. */
static uint16_t far_operand(struct x86_core *core, const struct x86_insn *insn, uint64_t *ret_offset)
{
    uint8_t bytes[10];
    uint16_t selector;
    if (!(insn->flags & X86_INSN_MEMORY)) {
        *ret_offset = (uint32_t)insn->imm;
        return (uint16_t)(insn->imm >> 32);
    }
    x86_load_bytes(core, x86_linear(core, insn, insn->opsize + 2u, false), bytes, insn->opsize + 2u);
    *ret_offset = 0;
    __builtin_memcpy(ret_offset, bytes, insn->opsize);
    __builtin_memcpy(&selector, bytes + insn->opsize, 2);
    return selector;
}

static void far_jump(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t offset;
    uint16_t selector = far_operand(core, insn, &offset);
    x86_far_jump(core, selector, offset, insn->opsize);
}

static void far_call(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t offset;
    uint16_t selector = far_operand(core, insn, &offset);
    x86_far_call(core, selector, offset, insn->opsize);
}

static void far_return(struct x86_core *core, const struct x86_insn *insn)
{
    x86_far_return(core, insn->opsize, insn->sub ? (uint16_t)insn->imm : 0);
}

/* ---- RFLAGS ---- */

/* Virtual-8086 code may touch IF only at IOPL 3. */
static void require_v86_iopl(struct x86_core *core)
{
    if (x86_v86(&core->cpu) && x86_iopl(&core->cpu) < 3)
        x86_raise_gp(core, 0);
}

static void pushf(struct x86_core *core, const struct x86_insn *insn)
{
    require_v86_iopl(core);
    x86_push(core, insn->opsize, core->cpu.rflags & ~(uint64_t)(X86_FLAG_RF | X86_FLAG_VM));
}

/* IF and IOPL keep quiet where the level may not change them: POPF does not fault for that. VM, VIF and VIP stay;
 * RF becomes 0. */
static void popf(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    uint64_t mask = X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT | X86_FLAG_AC | X86_FLAG_ID;
    unsigned cpl = x86_cpl(cpu);
    require_v86_iopl(core);
    if (!(cpu->cr0 & X86_CR0_PE) || cpl == 0)
        mask |= X86_FLAG_IOPL | X86_FLAG_IF;
    else if (cpl <= x86_iopl(cpu))
        mask |= X86_FLAG_IF;
    if (insn->opsize == 2)
        mask &= 0xffff;
    uint64_t value = x86_pop(core, insn->opsize);
    cpu->rflags = (cpu->rflags & ~(mask | X86_FLAG_RF)) | (value & mask) | X86_FLAG_FIXED;
    x86_mode_changed(core);
}

static void require_if_access(struct x86_core *core)
{
    const struct x86_cpu *cpu = &core->cpu;
    if ((cpu->cr0 & X86_CR0_PE) && x86_cpl(cpu) > x86_iopl(cpu)) /* virtual-8086 code is at level 3 */
        x86_raise_gp(core, 0);
}

static void cli(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    require_if_access(core);
    core->cpu.rflags &= ~(uint64_t)X86_FLAG_IF;
}

/* Interrupts stay out for one more instruction, but only if they were off before. */
static void sti(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    require_if_access(core);
    if (!(core->cpu.rflags & X86_FLAG_IF))
        core->cpu.sti_shadow = true;
    core->cpu.rflags |= X86_FLAG_IF;
}

static void hlt(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_require_cpl0(core);
    core->cpu.activity = X86_HALTED;
}

/* ---- SYSCALL, SYSENTER: flat segments made from a selector in an MSR ---- */

#define ATTR_CODE64 (X86_ATTR_G | X86_ATTR_L | X86_ATTR_P | X86_ATTR_S | 0xbu)
#define ATTR_CODE32 (X86_ATTR_G | X86_ATTR_DB | X86_ATTR_P | X86_ATTR_S | 0xbu)
#define ATTR_DATA (X86_ATTR_G | X86_ATTR_DB | X86_ATTR_P | X86_ATTR_S | 0x3u)

/* CS and SS as the fast system calls make them, without looking at any table. */
static void set_flat(struct x86_core *core, uint16_t code, uint16_t stack, bool wide, unsigned cpl)
{
    uint32_t dpl = cpl << X86_ATTR_DPL_SHIFT;
    core->cpu.seg[X86_CS] = (struct x86_segment){.selector = (uint16_t)((code & 0xfffc) | cpl),
                                                 .attr = (wide ? ATTR_CODE64 : ATTR_CODE32) | dpl,
                                                 .limit = UINT32_MAX};
    core->cpu.seg[X86_SS] = (struct x86_segment){
        .selector = (uint16_t)((stack & 0xfffc) | cpl), .attr = ATTR_DATA | dpl, .limit = UINT32_MAX};
    x86_mode_changed(core);
}

static bool is_amd(const struct x86_core *core)
{
    return core->cpuid->vendor == X86_VENDOR_AMD;
}

/* Intel has SYSCALL in 64-bit code only; AMD in compatibility mode (through CSTAR) and, with its first form, in protected
 * mode as well. */
static void syscall(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    uint64_t *reg = cpu->reg;
    uint16_t selector = (uint16_t)(cpu->star >> 32);
    (void)insn;
    if (!(cpu->efer & X86_EFER_SCE) || !(cpu->cr0 & X86_CR0_PE) || (core->mode != X86_CODE64 && !is_amd(core)))
        x86_raise_ud(core);
    reg[X86_RCX] = reg[X86_RIP];
    if (core->long_mode) {
        reg[X86_R11] = cpu->rflags & ~(uint64_t)X86_FLAG_RF;
        reg[X86_RIP] = core->mode == X86_CODE64 ? cpu->lstar : cpu->cstar;
        core->step_done = (cpu->rflags & cpu->sfmask & X86_FLAG_TF) != 0;
        cpu->rflags = (cpu->rflags & ~cpu->sfmask & ~(uint64_t)X86_FLAG_RF) | X86_FLAG_FIXED;
        set_flat(core, selector, (uint16_t)((selector & 0xfffc) + 8), true, 0);
    } else {
        reg[X86_RIP] = (uint32_t)cpu->star;
        cpu->rflags &= ~(uint64_t)(X86_FLAG_IF | X86_FLAG_RF | X86_FLAG_VM);
        set_flat(core, selector, (uint16_t)((selector & 0xfffc) + 8), false, 0);
    }
}

/* Intel refuses a target that is not canonical while still at level 0; AMD faults at level 3, at the fetch. */
static void sysret(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    uint64_t *reg = cpu->reg;
    uint16_t selector = (uint16_t)(cpu->star >> 48) & 0xfffc;
    bool wide = insn->opsize == 8;
    if (!(cpu->efer & X86_EFER_SCE) || (core->mode != X86_CODE64 && !is_amd(core)))
        x86_raise_ud(core);
    if (!(cpu->cr0 & X86_CR0_PE))
        x86_raise_gp(core, 0);
    x86_require_cpl0(core);
    if (wide && !is_amd(core) && !x86_canonical(reg[X86_RCX]))
        x86_raise_gp(core, 0);
    reg[X86_RIP] = wide ? reg[X86_RCX] : (uint32_t)reg[X86_RCX];
    if (core->long_mode)
        cpu->rflags = (reg[X86_R11] & 0x3c7fd7) | X86_FLAG_FIXED;
    else
        cpu->rflags |= X86_FLAG_IF;
    set_flat(core, (uint16_t)(selector + (wide ? 16 : 0)), (uint16_t)(selector + 8), wide, 3);
}

/* AMD has SYSENTER and SYSEXIT outside long mode only. */
static void check_sysenter(struct x86_core *core)
{
    if (core->long_mode && is_amd(core))
        x86_raise_ud(core);
    if (!(core->cpu.cr0 & X86_CR0_PE) || !(core->cpu.sysenter_cs & 0xfffc))
        x86_raise_gp(core, 0);
}

static void sysenter(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    uint16_t selector = (uint16_t)cpu->sysenter_cs & 0xfffc;
    (void)insn;
    check_sysenter(core);
    cpu->rflags &= ~(uint64_t)(X86_FLAG_VM | X86_FLAG_IF | X86_FLAG_RF);
    cpu->reg[X86_RSP] = core->long_mode ? cpu->sysenter_esp : (uint32_t)cpu->sysenter_esp;
    cpu->reg[X86_RIP] = core->long_mode ? cpu->sysenter_eip : (uint32_t)cpu->sysenter_eip;
    set_flat(core, selector, (uint16_t)(selector + 8), core->long_mode, 0);
}

static void sysexit(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    uint64_t *reg = cpu->reg;
    uint16_t selector = (uint16_t)cpu->sysenter_cs & 0xfffc;
    bool wide = insn->opsize == 8;
    x86_require_cpl0(core);
    check_sysenter(core);
    if (wide && (!x86_canonical(reg[X86_RCX]) || !x86_canonical(reg[X86_RDX])))
        x86_raise_gp(core, 0);
    reg[X86_RSP] = wide ? reg[X86_RCX] : (uint32_t)reg[X86_RCX];
    reg[X86_RIP] = wide ? reg[X86_RDX] : (uint32_t)reg[X86_RDX];
    set_flat(core, (uint16_t)(selector + (wide ? 32 : 16)), (uint16_t)(selector + (wide ? 40 : 24)), wide, 3);
}

/* Every instruction here may change interruptibility, privilege or mode, except these two. */
static x86_exec_fn *select_ending(const struct x86_zydis *z, struct x86_insn *insn)
{
    bool far = z->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_INT: return int_n;
    case ZYDIS_MNEMONIC_INT1: return int1;
    case ZYDIS_MNEMONIC_INT3: return int3;
    case ZYDIS_MNEMONIC_INTO: return into;
    case ZYDIS_MNEMONIC_IRET: insn->opsize = 2; return iret;
    case ZYDIS_MNEMONIC_IRETD: insn->opsize = 4; return iret;
    case ZYDIS_MNEMONIC_IRETQ: insn->opsize = 8; return iret;
    case ZYDIS_MNEMONIC_JMP: return far ? far_jump : NULL;
    case ZYDIS_MNEMONIC_CALL: return far ? far_call : NULL;
    case ZYDIS_MNEMONIC_RET: insn->sub = insn->opcode == 0xca; return far ? far_return : NULL;
    case ZYDIS_MNEMONIC_POPF: insn->opsize = 2; return popf;
    case ZYDIS_MNEMONIC_POPFD: insn->opsize = 4; return popf;
    case ZYDIS_MNEMONIC_POPFQ: insn->opsize = 8; return popf;
    case ZYDIS_MNEMONIC_STI: return sti;
    case ZYDIS_MNEMONIC_HLT: return hlt;
    case ZYDIS_MNEMONIC_SYSCALL: return syscall;
    case ZYDIS_MNEMONIC_SYSRET: return sysret;
    case ZYDIS_MNEMONIC_SYSENTER: return sysenter;
    case ZYDIS_MNEMONIC_SYSEXIT: return sysexit;
    default: return NULL;
    }
}

x86_exec_fn *x86_select_system_control(const struct x86_zydis *z, struct x86_insn *insn)
{
    x86_exec_fn *exec = select_ending(z, insn);
    if (exec) {
        insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
        return exec;
    }
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSHF: insn->opsize = 2; return pushf;
    case ZYDIS_MNEMONIC_PUSHFD: insn->opsize = 4; return pushf;
    case ZYDIS_MNEMONIC_PUSHFQ: insn->opsize = 8; return pushf;
    case ZYDIS_MNEMONIC_CLI: return cli;
    default: return NULL;
    }
}
