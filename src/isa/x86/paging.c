/* paging.c - page walks and the software TLB.
 *
 * A walk reads the tables in guest RAM, checks everything, and only then sets accessed and dirty bits,
 * each with a compare-and-swap against the entry that was checked; when another vCPU changed one in the
 * meantime the walk starts over. Page-directory-pointer entries of PAE paging are read from memory on each
 * walk, as AMD's nested paging does, not kept in registers.
 *
 * The TLB holds no address-space tags: whatever changes CR3 flushes all but global entries, also where a
 * guest with PCIDs says that it need not. The engine is told what the guest said, and may keep more. */
#include "isa/x86/paging.h"

#define PTE_P UINT64_C(0x001)
#define PTE_W UINT64_C(0x002)
#define PTE_U UINT64_C(0x004)
#define PTE_A UINT64_C(0x020)
#define PTE_D UINT64_C(0x040)
#define PTE_PS UINT64_C(0x080)
#define PTE_G UINT64_C(0x100)
#define PTE_NX (UINT64_C(1) << 63)

/* Invariants of the TLB:
 * - an entry with any tag is marked in tlb_used, so that a flush visits only what was filled;
 * - read_tag and write_tag stay empty for MMIO and for pages that hold a data breakpoint, exec_tag for MMIO;
 * - write_tag is set only while the leaf entry is dirty and the page of RAM counts as dirty, so that a plain
 *   store needs to look at neither;
 * - X86_TLB_USER_ALIGN never has entries: alignment checks live on the slow path. */

enum paging_mode { PAGING_32, PAGING_PAE, PAGING_4LEVEL };

struct walk {
    enum paging_mode mode;
    unsigned level;         /* of the leaf, 1 is a page table's */
    bool user, writable, nx;
    unsigned top;           /* first level */
    uint64_t entry[5];      /* by level */
    struct x86_page page[5]; /* of the table; host NULL when it is not RAM */
    unsigned offset[5];     /* of the entry in its page */
};

/* Read with CR0.PG set. LMA implies PAE. SDM 3A, 4.1.1. */
static enum paging_mode paging_mode(const struct x86_cpu *cpu)
{
    if (cpu->efer & X86_EFER_LMA)
        return PAGING_4LEVEL;
    return cpu->cr4 & X86_CR4_PAE ? PAGING_PAE : PAGING_32;
}

static uint64_t bits_from(unsigned low, unsigned end) /* ones in [low, end) */
{
    return low >= end ? 0 : ((end == 64 ? 0 : UINT64_C(1) << end) - (UINT64_C(1) << low));
}

/* The bits that must be 0 in a present entry. */
static uint64_t reserved_bits(const struct x86_core *core, enum paging_mode mode, unsigned level, uint64_t entry)
{
    uint64_t reserved;
    bool large = level > 1 && (entry & PTE_PS);
    if (mode == PAGING_32)
        return level == 2 && large && (core->cpu.cr4 & X86_CR4_PSE) ? UINT64_C(1) << 21 : 0;
    reserved = bits_from(core->phys_bits, mode == PAGING_PAE ? 63 : 52);
    if (!(core->cpu.efer & X86_EFER_NXE))
        reserved |= PTE_NX;
    if (mode == PAGING_PAE && level == 3)
        return bits_from(core->phys_bits, 64) | 0x1e6;
    if (level == 4)
        reserved |= PTE_PS;
    if (large && level == 3)
        reserved |= bits_from(13, 30);
    if (large && level == 2)
        reserved |= bits_from(13, 21);
    return reserved;
}

/* Reads an entry; memory that is not RAM gives all ones, as an empty bus does. */
static uint64_t read_entry(struct x86_core *core, struct walk *walk, unsigned level, uint64_t gpa)
{
    struct x86_page *page = &walk->page[level];
    walk->offset[level] = gpa & 4095;
    if (!core->env->page(core->owner, gpa & ~UINT64_C(4095), page)) {
        page->host = NULL;
        return walk->mode == PAGING_32 ? UINT32_MAX : UINT64_MAX;
    }
    if (walk->mode == PAGING_32)
        return __atomic_load_n((uint32_t *)(void *)(page->host + (gpa & 4095)), __ATOMIC_ACQUIRE);
    return __atomic_load_n((uint64_t *)(void *)(page->host + (gpa & 4095)), __ATOMIC_ACQUIRE);
}

/* PS ends the walk early where the level knows large pages; at level 4 it is reserved, and 32-bit paging has
 * it only with CR4.PSE. */
static bool is_leaf(const struct x86_core *core, const struct walk *walk, unsigned level, uint64_t entry)
{
    if (level == 1)
        return true;
    if (!(entry & PTE_PS))
        return false;
    if (walk->mode == PAGING_32)
        return (core->cpu.cr4 & X86_CR4_PSE) != 0;
    return level == 2 || (level == 3 && walk->mode == PAGING_4LEVEL);
}

/* PAE's table of four pointers is aligned to 32 bytes only. */
static uint64_t table_address(const struct x86_core *core, const struct walk *walk)
{
    switch (walk->mode) {
    case PAGING_32: return core->cpu.cr3 & UINT64_C(0xfffff000);
    case PAGING_PAE: return core->cpu.cr3 & UINT64_C(0xffffffe0);
    case PAGING_4LEVEL: break;
    }
    return core->cpu.cr3 & UINT64_C(0x000ffffffffff000);
}

/* Descends to the leaf. Returns 0, or the P and RSVD bits of an error code with -1. */
static int descend(struct x86_core *core, uint64_t linear, struct walk *walk, uint32_t *ret_error)
{
    uint64_t table = table_address(core, walk);
    unsigned index_bits = walk->mode == PAGING_32 ? 10 : 9;
    unsigned entry_shift = walk->mode == PAGING_32 ? 2 : 3;
    walk->user = walk->writable = true;
    walk->nx = false;
    for (unsigned level = walk->top;; level--) {
        unsigned shift = 12 + (level - 1) * index_bits;
        uint64_t index = (linear >> shift) & ((1u << index_bits) - 1);
        if (walk->mode == PAGING_PAE && level == 3)
            index &= 3;
        uint64_t entry = read_entry(core, walk, level, table + (index << entry_shift));
        walk->entry[level] = entry;
        if (!(entry & PTE_P)) {
            *ret_error = 0;
            return -1;
        }
        if (entry & reserved_bits(core, walk->mode, level, entry)) {
            *ret_error = X86_PF_P | X86_PF_RSVD;
            return -1;
        }
        if (!(walk->mode == PAGING_PAE && level == 3)) {
            walk->user = walk->user && (entry & PTE_U);
            walk->writable = walk->writable && (entry & PTE_W);
            walk->nx = walk->nx || (walk->mode != PAGING_32 && (entry & PTE_NX));
        }
        walk->level = level;
        if (is_leaf(core, walk, level, entry))
            return 0;
        table = entry & (walk->mode == PAGING_32 ? UINT64_C(0xfffff000) : UINT64_C(0x000ffffffffff000));
    }
}

static unsigned leaf_shift(const struct walk *walk)
{
    return 12 + (walk->level - 1) * (walk->mode == PAGING_32 ? 10u : 9u);
}

static uint64_t leaf_gpa(const struct walk *walk, uint64_t linear)
{
    uint64_t entry = walk->entry[walk->level], size = UINT64_C(1) << leaf_shift(walk);
    uint64_t frame = entry & UINT64_C(0x000ffffffffff000) & ~(size - 1);
    if (walk->mode == PAGING_32 && walk->level == 2) /* PSE-36: bits 20-13 are address bits 39-32 */
        frame = (entry & UINT64_C(0xffc00000)) | ((entry >> 13 & 0xff) << 32);
    return frame | (linear & (size - 1));
}

/* SDM 3A, 4.6.1: what a context may do with the page that a walk ended at. */
static bool may_read(enum x86_tlb_context context, const struct walk *walk)
{
    switch (context) {
    case X86_TLB_USER:
    case X86_TLB_USER_ALIGN: return walk->user;
    case X86_TLB_SUPERVISOR_SMAP: return !walk->user;
    case X86_TLB_SUPERVISOR:
    case X86_TLB_CONTEXTS: break;
    }
    return true;
}

/* Without CR0.WP supervisor code writes to read-only pages, but SMAP still hides user pages from it. */
static bool may_write(const struct x86_core *core, enum x86_tlb_context context, const struct walk *walk)
{
    bool user = context == X86_TLB_USER || context == X86_TLB_USER_ALIGN;
    if (!may_read(context, walk))
        return false;
    return walk->writable || (!user && !(core->cpu.cr0 & X86_CR0_WP));
}

static bool may_execute(const struct x86_core *core, enum x86_tlb_context context, const struct walk *walk)
{
    bool user = context == X86_TLB_USER || context == X86_TLB_USER_ALIGN;
    if (walk->nx)
        return false;
    return user ? walk->user : !(walk->user && (core->cpu.cr4 & X86_CR4_SMEP));
}

static bool permitted(const struct x86_core *core, enum x86_access access, enum x86_tlb_context context,
                      const struct walk *walk)
{
    switch (access) {
    case X86_READ: return may_read(context, walk);
    case X86_WRITE: return may_write(core, context, walk);
    case X86_EXECUTE: break;
    }
    return may_execute(core, context, walk);
}

/* Replaces an entry in guest RAM if it still is what the walk saw, with the bookkeeping of a store. */
static bool replace_entry(struct x86_core *core, struct walk *walk, unsigned level, uint64_t gpa, uint64_t value)
{
    struct x86_page *page = &walk->page[level];
    uint8_t *where = page->host + walk->offset[level];
    bool done;
    if (walk->mode == PAGING_32) {
        uint32_t old = (uint32_t)walk->entry[level];
        done = __atomic_compare_exchange_n((uint32_t *)(void *)where, &old, (uint32_t)value, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    } else {
        uint64_t old = walk->entry[level];
        done = __atomic_compare_exchange_n((uint64_t *)(void *)where, &old, value, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    }
    if (done) {
        uint8_t flags = __atomic_load_n(page->flags, __ATOMIC_SEQ_CST);
        if (!(flags & X86_PAGE_DIRTY))
            __atomic_or_fetch(page->flags, X86_PAGE_DIRTY, __ATOMIC_SEQ_CST);
        if (flags & X86_PAGE_CODE)
            core->env->code_written(core->owner, gpa, 8);
    }
    return done;
}

/* Sets accessed bits, and dirty in the leaf for a write. False when an entry changed meanwhile. */
static bool set_accessed(struct x86_core *core, struct walk *walk, bool write)
{
    uint64_t table = table_address(core, walk);
    for (unsigned level = walk->top; level >= walk->level; level--) {
        uint64_t entry = walk->entry[level], value = entry | PTE_A;
        uint64_t gpa = (table & ~UINT64_C(4095)) + walk->offset[level];
        table = entry & UINT64_C(0x000ffffffffff000);
        if (walk->mode == PAGING_PAE && level == 3)
            continue;
        if (write && level == walk->level)
            value |= PTE_D;
        if (value == entry || !walk->page[level].host || walk->page[level].read_only)
            continue;
        if (!replace_entry(core, walk, level, gpa, value))
            return false;
        walk->entry[level] = value;
    }
    return true;
}

/* The answer of a walk that succeeded. A store's permission is withheld until the dirty bit is set, so that the
 * first store through a TLB entry that a load filled walks again and sets it. */
static void fill_translation(const struct x86_core *core, const struct walk *walk, uint64_t linear,
                             enum x86_tlb_context context, struct x86_translation *ret)
{
    uint64_t leaf = walk->entry[walk->level];
    ret->gpa = leaf_gpa(walk, linear);
    ret->page_size = UINT64_C(1) << leaf_shift(walk);
    ret->readable = may_read(context, walk);
    ret->writable = may_write(core, context, walk) && (leaf & PTE_D);
    ret->executable = may_execute(core, context, walk);
    ret->global = (leaf & PTE_G) && (core->cpu.cr4 & X86_CR4_PGE);
}

static void begin_walk(const struct x86_core *core, struct walk *walk)
{
    walk->mode = paging_mode(&core->cpu);
    walk->top = walk->mode == PAGING_32 ? 2 : walk->mode == PAGING_PAE ? 3 : 4;
}

int x86_walk(struct x86_core *core, uint64_t linear, enum x86_access access, enum x86_tlb_context context,
             struct x86_translation *ret_translation, uint32_t *ret_error_code)
{
    struct walk walk;
    uint32_t error = 0;
    if (!(core->cpu.cr0 & X86_CR0_PG)) {
        *ret_translation = (struct x86_translation){
            .gpa = (uint32_t)linear, .page_size = 4096, .readable = true, .writable = true, .executable = true};
        return 0;
    }
    do {
        begin_walk(core, &walk);
        int rc = descend(core, linear, &walk, &error);
        if (!rc && !permitted(core, access, context, &walk)) {
            error = X86_PF_P;
            rc = -1;
        }
        if (rc) {
            if (access == X86_WRITE)
                error |= X86_PF_W;
            if (context == X86_TLB_USER || context == X86_TLB_USER_ALIGN)
                error |= X86_PF_U;
            if (access == X86_EXECUTE && ((core->cpu.cr4 & X86_CR4_SMEP) ||
                                          ((core->cpu.efer & X86_EFER_NXE) && walk.mode != PAGING_32)))
                error |= X86_PF_I;
            *ret_error_code = error;
            return -1;
        }
    } while (!set_accessed(core, &walk, access == X86_WRITE));
    fill_translation(core, &walk, linear, context, ret_translation);
    return 0;
}

int x86_translate_quiet(struct x86_core *core, uint64_t linear, uint64_t *ret_gpa)
{
    struct walk walk;
    uint32_t error;
    if (!(core->cpu.cr0 & X86_CR0_PG)) {
        *ret_gpa = (uint32_t)linear;
        return 0;
    }
    begin_walk(core, &walk);
    if (walk.mode == PAGING_4LEVEL && !x86_canonical(linear))
        return -1;
    if (descend(core, linear, &walk, &error))
        return -1;
    *ret_gpa = leaf_gpa(&walk, linear);
    return 0;
}

bool x86_pdptes_valid(struct x86_core *core, uint64_t cr3)
{
    struct walk walk = {.mode = PAGING_PAE};
    for (unsigned i = 0; i < 4; i++) {
        uint64_t entry = read_entry(core, &walk, 3, (cr3 & UINT64_C(0xffffffe0)) + 8 * i);
        if ((entry & PTE_P) && (entry & reserved_bits(core, PAGING_PAE, 3, entry)))
            return false;
    }
    return true;
}

/* Remembers where large pages are, so that INVLPG of one tells the engine about all of it. */
static void note_large(struct x86_core *core, uint64_t linear, uint64_t size)
{
    uint64_t low = linear & ~(size - 1), high = low + size - 1;
    unsigned half = linear >> 63;
    if (low < core->large[half].low)
        core->large[half].low = low;
    if (high > core->large[half].high)
        core->large[half].high = high;
}

/* True when a data breakpoint lies in the page: its accesses take the slow path, which checks. */
static bool page_watched(const struct x86_cpu *cpu, uint64_t linear)
{
    for (unsigned i = 0; i < 4; i++) {
        if ((cpu->dr[7] >> (2 * i) & 3) && (cpu->dr[7] >> (16 + 4 * i) & 1) && (cpu->dr[i] ^ linear) >> 12 == 0)
            return true;
    }
    return false;
}

/* Gives the entry the tags that the walk allows. The page's own flags decide about stores: see the invariants. */
static void set_entry(struct x86_core *core, struct x86_tlb_entry *entry, uint64_t linear, enum x86_access access,
                      const struct x86_translation *t)
{
    uint64_t tag = linear & ~UINT64_C(4095);
    struct x86_page page;
    entry->read_tag = entry->write_tag = entry->exec_tag = X86_TLB_NONE;
    entry->gpa = t->gpa & ~UINT64_C(4095);
    entry->flags = NULL;
    entry->global = t->global;
    entry->watched = false;
    entry->page_shift = (uint8_t)__builtin_ctzll(t->page_size);
    if (!core->env->page(core->owner, entry->gpa, &page))
        return;
    entry->addend = (uintptr_t)page.host - (uintptr_t)tag;
    entry->flags = page.flags;
    if (t->executable)
        entry->exec_tag = tag;
    entry->watched = (core->cpu.dr[7] & 0xff) && page_watched(&core->cpu, linear);
    if (access == X86_WRITE && !page.read_only && !(__atomic_load_n(page.flags, __ATOMIC_RELAXED) & X86_PAGE_DIRTY))
        __atomic_or_fetch(page.flags, X86_PAGE_DIRTY, __ATOMIC_SEQ_CST);
    if (entry->watched)
        return;
    if (t->readable)
        entry->read_tag = tag;
    if (!t->writable || page.read_only)
        return;
    /* A read takes the store permission along only where the page counts as dirty already. */
    if (__atomic_load_n(page.flags, __ATOMIC_RELAXED) & X86_PAGE_DIRTY)
        entry->write_tag = tag;
}

int x86_tlb_try_fill(struct x86_core *core, uint64_t linear, enum x86_access access,
                     enum x86_tlb_context context, struct x86_tlb_entry **ret_entry, uint32_t *ret_error_code)
{
    unsigned slot = x86_tlb_index(linear);
    struct x86_translation t;
    if (context == X86_TLB_USER_ALIGN)
        context = X86_TLB_USER;
    if (core->long_mode && !x86_canonical(linear))
        return -2;
    core->tlb_misses++;
    if (x86_walk(core, linear, access, context, &t, ret_error_code))
        return -1;
    if (t.page_size > 4096)
        note_large(core, linear, t.page_size);
    *ret_entry = &core->tlb[context][slot];
    core->tlb_used[context][slot / 64] |= UINT64_C(1) << slot % 64;
    set_entry(core, *ret_entry, linear, access, &t);
    return 0;
}

struct x86_tlb_entry *x86_tlb_fill(struct x86_core *core, uint64_t linear, enum x86_access access,
                                   enum x86_tlb_context context, bool stack)
{
    struct x86_tlb_entry *entry;
    uint32_t error;
    switch (x86_tlb_try_fill(core, linear, access, context, &entry, &error)) {
    case 0: return entry;
    case -1: x86_raise_pf(core, linear, error);
    default: x86_raise(core, stack ? X86_SSF : X86_GP, 0);
    }
}

/* The rest of an entry need not be cleared: without a tag nothing looks at it but match_page, which may then
 * drop what is dropped already. */
static void drop(struct x86_tlb_entry *entry)
{
    entry->read_tag = entry->write_tag = entry->exec_tag = X86_TLB_NONE;
}

/* Drops the used entries of every context that `match` selects. */
static void drop_matching(struct x86_core *core, bool (*match)(const struct x86_tlb_entry *, uint64_t), uint64_t key)
{
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++) {
        for (unsigned word = 0; word < X86_TLB_ENTRIES / 64; word++) {
            uint64_t left = core->tlb_used[context][word];
            while (left) {
                unsigned bit = (unsigned)__builtin_ctzll(left);
                struct x86_tlb_entry *entry = &core->tlb[context][word * 64 + bit];
                left &= left - 1;
                if (!match(entry, key))
                    continue;
                drop(entry);
                core->tlb_used[context][word] &= ~(UINT64_C(1) << bit);
            }
        }
    }
}

static bool match_any(const struct x86_tlb_entry *entry, uint64_t key)
{
    return !(key && entry->global);
}

/* Any page of the large page that holds linear. */
static bool match_page(const struct x86_tlb_entry *entry, uint64_t linear)
{
    uint64_t tag = entry->read_tag != X86_TLB_NONE ? entry->read_tag : entry->exec_tag;
    return (tag ^ linear) >> entry->page_shift == 0;
}

void x86_tlb_flush(struct x86_core *core, bool keep_global)
{
    core->tlb_flushes++;
    drop_matching(core, match_any, keep_global);
    for (unsigned half = 0; half < 2 && !keep_global; half++) {
        core->large[half].low = UINT64_MAX;
        core->large[half].high = 0;
    }
    core->env->mapping_changed(core->owner, keep_global ? X86_FLUSH_LOCAL : X86_FLUSH_ALL, 0);
}

void x86_tlb_switch(struct x86_core *core, bool keep)
{
    core->tlb_flushes++;
    drop_matching(core, match_any, true);
    core->env->mapping_changed(core->owner, keep ? X86_FLUSH_RETURN : X86_FLUSH_SWITCH, 0);
}

void x86_tlb_flush_page(struct x86_core *core, uint64_t linear)
{
    unsigned half = linear >> 63;
    bool large = linear >= core->large[half].low && linear <= core->large[half].high;
    unsigned slot = x86_tlb_index(linear);
    if (large) {
        drop_matching(core, match_page, linear);
    } else {
        for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++) {
            if (match_page(&core->tlb[context][slot], linear))
                drop(&core->tlb[context][slot]);
        }
    }
    core->env->mapping_changed(core->owner, large ? X86_FLUSH_ALL : X86_FLUSH_PAGE, linear);
}
