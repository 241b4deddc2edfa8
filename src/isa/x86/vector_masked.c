/* vector_masked.c - masked moves and gathers: element by element, since an element that the mask excludes
 * must not fault. Intel SDM 2, VMASKMOV, VPMASKMOV, MASKMOVDQU, VGATHER, VPGATHER. */
#include "isa/x86/vector.h"

/* Operand numbers and sizes in an insn: reg is ModRM.reg; vvvv the mask (and third operand); sub: element bytes;
 * imm2: gathers' index register; opsize: bytes of the data. */
#define GATHER_INDEX8 0x80u /* in sub: 8-byte indices */

static bool element_on(const uint8_t *mask, unsigned element, unsigned size)
{
    return mask[element * size + size - 1] & 0x80;
}

static void load_element(struct x86_core *core, uint64_t linear, unsigned size, void *to)
{
    if (size == 4) {
        uint32_t value = x86_load32(core, linear);
        memcpy(to, &value, sizeof value);
    } else {
        uint64_t value = x86_load64(core, linear);
        memcpy(to, &value, sizeof value);
    }
}

/* Linear address of byte `offset` of the memory operand. */
static uint64_t linear_at(struct x86_core *core, const struct x86_insn *insn, uint64_t offset, unsigned size,
                          bool write)
{
    uint64_t ea = x86_effective(core, insn) + offset;
    if (insn->addrsize != 8)
        ea = insn->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
    return insn->flags & X86_INSN_FLAT ? ea : x86_linear_access(core, insn->seg, ea, size, write);
}

/* Linear address of an element of VMASKMOV's operand: bytes after the effective address, which does not wrap. */
static uint64_t element_at(struct x86_core *core, const struct x86_insn *insn, unsigned element, bool write)
{
    uint64_t ea = x86_effective(core, insn) + (uint64_t)element * insn->sub;
    return insn->flags & X86_INSN_FLAT ? ea : x86_linear_access(core, insn->seg, ea, insn->sub, write);
}

static void mask_load(struct x86_core *core, const struct x86_insn *insn)
{
    uint8_t value[32] = {0};
    x86_avx_gate(core);
    const uint8_t *mask = core->cpu.ymm[insn->vvvv];
    for (unsigned i = 0; i < insn->opsize / insn->sub; i++)
        if (element_on(mask, i, insn->sub))
            load_element(core, element_at(core, insn, i, false), insn->sub, value + i * insn->sub);
    memcpy(core->cpu.ymm[insn->reg], value, sizeof value);
}

/* Stores the elements of `value` that `mask` selects; all are checked before the first moves. */
static void store_selected(struct x86_core *core, const struct x86_insn *insn, const uint8_t *mask,
                           const uint8_t *value, unsigned count, unsigned size)
{
    for (unsigned i = 0; i < count; i++)
        if (element_on(mask, i, size))
            x86_probe_write(core, linear_at(core, insn, i * size, size, true), size);
    for (unsigned i = 0; i < count; i++)
        if (element_on(mask, i, size))
            x86_store_bytes(core, linear_at(core, insn, i * size, size, true), value + i * size, size);
}

static void mask_store(struct x86_core *core, const struct x86_insn *insn)
{
    x86_avx_gate(core);
    const uint8_t *mask = core->cpu.ymm[insn->vvvv], *value = core->cpu.ymm[insn->reg];
    unsigned count = insn->opsize / insn->sub;
    for (unsigned i = 0; i < count; i++)
        if (element_on(mask, i, insn->sub))
            x86_probe_write(core, element_at(core, insn, i, true), insn->sub);
    for (unsigned i = 0; i < count; i++)
        if (element_on(mask, i, insn->sub))
            x86_store_bytes(core, element_at(core, insn, i, true), value + i * insn->sub, insn->sub);
}

/* AMD processors check the whole operand of MASKMOVQ and MASKMOVDQU, whatever the mask. */
static void check_bytes(struct x86_core *core, const struct x86_insn *insn, unsigned size)
{
    if (core->cpuid && core->cpuid->vendor == X86_VENDOR_AMD)
        x86_probe_write(core, x86_vector_linear(core, insn, size, true, false), size);
}

/* MASKMOVDQU: DS:rDI, bytes of ModRM.reg under the mask in ModRM.rm. */
static void mask_bytes(struct x86_core *core, const struct x86_insn *insn)
{
    x86_sse_gate(core);
    check_bytes(core, insn, 16);
    store_selected(core, insn, core->cpu.ymm[insn->rm], core->cpu.ymm[insn->reg], 16, 1);
}

static void mask_bytes_avx(struct x86_core *core, const struct x86_insn *insn)
{
    x86_avx_gate(core);
    check_bytes(core, insn, 16);
    store_selected(core, insn, core->cpu.ymm[insn->rm], core->cpu.ymm[insn->reg], 16, 1);
}

/* The MMX state is entered before the store that may fault: it is the same state when run again. */
static void mask_bytes_mmx(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    x86_mmx_gate(core);
    x86_mmx_enter(cpu);
    check_bytes(core, insn, 8);
    store_selected(core, insn, cpu->fx + FX_ST + 16 * insn->rm, cpu->fx + FX_ST + 16 * insn->reg, 8, 1);
}

/* Elements arrive in order, and the mask of each is cleared with it, so that a fault in the middle leaves
 * a state from which the instruction goes on when run again. */
static void gather(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_cpu *cpu = &core->cpu;
    unsigned size = insn->sub & 0x7fu, index_size = insn->sub & GATHER_INDEX8 ? 8 : 4;
    unsigned width = size > index_size ? size : index_size;
    unsigned count = insn->opsize / width;
    uint8_t *to = cpu->ymm[insn->reg], *mask = cpu->ymm[insn->vvvv];
    const uint8_t *index = cpu->ymm[insn->imm2];
    x86_avx_gate(core);
    for (unsigned i = 0; i < count; i++) {
        if (!element_on(mask, i, size)) {
            memset(mask + i * size, 0, size);
            continue;
        }
        int64_t offset = 0;
        if (index_size == 8) {
            memcpy(&offset, index + i * 8, 8);
        } else {
            int32_t narrow;
            memcpy(&narrow, index + i * 4, 4);
            offset = narrow;
        }
        load_element(core, linear_at(core, insn, (uint64_t)offset << insn->scale, size, false), size, to + i * size);
        memset(mask + i * size, 0, size);
    }
    memset(to + count * size, 0, 32 - count * size);
    memset(mask, 0, 32);
}

static uint8_t id_of(const ZydisDecodedOperand *operand)
{
    return (uint8_t)ZydisRegisterGetId(operand->reg.value);
}

static x86_exec_fn *select_gather(const struct x86_zydis *z, struct x86_insn *insn, unsigned element, bool index8)
{
    const ZydisDecodedOperand *memory = &z->operand[1];
    insn->reg = id_of(&z->operand[0]);
    insn->vvvv = id_of(&z->operand[2]);
    insn->imm2 = (uint8_t)ZydisRegisterGetId(memory->mem.index);
    insn->index = X86_ZERO * 8;
    insn->opsize = z->insn.raw.vex.L ? 32 : 16;
    insn->sub = (uint8_t)(element | (index8 ? GATHER_INDEX8 : 0));
    if (insn->reg == insn->vvvv || insn->reg == insn->imm2 || insn->vvvv == insn->imm2)
        return x86_exec_ud;
    return gather;
}

static x86_exec_fn *select_maskmov(const struct x86_zydis *z, struct x86_insn *insn, unsigned element)
{
    bool store = z->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    insn->reg = id_of(&z->operand[store ? 2 : 0]);
    insn->vvvv = id_of(&z->operand[1]);
    insn->opsize = z->insn.raw.vex.L ? 32 : 16;
    insn->sub = (uint8_t)element;
    return store ? mask_store : mask_load;
}

static x86_exec_fn *select_bytes(const struct x86_zydis *z, struct x86_insn *insn, x86_exec_fn *exec)
{
    insn->reg = id_of(&z->operand[0]);
    insn->rm = id_of(&z->operand[1]);
    /* The address is rDI alone. */
    insn->base = X86_RDI * 8;
    insn->index = X86_ZERO * 8;
    insn->disp = 0;
    return exec;
}

x86_exec_fn *x86_select_masked(const struct x86_zydis *z, struct x86_insn *insn)
{
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS: case ZYDIS_MNEMONIC_VPMASKMOVD:
        return select_maskmov(z, insn, 4);
    case ZYDIS_MNEMONIC_VMASKMOVPD: case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return select_maskmov(z, insn, 8);
    case ZYDIS_MNEMONIC_MASKMOVDQU:
        return select_bytes(z, insn, mask_bytes);
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return select_bytes(z, insn, mask_bytes_avx);
    case ZYDIS_MNEMONIC_MASKMOVQ:
        return select_bytes(z, insn, mask_bytes_mmx);
    case ZYDIS_MNEMONIC_VPGATHERDD: case ZYDIS_MNEMONIC_VGATHERDPS:
        return select_gather(z, insn, 4, false);
    case ZYDIS_MNEMONIC_VPGATHERDQ: case ZYDIS_MNEMONIC_VGATHERDPD:
        return select_gather(z, insn, 8, false);
    case ZYDIS_MNEMONIC_VPGATHERQD: case ZYDIS_MNEMONIC_VGATHERQPS:
        return select_gather(z, insn, 4, true);
    case ZYDIS_MNEMONIC_VPGATHERQQ: case ZYDIS_MNEMONIC_VGATHERQPD:
        return select_gather(z, insn, 8, true);
    default:
        return NULL;
    }
}
