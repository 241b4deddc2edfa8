/* flow.c - the stack, jumps, and a trace's entry. */
#include "engine/translate/compile.h"
#include "engine/translate/system.h"
#include "isa/x86/paging.h"

/* mov [r10 + disp], reg (opcode 0x89), mov reg, [r10 + disp] (0x8b), or the start of one that stores a constant (0xc7);
 * 64 bits. */
static void emit_through_r10(struct emit *e, unsigned opcode, unsigned reg, unsigned disp)
{
    emit_rex(e, true, reg, 0, H_R10);
    emit8(e, opcode);
    emit8(e, 0x80 | (reg & 7) << 3 | 2);
    emit32(e, disp);
}

/* R10 + the result = host address of the instruction's own slot of the stack, `disp` from RSP. R11 is lost. */
static unsigned emit_stack(struct compiler *c, unsigned insn, int32_t disp, bool write)
{
    if (c->window_of[insn] < WINDOWS)
        return emit_window(c, insn, H_R10);
    c->in_r10 = WINDOWS;
    emit_lea(&c->e, H_R10, H_RSP, EMIT_NONE, 0, disp);
    emit_look_up(c, insn, 8, write);
    return 0;
}

/* Pushes host register `reg`; R11, which is free only after the look-up, stands for the constant, or for
 * what is at gs:[gs]. */
static void emit_push(struct compiler *c, unsigned insn, unsigned reg, const uint64_t *constant, size_t gs)
{
    struct emit *e = &c->e;
    unsigned disp = emit_stack(c, insn, -8, true);
    if (constant && (int64_t)*constant == (int32_t)*constant) {
        emit_through_r10(e, 0xc7, 0, disp); /* mov qword [r10 + disp], imm32 */
        emit32(e, (uint32_t)*constant);
    } else {
        if (constant)
            emit_mov_imm(e, H_R11, *constant);
        else if (reg == H_R11)
            emit_load(e, H_R11, gs);
        emit_through_r10(e, 0x89, reg, disp);
    }
    emit_lea(e, H_RSP, H_RSP, EMIT_NONE, 0, -8);
}

void emit_push_insn(struct compiler *c, const struct native *n, unsigned insn)
{
    const ZydisDecodedOperand *operand = &n->operand[0];
    if (operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        uint64_t constant = (uint64_t)operand->imm.value.s;
        emit_push(c, insn, H_R11, &constant, 0);
        return;
    }
    unsigned reg = native_register(operand->reg.value);
    if (reg == H_R10 || reg == H_R11)
        emit_push(c, insn, H_R11, NULL, GS_REG(reg));
    else
        emit_push(c, insn, reg, NULL, 0);
}

void emit_pop_insn(struct compiler *c, const struct native *n, unsigned insn)
{
    struct emit *e = &c->e;
    unsigned reg = native_register(n->operand[0].reg.value);
    unsigned disp = emit_stack(c, insn, 0, false);
    emit_through_r10(e, 0x8b, reg, disp);
    if (reg == H_R10 || reg == H_R11) {
        emit_store(e, reg, GS_REG(reg));
        c->in_r10 = WINDOWS;
    }
    if (reg != H_RSP)
        emit_lea(e, H_RSP, H_RSP, EMIT_NONE, 0, 8);
}

void emit_push_stored(struct compiler *c, unsigned insn)
{
    emit_push(c, insn, H_R11, NULL, GS(target));
}

void emit_pushf_insn(struct compiler *c, unsigned insn)
{
    system_emit_get_flags(&c->e);
    emit_push_stored(c, insn);
}

void emit_popf_insn(struct compiler *c, unsigned insn)
{
    struct emit *e = &c->e;
    emit_lea(e, H_R10, H_RSP, EMIT_NONE, 0, 0);
    emit_look_up(c, insn, 8, false);
    emit_through_r10(e, 0x8b, H_R10, 0);
    add_slow(c, system_emit_set_flags(e), SITE_INTERPRET, insn)->resume_next = true;
    emit_lea(e, H_RSP, H_RSP, EMIT_NONE, 0, 8);
}

/* ---- control flow ---- */

/* mov dword gs:[branch], at */
static void emit_note_branch(struct emit *e, uint32_t at)
{
    emit8(e, 0x65);
    emit8(e, 0xc7);
    emit8(e, 0x04);
    emit8(e, 0x25);
    emit32(e, (uint32_t)GS(branch));
    emit32(e, at);
}

/* Goes to R10. Should that not be canonical, run_trace must know which instruction raises #GP. */
static void emit_goto_r10(struct compiler *c)
{
    struct emit *e = &c->e;
    if (!c->saved)
        emit_save_flags(e);
    emit_note_branch(e, emit_offset(e));
    emit_indirect(e, c->context);
}

/* Goes to a constant address in another page, where the mapping may have changed meanwhile. */
static void emit_goto_far(struct compiler *c, uint64_t target)
{
    struct emit *e = &c->e;
    if (!c->saved)
        emit_save_flags(e);
    if (!x86_canonical(target))
        emit_note_branch(e, UINT32_MAX);
    emit_direct(e, c->context, target);
}

/* Goes to a constant linear address: linked later within the page, through the jump cache beyond it, where
 * the mapping may have changed meanwhile. */
void emit_goto(struct compiler *c, unsigned insn, uint64_t target)
{
    struct emit *e = &c->e;
    if (c->follow[insn] != FOLLOW_NOT)
        return; /* its code comes next */
    if ((target ^ c->linear) >> 12) {
        emit_goto_far(c, target);
        return;
    }
    struct slow *slow = add_slow(c, emit_jmp(e), SITE_NEXT, insn);
    slow->target = target;
}

void emit_jcc_insn(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    uint64_t target = next + (uint64_t)n->operand[0].imm.value.s;
    unsigned cc = n->insn.opcode & 15u;
    if (c->follow[insn] == FOLLOW_TARGET) {
        cc ^= 1;
        target = next;
    }
    if ((target ^ c->linear) >> 12) {
        uint32_t skip = emit_jcc(e, cc ^ 1);
        emit_goto_far(c, target);
        if (!e->full)
            emit_patch32(e->start, skip, emit_offset(e));
    } else {
        struct slow *slow = add_slow(c, emit_jcc(e, cc), SITE_NEXT, insn);
        slow->target = target;
    }
    emit_goto(c, insn, next);
}

void emit_call_insn(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    if (n->kind == NATIVE_CALL) {
        emit_push(c, insn, H_R11, &next, 0);
        emit_goto(c, insn, next + (uint64_t)n->operand[0].imm.value.s);
        return;
    }
    const ZydisDecodedOperand *operand = &n->operand[0];
    bool memory = operand->type == ZYDIS_OPERAND_TYPE_MEMORY, call = n->kind == NATIVE_CALL_INDIRECT;
    unsigned reg = memory ? EMIT_NONE : native_register(operand->reg.value);
    bool early = call && (memory || reg == H_RSP); /* the target is read before the push */
    if (call && !early)
        emit_push(c, insn, H_R11, &next, 0);
    c->in_r10 = WINDOWS;
    if (memory) {
        emit_address(c, n, next);
        emit_look_up(c, insn, 8, false);
        emit_through_r10(e, 0x8b, H_R10, 0);
    } else if (reg == H_R10 || reg == H_R11) {
        emit_load(e, H_R10, GS_REG(reg));
    } else {
        emit_mov(e, H_R10, reg);
    }
    if (early) {
        emit_store(e, H_R10, GS(target));
        emit_push(c, insn, H_R11, &next, 0);
        emit_load(e, H_R10, GS(target));
    }
    emit_goto_r10(c);
}

void emit_ret_insn(struct compiler *c, unsigned insn)
{
    struct emit *e = &c->e;
    unsigned disp = emit_stack(c, insn, 0, false);
    emit_through_r10(e, 0x8b, H_R10, disp);
    emit_lea(e, H_RSP, H_RSP, EMIT_NONE, 0, 8);
    emit_goto_r10(c);
}

/* ---- a trace's entry ---- */

/* Jumps away when the 32-bit (or, `byte`, 8-bit) value at gs:[offset] is not `zero`-like. */
static uint32_t emit_test_gs(struct compiler *c, size_t offset, bool byte, bool leave_if_zero, bool *ret_restore)
{
    struct emit *e = &c->e;
    *ret_restore = c->live_in;
    if (!c->live_in) {
        emit8(e, 0x65); /* cmp byte/dword gs:[offset], 0 */
        emit8(e, byte ? 0x80 : 0x83);
        emit8(e, 0x3c);
        emit8(e, 0x25);
        emit32(e, (uint32_t)offset);
        emit8(e, 0);
        return emit_jcc(e, leave_if_zero ? CC_E : CC_NE);
    }
    emit_store(e, H_RCX, GS(spill));
    if (byte) {
        emit8(e, 0x65); /* movzx ecx, byte gs:[offset] */
        emit8(e, 0x0f);
        emit8(e, 0xb6);
        emit8(e, 0x0c);
        emit8(e, 0x25);
        emit32(e, (uint32_t)offset);
    } else {
        emit_gs(e, false, 0x8b, H_RCX, offset);
    }
    uint32_t zero = emit_jrcxz(e), leave;
    if (leave_if_zero) {
        emit8(e, 0xeb); /* jmp over the jump that leaves */
        emit8(e, 5);
        emit_patch8(e, zero);
        leave = emit_jmp(e);
    } else {
        leave = emit_jmp(e);
        emit_patch8(e, zero);
    }
    emit_load(e, H_RCX, GS(spill));
    return leave;
}

/* Has registers loaded unless the flag at gs:[offset] says that they are. */
static void emit_need(struct compiler *c, size_t offset, enum site_kind kind)
{
    bool restore;
    struct slow *slow = add_slow(c, emit_test_gs(c, offset, true, true, &restore), kind, 0);
    slow->restore_rcx = restore;
    slow->resume = emit_offset(&c->e);
}

void emit_entry(struct compiler *c)
{
    struct emit *e = &c->e;
    bool restore;
    c->trace->indirect_entry = emit_offset(e);
    if ((int64_t)c->linear == (int32_t)c->linear) {
        emit_cmp_imm(e, H_R10, (uint32_t)c->linear);
    } else {
        emit_mov_imm(e, H_R11, c->linear);
        emit_rex(e, true, H_R11, 0, H_R10); /* cmp r10, r11 */
        emit8(e, 0x39);
        emit8(e, 0xc0 | (H_R11 & 7) << 3 | (H_R10 & 7));
    }
    uint32_t miss = emit_jcc(e, CC_NE);
    if (!e->full)
        emit_patch32(e->start, miss, c->t->thunks.indirect_miss[c->context]);
    c->trace->saved_entry = emit_offset(e);
    if (c->live_in)
        emit_restore_flags(e);
    c->trace->entry = emit_offset(e);
    if (c->trace->vector)
        emit_need(c, GS(vector_resident), SITE_VECTOR);
    if (c->trace->x87)
        emit_need(c, GS(x87_resident), SITE_X87);
    c->trace->entry_resident = emit_offset(e);
    struct slow *slow = add_slow(c, emit_test_gs(c, GS_ATTENTION, false, false, &restore), SITE_LOOK_UP, 0);
    slow->restore_rcx = restore;
    c->trace->forward_resident = emit_offset(e);
}
