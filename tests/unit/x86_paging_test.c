/* x86_paging_test.c - page walks against a plain model of the rules, for every page size, permission bit and
 * access; reserved bits; accessed and dirty bits; and what the TLB keeps. */
#include "isa/x86/paging.h"

#include "check.h"
#include "guest.h"

#define LINEAR UINT64_C(0x40301000) /* every level's index differs from 0 but the PML4's */
#define GPA UINT64_C(0x301000)      /* where all of the tables below map it */
#define TABLE(level) (UINT64_C(0x1000) * (level)) /* the table whose entries are of that level */

#define P UINT64_C(1)
#define W UINT64_C(2)
#define U UINT64_C(4)
#define A UINT64_C(0x20)
#define D UINT64_C(0x40)
#define PS UINT64_C(0x80)
#define G UINT64_C(0x100)
#define NX (UINT64_C(1) << 63)

static struct guest guest;

struct shape {
    const char *name;
    unsigned top, leaf; /* levels */
    unsigned entry_bits; /* 32 or 64 */
    bool pae, wide;
};
static const struct shape shapes[] = {
    {"32-bit, 4 KiB", 2, 1, 32, false, false}, {"32-bit, 4 MiB", 2, 2, 32, false, false},
    {"PAE, 4 KiB", 3, 1, 64, true, false},     {"PAE, 2 MiB", 3, 2, 64, true, false},
    {"4-level, 4 KiB", 4, 1, 64, true, true},  {"4-level, 2 MiB", 4, 2, 64, true, true},
    {"4-level, 1 GiB", 4, 3, 64, true, true},
};
#define SHAPES (sizeof shapes / sizeof shapes[0])

static unsigned shift_of(const struct shape *shape, unsigned level)
{
    return 12 + (level - 1) * (shape->entry_bits == 32 ? 10 : 9);
}

static uint64_t entry_address(const struct shape *shape, unsigned level)
{
    uint64_t index = LINEAR >> shift_of(shape, level) & (shape->entry_bits == 32 ? 1023 : 511);
    if (shape->pae && !shape->wide && level == 3)
        index &= 3;
    return TABLE(level) + index * shape->entry_bits / 8;
}

static uint64_t get_entry(const struct shape *shape, unsigned level)
{
    uint64_t entry = 0;
    memcpy(&entry, guest.ram + entry_address(shape, level), shape->entry_bits / 8);
    return entry;
}

static void put_entry(const struct shape *shape, unsigned level, uint64_t entry)
{
    guest_put(&guest, entry_address(shape, level), &entry, shape->entry_bits / 8);
}

/* Builds the tables: `upper` are the bits of every level above the leaf, `leaf` of the leaf. */
static void build(const struct shape *shape, uint64_t upper, uint64_t leaf)
{
    for (unsigned level = shape->top; level > shape->leaf; level--) {
        uint64_t bits = shape->pae && !shape->wide && level == 3 ? P : upper;
        put_entry(shape, level, TABLE(level - 1) | bits);
    }
    uint64_t frame = GPA & ~((UINT64_C(1) << shift_of(shape, shape->leaf)) - 1);
    put_entry(shape, shape->leaf, frame | leaf | (shape->leaf > 1 ? PS : 0));
}

static void set_mode(const struct shape *shape, bool wp, bool nxe, bool smep)
{
    struct x86_cpu *cpu = &guest.core->cpu;
    cpu->cr0 = X86_CR0_PE | X86_CR0_PG | (wp ? X86_CR0_WP : 0);
    cpu->cr3 = TABLE(shape->top);
    cpu->cr4 = (shape->pae ? X86_CR4_PAE : 0) | X86_CR4_PSE | (smep ? X86_CR4_SMEP : 0) | X86_CR4_PGE;
    cpu->efer = (shape->wide ? X86_EFER_LME | X86_EFER_LMA : 0) | (nxe ? X86_EFER_NXE : 0);
    x86_mode_changed(guest.core);
}

struct want {
    bool ok;
    uint32_t error;
};

/* The rules of SDM 3A, 4.6 and 4.7, in their own words. */
static struct want model(const struct shape *shape, uint64_t upper, uint64_t leaf, bool wp, bool nxe, bool smep,
                         enum x86_access access, enum x86_tlb_context context)
{
    bool pae_top_only = shape->top - shape->leaf == 1 && shape->pae && !shape->wide;
    uint64_t both = shape->top == shape->leaf || pae_top_only ? leaf : leaf & upper;
    bool user_page = both & U, writable = both & W;
    bool nx = shape->entry_bits == 64 && ((leaf | (shape->top == shape->leaf || pae_top_only ? 0 : upper)) & NX);
    bool user = context == X86_TLB_USER;
    uint32_t error = (access == X86_WRITE ? 2u : 0) | (user ? 4u : 0);
    if (access == X86_EXECUTE && (smep || (nxe && shape->pae)))
        error |= 16;
    bool upper_nx = upper & NX && shape->top != shape->leaf && !pae_top_only;
    if (upper_nx && !nxe) /* met first, on the way down */
        return (struct want){false, error | 9};
    if (!(leaf & P))
        return (struct want){false, error};
    if (nx && !nxe)
        return (struct want){false, error | 9};
    bool ok;
    if (user)
        ok = user_page && (access != X86_WRITE || writable) && (access != X86_EXECUTE || !nx);
    else if (access == X86_EXECUTE)
        ok = !nx && !(user_page && smep);
    else
        ok = (access == X86_READ || writable || !wp) && !(user_page && context == X86_TLB_SUPERVISOR_SMAP);
    return (struct want){ok, ok ? 0 : error | 1};
}

static void check_one(const struct shape *shape, uint64_t upper, uint64_t leaf, unsigned flags)
{
    bool wp = flags & 1, nxe = flags & 2, smep = flags & 4;
    set_mode(shape, wp, nxe, smep);
    for (unsigned access = 0; access < 3; access++) {
        for (unsigned context = 0; context < 3; context++) {
            struct x86_translation t;
            uint32_t error = 0;
            build(shape, upper, leaf);
            struct want want = model(shape, upper, leaf, wp, nxe, smep, access, context);
            int rc = x86_walk(guest.core, LINEAR + 5, access, context, &t, &error);
            bool same = (rc == 0) == want.ok && (want.ok ? t.gpa == GPA + 5 : error == want.error);
            CHECK(same);
            if (!same)
                fprintf(stderr, "  %s upper %llx leaf %llx flags %u access %u context %u: rc %d error %x, not %d %x\n",
                        shape->name, (long long)upper, (long long)leaf, flags, access, context, rc, error, want.ok, want.error);
            /* Accessed and dirty bits: all of a walk that succeeds, none of one that does not. */
            uint64_t set = want.ok ? A | (access == X86_WRITE ? D : 0) : 0;
            CHECK_EQ(get_entry(shape, shape->leaf) & (A | D), set);
            for (unsigned level = shape->leaf + 1; level <= shape->top; level++) {
                bool pdpte = shape->pae && !shape->wide && level == 3;
                CHECK_EQ(get_entry(shape, level) & (A | D), want.ok && !pdpte ? A : 0);
            }
            if (want.ok) {
                CHECK_EQ(t.page_size, UINT64_C(1) << shift_of(shape, shape->leaf));
                CHECK_EQ(t.readable, model(shape, upper, leaf, wp, nxe, smep, X86_READ, context).ok);
                CHECK_EQ(t.executable, model(shape, upper, leaf, wp, nxe, smep, X86_EXECUTE, context).ok);
                CHECK_EQ(t.writable, access == X86_WRITE);
                uint64_t gpa = 0;
                CHECK_EQ(x86_translate_quiet(guest.core, LINEAR + 7, &gpa), 0);
                CHECK_EQ(gpa, GPA + 7);
            }
        }
    }
}

static void test_permissions(void)
{
    for (unsigned s = 0; s < SHAPES; s++) {
        bool nx = shapes[s].entry_bits == 64;
        for (unsigned bits = 0; bits < 128; bits++) {
            uint64_t upper = P | (bits & 1 ? W : 0) | (bits & 2 ? U : 0) | (bits & 4 && nx ? NX : 0);
            uint64_t leaf = (bits & 8 ? P : 0) | (bits & 16 ? W : 0) | (bits & 32 ? U : 0) | (bits & 64 && nx ? NX : 0);
            for (unsigned flags = 0; flags < 8; flags++)
                check_one(&shapes[s], upper, leaf, flags);
        }
    }
}

/* Each bit of an entry at each level: the ones that must be 0 give P and RSVD, whatever the access. */
static void test_reserved(void)
{
    for (unsigned s = 0; s < SHAPES; s++) {
        const struct shape *shape = &shapes[s];
        set_mode(shape, true, true, false);
        for (unsigned level = shape->leaf; level <= shape->top; level++) {
            for (unsigned bit = 1; bit < shape->entry_bits; bit++) {
                bool large = level == shape->leaf && level > 1, pdpte = shape->pae && !shape->wide && level == 3;
                bool reserved = shape->entry_bits == 64 && bit >= 40 && bit < (shape->wide ? 52 : 63);
                if (pdpte)
                    reserved = bit >= 40 || bit == 1 || bit == 2 || (bit >= 5 && bit <= 8);
                else if (level == 4)
                    reserved |= bit == 7;
                else if (large && shape->entry_bits == 64)
                    reserved |= bit >= 13 && bit < shift_of(shape, level);
                else if (large)
                    reserved = bit == 21;
                /* Other bits would change what the entry means, not whether it is valid. */
                if (!reserved)
                    continue;
                struct x86_translation t;
                uint32_t error = 0;
                build(shape, P | W | U, P | W | U);
                put_entry(shape, level, get_entry(shape, level) | UINT64_C(1) << bit);
                CHECK_EQ(x86_walk(guest.core, LINEAR, X86_READ, X86_TLB_USER, &t, &error), -1);
                CHECK_EQ(error, X86_PF_P | X86_PF_RSVD | X86_PF_U);
                CHECK_EQ(get_entry(shape, shape->leaf) & A, 0);
            }
        }
    }
}

static void test_pse36(void)
{
    struct x86_translation t;
    uint32_t error;
    set_mode(&shapes[1], true, false, false);
    build(&shapes[1], 0, P | W | U);
    put_entry(&shapes[1], 2, get_entry(&shapes[1], 2) | 0xa5 << 13);
    CHECK_EQ(x86_walk(guest.core, LINEAR, X86_READ, X86_TLB_USER, &t, &error), 0);
    CHECK_EQ(t.gpa, UINT64_C(0xa500000000) | GPA);
}

/* ---- the TLB ---- */

static struct x86_tlb_entry *fill(enum x86_access access, enum x86_tlb_context context)
{
    struct x86_tlb_entry *entry = NULL;
    uint32_t error;
    CHECK_EQ(x86_tlb_try_fill(guest.core, LINEAR, access, context, &entry, &error), 0);
    return entry;
}

static void test_tlb_tags(void)
{
    const struct shape *shape = &shapes[4];
    set_mode(shape, true, true, false);
    build(shape, P | W | U, P | W | U | NX);
    memset(guest.flags, 0, sizeof guest.flags);
    struct x86_tlb_entry *entry = fill(X86_READ, X86_TLB_SUPERVISOR);
    CHECK_EQ(entry->read_tag, LINEAR);
    CHECK_EQ(entry->write_tag, X86_TLB_NONE); /* not dirty yet */
    CHECK_EQ(entry->exec_tag, X86_TLB_NONE);  /* NX */
    CHECK_EQ(entry->gpa, GPA);
    CHECK_EQ(entry->addend + LINEAR, (uintptr_t)(guest.ram + GPA));
    CHECK_EQ(guest.flags[GPA / 4096], 0);
    entry = fill(X86_WRITE, X86_TLB_SUPERVISOR);
    CHECK_EQ(entry->write_tag, LINEAR);
    CHECK_EQ(guest.flags[GPA / 4096], X86_PAGE_DIRTY);
    /* Once the page counts as dirty a read brings the store permission along. */
    x86_tlb_flush(guest.core, false);
    CHECK_EQ(entry->read_tag, X86_TLB_NONE);
    CHECK_EQ(fill(X86_READ, X86_TLB_SUPERVISOR)->write_tag, LINEAR);
    /* A user page that SMAP hides can still be fetched from. */
    build(shape, P | W | U, P | W | U | D);
    entry = fill(X86_EXECUTE, X86_TLB_SUPERVISOR_SMAP);
    CHECK_EQ(entry->exec_tag, LINEAR);
    CHECK_EQ(entry->read_tag, X86_TLB_NONE);
    CHECK_EQ(entry->write_tag, X86_TLB_NONE);
}

static void test_tlb_flush(void)
{
    const struct shape *shape = &shapes[4], *large = &shapes[5];
    set_mode(shape, true, true, false);
    build(shape, P | W | U, P | W | U | G);
    struct x86_tlb_entry *entry = fill(X86_READ, X86_TLB_USER);
    x86_tlb_flush(guest.core, true);
    CHECK_EQ(entry->read_tag, LINEAR); /* global */
    x86_tlb_flush_page(guest.core, LINEAR + 4096);
    CHECK_EQ(entry->read_tag, LINEAR);
    x86_tlb_flush_page(guest.core, LINEAR + 4095);
    CHECK_EQ(entry->read_tag, X86_TLB_NONE); /* INVLPG takes global ones too */
    build(shape, P | W | U, P | W | U);
    entry = fill(X86_READ, X86_TLB_USER);
    x86_tlb_flush(guest.core, true);
    CHECK_EQ(entry->read_tag, X86_TLB_NONE);
    /* INVLPG of any address in a large page drops what was cached of all of it. */
    set_mode(large, true, true, false);
    build(large, P | W | U, P | W | U | G);
    entry = fill(X86_READ, X86_TLB_USER);
    x86_tlb_flush_page(guest.core, (LINEAR & ~UINT64_C(0x1fffff)) + 0x1000);
    CHECK_EQ(entry->read_tag, X86_TLB_NONE);
    entry = fill(X86_READ, X86_TLB_USER);
    x86_tlb_flush_page(guest.core, (LINEAR & ~UINT64_C(0x1fffff)) - 0x1000);
    CHECK_EQ(entry->read_tag, LINEAR);
}

static void test_mmio(void)
{
    const struct shape *shape = &shapes[4];
    set_mode(shape, true, true, false);
    build(shape, P | W | U, P | W | U);
    put_entry(shape, 1, (get_entry(shape, 1) & ~GPA) | 0xfee00000u);
    struct x86_tlb_entry *entry = fill(X86_WRITE, X86_TLB_SUPERVISOR);
    CHECK_EQ(entry->gpa, 0xfee00000u);
    CHECK_EQ(entry->read_tag, X86_TLB_NONE);
    CHECK_EQ(entry->write_tag, X86_TLB_NONE);
    CHECK_EQ(entry->exec_tag, X86_TLB_NONE);
    CHECK_EQ(x86_load32(guest.core, LINEAR), UINT32_MAX);
    x86_tlb_flush(guest.core, false);
    struct x86_tlb_entry *none;
    uint32_t error;
    CHECK_EQ(x86_tlb_try_fill(guest.core, UINT64_C(1) << 47, X86_READ, X86_TLB_SUPERVISOR, &none, &error), -2);
}

int main(void)
{
    if (guest_new(&guest) != 0)
        return 1;
    memset(guest.ram, 0, GUEST_RAM);
    test_permissions();
    test_reserved();
    test_pse36();
    test_tlb_tags();
    test_tlb_flush();
    test_mmio();
    guest_free(&guest);
    CHECK_DONE();
}
