/* core.h - one vCPU as the instruction code sees it: state, caches, and the world behind a seam.
 *
 * How a fault travels: an exec function that must fault calls x86_raise, which records the event and
 * longjmps to core->escape, set by whoever runs instructions (the interpreter's loop, a test, a
 * translated block's helper call). The runner puts RIP back to the faulting instruction (x86_fault_rewind)
 * and delivers the event (x86_deliver in exception.h). Exec functions therefore read as straight code,
 * and hold no resource across anything that may fault.
 *
 * A struct x86_core belongs to one thread. Only `attention` may be touched by others. */
#ifndef VENEER_ISA_X86_CORE_H
#define VENEER_ISA_X86_CORE_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "isa/x86/insn.h"
#include "isa/x86/state.h"

enum x86_vector {
    X86_DE = 0, X86_DB = 1, X86_NMI = 2, X86_BP = 3, X86_OF = 4, X86_BR = 5, X86_UD = 6, X86_NM = 7,
    X86_DF = 8, X86_TS = 10, X86_NP = 11, X86_SSF = 12, X86_GP = 13, X86_PF = 14, X86_MF = 16,
    X86_AC = 17, X86_MC = 18, X86_XM = 19
};

/* Page-fault error code bits. */
#define X86_PF_P 0x01u
#define X86_PF_W 0x02u
#define X86_PF_U 0x04u
#define X86_PF_RSVD 0x08u
#define X86_PF_I 0x10u

/* A page of guest RAM as the world hands it out. */
struct x86_page {
    uint8_t *host;  /* 4096 bytes */
    uint8_t *flags; /* the page's flag byte (X86_PAGE_*), shared between vCPUs */
    bool read_only; /* stores go through mmio_write */
};
#define X86_PAGE_CODE 0x01u  /* code derived from this page is cached: call code_written after a store */
#define X86_PAGE_DIRTY 0x02u /* set it on a store */

/* Whether a store to the page must be made known. Read after the store: whoever marks the page meanwhile interrupts this thread
 * (ram_code_mark), so an order that the compiler keeps, which volatile is for, is enough. */
static inline bool x86_page_has_code(const uint8_t *flags)
{
    return __atomic_load_n((const volatile uint8_t *)flags, __ATOMIC_RELAXED) & X86_PAGE_CODE;
}

/* How far a change of linear-to-physical mappings reaches. */
enum x86_flush {
    X86_FLUSH_ALL,    /* everything */
    X86_FLUSH_LOCAL,  /* what is not global, of every address space */
    X86_FLUSH_PAGE,   /* one page of the current address space, and a global one */
    X86_FLUSH_SWITCH, /* CR3 was loaded: what is not global is not the new address space's; what was known of
                         the one before holds for its PCID when that comes back */
    X86_FLUSH_RETURN  /* as X86_FLUSH_SWITCH, and what was known of the new PCID holds again */
};

/* The world behind a core. All run on the core's thread and may block shortly. */
struct x86_env_ops {
    /* The page of RAM at gpa (page-aligned); false when it is not RAM. */
    bool (*page)(void *owner, uint64_t gpa, struct x86_page *ret_page);
    uint64_t (*mmio_read)(void *owner, uint64_t gpa, unsigned size); /* 1 2 4 8 bytes */
    void (*mmio_write)(void *owner, uint64_t gpa, unsigned size, uint64_t value);
    uint32_t (*port_in)(void *owner, uint16_t port, unsigned size); /* 1 2 4 bytes */
    void (*port_out)(void *owner, uint16_t port, unsigned size, uint32_t value);
    /* MSRs that isa/x86 does not hold itself: APIC, TSC deadline, paravirtual clock. -1: raise #GP. */
    int (*msr_read)(void *owner, uint32_t msr, uint64_t *ret_value);
    int (*msr_write)(void *owner, uint32_t msr, uint64_t value);
    /* CR8 is the local APIC's task priority, bits 7-4. */
    uint8_t (*tpr_read)(void *owner);
    void (*tpr_write)(void *owner, uint8_t cr8);
    /* Code derived from [gpa, gpa + length) is stale (a page flagged X86_PAGE_CODE was stored to). */
    void (*code_written)(void *owner, uint64_t gpa, unsigned length);
    /* Linear-to-physical mappings changed. After the TLB; linear is for X86_FLUSH_PAGE. */
    void (*mapping_changed)(void *owner, enum x86_flush scope, uint64_t linear);
    /* Between these no other vCPU executes an instruction: LOCK across a page or on MMIO. */
    void (*exclusive_begin)(void *owner);
    void (*exclusive_end)(void *owner);
    /* A hypercall (VMCALL/VMMCALL): registers as in Linux's KVM convention; returns RAX. */
    uint64_t (*hypercall)(void *owner, uint64_t number, const uint64_t argument[4]);
    /* The guest set its time-stamp counter: cpu.tsc_offset is this now. NULL: nobody needs to know. */
    void (*tsc_moved)(void *owner, uint64_t tsc_offset);
};

/* One software-TLB entry: a 4 KiB linear page. Tags are the page's linear address, or X86_TLB_NONE. A hit
 * on read_tag allows a plain load at linear + addend; a hit on write_tag a plain store, then a look at
 * *flags for X86_PAGE_CODE, with X86_PAGE_DIRTY already set. MMIO pages have no tags and take the slow path. */
#define X86_TLB_NONE UINT64_MAX
struct x86_tlb_entry {
    uint64_t read_tag;
    uint64_t write_tag;
    uint64_t exec_tag;
    uintptr_t addend; /* host address minus linear address */
    uint8_t *flags;
    uint64_t gpa;     /* of the page */
    bool global;
    bool watched;       /* holds a data breakpoint: loads and stores have no tags */
    uint8_t page_shift; /* log2 of the guest's page: INVLPG drops all of a large page */
};
#define X86_TLB_ENTRIES 1024u /* direct-mapped; see x86_tlb_index */
/* Where a linear address is looked up. Higher address bits are folded in, so that two streams a multiple of
 * 4 MiB apart do not evict each other. */
static inline unsigned x86_tlb_index(uint64_t linear)
{
    return (unsigned)(linear >> 12 ^ linear >> 22) % X86_TLB_ENTRIES;
}

/* Contexts: user, supervisor that may touch user pages (SMAP off or AC set), supervisor that may not; and
 * user with alignment checks, whose entries stay empty so that each access takes the slow path. */
enum x86_tlb_context {
    X86_TLB_USER,
    X86_TLB_SUPERVISOR,
    X86_TLB_SUPERVISOR_SMAP,
    X86_TLB_USER_ALIGN,
    X86_TLB_CONTEXTS
};

struct x86_cpuid;

struct x86_core {
    struct x86_cpu cpu; /* first: generated code reaches registers at small offsets */

    const struct x86_insn *insn;     /* being executed */
    const struct x86_insn *insn_end; /* instructions lie in a row up to here: a runner and exec functions stop
                                        there; set to NULL to leave after this one (x86_leave_block) */
    struct x86_tlb_entry *tlb_now;   /* tlb[context] for explicit accesses at this CPL and AC */
    uint8_t mode;                    /* enum x86_code_mode of CS, kept by x86_mode_changed */
    bool long_mode;                  /* EFER.LMA */
    bool debug_armed;                /* a DR7 breakpoint is enabled, or TF or RF is set: run one at a time */
    jmp_buf *escape;                 /* where x86_raise goes */
    struct x86_event raised;         /* what x86_raise left */
    uint64_t raised_cr2;             /* for #PF: written to CR2 at delivery */
    uint64_t raised_dr6;             /* for #DB: bits to set in DR6 at delivery */
    uint64_t pending_dr6;            /* data/I/O breakpoints hit by this instruction: trap after it */

    const struct x86_env_ops *env;
    void *owner; /* first argument of env's functions */
    const struct x86_cpuid *cpuid;
    uint32_t apic_id; /* as CPUID tells it */

    /* Set by any thread to make the runner look up between blocks (interrupt, kick, shootdown). */
    _Atomic uint32_t attention;

    bool step_done;    /* the last instruction took its single step with it (INT n, SYSCALL that masks TF) */
    bool rf_loaded;    /* the last instruction loaded RF (IRET): it holds for one more */
    uint8_t phys_bits; /* MAXPHYADDR, kept by x86_core_attach */
    /* Linear ranges of either half that hold all large pages met there since the last full flush. */
    struct {
        uint64_t low, high;
    } large[2];
    uint64_t tlb_misses, tlb_flushes; /* statistics */
    uint64_t tlb_used[X86_TLB_CONTEXTS][X86_TLB_ENTRIES / 64]; /* entries that may have a tag */
    struct x86_tlb_entry tlb[X86_TLB_CONTEXTS][X86_TLB_ENTRIES];
};

/* Makes the derived fields (mode, long_mode, tlb_now, debug_armed) agree with cpu. Call it after cpu was
 * replaced as a whole; the instruction code calls it when it changes CS, SS, CR0, CR4, EFER, RFLAGS.AC/TF
 * or DR7. x86_core_attach also empties the TLB. */
void x86_mode_changed(struct x86_core *core);
void x86_core_attach(struct x86_core *core);

/* Leave to core->escape with an exception. The error code goes with those that have one. */
_Noreturn void x86_raise(struct x86_core *core, enum x86_vector vector, uint32_t error_code);
_Noreturn void x86_raise_ud(struct x86_core *core);
/* #GP(error_code) */
_Noreturn void x86_raise_gp(struct x86_core *core, uint32_t error_code);
_Noreturn void x86_raise_pf(struct x86_core *core, uint64_t linear, uint32_t error_code);

/* Puts RIP back to the start of core->insn, after an escape with a fault. */
static inline void x86_fault_rewind(struct x86_core *core)
{
    core->cpu.reg[X86_RIP] -= core->insn->length;
}

/* The runner ends the current block after this instruction. */
static inline void x86_leave_block(struct x86_core *core) { core->insn_end = NULL; }

#endif
