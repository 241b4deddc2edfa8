/* forms.c - enumerates instruction forms by brute force over encodings, as Zydis decodes them. */
#include "forms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isa/x86/decode.h"

/* Bytes after the opcode and ModRM; a displacement and an immediate that look like nothing special. */
static const uint8_t tail[] = {0x10, 0x20, 0x30, 0x02, 0x11, 0x22, 0x33, 0x04};

/* Legacy prefix pairs in front of an opcode. F2 and F3 come last, so that they are the mandatory ones. */
static const uint8_t legacy_prefix[][2] = {{0, 0},       {0x66, 0},    {0xf3, 0},    {0xf2, 0},
                                           {0x66, 0xf3}, {0x66, 0xf2}, {0xf0, 0},    {0x66, 0xf0}};
#define LEGACY_PREFIXES (sizeof legacy_prefix / sizeof *legacy_prefix)

/* One point of the enumeration. */
struct point {
    bool code32, vex;
    uint8_t map, opcode;
    uint8_t prefix[2];
    uint8_t w, l, modrm;
};

struct scan {
    ZydisDecoder decoder[2];
    const struct x86_cpuid *cpuid;
    struct form_list *list;
};

struct meaning {
    uint64_t signature; /* 0: no form here */
    ZydisDecodedInstruction insn;
};

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value + UINT64_C(0x9e3779b97f4a7c15) + (hash << 6) + (hash >> 2);
    return hash * UINT64_C(0xff51afd7ed558ccd);
}

uint64_t form_signature(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operand)
{
    const uint64_t kept = ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    uint64_t hash = mix(mix(insn->mnemonic, insn->meta.isa_set), insn->attributes & kept);

    hash = mix(mix(hash, insn->encoding), insn->opcode);
    /* The operand size matters to what pushes, pops or branches even without an operand of that size. */
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && insn->operand_width != 8)
        hash = mix(hash, insn->operand_width);
    for (unsigned i = 0; i < insn->operand_count_visible; i++) {
        const ZydisDecodedOperand *o = &operand[i];
        bool address = o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type == ZYDIS_MEMOP_TYPE_AGEN;

        hash = mix(hash, (uint64_t)o->type | (uint64_t)(address ? 0 : o->size) << 8 | (uint64_t)o->element_type << 24);
    }
    return hash | 1;
}

void form_decoders(ZydisDecoder ret_decoder[2])
{
    ZydisDecoderInit(&ret_decoder[0], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&ret_decoder[1], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    for (unsigned i = 0; i < 2; i++) {
        ZydisDecoderEnableMode(&ret_decoder[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&ret_decoder[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    }
}

static unsigned encode(const struct point *p, uint8_t *bytes)
{
    unsigned n = 0;

    if (p->vex) {
        bytes[n++] = 0xc4;
        bytes[n++] = (uint8_t)(0xe0 | p->map);
        bytes[n++] = (uint8_t)(p->w << 7 | 0x78 | p->l << 2 | p->prefix[0]);
    } else {
        for (unsigned i = 0; i < 2; i++)
            if (p->prefix[i] != 0)
                bytes[n++] = p->prefix[i];
        if (p->w)
            bytes[n++] = 0x48;
        if (p->map > 0)
            bytes[n++] = 0x0f;
        if (p->map > 1)
            bytes[n++] = p->map == 2 ? 0x38 : 0x3a;
    }
    bytes[n++] = p->opcode;
    bytes[n++] = p->modrm;
    memcpy(bytes + n, tail, sizeof tail);
    return n + (unsigned)sizeof tail;
}

/* Decodes the encoding at p. VEX.vvvv must be 1111 in some forms; in gathers it must not, there must be an index, and
 * vvvv, index and ModRM.reg must be three registers. */
static bool decode(const struct scan *scan, const struct point *p, ZydisDecodedInstruction *ret_insn,
                   ZydisDecodedOperand *ret_operand)
{
    const ZydisDecoder *decoder = &scan->decoder[p->code32];
    uint8_t bytes[32];
    unsigned n = encode(p, bytes);

    if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, n, ret_insn, ret_operand)))
        return true;
    if (!p->vex || p->modrm >= 0xc0)
        return false;
    bytes[2] = (uint8_t)(bytes[2] & ~((p->modrm >> 3 & 7) == 4 ? 0x30 : 0x20)); /* vvvv = 6, or 4 */
    bytes[4] = (uint8_t)((p->modrm & ~7) | 4);
    bytes[5] = (p->modrm >> 3 & 7) == 2 ? 0x28 : 0x10; /* index = 5, or 2 */
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, n, ret_insn, ret_operand));
}

/* What the encoding at p means, if it is to be tested. */
static struct meaning look(struct scan *scan, const struct point *p)
{
    struct meaning m = {0};
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];

    if (!decode(scan, p, &m.insn, operand))
        return m;
    if ((m.insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && m.insn.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX) ||
        m.insn.opcode != p->opcode || (m.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) != p->vex ||
        m.insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || !x86_cpuid_allows(scan->cpuid, &m.insn))
        return m;
    if (form_excluded(&m.insn) != NULL) {
        scan->list->excluded++;
        return m;
    }
    m.signature = form_signature(&m.insn, operand);
    return m;
}

static void add(struct scan *scan, const struct point *p, const struct meaning *m, int reg, int rm)
{
    static const char *const maps[] = {"", "0f ", "0f38 ", "0f3a "};
    struct form_list *list = scan->list;
    bool has_modrm = (m->insn.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
    struct form *f;

    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 1024 : list->capacity * 2;
        list->form = realloc(list->form, list->capacity * sizeof *list->form);
        if (list->form == NULL)
            exit(2);
    }
    f = &list->form[list->count++];
    *f = (struct form){.signature = m->signature, .code32 = p->code32, .vex = p->vex, .map = p->map,
                       .opcode = p->opcode, .prefix = {p->prefix[0], p->prefix[1]}, .w = (int8_t)p->w,
                       .l = (int8_t)p->l, .reg = (int8_t)reg, .rm = (int8_t)rm,
                       .modrm = !has_modrm ? FORM_NO_MODRM : p->modrm >= 0xc0 ? FORM_REGISTER : FORM_MEMORY,
                       .mnemonic = m->insn.mnemonic, .isa_set = m->insn.meta.isa_set, .isa_ext = m->insn.meta.isa_ext};
    snprintf(f->name, sizeof f->name, "%s %s%s%02x p%02x.%02x w%d l%d r%d.%d %s%s", ZydisMnemonicGetString(f->mnemonic),
             p->vex ? "vex " : "", maps[p->map], p->opcode, p->prefix[0], p->prefix[1], f->w, f->l, reg, rm,
             f->modrm == FORM_NO_MODRM ? "-" : f->modrm == FORM_MEMORY ? "mem" : "reg", p->code32 ? " 32" : " 64");
}

/* Adds the forms at one opcode, prefix, W and L: over ModRM, joining what means the same. */
static void scan_modrm(struct scan *scan, struct point *p, bool memory)
{
    struct meaning m[8][8];
    bool same_reg = true;
    unsigned rms = memory ? 1 : 8;

    for (unsigned reg = 0; reg < 8; reg++)
        for (unsigned rm = 0; rm < rms; rm++) {
            p->modrm = (uint8_t)((memory ? 0x83 : 0xc0) | reg << 3 | rm);
            m[reg][rm] = look(scan, p);
            same_reg = same_reg && m[reg][rm].signature == m[0][0].signature;
        }
    p->modrm = memory ? 0x83 : 0xc0;
    if (same_reg) {
        if (m[0][0].signature != 0 && (!memory || (m[0][0].insn.attributes & ZYDIS_ATTRIB_HAS_MODRM)))
            add(scan, p, &m[0][0], -1, -1);
        return;
    }
    for (unsigned reg = 0; reg < 8; reg++) {
        bool same_rm = true;

        for (unsigned rm = 0; rm < rms; rm++)
            same_rm = same_rm && m[reg][rm].signature == m[reg][0].signature;
        for (unsigned rm = 0; rm < (same_rm ? 1 : rms); rm++)
            if (m[reg][rm].signature != 0)
                add(scan, p, &m[reg][rm], (int)reg, same_rm ? -1 : (int)rm);
    }
}

/* Removes forms from `first` on that mean the same as an earlier one: prefixes, W or L that are ignored. If only W or L
 * differs, the one that stays stands for both. */
static void join(struct form_list *list, unsigned first)
{
    unsigned kept = first;

    for (unsigned i = first; i < list->count; i++) {
        struct form *f = &list->form[i];
        bool known = false;

        for (unsigned k = first; k < kept && !known; k++) {
            struct form *g = &list->form[k];

            if (g->signature != f->signature || g->modrm != f->modrm || g->reg != f->reg || g->rm != f->rm)
                continue;
            known = true;
            if (g->w != f->w && memcmp(g->prefix, f->prefix, 2) == 0)
                g->w = -1;
            if (g->l != f->l && memcmp(g->prefix, f->prefix, 2) == 0)
                g->l = -1;
        }
        if (!known)
            list->form[kept++] = *f;
    }
    list->count = kept;
}

static void scan_opcode(struct scan *scan, bool code32, bool vex, unsigned map, unsigned opcode)
{
    unsigned first = scan->list->count;
    unsigned prefixes = vex ? 4 : (unsigned)LEGACY_PREFIXES;

    for (unsigned prefix = 0; prefix < prefixes; prefix++)
        for (unsigned w = 0; w < (vex || !code32 ? 2u : 1u); w++)
            for (unsigned l = 0; l < (vex ? 2u : 1u); l++)
                for (unsigned memory = 0; memory < 2; memory++) {
                    struct point p = {.code32 = code32, .vex = vex, .map = (uint8_t)map, .opcode = (uint8_t)opcode,
                                      .w = (uint8_t)w, .l = (uint8_t)l};

                    if (vex)
                        p.prefix[0] = (uint8_t)prefix;
                    else
                        memcpy(p.prefix, legacy_prefix[prefix], 2);
                    scan_modrm(scan, &p, memory != 0);
                }
    join(scan->list, first);
}

void forms_enumerate(struct form_list *ret_list, const struct x86_cpuid *cpuid)
{
    struct scan scan = {.cpuid = cpuid, .list = ret_list};

    memset(ret_list, 0, sizeof *ret_list);
    form_decoders(scan.decoder);
    for (unsigned code32 = 0; code32 < 2; code32++) {
        for (unsigned map = 0; map < 4; map++)
            for (unsigned opcode = 0; opcode < 256; opcode++)
                scan_opcode(&scan, code32 != 0, false, map, opcode);
        for (unsigned map = 1; map < 4; map++)
            for (unsigned opcode = 0; opcode < 256; opcode++)
                scan_opcode(&scan, code32 != 0, true, map, opcode);
    }
}
