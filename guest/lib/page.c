/* page.c - page tables for the tests' own mappings; pages are taken and never given back. */
#include "kernel.h"

extern u8 kernel_end[];
static u64 next_page;

void page_init(void)
{
    next_page = ((u64)kernel_end + 4095) & ~4095ull;
}

void *pages_new(unsigned count)
{
    void *pages = (void *)next_page;
    next_page += 4096ull * count;
    memset(pages, 0, 4096ull * count);
    return pages;
}

void *page_new(void)
{
    return pages_new(1);
}

/* Turns an entry of 2 MiB of the first 4 GiB into a table of 512 that map the same; user bit allowed. */
static void split(u64 *entry)
{
    u64 *table = page_new();
    for (unsigned i = 0; i < 512; i++)
        table[i] = (*entry & PTE_ADDRESS) + 4096ull * i + (PTE_P | PTE_W);
    *entry = (u64)table | PTE_P | PTE_W | PTE_U;
    for (unsigned at = 3; at <= 4; at++)
        *entry_of((*table & PTE_ADDRESS), at) |= PTE_U;
    write_cr3(read_cr3());
}

/* The entry for va at `level`; makes missing tables when told to. */
static u64 *walk(u64 va, unsigned level, bool make)
{
    u64 *table = (u64 *)(read_cr3() & PTE_ADDRESS);
    for (unsigned at = 4; at > level; at--) {
        u64 *entry = &table[va >> (12 + 9 * (at - 1)) & 511];
        if (!(*entry & PTE_P)) {
            if (!make)
                return NULL;
            *entry = (u64)page_new() | PTE_P | PTE_W | PTE_U;
        }
        if (*entry & PTE_PS) {
            if (!make || at != 2)
                return NULL;
            split(entry);
        }
        table = (u64 *)(*entry & PTE_ADDRESS);
    }
    return &table[va >> (12 + 9 * (level - 1)) & 511];
}

u64 *entry_of(u64 va, unsigned level)
{
    return walk(va, level, false);
}

struct mapping {
    u64 va, pa, flags;
};

static void map_now(void *context)
{
    const struct mapping *mapping = context;
    u64 *entry = walk(mapping->va, 1, true);
    if (!entry)
        panic("no table for %lx", (unsigned long)mapping->va);
    *entry = mapping->pa | mapping->flags;
    invlpg(mapping->va);
}

void map(u64 va, u64 pa, u64 flags)
{
    struct mapping mapping = { va, pa, flags };
    privileged(map_now, &mapping);
}

void map_large(u64 va, u64 pa, u64 flags, unsigned level)
{
    u64 *entry = walk(va, level, true);
    if (!entry)
        panic("no table for %lx", (unsigned long)va);
    *entry = pa | flags | PTE_PS;
    write_cr3(read_cr3());
}
