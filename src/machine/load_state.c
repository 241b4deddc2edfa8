/* load_state.c - the processor as each boot protocol wants it at the kernel's entry. */
#include <errno.h>
#include <string.h>

#include "machine/load.h"

#define PTE_P 0x001u
#define PTE_W 0x002u
#define PTE_PS 0x080u
#define MULTIBOOT_BOOT_MAGIC 0x2badb002u

/* Selectors as Linux's 64-bit protocol asks: __BOOT_CS 0x10, __BOOT_DS 0x18. */
#define BOOT_CS 0x10u
#define BOOT_DS 0x18u
#define ATTR_CODE64 0xa09bu /* G L P S execute/read accessed */
#define ATTR_CODE32 0xc09bu
#define ATTR_DATA 0xc093u
#define ATTR_TSS 0x008bu

static uint64_t descriptor(uint32_t attr)
{
    return UINT64_C(0x0000ffff) | (uint64_t)(attr & 0xffu) << 40 | UINT64_C(0xf) << 48 | (uint64_t)(attr >> 12) << 52;
}

static int put_gdt(struct ram *ram, uint32_t code_attr, struct x86_cpu *cpu)
{
    uint64_t gdt[4] = {0, 0, descriptor(code_attr), descriptor(ATTR_DATA)};
    cpu->gdtr = (struct x86_table){LOAD_GDT, sizeof gdt - 1};
    cpu->idtr = (struct x86_table){0, 0};
    for (unsigned s = 0; s < X86_SEGS; s++)
        cpu->seg[s] = (struct x86_segment){BOOT_DS, ATTR_DATA, UINT32_MAX, 0};
    cpu->seg[X86_CS] = (struct x86_segment){BOOT_CS, code_attr, UINT32_MAX, 0};
    cpu->tr = (struct x86_segment){0, ATTR_TSS, 0x67, 0};
    return ram_write(ram, LOAD_GDT, gdt, sizeof gdt);
}

/* 4 GiB as they are, in 2 MiB pages: every x86-64 processor has those. */
static int put_page_tables(struct ram *ram)
{
    static const uint32_t rw = PTE_P | PTE_W;
    uint64_t table[512] = {(LOAD_PAGE_TABLES + 0x1000) | rw};
    int status = ram_write(ram, LOAD_PAGE_TABLES, table, sizeof table);
    for (unsigned i = 0; i < 4; i++)
        table[i] = (LOAD_PAGE_TABLES + 0x2000 + i * 0x1000) | rw;
    status |= ram_write(ram, LOAD_PAGE_TABLES + 0x1000, table, sizeof table);
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned n = 0; n < 512; n++)
            table[n] = ((uint64_t)(i * 512 + n) << 21) | rw | PTE_PS;
        status |= ram_write(ram, LOAD_PAGE_TABLES + 0x2000 + i * 0x1000, table, sizeof table);
    }
    return status;
}

int load_entry_state(struct ram *ram, const struct load_entry *entry, struct x86_cpu *cpu, struct error *error)
{
    int status;
    cpu->reg[X86_RIP] = entry->rip;
    cpu->rflags = X86_FLAG_FIXED;
    if (entry->kind == LOAD_LINUX64) {
        status = put_gdt(ram, ATTR_CODE64, cpu) | put_page_tables(ram);
        cpu->cr0 = X86_CR0_PG | X86_CR0_NE | X86_CR0_ET | X86_CR0_PE;
        cpu->cr4 = X86_CR4_PAE;
        cpu->cr3 = LOAD_PAGE_TABLES;
        cpu->efer = X86_EFER_LME | X86_EFER_LMA;
        cpu->reg[X86_RSI] = entry->info;
    } else {
        status = put_gdt(ram, ATTR_CODE32, cpu);
        cpu->cr0 = X86_CR0_ET | X86_CR0_PE;
        cpu->reg[X86_RBX] = entry->info;
        cpu->reg[X86_RAX] = entry->kind == LOAD_MULTIBOOT ? MULTIBOOT_BOOT_MAGIC : 0;
    }
    if (status != 0)
        return error_set(error, ENOMEM, "the guest's memory has no room for boot data");
    return 0;
}
