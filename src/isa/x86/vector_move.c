/* vector_move.c - the moves that kernels and C libraries live on, in plain C.
 *
 * A load or register move of n bytes clears the rest of XMM; a VEX form clears the rest of YMM too. */
#include "isa/x86/vector.h"

#define SUB_ALIGNED 0x01u

static inline void gate(struct x86_core *core, bool vex)
{
    if (vex)
        x86_avx_gate(core);
    else
        x86_sse_gate(core);
}

static inline __attribute__((always_inline)) void set_register(struct x86_cpu *cpu, unsigned number,
                                                               const void *bytes, unsigned size, bool vex)
{
    uint8_t *to = cpu->ymm[number];
    unsigned whole = vex ? 32 : 16;
    uint8_t value[32] = {0};
    memcpy(value, bytes, size);
    memcpy(to, value, whole > size ? whole : size);
}

static inline __attribute__((always_inline)) void load(struct x86_core *core, const struct x86_insn *insn,
                                                       unsigned size, bool vex)
{
    _Alignas(32) uint8_t bounce[32];
    gate(core, vex);
    uint64_t linear = x86_vector_linear(core, insn, size, false, insn->sub & SUB_ALIGNED);
    set_register(&core->cpu, insn->reg, x86_vector_source(core, linear, size, bounce), size, vex);
}

static inline __attribute__((always_inline)) void store(struct x86_core *core, const struct x86_insn *insn,
                                                        unsigned size, bool vex)
{
    gate(core, vex);
    uint64_t linear = x86_vector_linear(core, insn, size, true, insn->sub & SUB_ALIGNED);
    x86_vector_store(core, linear, core->cpu.ymm[insn->reg], size);
}

/* insn->reg is the destination, insn->rm the source, whichever field of the encoding they were in. */
static inline __attribute__((always_inline)) void copy(struct x86_core *core, const struct x86_insn *insn,
                                                       unsigned size, bool vex)
{
    gate(core, vex);
    set_register(&core->cpu, insn->reg, core->cpu.ymm[insn->rm], size, vex);
}

static inline uint64_t *gpr(struct x86_core *core, unsigned offset)
{
    return (uint64_t *)(void *)((char *)core->cpu.reg + offset);
}

/* MOVD and MOVQ between a vector and a general register; insn->rm is the general one. */
static inline __attribute__((always_inline)) void from_gpr(struct x86_core *core, const struct x86_insn *insn,
                                                           unsigned size, bool vex)
{
    gate(core, vex);
    set_register(&core->cpu, insn->reg, gpr(core, insn->rm), size, vex);
}

static inline __attribute__((always_inline)) void to_gpr(struct x86_core *core, const struct x86_insn *insn,
                                                         unsigned size, bool vex)
{
    uint64_t value = 0;
    gate(core, vex);
    memcpy(&value, core->cpu.ymm[insn->reg], size);
    *gpr(core, insn->rm) = value;
}

/* XOR of a register with itself: insn->reg becomes zero. */
static inline __attribute__((always_inline)) void clear(struct x86_core *core, const struct x86_insn *insn,
                                                        unsigned size, bool vex)
{
    gate(core, vex);
    memset(core->cpu.ymm[insn->reg], 0, vex ? 32 : size);
}

#define FORM(what, size, suffix, vex)                                                        \
    static void what##size##suffix(struct x86_core *core, const struct x86_insn *insn)       \
    {                                                                                        \
        what(core, insn, size, vex);                                                         \
    }
#define FORMS(what)                                                                          \
    FORM(what, 4, , false) FORM(what, 8, , false) FORM(what, 16, , false)                    \
    FORM(what, 4, v, true) FORM(what, 8, v, true) FORM(what, 16, v, true) FORM(what, 32, v, true)
FORMS(load)
FORMS(store)
FORMS(copy)
FORM(from_gpr, 4, , false) FORM(from_gpr, 8, , false) FORM(from_gpr, 4, v, true) FORM(from_gpr, 8, v, true)
FORM(to_gpr, 4, , false) FORM(to_gpr, 8, , false) FORM(to_gpr, 4, v, true) FORM(to_gpr, 8, v, true)
FORM(clear, 16, , false) FORM(clear, 16, v, true)

/* [vex][size as 0: 4, 1: 8, 2: 16, 3: 32] */
#define TABLE(what) {{what##4, what##8, what##16, NULL}, {what##4v, what##8v, what##16v, what##32v}}
static x86_exec_fn *const loads[2][4] = TABLE(load);
static x86_exec_fn *const stores[2][4] = TABLE(store);
static x86_exec_fn *const copies[2][4] = TABLE(copy);
static x86_exec_fn *const from_gprs[2][4] = {{from_gpr4, from_gpr8}, {from_gpr4v, from_gpr8v}};
static x86_exec_fn *const to_gprs[2][4] = {{to_gpr4, to_gpr8}, {to_gpr4v, to_gpr8v}};

static int size_index(unsigned bits)
{
    switch (bits) {
    case 32: return 0;
    case 64: return 1;
    case 128: return 2;
    case 256: return 3;
    default: return -1;
    }
}

static bool is_vector_register(const ZydisDecodedOperand *operand)
{
    if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass class = ZydisRegisterGetClass(operand->reg.value);
    return class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM;
}

/* The whole-register moves, and whether their memory operand must be aligned. */
static bool whole_move(ZydisMnemonic mnemonic, bool *ret_aligned)
{
    switch (mnemonic) {
#define M(name) case ZYDIS_MNEMONIC_##name: case ZYDIS_MNEMONIC_V##name:
    M(MOVAPS) M(MOVAPD) M(MOVDQA) M(MOVNTPS) M(MOVNTPD) M(MOVNTDQ) M(MOVNTDQA)
        *ret_aligned = true;
        return true;
    M(MOVUPS) M(MOVUPD) M(MOVDQU) M(LDDQU)
        *ret_aligned = false;
        return true;
#undef M
    default:
        return false;
    }
}

static uint8_t number(const ZydisDecodedOperand *operand)
{
    return (uint8_t)ZydisRegisterGetId(operand->reg.value);
}

/* A move of `bits` between vector registers and memory. */
static x86_exec_fn *move_form(const struct x86_zydis *z, struct x86_insn *insn, bool vex, unsigned bits)
{
    const ZydisDecodedOperand *to = &z->operand[0], *from = &z->operand[1];
    int size = size_index(bits);
    if (size < 0)
        return NULL;
    if (is_vector_register(to) && is_vector_register(from)) {
        insn->reg = number(to);
        insn->rm = number(from);
        return copies[vex][size];
    }
    if (is_vector_register(to) && from->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        insn->reg = number(to);
        return loads[vex][size];
    }
    if (to->type == ZYDIS_OPERAND_TYPE_MEMORY && is_vector_register(from)) {
        insn->reg = number(from);
        return stores[vex][size];
    }
    return NULL;
}

static x86_exec_fn *movd_form(const struct x86_zydis *z, struct x86_insn *insn, bool vex)
{
    const ZydisDecodedOperand *to = &z->operand[0], *from = &z->operand[1];
    bool to_vector = is_vector_register(to);
    const ZydisDecodedOperand *other = to_vector ? from : to;
    if (!to_vector && !is_vector_register(from))
        return NULL; /* MMX */
    if (other->type == ZYDIS_OPERAND_TYPE_REGISTER && !is_vector_register(other)) {
        ZydisRegisterClass class = ZydisRegisterGetClass(other->reg.value);
        if (class != ZYDIS_REGCLASS_GPR32 && class != ZYDIS_REGCLASS_GPR64)
            return NULL;
        int size = class == ZYDIS_REGCLASS_GPR64;
        insn->reg = number(to_vector ? to : from);
        insn->rm = (uint8_t)(number(other) * 8);
        return to_vector ? from_gprs[vex][size] : to_gprs[vex][size];
    }
    return move_form(z, insn, vex, z->insn.mnemonic == ZYDIS_MNEMONIC_MOVD || z->insn.mnemonic == ZYDIS_MNEMONIC_VMOVD
                                       ? 32 : 64);
}

/* Both sources are one register and the operation is exclusive or. */
static bool is_clear(const struct x86_zydis *z)
{
    const ZydisDecodedOperand *operand = z->operand;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_PXOR: case ZYDIS_MNEMONIC_XORPS: case ZYDIS_MNEMONIC_XORPD:
        return is_vector_register(&operand[0]) && is_vector_register(&operand[1]) &&
               operand[0].reg.value == operand[1].reg.value;
    case ZYDIS_MNEMONIC_VPXOR: case ZYDIS_MNEMONIC_VXORPS: case ZYDIS_MNEMONIC_VXORPD:
        return is_vector_register(&operand[1]) && is_vector_register(&operand[2]) &&
               operand[1].reg.value == operand[2].reg.value;
    default:
        return false;
    }
}

x86_exec_fn *x86_select_move(const struct x86_zydis *z, struct x86_insn *insn)
{
    bool vex = z->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX, aligned;
    const ZydisDecodedOperand *to = &z->operand[0], *from = &z->operand[1];
    insn->sub = 0;
    if (whole_move(z->insn.mnemonic, &aligned)) {
        if (!is_vector_register(to) && !is_vector_register(from))
            return NULL;
        insn->sub = aligned ? SUB_ALIGNED : 0;
        return move_form(z, insn, vex, is_vector_register(to) ? to->size : from->size);
    }
    if (is_clear(z)) {
        insn->reg = number(to);
        return vex ? clear16v : clear16;
    }
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOVD: case ZYDIS_MNEMONIC_VMOVD: case ZYDIS_MNEMONIC_MOVQ: case ZYDIS_MNEMONIC_VMOVQ:
        return movd_form(z, insn, vex);
    case ZYDIS_MNEMONIC_MOVSS: case ZYDIS_MNEMONIC_VMOVSS: case ZYDIS_MNEMONIC_MOVSD: case ZYDIS_MNEMONIC_VMOVSD:
        /* Between registers they merge: not a plain move. */
        if (to->type == ZYDIS_OPERAND_TYPE_MEMORY)
            return move_form(z, insn, vex, to->size);
        return from->type == ZYDIS_OPERAND_TYPE_MEMORY ? move_form(z, insn, vex, from->size) : NULL;
    default:
        return NULL;
    }
}
