/* generate.h - a random case for a form. */
#ifndef VENEER_TESTS_EQUIVALENCE_GENERATE_H
#define VENEER_TESTS_EQUIVALENCE_GENERATE_H

#include "case.h"
#include "forms.h"
#include "random.h"

/* The images of all executors in use; they hold the same bytes. */
struct eq_memory {
    uint8_t *image[2];
    unsigned images;
};

/* Writes into every image; what lies outside the data windows is left out. */
void eq_poke(const struct eq_memory *memory, uint64_t linear, const void *bytes, unsigned n);

struct generator {
    ZydisDecoder decoder[2]; /* by code32 */
    struct eq_random random;
    const struct eq_memory *memory;
};
void generator_init(struct generator *generator, const struct eq_memory *memory, uint64_t seed);

/* One decoded instruction of a case. */
struct eq_insn {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[16];
    uint64_t linear; /* of the last memory operand aimed into the windows; 0: none */
};

/* Random bytes of the form. False when luck ran out. */
bool generate_bytes(struct generator *g, const struct form *form, struct eq_insn *ret_insn);

/* A single-instruction case: state, memory contents and code that fit together. */
bool generate_case(struct generator *g, const struct form *form, struct eq_case *ret_case, struct eq_insn *ret_insn);

/* Straight-line code of 5 to 20 instructions from the list, with forward branches and sometimes a fault. */
bool generate_sequence(struct generator *g, const struct form_list *list, bool code32, struct eq_case *ret_case);

/* A branch target: mostly in the INT3 field, never in the case's own code. */
uint64_t eq_code_target(struct generator *g, const struct eq_case *c);

/* fit.c: what an instruction needs beyond random values to get anywhere: small counts, selectors, masks
 * before its operands are aimed; then the contents of a memory operand. */
bool eq_fits(const struct eq_insn *i); /* false: these bytes cannot be given a useful state */
void eq_fit_state(struct generator *g, struct eq_case *c, const struct eq_insn *i);
void eq_fit_memory(struct generator *g, const struct eq_case *c, const struct eq_insn *i, uint64_t linear,
                   unsigned size);

/* DPPS and DPPD: several steps of arithmetic, so which of them report what before an unmasked exception is the
 * processor's choice. */
bool eq_dot_product(const struct eq_insn *i);

/* Whether unaligned operands of other than 1, 2, 4 or 8 bytes raise #AC is up to the processor (SDM 2, MOVUPS;
 * SDM 3A, 6.15). */
bool eq_wide_operand(const struct eq_insn *i);

/* Register numbers (enum x86_reg) of Zydis general registers of any size; -1 for others. AH..BH give 0..3. */
int eq_gpr_of(ZydisRegister reg);

#endif
