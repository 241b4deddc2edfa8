/* values.h - random register and memory contents, rich in the values at which instructions change course. */
#ifndef VENEER_TESTS_EQUIVALENCE_VALUES_H
#define VENEER_TESTS_EQUIVALENCE_VALUES_H

#include "case.h"
#include "random.h"

/* A general register's value. */
uint64_t eq_value(struct eq_random *r);

/* n bytes of integers or floating-point numbers of one random lane size. */
void eq_lanes(struct eq_random *r, uint8_t *ret_bytes, unsigned n);

/* An 80-bit floating-point number, 10 bytes: all classes, unsupported encodings among them. */
void eq_extended(struct eq_random *r, uint8_t ret_bytes[10]);

/* A valid MXCSR, often with unusual rounding and sometimes with exceptions unmasked. */
uint32_t eq_mxcsr(struct eq_random *r);

/* The first 32 bytes of an FXSAVE image: control, status, tags, MXCSR. */
void eq_fx_header(struct eq_random *r, uint8_t ret_fx[32]);

/* Everything but RIP; RSP mostly within the data windows. */
void eq_random_state(struct eq_random *r, bool code32, struct eq_state *ret_state);

/* An address within the data windows for an operand of `size` bytes: mostly valid, sometimes on the edge of a
 * page that is missing or read-only. */
uint64_t eq_data_address(struct eq_random *r, bool code32, unsigned size);

#endif
