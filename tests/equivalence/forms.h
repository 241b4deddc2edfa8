/* forms.h - every instruction form that the CPU model advertises, found by trying all encodings.
 *
 * A form is an opcode with what selects its meaning: map, mandatory or size prefix, W, L, an opcode
 * extension in ModRM, register or memory operand, LOCK or repeat prefix, 64- or 32-bit code. */
#ifndef VENEER_TESTS_EQUIVALENCE_FORMS_H
#define VENEER_TESTS_EQUIVALENCE_FORMS_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>

#include "isa/x86/cpuid.h"

enum form_modrm { FORM_NO_MODRM, FORM_REGISTER, FORM_MEMORY };

struct form {
    uint64_t signature; /* of the decoded meaning: form_signature */
    bool code32;
    bool vex;
    uint8_t map, opcode; /* map: 0 one byte, 1 0F, 2 0F38, 3 0F3A */
    uint8_t prefix[2];   /* legacy: 66, F2, F3, F0 in front; 0: none. VEX: prefix[0] is pp */
    int8_t w, l, reg, rm; /* -1: any */
    enum form_modrm modrm;
    ZydisMnemonic mnemonic;
    ZydisISASet isa_set;
    ZydisISAExt isa_ext;
    char name[64];
};

struct form_list {
    struct form *form;
    unsigned count, capacity;
    unsigned excluded; /* encodings' meanings left out by the table in exclude.c */
};

/* All forms of the model; the caller frees list->form. Exits on lack of memory. */
void forms_enumerate(struct form_list *ret_list, const struct x86_cpuid *cpuid);

/* Decoders for 64-bit and compatibility code, without MPX and CET, whose encodings are hint NOPs to us. */
void form_decoders(ZydisDecoder ret_decoder[2]);

/* What makes two encodings the same form. */
uint64_t form_signature(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operand);

/* Why an instruction is not run against the host, or NULL. */
const char *form_excluded(const ZydisDecodedInstruction *insn);

/* Prints the number of forms by extension. Returns the number of advertised extensions without one,
 * each named on stderr. */
unsigned forms_report(const struct form_list *list, const struct x86_cpuid *cpuid, bool verbose);

#endif
