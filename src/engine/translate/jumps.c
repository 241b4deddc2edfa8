/* jumps.c - the jump cache: where the code for a linear address is, for jumps whose target is not linked.
 *
 * What it holds is proven by the mappings of the moment, so it follows them as the TLB does: entries of pages
 * that are not global leave with their address space, those of one page with an INVLPG of it. Who is put out of its
 * place by another goes among the victims, which the `indirect_miss` thunks look at. */
#include <string.h>

#include "engine/translate/vcpu.h"
#include "isa/x86/mem.h"

#define PAGE(linear) ((linear) >> 12)

static void set_bit(uint64_t *map, unsigned bit, bool value)
{
    map[bit / 64] = (map[bit / 64] & ~(UINT64_C(1) << (bit % 64))) | (uint64_t)value << (bit % 64);
}

static void clear(struct translate_vcpu *t, unsigned context, unsigned slot)
{
    t->jump[context][slot] = t->code.exec + t->thunks.indirect_miss[context];
    t->jump_trace[context][slot] = NULL;
    set_bit(t->jump_used[context], slot, false);
}

static void clear_victim(struct translate_vcpu *t, unsigned context, unsigned slot)
{
    t->victim[context][slot] = (struct jump_victim){.code = t->code.exec + t->thunks.indirect_leave};
    set_bit(t->victim_used[context], slot, false);
}

static void put_out(struct translate_vcpu *t, unsigned context, unsigned slot)
{
    struct trace *trace = t->jump_trace[context][slot];
    unsigned victim = victim_slot(trace->linear);
    t->victim[context][victim] =
        (struct jump_victim){.linear = trace->linear, .code = t->code.exec + trace->saved_entry, .trace = trace,
                             .global = t->jump_global[context][slot / 64] >> (slot % 64) & 1};
    set_bit(t->victim_used[context], victim, true);
}

/* Only where linear address 0 belongs could a victim of zeros be taken for one. */
void jumps_init(struct translate_vcpu *t)
{
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++)
        clear_victim(t, context, victim_slot(0));
}

void jumps_prepare(struct translate_vcpu *t, unsigned context)
{
    if (t->jump_ready[context])
        return;
    for (unsigned slot = 0; slot < JUMP_ENTRIES; slot++)
        t->jump[context][slot] = t->code.exec + t->thunks.indirect_miss[context];
    t->jump_ready[context] = true;
}

/* Its last instruction, then its only one, lies in two pages. */
static bool crosses(const struct trace *trace)
{
    return (trace->block->key & BLOCK_CROSSES) != 0;
}

static unsigned page_bit(uint64_t linear) { return (unsigned)PAGE(linear) % JUMP_PAGES; }

void jumps_enter(struct translate_vcpu *t, struct trace *trace, bool global)
{
    unsigned slot = jump_slot(trace->linear), context = trace->context;
    const struct trace *there = t->jump_trace[context][slot];
    if (there && there != trace)
        put_out(t, context, slot);
    t->jump[context][slot] = t->code.exec + trace->indirect_entry;
    t->jump_trace[context][slot] = trace;
    set_bit(t->jump_used[context], slot, true);
    set_bit(t->jump_global[context], slot, global && !crosses(trace));
    set_bit(t->jump_pages, page_bit(trace->linear), true);
    if (crosses(trace))
        set_bit(t->jump_pages, page_bit(trace->linear + 4096), true);
}

void jumps_drop(struct translate_vcpu *t, const struct trace *trace)
{
    unsigned slot = jump_slot(trace->linear);
    if (t->jump_trace[trace->context][slot] == trace)
        clear(t, trace->context, slot);
    slot = victim_slot(trace->linear);
    if (t->victim[trace->context][slot].trace == trace)
        clear_victim(t, trace->context, slot);
}

void jumps_forget(struct translate_vcpu *t, bool keep_global)
{
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++) {
        for (unsigned word = 0; word < JUMP_ENTRIES / 64; word++) {
            uint64_t left = t->jump_used[context][word];
            if (keep_global)
                left &= ~t->jump_global[context][word];
            for (; left; left &= left - 1)
                clear(t, context, word * 64 + (unsigned)__builtin_ctzll(left));
        }
        for (unsigned word = 0; word < VICTIMS / 64; word++) {
            for (uint64_t left = t->victim_used[context][word]; left; left &= left - 1) {
                unsigned slot = word * 64 + (unsigned)__builtin_ctzll(left);
                if (!keep_global || !t->victim[context][slot].global)
                    clear_victim(t, context, slot);
            }
        }
    }
    if (!keep_global)
        memset(t->jump_pages, 0, sizeof t->jump_pages);
}

static bool touches(const struct trace *trace, uint64_t page)
{
    return PAGE(trace->linear) == page || (crosses(trace) && PAGE(trace->linear) + 1 == page);
}

/* Clears what touches the page among the slots of [first, first + count), which may wrap. */
static void forget_slots(struct translate_vcpu *t, unsigned context, unsigned first, unsigned count, uint64_t page)
{
    for (unsigned end = first + count, from = first; from < end;) {
        unsigned word = from / 64 % (JUMP_ENTRIES / 64), skip = from % 64;
        for (uint64_t left = t->jump_used[context][word] >> skip << skip; left; left &= left - 1) {
            unsigned slot = word * 64 + (unsigned)__builtin_ctzll(left);
            if (touches(t->jump_trace[context][slot], page))
                clear(t, context, slot);
        }
        from += 64 - skip;
    }
}

/* The addresses of a page have neighbouring slots in `jump`, two a slot; those of `victim` are few. */
void jumps_forget_page(struct translate_vcpu *t, uint64_t linear)
{
    const uint64_t page = PAGE(linear), start = page << 12;
    unsigned bit = page_bit(linear);
    if (!(t->jump_pages[bit / 64] >> (bit % 64) & 1))
        return;
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++) {
        forget_slots(t, context, jump_slot(start), RAM_PAGE_SIZE / 2 + 1, page);
        forget_slots(t, context, jump_slot(start - X86_INSN_MAX), X86_INSN_MAX / 2 + 1, page); /* that cross into it */
        for (unsigned word = 0; word < VICTIMS / 64; word++) {
            for (uint64_t left = t->victim_used[context][word]; left; left &= left - 1) {
                unsigned slot = word * 64 + (unsigned)__builtin_ctzll(left);
                const struct jump_victim *victim = &t->victim[context][slot];
                if (page - PAGE(victim->linear) <= 1 && touches(victim->trace, page))
                    clear_victim(t, context, slot);
            }
        }
    }
}
