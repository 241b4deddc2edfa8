/* thunks.c - the fixed code around traces: in, out, and indirect jumps. */
#include "engine/translate/emit.h"
#include "engine/translate/vcpu.h"
#include "engine/translate/x87.h"

/* Guest registers kept in host registers; RSP last in, first out, since it ends the host's stack. */
static const uint8_t resident[] = {H_RCX, H_RDX, H_RBX, H_RBP, H_RSI, H_RDI, H_R8,
                                   H_R9,  H_R12, H_R13, H_R14, H_R15};
static const uint8_t callee_saved[] = {H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15};

static void push_pop(struct emit *e, unsigned opcode, unsigned reg)
{
    if (reg >= 8)
        emit8(e, 0x41);
    emit8(e, opcode | (reg & 7));
}

/* VMOVDQU between ymm and gs:[offset]; opcode 0x6f loads, 0x7f stores. */
static void vector_move(struct emit *e, unsigned opcode, unsigned ymm, size_t offset)
{
    emit8(e, 0x65);
    emit8(e, 0xc5);
    emit8(e, (ymm < 8 ? 0x80u : 0) | 0x7e); /* vvvv = 1111, L = 1, pp = F3 */
    emit8(e, opcode);
    emit8(e, (ymm & 7) << 3 | 4);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offset);
}

/* LDMXCSR (group 2) or STMXCSR (3) gs:[offset]. */
static void mxcsr(struct emit *e, unsigned group, size_t offset)
{
    emit8(e, 0x65);
    emit8(e, 0x0f);
    emit8(e, 0xae);
    emit8(e, group << 3 | 4);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offset);
}

static void set_resident(struct emit *e, unsigned value)
{
    emit8(e, 0x65);
    emit8(e, 0xc6);
    emit8(e, 0x04);
    emit8(e, 0x25);
    emit32(e, (uint32_t)GS(vector_resident));
    emit8(e, value);
}

/* R10 = 0 when the upper halves of all vector registers are zero. */
static void upper_halves(struct emit *e)
{
    static const uint8_t fold[] = {0xc5, 0xf9, 0x6d, 0xc8,        /* vpunpckhqdq xmm1, xmm0, xmm0 */
                                   0xc5, 0xf9, 0xeb, 0xc1,        /* vpor xmm0, xmm0, xmm1 */
                                   0xc4, 0xc1, 0xf9, 0x7e, 0xc2}; /* vmovq r10, xmm0 */
    for (unsigned i = 0; i < 16; i++) {
        emit8(e, 0x65); /* vmovdqu xmm0, gs:[...]; then vpor xmm0, xmm0, gs:[...] */
        emit8(e, 0xc5);
        emit8(e, i ? 0xf9 : 0xfa);
        emit8(e, i ? 0xeb : 0x6f);
        emit8(e, 0x04);
        emit8(e, 0x25);
        emit32(e, (uint32_t)(GS_CPU(ymm) + 32 * i + 16));
    }
    emit_bytes(e, fold, sizeof fold);
}

/* MOVUPS xmm, gs:[offset], which leaves the upper half. */
static void load_lower(struct emit *e, unsigned xmm, size_t offset)
{
    emit8(e, 0x65);
    if (xmm >= 8)
        emit8(e, 0x44);
    emit8(e, 0x0f);
    emit8(e, 0x10);
    emit8(e, (xmm & 7) << 3 | 4);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offset);
}

/* Changes R10. While the upper halves are in use, even if they are zero, SSE instructions depend on what they
 * write to, which makes numeric code up to five times slower. Only VZEROUPPER ends it. */
static void load_vectors(struct emit *e)
{
    upper_halves(e);
    emit_store(e, H_RCX, GS(spill));
    emit_mov(e, H_RCX, H_R10);
    uint32_t zero = emit_jrcxz(e);
    uint32_t used = emit_jmp(e);
    emit_patch8(e, zero);
    emit8(e, 0xc5); /* vzeroupper */
    emit8(e, 0xf8);
    emit8(e, 0x77);
    for (unsigned i = 0; i < 16; i++)
        load_lower(e, i, GS_CPU(ymm) + 32 * i);
    uint32_t done = emit_jmp(e);
    emit_patch32(e->start, used, emit_offset(e));
    for (unsigned i = 0; i < 16; i++)
        vector_move(e, 0x6f, i, GS_CPU(ymm) + 32 * i);
    emit_patch32(e->start, done, emit_offset(e));
    emit_load(e, H_RCX, GS(spill));
    mxcsr(e, 2, GS_CPU(fx) + 24);
    set_resident(e, 1);
}

static void save_vectors(struct emit *e)
{
    for (unsigned i = 0; i < 16; i++)
        vector_move(e, 0x7f, i, GS_CPU(ymm) + 32 * i);
    mxcsr(e, 3, GS_CPU(fx) + 24);
    mxcsr(e, 2, GS(host_mxcsr));
    set_resident(e, 0);
    emit8(e, 0xc5); /* vzeroupper, for the C code's sake */
    emit8(e, 0xf8);
    emit8(e, 0x77);
}

/* lahf; seto al; mov gs:[flags], eax */
static void store_flags(struct emit *e)
{
    emit8(e, 0x9f);
    emit8(e, 0x0f);
    emit8(e, 0x90);
    emit8(e, 0xc0);
    emit_gs(e, false, 0x89, H_RAX, GS(flags));
}

/* mov eax, gs:[flags]; add al, 0x7f, for OF as SETO saw it; sahf */
static void load_flags(struct emit *e)
{
    emit_gs(e, false, 0x8b, H_RAX, GS(flags));
    emit8(e, 0x04);
    emit8(e, 0x7f);
    emit8(e, 0x9e);
}

/* RDI = struct translate_vcpu (GS points there already), RSI = where to go. */
static void make_enter(struct emit *e, const struct translate_vcpu *t, unsigned what)
{
    for (unsigned i = 0; i < sizeof callee_saved; i++)
        push_pop(e, 0x50, callee_saved[i]);
    emit_store(e, H_RSP, GS(host_rsp));
    emit_mov(e, H_R11, H_RSI);
    if (what & ENTER_VECTOR)
        load_vectors(e);
    if (what & ENTER_X87)
        x87_emit_load(e, t);
    load_flags(e);
    emit_load(e, H_RAX, GS_REG(X86_RAX));
    for (unsigned i = 0; i < sizeof resident; i++)
        emit_load(e, resident[i], GS_REG(resident[i]));
    emit_load(e, H_RSP, GS_REG(X86_RSP));
    emit8(e, 0x41); /* jmp r11 */
    emit8(e, 0xff);
    emit8(e, 0xe3);
}

/* R11 = struct site: goes on at its `resume`. */
static void emit_resume(struct emit *e)
{
    _Static_assert(offsetof(struct site, resume) < 128, "an 8-bit displacement");
    emit8(e, 0x45); /* mov r11d, [r11 + resume] */
    emit8(e, 0x8b);
    emit8(e, 0x5b);
    emit8(e, offsetof(struct site, resume));
    emit_load(e, H_R10, GS(code_base));
    emit_lea(e, H_R10, H_R10, H_R11, 0, 0);
    emit8(e, 0x41); /* jmp r10 */
    emit8(e, 0xff);
    emit8(e, 0xe2);
}

/* Jumps away when the flag at gs:[offset] is clear. */
static uint32_t unless_resident(struct emit *e, size_t offset)
{
    emit8(e, 0x65); /* cmp byte gs:[offset], 0 */
    emit8(e, 0x80);
    emit8(e, 0x3c);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offset);
    emit8(e, 0);
    return emit_jcc(e, CC_E);
}

void emit_save_flags(struct emit *e)
{
    emit_mov(e, H_R11, H_RAX);
    store_flags(e);
    emit_mov(e, H_RAX, H_R11);
}

void emit_restore_flags(struct emit *e)
{
    emit_mov(e, H_R11, H_RAX);
    load_flags(e);
    emit_mov(e, H_RAX, H_R11);
}

/* R11 = struct site: becomes the result of the C call of `enter`. */
static void make_leave(struct emit *e, const struct translate_vcpu *t, bool saved)
{
    emit_store(e, H_RAX, GS_REG(X86_RAX));
    if (!saved)
        store_flags(e);
    for (unsigned i = 0; i < sizeof resident; i++)
        emit_store(e, resident[i], GS_REG(resident[i]));
    emit_store(e, H_RSP, GS_REG(X86_RSP));
    emit_load(e, H_RSP, GS(host_rsp));
    uint32_t skip = unless_resident(e, GS(vector_resident));
    save_vectors(e);
    emit_patch32(e->start, skip, emit_offset(e));
    skip = unless_resident(e, GS(x87_resident));
    x87_emit_save(e, t);
    emit_patch32(e->start, skip, emit_offset(e));
    emit_mov(e, H_RAX, H_R11);
    for (unsigned i = sizeof callee_saved; i-- > 0;)
        push_pop(e, 0x58, callee_saved[i]);
    emit8(e, 0xc3);
}

/* JMP gs:[r11 * scale + offset], the scale as its logarithm. */
static void emit_jmp_table(struct emit *e, unsigned scale, size_t offset)
{
    emit8(e, 0x65);
    emit8(e, 0x42);
    emit8(e, 0xff);
    emit8(e, 0x24);
    emit8(e, scale << 6 | (H_R11 & 7) << 3 | 5);
    emit32(e, (uint32_t)offset);
}

/* R11 = twice the slot of linear address R10, in a table of so many. */
static void emit_slot(struct emit *e, unsigned fold, unsigned slots)
{
    emit_rorx(e, H_R11, H_R10, fold);
    emit_lea(e, H_R11, H_R11, H_R10, 0, 0);
    emit_and_imm(e, H_R11, (slots - 1) << 1);
}

static size_t jump_table(unsigned context) { return GS(jump) + context * sizeof(const void *) * JUMP_ENTRIES; }

void emit_indirect(struct emit *e, unsigned context)
{
    emit_slot(e, JUMP_FOLD, JUMP_ENTRIES);
    emit_jmp_table(e, 2, jump_table(context)); /* R11 is even */
}

void emit_direct(struct emit *e, unsigned context, uint64_t target)
{
    emit_mov_imm(e, H_R10, target);
    emit_jmp_gs(e, jump_table(context) + jump_slot(target) * sizeof(const void *));
}

/* R10 = target, whose place in the jump cache is another's: it may be among the victims. */
static void make_indirect_miss(struct emit *e, unsigned context, uint32_t leave)
{
    size_t table = GS(victim) + context * sizeof(struct jump_victim) * VICTIMS;
    emit_slot(e, VICTIM_FOLD, VICTIMS);
    emit_rorx(e, H_R11, H_R11, 65 - VICTIM_SHIFT);
    emit_gs_index(e, true, 0x3b, H_R10, H_R11, table + offsetof(struct jump_victim, linear)); /* cmp */
    emit_patch32(e->start, emit_jcc(e, CC_NE), leave);
    emit_jmp_table(e, 0, table + offsetof(struct jump_victim, code));
}

void thunks_make(struct translate_vcpu *t)
{
    struct emit emit = {.start = t->code.write, .at = t->code.write + t->code.used,
                        .end = t->code.write + t->code.size, .full = false};
    struct emit *e = &emit;
    t->code_base = t->code.exec;
    for (unsigned what = 0; what < 4; what++) {
        t->thunks.enter[what] = emit_offset(e);
        make_enter(e, t, what);
    }
    t->thunks.load_vector = emit_offset(e);
    load_vectors(e);
    emit_resume(e);
    t->thunks.load_x87 = emit_offset(e);
    emit_store(e, H_RAX, GS_REG(X86_RAX)); /* stale while translated code runs, so free */
    emit_store(e, H_RDX, GS_REG(X86_RDX));
    x87_emit_load(e, t);
    emit_load(e, H_RAX, GS_REG(X86_RAX));
    emit_load(e, H_RDX, GS_REG(X86_RDX));
    emit_resume(e);
    t->thunks.leave = emit_offset(e);
    make_leave(e, t, false);
    t->thunks.leave_saved = emit_offset(e);
    make_leave(e, t, true);
    t->thunks.indirect_leave = emit_offset(e);
    emit_store(e, H_R10, GS_REG(X86_RIP));
    emit_mov_imm(e, H_R11, 0);
    emit_jmp_to(e, t->thunks.leave_saved);
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++) {
        t->thunks.indirect[context] = emit_offset(e);
        emit_indirect(e, context);
        t->thunks.indirect_miss[context] = emit_offset(e);
        make_indirect_miss(e, context, t->thunks.indirect_leave);
    }
    t->thunks.end = emit_offset(e);
    t->code.used = t->thunks.end;
}
