/* compile.h - the compiler's own state, shared by its files: compile.c (what goes into a trace), liveness.c (flags), lookup.c
 * (memory), flow.c (the stack, jumps, a trace's entry). */
#ifndef VENEER_ENGINE_TRANSLATE_COMPILE_H
#define VENEER_ENGINE_TRANSLATE_COMPILE_H

#include "engine/translate/native.h"
#include "engine/translate/vcpu.h"

#define SLOW_MAX (TRACE_INSNS * 4u)
#define TRACE_ROOM 64000u /* bytes of code that one trace may take */

/* Code that is out of the way: emitted after the rest. */
struct slow {
    uint32_t field;      /* the jump that comes here */
    uint32_t resume;     /* where to go back to, for SITE_INTERPRET; 0: nowhere */
    uint64_t target;     /* SITE_NEXT */
    uint16_t insn;
    uint8_t kind;        /* enum site_kind */
    bool restore_rcx;
    bool resume_next;    /* resume at the next instruction */
    bool missed;         /* SITE_INTERPRET: for want of a TLB entry */
    bool window;         /* a window does not open: the second copy goes on with the same instruction */
    bool second;         /* of the second copy */
    bool saved;          /* the flags are saved (compile.c) */
};

/* How a trace goes on after a part's last instruction. */
enum follow { FOLLOW_NOT, FOLLOW_NEXT, FOLLOW_TARGET };

struct part {
    struct block *block;
    uint64_t linear;
    uint16_t first;      /* its first instruction's number in the trace */
    uint8_t follow;      /* enum follow */
};

/* A range that is looked up once: see window.c. */
struct window {
    unsigned first; /* the instruction that looks it up */
    int32_t low;    /* as window_access.at */
    unsigned size;  /* bytes */
    bool write;
};
struct window_access {
    uint8_t base, index, scale; /* registers, or EMIT_NONE; the scale as its logarithm */
    int32_t disp;   /* from the registers' values at the time */
    int32_t at;     /* from the unknown values that the registers had or came from */
};

struct compiler {
    struct translate_vcpu *t;
    struct trace *trace;
    struct emit e;
    unsigned context;
    uint64_t linear;
    unsigned parts, insns, depends; /* depends: blocks looked at only, after `parts` in part[] */
    bool full;
    bool loop; /* the trace jumps back to its start */
    unsigned slows, windows;
    unsigned in_r10; /* the window whose host address R10 holds, or WINDOWS */
    struct part part[TRACE_PARTS];
    const struct x86_insn *guest[TRACE_INSNS];
    uint64_t begin[TRACE_INSNS + 1];    /* linear addresses */
    bool flags_needed[TRACE_INSNS + 1]; /* before instruction n some arithmetic flag is live */
    uint32_t undefined[TRACE_INSNS];    /* arithmetic flags that are undefined after instruction n */
    uint32_t live_out[TRACE_INSNS];     /* those that are live there */
    uint32_t start[TRACE_INSNS + 1];    /* where instruction n's code starts */
    uint32_t second[TRACE_INSNS + 1];   /* and in the second copy, which has no windows */
    bool in_second;                     /* that one is being emitted */
    bool live_in;                       /* some arithmetic flag is live at the trace's start */
    unsigned saved_from;                /* before this instruction the flags are saved */
    bool saved;                         /* they are, where code is being emitted */
    uint32_t second_saved;              /* where that is done in the second copy */
    uint8_t follow[TRACE_INSNS];        /* enum follow, after instruction n */
    struct window window[WINDOWS];
    struct window_access access[TRACE_INSNS];
    uint8_t window_of[TRACE_INSNS];     /* instruction n's window, or WINDOWS */
    struct slow slow[SLOW_MAX];
    struct native native[TRACE_INSNS];
    struct native looked_at; /* of a block that is not in the trace */
};

/* The host's flags are the guest's, and must stay, while instruction `insn` is begun. */
static inline bool flags_busy(const struct compiler *c, unsigned insn)
{
    return c->flags_needed[insn] && !c->saved;
}

/* compile.c. The block at a linear address in the trace's page, if there is one; whether the trace has the block. */
struct block *block_at(const struct compiler *c, uint64_t linear);
bool in_trace(const struct compiler *c, const struct block *block);
/* What the instruction becomes in a trace for this context. */
void classify(const struct compiler *c, const struct x86_insn *insn, struct native *ret_native);
/* Where the direct branch that is instruction `insn` leads to. */
uint64_t branch_target(const struct compiler *c, unsigned insn);

/* liveness.c. Fills flags_needed, undefined, live_out and live_in; then saved_from. */
void find_liveness(struct compiler *c);
void find_saved(struct compiler *c);
/* The arithmetic flags that are live at a linear address, where the trace may go. Out of a loop, it pays to decode what
 * is there. */
uint32_t live_at(struct compiler *c, uint64_t linear);

/* Notes an exit by the jump whose displacement is at `field`. */
struct slow *add_slow(struct compiler *c, uint32_t field, enum site_kind kind, unsigned insn);

/* lookup.c. R10 = linear address of the explicit memory operand; next: address of the next instruction. */
void emit_address(struct compiler *c, const struct native *n, uint64_t next);
/* R10 = linear address: becomes the host address of `size` bytes there, or the instruction is interpreted.
 * R11 is lost. Returns the exit to the interpreter, until the next add_slow. */
struct slow *emit_look_up(struct compiler *c, unsigned insn, unsigned size, bool write);
/* An instruction with a memory operand. */
void emit_memory(struct compiler *c, const struct native *n, unsigned insn, uint64_t next);
void emit_fldcw(struct compiler *c, const struct native *n, unsigned insn, uint64_t next);

/* cpuid.c */
void emit_cpuid(struct compiler *c, unsigned insn);

/* special.c */
void emit_special(struct compiler *c, const struct native *n, unsigned insn, uint64_t next);

/* window.c. Finds the accesses that share look-ups. */
void find_windows(struct compiler *c);
/* For an instruction with a window: `address` (R10 or R11) = the window's host address, which the window's first
 * instruction looks up. Returns the access's distance from there. R10 is lost, unless `address` is R11 and it is
 * not the first; R11 is lost with the first. */
unsigned emit_window(struct compiler *c, unsigned insn, unsigned address);

/* flow.c. next: address of the next instruction. */
void emit_entry(struct compiler *c);
void emit_push_insn(struct compiler *c, const struct native *n, unsigned insn);
/* Pushes what is at GS(target). */
void emit_push_stored(struct compiler *c, unsigned insn);
void emit_pushf_insn(struct compiler *c, unsigned insn);
void emit_popf_insn(struct compiler *c, unsigned insn);
void emit_pop_insn(struct compiler *c, const struct native *n, unsigned insn);
void emit_goto(struct compiler *c, unsigned insn, uint64_t target);
void emit_jcc_insn(struct compiler *c, const struct native *n, unsigned insn, uint64_t next);
void emit_call_insn(struct compiler *c, const struct native *n, unsigned insn, uint64_t next);
void emit_ret_insn(struct compiler *c, unsigned insn);

#endif
