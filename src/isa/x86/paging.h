/* paging.h - linear to guest-physical: 32-bit, PAE and 4-level paging, and the software TLB.
 * Intel SDM 3A chapter 4; AMD APM 2 chapter 5. */
#ifndef VENEER_ISA_X86_PAGING_H
#define VENEER_ISA_X86_PAGING_H

#include "isa/x86/core.h"

enum x86_access { X86_READ, X86_WRITE, X86_EXECUTE };

struct x86_translation {
    uint64_t gpa;       /* of the linear address itself */
    uint64_t page_size; /* 4 KiB, 2 MiB, 4 MiB or 1 GiB */
    bool readable, writable, executable; /* what the context may do; writable only once dirty is set */
    bool global;
};

/* Walks the page tables, setting accessed bits, and dirty on a write. Returns 0, or -1 with
 * *ret_error_code the #PF error code. `context` says whose access it is. */
int x86_walk(struct x86_core *core, uint64_t linear, enum x86_access access, enum x86_tlb_context context,
             struct x86_translation *ret_translation, uint32_t *ret_error_code);

/* As x86_walk for a debugger: no accessed/dirty bits, no permission checks, no faults. 0 or -1. */
int x86_translate_quiet(struct x86_core *core, uint64_t linear, uint64_t *ret_gpa);

/* Fills the TLB entry for an access or raises #PF / #GP / #SS. Returns the entry; its tag for the access stays
 * X86_TLB_NONE when the page is MMIO (entry->gpa tells which). */
struct x86_tlb_entry *x86_tlb_fill(struct x86_core *core, uint64_t linear, enum x86_access access,
                                   enum x86_tlb_context context, bool stack);

/* As x86_tlb_fill without raising: 0; -1 with the #PF error code; -2 when the address is not canonical. */
int x86_tlb_try_fill(struct x86_core *core, uint64_t linear, enum x86_access access,
                     enum x86_tlb_context context, struct x86_tlb_entry **ret_entry, uint32_t *ret_error_code);

/* False when a PAE page-directory-pointer entry at `cr3` has reserved bits set: MOV to CR raises #GP. */
bool x86_pdptes_valid(struct x86_core *core, uint64_t cr3);

/* Each also tells env->mapping_changed. x86_tlb_switch: CR3 was loaded with CR4.PCIDE set; keep: its bit 63. */
void x86_tlb_flush(struct x86_core *core, bool keep_global);
void x86_tlb_switch(struct x86_core *core, bool keep);
void x86_tlb_flush_page(struct x86_core *core, uint64_t linear);

static inline bool x86_canonical(uint64_t linear) { return (uint64_t)((int64_t)(linear << 16) >> 16) == linear; }

#endif
