/* compare.h - what must agree between two executors. */
#ifndef VENEER_TESTS_EQUIVALENCE_COMPARE_H
#define VENEER_TESTS_EQUIVALENCE_COMPARE_H

#include <stdio.h>

#include "case.h"
#include "generate.h"

/* RFLAGS bits that the architecture leaves undefined after this instruction completed in this state. */
uint64_t eq_undefined_flags(const struct eq_insn *insn, const struct eq_state *before);

/* Where two results of one case may differ. */
struct eq_leeway {
    uint64_t flags;      /* undefined, once the instruction has completed */
    bool wide;           /* an operand of many parts: which faults first is the processor's choice */
    bool vector;         /* a memory operand of 16 bytes or more */
    bool dot_product;    /* DPPS, DPPD: sticky flags after #XM */
    bool stale_flags;    /* a translator: arithmetic flags that nothing reads may be out of date where the case faults */
    bool segment_offset; /* an operand off FS or GS, whose offset alone a translator does not check */
    uint64_t below_stack; /* where a CALL stores, which a translator does before it finds the target bad. 0: none */
    uint64_t mxcsr_mask; /* linear address of an FXSAVE image; its MXCSR_MASK is the model's. 0: none */
};
void eq_leeway_of(const struct eq_insn *insn, const struct eq_state *before, struct eq_leeway *ret_leeway);

/* liveness.c: the arithmetic flags that the case's code may read from `rip` on, before it writes them. */
uint64_t eq_live_flags(const struct eq_case *c, uint64_t rip);

/* Makes memory agree where it may differ. */
void eq_level(uint8_t *const image[2], const struct eq_result result[2], const struct eq_leeway *leeway);

bool eq_same(const struct eq_case *c, const struct eq_result *a, const struct eq_result *b,
             const struct eq_leeway *leeway);

/* Prints case, both results' differences, and the first memory difference. */
void eq_print_difference(FILE *to, const struct eq_case *c, const struct eq_result result[2],
                         uint8_t *const image[2], const char *const name[2], const struct eq_leeway *leeway);

#endif
