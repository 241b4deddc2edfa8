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

    M(ROL, x86_group_shift, X86_ROL),
    M(ROR, x86_group_shift, X86_ROR),
    M(RCL, x86_group_shift, X86_RCL),
    M(RCR, x86_group_shift, X86_RCR),
    M(SHL, x86_group_shift, X86_SHL),
    M(SHR, x86_group_shift, X86_SHR),
    M(SAR, x86_group_shift, X86_SAR),
    M(SHLD, x86_group_double_shift, 0),
    M(SHRD, x86_group_double_shift, 1),
    M(MUL, x86_group_muldiv, X86_MUL),
    M(IMUL, x86_group_muldiv, X86_IMUL),
    M(DIV, x86_group_muldiv, X86_DIV),
    M(IDIV, x86_group_muldiv, X86_IDIV),
    M(BT, x86_group_bit, X86_BT),
    M(BTS, x86_group_bit, X86_BTS),
    M(BTR, x86_group_bit, X86_BTR),
    M(BTC, x86_group_bit, X86_BTC),
    M(BSF, x86_group_scan, X86_BSF),
    M(BSR, x86_group_scan, X86_BSR),
    M(TZCNT, x86_group_scan, X86_TZCNT),
    M(LZCNT, x86_group_scan, X86_LZCNT),
    M(POPCNT, x86_group_scan, X86_POPCNT),
    M(CRC32, x86_group_crc32, 0),
    M(ANDN, x86_group_bmi, X86_ANDN),
    M(BEXTR, x86_group_bmi, X86_BEXTR),
    M(BLSI, x86_group_bmi, X86_BLSI),
    M(BLSMSK, x86_group_bmi, X86_BLSMSK),
    M(BLSR, x86_group_bmi, X86_BLSR),
    M(BZHI, x86_group_bmi, X86_BZHI),
    M(MULX, x86_group_bmi, X86_MULX),
    M(PDEP, x86_group_bmi, X86_PDEP),
    M(PEXT, x86_group_bmi, X86_PEXT),
    M(RORX, x86_group_bmi, X86_RORX),
    M(SARX, x86_group_bmi, X86_SARX),
    M(SHLX, x86_group_bmi, X86_SHLX),
    M(SHRX, x86_group_bmi, X86_SHRX),
    M(ADCX, x86_group_bmi, X86_ADCX),
    M(ADOX, x86_group_bmi, X86_ADOX),
    M(XCHG, x86_group_exchange, X86_XCHG),
    M(XADD, x86_group_exchange, X86_XADD),
    M(CMPXCHG, x86_group_exchange, X86_CMPXCHG),
    M(CMPXCHG8B, x86_group_exchange, X86_CMPXCHG8B),
    M(CMPXCHG16B, x86_group_exchange, X86_CMPXCHG16B),

    M(MOVSB, x86_group_string, X86_MOVS),
    M(MOVSW, x86_group_string, X86_MOVS),
    M(MOVSQ, x86_group_string, X86_MOVS),
    M(STOSB, x86_group_string, X86_STOS),
    M(STOSW, x86_group_string, X86_STOS),
    M(STOSD, x86_group_string, X86_STOS),
    M(STOSQ, x86_group_string, X86_STOS),
    M(LODSB, x86_group_string, X86_LODS),
    M(LODSW, x86_group_string, X86_LODS),
    M(LODSD, x86_group_string, X86_LODS),
    M(LODSQ, x86_group_string, X86_LODS),
    M(CMPSB, x86_group_string, X86_CMPS),
    M(CMPSW, x86_group_string, X86_CMPS),
    M(CMPSQ, x86_group_string, X86_CMPS),
    M(SCASB, x86_group_string, X86_SCAS),
    M(SCASW, x86_group_string, X86_SCAS),
    M(SCASD, x86_group_string, X86_SCAS),
    M(SCASQ, x86_group_string, X86_SCAS),
    /* MOVSD and CMPSD are SSE2 instructions as well: x86_group_string tells by the category. */
    M(MOVSD, x86_group_string, X86_MOVS),
    M(CMPSD, x86_group_string, X86_CMPS),

    M(NOP, x86_group_misc, X86_NOP),
    M(PREFETCH, x86_group_misc, X86_NOP),
    M(PREFETCHNTA, x86_group_misc, X86_NOP),
    M(PREFETCHT0, x86_group_misc, X86_NOP),
    M(PREFETCHT1, x86_group_misc, X86_NOP),
    M(PREFETCHT2, x86_group_misc, X86_NOP),
    M(PREFETCHW, x86_group_misc, X86_NOP),
    M(PREFETCHWT1, x86_group_misc, X86_NOP),
    M(PAUSE, x86_group_misc, X86_PAUSE),
    M(CLC, x86_group_misc, X86_CLC),
    M(STC, x86_group_misc, X86_STC),
    M(CMC, x86_group_misc, X86_CMC),
    M(CLD, x86_group_misc, X86_CLD),
    M(STD, x86_group_misc, X86_STD),
    M(LAHF, x86_group_misc, X86_LAHF),
    M(SAHF, x86_group_misc, X86_SAHF),
    M(LFENCE, x86_group_misc, X86_LFENCE),
    M(SFENCE, x86_group_misc, X86_SFENCE),
    M(MFENCE, x86_group_misc, X86_MFENCE),
    M(CLFLUSH, x86_group_misc, X86_CLFLUSH),
    M(CLFLUSHOPT, x86_group_misc, X86_CLFLUSH),
    M(CLWB, x86_group_misc, X86_CLFLUSH),
    M(RDRAND, x86_group_misc, X86_RDRAND),
    M(RDSEED, x86_group_misc, X86_RDSEED),
    M(BOUND, x86_group_misc, X86_BOUND),
    M(AAA, x86_group_misc, X86_AAA),
    M(AAS, x86_group_misc, X86_AAS),
    M(AAM, x86_group_misc, X86_AAM),
    M(AAD, x86_group_misc, X86_AAD),
    M(DAA, x86_group_misc, X86_DAA),
    M(DAS, x86_group_misc, X86_DAS),
    M(SALC, x86_group_misc, X86_SALC),
    M(UD0, x86_group_misc, X86_UNDEFINED),
    M(UD1, x86_group_misc, X86_UNDEFINED),
    M(UD2, x86_group_misc, X86_UNDEFINED),
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
