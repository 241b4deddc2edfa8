/* liveness.c - which arithmetic flags a case's code may still read.
 *
 * A translator may leave flags that nothing reads out of date where an access faults (docs/equivalence.md). This
 * says independently of it what "nothing reads" means: the flags of RFLAGS that some path from here reads before
 * it writes them. Whatever leaves the case's code reads them all. */
#include "compare.h"
#include "forms.h"

#define DEPTH_MAX 8u /* branches followed; beyond, all flags count as read */

static bool keeps_flags_of_zero_count(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operand)
{
    bool twice = insn->mnemonic == ZYDIS_MNEMONIC_SHLD || insn->mnemonic == ZYDIS_MNEMONIC_SHRD;
    const ZydisDecodedOperand *count = &operand[twice ? 2 : 1];

    if (insn->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        return true;
    if (!twice && insn->meta.category != ZYDIS_CATEGORY_SHIFT && insn->meta.category != ZYDIS_CATEGORY_ROTATE)
        return false;
    return count->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || (count->imm.value.u & (operand[0].size == 64 ? 63 : 31)) == 0;
}

static uint64_t live(const struct eq_case *c, const ZydisDecoder *decoder, uint64_t offset, unsigned depth)
{
    uint64_t written = 0, read = 0;

    while (offset < c->length && (X86_FLAGS_ARITH & ~written) != 0) {
        ZydisDecodedInstruction insn;
        ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];

        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, c->code + offset, c->length - offset, &insn, operand)))
            break;
        offset += insn.length;
        if (insn.cpu_flags != NULL) {
            read |= insn.cpu_flags->tested & X86_FLAGS_ARITH & ~written;
            if (!keeps_flags_of_zero_count(&insn, operand))
                written |= (insn.cpu_flags->modified | insn.cpu_flags->set_0 | insn.cpu_flags->set_1 |
                            insn.cpu_flags->undefined) & X86_FLAGS_ARITH;
        }
        if (insn.meta.branch_type == ZYDIS_BRANCH_TYPE_NONE)
            continue;
        if (!insn.raw.imm[0].is_relative || depth == DEPTH_MAX)
            break;
        read |= live(c, decoder, offset + (uint64_t)operand[0].imm.value.s, depth + 1) & ~written;
        if (insn.meta.category != ZYDIS_CATEGORY_COND_BR)
            return read;
    }
    return (read | ~written) & X86_FLAGS_ARITH;
}

uint64_t eq_live_flags(const struct eq_case *c, uint64_t rip)
{
    ZydisDecoder decoder[2];

    if (c->code32)
        return X86_FLAGS_ARITH;
    form_decoders(decoder);
    return live(c, &decoder[0], rip - c->address, 0);
}
