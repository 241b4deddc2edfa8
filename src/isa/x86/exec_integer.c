/* exec_integer.c - which group executes which mnemonic of the integer family. */
#include "isa/x86/integer.h"

#include "isa/x86/state.h"

struct entry {
    x86_group_fn *group;
    uint8_t what;
};

#define M(name, group_, what_) [ZYDIS_MNEMONIC_##name] = { group_, what_ }
#define CONDITIONS(prefix, group, what)                                                                      \
    M(prefix##O, group, what), M(prefix##NO, group, what), M(prefix##B, group, what),                        \
        M(prefix##NB, group, what), M(prefix##Z, group, what), M(prefix##NZ, group, what),                   \
        M(prefix##BE, group, what), M(prefix##NBE, group, what), M(prefix##S, group, what),                  \
        M(prefix##NS, group, what), M(prefix##P, group, what), M(prefix##NP, group, what),                   \
        M(prefix##L, group, what), M(prefix##NL, group, what), M(prefix##LE, group, what),                   \
        M(prefix##NLE, group, what)

static const struct entry mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    M(ADD, x86_group_alu, X86_ADD), M(OR, x86_group_alu, X86_OR), M(ADC, x86_group_alu, X86_ADC),
    M(SBB, x86_group_alu, X86_SBB), M(AND, x86_group_alu, X86_AND), M(SUB, x86_group_alu, X86_SUB),
    M(XOR, x86_group_alu, X86_XOR), M(CMP, x86_group_alu, X86_CMP), M(TEST, x86_group_alu, X86_TEST),
    M(INC, x86_group_unary, X86_INC), M(DEC, x86_group_unary, X86_DEC), M(NEG, x86_group_unary, X86_NEG),
    M(NOT, x86_group_unary, X86_NOT),

    M(MOV, x86_group_move, X86_MOV), M(MOVNTI, x86_group_move, X86_MOV), M(LEA, x86_group_move, X86_LEA),
    M(MOVBE, x86_group_move, X86_MOVBE), M(BSWAP, x86_group_move, X86_BSWAP),
    M(XLAT, x86_group_move, X86_XLAT), M(CBW, x86_group_move, X86_WIDEN_LOW),
    M(CWDE, x86_group_move, X86_WIDEN_LOW), M(CDQE, x86_group_move, X86_WIDEN_LOW),
    M(CWD, x86_group_move, X86_WIDEN_HIGH), M(CDQ, x86_group_move, X86_WIDEN_HIGH),
    M(CQO, x86_group_move, X86_WIDEN_HIGH), M(MOVZX, x86_group_extend, X86_ZERO_EXTEND),
    M(MOVSX, x86_group_extend, X86_SIGN_EXTEND), M(MOVSXD, x86_group_extend, X86_SIGN_EXTEND),
    CONDITIONS(CMOV, x86_group_condition, X86_CMOV), CONDITIONS(SET, x86_group_condition, X86_SET),

    M(PUSH, x86_group_stack, X86_PUSH), M(POP, x86_group_stack, X86_POP),
    M(PUSHA, x86_group_stack, X86_PUSHA), M(PUSHAD, x86_group_stack, X86_PUSHA),
    M(POPA, x86_group_stack, X86_POPA), M(POPAD, x86_group_stack, X86_POPA),
    M(ENTER, x86_group_stack, X86_ENTER), M(LEAVE, x86_group_stack, X86_LEAVE),

    CONDITIONS(J, x86_group_branch, X86_JCC), M(JMP, x86_group_branch, X86_JMP),
    M(CALL, x86_group_branch, X86_CALL), M(RET, x86_group_branch, X86_RET),
    M(JCXZ, x86_group_branch, X86_JCXZ), M(JECXZ, x86_group_branch, X86_JCXZ),
    M(JRCXZ, x86_group_branch, X86_JCXZ), M(LOOP, x86_group_branch, X86_LOOP),
    M(LOOPE, x86_group_branch, X86_LOOPE), M(LOOPNE, x86_group_branch, X86_LOOPNE),
};

x86_exec_fn *x86_select_integer(const struct x86_zydis *z, struct x86_insn *insn)
{
    const struct entry *entry = &mnemonic[z->insn.mnemonic];

    return entry->group != NULL ? entry->group(z, insn, entry->what) : NULL;
}

static bool is_gpr(const ZydisDecodedOperand *operand)
{
    ZydisRegisterClass class;

    if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    class = ZydisRegisterGetClass(operand->reg.value);
    return class == ZYDIS_REGCLASS_GPR8 || class == ZYDIS_REGCLASS_GPR16 || class == ZYDIS_REGCLASS_GPR32 ||
           class == ZYDIS_REGCLASS_GPR64;
}

static uint8_t gpr(const ZydisDecodedOperand *operand)
{
    return (uint8_t)x86_register_number(operand->reg.value);
}

enum x86_form x86_form(const struct x86_zydis *z, struct x86_insn *insn)
{
    const ZydisDecodedOperand *to = &z->operand[0], *from = &z->operand[1];
    unsigned visible = z->insn.operand_count_visible;

    if (visible == 0)
        return X86_NO_FORM;
    if (is_gpr(to)) {
        if (visible == 1) {
            insn->reg = gpr(to);
            return X86_R;
        }
        if (from->type == ZYDIS_OPERAND_TYPE_REGISTER && !is_gpr(from))
            return X86_NO_FORM;
        insn->reg = gpr(to);
        if (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return X86_RI;
        if (from->type == ZYDIS_OPERAND_TYPE_MEMORY)
            return X86_RM;
        insn->rm = gpr(from);
        return X86_RR;
    }
    if (to->type != ZYDIS_OPERAND_TYPE_MEMORY)
        return X86_NO_FORM;
    if (visible == 1)
        return X86_M;
    if (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return X86_MI;
    if (!is_gpr(from))
        return X86_NO_FORM;
    insn->reg = gpr(from);
    return X86_MR;
}
