/* lookup.c - memory operands: the look-up in the fast TLB before each access.
 *
 * What may fail (a TLB miss, a page boundary, MMIO, a store to code) always ends in the same way: the
 * instruction is left undone and interpreted.
 *
 * The look-up's own arithmetic may destroy the host's flags where the guest's are dead; elsewhere it is done
 * with PEXT, LEA and JRCXZ, which leave them. */
#include "engine/translate/compile.h"

/* R10 = linear address of the explicit memory operand. `next`: address of the next instruction. */
void emit_address(struct compiler *c, const struct native *n, uint64_t next)
{
    struct emit *e = &c->e;
    const ZydisDecodedOperandMem *mem = &n->memory->mem;
    int32_t disp = (int32_t)mem->disp.value;
    if (mem->base == ZYDIS_REGISTER_RIP) {
        emit_mov_imm(e, H_R10, next + (uint64_t)(int64_t)disp);
    } else {
        unsigned base = native_register(mem->base), index = native_register(mem->index);
        unsigned scale = mem->scale ? (unsigned)__builtin_ctz(mem->scale) : 0;
        if (index == H_R10 || index == H_R11) {
            emit_load(e, H_R11, GS_REG(index));
            index = H_R11;
        }
        if (base == H_R10 || base == H_R11) {
            emit_load(e, H_R10, GS_REG(base));
            base = H_R10;
        }
        if (base == EMIT_NONE && index == EMIT_NONE)
            emit_mov_imm(e, H_R10, (uint64_t)(int64_t)disp);
        else
            emit_lea(e, H_R10, base, index, scale, disp);
    }
    if (mem->segment == ZYDIS_REGISTER_FS || mem->segment == ZYDIS_REGISTER_GS) {
        unsigned segment = mem->segment == ZYDIS_REGISTER_FS ? X86_FS : X86_GS;
        emit_load(e, H_R11, GS_CPU(seg) + segment * sizeof(struct x86_segment) + offsetof(struct x86_segment, base));
        emit_lea(e, H_R10, H_R10, H_R11, 0, 0);
    }
}

static size_t tlb_field(const struct compiler *c, size_t field)
{
    return GS(tlb) + c->context * sizeof(struct fast_entry) * FAST_ENTRIES + field;
}

/* R10 = linear address: becomes the host address of `size` bytes there, and R11 the entry's offset; or the
 * instruction is interpreted. */
struct slow *emit_look_up(struct compiler *c, unsigned insn, unsigned size, bool write)
{
    struct emit *e = &c->e;
    size_t bias = tlb_field(c, write ? offsetof(struct fast_entry, write_bias) : offsetof(struct fast_entry, read_bias));
    size_t host = tlb_field(c, offsetof(struct fast_entry, host));
    if (!flags_busy(c, insn)) {
        emit_rorx(e, H_R11, H_R10, 12 - FAST_SHIFT);
        emit_and_imm(e, H_R11, (FAST_ENTRIES - 1) << FAST_SHIFT);
        emit_add_gs_index(e, H_R10, H_R11, bias);
        emit_cmp_imm(e, H_R10, 4096 - size);
        struct slow *slow = add_slow(c, emit_jcc(e, CC_A), SITE_INTERPRET, insn);
        slow->resume_next = slow->missed = true;
        emit_add_gs_index(e, H_R10, H_R11, host);
        return slow;
    }
    emit_pext(e, H_R11, H_R10, GS(index_mask));
    emit_rorx(e, H_R11, H_R11, 64 - FAST_SHIFT);
    emit_store(e, H_RCX, GS(spill));
    emit_gs_index(e, true, 0x8b, H_RCX, H_R11, bias);
    emit_lea(e, H_R10, H_R10, H_RCX, 0, 0);
    emit_lea(e, H_RCX, H_R10, EMIT_NONE, 0, (int32_t)size - 1);
    emit_pext(e, H_RCX, H_RCX, GS(page_mask));
    uint32_t hit = emit_jrcxz(e);
    struct slow *slow = add_slow(c, emit_jmp(e), SITE_INTERPRET, insn);
    slow->resume_next = slow->missed = true;
    slow->restore_rcx = true;
    emit_patch8(e, hit);
    emit_gs_index(e, true, 0x8b, H_RCX, H_R11, host);
    emit_lea(e, H_R10, H_R10, H_RCX, 0, 0);
    emit_load(e, H_RCX, GS(spill));
    return slow;
}

/* The operand is just a register in its place and a constant, and the scratch registers are free: the look-up
 * yields the distance from linear to host addresses, and the check is beside the way to the data. */
static bool emit_memory_plain(struct compiler *c, const struct native *n, unsigned insn)
{
    struct emit *e = &c->e;
    const ZydisDecodedOperandMem *mem = &n->memory->mem;
    unsigned base = native_register(mem->base);
    int32_t disp = (int32_t)mem->disp.value;
    if (flags_busy(c, insn) || n->reads_r10 || n->reads_r11 || mem->base == ZYDIS_REGISTER_RIP || base == EMIT_NONE ||
        base == H_R10 || base == H_R11 || mem->index != ZYDIS_REGISTER_NONE || mem->segment == ZYDIS_REGISTER_FS ||
        mem->segment == ZYDIS_REGISTER_GS)
        return false;
    unsigned from = base;
    if (disp != 0) {
        emit_lea(e, H_R10, base, EMIT_NONE, 0, disp);
        from = H_R10;
    }
    emit_rorx(e, H_R11, from, 12 - FAST_SHIFT);
    emit_and_imm(e, H_R11, (FAST_ENTRIES - 1) << FAST_SHIFT);
    emit_gs_index(e, true, 0x8b, H_R10, H_R11,
                  tlb_field(c, n->write ? offsetof(struct fast_entry, write_bias) : offsetof(struct fast_entry, read_bias)));
    emit_lea(e, H_R10, base, H_R10, 0, disp);
    emit_cmp_imm(e, H_R10, 4096 - n->size);
    struct slow *slow = add_slow(c, emit_jcc(e, CC_A), SITE_INTERPRET, insn);
    slow->resume_next = slow->missed = true;
    emit_gs_index(e, true, 0x8b, H_R11, H_R11, tlb_field(c, offsetof(struct fast_entry, addend)));
    native_emit_memory(e, n, c->guest[insn]->bytes, base, H_R11, disp);
    return true;
}

/* The operand is at a constant address: its entry's place is known, and so is what its bias must be. */
static bool emit_memory_constant(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    const ZydisDecodedOperandMem *mem = &n->memory->mem;
    uint64_t linear = next + (uint64_t)mem->disp.value;
    unsigned offset = (unsigned)(linear & 4095);
    if (flags_busy(c, insn) || n->reads_r10 || n->reads_r11 || mem->base != ZYDIS_REGISTER_RIP ||
        mem->segment == ZYDIS_REGISTER_FS || mem->segment == ZYDIS_REGISTER_GS || offset + n->size > 4096)
        return false;
    size_t entry = tlb_field(c, (linear >> 12) % FAST_ENTRIES * sizeof(struct fast_entry));
    size_t bias = n->write ? offsetof(struct fast_entry, write_bias) : offsetof(struct fast_entry, read_bias);
    emit_mov_imm(e, H_R11, 0 - (linear - offset));
    emit_gs(e, true, 0x3b, H_R11, entry + bias); /* cmp r11, gs:[...] */
    struct slow *slow = add_slow(c, emit_jcc(e, CC_NE), SITE_INTERPRET, insn);
    slow->resume_next = slow->missed = true;
    emit_load(e, H_R10, entry + offsetof(struct fast_entry, host));
    native_emit_memory(e, n, c->guest[insn]->bytes, H_R10, EMIT_NONE, (int32_t)offset);
    return true;
}

void emit_memory(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    unsigned address = n->reads_r10 ? H_R11 : H_R10, disp = 0;
    if (c->window_of[insn] < WINDOWS) {
        disp = emit_window(c, insn, address);
    } else {
        c->in_r10 = WINDOWS;
        if (emit_memory_plain(c, n, insn) || emit_memory_constant(c, n, insn, next))
            return;
        emit_address(c, n, next);
        emit_look_up(c, insn, n->size, n->write);
        if (n->reads_r10)
            emit_mov(e, H_R11, H_R10);
    }
    if (n->reads_r10) {
        emit_load(e, H_R10, GS_REG(X86_R10));
        c->in_r10 = WINDOWS;
    } else if (n->reads_r11) {
        emit_load(e, H_R11, GS_REG(X86_R11));
    }
    native_emit_memory(e, n, c->guest[insn]->bytes, address, EMIT_NONE, (int32_t)disp);
    if (n->writes_r10)
        emit_store(e, H_R10, GS_REG(X86_R10));
    if (n->writes_r11)
        emit_store(e, H_R11, GS_REG(X86_R11));
}

/* FLDCW. A value that unmasks an exception is for the interpreter (x87.c). */
void emit_fldcw(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    if (flags_busy(c, insn)) {
        add_slow(c, emit_jmp(e), SITE_INTERPRET, insn)->resume_next = true;
        return;
    }
    static const uint8_t load[] = {0x45, 0x0f, 0xb7, 0x1a};            /* movzx r11d, word [r10] */
    static const uint8_t test[] = {0x41, 0xf7, 0xd3,                   /* not r11d */
                                   0x41, 0xf6, 0xc3, 0x3f};            /* test r11b, 0x3f */
    static const uint8_t fldcw_gs[] = {0x65, 0xd9, 0x2c, 0x25};
    emit_address(c, n, next);
    emit_look_up(c, insn, 2, false);
    emit_bytes(e, load, sizeof load);
    emit_store(e, H_R11, GS(scratch)); /* read once: another processor may write to it */
    emit_bytes(e, test, sizeof test);
    add_slow(c, emit_jcc(e, CC_NE), SITE_INTERPRET, insn)->resume_next = true;
    emit_bytes(e, fldcw_gs, sizeof fldcw_gs);
    emit32(e, GS(scratch));
}
