/* values.c - see values.h. */
#include "values.h"

#include <string.h>

#define COUNT(array) ((unsigned)(sizeof(array) / sizeof *(array)))

static const uint64_t corners[] = {
    0, 1, 2, 3, 7, 8, 0x0f, 0x10, 0x1f, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xff, 0x100, 0x7fff, 0x8000, 0xffff,
    0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000,
    0xffffffffffffffff, 0xfffffffffffffffe, 0xffffffff80000000, 0xffffffffffffff80, 0xffffffffffff8000,
    0x0123456789abcdef, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 0x9999999999999999};

static const uint16_t halves[] = {0, 0x8000, 1, 0x03ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x7c01};

static const uint32_t singles[] = {
    0, 0x80000000, 1, 0x80000001, 0x007fffff, 0x00800000, 0x00800001, 0x3f800000, 0xbf800000, 0x3f7fffff, 0x3f000000,
    0x40000000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xffbfffff,
    0x4f000000, 0xcf000000, 0x4effffff, 0x5f000000, 0xdf000000, 0x4b000000, 0x4b7fffff, 0x3fc00000, 0x40200000,
    0x477fe000, 0x477ff000, 0x33000000, 0x38800000, 0x40490fdb};

static const uint64_t doubles[] = {
    0, 0x8000000000000000, 1, 0x8000000000000001, 0x000fffffffffffff, 0x0010000000000000, 0x3ff0000000000000,
    0xbff0000000000000, 0x3fefffffffffffff, 0x3fe0000000000000, 0x4000000000000000, 0x7fefffffffffffff,
    0xffefffffffffffff, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000000,
    0x7ff0000000000001, 0xfff7ffffffffffff, 0x41e0000000000000, 0xc1e0000000000000, 0x41dfffffffc00000,
    0x43e0000000000000, 0xc3e0000000000000, 0x4330000000000000, 0x433fffffffffffff, 0x3ff8000000000000,
    0x4004000000000000, 0x47efffffe0000000, 0x47effffff0000000, 0x36a0000000000000, 0x380fffffe0000000,
    0x3810000000000000, 0x400921fb54442d18};

uint64_t eq_value(struct eq_random *r)
{
    uint64_t value = eq_u64(r);

    switch (eq_below(r, 8)) {
    case 0:
    case 1: return corners[eq_below(r, COUNT(corners))];
    case 2: return corners[eq_below(r, COUNT(corners))] + (value & 3) - 1;
    case 3: return value >> eq_below(r, 64);
    case 4: return (uint64_t)((int64_t)value >> eq_below(r, 64));
    case 5: return UINT64_C(1) << (value & 63);
    default: return value;
    }
}

static uint32_t single(struct eq_random *r)
{
    uint32_t bits = (uint32_t)eq_u64(r);

    if (eq_once_in(r, 2))
        return singles[eq_below(r, COUNT(singles))];
    /* Mostly exponents near 1, so that sums and products meet. */
    return eq_once_in(r, 4) ? bits : (bits & 0x807fffff) | (0x70 + eq_below(r, 0x20)) << 23;
}

static uint64_t two_singles(struct eq_random *r) { return single(r) | (uint64_t)single(r) << 32; }

static uint64_t one_double(struct eq_random *r)
{
    uint64_t bits = eq_u64(r);

    if (eq_once_in(r, 2))
        return doubles[eq_below(r, COUNT(doubles))];
    return eq_once_in(r, 4) ? bits : (bits & 0x800fffffffffffff) | (uint64_t)(0x3e0 + eq_below(r, 0x40)) << 52;
}

static uint64_t small_lanes(struct eq_random *r)
{
    uint64_t value = 0;
    bool half = eq_once_in(r, 3);

    for (unsigned i = 0; i < 4; i++)
        value = value << 16 | (half ? halves[eq_below(r, COUNT(halves))] : (uint16_t)eq_value(r));
    return value;
}

void eq_lanes(struct eq_random *r, uint8_t *ret_bytes, unsigned n)
{
    unsigned kind = eq_below(r, 6);

    for (unsigned i = 0; i < n; i += 8) {
        uint64_t lane;

        switch (kind) {
        case 0: lane = small_lanes(r); break;
        case 1:
        case 2: lane = two_singles(r); break;
        case 3: lane = one_double(r); break;
        case 4: lane = eq_value(r); break;
        default: lane = eq_u64(r); break;
        }
        memcpy(ret_bytes + i, &lane, n - i < 8 ? n - i : 8);
    }
}

void eq_extended(struct eq_random *r, uint8_t ret_bytes[10])
{
    static const uint64_t fractions[] = {0x8000000000000000, 0xc000000000000000, 0x8000000000000001, 0xffffffffffffffff,
                                         0x7fffffffffffffff, 0, 1, 0xbfffffffffffffff, 0xc90fdaa22168c235};
    static const uint16_t exponents[] = {0, 1, 0x3ffe, 0x3fff, 0x4000, 0x403e, 0x403d, 0x401e, 0x400e, 0x7ffe, 0x7fff,
                                         0x7fff, 0x3c01, 0x43fe, 0x3f81, 0x407e, 0x3fbe, 0x43ff};
    uint64_t fraction = eq_u64(r);
    uint16_t exponent = (uint16_t)(0x3ff0 + eq_below(r, 0x20));

    if (eq_once_in(r, 3))
        fraction = fractions[eq_below(r, COUNT(fractions))];
    if (eq_once_in(r, 3))
        exponent = exponents[eq_below(r, COUNT(exponents))];
    else if (eq_once_in(r, 8))
        exponent = (uint16_t)eq_u64(r) & 0x7fff;
    if (exponent != 0 && !eq_once_in(r, 16))
        fraction |= UINT64_C(1) << 63; /* without it: an unsupported encoding */
    if (eq_once_in(r, 2))
        exponent |= 0x8000;
    memcpy(ret_bytes, &fraction, 8);
    memcpy(ret_bytes + 8, &exponent, 2);
}

uint32_t eq_mxcsr(struct eq_random *r)
{
    uint32_t value = (uint32_t)eq_u64(r) & 0xffff;

    switch (eq_below(r, 8)) {
    case 0:
    case 1:
    case 2: return 0x1f80;
    case 3: return value; /* anything, unmasked exceptions too */
    case 4: return (value & 0x7f) | (0x1f80 & ~(0x80u << eq_below(r, 6)));
    default: return value | 0x1f80;
    }
}

void eq_fx_header(struct eq_random *r, uint8_t ret_fx[32])
{
    uint16_t fcw = 0x37f, fsw = (uint16_t)(eq_u64(r) & 0x7f7f);
    uint8_t tags = (uint8_t)eq_u64(r);
    uint32_t mxcsr = eq_mxcsr(r), mask = 0xffff;

    if (eq_once_in(r, 2))
        fcw = (uint16_t)((eq_u64(r) & 0x1f3f) | 0x40);
    if (!eq_once_in(r, 4))
        fcw |= 0x3f;
    if (!eq_once_in(r, 4))
        fsw &= 0x7f40; /* no sticky exceptions */
    if (!eq_once_in(r, 8))
        fsw = (uint16_t)(fsw & ~(0x3f & ~fcw)); /* no pending one */
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080; /* ES and B follow (SDM 1, 8.1.3.3) */
    if (eq_once_in(r, 2))
        tags = 0xff;
    memset(ret_fx, 0, 32);
    memcpy(ret_fx, &fcw, 2);
    memcpy(ret_fx + 2, &fsw, 2);
    ret_fx[4] = tags;
    memcpy(ret_fx + 24, &mxcsr, 4);
    memcpy(ret_fx + 28, &mask, 4);
}

uint64_t eq_data_address(struct eq_random *r, bool code32, unsigned size)
{
    static const uint16_t edges[] = {0x3000, 0x1000, 0x5000, 0x6000, 0x7000, 0x4000};
    uint64_t base = code32 || eq_once_in(r, 2) ? EQ_DATA_LOW : EQ_DATA_HIGH;
    unsigned kind = eq_below(r, 32);
    uint64_t offset;

    if (size == 0)
        size = 1;
    if (size >= 512) /* FXSAVE and XSAVE areas: whether parts not in use are touched is the processor's choice */
        return eq_once_in(r, 12) ? base + 0x5000 : base + 0x1000 + (eq_below(r, 0x1000) & ~(eq_once_in(r, 16) ? 0 : 63u));
    if (kind < 3) { /* across an edge, or just before it */
        offset = edges[eq_below(r, COUNT(edges))] - eq_below(r, size + 1);
        if (eq_once_in(r, 2))
            offset &= ~UINT64_C(15);
    } else if (kind < 5) { /* across a page between two good ones */
        offset = 0x2000 - eq_below(r, size + 1);
    } else if (kind < 6) {
        offset = 0x5000 + eq_below(r, 0x1000);
    } else {
        offset = 0x1000 + eq_below(r, 0x2000 - (size < 0x1000 ? size : 0x1000));
    }
    if (kind >= 5 && kind < 22) {
        unsigned align = size >= 512 ? 64 : (size & (size - 1)) == 0 ? size : 16;

        offset &= ~(uint64_t)(align - 1);
    }
    return base + offset;
}

static uint64_t random_flags(struct eq_random *r)
{
    uint64_t flags = X86_FLAG_FIXED | X86_FLAG_IF | (eq_u64(r) & X86_FLAGS_ARITH);

    if (eq_once_in(r, 3))
        flags |= X86_FLAG_DF;
    if (eq_once_in(r, 8))
        flags |= eq_u64(r) & (X86_FLAG_NT | X86_FLAG_ID);
    if (eq_once_in(r, 24))
        flags |= X86_FLAG_AC;
    if (eq_once_in(r, 24))
        flags |= X86_FLAG_TF;
    return flags;
}

static uint64_t random_base(struct eq_random *r, bool code32)
{
    if (eq_once_in(r, 2))
        return eq_below(r, 0x4000);
    /* Mostly within 2^46 of 0, so that the offset to a window is canonical by itself: AMD's processors check that too. */
    return code32 ? (uint32_t)eq_u64(r) : (uint64_t)((int64_t)eq_u64(r) >> (eq_once_in(r, 4) ? 16 : 17));
}

void eq_random_state(struct eq_random *r, bool code32, struct eq_state *ret_state)
{
    struct eq_state *s = ret_state;

    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = eq_value(r);
    if (!eq_once_in(r, 16))
        s->gpr[X86_RSP] = eq_data_address(r, code32, 8);
    if (eq_once_in(r, 2))
        s->gpr[X86_RBP] = eq_data_address(r, code32, 8);
    s->rflags = random_flags(r);
    s->fs_base = random_base(r, code32);
    s->gs_base = random_base(r, code32);
    s->seg[X86_CS] = code32 ? EQ_CS32 : EQ_CS64;
    s->seg[X86_SS] = s->seg[X86_DS] = s->seg[X86_ES] = EQ_DS;
    if (code32) /* a null selector makes every access through it fault */
        s->seg[X86_FS] = s->seg[X86_GS] = eq_once_in(r, 16) ? 0 : EQ_DS;
    eq_fx_header(r, s->fx);
    for (unsigned i = 0; i < 8; i++) {
        if (eq_once_in(r, 4)) { /* as MMX code leaves it */
            eq_lanes(r, s->fx + 32 + 16 * i, 8);
            memset(s->fx + 40 + 16 * i, 0xff, 2);
        } else {
            eq_extended(r, s->fx + 32 + 16 * i);
        }
    }
    for (unsigned i = 0; i < 16; i++)
        eq_lanes(r, s->ymm[i], 32);
}
