/* run.c - running translated code: the tier on top of the interpreter's loop.
 *
 * The loop of engine/soft finds a block and offers it here. A block that was offered often enough is
 * translated; its trace runs, and so do those it is linked to, until one of them leaves. What it left for
 * is done here or by the loop, which then offers the next block. */
#include <string.h>

#include "engine/translate/emit.h"
#include "engine/translate/system.h"
#include "engine/translate/vcpu.h"
#include "engine/translate/x87.h"
#include "isa/x86/mem.h"
#include "isa/x86/paging.h"

#define NO_ADDRESS (UINT64_C(1) << 63) /* not canonical */

#define HOT 3u /* offers before a block is translated */

static unsigned context_of(const struct x86_core *core)
{
    return (unsigned)(core->tlb_now - core->tlb[0]) / X86_TLB_ENTRIES;
}

static struct trace *translate(struct translate_vcpu *t, struct block *block, uint64_t linear)
{
    if (++block->runs < HOT)
        return NULL;
    block->runs = 0;
    struct trace *trace = compile(t, block, linear);
    if (!trace) {
        traces_flush(t);
        trace = compile(t, block, linear);
    }
    return trace;
}

/* ---- flags between the two worlds ---- */

static void flags_to_host(struct translate_vcpu *t)
{
    uint64_t flags = t->soft.core.cpu.rflags;
    t->flags = (uint32_t)(flags & 0xff) << 8 | (flags & X86_FLAG_OF ? 1u : 0);
}

static void flags_from_host(struct translate_vcpu *t)
{
    uint64_t *flags = &t->soft.core.cpu.rflags;
    uint64_t low = t->flags >> 8 & (X86_FLAGS_ARITH & 0xff);
    *flags = (*flags & ~(uint64_t)X86_FLAGS_ARITH) | low | (t->flags & 1 ? X86_FLAG_OF : 0);
}

/* The vector registers may be used: no exception is due for touching them. (AVX: system_allows.) */
static bool vectors_allowed(const struct x86_core *core)
{
    const struct x86_cpu *cpu = &core->cpu;
    return !(cpu->cr0 & (X86_CR0_EM | X86_CR0_TS)) && (cpu->cr4 & X86_CR4_OSFXSR) &&
           (cpu->cr4 & X86_CR4_OSXMMEXCPT);
}

/* what: ENTER_*; the guest may use those registers. */
static struct site *enter(struct translate_vcpu *t, unsigned what, uint32_t to)
{
    struct site *(*call)(struct translate_vcpu *, const void *);
    const void *code = t->code.exec + t->thunks.enter[what];
    const struct thunks *thunks = &t->thunks;
    t->vector_go = t->code.exec + (vectors_allowed(&t->soft.core) ? thunks->load_vector : thunks->leave);
    t->x87_go = t->code.exec + (x87_allowed(&t->soft.core.cpu) ? thunks->load_x87 : thunks->leave);
    memcpy(&call, &code, sizeof call);
    flags_to_host(t);
    struct site *site = call(t, t->code.exec + to);
    flags_from_host(t);
    return site;
}

/* ---- what a trace leaves for ---- */

static bool is_string(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_MOVSB || mnemonic == ZYDIS_MNEMONIC_MOVSQ || mnemonic == ZYDIS_MNEMONIC_STOSB ||
           mnemonic == ZYDIS_MNEMONIC_STOSQ;
}

/* The linear address of the instruction's memory operand, for the fast TLB to learn. */
static uint64_t operand_address(const struct x86_core *core, const struct x86_insn *insn, ZydisMnemonic mnemonic)
{
    uint64_t address;
    if (!(insn->flags & X86_INSN_MEMORY))
        return core->cpu.reg[is_string(mnemonic) ? X86_RDI : X86_RSP];
    address = x86_effective(core, insn);
    if (insn->seg == X86_FS || insn->seg == X86_GS)
        address += core->cpu.seg[insn->seg].base;
    return address;
}

/* Interprets the site's instruction. True when the trace may go on after it. */
static bool interpret(struct translate_vcpu *t, struct site *site)
{
    const struct trace *trace = site->trace;
    unsigned number = site->insn;
    struct x86_core *core = &t->soft.core;
    struct block *block = trace_block(trace, number);
    const struct x86_insn *insn = trace_insn(trace, number);
    core->cpu.reg[X86_RIP] = trace->linear + (uint64_t)(int64_t)trace->insn[number].begin + insn->length;
    core->insn = insn;
    core->insn_end = insn + 1;
    t->soft.cache.running = block;
    t->soft.stats.interpreted++;
    if (site->missed)
        t->stats.missed[site->mnemonic]++;
    else
        t->stats.interpreted[site->mnemonic]++;
    uint64_t address = operand_address(core, insn, site->mnemonic), generation = t->generation;
    uint64_t source = core->cpu.reg[X86_RSI];
    uint32_t function = (uint32_t)core->cpu.reg[X86_RAX], index = (uint32_t)core->cpu.reg[X86_RCX];
    insn->exec(core, insn);
    if (site->mnemonic == ZYDIS_MNEMONIC_CPUID)
        cpuid_learn(t, function, index);
    fast_learn(t, address);
    if (is_string(site->mnemonic))
        fast_learn(t, source);
    if (!(insn->flags & X86_INSN_MEMORY) || insn->opcode == 0xff)
        fast_learn(t, core->cpu.reg[X86_RSP]);
    /* Windows that were opened are good no more after a change of the mappings. */
    return core->insn_end != NULL && !trace->dead && generation == t->generation;
}

/* The trace was just found, so the TLB has its page. */
static bool is_global(struct x86_core *core, uint64_t linear)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);
    return entry->exec_tag == (linear & ~UINT64_C(4095)) && entry->global;
}

/* An indirect branch led to an address that is not canonical: the branch is undone and interpreted, which raises
 * #GP. What a CALL has stored below the stack stays. */
static void refuse_target(struct translate_vcpu *t)
{
    unsigned number;
    struct trace *trace = trace_at(t, t->branch, &number);
    if (!trace) /* no branch, but a block's end at the edge of the address space: fetching there raises #GP */
        return;
    const struct x86_insn *insn = trace_insn(trace, number);
    if (insn->opcode == 0xc3)
        t->soft.core.cpu.reg[X86_RSP] -= 8;
    else if ((insn->modrm >> 3 & 7) == 2)
        t->soft.core.cpu.reg[X86_RSP] += 8;
    struct site site = {.trace = trace, .insn = (uint16_t)number};
    interpret(t, &site);
}

/* RIP may be that of the instruction after an STI, reached in translated code: if so, it comes before any interrupt.
 * Wrongly so when it was reached another way, but nobody can tell when an interrupt should have come. */
static void cast_shadow(struct translate_vcpu *t)
{
    if (t->soft.core.cpu.reg[X86_RIP] == t->shadow_at)
        t->soft.core.cpu.sti_shadow = true;
    t->shadow_at = NO_ADDRESS;
}

/* The trace for RIP, when nothing has to be looked at before it runs and the jump cache has it; else NULL. */
static struct trace *follow(struct translate_vcpu *t)
{
    const struct engine_vcpu *vcpu = &t->soft;
    const struct x86_core *core = &vcpu->core;
    struct x86_cpu *cpu = &t->soft.core.cpu;
    if (atomic_load_explicit(&core->attention, memory_order_relaxed) || core->mode != X86_CODE64 || core->debug_armed ||
        cpu->activity != X86_RUNNING || cpu->event.valid || cpu->mov_ss_shadow || cpu->nmi_pending || t->check ||
        (vcpu->interrupt_waiting && (cpu->rflags & X86_FLAG_IF)) || !system_agrees(t))
        return NULL;
    struct trace *trace = t->jump_trace[context_of(core)][jump_slot(cpu->reg[X86_RIP])];
    if (!trace || trace->linear != cpu->reg[X86_RIP])
        return NULL;
    cpuid_refresh(t);
    if (cpu->sti_shadow)
        t->shadow_at = trace->linear;
    cpu->sti_shadow = false;
    return trace;
}

/* Runs the trace and what follows. True when the loop may simply look up the block at RIP. */
static bool run_trace(struct translate_vcpu *t, struct trace *trace)
{
    struct x86_core *core = &t->soft.core;
    uint32_t to = trace->entry;
    unsigned what = 0;
    t->checked_away = false;
    t->exit_undefined = trace->undefined;
    for (;;) {
        struct site *site = enter(t, what, to);
        if (!site) {
            t->stats.exit[SITE_INDIRECT]++;
            t->fill_jump = true;
            if (!x86_canonical(core->cpu.reg[X86_RIP]))
                refuse_target(t);
            cast_shadow(t);
            return true;
        }
        trace = site->trace;
        t->exit_undefined = site->undefined;
        t->fault_undefined = site->at_fault;
        t->stats.exit[site->kind]++;
        switch ((enum site_kind)site->kind) {
        case SITE_NEXT:
            core->cpu.reg[X86_RIP] = site->target;
            t->link_from = site;
            return true;
        case SITE_LOOK_UP:
        case SITE_VECTOR:
        case SITE_X87:
            core->cpu.reg[X86_RIP] = trace->linear;
            t->checked_away = true;
            t->no_vectors = site->kind != SITE_LOOK_UP;
            cast_shadow(t);
            return true;
        case SITE_INTERPRET:
        default: {
            const struct trace_part *part = &trace->part[trace->insn[site->insn].part];
            bool last = site->insn + 1u == part->first + part->block->count;
            bool plain = part->block->plain;
            t->checked_away = !interpret(t, site);
            if (!t->checked_away && site->resume)
                break;
            trace = follow(t);
            if (!trace) {
                t->fill_jump = true;
                return !last || plain;
            }
            t->stats.followed++;
            to = trace->entry;
            what = 0;
            continue;
        }
        }
        what = (trace->vector ? ENTER_VECTOR : 0) | (trace->x87 ? ENTER_X87 : 0);
        /* An instruction like FLDCW may have changed that; RIP is at the next. */
        if ((trace->vector && !vectors_allowed(core)) || (trace->x87 && !x87_allowed(&core->cpu)))
            return true;
        to = site->resume;
    }
}

bool tier_run(struct engine_vcpu *vcpu, struct block *block, uint64_t linear, bool *ret_plain)
{
    struct translate_vcpu *t = translate_of(vcpu);
    unsigned context = context_of(&vcpu->core);
    vcpu->core.cpu.sti_shadow = false; /* cast by the last run; this block's first instruction is what it protects */
    if (!system_agrees(t)) {
        t->link_from = NULL;
        if (x86_cpl(&vcpu->core.cpu) % 3)
            return false;
        traces_flush(t);
        system_assume(t);
    }
    cpuid_refresh(t);
    if (t->no_vectors) { /* this block raises #NM or #UD: the interpreter does it best */
        t->no_vectors = false;
        return false;
    }
    struct trace *trace = traces_find(t, block, linear, context);
    if (!trace)
        trace = translate(t, block, linear);
    if (!trace) {
        t->link_from = NULL;
        t->fill_jump = false;
        return false;
    }
    if (t->check) {
        *ret_plain = check_trace(t, trace, run_trace);
        return true;
    }
    if (t->link_from)
        link_site(t, t->link_from, trace);
    if (t->fill_jump)
        jumps_enter(t, trace, is_global(&vcpu->core, linear));
    t->link_from = NULL;
    t->fill_jump = false;
    *ret_plain = run_trace(t, trace);
    return true;
}
