/* paging.c - translation and permissions: every combination of the bits against a model in a few lines,
 * reserved bits, accessed and dirty bits, large pages, CR2, accesses across pages, the TLB.
 * Intel SDM 3A chapter 4. */
#include "kernel.h"

#define T 0x400000000000ull /* the page under test; the one after it is T2 */
#define T2 (T + 4096)
#define CR0_WP 0x10000ull
#define CR4_PGE 0x80ull
#define CR4_SMEP 0x100000ull
#define CR4_SMAP 0x200000ull
#define EFER_NXE 0x800ull

CODE(read_it, "mov (%rdi), %eax\n int3")
CODE(write_it, "mov %eax, (%rdi)\n int3")
CODE(jump_it, "jmp *%rdi")
CODE(add_it, "add %eax, (%rdi)\n int3")
CODE(read8, "mov (%rdi), %rax\n int3")
CODE(write8, "mov %rax, (%rdi)\n int3")

static u8 *page, *page2;

static struct trap access(const struct code *code, unsigned ring, u64 address, u64 rflags)
{
    struct trap trap;
    struct frame frame = code_frame(code, ring);
    frame.rdi = address;
    frame.rax = 0xcccccccc; /* so that what is written can be executed: INT3 */
    frame.rflags = rflags;
    run(&frame, &trap);
    return trap;
}

/* The error code bits of a reserved bit: that the entry is present is part of it, but not for TCG. */
static long reserved(void)
{
    return under_tcg() ? 8 : 9;
}

/* ---- all combinations ---- */

struct world {
    bool wp, nxe, smep, smap;
};
struct rights {
    u64 leaf, table; /* PTE, PDE */
};
enum kind { READ, WRITE, EXECUTE };

/* The error code of the page fault, or -1 when the access is allowed. */
static long model(struct world world, struct rights rights, enum kind kind, bool user, bool ac)
{
    const long code = (kind == WRITE ? 2 : 0) | (user ? 4 : 0) | (kind == EXECUTE && (world.nxe || world.smep) ? 16 : 0);
    const u64 both = rights.leaf & rights.table;
    const bool user_page = both & PTE_U, writable = both & PTE_W;
    const bool nx = ((rights.leaf | rights.table) & PTE_NX) != 0;
    /* Without NXE the bit is reserved; the table's entry is looked at first. */
    if ((rights.table & PTE_NX) && !world.nxe)
        return code | reserved();
    if (!(both & PTE_P))
        return code;
    if (nx && !world.nxe)
        return code | reserved();
    if (user && !user_page)
        return code | 1;
    if (!user && user_page && kind == EXECUTE && world.smep)
        return code | 1;
    if (!user && user_page && kind != EXECUTE && world.smap && !ac)
        return code | 1;
    if (kind == WRITE && !writable && (user || world.wp))
        return code | 1;
    if (kind == EXECUTE && nx)
        return code | 1;
    return -1;
}

static void set_world(struct world world)
{
    u64 cr4 = read_cr4() & ~(CR4_SMEP | CR4_SMAP);
    write_cr0((read_cr0() & ~CR0_WP) | (world.wp ? CR0_WP : 0));
    wrmsr(MSR_EFER, (rdmsr(MSR_EFER) & ~EFER_NXE) | (world.nxe ? EFER_NXE : 0));
    write_cr4(cr4 | (world.smep ? CR4_SMEP : 0) | (world.smap ? CR4_SMAP : 0));
}

/* Combination n of the bits of a leaf and its table. */
static struct rights rights_of(unsigned n)
{
    struct rights rights = { (n & 1 ? PTE_P : 0) | (n & 2 ? PTE_W : 0) | (n & 4 ? PTE_U : 0) | (n & 8 ? PTE_NX : 0),
                             PTE_P | (n & 16 ? PTE_W : 0) | (n & 32 ? PTE_U : 0) | (n & 64 ? PTE_NX : 0) };
    return rights;
}

/* All rights, kinds and rings in one world; reports the first difference. */
static unsigned check_world(struct world world, const char **ret_text)
{
    static const struct code *const codes[] = { &read_it, &write_it, &jump_it };
    unsigned wrong = 0;
    u64 *leaf = entry_of(T, 1), *table = entry_of(T, 2);
    const u64 saved_leaf = *leaf, saved_table = *table;
    set_world(world);
    for (unsigned n = 0; n < 128 * 3 * 4; n++) {
        struct rights rights = rights_of(n % 128);
        enum kind kind = n / 128 % 3;
        bool user = n / 384 & 1, ac = n / 768 & 1;
        *leaf = (saved_leaf & PTE_ADDRESS) | rights.leaf;
        *table = (saved_table & PTE_ADDRESS) | rights.table;
        invlpg(T);
        struct trap trap = access(codes[kind], user ? 3 : 0, T, FLAG_FIXED | (ac ? FLAG_AC : 0));
        long want = model(world, rights, kind, user, ac);
        long got = trap.frame.vector == 14 ? (long)trap.frame.error : trap.frame.vector == 3 ? -1 : -2;
        if (got != want || (want >= 0 && trap.cr2 != T)) {
            if (!wrong++)
                print("  leaf %lx table %lx kind %u user %d ac %d: vector %lu error %lx cr2 %lx, want %lx\n",
                      (unsigned long)rights.leaf, (unsigned long)rights.table, kind, user, ac,
                      (unsigned long)trap.frame.vector, (unsigned long)trap.frame.error, (unsigned long)trap.cr2,
                      (unsigned long)want);
        }
    }
    *leaf = saved_leaf;
    *table = saved_table;
    set_world((struct world){ true, true, false, false });
    write_cr3(read_cr3());
    *ret_text = "see the line before";
    return wrong;
}

static void check_permissions(void)
{
    const bool smep = cpu_has(7, 1, 7), smap = cpu_has(7, 1, 20);
    static const char *const names[] = { "WP off", "WP on" };
    for (unsigned n = 0; n < 16; n++) {
        struct world world = { n & 1, n & 2, n & 4, n & 8 };
        const char *text;
        if ((world.smep && !smep) || (world.smap && !smap)) {
            skip("permissions with SMEP or SMAP", "CPUID has none");
            continue;
        }
        unsigned wrong = check_world(world, &text);
        print("  %s%s%s%s: ", names[world.wp], world.nxe ? ", NX" : "", world.smep ? ", SMEP" : "", world.smap ? ", SMAP" : "");
        check(wrong == 0, "1536 permissions", "%u differ; %s", wrong, text);
    }
}

/* ---- reserved bits ---- */

static void check_reserved(void)
{
    u32 width[4];
    cpuid(0x80000008, 0, width);
    u64 *pte = entry_of(T, 1), *pde = entry_of(T, 2), *pml4e = entry_of(T, 4);
    u64 saved = *pte;
    if ((width[0] & 0xff) < 52) {
        *pte |= 1ull << 51;
        invlpg(T);
        struct trap trap = access(&read_it, 0, T, 2);
        check_trap("address beyond the width, read", &trap, 14, reserved());
        trap = access(&write_it, 3, T, 2);
        check_trap("address beyond the width, user write", &trap, 14, reserved() | 6);
        trap = access(&jump_it, 3, T, 2);
        check_trap("address beyond the width, user fetch", &trap, 14, reserved() | 20);
        *pte = saved;
    }
    saved = *pml4e;
    *pml4e |= PTE_PS;
    write_cr3(read_cr3());
    struct trap trap = access(&read_it, 0, T, 2);
    check_trap("PS in a PML4 entry", &trap, 14, reserved());
    *pml4e = saved;
    saved = *pde;
    *pde = (u64)page & ~0x1fffffull;
    *pde |= PTE_P | PTE_W | PTE_U | PTE_PS | 0x2000;
    write_cr3(read_cr3());
    trap = access(&read_it, 0, T, 2);
    check_trap("bit 13 of a 2-MiB entry", &trap, 14, reserved());
    *pde = saved;
    write_cr3(read_cr3());
}

/* ---- accessed and dirty ---- */

static void check_accessed_dirty(void)
{
    u64 *entry[5] = { NULL, entry_of(T, 1), entry_of(T, 2), entry_of(T, 3), entry_of(T, 4) };
    for (unsigned level = 1; level <= 4; level++)
        *entry[level] &= ~(PTE_A | PTE_D);
    write_cr3(read_cr3());
    struct trap trap = access(&read_it, 3, T, 2);
    check_trap("read", &trap, 3, 0);
    for (unsigned level = 1; level <= 4; level++)
        check_equal("accessed, not dirty, after a read", *entry[level] & (PTE_A | PTE_D), PTE_A);
    access(&write_it, 3, T, 2);
    check_equal("dirty after a write", *entry[1] & (PTE_A | PTE_D), PTE_A | PTE_D);
    check_equal("the table's entry stays clean", *entry[2] & PTE_D, 0);

    *entry[1] &= ~(PTE_A | PTE_D | PTE_W);
    invlpg(T);
    trap = access(&write_it, 3, T, 2);
    check_trap("write to a read-only page", &trap, 14, 7);
    check_equal("it does not get dirty", *entry[1] & PTE_D, 0);
    *entry[1] = (*entry[1] & ~(PTE_A | PTE_D)) | PTE_W;
    invlpg(T);
    trap = access(&jump_it, 3, T, 2);
    check_trap("fetch", &trap, 3, 0);
    check_equal("accessed, not dirty, after a fetch", *entry[1] & (PTE_A | PTE_D), PTE_A);
    *entry[1] &= ~(PTE_A | PTE_D);
    invlpg(T);
    trap = access(&add_it, 3, T, 2);
    check_equal("dirty after a read-modify-write", *entry[1] & (PTE_A | PTE_D), PTE_A | PTE_D);
    /* The dirty bit is set again after software cleared it and dropped the translation. */
    *entry[1] &= ~PTE_D;
    invlpg(T);
    access(&write_it, 0, T, 2);
    check_equal("dirty again", *entry[1] & PTE_D, PTE_D);
}

/* ---- large pages ---- */

static void check_large(void)
{
    const u64 va = 0x410000000000ull, huge = 0x418000000000ull;
    volatile u64 *low = (volatile u64 *)(va + (u64)page % 0x200000);
    map_large(va, (u64)page & ~0x1fffffull, PTE_P | PTE_W | PTE_U, 2);
    *(volatile u64 *)page = 0x1234567812345678;
    check_equal("read by a 2-MiB page", *low, 0x1234567812345678);
    *low = 0x55aa;
    check_equal("write by a 2-MiB page", *(volatile u64 *)page, 0x55aa);
    check_equal("its accessed and dirty bits", *entry_of(va, 2) & (PTE_A | PTE_D), PTE_A | PTE_D);
    struct trap trap = access(&read_it, 3, (u64)low, 2);
    check_trap("a 2-MiB page, ring 3", &trap, 3, 0);
    *entry_of(va, 2) &= ~(u64)PTE_W;
    invlpg(va);
    trap = access(&write_it, 3, (u64)low, 2);
    check_trap("a read-only 2-MiB page", &trap, 14, 7);
    check_equal("CR2 in a 2-MiB page", trap.cr2, (u64)low);
    if (!cpu_has(0x80000001, 3, 26)) {
        skip("1-GiB pages", "CPUID has none");
        return;
    }
    map_large(huge, 0, PTE_P | PTE_W, 3);
    check_equal("read by a 1-GiB page", *(volatile u64 *)(huge + (u64)page), 0x55aa);
    trap = access(&read_it, 3, huge + (u64)page, 2);
    check_trap("a 1-GiB supervisor page, ring 3", &trap, 14, 5);
}

/* ---- across a page boundary ---- */

CODE(long_move, "movabs $0x1122334455667788, %rax\n int3")

static void check_crossing(void)
{
    *entry_of(T2, 1) &= ~PTE_P;
    invlpg(T2);
    struct trap trap = access(&read8, 3, T2 - 3, 2);
    check_trap("read into a missing page", &trap, 14, 4);
    check_equal("CR2 is the second page", trap.cr2, T2);
    memset(page + 4088, 0x77, 8);
    trap = access(&write8, 3, T2 - 3, 2);
    check_trap("write into a missing page", &trap, 14, 6);
    check_equal("CR2 is the second page", trap.cr2, T2);
    check_equal("the first page is untouched", *(volatile u64 *)(page + 4088), 0x7777777777777777);
    trap = access(&read8, 3, T2 - 8, 2);
    check_trap("read up to the missing page", &trap, 3, 0);

    memcpy(page + 4096 - 4, long_move.start, 4);
    memcpy(page2, long_move.start + 4, (size_t)(long_move.end - long_move.start) - 4);
    trap = access(&jump_it, 3, T2 - 4, 2);
    check_trap("an instruction into a missing page", &trap, 14, 0x14);
    check_equal("CR2 is the second page", trap.cr2, T2);
    check_equal("RIP is the instruction", trap.frame.rip, T2 - 4);
    *entry_of(T2, 1) |= PTE_P;
    trap = access(&jump_it, 3, T2 - 4, 2);
    check_trap("an instruction across pages", &trap, 3, 0);
    check_equal("its immediate", trap.frame.rax, 0x1122334455667788);
    *entry_of(T2, 1) |= PTE_NX;
    invlpg(T2);
    trap = access(&jump_it, 3, T2 - 4, 2);
    check_trap("an instruction into a no-execute page", &trap, 14, 0x15);
    *entry_of(T2, 1) &= ~PTE_NX;
    invlpg(T2);
    /* Across two pages that are not neighbours in physical memory. */
    trap = access(&write8, 3, T2 - 5, 2);
    check_trap("write across pages", &trap, 3, 0);
    u64 got = 0;
    memcpy(&got, page + 4091, 5);
    memcpy((u8 *)&got + 5, page2, 3);
    check_equal("both parts arrived", got, 0xcccccccc);
}

/* ---- the TLB ---- */

static void check_tlb(void)
{
    volatile u64 *at = (volatile u64 *)T;
    u64 *pte = entry_of(T, 1);
    *(u64 *)page = 1;
    *(u64 *)page2 = 2;
    const u64 to_page = (u64)page | PTE_P | PTE_W | PTE_U, to_page2 = (u64)page2 | PTE_P | PTE_W | PTE_U;
    check_equal("before", *at, 1);
    *pte = to_page2;
    invlpg(T);
    check_equal("after INVLPG", *at, 2);
    *pte = to_page;
    write_cr3(read_cr3());
    check_equal("after MOV to CR3", *at, 1);
    write_cr4(read_cr4() | CR4_PGE);
    *pte = to_page | PTE_G;
    invlpg(T);
    check_equal("global", *at, 1);
    *pte = to_page2 | PTE_G;
    invlpg(T);
    check_equal("a global page after INVLPG", *at, 2);
    *pte = to_page | PTE_G;
    write_cr4(read_cr4() & ~CR4_PGE);
    check_equal("a global page after CR4.PGE changed", *at, 1);
    *pte = 0;
    invlpg(T);
    struct trap trap = access(&read_it, 0, T, 2);
    check_trap("gone", &trap, 14, 0);
    *pte = to_page; /* no flush is needed: what is not present is not cached */
    check_equal("there again, without a flush", *at, 1);
    *pte = to_page & ~PTE_W;
    invlpg(T);
    check_equal("read-only", *at, 1);
    *pte = to_page; /* more rights need no flush either: a stale entry faults and is walked again */
    trap = access(&write_it, 0, T, 2);
    if (trap.frame.vector == 14)
        trap = access(&write_it, 0, T, 2);
    check_trap("writable", &trap, 3, 0);
}

static void check_aliases(void)
{
    for (unsigned i = 0; i < 64; i++)
        map(0x420000000000ull + 0x40001000ull * i, (u64)page, PTE_P | PTE_W);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 64; i++) {
        *(volatile u64 *)(0x420000000000ull + 0x40001000ull * i + 8) = i;
        for (unsigned j = 0; j < 64; j++)
            wrong += *(volatile u64 *)(0x420000000000ull + 0x40001000ull * j + 8) != i;
    }
    check(wrong == 0, "64 addresses of one page", "%u reads differ", wrong);
    map(0xffffffff80000000ull, (u64)page, PTE_P | PTE_W);
    check_equal("the high half", *(volatile u64 *)0xffffffff80000008ull, 63);
    map(0x7ffffffff000ull, (u64)page, PTE_P | PTE_W | PTE_U);
    struct trap trap = access(&read8, 3, 0x7ffffffffffdull, 2);
    if (under_tcg())
        skip("an access over the end of the low half", "TCG wraps into the hole");
    else
        check_trap("an access over the end of the low half", &trap, 13, 0);
}

void kernel_main(void)
{
    page = pages_new(3);
    page2 = page + 8192;
    memset(page, 0xcc, 4096);
    map(T, (u64)page, PTE_P | PTE_W | PTE_U);
    map(T2, (u64)page2, PTE_P | PTE_W | PTE_U);
    check_permissions();
    check_reserved();
    check_accessed_dirty();
    check_large();
    check_crossing();
    check_tlb();
    check_aliases();
}
