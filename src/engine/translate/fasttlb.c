/* fasttlb.c - the TLB that generated code looks into: see vcpu.h. */
#include "engine/translate/vcpu.h"
#include "isa/x86/mem.h"

#define PAGE_MASK UINT64_C(4095)

/* A bias under which no linear address that comes to this slot gives less than 4096. 0 does for all but the first, so
 * that memory of zeros is an empty TLB; for that one, which the page at 0 comes to, it is that of a page that belongs to
 * another slot, in the range that is not canonical. */
static uint64_t never(unsigned slot)
{
    return slot ? 0 : 0 - (UINT64_C(1) << 63 | UINT64_C(1) << 12);
}

static void clear(struct translate_vcpu *t, unsigned context, unsigned slot)
{
    struct fast_entry *entry = &t->tlb[context][slot];
    entry->read_bias = entry->write_bias = never(slot);
    t->tlb_used[context][slot / 64] &= ~(UINT64_C(1) << (slot % 64));
}

void fast_init(struct translate_vcpu *t)
{
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++)
        clear(t, context, 0);
    t->index_mask = (uint64_t)(FAST_ENTRIES - 1) << 12;
    t->page_mask = ~PAGE_MASK;
    t->below_64 = 63;
    t->above_63 = ~t->below_64;
    t->below_32 = 31;
    t->above_31 = ~t->below_32;
    t->keep_if = ~(uint64_t)X86_FLAG_IF;
    t->keep_df = ~(uint64_t)X86_FLAG_DF;
}

void fast_learn(struct translate_vcpu *t, uint64_t linear)
{
    struct x86_core *core = &t->soft.core;
    unsigned context = (unsigned)(core->tlb_now - core->tlb[0]) / X86_TLB_ENTRIES;
    unsigned slot = (unsigned)(linear >> 12) % FAST_ENTRIES;
    const struct x86_tlb_entry *from = x86_tlb_slot(core, linear);
    uint64_t page = linear & ~PAGE_MASK;
    bool read = from->read_tag == page;
    bool write = from->write_tag == page && !(__atomic_load_n(from->flags, __ATOMIC_RELAXED) & RAM_PAGE_CODE);
    if (!read && !write)
        return;
    struct fast_entry *entry = &t->tlb[context][slot];
    entry->read_bias = read ? 0 - page : never(slot);
    entry->write_bias = write ? 0 - page : never(slot);
    entry->host = (uint8_t *)(uintptr_t)(page + from->addend);
    entry->addend = from->addend;
    t->tlb_flags[context][slot] = from->flags;
    t->tlb_used[context][slot / 64] |= UINT64_C(1) << (slot % 64);
    t->tlb_global[context][slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    t->tlb_global[context][slot / 64] |= (uint64_t)from->global << (slot % 64);
}

void fast_forget(struct translate_vcpu *t, bool keep_global)
{
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++) {
        for (unsigned word = 0; word < FAST_ENTRIES / 64; word++) {
            uint64_t kept = keep_global ? t->tlb_global[context][word] : 0;
            for (uint64_t bits = t->tlb_used[context][word] & ~kept; bits; bits &= bits - 1)
                clear(t, context, word * 64 + (unsigned)__builtin_ctzll(bits));
        }
    }
}

void fast_forget_page(struct translate_vcpu *t, uint64_t linear)
{
    unsigned slot = (unsigned)(linear >> 12) % FAST_ENTRIES;
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++)
        if (t->tlb_used[context][slot / 64] >> (slot % 64) & 1)
            clear(t, context, slot);
}

void fast_check_code(struct translate_vcpu *t, unsigned context, unsigned slot)
{
    struct fast_entry *entry = &t->tlb[context][slot];
    if (__atomic_load_n(t->tlb_flags[context][slot], __ATOMIC_RELAXED) & RAM_PAGE_CODE)
        entry->write_bias = never(slot);
}

void fast_forbid_stores(struct translate_vcpu *t, const uint8_t *flags)
{
    t->generation++;
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++)
        for (unsigned word = 0; word < FAST_ENTRIES / 64; word++)
            for (uint64_t bits = t->tlb_used[context][word]; bits; bits &= bits - 1) {
                unsigned slot = word * 64 + (unsigned)__builtin_ctzll(bits);
                if (t->tlb_flags[context][slot] == flags)
                    t->tlb[context][slot].write_bias = never(slot);
            }
}
