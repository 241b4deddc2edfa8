/* compare.h - what must agree between two executors. */
#ifndef VENEER_TESTS_EQUIVALENCE_COMPARE_H
#define VENEER_TESTS_EQUIVALENCE_COMPARE_H

#include <stdio.h>

#include "case.h"
#include "generate.h"

/* RFLAGS bits that the architecture leaves undefined after this instruction completed in this state. */
uint64_t eq_undefined_flags(const struct eq_insn *insn, const struct eq_state *before);

/* Two results of one case. undefined_flags: left out when the case ran to its end. */
bool eq_same(const struct eq_case *c, const struct eq_result *a, const struct eq_result *b, uint64_t undefined_flags);

/* Prints case, both results' differences, and the first memory difference. */
void eq_print_difference(FILE *to, const struct eq_case *c, const struct eq_result result[2],
                         uint8_t *const image[2], const char *const name[2], uint64_t undefined_flags);

#endif
