/* exec_move.c - MOV and its relatives, LEA, sign and zero extension, CMOVcc, SETcc. */
#include "isa/x86/integer_exec.h"

/* MOV in all forms. MOVNTI is one as well: ordinary stores are ordered more strictly. */
#define MOVE(bits)                                                                                           \
    static void mov##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        x86_set##bits(core, insn->reg, x86_get##bits(core, insn->rm));                                       \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void mov##bits##_rm(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        x86_set##bits(core, insn->reg, x86_load##bits(core, x86_linear(core, insn, bits / 8, false)));       \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void mov##bits##_mr(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        x86_store##bits(core, x86_linear(core, insn, bits / 8, true), x86_get##bits(core, insn->reg));       \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void mov##bits##_ri(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        x86_set##bits(core, insn->reg, (x86_u##bits)insn->imm);                                              \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void mov##bits##_mi(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        x86_store##bits(core, x86_linear(core, insn, bits / 8, true), (x86_u##bits)insn->imm);               \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    /* The accumulator and an absolute address in the instruction. */                                        \
    static void mov_from_offset##bits(struct x86_core *core, const struct x86_insn *insn)                    \
    {                                                                                                        \
        x86_set##bits(core, X86_RAX * 8, x86_load##bits(core, offset_linear(core, insn, bits / 8, false)));  \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void mov_to_offset##bits(struct x86_core *core, const struct x86_insn *insn)                      \
    {                                                                                                        \
        x86_store##bits(core, offset_linear(core, insn, bits / 8, true), x86_get##bits(core, X86_RAX * 8));  \
        X86_NEXT(core, insn);                                                                                \
    }

static uint64_t offset_linear(struct x86_core *core, const struct x86_insn *insn, unsigned size, bool write)
{
    uint64_t offset = (uint64_t)insn->imm;

    if (insn->addrsize == 4)
        offset = (uint32_t)offset;
    else if (insn->addrsize == 2)
        offset = (uint16_t)offset;
    return insn->flags & X86_INSN_FLAT ? offset : x86_linear_access(core, insn->seg, offset, size, write);
}

MOVE(8)
MOVE(16)
MOVE(32)
MOVE(64)

static x86_exec_fn *const mov[X86_FORMS][4] = X86_FORM_TABLE(mov);
static x86_exec_fn *const mov_offset[2][4] = {
    { mov_from_offset8, mov_from_offset16, mov_from_offset32, mov_from_offset64 },
    { mov_to_offset8, mov_to_offset16, mov_to_offset32, mov_to_offset64 },
};

#define LEA(bits)                                                                                            \
    static void lea##bits(struct x86_core *core, const struct x86_insn *insn)                                \
    {                                                                                                        \
        x86_set##bits(core, insn->reg, (x86_u##bits)x86_effective(core, insn));                              \
        X86_NEXT(core, insn);                                                                                \
    }
LEA(16)
LEA(32)
LEA(64)
static x86_exec_fn *const lea[4] = { NULL, lea16, lea32, lea64 };

#define MOVBE(bits)                                                                                          \
    static void movbe##bits##_load(struct x86_core *core, const struct x86_insn *insn)                       \
    {                                                                                                        \
        x86_u##bits value = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                   \
        x86_set##bits(core, insn->reg, __builtin_bswap##bits(value));                                        \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void movbe##bits##_store(struct x86_core *core, const struct x86_insn *insn)                      \
    {                                                                                                        \
        x86_u##bits value = __builtin_bswap##bits(x86_get##bits(core, insn->reg));                           \
        x86_store##bits(core, x86_linear(core, insn, bits / 8, true), value);                                \
        X86_NEXT(core, insn);                                                                                \
    }
MOVBE(16)
MOVBE(32)
MOVBE(64)
static x86_exec_fn *const movbe[2][4] = { { NULL, movbe16_load, movbe32_load, movbe64_load },
                                          { NULL, movbe16_store, movbe32_store, movbe64_store } };

/* BSWAP of 16 bits is undefined: the host decides. */
static void bswap16(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t value = x86_get64(core, insn->reg);

    __asm__(".byte 0x66, 0x0f, 0xc8" : "+a"(value)); /* bswap ax */
    x86_set64(core, insn->reg, value);
    X86_NEXT(core, insn);
}
static void bswap32(struct x86_core *core, const struct x86_insn *insn)
{
    x86_set32(core, insn->reg, __builtin_bswap32(x86_get32(core, insn->reg)));
    X86_NEXT(core, insn);
}
static void bswap64(struct x86_core *core, const struct x86_insn *insn)
{
    x86_set64(core, insn->reg, __builtin_bswap64(x86_get64(core, insn->reg)));
    X86_NEXT(core, insn);
}
static x86_exec_fn *const bswap[4] = { NULL, bswap16, bswap32, bswap64 };

static void xlat(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t offset = x86_get64(core, X86_RBX * 8) + x86_get8(core, X86_RAX * 8);

    if (insn->addrsize == 4)
        offset = (uint32_t)offset;
    else if (insn->addrsize == 2)
        offset = (uint16_t)offset;
    if (!(insn->flags & X86_INSN_FLAT))
        offset = x86_linear_access(core, insn->seg, offset, 1, false);
    x86_set8(core, X86_RAX * 8, x86_load8(core, offset));
    X86_NEXT(core, insn);
}

#define WIDEN(bits, half, type, half_type)                                                                   \
    static void widen_low##bits(struct x86_core *core, const struct x86_insn *insn)                          \
    {                                                                                                        \
        (void)insn;                                                                                          \
        x86_set##bits(core, X86_RAX * 8, (x86_u##bits)(type)(half_type)x86_get##half(core, X86_RAX * 8));    \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void widen_high##bits(struct x86_core *core, const struct x86_insn *insn)                         \
    {                                                                                                        \
        (void)insn;                                                                                          \
        x86_set##bits(core, X86_RDX * 8, (x86_u##bits)((type)x86_get##bits(core, X86_RAX * 8) >> (bits - 1))); \
        X86_NEXT(core, insn);                                                                                \
    }
WIDEN(16, 8, int16_t, int8_t)
WIDEN(32, 16, int32_t, int16_t)
WIDEN(64, 32, int64_t, int32_t)
static x86_exec_fn *const widen_low[4] = { NULL, widen_low16, widen_low32, widen_low64 };
static x86_exec_fn *const widen_high[4] = { NULL, widen_high16, widen_high32, widen_high64 };

static x86_exec_fn *select_mov(const struct x86_zydis *z, struct x86_insn *insn)
{
    enum x86_form form = x86_form(z, insn);
    unsigned size = x86_size_index(insn->opsize);

    for (unsigned i = 0; i < z->insn.operand_count_visible; i++)
        if (z->operand[i].encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)
            return mov_offset[i == 0][size];
    return form < X86_FORMS ? mov[form][size] : NULL;
}

x86_exec_fn *x86_group_move(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    unsigned size = x86_size_index(insn->opsize);

    switch ((enum x86_move)what) {
    case X86_MOV: return select_mov(z, insn);
    case X86_LEA: return x86_form(z, insn) == X86_RM ? lea[size] : NULL;
    case X86_MOVBE: return movbe[x86_form(z, insn) == X86_MR][size];
    case X86_BSWAP: return x86_form(z, insn) == X86_R ? bswap[size] : NULL;
    case X86_XLAT: return xlat;
    case X86_WIDEN_LOW: return widen_low[size];
    case X86_WIDEN_HIGH: return widen_high[size];
    }
    return NULL;
}

#define EXTEND(name, to, from, type)                                                                         \
    static void name##to##_##from##_rr(struct x86_core *core, const struct x86_insn *insn)                   \
    {                                                                                                        \
        x86_set##to(core, insn->reg, (x86_u##to)(type)x86_get##from(core, insn->rm));                        \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void name##to##_##from##_rm(struct x86_core *core, const struct x86_insn *insn)                   \
    {                                                                                                        \
        type value = (type)x86_load##from(core, x86_linear(core, insn, from / 8, false));                    \
        x86_set##to(core, insn->reg, (x86_u##to)value);                                                      \
        X86_NEXT(core, insn);                                                                                \
    }
#define EXTENDS(name, t8, t16, t32)                                                                          \
    EXTEND(name, 16, 8, t8) EXTEND(name, 32, 8, t8) EXTEND(name, 64, 8, t8) EXTEND(name, 16, 16, t16)        \
    EXTEND(name, 32, 16, t16) EXTEND(name, 64, 16, t16) EXTEND(name, 16, 32, t32) EXTEND(name, 32, 32, t32) EXTEND(name, 64, 32, t32)
EXTENDS(movzx, uint8_t, uint16_t, uint32_t)
EXTENDS(movsx, int8_t, int16_t, int32_t)

#define EXTEND_TABLE(name, form) /* [from][to] */                                                            \
    { { NULL, name##16_8_##form, name##32_8_##form, name##64_8_##form },                                     \
      { NULL, name##16_16_##form, name##32_16_##form, name##64_16_##form },                                  \
      { NULL, name##16_32_##form, name##32_32_##form, name##64_32_##form } }
static x86_exec_fn *const extend[2][2][3][4] = {
    [X86_ZERO_EXTEND] = { EXTEND_TABLE(movzx, rr), EXTEND_TABLE(movzx, rm) },
    [X86_SIGN_EXTEND] = { EXTEND_TABLE(movsx, rr), EXTEND_TABLE(movsx, rm) },
};

x86_exec_fn *x86_group_extend(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);
    unsigned from = x86_size_index(z->operand[1].size / 8);
    if ((form != X86_RR && form != X86_RM) || from > 2)
        return NULL;
    return extend[what][form == X86_RM][from][x86_size_index(insn->opsize)];
}

/* CMOVcc: the load happens, and may fault, whatever the condition; a 32-bit destination is always written. */
#define CMOV(bits, cc)                                                                                       \
    static void cmov##bits##_rr_##cc(struct x86_core *core, const struct x86_insn *insn)                     \
    {                                                                                                        \
        x86_u##bits value = x86_get##bits(core, insn->rm), old = x86_get##bits(core, insn->reg);             \
        x86_set##bits(core, insn->reg, x86_condition(core->cpu.rflags, cc) ? value : old);                   \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void cmov##bits##_rm_##cc(struct x86_core *core, const struct x86_insn *insn)                     \
    {                                                                                                        \
        x86_u##bits value = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                   \
        x86_u##bits old = x86_get##bits(core, insn->reg);                                                    \
        x86_set##bits(core, insn->reg, x86_condition(core->cpu.rflags, cc) ? value : old);                   \
        X86_NEXT(core, insn);                                                                                \
    }
#define CONDITIONAL(cc)                                                                                      \
    CMOV(16, cc) CMOV(32, cc) CMOV(64, cc)                                                                   \
    static void set_r_##cc(struct x86_core *core, const struct x86_insn *insn)                               \
    {                                                                                                        \
        x86_set8(core, insn->reg, x86_condition(core->cpu.rflags, cc));                                      \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void set_m_##cc(struct x86_core *core, const struct x86_insn *insn)                               \
    {                                                                                                        \
        x86_store8(core, x86_linear(core, insn, 1, true), x86_condition(core->cpu.rflags, cc));              \
        X86_NEXT(core, insn);                                                                                \
    }
CONDITIONAL(0) CONDITIONAL(1) CONDITIONAL(2) CONDITIONAL(3) CONDITIONAL(4) CONDITIONAL(5) CONDITIONAL(6)
CONDITIONAL(7) CONDITIONAL(8) CONDITIONAL(9) CONDITIONAL(10) CONDITIONAL(11) CONDITIONAL(12) CONDITIONAL(13)
CONDITIONAL(14) CONDITIONAL(15)

#define BY_CONDITION(name)                                                                                   \
    { name##_0, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7, name##_8, name##_9,    \
      name##_10, name##_11, name##_12, name##_13, name##_14, name##_15 }
static x86_exec_fn *const cmov[2][4][16] = {
    { { NULL }, BY_CONDITION(cmov16_rr), BY_CONDITION(cmov32_rr), BY_CONDITION(cmov64_rr) },
    { { NULL }, BY_CONDITION(cmov16_rm), BY_CONDITION(cmov32_rm), BY_CONDITION(cmov64_rm) },
};
static x86_exec_fn *const set[2][16] = { BY_CONDITION(set_r), BY_CONDITION(set_m) };

x86_exec_fn *x86_group_condition(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);
    unsigned cc = insn->opcode & 15;

    if (what == X86_SET)
        return set[form == X86_M][cc];
    return cmov[form == X86_RM][x86_size_index(insn->opsize)][cc];
}
