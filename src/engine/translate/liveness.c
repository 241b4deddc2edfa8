/* liveness.c - which of the guest's arithmetic flags matter where, and from where on they are saved.
 *
 * The host's flags are the guest's, so the code that is added for look-ups and jumps must know whether it may change
 * them. That depends on what comes next: within the trace, and where it leads. */
#include "engine/translate/compile.h"
#include "isa/x86/paging.h"

#define LOOK_AHEAD 12u /* instructions */

/* The arithmetic flags that the block reads before it writes them. */
static uint32_t live_in(struct compiler *c, const struct block *block)
{
    struct native *native = &c->looked_at;
    uint32_t pending = X86_FLAGS_ARITH, live = 0;
    for (unsigned i = 0; i < block->count && i < LOOK_AHEAD && pending; i++) {
        classify(c, &block->insn[i], native);
        if (native->kind == NATIVE_NO)
            break;
        live |= pending & native->flags_read;
        pending &= ~native->flags_written;
    }
    return live | pending;
}

/* Decodes a block in the trace's page that has not run yet. NULL when it does not start in that page, or there is no
 * room. */
static struct block *decode_ahead(struct compiler *c, uint64_t linear)
{
    struct engine_vcpu *vcpu = &c->t->soft;
    uint64_t key = c->part[0].block->key, page_gpa = key & ((UINT64_C(1) << 52) - RAM_PAGE_SIZE);
    struct x86_page page;
    struct block *block;
    if ((linear ^ c->linear) >> 12 || (key & BLOCK_CROSSES) || !block_has_room(&vcpu->cache) ||
        !vcpu->core.env->page(vcpu->core.owner, page_gpa, &page))
        return NULL;
    struct block_source source = {.gpa = page_gpa | (linear & 4095), .page = page.host};
    return block_build(&vcpu->cache, &vcpu->decoder, X86_CODE64, &source, &block) == 0 ? block : NULL;
}

uint32_t live_at(struct compiler *c, uint64_t linear)
{
    struct block *block = block_at(c, linear);
    if (!block && c->loop)
        block = decode_ahead(c, linear);
    if (!block)
        return X86_FLAGS_ARITH;
    if (!block->live_known) {
        block->live = live_in(c, block);
        block->live_known = true;
    }
    if (block->live == X86_FLAGS_ARITH || in_trace(c, block))
        return block->live;
    unsigned i = c->parts;
    while (i < c->parts + c->depends && c->part[i].block != block)
        i++;
    if (i == TRACE_PARTS)
        return X86_FLAGS_ARITH;
    if (i == c->parts + c->depends) {
        c->part[i] = (struct part){.block = block, .linear = linear, .first = TRACE_INSNS};
        c->depends++;
    }
    return block->live;
}

static uint32_t live_after(struct compiler *c, unsigned insn, uint32_t live_next)
{
    switch (c->native[insn].kind) {
    case NATIVE_NO:
    case NATIVE_RET:
    case NATIVE_JMP_INDIRECT:
    case NATIVE_CALL_INDIRECT:
        return X86_FLAGS_ARITH;
    case NATIVE_JCC: {
        uint64_t target = branch_target(c, insn), next = c->begin[insn] + c->guest[insn]->length;
        uint32_t taken = c->follow[insn] == FOLLOW_TARGET ? live_next : live_at(c, target);
        return taken | (c->follow[insn] == FOLLOW_NEXT ? live_next : live_at(c, next));
    }
    case NATIVE_JMP:
    case NATIVE_CALL:
        return c->follow[insn] ? live_next : live_at(c, branch_target(c, insn));
    default:
        return c->follow[insn] ? live_next : live_at(c, c->begin[insn] + c->guest[insn]->length);
    }
}

void find_liveness(struct compiler *c)
{
    uint32_t live = X86_FLAGS_ARITH, undefined = 0;
    c->flags_needed[c->insns] = true;
    for (unsigned i = c->insns; i-- > 0;) {
        const struct native *n = &c->native[i];
        c->live_out[i] = live_after(c, i, live) & X86_FLAGS_ARITH;
        live = (c->live_out[i] & ~n->flags_written) | n->flags_read;
        if (n->kind == NATIVE_NO)
            live = X86_FLAGS_ARITH;
        c->flags_needed[i] = (live & X86_FLAGS_ARITH) != 0;
    }
    c->live_in = c->flags_needed[0];
    for (unsigned i = 0; i < c->insns; i++) {
        undefined = (undefined & ~c->native[i].flags_written) | c->native[i].flags_undefined;
        c->undefined[i] = undefined;
    }
}

/* ---- flags saved before the end ---- */

/* The trace ends with a jump that wants the flags saved. */
static bool ends_elsewhere(const struct compiler *c)
{
    unsigned last = c->insns - 1;
    switch (c->native[last].kind) {
    case NATIVE_NO:
    case NATIVE_JCC:
    case NATIVE_SWITCH: return false;
    case NATIVE_RET:
    case NATIVE_JMP_INDIRECT:
    case NATIVE_CALL_INDIRECT: return true;
    case NATIVE_JMP:
    case NATIVE_CALL: return (branch_target(c, last) ^ c->linear) >> 12 != 0;
    default: return (c->begin[c->insns] ^ c->linear) >> 12 != 0;
    }
}

/* The instruction neither reads nor changes flags, nor does what is made of it use GS(flags). */
static bool leaves_flags(const struct native *n)
{
    switch (n->kind) {
    case NATIVE_REGISTER:
    case NATIVE_MEMORY:
    case NATIVE_LEA:
    case NATIVE_PUSH:
    case NATIVE_POP:
    case NATIVE_JMP:
    case NATIVE_CALL:
    case NATIVE_JMP_INDIRECT:
    case NATIVE_CALL_INDIRECT:
    case NATIVE_RET:
    case NATIVE_NOP:
    case NATIVE_LEAVE:
    case NATIVE_PUSH_MEMORY: return !n->flags_read && !n->flags_written;
    default: return false;
    }
}

static bool looks_up(enum native_kind kind)
{
    return kind != NATIVE_REGISTER && kind != NATIVE_LEA && kind != NATIVE_JMP && kind != NATIVE_NOP;
}

/* At the end of a trace that leads who knows where, all flags are live. When what comes last leaves the flags alone,
 * they are saved before it, as they have to be anyhow at the jump, and the look-ups need not mind them. */
void find_saved(struct compiler *c)
{
    c->saved_from = c->insns;
    if (!ends_elsewhere(c))
        return;
    while (c->saved_from && leaves_flags(&c->native[c->saved_from - 1]))
        c->saved_from--;
    while (c->saved_from < c->insns && !looks_up(c->native[c->saved_from].kind))
        c->saved_from++;
}
