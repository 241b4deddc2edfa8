/* vcpu.h - what translated code sees through GS, and the translator's own view of a vCPU.
 *
 * While translated code runs, guest RAX..R15 are in the host registers of the same name, but for R10 and
 * R11, which stay in memory and leave their host registers as scratch; the guest's arithmetic flags are the
 * host's. RSP holds the guest's RSP, so the thread has an alternate signal stack. The vector registers
 * hold the guest's only while `vector_resident` is set, and the x87 unit only while `x87_resident` is: a trace
 * that uses them sees to it at its start, and leaving to C ends it.
 *
 * Guest memory is reached through `tlb`, a second software TLB in the form that generated code tests
 * fastest. It holds copies of what core.tlb proved, and never more; and no permission to store to a page that
 * holds code. */
#ifndef VENEER_ENGINE_TRANSLATE_VCPU_H
#define VENEER_ENGINE_TRANSLATE_VCPU_H

#include <stddef.h>

#include "base/codemem.h"
#include "engine/soft/vcpu.h"

/* ---- memory ---- */

#define FAST_ENTRIES 16384u /* by linear page number; a power of two */
#define FAST_SHIFT 5       /* log2 of an entry's size */

/* linear + bias is the offset in the page when the entry is of that page; for any other linear address that
 * comes to this entry it is 4096 or more, unsigned. */
struct fast_entry {
    uint64_t read_bias, write_bias;
    uint8_t *host;  /* the page */
    uint64_t addend; /* host minus the page's linear address */
};

/* ---- code ---- */

enum site_kind {
    SITE_NEXT,      /* go on at `target`; `field` is the jump that led here, to be linked */
    SITE_INDIRECT,  /* go on at RIP, which the thunk stored */
    SITE_INTERPRET, /* interpret instruction `insn`, then go on at `resume` (0: at RIP) */
    SITE_LOOK_UP,   /* attention, before the trace's first instruction */
    SITE_VECTOR,    /* the trace needs the vector registers, which the guest may not use now */
    SITE_X87,       /* as SITE_VECTOR, for the x87 registers */
    SITE_KINDS
};

struct trace;

/* A place where a trace leaves to C. */
struct site {
    struct trace *trace;
    struct trace *linked;   /* SITE_NEXT: where the jump goes now, or NULL */
    struct site *next_link; /* in linked->incoming */
    uint64_t target;        /* SITE_NEXT: linear address */
    uint32_t resume;        /* offset in code memory */
    uint32_t field;         /* SITE_NEXT: the displacement to patch */
    uint32_t thunk;          /* SITE_NEXT: where the displacement goes when not linked */
    uint16_t undefined;     /* arithmetic flags that are undefined or dead there */
    uint16_t at_fault;      /* SITE_INTERPRET: those that are before the instruction */
    uint16_t insn;
    uint16_t mnemonic;      /* SITE_INTERPRET: of insn, for statistics; 0: the host faulted */
    uint8_t kind;
    bool missed;            /* SITE_INTERPRET: only because the TLB did not have its operand */
};

#define WINDOWS 8u /* of a trace: see window.c */
#define TRACE_INSNS 128u
#define TRACE_PARTS 24u

/* One translation: of a block and of those that are likely to follow it in its page, for a linear address and
 * a TLB context (which implies the privilege level). A trace stands and falls with every block it was made
 * from, be it only that the block's first instructions told which flags are dead. */
struct trace_part {
    struct trace *trace;
    struct trace_part *next; /* of the same block */
    struct block *block;
    uint16_t first;          /* the trace's instruction that is the block's first; TRACE_INSNS: none */
};

struct trace_insn {
    uint16_t start; /* of its code, from `indirect_entry` */
    uint16_t second; /* of its other copy, if there is one (compile.c) */
    int16_t begin;  /* its own address, from the trace's */
    uint8_t part;
};

struct trace {
    struct block *block;     /* the first */
    struct trace *next;      /* in its bucket */
    uint64_t linear;
    uint32_t entry;          /* for direct jumps */
    uint32_t entry_resident; /* the same, for jumps from traces with the registers resident that this one uses */
    uint32_t forward_resident; /* the same, for those to a higher address: attention waits for one to a lower */
    uint32_t indirect_entry; /* for indirect ones, with the flags saved: checks R10 against `linear` */
    uint32_t saved_entry;    /* the same, without the check */
    uint32_t end;
    uint8_t context;
    bool native;             /* all of its instructions run as host code */
    bool vector;             /* uses the vector registers */
    bool x87;                /* uses the x87 or MMX registers */
    bool dead;               /* a block of it was dropped */
    uint8_t parts;
    uint16_t count;          /* of instructions */
    uint16_t saved_from;     /* from this instruction on the guest's flags are in `flags`, not the host's */
    uint32_t undefined;      /* arithmetic flags that are undefined at its end */
    struct site *incoming;   /* jumps that lead here */
    struct trace_part *part;
    struct trace_insn insn[]; /* and one more, for the end of the code */
};

/* The instruction, decoded, and the block that it is of. */
static inline struct block *trace_block(const struct trace *trace, unsigned number)
{
    return trace->part[trace->insn[number].part].block;
}
static inline const struct x86_insn *trace_insn(const struct trace *trace, unsigned number)
{
    const struct trace_part *part = &trace->part[trace->insn[number].part];
    return &part->block->insn[number - part->first];
}

#define TRACES_MAX 262144u

#define JUMP_ENTRIES 16384u /* a power of two */
#define JUMP_FOLD 13       /* the page number comes in: functions start at few offsets of a page */
#define JUMP_PAGES 4096u /* of the filter for jumps_forget_page, a power of two */

/* Whom another has put out of `jump`: looked at when the one there is for another target. */
#define VICTIMS 1024u /* a power of two */
#define VICTIM_FOLD 7
#define VICTIM_SHIFT 5 /* log2 of an entry's size */
struct jump_victim {
    uint64_t linear; /* 0: none, or that of a target at 0 */
    const void *code;
    struct trace *trace; /* or NULL */
    bool global;
};

/* What CPUID answered (cpuid.c), and what else that depended on. */
#define CPUID_ANSWERS 16u /* a power of two */
struct cpuid_answer {
    uint64_t key; /* ECX, EAX */
    uint32_t eax, ebx, ecx, edx;
    uint64_t pad;
};
struct cpuid_inputs {
    uint64_t cr4, xcr0, xss, misc_enable;
    bool known;
};

/* Which registers `enter` loads besides the general ones. */
#define ENTER_VECTOR 1u
#define ENTER_X87 2u

/* Fixed pieces of code at the start of code memory, made by thunks_make. Offsets. */
struct thunks {
    uint32_t enter[4];     /* as C: site (*)(translate_vcpu *, const void *code); by ENTER_* */
    uint32_t load_vector;  /* R11 = struct site *: goes on at its `resume` with them loaded */
    uint32_t load_x87;
    uint32_t leave;        /* R11 = struct site * */
    uint32_t leave_saved;  /* the same, with the guest's flags in `flags` */
    /* These with the flags saved: */
    uint32_t indirect[X86_TLB_CONTEXTS];      /* R10 = target */
    uint32_t indirect_miss[X86_TLB_CONTEXTS]; /* R10 = target, whose code is not where `indirect` looks */
    uint32_t indirect_leave;                  /* R10 = target, to be found by C */
    uint32_t end;
};

struct translate_stats {
    uint64_t traces, code_bytes, flushes, links, unlinks, dropped;
    uint64_t checked, checked_faults;
    uint64_t followed; /* ends of traces in the interpreter, from where the next was at hand */
    uint64_t exit[SITE_KINDS];
    /* Single instructions that traces had interpreted, by mnemonic: always, and for want of a TLB entry. */
    uint32_t interpreted[ZYDIS_MNEMONIC_MAX_VALUE + 1], missed[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

struct translate_vcpu {
    struct engine_vcpu soft; /* first: GS points at soft.core.cpu.reg[0] */

    uint64_t host_rsp;
    uint64_t spill;        /* RCX, for a few instructions */
    uint64_t target;       /* an indirect branch's, while the return address is pushed */
    uint64_t scratch;      /* for FLDCW and strings */
    uint64_t chunk, rest;  /* elements of a repeated string instruction: in work, and after that */
    uint64_t shadow_at;    /* linear address of the instruction after the last STI */
    uint64_t keep_if, keep_df; /* all bits but that flag's, for PEXT and PDEP */
    uint64_t above_63, below_64, above_31, below_32;
    uint64_t window[WINDOWS]; /* host addresses that the running trace has proven */
    uint64_t generation;   /* counts what may make such a proof void */
    uint64_t index_mask, page_mask; /* constants for PEXT */
    uint32_t branch;       /* where in code memory the last indirect branch is */
    uint32_t flags;        /* AH as LAHF, AL as SETO: the guest's flags, while they are not the host's */
    uint32_t host_mxcsr;
    bool vector_resident, x87_resident;
    const void *vector_go, *x87_go; /* where a trace that needs them goes: the load_ thunk, or leave */
    const uint8_t *code_base;
    uint8_t x87_area[640];
    struct cpuid_answer cpuid[CPUID_ANSWERS];

    const void *jump[X86_TLB_CONTEXTS][JUMP_ENTRIES]; /* code, which checks the linear address itself */
    struct jump_victim victim[X86_TLB_CONTEXTS][VICTIMS];
    struct fast_entry tlb[X86_TLB_CONTEXTS][FAST_ENTRIES];
    const uint8_t *tlb_flags[X86_TLB_CONTEXTS][FAST_ENTRIES]; /* C only: the page's flag byte */

    /* Below: C only. */
    struct trace *jump_trace[X86_TLB_CONTEXTS][JUMP_ENTRIES]; /* of `jump`, or NULL */
    bool jump_ready[X86_TLB_CONTEXTS]; /* `jump` has code everywhere: traces of that context may run */
    uint64_t tlb_used[X86_TLB_CONTEXTS][FAST_ENTRIES / 64];
    uint64_t tlb_global[X86_TLB_CONTEXTS][FAST_ENTRIES / 64];
    uint64_t jump_used[X86_TLB_CONTEXTS][JUMP_ENTRIES / 64];
    uint64_t jump_global[X86_TLB_CONTEXTS][JUMP_ENTRIES / 64];
    uint64_t victim_used[X86_TLB_CONTEXTS][VICTIMS / 64];
    uint64_t jump_pages[JUMP_PAGES / 64]; /* linear page numbers that may have entries in `jump` */
    struct cpuid_inputs cpuid_inputs;
    struct spaces *spaces;
    struct compiler *compiler; /* what compile() works in */
    struct check *checker;     /* what check_trace() works in, or NULL */
    uint64_t assumed_cr4; /* the bits that traces rely on (system.c) */
    bool assumed_avx;      /* and that AVX is on, or not */
    struct codemem code;
    struct thunks thunks;
    uint8_t *arena; /* traces and sites */
    size_t arena_used, arena_size;
    struct trace **by_address; /* all traces, in the order of their code */
    size_t traces;
    struct trace **bucket;     /* by linear address and context */
    size_t buckets;            /* a power of two, as befits the arena */
    struct site fault;         /* where a host fault in translated code leaves to */
    struct site *link_from;    /* the jump to link when the next trace is found */
    bool check;                /* compare each trace with the interpreter (check.c) */
    bool checked_away;         /* the last run did not end with its trace */
    uint32_t exit_undefined;   /* arithmetic flags that have no meaning where the last run ended */
    uint32_t fault_undefined;  /* and at a fault of the instruction that it had interpreted last */
    bool no_vectors;           /* the next block needs vector registers that the guest may not use now */
    bool fill_jump;            /* an indirect jump missed: enter the next trace in `jump` */
    void *signal_stack;
    struct translate_stats stats;
};

_Static_assert(sizeof(struct jump_victim) == 1u << VICTIM_SHIFT, "generated code scales by it");
_Static_assert(sizeof(struct fast_entry) == 1u << FAST_SHIFT, "generated code scales by it");

static inline struct translate_vcpu *translate_of(struct engine_vcpu *vcpu)
{
    return (struct translate_vcpu *)vcpu;
}

/* Where gs:[...] finds things. */
#define GS_REG(number) (offsetof(struct translate_vcpu, soft.core.cpu.reg) + 8u * (number))
#define GS_CPU(field) offsetof(struct translate_vcpu, soft.core.cpu.field)
#define GS_ATTENTION offsetof(struct translate_vcpu, soft.core.attention)
#define GS(field) offsetof(struct translate_vcpu, field)

/* fasttlb.c */
void fast_init(struct translate_vcpu *t);
/* After instruction `insn` was interpreted: copies what core.tlb knows of its operand's page. */
void fast_learn(struct translate_vcpu *t, uint64_t linear);
void fast_forget(struct translate_vcpu *t, bool keep_global);
void fast_forget_page(struct translate_vcpu *t, uint64_t linear);
/* The page with this flag byte holds code now: no entry of it allows stores any more. */
void fast_forbid_stores(struct translate_vcpu *t, const uint8_t *flags);
/* The same for one entry, which was put aside while its page may have got code. */
void fast_check_code(struct translate_vcpu *t, unsigned context, unsigned slot);

struct emit;
/* thunks.c: puts the guest's flags into `flags`, or gets them from there. R11 is lost. */
void emit_save_flags(struct emit *e);
void emit_restore_flags(struct emit *e);
/* With the flags saved, goes to R10 = target, to what the jump cache has for it, which checks that it is for that
 * target. Emitted at each place that jumps, so that the host's branch predictor tells them apart. */
void emit_indirect(struct emit *e, unsigned context);
/* The same for a target that is known. */
void emit_direct(struct emit *e, unsigned context, uint64_t target);
/* Makes the thunks at the start of code memory. */
void thunks_make(struct translate_vcpu *t);

/* cpuid.c. cpuid_refresh: before a trace is entered, when registers may have changed that answers depend on.
 * cpuid_learn: CPUID was interpreted, of this EAX and ECX. */
void cpuid_refresh(struct translate_vcpu *t);
void cpuid_learn(struct translate_vcpu *t, uint32_t function, uint32_t index);

/* check.c: ends with the vCPU; does nothing when nothing was checked. */
void check_close(struct translate_vcpu *t);
/* Runs the trace by `run`, and again by the interpreter, and aborts with a report when they
 * differ. */
bool check_trace(struct translate_vcpu *t, struct trace *trace, bool (*run)(struct translate_vcpu *, struct trace *));

/* compile.c: makes room for compiling, or returns -1. */
int compile_open(struct translate_vcpu *t);
void compile_close(struct translate_vcpu *t);
/* Translates the block for RIP = linear at the current context. NULL when there is no room. */
struct trace *compile(struct translate_vcpu *t, struct block *block, uint64_t linear);

static inline unsigned jump_slot(uint64_t linear)
{
    return (unsigned)((linear + (linear >> JUMP_FOLD)) >> 1) % JUMP_ENTRIES;
}
static inline unsigned victim_slot(uint64_t linear)
{
    return (unsigned)((linear + (linear >> VICTIM_FOLD)) >> 1) % VICTIMS;
}
/* jumps.c. jumps_prepare: before a trace of the context can run or be led to. jumps_enter: `global`: the trace's
 * page is a global one. jumps_forget: linear addresses may lead elsewhere now. */
void jumps_init(struct translate_vcpu *t);
void jumps_prepare(struct translate_vcpu *t, unsigned context);
void jumps_enter(struct translate_vcpu *t, struct trace *trace, bool global);
void jumps_drop(struct translate_vcpu *t, const struct trace *trace);
void jumps_forget(struct translate_vcpu *t, bool keep_global);
void jumps_forget_page(struct translate_vcpu *t, uint64_t linear);

/* spaces.c: what is known of address spaces that are not current. spaces_switch: CR3 was loaded; keep: what is
 * known of the new PCID still holds. spaces_open returns 0, or -1 without memory. */
int spaces_open(struct translate_vcpu *t);
void spaces_close(struct translate_vcpu *t);
void spaces_switch(struct translate_vcpu *t, bool keep);
void spaces_forget(struct translate_vcpu *t);

/* The tier's operations for engine/soft (run.c, traces.c). */
bool tier_run(struct engine_vcpu *vcpu, struct block *block, uint64_t linear, bool *ret_plain);
void tier_dropped(struct engine_vcpu *vcpu, struct block *block);

/* traces.c. traces_open: the arena's size in bytes; returns 0, or -1 without memory (then, too, traces_close is due).
 * traces_find: the trace that starts with the block, for this linear address, or NULL. traces_enter: makes it known.
 * traces_flush: forgets all translations; no trace runs. */
int traces_open(struct translate_vcpu *t, size_t arena_size);
void traces_close(struct translate_vcpu *t);
struct trace *traces_find(const struct translate_vcpu *t, const struct block *block, uint64_t linear, unsigned context);
void traces_enter(struct translate_vcpu *t, struct trace *trace);
void traces_flush(struct translate_vcpu *t);

/* fault.c: host signals that a guest's own instruction caused (#DE, #XM, a misaligned vector operand) leave
 * the trace, and the interpreter raises what is due. fault_install: once a process. The others: per thread,
 * around running. */
int fault_install(struct error *error);
/* The trace whose code has this offset, and which of its instructions it is of; NULL when there is none. */
struct trace *trace_at(const struct translate_vcpu *t, uint32_t offset, unsigned *ret_insn);
void fault_thread_begin(struct translate_vcpu *t);
void fault_thread_end(struct translate_vcpu *t);

/* Makes or undoes a link. */
void link_site(struct translate_vcpu *t, struct site *site, struct trace *target);
void unlink_incoming(struct translate_vcpu *t, struct trace *trace);

#endif
