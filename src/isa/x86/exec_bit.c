/* exec_bit.c - BT BTS BTR BTC, BSF BSR TZCNT LZCNT POPCNT, CRC32. SDM 2A/2B. */
#include "isa/x86/integer_exec.h"

/* --- Bit tests. Only CF is defined; the other flags come out as the host leaves them. --- */

#define BIT_TEST(op, bits, suffix)                                                                           \
    X86_INLINE x86_u##bits op##bits(x86_u##bits d, x86_u##bits s, uint64_t *rflags)                          \
    {                                                                                                        \
        uint32_t ax = x86_flags_ax(*rflags);                                                                 \
        __asm__(X86_FLAGS_IN #op suffix " %[s], %[d]" X86_FLAGS_OUT                                          \
                : [d] "+&r"(d), "+&a"(ax) : [s] "r"(s) : "cc");                                              \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
        return d;                                                                                            \
    }

/* Memory and a register: the operand is a bit string, the bit offset is signed and picks the element. */
#define BIT_STRING(name, bits, write, statement)                                                             \
    static void name(struct x86_core *core, const struct x86_insn *insn)                                     \
    {                                                                                                        \
        x86_u##bits s = x86_get##bits(core, insn->reg);                                                      \
        uint64_t linear = string_element(core, insn, (int##bits##_t)s, bits, write);                         \
        statement                                                                                            \
    }
#define MODIFY(bits, work, locked)                                                                           \
    struct x86_rmw rmw __attribute__((uninitialized));                                                       \
    const struct x86_tlb_entry *hit;                                                                         \
    x86_u##bits *p = x86_modify_begin(core, linear, bits / 8, locked, &rmw, &hit);                           \
    work;                                                                                                    \
    x86_modify_end(core, linear, bits / 8, &rmw, hit);

static uint64_t string_element(struct x86_core *core, const struct x86_insn *insn, int64_t bit, unsigned bits,
                               bool write)
{
    uint64_t offset = x86_effective(core, insn) + (uint64_t)(bit >> __builtin_ctz(bits)) * (bits / 8);

    if (insn->addrsize == 4)
        offset = (uint32_t)offset;
    else if (insn->addrsize == 2)
        offset = (uint16_t)offset;
    return insn->flags & X86_INSN_FLAT ? offset : x86_linear_access(core, insn->seg, offset, bits / 8, write);
}

#define BIT_MODIFY(op, bits, suffix)                                                                         \
    BIT_TEST(op, bits, suffix)                                                                               \
    X86_INLINE void op##_locked##bits(x86_u##bits *p, x86_u##bits s, uint64_t *rflags)                       \
    {                                                                                                        \
        uint32_t ax = x86_flags_ax(*rflags);                                                                 \
        s &= bits - 1;                                                                                       \
        __asm__ volatile(X86_FLAGS_IN "lock " #op suffix " %[s], %[p]" X86_FLAGS_OUT                         \
                         : [p] "+m"(*p), "+&a"(ax) : [s] "r"(s) : "cc", "memory");                           \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
    }                                                                                                        \
    static void op##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        x86_set##bits(core, insn->reg,                                                                       \
                      op##bits(x86_get##bits(core, insn->reg), x86_get##bits(core, insn->rm),                \
                               &core->cpu.rflags));                                                          \
    }                                                                                                        \
    static void op##bits##_ri(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        x86_set##bits(core, insn->reg,                                                                       \
                      op##bits(x86_get##bits(core, insn->reg), (x86_u##bits)insn->imm, &core->cpu.rflags));  \
    }                                                                                                        \
    X86_MODIFY_EXEC(op##bits##_mi, bits, *p = op##bits(*p, (x86_u##bits)insn->imm, &core->cpu.rflags), false) \
    X86_MODIFY_EXEC(op##_locked##bits##_mi, bits,                                                            \
                    op##_locked##bits(p, (x86_u##bits)insn->imm, &core->cpu.rflags), true)                   \
    BIT_STRING(op##bits##_mr, bits, true, MODIFY(bits, *p = op##bits(*p, s, &core->cpu.rflags), false))      \
    BIT_STRING(op##_locked##bits##_mr, bits, true,                                                           \
               MODIFY(bits, op##_locked##bits(p, s, &core->cpu.rflags), true))

#define BIT_READ(bits, suffix)                                                                               \
    BIT_TEST(bt, bits, suffix)                                                                               \
    static void bt##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        bt##bits(x86_get##bits(core, insn->reg), x86_get##bits(core, insn->rm), &core->cpu.rflags);          \
    }                                                                                                        \
    static void bt##bits##_ri(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        bt##bits(x86_get##bits(core, insn->reg), (x86_u##bits)insn->imm, &core->cpu.rflags);                 \
    }                                                                                                        \
    static void bt##bits##_mi(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        x86_u##bits d = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        bt##bits(d, (x86_u##bits)insn->imm, &core->cpu.rflags);                                              \
    }                                                                                                        \
    BIT_STRING(bt##bits##_mr, bits, false, bt##bits(x86_load##bits(core, linear), s, &core->cpu.rflags);)

BIT_READ(16, "w") BIT_READ(32, "l") BIT_READ(64, "q")
#define BIT_MODIFY_SIZES(op) BIT_MODIFY(op, 16, "w") BIT_MODIFY(op, 32, "l") BIT_MODIFY(op, 64, "q")
BIT_MODIFY_SIZES(bts)
BIT_MODIFY_SIZES(btr)
BIT_MODIFY_SIZES(btc)

#define BIT_TABLE(op)                                                                                        \
    { [X86_RR] = X86_WIDE_SIZES(op, rr), [X86_MR] = X86_WIDE_SIZES(op, mr), [X86_RI] = X86_WIDE_SIZES(op, ri), \
      [X86_MI] = X86_WIDE_SIZES(op, mi) }
#define LOCKED_BIT_TABLE(op)                                                                                 \
    { [X86_MR] = X86_WIDE_SIZES(op##_locked, mr), [X86_MI] = X86_WIDE_SIZES(op##_locked, mi) }
static x86_exec_fn *const bit_test[2][4][X86_FORMS][4] = {
    { [X86_BT] = BIT_TABLE(bt), [X86_BTS] = BIT_TABLE(bts), [X86_BTR] = BIT_TABLE(btr), [X86_BTC] = BIT_TABLE(btc) },
    { [X86_BTS] = LOCKED_BIT_TABLE(bts), [X86_BTR] = LOCKED_BIT_TABLE(btr), [X86_BTC] = LOCKED_BIT_TABLE(btc) },
};

x86_exec_fn *x86_group_bit(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);
    bool locked = insn->flags & X86_INSN_LOCK;

    return form < X86_FORMS ? bit_test[locked][what][form][x86_size_index(insn->opsize)] : NULL;
}

/* --- Scans and counts. The destination is passed whole, since BSF and BSR of zero may leave it. --- */

#define SCAN(op, bits, size)                                                                                 \
    X86_INLINE uint64_t op##bits(uint64_t d, uint64_t s, uint64_t *rflags)                                   \
    {                                                                                                        \
        uint32_t ax = x86_flags_ax(*rflags);                                                                 \
        __asm__(X86_FLAGS_IN #op " %" size "[s], %" size "[d]" X86_FLAGS_OUT                                 \
                : [d] "+&r"(d), "+&a"(ax) : [s] "r"(s) : "cc");                                              \
        *rflags = x86_flags_merge(*rflags, ax);                                                              \
        return d;                                                                                            \
    }                                                                                                        \
    static void op##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        uint64_t s = x86_get##bits(core, insn->rm);                                                          \
        x86_set64(core, insn->reg, op##bits(x86_get64(core, insn->reg), s, &core->cpu.rflags));              \
    }                                                                                                        \
    static void op##bits##_rm(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        uint64_t s = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                          \
        x86_set64(core, insn->reg, op##bits(x86_get64(core, insn->reg), s, &core->cpu.rflags));              \
    }
#define SCAN_SIZES(op) SCAN(op, 16, "w") SCAN(op, 32, "k") SCAN(op, 64, "q")
SCAN_SIZES(bsf)
SCAN_SIZES(bsr)
SCAN_SIZES(tzcnt)
SCAN_SIZES(lzcnt)
SCAN_SIZES(popcnt)

#define SCAN_TABLE(op) { X86_WIDE_SIZES(op, rr), X86_WIDE_SIZES(op, rm) }
static x86_exec_fn *const scan[][2][4] = {
    [X86_BSF] = SCAN_TABLE(bsf),     [X86_BSR] = SCAN_TABLE(bsr),       [X86_TZCNT] = SCAN_TABLE(tzcnt),
    [X86_LZCNT] = SCAN_TABLE(lzcnt), [X86_POPCNT] = SCAN_TABLE(popcnt),
};

x86_exec_fn *x86_group_scan(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);

    return scan[what][form == X86_RM][x86_size_index(insn->opsize)];
}

/* CRC32: a 32-bit sum, also in a 64-bit destination. */
#define CRC(bits, suffix, sum_type)                                                                          \
    X86_INLINE void crc##bits(struct x86_core *core, const struct x86_insn *insn, x86_u##bits s)             \
    {                                                                                                        \
        sum_type sum = x86_get32(core, insn->reg);                                                           \
        __asm__("crc32" suffix " %[s], %[sum]" : [sum] "+r"(sum) : [s] "r"(s));                              \
        x86_set64(core, insn->reg, sum);                                                                     \
    }                                                                                                        \
    static void crc##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        crc##bits(core, insn, x86_get##bits(core, insn->rm));                                                \
    }                                                                                                        \
    static void crc##bits##_rm(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        crc##bits(core, insn, x86_load##bits(core, x86_linear(core, insn, bits / 8, false)));                \
    }
CRC(8, "b", uint32_t)
CRC(16, "w", uint32_t)
CRC(32, "l", uint32_t)
CRC(64, "q", uint64_t)
static x86_exec_fn *const crc[2][4] = { X86_SIZES(crc, rr), X86_SIZES(crc, rm) };

x86_exec_fn *x86_group_crc32(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);

    (void)what;
    return crc[form == X86_RM][x86_size_index(z->operand[1].size / 8)];
}
