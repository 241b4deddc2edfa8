/* special.c - instructions whose memory operands need more than one look-up or one address: bit strings, repeated
 * moves and stores, LEAVE, PUSH of memory. All lose R10 and R11. */
#include "engine/translate/special.h"
#include "engine/translate/compile.h"

#define CODE(e, bytes) emit_bytes(e, bytes, sizeof(bytes) - 1)

static bool is_gpr(const ZydisDecodedOperand *operand)
{
    if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass class = ZydisRegisterGetClass(operand->reg.value);
    return class == ZYDIS_REGCLASS_GPR32 || class == ZYDIS_REGCLASS_GPR64;
}

static enum native_kind string_kind(const struct native *n)
{
    const ZydisInstructionAttributes segments = ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS;
    bool rep = (n->insn.attributes & ZYDIS_ATTRIB_HAS_REP) != 0;
    return rep && !(n->insn.attributes & segments) ? NATIVE_STRING : NATIVE_NO;
}

enum native_kind special_kind(struct native *n)
{
    switch (n->insn.mnemonic) {
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSQ:
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSQ: return string_kind(n);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (n->operand[0].type != ZYDIS_OPERAND_TYPE_MEMORY || !is_gpr(&n->operand[1]))
            return NATIVE_NO;
        n->memory = &n->operand[0];
        n->size = n->insn.operand_width / 8;
        n->write = n->insn.mnemonic != ZYDIS_MNEMONIC_BT;
        return NATIVE_BITS;
    case ZYDIS_MNEMONIC_LEAVE: return n->insn.operand_width == 64 ? NATIVE_LEAVE : NATIVE_NO;
    case ZYDIS_MNEMONIC_PUSH:
        if (n->operand[0].type != ZYDIS_OPERAND_TYPE_MEMORY || n->insn.operand_width != 64)
            return NATIVE_NO;
        n->memory = &n->operand[0];
        return NATIVE_PUSH_MEMORY;
    default: return NATIVE_NO;
    }
}

/* ---- bit strings ---- */

/* R11 = the bit index, sign-extended. */
static void load_index(struct emit *e, const struct native *n, unsigned reg)
{
    bool wide = n->size == 8;
    if (reg == H_R10 || reg == H_R11) {
        emit_gs(e, true, wide ? 0x8b : 0x63, H_R11, GS_REG(reg));
        return;
    }
    emit_rex(e, true, H_R11, 0, reg); /* mov or movsxd r11, reg */
    emit8(e, wide ? 0x8b : 0x63);
    emit8(e, 0xc0 | (H_R11 & 7) << 3 | (reg & 7));
}

/* The word that holds the bit is found without touching the flags, some of which the instruction keeps. An index below
 * zero, taken here for one of 2^58 and more, gives an address that is not canonical, where the look-up fails. */
static void emit_bits(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    bool wide = n->size == 8;
    unsigned reg = native_register(n->operand[1].reg.value);
    emit_address(c, n, next);
    load_index(e, n, reg);
    emit_pext(e, H_R11, H_R11, wide ? GS(above_63) : GS(above_31));
    emit_lea(e, H_R10, H_R10, H_R11, wide ? 3 : 2, 0);
    emit_look_up(c, insn, n->size, n->write);
    load_index(e, n, reg);
    emit_pext(e, H_R11, H_R11, wide ? GS(below_64) : GS(below_32));
    if (n->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        emit8(e, 0xf0);
    emit_rex(e, wide, H_R11, 0, H_R10); /* bt.. [r10], r11 */
    emit8(e, 0x0f);
    emit8(e, n->insn.opcode);
    emit8(e, (H_R11 & 7) << 3 | (H_R10 & 7));
}

/* ---- REP MOVS and REP STOS, a page at a time ---- */

#define FAILS_MAX 8u
struct fails { /* jumps to where the instruction is given up, nothing having changed but the flags */
    unsigned count;
    uint32_t field[FAILS_MAX];
};

static void fail(struct emit *e, struct fails *fails, unsigned cc)
{
    fails->field[fails->count++] = emit_jcc(e, cc);
}

/* R32 `to` = how many elements from linear address `reg` on end in its page; fails when not one does. */
static void find_room(struct emit *e, struct fails *fails, unsigned to, unsigned reg, bool wide)
{
    emit_rex(e, false, reg, 0, to); /* mov to, reg */
    emit8(e, 0x89);
    emit8(e, 0xc0 | (reg & 7) << 3 | (to & 7));
    emit_rex(e, false, 0, 0, to); /* or to, -4096 */
    emit8(e, 0x81);
    emit8(e, 0xc8 | (to & 7));
    emit32(e, (uint32_t)-4096);
    emit_rex(e, false, 0, 0, to); /* neg to */
    emit8(e, 0xf7);
    emit8(e, 0xd8 | (to & 7));
    if (!wide)
        return;
    emit_rex(e, false, 0, 0, to); /* shr to, 3 */
    emit8(e, 0xc1);
    emit8(e, 0xe8 | (to & 7));
    emit8(e, 3);
    fail(e, fails, CC_E);
}

/* GS(chunk) = how many elements can be done at once, GS(rest) = how many are left then. */
static void find_chunk(struct emit *e, struct fails *fails, bool moves, bool wide)
{
    find_room(e, fails, H_R11, H_RDI, wide);
    if (moves) {
        find_room(e, fails, H_R10, H_RSI, wide);
        CODE(e, "\x45\x39\xda\x45\x0f\x42\xda"); /* cmp r10d, r11d; cmovb r11d, r10d */
    }
    CODE(e, "\x4c\x39\xd9\x4c\x0f\x42\xd9"); /* cmp rcx, r11; cmovb r11, rcx */
    emit_mov(e, H_R10, H_RCX);
    CODE(e, "\x4d\x29\xda"); /* sub r10, r11 */
    emit_store(e, H_R11, GS(chunk));
    emit_store(e, H_R10, GS(rest));
}

/* R10 = the host address of linear address `reg`. */
static void find(struct compiler *c, struct fails *fails, unsigned reg, bool write)
{
    struct emit *e = &c->e;
    size_t table = GS(tlb) + c->context * sizeof(struct fast_entry) * FAST_ENTRIES;
    size_t bias = write ? offsetof(struct fast_entry, write_bias) : offsetof(struct fast_entry, read_bias);
    emit_rorx(e, H_R11, reg, 12 - FAST_SHIFT);
    emit_and_imm(e, H_R11, (FAST_ENTRIES - 1) << FAST_SHIFT);
    emit_mov(e, H_R10, reg);
    emit_add_gs_index(e, H_R10, H_R11, table + bias);
    emit_cmp_imm(e, H_R10, 4095);
    fail(e, fails, CC_A);
    emit_add_gs_index(e, H_R10, H_R11, table + offsetof(struct fast_entry, host));
}

/* Runs the instruction for one chunk with host addresses in RDI and RSI, and brings those back by as much as they were
 * moved. */
static void emit_string_body(struct emit *e, const struct x86_insn *guest, bool moves)
{
    if (moves) {
        CODE(e, "\x49\x89\xfb\x4d\x29\xd3"); /* mov r11, rdi; sub r11, r10 */
        emit_store(e, H_R11, GS(target));
        CODE(e, "\x4c\x89\xd7");             /* mov rdi, r10 */
        CODE(e, "\x49\x89\xf2");             /* mov r10, rsi */
        emit_load(e, H_RSI, GS(scratch));
        CODE(e, "\x49\x29\xf2");             /* sub r10, rsi */
    } else {
        CODE(e, "\x49\x87\xfa\x49\x29\xfa"); /* xchg rdi, r10; sub r10, rdi */
    }
    emit_load(e, H_RCX, GS(chunk));
    emit_bytes(e, guest->bytes, guest->length);
    emit_load(e, H_RCX, GS(rest));
    if (moves) {
        CODE(e, "\x4c\x01\xd6");             /* add rsi, r10 */
        emit_gs(e, true, 0x03, H_RDI, GS(target));
    } else {
        CODE(e, "\x4c\x01\xd7");             /* add rdi, r10 */
    }
}

/* What is left after a chunk is done in another, as long as nothing wants attention: else the interpreter takes over from
 * there, and so it does where the look-ups fail. */
static void emit_string(struct compiler *c, const struct native *n, unsigned insn)
{
    struct emit *e = &c->e;
    struct fails fails = {.count = 0};
    bool wide = n->insn.mnemonic == ZYDIS_MNEMONIC_MOVSQ || n->insn.mnemonic == ZYDIS_MNEMONIC_STOSQ;
    bool moves = n->insn.mnemonic == ZYDIS_MNEMONIC_MOVSQ || n->insn.mnemonic == ZYDIS_MNEMONIC_MOVSB;
    emit_save_flags(e);
    uint32_t again = emit_offset(e);
    CODE(e, "\x65\xf6\x04\x25"); /* test byte gs:[rflags + 1], DF */
    emit32(e, (uint32_t)GS_CPU(rflags) + 1);
    emit8(e, X86_FLAG_DF >> 8);
    fail(e, &fails, CC_NE);
    find_chunk(e, &fails, moves, wide);
    if (moves) {
        find(c, &fails, H_RSI, false);
        emit_store(e, H_R10, GS(scratch));
    }
    find(c, &fails, H_RDI, true);
    emit_string_body(e, c->guest[insn], moves);
    CODE(e, "\x48\x85\xc9"); /* test rcx, rcx */
    uint32_t more = emit_jcc(e, CC_NE);
    emit_restore_flags(e);
    uint32_t done = emit_jmp(e);
    if (!e->full)
        emit_patch32(e->start, more, emit_offset(e));
    CODE(e, "\x65\x83\x3c\x25"); /* cmp dword gs:[attention], 0 */
    emit32(e, (uint32_t)GS_ATTENTION);
    emit8(e, 0);
    more = emit_jcc(e, CC_E);
    if (!e->full)
        emit_patch32(e->start, more, again);
    for (unsigned i = 0; i < fails.count && !e->full; i++)
        emit_patch32(e->start, fails.field[i], emit_offset(e));
    emit_restore_flags(e);
    struct slow *slow = add_slow(c, emit_jmp(e), SITE_INTERPRET, insn);
    slow->resume_next = slow->missed = true;
    if (!e->full)
        emit_patch32(e->start, done, emit_offset(e));
}

/* ---- the stack ---- */

static void emit_leave(struct compiler *c, unsigned insn)
{
    struct emit *e = &c->e;
    emit_mov(e, H_R10, H_RBP);
    emit_look_up(c, insn, 8, false);
    emit_lea(e, H_RSP, H_RBP, EMIT_NONE, 0, 8);
    CODE(e, "\x49\x8b\x2a"); /* mov rbp, [r10] */
}

static void emit_push_memory(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    emit_address(c, n, next);
    emit_look_up(c, insn, 8, false);
    CODE(e, "\x4d\x8b\x12"); /* mov r10, [r10] */
    emit_store(e, H_R10, GS(target));
    emit_push_stored(c, insn);
}

void emit_special(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    switch (n->kind) {
    case NATIVE_BITS: emit_bits(c, n, insn, next); break;
    case NATIVE_STRING: emit_string(c, n, insn); break;
    case NATIVE_LEAVE: emit_leave(c, insn); break;
    default: emit_push_memory(c, n, insn, next);
    }
}
