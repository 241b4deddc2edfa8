/* sequence.c - code of several instructions, with forward branches, subroutines, and loops around it all.
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
    int index;         /* a register with a small number, for operands to add; -1: none */
    int counter;       /* of the loop around the whole; -1: none */
    bool segments;     /* FS and GS bases are small: operands may use them */
    bool low;          /* all pointers are below 4 GiB */
    unsigned jump_at;  /* offset of a pending JCC's displacement byte; 0: none */
    unsigned jump_over;
    unsigned call_at, call_over; /* the same of the JMP over a subroutine */
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

static bool is_reserved(const struct sequence *s, int reg)
{
    return reg >= 0 && (is_pointer(s, reg) || reg == s->index || reg == s->counter);
}

static bool is_rip(ZydisRegister reg) { return reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP; }

static bool within_reach(const struct sequence *s, const struct eq_insn *i, const ZydisDecodedOperandMem *mem)
{
    bool segment = mem->segment == ZYDIS_REGISTER_FS || mem->segment == ZYDIS_REGISTER_GS;

    if (is_rip(mem->base))
        return !segment || s->segments;
    return is_pointer(s, eq_gpr_of(mem->base)) && (!segment || s->segments) &&
           (mem->index == ZYDIS_REGISTER_NONE || (s->index >= 0 && eq_gpr_of(mem->index) == s->index)) &&
           (i->insn.address_width != 32 || s->low || s->c->code32);
}

/* True when memory operands go through the pointers and what is set aside stays as it is, but for the small steps of
 * stack and string instructions. */
static bool keeps_to_pointers(const struct sequence *s, const struct eq_insn *i)
{
    for (unsigned k = 0; k < i->insn.operand_count; k++) {
        const ZydisDecodedOperand *o = &i->operand[k];
        bool hidden = o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type == ZYDIS_MEMOP_TYPE_MEM && !within_reach(s, i, &o->mem))
            return false;
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        if (!hidden && is_reserved(s, eq_gpr_of(o->reg.value)))
            return false;
        if (hidden && s->call_at != 0 && eq_gpr_of(o->reg.value) == X86_RSP)
            return false; /* a RET that takes an old return address may loop for ever */
        if (hidden && (eq_gpr_of(o->reg.value) == X86_RBX || eq_gpr_of(o->reg.value) == s->index ||
                       eq_gpr_of(o->reg.value) == s->counter)) /* CMPXCHG8B and CPUID aside, nothing steps RBX */
            return false;
    }
    return true;
}

/* A displacement that keeps aligned operands aligned, mostly. */
static void tame_displacement(struct sequence *s, struct eq_insn *i)
{
    int32_t value = (int32_t)eq_below(&s->g->random, 0x400) - 0x200;
    uint8_t *at = i->bytes + i->insn.raw.disp.offset;

    if (!eq_once_in(&s->g->random, 4))
        value &= ~31;

    if (i->insn.raw.disp.size == 0)
        return;
    for (unsigned k = 0; k < i->insn.operand_count; k++)
        if (i->operand[k].type == ZYDIS_OPERAND_TYPE_MEMORY && is_rip(i->operand[k].mem.base))
            value += (int32_t)(EQ_DATA_LOW + 0x2000 - (s->c->address + s->c->length + i->insn.length));
    if (i->insn.raw.disp.size == 8)
        value = (int8_t)value;
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

/* A register from R8 up that is not set aside yet. */
static int take_register(const struct sequence *s)
{
    int reg;

    do
        reg = 8 + (int)eq_below(&s->g->random, 8);
    while (is_reserved(s, reg));
    return reg;
}

static void set_pointers(struct sequence *s)
{
    static const uint8_t always[] = {X86_RSP, X86_RBX, X86_RBP, X86_RSI, X86_RDI};
    struct eq_state *state = &s->c->state;
    struct eq_random *random = &s->g->random;

    s->index = s->counter = -1;
    s->low = s->c->code32 || eq_once_in(random, 3);
    for (unsigned k = 0; k < sizeof always; k++)
        s->pointers |= (uint16_t)(1u << always[k]);
    for (unsigned k = 0; k < 2 && !s->c->code32; k++)
        s->pointers |= (uint16_t)(1u << take_register(s));
    if (!s->c->code32 && eq_once_in(random, 2)) {
        s->index = take_register(s);
        state->gpr[s->index] = (uint64_t)((int64_t)eq_below(random, 9) - 4) * (eq_once_in(random, 3) ? 1 : 16);
    }
    s->segments = !s->c->code32 && eq_once_in(random, 2);
    if (s->segments) {
        state->fs_base = eq_below(random, 16) * 32;
        state->gs_base = eq_below(random, 16) * 32;
    }
    for (unsigned reg = 0; reg < 16; reg++) {
        uint64_t base = s->low || eq_once_in(random, 2) ? EQ_DATA_LOW : EQ_DATA_HIGH;

        if (!is_pointer(s, (int)reg))
            continue;
        state->gpr[reg] = base + 0x1800 + (eq_below(random, 0x1000) & ~63u);
        if (eq_once_in(random, 24))
            state->gpr[reg] = eq_data_address(random, s->low, 64);
    }
}

/* ---- what moves pointers, and control: 64-bit code only ---- */

static unsigned rex_b(int reg) { return reg >= 8 ? 1 : 0; }

/* LEA pointer, [pointer + disp8], or ADD pointer, imm8; of the stack as of any other. */
static void step_pointer(struct sequence *s)
{
    int reg;
    int8_t step = (int8_t)((int)eq_below(&s->g->random, 7) * 32 - 96);

    do
        reg = (int)eq_below(&s->g->random, 16);
    while (!is_pointer(s, reg) || (reg == X86_RSP && s->call_at != 0));
    if (eq_once_in(&s->g->random, 2)) {
        const uint8_t add[4] = {(uint8_t)(0x48 | rex_b(reg)), 0x83, (uint8_t)(0xc0 | (reg & 7)), (uint8_t)step};

        emit(s, add, 4);
    } else {
        const uint8_t lea[3] = {(uint8_t)(0x48 | rex_b(reg) | rex_b(reg) << 2), 0x8d,
                                (uint8_t)(0x40 | (reg & 7) << 3 | (reg & 7))};
        const uint8_t rest[2] = {0x24, (uint8_t)step};

        emit(s, lea, 3);
        emit(s, (reg & 7) == 4 ? rest : rest + 1, (reg & 7) == 4 ? 2 : 1);
    }
}

/* CALL of the code that follows the JMP behind it; land_call ends it with a RET. Direct or through R8. */
static void start_call(struct sequence *s)
{
    static const uint8_t direct[] = {0xe8, 2, 0, 0, 0};
    static const uint8_t indirect[] = {0x4c, 0x8d, 0x05, 5, 0, 0, 0, 0x41, 0xff, 0xd0};
    static const uint8_t jump[] = {0xeb, 0};

    if (s->index == 8 || s->counter == 8 || is_pointer(s, 8) || eq_once_in(&s->g->random, 2))
        emit(s, direct, sizeof direct);
    else
        emit(s, indirect, sizeof indirect);
    emit(s, jump, sizeof jump);
    s->call_at = s->c->length - 1;
    s->call_over = 1 + eq_below(&s->g->random, 3);
}

static void land_call(struct sequence *s, bool now)
{
    static const uint8_t ret[] = {0xc3};

    if (s->call_at == 0 || (s->call_over > 0 && !now)) {
        s->call_over -= s->call_over > 0;
        return;
    }
    emit(s, ret, sizeof ret);
    s->c->code[s->call_at] = (uint8_t)(s->c->length - s->call_at - 1);
    s->call_at = 0;
}

static void start_loop(struct sequence *s)
{
    s->counter = take_register(s);
    s->c->state.gpr[s->counter] = 2 + eq_below(&s->g->random, 12);
}

/* DEC or SUB of the counter, and back to the start while it is not zero. */
static void end_loop(struct sequence *s)
{
    const uint8_t dec[] = {(uint8_t)(0x48 | rex_b(s->counter)), 0xff, (uint8_t)(0xc8 | (s->counter & 7))};
    uint8_t jnz[6] = {0x0f, 0x85};
    int32_t back = -(int32_t)(s->c->length + sizeof dec + sizeof jnz);

    memcpy(jnz + 2, &back, 4);
    emit(s, dec, sizeof dec);
    emit(s, jnz, sizeof jnz);
}

bool generate_sequence(struct generator *g, const struct form_list *list, bool code32, struct eq_case *ret_case)
{
    struct sequence s = {.g = g, .c = ret_case};
    const bool moves = !code32 && eq_once_in(&g->random, 2);
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
    if (moves && eq_once_in(&g->random, 2))
        start_loop(&s);
    for (unsigned have = 0, attempt = 0; have < want && attempt < 400; attempt++) {
        const struct form *form = &list->form[eq_below(&g->random, list->count)];

        if (form->code32 != code32 || ret_case->length + 40 > EQ_CODE_MAX || !append(&s, form))
            continue;
        have++;
        if (s.call_at == 0)
            land(&s, false);
        else
            land_call(&s, false);
        if (moves && eq_once_in(&g->random, 6))
            step_pointer(&s);
        if (moves && s.jump_at == 0 && s.call_at == 0 && have + 1 < want && eq_once_in(&g->random, 8))
            start_call(&s);
        if (s.jump_at == 0 && s.call_at == 0 && have + 1 < want && eq_once_in(&g->random, 5))
            start_branch(&s);
    }
    land(&s, true);
    land_call(&s, true);
    if (s.counter >= 0)
        end_loop(&s);
    for (unsigned k = 0; code32 && k < 8; k++)
        ret_case->state.gpr[k] = (uint32_t)ret_case->state.gpr[k];
    return ret_case->length > 0;
}
