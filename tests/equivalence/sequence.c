/* sequence.c - straight-line code of several instructions, with forward branches.
 *
 * Some registers are set aside to address memory and never written on purpose, so that operands stay within the
 * windows; a few of them point at the edge of one, so that some pieces of code fault in the middle. An
 * instruction that leaves flags undefined is followed by a CMP, so that flags may flow on into any later one. */
#include <string.h>

#include "compare.h"
#include "generate.h"
#include "values.h"

struct sequence {
    struct generator *g;
    struct eq_case *c;
    uint16_t pointers; /* registers set aside, by number */
    unsigned jump_at;  /* offset of a pending JCC's displacement byte; 0: none */
    unsigned jump_over;
};

/* Not in the middle of code: what changes segments, privilege, tracing or whole register files, what stores the
 * x87 instruction pointers, and what leaves its result undefined. */
static bool unsuitable(const struct eq_insn *i)
{
    for (unsigned k = 0; k < i->insn.operand_count_visible; k++)
        if (i->operand[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(i->operand[k].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return true;
    switch ((int)i->insn.mnemonic) {
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_INTO:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_LSL: return true;
    default: break;
    }
    switch ((int)i->insn.meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_AVX2GATHER: return true;
    default: break;
    }
    return (i->insn.attributes & (ZYDIS_ATTRIB_IS_PRIVILEGED | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
                                  ZYDIS_ATTRIB_HAS_REPNE)) != 0 || i->insn.address_width == 16;
}

static bool is_pointer(const struct sequence *s, int reg) { return reg >= 0 && (s->pointers >> reg & 1); }

/* True when memory operands go through the pointers and the pointers stay as they are, but for the small steps of
 * stack and string instructions. */
static bool keeps_to_pointers(const struct sequence *s, const struct eq_insn *i)
{
    for (unsigned k = 0; k < i->insn.operand_count; k++) {
        const ZydisDecodedOperand *o = &i->operand[k];
        bool hidden = o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type == ZYDIS_MEMOP_TYPE_MEM &&
            (!is_pointer(s, eq_gpr_of(o->mem.base)) || o->mem.index != ZYDIS_REGISTER_NONE ||
             o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS || i->insn.address_width == 32) &&
            !(s->c->code32 && is_pointer(s, eq_gpr_of(o->mem.base)) && o->mem.index == ZYDIS_REGISTER_NONE &&
              o->mem.segment != ZYDIS_REGISTER_FS && o->mem.segment != ZYDIS_REGISTER_GS))
            return false;
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && !hidden &&
            is_pointer(s, eq_gpr_of(o->reg.value)))
            return false;
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && hidden && (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            eq_gpr_of(o->reg.value) == X86_RBX) /* CMPXCHG8B and CPUID aside, nothing steps RBX */
            return false;
    }
    return true;
}

/* A displacement that keeps aligned operands aligned, mostly. */
static void tame_displacement(struct sequence *s, struct eq_insn *i)
{
    int32_t value = (int32_t)eq_below(&s->g->random, 0x400) - 0x200;
    uint8_t *at = i->bytes + i->insn.raw.disp.offset;

    if (i->insn.raw.disp.size == 0)
        return;
    if (i->insn.raw.disp.size == 8)
        value = (int8_t)value;
    if (!eq_once_in(&s->g->random, 4))
        value &= ~31;
    memcpy(at, &value, i->insn.raw.disp.size / 8 < 4 ? i->insn.raw.disp.size / 8 : 4);
}

static void emit(struct sequence *s, const uint8_t *bytes, unsigned n)
{
    memcpy(s->c->code + s->c->length, bytes, n);
    s->c->length += n;
}

/* Flags undefined by this instruction in some state: every count is tried. */
static bool may_leave_undefined(const struct eq_insn *i)
{
    struct eq_state state = {0};

    for (unsigned count = 0; count < 64; count++) {
        state.gpr[X86_RCX] = count;
        if (eq_undefined_flags(i, &state) != 0)
            return true;
    }
    return false;
}

static bool unmasked(const struct eq_state *state) { return (~state->fx[24] & 0x80) != 0 || (~state->fx[25] & 0x1f) != 0; }

/* Appends one random instruction; false when the form did not fit in. */
static bool append(struct sequence *s, const struct form *form)
{
    static const uint8_t compare[][2] = {{0x38, 0xc8}, {0x39, 0xd0}, {0x38, 0xd6}, {0x39, 0xc1}};
    struct eq_insn i;

    for (unsigned attempt = 0; attempt < 12; attempt++) {
        if (!generate_bytes(s->g, form, &i) || unsuitable(&i) ||
            ((s->c->state.rflags & X86_FLAG_AC) && eq_wide_operand(&i)) || (eq_dot_product(&i) && unmasked(&s->c->state)))
            return false;
        if (!keeps_to_pointers(s, &i))
            continue;
        tame_displacement(s, &i);
        emit(s, i.bytes, i.insn.length);
        if (may_leave_undefined(&i))
            emit(s, compare[eq_below(&s->g->random, 4)], 2);
        return true;
    }
    return false;
}

/* A pending branch lands here once it has passed enough instructions. */
static void land(struct sequence *s, bool now)
{
    if (s->jump_at == 0 || (s->jump_over > 0 && !now)) {
        s->jump_over -= s->jump_over > 0;
        return;
    }
    s->c->code[s->jump_at] = (uint8_t)(s->c->length - s->jump_at - 1);
    s->jump_at = 0;
}

static void start_branch(struct sequence *s)
{
    uint8_t jcc[2] = {(uint8_t)(0x70 | eq_below(&s->g->random, 16)), 0};

    if (eq_once_in(&s->g->random, 8))
        jcc[0] = 0xeb;
    emit(s, jcc, 2);
    s->jump_at = s->c->length - 1;
    s->jump_over = eq_below(&s->g->random, 3);
}

static void set_pointers(struct sequence *s)
{
    static const uint8_t always[] = {X86_RSP, X86_RBX, X86_RBP, X86_RSI, X86_RDI}, wide[] = {X86_R12, X86_R13};
    struct eq_state *state = &s->c->state;

    for (unsigned k = 0; k < sizeof always; k++)
        s->pointers |= (uint16_t)(1u << always[k]);
    for (unsigned k = 0; k < sizeof wide && !s->c->code32; k++)
        s->pointers |= (uint16_t)(1u << wide[k]);
    for (unsigned reg = 0; reg < 16; reg++) {
        uint64_t base = s->c->code32 || eq_once_in(&s->g->random, 2) ? EQ_DATA_LOW : EQ_DATA_HIGH;

        if (!is_pointer(s, (int)reg))
            continue;
        state->gpr[reg] = base + 0x1800 + (eq_below(&s->g->random, 0x1000) & ~63u);
        if (eq_once_in(&s->g->random, 24))
            state->gpr[reg] = eq_data_address(&s->g->random, s->c->code32, 64);
    }
}

bool generate_sequence(struct generator *g, const struct form_list *list, bool code32, struct eq_case *ret_case)
{
    struct sequence s = {.g = g, .c = ret_case};
    unsigned want = 5 + eq_below(&g->random, 16);

    memset(ret_case, 0, sizeof *ret_case);
    ret_case->code32 = code32;
    eq_random_state(&g->random, code32, &ret_case->state);
    ret_case->address = EQ_CODE_A + (eq_once_in(&g->random, 8) ? 0xfc0 : 0x400);
    ret_case->state.rip = ret_case->address;
    ret_case->state.rflags &= ~(uint64_t)X86_FLAG_TF; /* it would end after one, that one's undefined flags in sight */
    if (!eq_once_in(&g->random, 8))
        ret_case->state.rflags &= ~(uint64_t)X86_FLAG_AC;
    set_pointers(&s);
    for (unsigned have = 0, attempt = 0; have < want && attempt < 400; attempt++) {
        const struct form *form = &list->form[eq_below(&g->random, list->count)];

        if (form->code32 != code32 || ret_case->length + 40 > EQ_CODE_MAX || !append(&s, form))
            continue;
        have++;
        land(&s, false);
        if (s.jump_at == 0 && have + 1 < want && eq_once_in(&g->random, 5))
            start_branch(&s);
    }
    land(&s, true);
    for (unsigned k = 0; code32 && k < 8; k++)
        ret_case->state.gpr[k] = (uint32_t)ret_case->state.gpr[k];
    return ret_case->length > 0;
}
