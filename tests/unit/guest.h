/* guest.h - a tiny world for instruction tests: one vCPU over an array of RAM at physical 0.
 *
 * guest_reset gives 64-bit code at CPL 0 with GUEST_RAM bytes identity-mapped by 2-MiB pages, code at
 * GUEST_CODE and a stack below GUEST_STACK; guest_run decodes and executes what bytes it is given.
 * Header-only, for the unit tests of isa/x86. */
#ifndef VENEER_TESTS_UNIT_GUEST_H
#define VENEER_TESTS_UNIT_GUEST_H

#include <stdlib.h>
#include <string.h>

#include "isa/x86/core.h"
#include "isa/x86/decode.h"
#include "isa/x86/mem.h"

#define GUEST_RAM 0x400000u
#define GUEST_TABLES 0x1000u
#define GUEST_CODE 0x10000u
#define GUEST_DATA 0x100000u
#define GUEST_STACK 0x200000u

struct guest {
    struct x86_core *core;
    struct x86_decoder decoder;
    struct x86_cpuid cpuid;
    uint8_t *ram;
    uint8_t flags[GUEST_RAM / 4096];
    unsigned code_written, code_length; /* calls, and the last one's arguments */
    uint64_t code_gpa;
};

static bool guest_page(void *owner, uint64_t gpa, struct x86_page *ret_page)
{
    struct guest *guest = owner;

    if (gpa >= GUEST_RAM)
        return false;
    *ret_page = (struct x86_page){.host = guest->ram + gpa, .flags = &guest->flags[gpa / 4096]};
    return true;
}

static uint64_t guest_mmio_read(void *owner, uint64_t gpa, unsigned size)
{
    (void)owner, (void)gpa;
    return size == 8 ? UINT64_MAX : (UINT64_C(1) << size * 8) - 1;
}

static void guest_mmio_write(void *owner, uint64_t gpa, unsigned size, uint64_t value)
{
    (void)owner, (void)gpa, (void)size, (void)value;
}

static void guest_code_written(void *owner, uint64_t gpa, unsigned length)
{
    struct guest *guest = owner;

    guest->code_written++;
    guest->code_gpa = gpa;
    guest->code_length = length;
}

static void guest_mapping_changed(void *owner, enum x86_flush scope, uint64_t linear)
{
    (void)owner, (void)scope, (void)linear;
}

static void guest_nothing(void *owner) { (void)owner; }

static const struct x86_env_ops guest_env = {
    .page = guest_page, .mmio_read = guest_mmio_read, .mmio_write = guest_mmio_write,
    .code_written = guest_code_written, .mapping_changed = guest_mapping_changed,
    .exclusive_begin = guest_nothing, .exclusive_end = guest_nothing,
};

static inline void guest_put(struct guest *guest, uint64_t gpa, const void *bytes, size_t length)
{
    memcpy(guest->ram + gpa, bytes, length);
}

static inline uint64_t guest_read64(const struct guest *guest, uint64_t gpa)
{
    uint64_t value;

    memcpy(&value, guest->ram + gpa, 8);
    return value;
}

/* Page tables for 4 MiB of identity mapping, and the registers of a kernel in 64-bit mode. */
static inline void guest_reset(struct guest *guest)
{
    struct x86_cpu *cpu = &guest->core->cpu;
    const uint64_t pml4 = GUEST_TABLES + 0x1000 + 3, pdpt = GUEST_TABLES + 0x2000 + 3;

    memset(guest->ram, 0, GUEST_RAM);
    memset(guest->flags, 0, sizeof guest->flags);
    guest_put(guest, GUEST_TABLES, &pml4, 8);
    guest_put(guest, GUEST_TABLES + 0x1000, &pdpt, 8);
    for (uint64_t i = 0; i < 2; i++) {
        uint64_t entry = i << 21 | 0x83;

        guest_put(guest, GUEST_TABLES + 0x2000 + i * 8, &entry, 8);
    }
    x86_cpu_reset(cpu, true);
    cpu->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_WP;
    cpu->cr3 = GUEST_TABLES;
    cpu->cr4 = X86_CR4_PAE;
    cpu->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    for (unsigned i = 0; i < X86_SEGS; i++)
        cpu->seg[i] = (struct x86_segment){.selector = 16, .limit = UINT32_MAX,
            .attr = X86_ATTR_G | X86_ATTR_DB | X86_ATTR_P | X86_ATTR_S | 3};
    cpu->seg[X86_CS].selector = 8;
    cpu->seg[X86_CS].attr = X86_ATTR_G | X86_ATTR_L | X86_ATTR_P | X86_ATTR_S | 11;
    memset(cpu->reg, 0, sizeof cpu->reg);
    cpu->reg[X86_RSP] = GUEST_STACK;
    cpu->reg[X86_RIP] = GUEST_CODE;
    cpu->rflags = X86_FLAG_FIXED;
    x86_core_attach(guest->core);
}

/* 32-bit protected mode instead, paging off, flat segments. */
static inline void guest_reset32(struct guest *guest)
{
    struct x86_cpu *cpu = &guest->core->cpu;

    guest_reset(guest);
    cpu->cr0 = X86_CR0_PE | X86_CR0_NE;
    cpu->cr4 = 0;
    cpu->efer = 0;
    cpu->seg[X86_CS].attr = X86_ATTR_G | X86_ATTR_DB | X86_ATTR_P | X86_ATTR_S | 11;
    x86_core_attach(guest->core);
}

static inline int guest_new(struct guest *guest)
{
    memset(guest, 0, sizeof *guest);
    guest->core = aligned_alloc(64, (sizeof *guest->core + 63) & ~(size_t)63);
    guest->ram = aligned_alloc(4096, GUEST_RAM);
    if (guest->core == NULL || guest->ram == NULL)
        return -1;
    memset(guest->core, 0, sizeof *guest->core);
    x86_cpuid_init(&guest->cpuid, X86_MODEL_DEFAULT, 1, 1000000000);
    if (x86_decoder_init(&guest->decoder, &guest->cpuid, NULL) != 0)
        return -1;
    guest->core->env = &guest_env;
    guest->core->owner = guest;
    guest->core->cpuid = &guest->cpuid;
    guest_reset(guest);
    return 0;
}

static inline void guest_free(struct guest *guest)
{
    x86_decoder_destroy(&guest->decoder);
    free(guest->core);
    free(guest->ram);
}

/* Executes the instruction at `bytes` as if it stood at RIP. Returns -1, or the vector it raised (error code in
 * core->raised), after which RIP is back at the instruction. */
static inline int guest_step(struct guest *guest, const uint8_t *bytes, size_t length)
{
    struct x86_core *core = guest->core;
    static struct x86_insn insn;
    jmp_buf escape;

    if (x86_decode(&guest->decoder, (enum x86_code_mode)core->mode, bytes, length, &insn) == 0)
        return -2;
    core->insn = &insn;
    core->insn_end = &insn + 1;
    core->escape = &escape;
    core->cpu.reg[X86_RIP] += insn.length;
    if (setjmp(escape) != 0) {
        x86_fault_rewind(core);
        return core->raised.vector;
    }
    insn.exec(core, &insn);
    return -1;
}

#endif
