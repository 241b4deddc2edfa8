/* exec_branch.c - near JMP, CALL, RET, Jcc, JrCXZ, LOOP. Far transfers belong to the system family.
 *
 * A branch target is checked before anything changes: canonical in 64-bit code, within the CS limit
 * elsewhere, else #GP(0) at the branch itself. */
#include "isa/x86/integer_exec.h"
#include "isa/x86/paging.h"

/* 64-bit code. */
X86_INLINE uint64_t check64(struct x86_core *core, uint64_t target)
{
    if (__builtin_expect(!x86_canonical(target), 0))
        x86_raise_gp(core, 0);
    return target;
}

static uint64_t check(struct x86_core *core, const struct x86_insn *insn, uint64_t target)
{
    if (insn->mode == X86_CODE64)
        return check64(core, target);
    target = insn->opsize == 2 ? (uint16_t)target : (uint32_t)target;
    if (target > core->cpu.seg[X86_CS].limit)
        x86_raise_gp(core, 0);
    return target;
}

#define RIP core->cpu.reg[X86_RIP]

#define JCC(cc)                                                                                              \
    static void jcc64_##cc(struct x86_core *core, const struct x86_insn *insn)                               \
    {                                                                                                        \
        if (x86_condition(core->cpu.rflags, cc))                                                             \
            RIP = check64(core, RIP + (uint64_t)insn->imm);                                                  \
    }
JCC(0) JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7) JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14)
JCC(15)
static x86_exec_fn *const jcc64[16] = { jcc64_0,  jcc64_1,  jcc64_2,  jcc64_3, jcc64_4,  jcc64_5,
                                        jcc64_6,  jcc64_7,  jcc64_8,  jcc64_9, jcc64_10, jcc64_11,
                                        jcc64_12, jcc64_13, jcc64_14, jcc64_15 };

static void jcc(struct x86_core *core, const struct x86_insn *insn)
{
    if (x86_condition(core->cpu.rflags, insn->sub))
        RIP = check(core, insn, RIP + (uint64_t)insn->imm);
}

static void jmp64(struct x86_core *core, const struct x86_insn *insn)
{
    RIP = check64(core, RIP + (uint64_t)insn->imm);
}
static void jmp64_r(struct x86_core *core, const struct x86_insn *insn)
{
    RIP = check64(core, x86_get64(core, insn->reg));
}
static void jmp64_m(struct x86_core *core, const struct x86_insn *insn)
{
    RIP = check64(core, x86_load64(core, x86_linear(core, insn, 8, false)));
}
/* An indirect call's target. A bad one is found out after the stack slot, as far as faults go. */
static uint64_t check_call64(struct x86_core *core, uint64_t target)
{
    uint64_t slot = core->cpu.reg[X86_RSP] - 8;

    if (__builtin_expect(!x86_canonical(target), 0)) {
        if (!x86_canonical(slot))
            x86_raise(core, X86_SSF, 0);
        x86_probe_write(core, slot, 8);
    }
    return check64(core, target);
}

static void call64(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t target = check64(core, RIP + (uint64_t)insn->imm);

    x86_push_64(core, RIP);
    RIP = target;
}
static void call64_r(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t target = check_call64(core, x86_get64(core, insn->reg));

    x86_push_64(core, RIP);
    RIP = target;
}
static void call64_m(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t target = check_call64(core, x86_load64(core, x86_linear(core, insn, 8, false)));

    x86_push_64(core, RIP);
    RIP = target;
}
static void ret64(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t old = core->cpu.reg[X86_RSP], target = x86_pop_64(core);

    if (__builtin_expect(!x86_canonical(target), 0)) {
        core->cpu.reg[X86_RSP] = old;
        x86_raise_gp(core, 0);
    }
    core->cpu.reg[X86_RSP] += (uint16_t)insn->imm;
    RIP = target;
}

/* Other modes. */
static uint64_t indirect_target(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t linear;

    if (!(insn->flags & X86_INSN_MEMORY))
        return x86_get64(core, insn->reg);
    linear = x86_linear(core, insn, insn->opsize, false);
    return insn->opsize == 2 ? x86_load16(core, linear) : x86_load32(core, linear);
}

static void jmp(struct x86_core *core, const struct x86_insn *insn)
{
    RIP = check(core, insn, RIP + (uint64_t)insn->imm);
}
static void jmp_indirect(struct x86_core *core, const struct x86_insn *insn)
{
    RIP = check(core, insn, indirect_target(core, insn));
}
static void call(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t target = check(core, insn, RIP + (uint64_t)insn->imm);

    x86_push(core, insn->opsize, RIP);
    RIP = target;
}
static void call_indirect(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t target = check(core, insn, indirect_target(core, insn));

    x86_push(core, insn->opsize, RIP);
    RIP = target;
}
static void ret(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t old = core->cpu.reg[X86_RSP], target = x86_pop(core, insn->opsize);

    target = insn->opsize == 2 ? (uint16_t)target : (uint32_t)target;
    if (target > core->cpu.seg[X86_CS].limit) {
        core->cpu.reg[X86_RSP] = old;
        x86_raise_gp(core, 0);
    }
    if (core->cpu.seg[X86_SS].attr & X86_ATTR_DB)
        x86_set32(core, X86_RSP * 8, x86_get32(core, X86_RSP * 8) + (uint16_t)insn->imm);
    else
        x86_set16(core, X86_RSP * 8, (uint16_t)(x86_get16(core, X86_RSP * 8) + (uint16_t)insn->imm));
    RIP = target;
}

/* rCX as wide as the address size. */
static uint64_t counter(const struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t rcx = core->cpu.reg[X86_RCX];

    return insn->addrsize == 8 ? rcx : insn->addrsize == 4 ? (uint32_t)rcx : (uint16_t)rcx;
}

static void jcxz(struct x86_core *core, const struct x86_insn *insn)
{
    if (counter(core, insn) == 0)
        RIP = check(core, insn, RIP + (uint64_t)insn->imm);
}

static void loop(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t count = counter(core, insn) - 1;
    bool zero = core->cpu.rflags & X86_FLAG_ZF, taken;

    if (insn->addrsize != 8)
        count = insn->addrsize == 4 ? (uint32_t)count : (uint16_t)count;
    taken = count != 0 && (insn->sub == X86_LOOP || zero == (insn->sub == X86_LOOPE));
    if (taken)
        RIP = check(core, insn, RIP + (uint64_t)insn->imm);
    if (insn->addrsize == 2)
        x86_set16(core, X86_RCX * 8, (uint16_t)count);
    else
        x86_set64(core, X86_RCX * 8, count);
}

x86_exec_fn *x86_group_branch(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    bool wide = insn->mode == X86_CODE64;
    enum x86_form form = x86_form(z, insn);
    bool direct = z->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && z->operand[0].imm.is_relative;

    if (z->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return NULL;
    insn->flags |= X86_INSN_ENDS;
    if (direct)
        insn->flags |= X86_INSN_BRANCH;
    if (direct && what != X86_JMP && what != X86_CALL)
        insn->flags |= X86_INSN_CONDITIONAL;
    switch ((enum x86_branch)what) {
    case X86_JMP:
        if (direct)
            return wide ? jmp64 : jmp;
        return !wide ? jmp_indirect : form == X86_M ? jmp64_m : jmp64_r;
    case X86_CALL:
        if (direct)
            return wide ? call64 : call;
        return !wide ? call_indirect : form == X86_M ? call64_m : call64_r;
    case X86_RET: return wide ? ret64 : ret;
    case X86_JCXZ: return jcxz;
    case X86_LOOP:
    case X86_LOOPE:
    case X86_LOOPNE: insn->sub = (uint8_t)what; return loop;
    case X86_JCC: insn->sub = insn->opcode & 15; return wide ? jcc64[insn->sub] : jcc;
    }
    return NULL;
}
