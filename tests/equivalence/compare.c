/* compare.c - compares two results and prints what differs. */
#include "compare.h"

#include <string.h>

#define CF X86_FLAG_CF
#define PF X86_FLAG_PF
#define AF X86_FLAG_AF
#define ZF X86_FLAG_ZF
#define SF X86_FLAG_SF
#define OF X86_FLAG_OF

/* Of a page fault's error code. */
#define PF_ERROR_P 1u
#define PF_ERROR_W 2u

/* Flags left undefined, by mnemonic: the "Flags Affected" section of each instruction's page in SDM 2. */
static const struct {
    ZydisMnemonic mnemonic;
    uint64_t flags;
} undefined[] = {
    {ZYDIS_MNEMONIC_AND, AF},
    {ZYDIS_MNEMONIC_OR, AF},
    {ZYDIS_MNEMONIC_XOR, AF},
    {ZYDIS_MNEMONIC_TEST, AF},
    {ZYDIS_MNEMONIC_MUL, SF | ZF | AF | PF},
    {ZYDIS_MNEMONIC_IMUL, SF | ZF | AF | PF},
    {ZYDIS_MNEMONIC_DIV, CF | PF | AF | ZF | SF | OF},
    {ZYDIS_MNEMONIC_IDIV, CF | PF | AF | ZF | SF | OF},
    {ZYDIS_MNEMONIC_BSF, CF | PF | AF | SF | OF},
    {ZYDIS_MNEMONIC_BSR, CF | PF | AF | SF | OF},
    {ZYDIS_MNEMONIC_BT, OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_BTS, OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_BTR, OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_BTC, OF | SF | AF | PF},
    {ZYDIS_MNEMONIC_AAA, OF | SF | ZF | PF},
    {ZYDIS_MNEMONIC_AAS, OF | SF | ZF | PF},
    {ZYDIS_MNEMONIC_AAD, OF | AF | CF},
    {ZYDIS_MNEMONIC_AAM, OF | AF | CF},
    {ZYDIS_MNEMONIC_DAA, OF},
    {ZYDIS_MNEMONIC_DAS, OF},
    {ZYDIS_MNEMONIC_ANDN, AF | PF},
    {ZYDIS_MNEMONIC_BLSR, AF | PF},
    {ZYDIS_MNEMONIC_BLSI, AF | PF},
    {ZYDIS_MNEMONIC_BLSMSK, AF | PF},
    {ZYDIS_MNEMONIC_BZHI, AF | PF},
    {ZYDIS_MNEMONIC_BEXTR, AF | SF | PF},
    {ZYDIS_MNEMONIC_LZCNT, OF | SF | PF | AF},
    {ZYDIS_MNEMONIC_TZCNT, OF | SF | PF | AF},
};

/* Shifts and rotates: the count decides. SDM 2, "SAL/SAR/SHL/SHR", "RCL/RCR/ROL/ROR", "SHLD", "SHRD". */
static uint64_t undefined_by_count(const struct eq_insn *i, const struct eq_state *before)
{
    bool twice = i->insn.mnemonic == ZYDIS_MNEMONIC_SHLD || i->insn.mnemonic == ZYDIS_MNEMONIC_SHRD;
    const ZydisDecodedOperand *o = &i->operand[twice ? 2 : 1];
    unsigned width = i->operand[0].size;
    uint64_t count = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? o->imm.value.u : before->gpr[X86_RCX];
    uint64_t flags = 0;

    count &= width == 64 ? 63 : 31;
    if (count == 0)
        return 0;
    if (count != 1)
        flags |= OF;
    switch ((int)i->insn.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR: return flags | AF | (count >= width ? CF : 0);
    case ZYDIS_MNEMONIC_SAR: return flags | AF;
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return count > width ? X86_FLAGS_ARITH : flags | AF;
    default: return flags;
    }
}

uint64_t eq_undefined_flags(const struct eq_insn *insn, const struct eq_state *before)
{
    switch ((int)insn->insn.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return undefined_by_count(insn, before);
    default: break;
    }
    for (unsigned i = 0; i < sizeof undefined / sizeof *undefined; i++)
        if (undefined[i].mnemonic == insn->insn.mnemonic)
            return undefined[i].flags;
    return 0;
}

/* FOP, FIP and FDP are kept or not by vendor (SDM 1, 8.1.8; APM 2, 11.4.4), and an instruction run on
 * the host has its host address there. MXCSR_MASK is the model's. */
static bool fx_ignored(unsigned byte) { return byte == 5 || (byte >= 6 && byte < 24) || (byte >= 28 && byte < 32); }

static bool same_fx(const uint8_t *a, const uint8_t *b)
{
    for (unsigned i = 0; i < 160; i++)
        if (a[i] != b[i] && !fx_ignored(i) && (i < 32 || (i & 15) < 10))
            return false;
    return true;
}

/* Which of #AC and another fault on the same access comes first is up to the processor (SDM 3A, table 6-2); so is
 * whether an operand of 16 bytes or more is checked for alignment or against the segment first, and how far one
 * of many parts gets. */
static bool same_by_priority(const struct eq_result *a, const struct eq_result *b, bool vector, bool wide)
{
    bool alignment_check = (a->vector == 17 && b->vector >= 11 && b->vector <= 14) ||
                 (b->vector == 17 && a->vector >= 11 && a->vector <= 14);

    bool parts = wide && a->vector >= 12 && a->vector <= 14 && b->vector >= 12 && b->vector <= 14;

    return alignment_check || parts || (vector && a->vector + b->vector == 12 + 13);
}

/* With an unmasked SIMD overflow or underflow, veneer's PE is that of the masked result (isa/x86/exec_vector.c),
 * not that of the result with an unbounded exponent. DPPS and DPPD compute in several steps; which of them have
 * reported what by an unmasked exception is the processor's choice. */
static bool same_but_sticky(const struct eq_result *a, const struct eq_result *b, bool dot_product)
{
    const unsigned mxcsr = 24, range = 0x18;
    const uint8_t sticky = dot_product ? 0x3f : 0x20;
    uint8_t fx[160];
    uint16_t flags;

    memcpy(&flags, a->state.fx + mxcsr, sizeof flags);
    if (a->vector != 19 || b->vector != 19 || !(dot_product || (flags & ~(flags >> 7) & range)))
        return false;
    memcpy(fx, b->state.fx, sizeof fx);
    fx[mxcsr] = (uint8_t)((fx[mxcsr] & ~sticky) | (flags & sticky));
    return same_fx(a->state.fx, fx);
}

/* An instruction that faults leaves the flags; RIP tells that it completed, and the next one faulted. */
static uint64_t flags_mask(const struct eq_case *c, const struct eq_result *r, const struct eq_leeway *leeway)
{
    bool fault = r->vector != 1 && r->vector != 3 && r->vector != 4; /* those are traps, at their instruction's end */

    uint64_t mask = r->state.rip != c->state.rip ? ~leeway->flags : UINT64_MAX;

    if (leeway->stale_flags && fault)
        mask &= ~(X86_FLAGS_ARITH & ~eq_live_flags(c, r->state.rip));
    return mask;
}

/* The host's kernel reports a not-present kernel address as protected, so as not to show its mappings. */
static bool same_error(const struct eq_result *a, const struct eq_result *b, bool wide)
{
    uint32_t hidden = a->vector == 14 && (a->cr2 | b->cr2) >= UINT64_C(0x7ffffffff000) ? PF_ERROR_P : 0;

    if (wide && a->vector == 14)
        hidden |= PF_ERROR_W; /* XSAVE reads the header of what it writes */

    return ((a->error_code ^ b->error_code) & ~hidden) == 0;
}

/* A null selector with RPL bits set loses them when the host's kernel returns from the exception (APM 2, 8.9.4). */
static bool same_selectors(const struct eq_state *a, const struct eq_state *b)
{
    for (unsigned i = 0; i < X86_SEGS; i++)
        if (a->seg[i] != b->seg[i] && (a->seg[i] > 3 || b->seg[i] > 3))
            return false;
    return true;
}

/* What an operand of many parts faults on first is up to the processor: any address in its page, or the next, will do. */
static bool same_address(const struct eq_result *a, const struct eq_result *b, bool wide)
{
    return a->cr2 == b->cr2 || (wide && a->vector == 14 && a->cr2 - b->cr2 + EQ_PAGE <= 2 * EQ_PAGE);
}

bool eq_same(const struct eq_case *c, const struct eq_result *a, const struct eq_result *b,
             const struct eq_leeway *leeway)
{
    const struct eq_state *s = &a->state, *t = &b->state;
    bool same_event = a->vector == b->vector && same_error(a, b, leeway->wide) && same_address(a, b, leeway->wide);

    if (a->stuck && b->stuck)
        return true; /* a loop without an end: neither has a state after it */
    return memcmp(s->gpr, t->gpr, sizeof s->gpr) == 0 && s->rip == t->rip &&
           ((s->rflags ^ t->rflags) & flags_mask(c, a, leeway)) == 0 && s->fs_base == t->fs_base &&
           s->gs_base == t->gs_base && same_selectors(s, t) &&
           (same_fx(s->fx, t->fx) || same_but_sticky(a, b, leeway->dot_product)) &&
           memcmp(s->ymm, t->ymm, sizeof s->ymm) == 0 && a->stuck == b->stuck &&
           (same_event || same_by_priority(a, b, leeway->vector, leeway->wide));
}

void eq_leeway_of(const struct eq_insn *insn, const struct eq_state *before, struct eq_leeway *ret_leeway)
{
    memset(ret_leeway, 0, sizeof *ret_leeway);
    ret_leeway->flags = eq_undefined_flags(insn, before);
    ret_leeway->dot_product = eq_dot_product(insn);
    for (unsigned k = 0; k < insn->insn.operand_count; k++)
        if (insn->operand[k].type == ZYDIS_OPERAND_TYPE_MEMORY && insn->operand[k].size > 256)
            ret_leeway->wide = true;
    for (unsigned k = 0; k < insn->insn.operand_count; k++)
        if (insn->operand[k].type == ZYDIS_OPERAND_TYPE_MEMORY && insn->operand[k].size >= 128)
            ret_leeway->vector = true;
    for (unsigned k = 0; k < insn->insn.operand_count; k++)
        if (insn->operand[k].type == ZYDIS_OPERAND_TYPE_MEMORY && insn->operand[k].mem.base != ZYDIS_REGISTER_NONE &&
            (insn->operand[k].mem.segment == ZYDIS_REGISTER_FS || insn->operand[k].mem.segment == ZYDIS_REGISTER_GS))
            ret_leeway->segment_offset = true;
    if (insn->insn.mnemonic == ZYDIS_MNEMONIC_CALL)
        ret_leeway->below_stack = before->gpr[X86_RSP] - 8;
    switch ((int)insn->insn.mnemonic) {
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FLDENV: ret_leeway->wide = true; break;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64: ret_leeway->mxcsr_mask = insn->linear; break;
    default: break;
    }
}

static void level(uint8_t *const image[2], uint64_t linear, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        long offset = eq_image_offset(linear + i);

        if (offset >= 0)
            image[0][offset] = image[1][offset];
    }
}

void eq_level(uint8_t *const image[2], const struct eq_result result[2], const struct eq_leeway *leeway)
{
    if (leeway->mxcsr_mask != 0)
        level(image, leeway->mxcsr_mask + 28, 4);
    if (leeway->stale_flags && leeway->below_stack != 0 && result[0].vector == 13 && result[1].vector == 13)
        level(image, leeway->below_stack, 8);
}

/* ---- printing ---- */

static void print_bytes(FILE *to, const uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        fprintf(to, "%02x", bytes[n - 1 - i]);
}

static void print_code(FILE *to, const struct eq_case *c)
{
    ZydisMachineMode mode = c->code32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64;

    for (unsigned at = 0; at < c->length;) {
        ZydisDisassembledInstruction d;

        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(mode, c->address + at, c->code + at, c->length - at, &d)) ||
            d.info.length == 0) {
            fprintf(to, "  %#llx: %02x (no instruction)\n", (unsigned long long)(c->address + at), c->code[at]);
            at++;
            continue;
        }
        fprintf(to, "  %#llx: ", (unsigned long long)(c->address + at));
        for (unsigned i = 0; i < d.info.length; i++)
            fprintf(to, "%02x", c->code[at + i]);
        fprintf(to, "  %s\n", d.text);
        at += d.info.length;
    }
}

static void print_u64(FILE *to, const char *name, uint64_t before, uint64_t a, uint64_t b, bool always)
{
    if (always || a != before || a != b)
        fprintf(to, "  %c %-8s %016llx -> %016llx | %016llx\n", a != b ? '*' : ' ', name, (unsigned long long)before,
                (unsigned long long)a, (unsigned long long)b);
}

static void print_wide(FILE *to, const char *name, unsigned number, const uint8_t *before, const uint8_t *a,
                       const uint8_t *b, unsigned n)
{
    if (memcmp(a, before, n) == 0 && memcmp(a, b, n) == 0)
        return;
    fprintf(to, "  %c %s%u ", memcmp(a, b, n) != 0 ? '*' : ' ', name, number);
    print_bytes(to, before, n);
    fprintf(to, "\n         -> ");
    print_bytes(to, a, n);
    fprintf(to, "\n          | ");
    print_bytes(to, b, n);
    fprintf(to, "\n");
}

static uint64_t fx_word(const struct eq_state *s, unsigned at, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, s->fx + at, size);
    return value;
}

static void print_states(FILE *to, const struct eq_case *c, const struct eq_state *a, const struct eq_state *b,
                         uint64_t mask)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    static const char *const segs[X86_SEGS] = {"es", "cs", "ss", "ds", "fs", "gs"};
    const struct eq_state *s = &c->state;

    for (unsigned i = 0; i < 16; i++)
        print_u64(to, names[i], s->gpr[i], a->gpr[i], b->gpr[i], true);
    print_u64(to, "rip", s->rip, a->rip, b->rip, true);
    print_u64(to, "rflags", s->rflags, a->rflags & mask, b->rflags & mask, true);
    print_u64(to, "fs_base", s->fs_base, a->fs_base, b->fs_base, true);
    print_u64(to, "gs_base", s->gs_base, a->gs_base, b->gs_base, true);
    for (unsigned i = 0; i < X86_SEGS; i++)
        print_u64(to, segs[i], s->seg[i], a->seg[i], b->seg[i], false);
    print_u64(to, "fcw", fx_word(s, 0, 2), fx_word(a, 0, 2), fx_word(b, 0, 2), false);
    print_u64(to, "fsw", fx_word(s, 2, 2), fx_word(a, 2, 2), fx_word(b, 2, 2), false);
    print_u64(to, "ftw", fx_word(s, 4, 1), fx_word(a, 4, 1), fx_word(b, 4, 1), false);
    print_u64(to, "mxcsr", fx_word(s, 24, 4), fx_word(a, 24, 4), fx_word(b, 24, 4), false);
    for (unsigned i = 0; i < 8; i++)
        print_wide(to, "st", i, s->fx + 32 + 16 * i, a->fx + 32 + 16 * i, b->fx + 32 + 16 * i, 10);
    for (unsigned i = 0; i < 16; i++)
        print_wide(to, "ymm", i, s->ymm[i], a->ymm[i], b->ymm[i], 32);
}

static void print_vector_inputs(FILE *to, const struct eq_case *c)
{
    fprintf(to, "  before: fcw %llx fsw %llx ftw %llx mxcsr %llx\n", (unsigned long long)fx_word(&c->state, 0, 2),
            (unsigned long long)fx_word(&c->state, 2, 2), (unsigned long long)fx_word(&c->state, 4, 1),
            (unsigned long long)fx_word(&c->state, 24, 4));
    for (unsigned i = 0; i < 8; i++) {
        fprintf(to, "  st%u ", i);
        print_bytes(to, c->state.fx + 32 + 16 * i, 10);
        fprintf(to, "   ymm%u ", i);
        print_bytes(to, c->state.ymm[i], 32);
        fprintf(to, "   ymm%u ", i + 8);
        print_bytes(to, c->state.ymm[i + 8], 32);
        fprintf(to, "\n");
    }
}

static void print_memory(FILE *to, uint8_t *const image[2])
{
    unsigned shown = 0, different = 0;

    for (unsigned i = 0; i < EQ_IMAGE_SIZE; i += 8) {
        if (memcmp(image[0] + i, image[1] + i, 8) == 0)
            continue;
        different++;
        if (shown++ >= 8)
            continue;
        fprintf(to, "  * image page %u + %03x: ", i / EQ_PAGE, i % EQ_PAGE);
        print_bytes(to, image[0] + i, 8);
        fprintf(to, " | ");
        print_bytes(to, image[1] + i, 8);
        fprintf(to, "\n");
    }
    if (different > shown)
        fprintf(to, "  * and %u more words of memory\n", different - shown);
}

void eq_print_difference(FILE *to, const struct eq_case *c, const struct eq_result result[2], uint8_t *const image[2],
                         const char *const name[2], const struct eq_leeway *leeway)
{
    print_code(to, c);
    for (unsigned i = 0; i < 2; i++)
        fprintf(to, "  %s: vector %u error %#x cr2 %#llx%s\n", name[i], result[i].vector, result[i].error_code,
                (unsigned long long)result[i].cr2, result[i].stuck ? " STUCK" : "");
    print_vector_inputs(to, c);
    print_states(to, c, &result[0].state, &result[1].state, flags_mask(c, &result[0], leeway));
    print_memory(to, image);
}
