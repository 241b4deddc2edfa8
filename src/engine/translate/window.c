/* window.c - accesses off the same registers that share one look-up.
 *
 * Within a trace the value of a register is followed: it is unknown at first, moves by constants (PUSH, POP,
 * ADD, LEA), is copied (MOV RBP, RSP), and otherwise becomes another unknown. Accesses at constant distances
 * from one unknown, or from the sum of one and a multiple of another, make up a window when they lie close together:
 * the first of them looks up the whole range, leaves its host address in memory that is reached through GS, and the
 * others need no look-up. */
#include "engine/translate/compile.h"

#define RANGE_MAX 512 /* bytes: the longer, the likelier that a page ends in it */
#define GROUPS 32u
#define DELTA_MAX (1 << 20)
#define NOTHING UINT32_MAX

struct value {
    unsigned unknown; /* a number for it */
    int32_t delta;    /* plus this */
};

struct sum {
    unsigned base, index; /* unknowns, or NOTHING */
    unsigned scale;
};

struct group {
    struct sum sum;
    unsigned count;
    unsigned first; /* instruction */
    int32_t low, high;
    bool write;
};

struct follower {
    struct value reg[16];
    unsigned unknowns, groups;
    struct group group[GROUPS];
    uint8_t group_of[TRACE_INSNS];
};

static void make_unknown(struct follower *f, unsigned reg)
{
    f->reg[reg] = (struct value){.unknown = f->unknowns++};
}

static void move_by(struct follower *f, unsigned reg, int64_t distance)
{
    int64_t delta = f->reg[reg].delta + distance;
    if (delta < -DELTA_MAX || delta > DELTA_MAX)
        make_unknown(f, reg);
    else
        f->reg[reg].delta = (int32_t)delta;
}

static bool is_wide_register(const ZydisDecodedOperand *operand)
{
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_GPR64;
}

/* Follows `to` = another register plus a constant, if it is that. */
static bool follow_copy(struct follower *f, const struct native *n)
{
    const ZydisDecodedOperand *to = &n->operand[0], *from = &n->operand[1];
    if (!is_wide_register(to))
        return false;
    unsigned reg = native_register(to->reg.value);
    bool constant = from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    switch (n->insn.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
        if (constant)
            move_by(f, reg, from->imm.value.s);
        return constant;
    case ZYDIS_MNEMONIC_SUB:
        if (constant)
            move_by(f, reg, -from->imm.value.s);
        return constant;
    case ZYDIS_MNEMONIC_INC:
        move_by(f, reg, 1);
        return true;
    case ZYDIS_MNEMONIC_DEC:
        move_by(f, reg, -1);
        return true;
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
        return true;
    case ZYDIS_MNEMONIC_MOV:
        if (!is_wide_register(from))
            return false;
        f->reg[reg] = f->reg[native_register(from->reg.value)];
        return true;
    case ZYDIS_MNEMONIC_LEA: {
        unsigned base = native_register(from->mem.base);
        if (from->mem.base == ZYDIS_REGISTER_RIP || base == EMIT_NONE || from->mem.index != ZYDIS_REGISTER_NONE)
            return false;
        f->reg[reg] = f->reg[base];
        move_by(f, reg, from->mem.disp.value);
        return true;
    }
    default:
        return false;
    }
}

static void follow_insn(struct follower *f, const struct native *n)
{
    switch (n->kind) {
    case NATIVE_PUSH:
    case NATIVE_CALL:
    case NATIVE_CALL_INDIRECT:
        move_by(f, H_RSP, -8);
        return;
    case NATIVE_POP:
        move_by(f, H_RSP, 8);
        make_unknown(f, native_register(n->operand[0].reg.value));
        return;
    case NATIVE_PUSH_MEMORY:
        move_by(f, H_RSP, -8);
        return;
    case NATIVE_LEAVE:
        f->reg[H_RSP] = f->reg[H_RBP];
        move_by(f, H_RSP, 8);
        make_unknown(f, H_RBP);
        return;
    case NATIVE_STRING:
        make_unknown(f, H_RCX);
        make_unknown(f, H_RSI);
        make_unknown(f, H_RDI);
        return;
    case NATIVE_BITS:
    case NATIVE_NOP:
    case NATIVE_JCC:
    case NATIVE_JMP:
    case NATIVE_FLDCW:
        return;
    case NATIVE_REGISTER:
    case NATIVE_LEA:
        if (follow_copy(f, n))
            return;
        break;
    case NATIVE_MEMORY:
        break;
    default: /* interpreted: anything */
        for (unsigned i = 0; i < 16; i++)
            make_unknown(f, i);
        return;
    }
    for (unsigned i = 0; i < n->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &n->operand[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER || !(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        ZydisRegisterClass class = ZydisRegisterGetClass(operand->reg.value);
        if (class == ZYDIS_REGCLASS_GPR8 || class == ZYDIS_REGCLASS_GPR16 || class == ZYDIS_REGCLASS_GPR32 ||
            class == ZYDIS_REGCLASS_GPR64)
            make_unknown(f, native_register(operand->reg.value));
    }
}

/* The registers and distance of the access that may share a look-up, or false. */
static bool access_of(const struct native *n, struct window_access *ret_access, unsigned *ret_size, bool *ret_write)
{
    *ret_access = (struct window_access){.base = H_RSP, .index = EMIT_NONE};
    *ret_size = 8;
    switch (n->kind) {
    case NATIVE_PUSH:
    case NATIVE_CALL:
    case NATIVE_CALL_INDIRECT:
        ret_access->disp = -8;
        *ret_write = true;
        return true;
    case NATIVE_POP:
    case NATIVE_RET:
        *ret_write = false;
        return true;
    case NATIVE_MEMORY: {
        const ZydisDecodedOperandMem *mem = &n->memory->mem;
        ret_access->base = (uint8_t)native_register(mem->base);
        ret_access->index = (uint8_t)native_register(mem->index);
        ret_access->scale = mem->scale ? (uint8_t)__builtin_ctz(mem->scale) : 0;
        ret_access->disp = (int32_t)mem->disp.value;
        *ret_size = n->size;
        *ret_write = n->write;
        return mem->base != ZYDIS_REGISTER_RIP && mem->base != ZYDIS_REGISTER_NONE &&
               mem->segment != ZYDIS_REGISTER_FS && mem->segment != ZYDIS_REGISTER_GS &&
               mem->disp.value > -DELTA_MAX && mem->disp.value < DELTA_MAX;
    }
    default:
        return false;
    }
}

/* The group that the access belongs to, a new one if need be, or GROUPS. */
static unsigned group_for(struct follower *f, unsigned insn, struct sum sum, int32_t low, int32_t high, bool write)
{
    for (unsigned i = 0; i < f->groups; i++) {
        struct group *group = &f->group[i];
        int32_t new_low = low < group->low ? low : group->low, new_high = high > group->high ? high : group->high;
        if (group->sum.base != sum.base || group->sum.index != sum.index || group->sum.scale != sum.scale ||
            new_high - new_low > RANGE_MAX)
            continue;
        group->low = new_low;
        group->high = new_high;
        group->write |= write;
        group->count++;
        return i;
    }
    if (f->groups == GROUPS)
        return GROUPS;
    f->group[f->groups] =
        (struct group){.sum = sum, .count = 1, .first = insn, .low = low, .high = high, .write = write};
    return f->groups++;
}

/* What the access is at a constant distance from. */
static struct sum sum_of(const struct follower *f, const struct window_access *access, int32_t *ret_at)
{
    struct sum sum = {.base = f->reg[access->base].unknown, .index = NOTHING};
    *ret_at = f->reg[access->base].delta + access->disp;
    if (access->index == EMIT_NONE)
        return sum;
    sum.index = f->reg[access->index].unknown;
    sum.scale = access->scale;
    *ret_at += f->reg[access->index].delta * (1 << access->scale);
    return sum;
}

void find_windows(struct compiler *c)
{
    struct follower follower __attribute__((uninitialized)), *f = &follower;
    f->unknowns = f->groups = 0;
    for (unsigned i = 0; i < 16; i++)
        make_unknown(f, i);
    for (unsigned i = 0; i < c->insns; i++) {
        struct window_access *access = &c->access[i];
        unsigned size;
        bool write;
        f->group_of[i] = GROUPS;
        c->window_of[i] = WINDOWS;
        if (access_of(&c->native[i], access, &size, &write)) {
            struct sum sum = sum_of(f, access, &access->at);
            f->group_of[i] = (uint8_t)group_for(f, i, sum, access->at, access->at + (int32_t)size, write);
        }
        follow_insn(f, &c->native[i]);
    }
    uint8_t number[GROUPS + 1];
    memset(number, WINDOWS, sizeof number);
    for (unsigned i = 0; i < f->groups && c->windows < WINDOWS; i++) {
        const struct group *group = &f->group[i];
        if (group->count < 2)
            continue;
        unsigned window = c->windows++;
        c->window[window] = (struct window){group->first, group->low, (unsigned)(group->high - group->low), group->write};
        number[i] = (uint8_t)window;
    }
    for (unsigned i = 0; i < c->insns; i++)
        c->window_of[i] = number[f->group_of[i]];
}

unsigned emit_window(struct compiler *c, unsigned insn, unsigned address)
{
    struct emit *e = &c->e;
    unsigned number = c->window_of[insn];
    const struct window *window = &c->window[number];
    const struct window_access *access = &c->access[insn];
    if (window->first == insn) {
        unsigned base = access->base, index = access->index;
        /* The registers have moved to where this access is `disp` away. */
        int32_t disp = access->disp + (window->low - access->at);
        if (index == H_R10 || index == H_R11) {
            emit_load(e, H_R11, GS_REG(index));
            index = H_R11;
        }
        if (base == H_R10 || base == H_R11) {
            emit_load(e, H_R10, GS_REG(base));
            base = H_R10;
        }
        emit_lea(e, H_R10, base, index, access->scale, disp);
        emit_look_up(c, insn, window->size, window->write)->window = true;
        emit_store(e, H_R10, GS(window) + 8 * number);
        if (address != H_R10)
            emit_mov(e, address, H_R10);
        c->in_r10 = number;
    } else if (address != H_R10 || c->in_r10 != number) {
        emit_load(e, address, GS(window) + 8 * number);
        if (address == H_R10)
            c->in_r10 = number;
    }
    return (unsigned)(access->at - window->low);
}
