/* mem.h - guest memory by linear address, as an instruction sees it.
 *
 * Every access checks paging permissions for core->tlb_now (explicit accesses at the current CPL and AC)
 * or, in the *_system variants, as a supervisor access that SMAP does not hinder (descriptor tables, TSS,
 * IDT). An access that faults raises #PF (or #AC) before anything was changed, also across two pages.
 * A naturally aligned access of 1, 2, 4 or 8 bytes to RAM is one host access, so it is atomic between
 * vCPUs as on hardware; the host is x86 as well, so the memory order is the guest's own.
 * Segmentation happens before: x86_linear and x86_linear_access give linear addresses. */
#ifndef VENEER_ISA_X86_MEM_H
#define VENEER_ISA_X86_MEM_H

#include <stdbool.h>
#include <stdint.h>

#include "isa/x86/core.h"

/* Base, index and displacement of insn's memory operand added up. */
static inline uint64_t x86_sum(const struct x86_core *core, const struct x86_insn *insn)
{
    const char *reg = (const char *)core->cpu.reg;
    return *(const uint64_t *)(reg + insn->base) + (*(const uint64_t *)(reg + insn->index) << insn->scale) +
           (uint64_t)(int64_t)insn->disp;
}

/* The effective address of insn's memory operand, truncated to its address size; no segment base. */
static inline uint64_t x86_effective(const struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t ea = x86_sum(core, insn);
    if (__builtin_expect(insn->addrsize == 8, 1))
        return ea;
    return insn->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

/* Linear address of [seg:offset, size bytes), with the checks of the current mode: canonical form in
 * 64-bit code; limit, type and null checks elsewhere. Raises #GP(0), or #SS(0) for the stack segment. */
uint64_t x86_linear_access(struct x86_core *core, enum x86_seg seg, uint64_t offset, unsigned size, bool write);

/* Linear address of insn's memory operand. 64-bit flat operands skip the canonical check here: the
 * load or store itself makes it on a TLB miss. `size`: bytes that will be accessed. */
static inline uint64_t x86_linear(struct x86_core *core, const struct x86_insn *insn, unsigned size, bool write)
{
    uint64_t ea = x86_sum(core, insn);
    if (__builtin_expect(insn->flags & X86_INSN_FLAT, 1))
        return ea;
    ea = x86_effective(core, insn);
    /* FS and GS in 64-bit code: the load or store checks the sum, and a good offset needs no check. */
    if (insn->mode == X86_CODE64 && (uint64_t)((int64_t)(ea << 16) >> 16) == ea)
        return insn->seg >= X86_FS ? ea + core->cpu.seg[insn->seg].base : ea;
    return x86_linear_access(core, insn->seg, ea, size, write);
}

/* Slow paths (mem.c): TLB miss, page crossing, MMIO, code pages. size: 1 2 4 8. `stack`: a non-canonical
 * address raises #SS(0), not #GP(0). */
uint64_t x86_load_slow(struct x86_core *core, uint64_t linear, unsigned size, bool stack);
void x86_store_slow(struct x86_core *core, uint64_t linear, unsigned size, uint64_t value, bool stack);
/* After a store to a page flagged X86_PAGE_CODE. */
void x86_store_code(struct x86_core *core, const struct x86_tlb_entry *entry, uint64_t linear, unsigned size);

static inline struct x86_tlb_entry *x86_tlb_slot(struct x86_core *core, uint64_t linear)
{
    return &core->tlb_now[x86_tlb_index(linear)];
}

/* x86_load8 .. x86_load64, x86_store8 .. x86_store64. An access that is
 * not wholly within the page takes the slow path; an unaligned one inside the page is a hit. */
#define X86_MEMORY_ACCESS(bits, type)                                                                        \
    typedef type __attribute__((may_alias, aligned(1))) x86_u##bits;                                         \
    static inline type x86_load##bits(struct x86_core *core, uint64_t linear)                                \
    {                                                                                                        \
        const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);                                      \
        if (__builtin_expect(entry->read_tag == (linear & ~UINT64_C(4095)) &&                                \
                             (linear & 4095) <= 4096 - bits / 8, 1))                                         \
            return *(const volatile x86_u##bits *)(uintptr_t)(linear + entry->addend);                       \
        return (type)x86_load_slow(core, linear, bits / 8, false);                                           \
    }                                                                                                        \
    static inline void x86_store##bits(struct x86_core *core, uint64_t linear, type value)                   \
    {                                                                                                        \
        const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);                                      \
        if (__builtin_expect(entry->write_tag == (linear & ~UINT64_C(4095)) &&                               \
                             (linear & 4095) <= 4096 - bits / 8, 1)) {                                       \
            *(volatile x86_u##bits *)(uintptr_t)(linear + entry->addend) = value;                            \
            if (__builtin_expect(x86_page_has_code(entry->flags), 0))                                        \
                x86_store_code(core, entry, linear, bits / 8);                                               \
            return;                                                                                          \
        }                                                                                                    \
        x86_store_slow(core, linear, bits / 8, value, false);                                                \
    }
X86_MEMORY_ACCESS(8, uint8_t)
X86_MEMORY_ACCESS(16, uint16_t)
X86_MEMORY_ACCESS(32, uint32_t)
X86_MEMORY_ACCESS(64, uint64_t)

/* Any length, any alignment; the whole range is checked before the first byte moves. */
void x86_load_bytes(struct x86_core *core, uint64_t linear, void *ret_bytes, unsigned length);
void x86_store_bytes(struct x86_core *core, uint64_t linear, const void *bytes, unsigned length);
/* Checks that a store of `length` bytes would not fault, and changes nothing (but accessed/dirty bits). */
void x86_probe_write(struct x86_core *core, uint64_t linear, unsigned length);
/* Checks for a load. */
void x86_probe_read(struct x86_core *core, uint64_t linear, unsigned length);

/* Supervisor accesses to system structures; size 1 2 4 8. */
uint64_t x86_load_system(struct x86_core *core, uint64_t linear, unsigned size);
void x86_store_system(struct x86_core *core, uint64_t linear, unsigned size, uint64_t value);

/* A store to, or load from, a stack that an event or a far transfer uses: `user` is a user-mode access at the current
 * CPL of 3, else a supervisor access that SMAP does not hinder. Raises #PF.
 * The address is canonical. */
void x86_store_frame(struct x86_core *core, uint64_t linear, unsigned size, uint64_t value, bool user);
uint64_t x86_load_frame(struct x86_core *core, uint64_t linear, unsigned size, bool user);

/* For a read-modify-write of `size` (1 2 4 8 16) bytes: after it returns, the operand is readable and
 * writable and core->rmw says where the value is. The host address when it lies within one page of RAM:
 * work there, with the host's LOCK when the instruction has it; x86_rmw_end does the code-page
 * bookkeeping. Across pages or on MMIO: a bounce buffer filled with the old value (and, when `locked`,
 * exclusive against other vCPUs until x86_rmw_end, which stores it back). Nothing between the two may
 * raise. */
struct x86_span { /* a translated piece of an access, within one page */
    uint8_t *host;  /* NULL: MMIO, or a store to read-only memory */
    uint8_t *flags; /* with host */
    uint64_t gpa;
    unsigned length;
};
struct x86_rmw {
    void *host;
    unsigned size;
    unsigned spans; /* 0: host is guest RAM itself, span[0] says where; else bounced */
    bool exclusive;
    struct x86_span span[2];
    _Alignas(16) uint8_t bounce[16];
};
void x86_rmw_begin(struct x86_core *core, uint64_t linear, unsigned size, bool locked, struct x86_rmw *ret_rmw);
void x86_rmw_end(struct x86_core *core, struct x86_rmw *rmw);

/* The stack, in the current stack size (SS.B, 64-bit code): push and pop of `size` bytes (2 4 8) with
 * RSP updated only after the access succeeded. */
void x86_push(struct x86_core *core, unsigned size, uint64_t value);
uint64_t x86_pop(struct x86_core *core, unsigned size);

/* Fetches up to `length` bytes of code at linear `address` for the current CPL; stops at a page that
 * cannot be fetched. Returns the bytes fetched; 0 after which *ret_error_code is the #PF's. */
unsigned x86_fetch(struct x86_core *core, uint64_t address, uint8_t *ret_bytes, unsigned length, uint32_t *ret_error_code);
/* The guest-physical address that code at `address` is fetched from: raises #PF, or #GP if it is not canonical.
 * *ret_page is false in .host == NULL when that is not RAM. */
uint64_t x86_fetch_page(struct x86_core *core, uint64_t address, struct x86_page *ret_page);

#endif
