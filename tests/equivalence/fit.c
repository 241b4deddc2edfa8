/* fit.c - gives single mnemonics the values that take them past their first check. */
#include <string.h>

#include "generate.h"
#include "values.h"

static uint16_t selector(struct eq_random *r)
{
    /* Null, user data, user code, LDT (none), kernel segments; the host's TLS and per-CPU slots are left out. */
    static const uint16_t selectors[] = {0,    0,    1,    3,    0x2b, 0x2b, 0x28, 0x23,
                                         0x33, 0x30, 0x10, 0x18, 0x1b, 0x08, 0x04, 0x0f};
    uint16_t wild = (uint16_t)(eq_u64(r) | 0x80);

    return eq_once_in(r, 16) ? wild : selectors[eq_below(r, sizeof selectors / sizeof *selectors)];
}

static void fit_repeat(struct generator *g, struct eq_case *c, const struct eq_insn *i)
{
    uint64_t count = eq_once_in(&g->random, 16) ? eq_below(&g->random, 3000) : eq_below(&g->random, 20);

    if (i->insn.address_width == 64 || c->code32)
        c->state.gpr[X86_RCX] = count;
    else
        c->state.gpr[X86_RCX] = (eq_u64(&g->random) << 32) | count;
    /* Comparisons that stay equal for a while need equal bytes: one value over both operands' surroundings. */
    if (eq_once_in(&g->random, 2)) {
        uint8_t same[64];

        memset(same, (int)eq_u64(&g->random), sizeof same);
        memset(&c->state.gpr[X86_RAX], same[0], 8);
    }
}

/* A dividend whose quotient mostly fits: the high half zero, or the sign of the low one. */
static void fit_divide(struct generator *g, struct eq_case *c, const struct eq_insn *i)
{
    bool is_signed = i->insn.mnemonic == ZYDIS_MNEMONIC_IDIV;
    unsigned width = i->operand[0].size;
    uint64_t low = c->state.gpr[X86_RAX];
    bool negative = is_signed && (low >> (width == 8 ? 7 : width - 1) & 1);

    if (eq_once_in(&g->random, 3))
        return;
    if (width == 8)
        c->state.gpr[X86_RAX] = (low & ~UINT64_C(0xff00)) | (negative ? 0xff00 : 0);
    else
        c->state.gpr[X86_RDX] = negative ? UINT64_MAX : eq_below(&g->random, 3);
}

/* BT with a register as bit offset reaches far; keep most within reach of the window. */
static void fit_bit_offset(struct generator *g, struct eq_case *c, const struct eq_insn *i)
{
    int reg = i->operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER ? eq_gpr_of(i->operand[1].reg.value) : -1;

    if (reg >= 0 && i->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY && !eq_once_in(&g->random, 8))
        c->state.gpr[reg] = (uint64_t)((int64_t)eq_below(&g->random, 0x8000) - 0x4000);
}

static void fit_selector_operand(struct generator *g, struct eq_case *c, const struct eq_insn *i, unsigned k)
{
    int reg = i->operand[k].type == ZYDIS_OPERAND_TYPE_REGISTER ? eq_gpr_of(i->operand[k].reg.value) : -1;

    if (reg >= 0)
        c->state.gpr[reg] = selector(&g->random) | (eq_u64(&g->random) & ~UINT64_C(0xffff));
}

static bool is_xsave_family(ZydisMnemonic m)
{
    switch ((int)m) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: return true;
    default: return false;
    }
}

bool eq_dot_product(const struct eq_insn *i)
{
    return i->insn.mnemonic == ZYDIS_MNEMONIC_DPPS || i->insn.mnemonic == ZYDIS_MNEMONIC_DPPD ||
           i->insn.mnemonic == ZYDIS_MNEMONIC_VDPPS || i->insn.mnemonic == ZYDIS_MNEMONIC_VDPPD;
}

/* XSAVE's component mask is in EDX:EAX, which then cannot hold an address as well. */
bool eq_fits(const struct eq_insn *i)
{
    for (unsigned k = 0; is_xsave_family(i->insn.mnemonic) && k < i->insn.operand_count; k++) {
        int base = eq_gpr_of(i->operand[k].mem.base), index = eq_gpr_of(i->operand[k].mem.index);

        if (i->operand[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (base == X86_RAX || base == X86_RDX || index == X86_RAX || index == X86_RDX))
            return false;
    }
    return true;
}

void eq_fit_state(struct generator *g, struct eq_case *c, const struct eq_insn *i)
{
    const uint64_t repeats = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;

    if (i->insn.attributes & repeats)
        fit_repeat(g, c, i);
    if (is_xsave_family(i->insn.mnemonic)) { /* components beyond AVX are not ours */
        c->state.gpr[X86_RAX] &= ~UINT64_C(0xfffffff8);
        c->state.gpr[X86_RDX] &= ~UINT64_C(0xffffffff);
    }
    switch ((int)i->insn.mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV: fit_divide(g, c, i); break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: fit_bit_offset(g, c, i); break;
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
        if (eq_once_in(&g->random, 2))
            c->state.gpr[X86_RCX] = eq_below(&g->random, 3) | (eq_once_in(&g->random, 2) ? UINT64_C(0x700000000) : 0);
        break;
    case ZYDIS_MNEMONIC_MASKMOVQ: /* whether a faulting one has already left x87 state is up to the processor */
        c->state.fx[3] &= 0xc7;
        c->state.fx[4] = 0xff;
        break;
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE: {
        int reg = eq_gpr_of(i->operand[0].reg.value);

        if (reg >= 0 && eq_once_in(&g->random, 2))
            c->state.gpr[reg] = (uint64_t)((int64_t)(c->state.gpr[reg] << 16) >> 16);
        break;
    }
    case ZYDIS_MNEMONIC_MOV: fit_selector_operand(g, c, i, i->insn.opcode == 0x8e ? 1 : ZYDIS_MAX_OPERAND_COUNT - 1); break;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL: fit_selector_operand(g, c, i, 1); break;
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW: fit_selector_operand(g, c, i, 0); break;
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
        if (i->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER && !eq_once_in(&g->random, 8))
            c->state.gpr[eq_gpr_of(i->operand[0].reg.value)] = eq_code_target(g, c);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG:
        if (i->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER && eq_once_in(&g->random, 2))
            c->state.gpr[X86_RAX] = c->state.gpr[eq_gpr_of(i->operand[0].reg.value)];
        break;
    default: break;
    }
}

static void fit_mxcsr(struct generator *g, uint64_t linear)
{
    uint32_t mxcsr = eq_mxcsr(&g->random);

    if (eq_once_in(&g->random, 8))
        mxcsr |= UINT32_C(0x40000) << eq_below(&g->random, 14); /* reserved: #GP */
    eq_poke(g->memory, linear, &mxcsr, 4);
}

/* An XSAVE area with a header that mostly passes XRSTOR's checks (SDM 1, 13.8). */
static void fit_xsave_area(struct generator *g, uint64_t linear)
{
    uint8_t header[64] = {0};
    uint8_t lanes[320];

    eq_lanes(&g->random, lanes, sizeof lanes);
    eq_poke(g->memory, linear + 576, lanes, 256);
    header[0] = (uint8_t)(eq_u64(&g->random) & 7);
    if (eq_once_in(&g->random, 4)) { /* compacted */
        header[8] = header[0] | (uint8_t)(eq_u64(&g->random) & 7);
        header[15] = 0x80;
    }
    if (eq_once_in(&g->random, 8))
        header[eq_below(&g->random, 64)] |= (uint8_t)(8u << eq_below(&g->random, 5));
    header[0] &= (uint8_t)~0xe0; /* components that the host has and we do not */
    header[1] &= (uint8_t)~0x02;
    header[8] &= (uint8_t)~0xe0;
    header[9] &= (uint8_t)~0x0a;
    eq_poke(g->memory, linear + 512, header, sizeof header);
}

static void fit_fx_area(struct generator *g, uint64_t linear)
{
    uint8_t header[32], number[16] = {0};

    eq_fx_header(&g->random, header);
    eq_poke(g->memory, linear, header, 24);
    fit_mxcsr(g, linear + 24);
    for (unsigned k = 0; k < 8; k++) {
        eq_extended(&g->random, number);
        eq_poke(g->memory, linear + 32 + 16 * k, number, 16);
    }
}

void eq_fit_memory(struct generator *g, const struct eq_case *c, const struct eq_insn *i, uint64_t linear, unsigned size)
{
    uint16_t chosen = selector(&g->random);

    (void)c;
    switch ((int)i->insn.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR: fit_mxcsr(g, linear); break;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: fit_fx_area(g, linear); break;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        fit_fx_area(g, linear);
        fit_xsave_area(g, linear);
        break;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64: fit_xsave_area(g, linear); break; /* XSTATE_BV is read and written */
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS: eq_poke(g->memory, linear + size - 2, &chosen, 2); break;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW: eq_poke(g->memory, linear, &chosen, 2); break;
    case ZYDIS_MNEMONIC_MOV:
        if (i->insn.opcode == 0x8e)
            eq_poke(g->memory, linear, &chosen, 2);
        break;
    case ZYDIS_MNEMONIC_POP:
        if (i->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(i->operand[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            eq_poke(g->memory, linear, &chosen, 2);
        break;
    default: break;
    }
}
