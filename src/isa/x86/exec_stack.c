/* exec_stack.c - PUSH and POP of general registers, immediates and memory, PUSHA, POPA, ENTER, LEAVE. */
#include "isa/x86/integer_exec.h"

/* Width of the stack pointer in bytes: 64-bit code has 8, else SS.B decides. */
static unsigned stack_size(const struct x86_core *core)
{
    if (core->mode == X86_CODE64)
        return 8;
    return core->cpu.seg[X86_SS].attr & X86_ATTR_DB ? 4 : 2;
}

static uint64_t stack_mask(const struct x86_core *core)
{
    unsigned size = stack_size(core);

    return size == 8 ? UINT64_MAX : size == 4 ? UINT32_MAX : UINT16_MAX;
}

/* Writes as much of RSP (or RBP) as the stack is wide. */
static void set_by_stack_size(struct x86_core *core, unsigned offset, uint64_t value)
{
    switch (stack_size(core)) {
    case 8: x86_set64(core, offset, value); break;
    case 4: x86_set32(core, offset, (uint32_t)value); break;
    default: x86_set16(core, offset, (uint16_t)value); break;
    }
}

static void set_by_size(struct x86_core *core, unsigned offset, unsigned size, uint64_t value)
{
    switch (size) {
    case 8: x86_set64(core, offset, value); break;
    case 4: x86_set32(core, offset, (uint32_t)value); break;
    default: x86_set16(core, offset, (uint16_t)value); break;
    }
}

static uint64_t load_by_size(struct x86_core *core, uint64_t linear, unsigned size)
{
    return size == 8 ? x86_load64(core, linear) : size == 4 ? x86_load32(core, linear) : x86_load16(core, linear);
}

static void store_by_size(struct x86_core *core, uint64_t linear, unsigned size, uint64_t value)
{
    switch (size) {
    case 8: x86_store64(core, linear, value); break;
    case 4: x86_store32(core, linear, (uint32_t)value); break;
    default: x86_store16(core, linear, (uint16_t)value); break;
    }
}

/* 64-bit code pushing 64 bits: nearly all of it. */
static void push64_r(struct x86_core *core, const struct x86_insn *insn)
{
    x86_push_64(core, x86_get64(core, insn->reg));
    X86_NEXT(core, insn);
}
static void push64_i(struct x86_core *core, const struct x86_insn *insn)
{
    x86_push_64(core, (uint64_t)insn->imm);
    X86_NEXT(core, insn);
}
static void push64_m(struct x86_core *core, const struct x86_insn *insn)
{
    x86_push_64(core, x86_load64(core, x86_linear(core, insn, 8, false)));
    X86_NEXT(core, insn);
}
static void pop64_r(struct x86_core *core, const struct x86_insn *insn)
{
    x86_set64(core, insn->reg, x86_pop_64(core));
    X86_NEXT(core, insn);
}

static void push_r(struct x86_core *core, const struct x86_insn *insn)
{
    x86_push(core, insn->opsize, x86_get64(core, insn->reg));
}
static void push_i(struct x86_core *core, const struct x86_insn *insn)
{
    x86_push(core, insn->opsize, (uint64_t)insn->imm);
}
static void push_m(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t linear = x86_linear(core, insn, insn->opsize, false);

    x86_push(core, insn->opsize, load_by_size(core, linear, insn->opsize));
}
static void pop_r(struct x86_core *core, const struct x86_insn *insn)
{
    set_by_size(core, insn->reg, insn->opsize, x86_pop(core, insn->opsize));
}

/* POP to memory: an address based on RSP is computed with RSP already incremented. */
static void pop_m(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t old = core->cpu.reg[X86_RSP], value = x86_pop(core, insn->opsize), popped = core->cpu.reg[X86_RSP];
    uint64_t linear = x86_effective(core, insn);

    core->cpu.reg[X86_RSP] = old; /* should the store fault */
    if (!(insn->flags & X86_INSN_FLAT))
        linear = x86_linear_access(core, insn->seg, linear, insn->opsize, true);
    store_by_size(core, linear, insn->opsize, value);
    core->cpu.reg[X86_RSP] = popped;
}

/* Slots of the stack by the offset of their lowest byte; RSP stays as it is, so that a fault at any of
 * them leaves the registers for a second try. */
static uint64_t slot(struct x86_core *core, uint64_t offset, unsigned size, bool write)
{
    return x86_linear_access(core, X86_SS, offset & stack_mask(core), size, write);
}
static uint64_t load_slot(struct x86_core *core, uint64_t offset, unsigned size)
{
    return load_by_size(core, slot(core, offset, size, false), size);
}
static void store_slot(struct x86_core *core, uint64_t offset, unsigned size, uint64_t value)
{
    store_by_size(core, slot(core, offset, size, true), size, value);
}

static void pusha(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t sp = core->cpu.reg[X86_RSP];
    unsigned size = insn->opsize;

    for (unsigned i = X86_RAX; i <= X86_RDI; i++)
        store_slot(core, sp - (uint64_t)(i + 1) * size, size, core->cpu.reg[i]);
    set_by_stack_size(core, X86_RSP * 8, sp - 8u * size);
}

static void popa(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t sp = core->cpu.reg[X86_RSP];
    unsigned size = insn->opsize;

    for (unsigned i = 0; i < 8; i++) {
        uint64_t value = load_slot(core, sp + (uint64_t)i * size, size); /* the stack pointer's is read as well */

        if (X86_RDI - i != X86_RSP)
            set_by_size(core, (X86_RDI - i) * 8, size, value);
    }
    set_by_stack_size(core, X86_RSP * 8, sp + 8u * size);
}

/* ENTER size, level (SDM 2A): a frame with `level` display pointers. The final stack pointer must be writable. */
static void enter(struct x86_core *core, const struct x86_insn *insn)
{
    unsigned size = insn->opsize, level = insn->imm2 & 31;
    uint64_t sp = core->cpu.reg[X86_RSP], bp = core->cpu.reg[X86_RBP], frame = sp - size;
    uint64_t final = frame - (uint64_t)level * size - (uint16_t)insn->imm;

    store_slot(core, frame, size, bp);
    for (unsigned i = 1; i < level; i++)
        store_slot(core, frame - (uint64_t)i * size, size, load_slot(core, bp - (uint64_t)i * size, size));
    if (level > 0)
        store_slot(core, frame - (uint64_t)level * size, size, frame);
    x86_probe_write(core, slot(core, final, size, true), size);
    set_by_size(core, X86_RBP * 8, size, frame);
    set_by_stack_size(core, X86_RSP * 8, final);
}

static void leave64(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t frame = core->cpu.reg[X86_RBP];
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, frame);
    bool hit = entry->read_tag == (frame & ~UINT64_C(4095)) && (frame & 4095) <= 4088;
    uint64_t value = hit ? *(const volatile x86_u64 *)(uintptr_t)(frame + entry->addend)
                         : x86_load_slow(core, frame, 8, true);

    (void)insn;
    core->cpu.reg[X86_RSP] = frame + 8;
    core->cpu.reg[X86_RBP] = value;
    X86_NEXT(core, insn);
}

static void leave(struct x86_core *core, const struct x86_insn *insn)
{
    unsigned size = insn->opsize;
    uint64_t frame = core->cpu.reg[X86_RBP];
    uint64_t value = load_slot(core, frame, size);

    set_by_stack_size(core, X86_RSP * 8, frame + size);
    set_by_size(core, X86_RBP * 8, size, value);
}

x86_exec_fn *x86_group_stack(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    bool wide = insn->mode == X86_CODE64 && insn->opsize == 8;
    enum x86_form form = x86_form(z, insn);

    switch ((enum x86_stack)what) {
    case X86_PUSH:
        if (form == X86_R)
            return wide ? push64_r : push_r;
        if (form == X86_M)
            return wide ? push64_m : push_m;
        return z->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (wide ? push64_i : push_i) : NULL;
    case X86_POP:
        if (form == X86_R)
            return wide ? pop64_r : pop_r;
        return form == X86_M ? pop_m : NULL;
    case X86_PUSHA: return pusha;
    case X86_POPA: return popa;
    case X86_ENTER: return enter;
    case X86_LEAVE: return wide ? leave64 : leave;
    }
    return NULL;
}
