/* spaces.c - what was learnt of an address space, kept while another one is current.
 *
 * A guest that uses PCIDs says, when it loads CR3, whether what the processor knows of the new one still
 * holds. So at a switch the entries of the fast TLB and of the jump cache that are not global are put
 * aside under the PCID that is left, and those of the PCID that comes back are put in place: generated code needs no
 * address-space tags. What does not fit is learnt again, which is always allowed.
 *
 * INVLPG, MOV CR3 and the single-address INVPCID concern the current PCID only; whatever reaches further forgets all that
 * was put aside. */
#include <stdlib.h>

#include "engine/translate/vcpu.h"

#define SPACES 8u        /* Linux uses six PCIDs on a processor */
#define SPACE_PAGES 192u /* kept of each */
#define SPACE_JUMPS 192u

struct space_page {
    uint16_t slot, context;
    struct fast_entry entry;
    const uint8_t *flags;
};

struct space {
    bool valid;
    uint16_t pcid;
    unsigned pages, jumps;
    uint64_t stamp; /* of the last use */
    struct space_page page[SPACE_PAGES];
    struct trace *jump[SPACE_JUMPS];
};

struct spaces {
    uint16_t current; /* PCID whose entries are in place */
    uint64_t stamp;
    struct space space[SPACES];
};

int spaces_open(struct translate_vcpu *t)
{
    t->spaces = calloc(1, sizeof *t->spaces);
    return t->spaces ? 0 : -1;
}

void spaces_close(struct translate_vcpu *t)
{
    free(t->spaces);
    t->spaces = NULL;
}

void spaces_forget(struct translate_vcpu *t)
{
    for (unsigned i = 0; i < SPACES; i++)
        t->spaces->space[i].valid = false;
    t->spaces->current = (uint16_t)(t->soft.core.cpu.cr3 & 0xfff);
}

static struct space *find(struct spaces *spaces, uint16_t pcid)
{
    for (unsigned i = 0; i < SPACES; i++)
        if (spaces->space[i].valid && spaces->space[i].pcid == pcid)
            return &spaces->space[i];
    return NULL;
}

/* The space that is unused, or was unused for longest. */
static struct space *oldest(struct spaces *spaces)
{
    struct space *best = &spaces->space[0];
    for (unsigned i = 0; i < SPACES; i++) {
        struct space *space = &spaces->space[i];
        if (!space->valid)
            return space;
        if (space->stamp < best->stamp)
            best = space;
    }
    return best;
}

static void put_pages_aside(const struct translate_vcpu *t, struct space *space)
{
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++) {
        for (unsigned word = 0; word < FAST_ENTRIES / 64; word++) {
            uint64_t left = t->tlb_used[context][word] & ~t->tlb_global[context][word];
            for (; left && space->pages < SPACE_PAGES; left &= left - 1) {
                unsigned slot = word * 64 + (unsigned)__builtin_ctzll(left);
                space->page[space->pages++] =
                    (struct space_page){(uint16_t)slot, (uint16_t)context, t->tlb[context][slot],
                                        t->tlb_flags[context][slot]};
            }
        }
    }
}

static void put_jumps_aside(const struct translate_vcpu *t, struct space *space)
{
    for (unsigned context = 0; context < X86_TLB_CONTEXTS; context++) {
        for (unsigned word = 0; word < JUMP_ENTRIES / 64; word++) {
            uint64_t left = t->jump_used[context][word] & ~t->jump_global[context][word];
            for (; left && space->jumps < SPACE_JUMPS; left &= left - 1)
                space->jump[space->jumps++] = t->jump_trace[context][word * 64 + (unsigned)__builtin_ctzll(left)];
        }
    }
}

static void put_in_place(struct translate_vcpu *t, const struct space *space)
{
    for (unsigned i = 0; i < space->pages; i++) {
        const struct space_page *page = &space->page[i];
        t->tlb[page->context][page->slot] = page->entry;
        t->tlb_flags[page->context][page->slot] = page->flags;
        fast_check_code(t, page->context, page->slot);
        t->tlb_used[page->context][page->slot / 64] |= UINT64_C(1) << (page->slot % 64);
        t->tlb_global[page->context][page->slot / 64] &= ~(UINT64_C(1) << (page->slot % 64));
    }
    for (unsigned i = 0; i < space->jumps; i++)
        if (!space->jump[i]->dead)
            jumps_enter(t, space->jump[i], false);
}

void spaces_switch(struct translate_vcpu *t, bool keep)
{
    struct spaces *spaces = t->spaces;
    uint16_t pcid = (uint16_t)(t->soft.core.cpu.cr3 & 0xfff);
    struct space *space = find(spaces, pcid);
    if (pcid == spaces->current && keep)
        return;
    if (space && !keep)
        space->valid = false;
    if (pcid != spaces->current) {
        struct space *left = oldest(spaces);
        if (left == space) /* every place is taken, this one for longest */
            space = NULL;
        *left = (struct space){.valid = true, .pcid = spaces->current, .stamp = ++spaces->stamp};
        put_pages_aside(t, left);
        put_jumps_aside(t, left);
    }
    fast_forget(t, true);
    jumps_forget(t, true);
    spaces->current = pcid;
    if (!space || !space->valid)
        return;
    put_in_place(t, space);
    space->valid = false;
}
