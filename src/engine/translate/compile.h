/* compile.h - the compiler's own state, shared by its files: compile.c (what goes into a trace), lookup.c
 * (memory), flow.c (the stack, jumps, a trace's entry). */
#ifndef VENEER_ENGINE_TRANSLATE_COMPILE_H
#define VENEER_ENGINE_TRANSLATE_COMPILE_H

#include "engine/translate/native.h"
#include "engine/translate/vcpu.h"

#define SLOW_MAX (TRACE_INSNS * 2u)
#define TRACE_ROOM 32768u /* bytes of code that one trace may take */

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
};

/* How a trace goes on after a part's last instruction. */
enum follow { FOLLOW_NOT, FOLLOW_NEXT, FOLLOW_TARGET };

struct part {
    struct block *block;
    uint64_t linear;
    uint16_t first;      /* its first instruction's number in the trace */
    uint8_t follow;      /* enum follow */
};

struct compiler {
    struct translate_vcpu *t;
    struct trace *trace;
    struct emit e;
    unsigned context;
    uint64_t linear;
    unsigned parts, insns, depends; /* depends: blocks looked at only, after `parts` in part[] */
    bool full;
    unsigned slows;
    struct part part[TRACE_PARTS];
    const struct x86_insn *guest[TRACE_INSNS];
    uint64_t begin[TRACE_INSNS + 1];    /* linear addresses */
    bool flags_needed[TRACE_INSNS + 1]; /* before instruction n some arithmetic flag is live */
    uint32_t undefined[TRACE_INSNS];    /* arithmetic flags that are undefined after instruction n */
    uint32_t start[TRACE_INSNS + 1];    /* where instruction n's code starts */
    uint8_t follow[TRACE_INSNS];        /* enum follow, after instruction n */
    struct slow slow[SLOW_MAX];
    struct native native[TRACE_INSNS];
};

/* Notes an exit by the jump whose displacement is at `field`. */
struct slow *add_slow(struct compiler *c, uint32_t field, enum site_kind kind, unsigned insn);

/* lookup.c. R10 = linear address of the explicit memory operand; next: address of the next instruction. */
void emit_address(struct compiler *c, const struct native *n, uint64_t next);
/* R10 = linear address: becomes the host address of `size` bytes there, or the instruction is interpreted.
 * R11 is lost. */
void emit_look_up(struct compiler *c, unsigned insn, unsigned size, bool write);
/* An instruction with a memory operand. */
void emit_memory(struct compiler *c, const struct native *n, unsigned insn, uint64_t next);
void emit_fldcw(struct compiler *c, const struct native *n, unsigned insn, uint64_t next);

/* special.c */
void emit_special(struct compiler *c, const struct native *n, unsigned insn, uint64_t next);

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
