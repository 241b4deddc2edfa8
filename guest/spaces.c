/* spaces.c - address spaces with PCIDs: what holds after MOV to CR3 that keeps, MOV to CR3 that does not, INVLPG and
 * INVPCID. Every check runs hot, so that an engine which remembers mappings, and code found through
 * them, has something to remember. */
#include "kernel.h"

#define DATA_AT 0x430000000000ull
#define CODE_AT 0x430000001000ull
#define CR4_PCIDE 0x20000ull
#define KEEP (1ull << 63)
#define ROUNDS 2000u

static struct space {
    u64 root, pcid;
    u64 *data, *code; /* the entries that map DATA_AT and CODE_AT */
} space[2];
static u64 data_page[3], code_page[3]; /* number n holds, and returns, n */

static void enter(unsigned n, bool keep)
{
    write_cr3(space[n].root | space[n].pcid | (keep ? KEEP : 0));
}

static u64 look(void)
{
    return *(volatile u64 *)DATA_AT;
}

static u64 call(void)
{
    u64 result;
    __asm__ volatile("call *%1" : "=a"(result) : "r"(CODE_AT) : "memory", "cc");
    return result;
}

static void point(unsigned n, unsigned page)
{
    *space[n].data = data_page[page] | PTE_P | PTE_W;
    *space[n].code = code_page[page] | PTE_P | PTE_W;
}

static void invpcid(u64 type, u64 pcid, u64 address)
{
    const u64 descriptor[2] = {pcid, address};
    __asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"(type) : "memory");
}

/* Looks `ROUNDS` times; the number of times that data or code were not those of `page`. */
static unsigned wrong(unsigned page)
{
    unsigned count = 0;
    for (unsigned i = 0; i < ROUNDS; i++)
        count += look() != page || call() != page;
    return count;
}

static void make_pages(void)
{
    for (unsigned n = 0; n < 3; n++) {
        u8 *data = page_new(), *code = page_new();
        const u8 body[] = {0xb8, (u8)n, 0, 0, 0, 0xc3}; /* mov eax, n; ret */
        *(u64 *)data = n;
        memcpy(code, body, sizeof body);
        data_page[n] = (u64)data;
        code_page[n] = (u64)code;
    }
}

/* Both roots share all but what lies from DATA_AT on. */
static void make_spaces(void)
{
    u64 *other = page_new();
    memcpy(other, (void *)(read_cr3() & PTE_ADDRESS), 4096);
    space[0].root = read_cr3() & PTE_ADDRESS;
    space[1].root = (u64)other;
    for (unsigned n = 0; n < 2; n++) {
        space[n].pcid = 0;
        enter(n, false);
        map(DATA_AT, data_page[n], PTE_P | PTE_W);
        map(CODE_AT, code_page[n], PTE_P | PTE_W);
        space[n].data = entry_of(DATA_AT, 1);
        space[n].code = entry_of(CODE_AT, 1);
    }
    enter(0, false);
}

static void check_switching(const char *name, bool keep)
{
    unsigned count = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned n = i & 1;
        enter(n, keep);
        count += look() != n || call() != n;
    }
    check(count == 0, name, "%u of %u looks went to the other", count, ROUNDS);
}

static void check_flushes(void)
{
    enter(0, true);
    check_equal("before", wrong(0), 0);
    enter(1, true);
    point(0, 2);
    enter(0, false);
    check_equal("changed from elsewhere, then entered without keeping", wrong(2), 0);
    point(0, 0);
    invlpg(DATA_AT);
    invlpg(CODE_AT);
    check_equal("after INVLPG", wrong(0), 0);
    enter(1, true);
    check_equal("the other space after an INVLPG here", wrong(1), 0);
    point(1, 2);
    write_cr3(space[1].root | space[1].pcid);
    check_equal("after loading the same CR3", wrong(2), 0);
    point(1, 1);
    enter(1, false);
}

static void check_invpcid(void)
{
    static const char *const names[] = {"INVPCID of addresses", "INVPCID of a space", "INVPCID of everything",
                                        "INVPCID of all but global"};
    for (u64 type = 0; type < 4; type++) {
        for (unsigned current = 0; current < 2; current++) { /* from the space itself, and from the other */
            enter(0, true);
            unsigned before = wrong(0);
            enter(current, true);
            point(0, 2);
            invpcid(type, space[0].pcid, DATA_AT);
            if (type == 0)
                invpcid(type, space[0].pcid, CODE_AT);
            enter(0, true);
            check_equal(names[type], before + wrong(2), 0);
            point(0, 0);
            enter(0, false);
        }
    }
}

/* A PCID given to another space begins with nothing. */
static void check_reuse(void)
{
    enter(0, true);
    unsigned count = wrong(0);
    space[1].pcid = space[0].pcid;
    enter(1, false);
    count += wrong(1);
    enter(0, false);
    check_equal("one PCID for two spaces", count + wrong(0), 0);
}

/* More PCIDs than anybody keeps apart. */
static void check_many(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned n = i * 7 % 5 & 1, first = i < 64;
        space[n].pcid = 1 + i * 3 % 32 * 2 + n;
        enter(n, !first);
        count += look() != n || call() != n;
    }
    check(count == 0, "64 PCIDs", "%u looks went to the other", count);
}

void kernel_main(void)
{
    make_pages();
    make_spaces();
    check_switching("without PCIDs", false);
    enter(0, false);
    if (!cpu_has(1, 2, 17)) {
        skip("PCIDs", "the processor has none");
        return;
    }
    write_cr4(read_cr4() | CR4_PCIDE);
    space[0].pcid = 1;
    space[1].pcid = 2;
    enter(0, false);
    enter(1, false);
    check_switching("with PCIDs, kept", true);
    check_switching("with PCIDs, not kept", false);
    check_flushes();
    if (cpu_has(7, 1, 10))
        check_invpcid();
    else
        skip("INVPCID", "the processor has none");
    check_reuse();
    check_many();
    space[0].pcid = 0;
    enter(0, false);
    write_cr4(read_cr4() & ~CR4_PCIDE);
    check_equal("PCIDs off again", wrong(0), 0);
}
