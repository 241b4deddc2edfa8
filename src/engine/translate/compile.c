/* compile.c - from decoded blocks to host code.
 *
 * Each instruction becomes, by its kind (native.h), either itself, or itself behind a look-up of its memory
 * operand, or a jump, or an exit to the interpreter that comes back to the next one.
 *
 * A trace goes on past the end of its block, within the page, along the way that was taken before, so
 * that it is known which arithmetic flags are dead. Where it ends, the blocks that come next are looked at
 * for that. So when an access faults, arithmetic flags that are dead at that point may be stale in what the
 * guest's handler sees of them. */
#include "engine/translate/compile.h"
#include "engine/translate/system.h"
#include "isa/x86/paging.h"

#include <stdlib.h>

#define PARTS_MAX 12u  /* blocks in a trace; the rest of TRACE_PARTS is for those only looked at */
#define ROUNDS 4u       /* of a loop, in one trace */
#define ROUNDS_INSNS 72u /* at most, all rounds together */

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

struct slow *add_slow(struct compiler *c, uint32_t field, enum site_kind kind, unsigned insn)
{
    static struct slow spare;
    if (c->slows == SLOW_MAX) {
        c->full = true;
        return &spare;
    }
    struct slow *slow = &c->slow[c->slows++];
    *slow = (struct slow){.field = field, .kind = (uint8_t)kind, .insn = (uint16_t)insn, .second = c->in_second,
                           .saved = c->saved};
    return slow;
}

/* ---- registers only ---- */

static void emit_register(struct compiler *c, const struct native *n, unsigned insn)
{
    struct emit *e = &c->e;
    const struct x86_insn *guest = c->guest[insn];
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
    const struct x86_insn *guest = c->guest[insn];
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

static void emit_switch(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    if (n->insn.mnemonic != ZYDIS_MNEMONIC_STI) {
        jumps_prepare(c->t, X86_TLB_SUPERVISOR);
        jumps_prepare(c->t, X86_TLB_SUPERVISOR_SMAP);
    }
    uint32_t field = system_emit_switch(&c->e, c->t, n, c->context, next);
    if (field)
        add_slow(c, field, SITE_INTERPRET, insn)->restore_rcx = true;
}

/* The code for the instruction, which has no memory operand, uses the host's R10. */
static bool touches_r10(const struct native *n)
{
    for (unsigned i = 0; i < n->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &n->operand[i];
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER && n->kind == NATIVE_LEA &&
            native_register(operand->reg.value) == H_R10)
            return true;
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (native_register(operand->mem.base) == H_R10 || native_register(operand->mem.index) == H_R10))
            return true;
    }
    return n->reads_r10 || n->writes_r10;
}

static void emit_insn(struct compiler *c, const struct native *n, unsigned insn, uint64_t next)
{
    struct emit *e = &c->e;
    bool registers = n->kind == NATIVE_REGISTER || n->kind == NATIVE_LEA;
    if (registers ? touches_r10(n) : n->kind == NATIVE_NO || n->kind > NATIVE_NOP)
        c->in_r10 = WINDOWS; /* the other kinds look after it themselves */
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
    case NATIVE_BITS:
    case NATIVE_STRING:
    case NATIVE_LEAVE:
    case NATIVE_PUSH_MEMORY: emit_special(c, n, insn, next); break;
    case NATIVE_SYSTEM: system_emit(e, n, flags_busy(c, insn + 1)); break;
    case NATIVE_SWITCH: emit_switch(c, n, insn, next); break;
    case NATIVE_PUSHF: emit_pushf_insn(c, insn); break;
    case NATIVE_POPF: emit_popf_insn(c, insn); break;
    case NATIVE_CPUID: emit_cpuid(c, insn); break;
    default:
        add_slow(c, emit_jmp(e), SITE_INTERPRET, insn)->resume_next = true;
    }
}

/* ---- what goes into a trace ---- */

struct block *block_at(const struct compiler *c, uint64_t linear)
{
    uint64_t key = c->part[0].block->key;
    if ((linear ^ c->linear) >> 12 || (key & BLOCK_CROSSES))
        return NULL;
    return block_find(&c->t->soft.cache, (key & ~UINT64_C(4095)) | (linear & 4095), 0);
}

bool in_trace(const struct compiler *c, const struct block *block)
{
    for (unsigned i = 0; i < c->parts; i++)
        if (c->part[i].block == block)
            return true;
    return false;
}

/* False for a direct branch that may raise #GP, or fall through to where there is no code. */
static bool target_is_canonical(const struct native *n, uint64_t next)
{
    if (n->kind == NATIVE_SWITCH)
        return x86_canonical(next);
    if (n->kind != NATIVE_JCC && n->kind != NATIVE_JMP && n->kind != NATIVE_CALL)
        return true;
    return x86_canonical(next) && x86_canonical(next + (uint64_t)n->operand[0].imm.value.s);
}

/* LOCK may be left out: of what else reads and writes memory, devices only store, and interrupts come between
 * instructions. A locked access to the stack is how compilers write a fence towards devices, and the kernel's code may
 * mean any of its own as one: those keep it (docs/translate.md). */
static bool may_unlock(const struct compiler *c, const struct native *n)
{
    if (!(n->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK) || n->kind != NATIVE_MEMORY || c->context != X86_TLB_USER ||
        c->t->soft.vm->config.vcpus != 1 || n->insn.mnemonic == ZYDIS_MNEMONIC_XCHG)
        return false;
    unsigned base = native_register(n->memory->mem.base);
    return base != H_RSP && base != H_RBP;
}

void classify(const struct compiler *c, const struct x86_insn *insn, struct native *ret_native)
{
    native_classify(&c->t->soft.decoder.zydis[X86_CODE64], insn->bytes, insn->length, ret_native);
    if (insn->exec == x86_exec_ud || insn->exec == x86_exec_gp || !system_allows(c->t, c->context, ret_native))
        ret_native->kind = NATIVE_NO;
    ret_native->unlocked = may_unlock(c, ret_native);
}

static void add_part(struct compiler *c, struct block *block, uint64_t linear)
{
    c->part[c->parts++] = (struct part){.block = block, .linear = linear, .first = (uint16_t)c->insns};
    for (unsigned i = 0; i < block->count; i++) {
        unsigned insn = c->insns++;
        c->guest[insn] = &block->insn[i];
        c->begin[insn] = linear;
        c->follow[insn] = i + 1u < block->count ? FOLLOW_NEXT : FOLLOW_NOT;
        classify(c, &block->insn[i], &c->native[insn]);
        linear += block->insn[i].length;
        if (!target_is_canonical(&c->native[insn], linear))
            c->native[insn].kind = NATIVE_NO;
    }
    c->begin[c->insns] = linear;
}

uint64_t branch_target(const struct compiler *c, unsigned insn)
{
    return c->begin[insn] + c->guest[insn]->length + (uint64_t)c->native[insn].operand[0].imm.value.s;
}

/* The trace has come to a jump back to its start: it does more rounds of the loop, which share look-ups and one look at
 * `attention`. */
static void add_rounds(struct compiler *c)
{
    const unsigned insns = c->insns, parts = c->parts;
    c->loop = true;
    for (unsigned round = 1; round < ROUNDS && c->insns + insns <= ROUNDS_INSNS && c->parts + parts <= PARTS_MAX; round++) {
        c->follow[c->insns - 1] = FOLLOW_TARGET;
        for (unsigned i = 0; i < parts; i++) {
            unsigned first = c->insns;
            add_part(c, c->part[i].block, c->part[i].linear);
            memcpy(&c->follow[first], &c->follow[c->part[i].first], c->insns - first);
        }
        c->follow[c->insns - 1] = FOLLOW_NOT;
    }
}

/* Where the trace may go on after its last instruction: adds that block. */
static bool extend(struct compiler *c)
{
    unsigned last = c->insns - 1u;
    enum native_kind kind = c->native[last].kind;
    if ((kind == NATIVE_JCC || kind == NATIVE_JMP) && branch_target(c, last) == c->linear &&
        !(c->part[0].block->key & BLOCK_CROSSES)) {
        add_rounds(c);
        return false;
    }
    bool next = kind != NATIVE_NO && kind != NATIVE_JMP && kind != NATIVE_CALL && kind < NATIVE_JMP_INDIRECT;
    bool target = kind == NATIVE_JCC || kind == NATIVE_JMP || kind == NATIVE_CALL;
    if (kind == NATIVE_NOP || kind == NATIVE_FLDCW)
        next = true;
    if (!c->part[c->parts - 1].block->plain || c->parts == PARTS_MAX)
        return false;
    const uint64_t to[] = {c->begin[c->insns], target ? branch_target(c, last) : 0};
    const bool may[] = {next, target};
    for (unsigned i = 0; i < 2; i++) {
        struct block *block = may[i] ? block_at(c, to[i]) : NULL;
        if (!block || in_trace(c, block) || c->insns + block->count > TRACE_INSNS)
            continue;
        c->follow[last] = i == 0 ? FOLLOW_NEXT : FOLLOW_TARGET;
        add_part(c, block, to[i]);
        return true;
    }
    return false;
}

/* ---- the whole ---- */

static bool is_branch(enum native_kind kind)
{
    return (kind >= NATIVE_JCC && kind <= NATIVE_RET) || kind == NATIVE_SWITCH;
}

static void emit_to_second(struct compiler *c, const struct slow *slow)
{
    struct emit *e = &c->e;
    uint32_t to = slow->saved && slow->insn == c->saved_from ? c->second_saved : c->second[slow->insn];
    if (!e->full)
        emit_patch32(e->start, slow->field, slow->restore_rcx ? emit_offset(e) : to);
    if (!slow->restore_rcx)
        return;
    emit_load(e, H_RCX, GS(spill));
    emit_jmp_to(e, to);
}

/* The arithmetic flags that a fault of the instruction may show otherwise than it should. */
static uint16_t stale_before(const struct compiler *c, unsigned insn)
{
    uint32_t undefined = insn ? c->undefined[insn - 1] : 0;
    return (uint16_t)(c->flags_needed[insn] ? undefined : X86_FLAGS_ARITH);
}

/* Exits, out of the way: R11 says which. Returns false when memory ran out. */
static bool emit_slows(struct compiler *c)
{
    struct emit *e = &c->e;
    for (unsigned i = 0; i < c->slows; i++) {
        const struct slow *slow = &c->slow[i];
        if (slow->window) {
            emit_to_second(c, slow);
            continue;
        }
        uint32_t live = slow->kind == SITE_NEXT ? live_at(c, slow->target) : c->live_out[slow->insn];
        struct site *site = arena_take(c->t, sizeof *site);
        if (!site)
            return false;
        *site = (struct site){.trace = c->trace, .target = slow->target, .field = slow->field,
                              .thunk = emit_offset(e), .insn = slow->insn, .kind = slow->kind,
                              .resume = slow->resume, .missed = slow->missed,
                              .mnemonic = (uint16_t)c->native[slow->insn].insn.mnemonic,
                              .undefined = (uint16_t)(c->undefined[slow->insn] | (X86_FLAGS_ARITH & ~live)),
                              .at_fault = stale_before(c, slow->insn)};
        if (slow->resume_next && slow->insn + 1u < c->insns)
            site->resume = (slow->second ? c->second : c->start)[slow->insn + 1];
        if (!e->full)
            emit_patch32(e->start, slow->field, emit_offset(e));
        if (slow->restore_rcx)
            emit_load(e, H_RCX, GS(spill));
        emit_mov_imm(e, H_R11, (uint64_t)(uintptr_t)site);
        if (slow->kind == SITE_VECTOR || slow->kind == SITE_X87)
            emit_jmp_gs(e, slow->kind == SITE_VECTOR ? GS(vector_go) : GS(x87_go));
        else
            emit_jmp_to(e, slow->saved ? c->t->thunks.leave_saved : c->t->thunks.leave);
    }
    return true;
}

/* Enters the trace in the lists of all blocks that it depends on. */
static bool publish(struct compiler *c)
{
    struct translate_vcpu *t = c->t;
    struct trace *trace = c->trace;
    trace->parts = (uint8_t)(c->parts + c->depends);
    trace->part = arena_take(t, trace->parts * sizeof trace->part[0]);
    if (!trace->part)
        return false;
    for (unsigned i = 0; i < trace->parts; i++) {
        struct block *block = c->part[i].block;
        trace->part[i] = (struct trace_part){.trace = trace, .next = block->parts, .block = block, .first = c->part[i].first};
        block->parts = &trace->part[i];
    }
    for (unsigned part = 0, i = 0; i <= c->insns; i++) {
        if (part + 1 < c->parts && i == c->part[part + 1].first)
            part++;
        trace->insn[i] = (struct trace_insn){.start = (uint16_t)(c->start[i] - trace->indirect_entry),
                                             .second = (uint16_t)(c->second[i] - trace->indirect_entry),
                                             .begin = (int16_t)(c->begin[i] - c->linear), .part = (uint8_t)part};
    }
    traces_enter(t, trace);
    t->code.used = (trace->end + 15) & ~(size_t)15;
    t->stats.traces++;
    return true;
}

/* The checker may do it twice: it saves what is at and around the operand's address, so not all of a string. */
static bool can_repeat(const struct native *n)
{
    return n->kind != NATIVE_NO && n->kind != NATIVE_STRING && n->kind != NATIVE_BITS && system_repeats(n);
}

static void emit_insns(struct compiler *c, uint32_t *start)
{
    c->in_r10 = WINDOWS;
    c->saved = false;
    for (unsigned i = 0; i < c->insns; i++) {
        start[i] = emit_offset(&c->e);
        if (i == c->saved_from) {
            emit_save_flags(&c->e);
            c->saved = true;
            c->second_saved = emit_offset(&c->e); /* the second copy is the last that comes here */
        }
        uint64_t next = c->begin[i] + c->guest[i]->length;
        emit_insn(c, &c->native[i], i, next);
        enum native_kind kind = c->native[i].kind;
        if (i + 1 == c->insns && kind != NATIVE_NO && !is_branch(kind))
            emit_goto(c, i, next);
    }
    start[c->insns] = emit_offset(&c->e);
}

/* Where the range of a window goes on in another page, or the TLB does not have it, the rest of the trace is done
 * without windows, in a second copy. */
static void emit_trace(struct compiler *c)
{
    c->in_second = c->saved = false;
    emit_entry(c);
    emit_insns(c, c->start);
    for (unsigned i = 0; i <= c->insns; i++)
        c->second[i] = c->start[c->insns]; /* an empty one */
    if (!c->windows)
        return;
    memset(c->window_of, WINDOWS, sizeof c->window_of);
    c->in_second = true;
    emit_insns(c, c->second);
}

int compile_open(struct translate_vcpu *t)
{
    t->compiler = malloc(sizeof *t->compiler);
    return t->compiler ? 0 : -1;
}

void compile_close(struct translate_vcpu *t)
{
    free(t->compiler);
    t->compiler = NULL;
}

struct trace *compile(struct translate_vcpu *t, struct block *block, uint64_t linear)
{
    struct compiler *c = t->compiler;
    memset(c, 0, offsetof(struct compiler, part));
    c->t = t;
    c->linear = linear;
    c->context = (unsigned)(t->soft.core.tlb_now - t->soft.core.tlb[0]) / X86_TLB_ENTRIES;
    if (t->code.size - t->code.used < TRACE_ROOM || t->traces == TRACES_MAX)
        return NULL;
    c->e = (struct emit){.start = t->code.write, .at = t->code.write + t->code.used,
                         .end = t->code.write + t->code.used + TRACE_ROOM, .full = false};
    jumps_prepare(t, c->context);
    add_part(c, block, linear);
    while (extend(c))
        ;
    find_liveness(c);
    find_saved(c);
    find_windows(c);
    c->trace = arena_take(t, sizeof *c->trace + (c->insns + 1u) * sizeof c->trace->insn[0]);
    if (!c->trace)
        return NULL;
    *c->trace = (struct trace){.block = block, .linear = linear, .context = (uint8_t)c->context, .native = true,
                               .count = (uint16_t)c->insns, .saved_from = (uint16_t)c->saved_from,
                               .undefined = c->undefined[c->insns - 1]};
    for (unsigned i = 0; i < c->insns; i++) {
        c->trace->native &= can_repeat(&c->native[i]);
        c->trace->vector |= c->native[i].kind != NATIVE_NO && c->native[i].vector;
        c->trace->x87 |= c->native[i].kind != NATIVE_NO && c->native[i].x87;
    }
    emit_trace(c);
    if (!emit_slows(c) || c->e.full || c->full)
        return NULL;
    c->trace->end = emit_offset(&c->e);
    return publish(c) ? c->trace : NULL;
}
/* ---- links ---- */

/* A block that lies in two pages is reached through the jump cache, which is emptied when a mapping changes:
 * that the jump comes from its first page says nothing about the second. The way there stays for good. */
static void link_through_cache(struct translate_vcpu *t, struct site *site)
{
    struct emit e = {.start = t->code.write, .at = t->code.write + t->code.used,
                     .end = t->code.write + t->code.size, .full = false};
    emit_save_flags(&e);
    emit_direct(&e, site->trace->context, site->target);
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
    uint32_t to = resident ? target->entry_resident : target->entry;
    /* Attention can wait, since every way that leads back to where it came from has a jump to a lower address. */
    if (resident && target->linear > site->trace->linear)
        to = target->forward_resident;
    emit_patch32(t->code.write, site->field, to);
    t->stats.links++;
}

void unlink_incoming(struct translate_vcpu *t, struct trace *trace)
{
    for (struct site *site = trace->incoming, *next; site; site = next) {
        next = site->next_link;
        site->linked = NULL;
        emit_patch32(t->code.write, site->field, site->thunk);
        t->stats.unlinks++;
    }
    trace->incoming = NULL;
}
