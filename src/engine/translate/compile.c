/* compile.c - from a decoded block to host code.
 *
 * Each instruction becomes, by its kind (native.h), either itself, or itself behind a look-up of its memory
 * operand, or a jump, or an exit to the interpreter that comes back to the next one. What may fail (a TLB
 * miss, a page boundary, MMIO, code being stored to) always ends in the same way: the instruction is left
 * undone and interpreted.
 *
 * Flags. The look-up's own arithmetic may destroy the host flags where no later instruction of the block
 * reads the guest's before they are written; elsewhere it is done with PEXT, LEA and JRCXZ, which leave them.
 * So when an access faults, arithmetic flags that are dead at that point may be stale in what the guest's
 * handler sees of them. */
#include "engine/translate/native.h"
#include "engine/translate/vcpu.h"
#include "isa/x86/paging.h"

#define SLOW_MAX (BLOCK_INSNS * 2u)
#define TRACE_ROOM 16384u /* bytes of code that one trace may take */

/* Code that is out of the way: emitted after the block. */
struct slow {
    uint32_t field;      /* the jump that comes here */
    uint32_t resume;     /* where to go back to, for SITE_INTERPRET; 0: nowhere */
    uint64_t target;     /* SITE_NEXT */
    uint16_t insn;
    uint8_t kind;        /* enum site_kind */
    bool restore_rcx;
    bool resume_next;    /* resume at the next instruction */
    bool address_r10;    /* SITE_STORED: R10 is the host address */
    bool missed;         /* SITE_INTERPRET: for want of a TLB entry */
};

struct compiler {
    struct translate_vcpu *t;
    struct block *block;
    const struct native *native; /* of each instruction */
    struct trace *trace;
    struct emit e;
    unsigned context;
    uint64_t linear;
    bool flags_needed[BLOCK_INSNS + 1]; /* before instruction n some arithmetic flag is live */
    uint32_t start[BLOCK_INSNS + 1];    /* where instruction n's code starts */
    unsigned slows;
    struct slow slow[SLOW_MAX];
    unsigned vector_entry;
    bool full;
};

static void *arena_take(struct translate_vcpu *t, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if (size > t->arena_size - t->arena_used)
        return NULL;
    void *memory = t->arena + t->arena_used;
    t->arena_used += size;
    memset(memory, 0, size);
    return memory;
}

static struct slow *add_slow(struct compiler *c, uint32_t field, enum site_kind kind, unsigned insn)
{
    static struct slow spare;
    if (c->slows == SLOW_MAX) {
        c->full = true;
        return &spare;
    }
    struct slow *slow = &c->slow[c->slows++];
    *slow = (struct slow){.field = field, .kind = (uint8_t)kind, .insn = (uint16_t)insn};
    return slow;
}

/* ---- memory operands ---- */

/* R10 = linear address of the explicit memory operand. `next`: address of the next instruction. */
static void emit_address(struct compiler *c, const struct native *n, uint64_t next)
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
static void emit_look_up(struct compiler *c, unsigned insn, unsigned size, bool write)
{
    struct emit *e = &c->e;
    size_t bias = tlb_field(c, write ? offsetof(struct fast_entry, write_bias) : offsetof(struct fast_entry, read_bias));
    size_t host = tlb_field(c, offsetof(struct fast_entry, host));
    if (!c->flags_needed[insn]) {
        emit_rorx(e, H_R11, H_R10, 12 - FAST_SHIFT);
        emit_and_imm(e, H_R11, (FAST_ENTRIES - 1) << FAST_SHIFT);
        emit_add_gs_index(e, H_R10, H_R11, bias);
        emit_cmp_imm(e, H_R10, 4096 - size);
        struct slow *slow = add_slow(c, emit_jcc(e, CC_A), SITE_INTERPRET, insn);
        slow->resume_next = slow->missed = true;
        emit_add_gs_index(e, H_R10, H_R11, host);
        return;
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
}

/* After a store, with R11 the entry's offset: leaves when the page holds code. */
static void emit_stored(struct compiler *c, unsigned insn, bool address_r10)
{
    struct emit *e = &c->e;
    struct slow *slow;
    emit_gs_index(e, true, 0x8b, H_R11, H_R11, tlb_field(c, offsetof(struct fast_entry, flags)));
    if (!c->flags_needed[insn + 1]) {
        emit8(e, 0x41); /* test byte [r11], X86_PAGE_CODE */
        emit8(e, 0xf6);
        emit8(e, 0x03);
        emit8(e, X86_PAGE_CODE);
        slow = add_slow(c, emit_jcc(e, CC_NE), SITE_STORED, insn);
    } else {
        emit_store(e, H_RCX, GS(spill));
        emit8(e, 0x41); /* movzx ecx, byte [r11] */
        emit8(e, 0x0f);
        emit8(e, 0xb6);
        emit8(e, 0x0b);
        emit_pext(e, H_RCX, H_RCX, GS(one));
        uint32_t clean = emit_jrcxz(e);
        slow = add_slow(c, emit_jmp(e), SITE_STORED, insn);
        slow->restore_rcx = true;
        emit_patch8(e, clean);
        emit_load(e, H_RCX, GS(spill));
    }
    slow->address_r10 = address_r10;
    slow->resume = emit_offset(e); /* not the next instruction: a call still has to jump */
}

static void emit_memory(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    const struct x86_insn *guest = &c->block->insn[insn];
    emit_address(c, n, next);
    emit_look_up(c, insn, n->size, n->write);
    bool r10 = n->reads_r10, r11 = n->reads_r11;
    if (n->write && (r10 || r11)) { /* both scratch registers are needed again after the store */
        emit_store(e, H_R10, GS(scratch));
        emit_store(e, H_R11, GS(scratch_index));
    }
    unsigned address = H_R10;
    if (r10) {
        emit_mov(e, H_R11, H_R10);
        address = H_R11;
        emit_load(e, H_R10, GS_REG(X86_R10));
    } else if (r11) {
        emit_load(e, H_R11, GS_REG(X86_R11));
    }
    native_emit_memory(e, n, guest->bytes, address);
    if (n->writes_r10)
        emit_store(e, H_R10, GS_REG(X86_R10));
    if (n->writes_r11)
        emit_store(e, H_R11, GS_REG(X86_R11));
    if (!n->write)
        return;
    if (r10 || r11)
        emit_load(e, H_R11, GS(scratch_index));
    emit_stored(c, insn, !(r10 || r11));
}

/* FLDCW. A value that unmasks an exception is for the interpreter (x87.c). */
static void emit_fldcw(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    if (c->flags_needed[insn]) {
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

/* ---- registers only ---- */

static void emit_register(struct compiler *c, const struct native *n, unsigned insn)
{
    struct emit *e = &c->e;
    const struct x86_insn *guest = &c->block->insn[insn];
    if (n->reads_r10)
        emit_load(e, H_R10, GS_REG(X86_R10));
    if (n->reads_r11)
        emit_load(e, H_R11, GS_REG(X86_R11));
    emit_bytes(e, guest->bytes, guest->length);
    if (n->writes_r10)
        emit_store(e, H_R10, GS_REG(X86_R10));
    if (n->writes_r11)
        emit_store(e, H_R11, GS_REG(X86_R11));
}

static void emit_lea_insn(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    const struct x86_insn *guest = &c->block->insn[insn];
    const ZydisDecodedOperandMem *mem = &n->operand[1].mem;
    unsigned to = native_register(n->operand[0].reg.value);
    unsigned base = native_register(mem->base), index = native_register(mem->index);
    if (mem->base == ZYDIS_REGISTER_RIP) {
        uint64_t address = next + (uint64_t)mem->disp.value;
        emit_mov_imm(e, to, n->insn.operand_width == 64 ? address : (uint32_t)address);
    } else {
        bool partial = n->insn.operand_width == 16;
        if (base == H_R10 || index == H_R10 || (partial && to == H_R10))
            emit_load(e, H_R10, GS_REG(X86_R10));
        if (base == H_R11 || index == H_R11 || (partial && to == H_R11))
            emit_load(e, H_R11, GS_REG(X86_R11));
        emit_bytes(e, guest->bytes, guest->length);
    }
    if (to == H_R10 || to == H_R11)
        emit_store(e, to, GS_REG(to));
}

/* ---- the stack ---- */

/* mov [r10], reg or mov reg, [r10], 64 bits. */
static void emit_through_r10(struct emit *e, unsigned opcode, unsigned reg)
{
    emit_rex(e, true, reg, 0, H_R10);
    emit8(e, opcode);
    emit8(e, (reg & 7) << 3 | 2);
}

/* Pushes host register `reg`, or when it is R11, whatever `prepare` says: R11 is free only after the look-up. */
static void emit_push(struct compiler *c, unsigned insn, unsigned reg, const uint64_t *constant, size_t gs)
{
    struct emit *e = &c->e;
    emit_lea(e, H_R10, H_RSP, EMIT_NONE, 0, -8);
    emit_look_up(c, insn, 8, true);
    if (reg == H_R11) {
        emit_store(e, H_R11, GS(scratch_index));
        if (constant)
            emit_mov_imm(e, H_R11, *constant);
        else
            emit_load(e, H_R11, gs);
    }
    emit_through_r10(e, 0x89, reg);
    emit_lea(e, H_RSP, H_RSP, EMIT_NONE, 0, -8);
    if (reg == H_R11)
        emit_load(e, H_R11, GS(scratch_index));
    emit_stored(c, insn, true);
}

static void emit_push_insn(struct compiler *c, const struct native *n, unsigned insn)
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

static void emit_pop_insn(struct compiler *c, const struct native *n, unsigned insn)
{
    struct emit *e = &c->e;
    unsigned reg = native_register(n->operand[0].reg.value);
    emit_lea(e, H_R10, H_RSP, EMIT_NONE, 0, 0);
    emit_look_up(c, insn, 8, false);
    emit_through_r10(e, 0x8b, reg);
    if (reg == H_R10 || reg == H_R11)
        emit_store(e, reg, GS_REG(reg));
    if (reg != H_RSP)
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

/* Goes to a constant linear address: linked later within the page, through the jump cache beyond it, where
 * the mapping may have changed meanwhile. */
static void emit_goto(struct compiler *c, unsigned insn, uint64_t target)
{
    struct emit *e = &c->e;
    if ((target ^ c->linear) >> 12) {
        if (!x86_canonical(target))
            emit_note_branch(e, UINT32_MAX);
        emit_mov_imm(e, H_R10, target);
        emit_jmp_to(e, c->t->stubs.indirect[c->context]);
        return;
    }
    add_slow(c, emit_jmp(e), SITE_NEXT, insn)->target = target;
}

static void emit_jcc_insn(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    uint64_t target = next + (uint64_t)n->operand[0].imm.value.s;
    unsigned cc = n->insn.opcode & 15u;
    if ((target ^ c->linear) >> 12) {
        uint32_t skip = emit_jcc(e, cc ^ 1);
        emit_goto(c, insn, target);
        if (!e->full)
            emit_patch32(e->start, skip, emit_offset(e));
    } else {
        add_slow(c, emit_jcc(e, cc), SITE_NEXT, insn)->target = target;
    }
    emit_goto(c, insn, next);
}

/* Goes to R10. Should that not be canonical, run_trace must know which instruction raises #GP. */
static void emit_goto_r10(struct compiler *c)
{
    struct emit *e = &c->e;
    emit_note_branch(e, emit_offset(e));
    emit_jmp_to(e, c->t->stubs.indirect[c->context]);
}

static void emit_call_insn(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    if (n->kind == NATIVE_CALL) {
        emit_push(c, insn, H_R11, &next, 0);
        emit_goto(c, insn, next + (uint64_t)n->operand[0].imm.value.s);
        return;
    }
    const ZydisDecodedOperand *operand = &n->operand[0];
    if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        emit_address(c, n, next);
        emit_look_up(c, insn, 8, false);
        emit_through_r10(e, 0x8b, H_R10);
    } else {
        unsigned reg = native_register(operand->reg.value);
        if (reg == H_R10 || reg == H_R11)
            emit_load(e, H_R10, GS_REG(reg));
        else
            emit_mov(e, H_R10, reg);
    }
    if (n->kind == NATIVE_CALL_INDIRECT) {
        emit_store(e, H_R10, GS(target));
        emit_push(c, insn, H_R11, &next, 0);
        emit_load(e, H_R10, GS(target));
    }
    emit_goto_r10(c);
}

static void emit_ret_insn(struct compiler *c, unsigned insn)
{
    struct emit *e = &c->e;
    emit_lea(e, H_R10, H_RSP, EMIT_NONE, 0, 0);
    emit_look_up(c, insn, 8, false);
    emit_through_r10(e, 0x8b, H_R10);
    emit_lea(e, H_RSP, H_RSP, EMIT_NONE, 0, 8);
    emit_goto_r10(c);
}

/* ---- a trace's entry and its exits ---- */

/* Jumps away when the 32-bit (or, `byte`, 8-bit) value at gs:[offset] is not `zero`-like. */
static uint32_t emit_test_gs(struct compiler *c, size_t offset, bool byte, bool leave_if_zero, bool *ret_restore)
{
    struct emit *e = &c->e;
    *ret_restore = c->flags_needed[0];
    if (!c->flags_needed[0]) {
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

static void emit_entry(struct compiler *c)
{
    struct emit *e = &c->e;
    bool restore;
    c->trace->indirect_entry = emit_offset(e);
    /* The flags stay whole: when the target is another, they are that one's. */
    emit_mov(e, H_R11, H_RCX);
    emit_mov_imm(e, H_RCX, 0 - c->linear);
    emit_lea(e, H_RCX, H_RCX, H_R10, 0, 0);
    uint32_t hit = emit_jrcxz(e);
    emit_mov(e, H_RCX, H_R11);
    emit_jmp_to(e, c->t->stubs.indirect_miss);
    emit_patch8(e, hit);
    emit_mov(e, H_RCX, H_R11);
    c->trace->entry = emit_offset(e);
    if (c->trace->vector)
        emit_need(c, GS(vector_resident), SITE_VECTOR);
    if (c->trace->x87)
        emit_need(c, GS(x87_resident), SITE_X87);
    c->trace->entry_resident = emit_offset(e);
    struct slow *slow = add_slow(c, emit_test_gs(c, GS_ATTENTION, false, false, &restore), SITE_LOOK_UP, 0);
    slow->restore_rcx = restore;
}

static void emit_insn(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    switch (n->kind) {
    case NATIVE_REGISTER: emit_register(c, n, insn); break;
    case NATIVE_MEMORY: emit_memory(c, n, insn, next); break;
    case NATIVE_LEA: emit_lea_insn(c, n, insn, next); break;
    case NATIVE_PUSH: emit_push_insn(c, n, insn); break;
    case NATIVE_POP: emit_pop_insn(c, n, insn); break;
    case NATIVE_JCC: emit_jcc_insn(c, n, insn, next); break;
    case NATIVE_JMP: emit_goto(c, insn, next + (uint64_t)n->operand[0].imm.value.s); break;
    case NATIVE_CALL:
    case NATIVE_CALL_INDIRECT:
    case NATIVE_JMP_INDIRECT: emit_call_insn(c, n, insn, next); break;
    case NATIVE_RET: emit_ret_insn(c, insn); break;
    case NATIVE_FLDCW: emit_fldcw(c, n, insn, next); break;
    case NATIVE_NOP: break;
    default:
        add_slow(c, emit_jmp(e), SITE_INTERPRET, insn)->resume_next = true;
    }
}

static bool is_branch(enum native_kind kind)
{
    return kind >= NATIVE_JCC && kind <= NATIVE_RET;
}

/* False for a direct branch that may raise #GP, or fall through to where there is no code. */
static bool target_is_canonical(const struct native *n, uint64_t next)
{
    if (n->kind != NATIVE_JCC && n->kind != NATIVE_JMP && n->kind != NATIVE_CALL)
        return true;
    return x86_canonical(next) && x86_canonical(next + (uint64_t)n->operand[0].imm.value.s);
}

/* Exits, out of the way: R11 says which. Returns false when memory ran out. */
static bool emit_slows(struct compiler *c)
{
    struct emit *e = &c->e;
    for (unsigned i = 0; i < c->slows; i++) {
        const struct slow *slow = &c->slow[i];
        struct site *site = arena_take(c->t, sizeof *site);
        if (!site)
            return false;
        *site = (struct site){.trace = c->trace, .target = slow->target, .field = slow->field,
                              .stub = emit_offset(e), .insn = slow->insn, .kind = slow->kind,
                              .resume = slow->resume, .missed = slow->missed,
                              .mnemonic = (uint16_t)c->native[slow->insn].insn.mnemonic};
        if (slow->resume_next && slow->insn + 1u < c->block->count)
            site->resume = c->start[slow->insn + 1];
        if (!e->full)
            emit_patch32(e->start, slow->field, emit_offset(e));
        if (slow->restore_rcx)
            emit_load(e, H_RCX, GS(spill));
        if (slow->kind == SITE_STORED && slow->address_r10)
            emit_store(e, H_R10, GS(scratch));
        emit_mov_imm(e, H_R11, (uint64_t)(uintptr_t)site);
        if (slow->kind == SITE_VECTOR || slow->kind == SITE_X87)
            emit_jmp_gs(e, slow->kind == SITE_VECTOR ? GS(vector_go) : GS(x87_go));
        else
            emit_jmp_to(e, c->t->stubs.leave);
    }
    return true;
}

static void find_liveness(struct compiler *c, const struct native *native)
{
    uint32_t live = 0xffffffff;
    c->flags_needed[c->block->count] = true;
    for (unsigned i = c->block->count; i-- > 0;) {
        live = (live & ~native[i].flags_written) | native[i].flags_read;
        if (native[i].kind == NATIVE_NO)
            live = 0xffffffff;
        c->flags_needed[i] = (live & X86_FLAGS_ARITH) != 0;
    }
}

struct trace *compile(struct translate_vcpu *t, struct block *block, uint64_t linear)
{
    static _Thread_local struct native native[BLOCK_INSNS];
    struct compiler c;
    memset(&c, 0, offsetof(struct compiler, slow));
    c.full = false;
    c.t = t;
    c.block = block;
    c.native = native;
    c.linear = linear;
    c.context = (unsigned)(t->soft.core.tlb_now - t->soft.core.tlb[0]) / X86_TLB_ENTRIES;
    c.trace = arena_take(t, sizeof *c.trace + (block->count + 1u) * sizeof c.trace->start[0]);
    if (!c.trace || t->code.size - t->code.used < TRACE_ROOM || t->traces == TRACES_MAX)
        return NULL;
    c.e = (struct emit){.start = t->code.write, .at = t->code.write + t->code.used,
                        .end = t->code.write + t->code.used + TRACE_ROOM, .full = false};
    c.trace->native = true;
    uint64_t next = linear;
    for (unsigned i = 0; i < block->count; i++) {
        next += block->insn[i].length;
        native_classify(&t->soft.decoder.zydis[X86_CODE64], block->insn[i].bytes, block->insn[i].length, &native[i]);
        if (block->insn[i].exec == x86_exec_ud || block->insn[i].exec == x86_exec_gp ||
            !target_is_canonical(&native[i], next))
            native[i].kind = NATIVE_NO;
        c.trace->undefined = (c.trace->undefined & ~native[i].flags_written) | native[i].flags_undefined;
        c.trace->native &= native[i].kind != NATIVE_NO;
        c.trace->vector |= native[i].kind != NATIVE_NO && native[i].vector;
        c.trace->x87 |= native[i].kind != NATIVE_NO && native[i].x87;
    }
    find_liveness(&c, native);
    c.trace->block = block;
    c.trace->linear = linear;
    c.trace->count = block->count;
    c.trace->context = (uint8_t)c.context;
    emit_entry(&c);
    next = linear;
    for (unsigned i = 0; i < block->count; i++) {
        next += block->insn[i].length;
        c.start[i] = emit_offset(&c.e);
        emit_insn(&c, &native[i], i, next);
    }
    c.start[block->count] = emit_offset(&c.e);
    enum native_kind last = native[block->count - 1].kind;
    if (last != NATIVE_NO && !is_branch(last))
        emit_goto(&c, block->count - 1u, next);
    if (!emit_slows(&c) || c.e.full || c.full)
        return NULL;
    c.trace->end = emit_offset(&c.e);
    for (unsigned i = 0; i <= block->count; i++)
        c.trace->start[i] = (uint16_t)(c.start[i] - c.trace->indirect_entry);
    t->by_address[t->traces++] = c.trace;
    t->code.used = (c.trace->end + 15) & ~(size_t)15;
    c.trace->next = block->trace;
    block->trace = c.trace;
    t->stats.traces++;
    return c.trace;
}

/* ---- links ---- */

/* A block that lies in two pages is reached through the jump cache, which is emptied when a mapping changes:
 * that the jump comes from its first page says nothing about the second. The way there stays for good. */
static void link_through_cache(struct translate_vcpu *t, struct site *site)
{
    struct emit e = {.start = t->code.write, .at = t->code.write + t->code.used,
                     .end = t->code.write + t->code.size, .full = false};
    emit_mov_imm(&e, H_R10, site->target);
    emit_jmp_to(&e, t->stubs.indirect[site->trace->context]);
    if (e.full)
        return;
    emit_patch32(t->code.write, site->field, (uint32_t)t->code.used);
    t->code.used = (emit_offset(&e) + 15) & ~(size_t)15;
    site->linked = site->trace;
    t->stats.links++;
}

void link_site(struct translate_vcpu *t, struct site *site, struct trace *target)
{
    if (site->linked || site->target != target->linear || site->trace->context != target->context)
        return;
    if (target->block->key & BLOCK_CROSSES) {
        link_through_cache(t, site);
        return;
    }
    site->linked = target;
    site->next_link = target->incoming;
    target->incoming = site;
    bool resident = site->trace->vector >= target->vector && site->trace->x87 >= target->x87;
    emit_patch32(t->code.write, site->field, resident ? target->entry_resident : target->entry);
    t->stats.links++;
}

void unlink_incoming(struct translate_vcpu *t, struct trace *trace)
{
    for (struct site *site = trace->incoming, *next; site; site = next) {
        next = site->next_link;
        site->linked = NULL;
        emit_patch32(t->code.write, site->field, site->stub);
        t->stats.unlinks++;
    }
    trace->incoming = NULL;
}
