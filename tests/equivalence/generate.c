/* generate.c - makes a random case for a form: bytes first, then a state in which they mean something. */
#include "generate.h"

#include <string.h>

#include "values.h"

void eq_poke(const struct eq_memory *memory, uint64_t linear, const void *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        long offset = eq_image_offset(linear + i);

        if (offset < (long)(EQ_CODE_PAGES * EQ_PAGE)) /* the INT3 field stays whole */
            continue;
        for (unsigned k = 0; k < memory->images; k++)
            memory->image[k][offset] = ((const uint8_t *)bytes)[i];
    }
}

void generator_init(struct generator *generator, const struct eq_memory *memory, uint64_t seed)
{
    form_decoders(generator->decoder);
    generator->random.state = seed;
    generator->memory = memory;
}

int eq_gpr_of(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return reg - ZYDIS_REGISTER_AH;
    if (ZydisRegisterGetClass(reg) < ZYDIS_REGCLASS_GPR8 || ZydisRegisterGetClass(reg) > ZYDIS_REGCLASS_GPR64)
        return -1;
    return ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
}

/* ---- bytes ---- */

static unsigned vex_prefix(struct eq_random *r, const struct form *f, unsigned w, unsigned l, uint8_t *bytes)
{
    uint8_t inverted = f->code32 ? 0xe0 : (uint8_t)(eq_u64(r) & 0xe0);
    uint8_t vvvv = eq_once_in(r, 2) ? 0x78 : (uint8_t)(eq_u64(r) & 0x78);
    uint8_t last = (uint8_t)(vvvv | l << 2 | f->prefix[0]);

    if (f->code32)
        last |= 0x40; /* only eight registers; bit 6 is also what tells VEX from LES and LDS in C5 */
    if (f->map == 1 && w == 0 && (inverted & 0x60) == 0x60 && eq_once_in(r, 2)) {
        bytes[0] = 0xc5;
        bytes[1] = (uint8_t)((inverted & 0x80) | last);
        return 2;
    }
    bytes[0] = 0xc4;
    bytes[1] = (uint8_t)(inverted | f->map);
    bytes[2] = (uint8_t)(w << 7 | last);
    return 3;
}

static unsigned legacy_prefixes(struct eq_random *r, const struct form *f, unsigned w, uint8_t *bytes)
{
    unsigned n = 0;

    for (unsigned i = 0; i < 2; i++)
        if (f->prefix[i] != 0)
            bytes[n++] = f->prefix[i];
    if (!f->code32 && (w != 0 || eq_once_in(r, 2)))
        bytes[n++] = (uint8_t)(0x40 | w << 3 | (eq_u64(r) & 7));
    if (f->map > 0)
        bytes[n++] = 0x0f;
    if (f->map > 1)
        bytes[n++] = f->map == 2 ? 0x38 : 0x3a;
    return n;
}

static uint8_t random_modrm(struct eq_random *r, const struct form *f)
{
    uint8_t modrm = (uint8_t)eq_u64(r);

    if (f->reg >= 0)
        modrm = (uint8_t)((modrm & ~0x38) | f->reg << 3);
    if (f->rm >= 0)
        modrm = (uint8_t)((modrm & ~7) | f->rm);
    if (f->modrm == FORM_REGISTER)
        return modrm | 0xc0;
    return modrm >= 0xc0 ? (uint8_t)(modrm & 0xbf) : modrm; /* memory: 10 more often than others */
}

static void try_bytes(struct eq_random *r, const struct form *f, uint8_t bytes[16])
{
    static const uint8_t segments[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    unsigned w = f->w >= 0 ? (unsigned)f->w : eq_below(r, 2);
    unsigned l = f->l >= 0 ? (unsigned)f->l : eq_below(r, 2);
    unsigned n = 0;
    uint64_t random;

    if (f->code32)
        w = f->vex && f->w > 0;
    if (eq_once_in(r, 8))
        bytes[n++] = segments[eq_below(r, sizeof segments)];
    if (eq_once_in(r, 12))
        bytes[n++] = 0x67;
    n += f->vex ? vex_prefix(r, f, w, l, bytes + n) : legacy_prefixes(r, f, w, bytes + n);
    bytes[n++] = f->opcode;
    if (f->modrm != FORM_NO_MODRM)
        bytes[n++] = random_modrm(r, f);
    random = eq_u64(r);
    for (; n < 16; n++, random = random >> 8 | (uint64_t)bytes[n - 1] << 56)
        bytes[n] = (uint8_t)(eq_once_in(r, 4) ? eq_value(r) : random);
}

bool generate_bytes(struct generator *g, const struct form *form, struct eq_insn *ret_insn)
{
    for (unsigned attempt = 0; attempt < 200; attempt++) {
        try_bytes(&g->random, form, ret_insn->bytes);
        if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder[form->code32], ret_insn->bytes, 15, &ret_insn->insn,
                                                ret_insn->operand)) &&
            form_excluded(&ret_insn->insn) == NULL && form_signature(&ret_insn->insn, ret_insn->operand) == form->signature)
            return true;
    }
    return false;
}

/* ---- memory operands ---- */

static uint64_t segment_base(const struct eq_state *s, ZydisRegister segment, bool code32)
{
    if (code32 && (segment == ZYDIS_REGISTER_FS || segment == ZYDIS_REGISTER_GS))
        return (uint32_t)(segment == ZYDIS_REGISTER_FS ? s->fs_base : s->gs_base);
    return segment == ZYDIS_REGISTER_FS ? s->fs_base : segment == ZYDIS_REGISTER_GS ? s->gs_base : 0;
}

/* The displacement field takes the value, as far as it has room. */
static void patch_displacement(struct eq_insn *i, uint64_t value)
{
    if (i->insn.raw.disp.size > 0)
        memcpy(i->bytes + i->insn.raw.disp.offset, &value, i->insn.raw.disp.size / 8);
}

/* Gathers: the base into the window, the indexes small. */
static void aim_gather(struct generator *g, struct eq_case *c, const ZydisDecodedOperand *o, unsigned element)
{
    uint8_t *index = c->state.ymm[ZydisRegisterGetId(o->mem.index)];
    int base = eq_gpr_of(o->mem.base);

    for (unsigned i = 0; i < 32; i += element) {
        int64_t value = (int64_t)eq_below(&g->random, 0x600) - 0x300;

        memcpy(index + i, &value, element);
    }
    if (base >= 0)
        c->state.gpr[base] = eq_data_address(&g->random, c->code32, 8) + (eq_once_in(&g->random, 8) ? 0 : 0x800) -
                             (uint64_t)o->mem.disp.value -
                             segment_base(&c->state, o->mem.segment, c->code32);
}

/* Changes registers or the displacement so that the operand lies in the data window. Returns its linear
 * address, or 0 when it lies where it lies. */
static uint64_t aim(struct generator *g, struct eq_case *c, struct eq_insn *i, const ZydisDecodedOperand *o)
{
    struct eq_state *s = &c->state;
    int base = eq_gpr_of(o->mem.base), index = eq_gpr_of(o->mem.index);
    uint64_t target = eq_data_address(&g->random, c->code32, o->size / 8);
    uint64_t segment = segment_base(s, o->mem.segment, c->code32), want;
    uint64_t disp = (uint64_t)o->mem.disp.value;
    uint64_t indexed, multiple;

    if (i->insn.address_width == 16)
        return 0;
    if (i->insn.address_width == 32)
        target = target & 0xffffffff; /* the high window is out of reach */
    want = target - segment;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
        target = target & 0xffffffff;
        patch_displacement(i, want - c->address - i->insn.length);
        return target;
    }
    if (i->insn.mnemonic == ZYDIS_MNEMONIC_XLAT)
        index = -1;
    if (base >= 0 && base != index) {
        indexed = index >= 0 ? s->gpr[index] * o->mem.scale : 0;
        s->gpr[base] = want - indexed - disp;
        return target;
    }
    if (index < 0 && base < 0) {
        patch_displacement(i, want);
        return target;
    }
    /* One register, times `multiple`: it must divide. */
    multiple = o->mem.scale + (base >= 0 ? 1u : 0u);
    indexed = want - disp;
    target -= indexed % multiple;
    s->gpr[index] = indexed / multiple;
    return target;
}

/* True for what the operand of a near branch through memory or a RET takes from there. */
static bool is_branch(const struct eq_insn *i)
{
    return i->insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE || i->insn.mnemonic == ZYDIS_MNEMONIC_RET;
}

uint64_t eq_code_target(struct generator *g, const struct eq_case *c)
{
    uint64_t target = EQ_CODE_A + eq_below(&g->random, 0x2000);

    if (eq_once_in(&g->random, 12))
        target = eq_value(&g->random);
    return target - c->address < c->length ? target + 16 : target;
}

static void fill_operand(struct generator *g, const struct eq_case *c, const struct eq_insn *i, uint64_t linear,
                         unsigned size)
{
    uint8_t bytes[1024];
    unsigned n = size < sizeof bytes ? size : (unsigned)sizeof bytes;

    eq_lanes(&g->random, bytes, n);
    if (is_branch(i) && n >= 2) {
        uint64_t target = eq_code_target(g, c);

        memcpy(bytes, &target, n < 8 ? n : 8);
    } else if (n == 10) {
        eq_extended(&g->random, bytes);
    }
    if (i->insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG && n <= 8 && eq_once_in(&g->random, 2))
        memcpy(bytes, &c->state.gpr[X86_RAX], n);
    if ((i->insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B || i->insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B) &&
        eq_once_in(&g->random, 2)) {
        memcpy(bytes, &c->state.gpr[X86_RAX], n / 2);
        memcpy(bytes + n / 2, &c->state.gpr[X86_RDX], n / 2);
    }
    eq_poke(g->memory, linear, bytes, n);
}


static void aim_operands(struct generator *g, struct eq_case *c, struct eq_insn *i)
{
    for (unsigned k = i->insn.operand_count; k-- > 0;) {
        const ZydisDecodedOperand *o = &i->operand[k];
        uint64_t linear;

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
            ZydisMnemonic m = i->insn.mnemonic;
            bool qwords = m == ZYDIS_MNEMONIC_VPGATHERQD || m == ZYDIS_MNEMONIC_VPGATHERQQ ||
                          m == ZYDIS_MNEMONIC_VGATHERQPS || m == ZYDIS_MNEMONIC_VGATHERQPD;

            aim_gather(g, c, o, qwords ? 8 : 4);
            /* A single-step trap takes the place of a fault after the first element (SDM 2, VPGATHERDD). */
            c->state.rflags &= ~(uint64_t)X86_FLAG_TF;
            continue;
        }
        /* Some are left to point anywhere; not save areas, whose place eq_leeway_of must know. */
        if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN || (o->size > 0 && o->size < 4096 && eq_once_in(&g->random, 40)))
            continue;
        /* The stack's own operand: RSP points there already, as pushes address below it. */
        if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && eq_gpr_of(o->mem.base) == X86_RSP)
            linear = i->insn.mnemonic == ZYDIS_MNEMONIC_PUSH ? 0 : c->state.gpr[X86_RSP];
        else
            linear = aim(g, c, i, o);
        if (linear != 0)
            i->linear = linear;
        if (linear != 0 && o->size > 0) {
            fill_operand(g, c, i, linear, o->size / 8);
            eq_fit_memory(g, c, i, linear, o->size / 8);
        }
    }
}

/* REP MOVS may copy in large chunks where the linear addresses do not overlap (SDM 1, 7.3.9.3): source and destination
 * must not overlap through the two mappings of the same pages. */
static void unalias_copy(struct eq_case *c, const struct eq_insn *i)
{
    uint64_t source = c->state.gpr[X86_RSI], from_low = EQ_DATA_HIGH - EQ_DATA_LOW;

    if (!(i->insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPNE)) ||
        i->operand[1].type != ZYDIS_OPERAND_TYPE_MEMORY)
        return;
    source += segment_base(&c->state, i->operand[1].mem.segment, c->code32);
    if (c->state.gpr[X86_RDI] - EQ_DATA_HIGH < 0x10000)
        c->state.gpr[X86_RDI] -= from_low;
    if (source - EQ_DATA_HIGH < 0x10000)
        c->state.gpr[X86_RSI] -= from_low;
}

bool eq_wide_operand(const struct eq_insn *i)
{
    if (i->insn.meta.category == ZYDIS_CATEGORY_SEGOP) /* far pointers: 16:16 is two words */
        return true;
    for (unsigned k = 0; k < i->insn.operand_count; k++) {
        const ZydisDecodedOperand *o = &i->operand[k];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB || o->size > 64 || (o->size & (o->size - 1)) != 0))
            return true;
    }
    return false;
}

/* ---- the case ---- */

/* A relative branch goes into the INT3 field, but not into itself. */
static void aim_branch(struct generator *g, const struct eq_case *c, struct eq_insn *i)
{
    for (unsigned k = 0; k < 2; k++) {
        uint64_t displacement = eq_code_target(g, c) - c->address - i->insn.length;
        uint64_t from = (uint64_t) - (int64_t)i->insn.length;

        if (!i->insn.raw.imm[k].is_relative || i->insn.raw.imm[k].size == 0)
            continue;
        if (i->insn.raw.imm[k].size == 8) {
            displacement = (uint64_t)(int64_t)(int8_t)displacement;
            if (displacement >= from)
                displacement = 0;
        }
        if (displacement + 16 >= from && displacement < from + 32)
            displacement = 5;
        memcpy(i->bytes + i->insn.raw.imm[k].offset, &displacement, i->insn.raw.imm[k].size / 8);
    }
}

static uint64_t code_address(struct eq_random *r, unsigned length)
{
    switch (eq_below(r, 40)) {
    case 0: return EQ_CODE_A + EQ_PAGE - eq_below(r, length + 1);
    case 1: return EQ_CODE_A + 2 * EQ_PAGE - 1 - eq_below(r, length);
    case 2: return EQ_CODE_B + EQ_PAGE - 1 - eq_below(r, length);
    default: return EQ_CODE_A + 0x200 + eq_below(r, 0xc00);
    }
}

bool generate_case(struct generator *g, const struct form *form, struct eq_case *ret_case, struct eq_insn *ret_insn)
{
    struct eq_case *c = ret_case;

    if (!generate_bytes(g, form, ret_insn))
        return false;
    if (!eq_fits(ret_insn))
        return false;
    ret_insn->linear = 0;
    memset(c, 0, sizeof *c);
    c->code32 = form->code32;
    c->length = ret_insn->insn.length;
    c->address = code_address(&g->random, c->length);
    eq_random_state(&g->random, c->code32, &c->state);
    c->state.rip = c->address;
    eq_fit_state(g, c, ret_insn);
    aim_operands(g, c, ret_insn);
    unalias_copy(c, ret_insn);
    if (eq_wide_operand(ret_insn))
        c->state.rflags &= ~(uint64_t)X86_FLAG_AC;
    if (is_branch(ret_insn))
        aim_branch(g, c, ret_insn);
    if (c->code32) /* compatibility code sees and keeps 32 bits; R8-R15 keep theirs */
        for (unsigned k = 0; k < 8; k++)
            c->state.gpr[k] = (uint32_t)c->state.gpr[k];
    memcpy(c->code, ret_insn->bytes, c->length);
    /* The operands were those of the bytes before displacements changed. */
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder[c->code32], c->code, c->length, &ret_insn->insn,
                                               ret_insn->operand));
}
