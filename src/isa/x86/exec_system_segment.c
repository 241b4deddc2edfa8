/* exec_system_segment.c - instructions on segment registers, descriptors and descriptor tables. */
#include "isa/x86/frame.h"
#include "isa/x86/paging.h"
#include "isa/x86/system.h"

#define SELECTOR_NULL(selector) (((selector)&0xfffc) == 0)

/* ---- segment registers ---- */

/* After a load of SS the next instruction, usually one that loads RSP, runs undisturbed. */
static void shadow(struct x86_core *core, unsigned seg)
{
    if (seg == X86_SS) {
        core->cpu.mov_ss_shadow = true;
        x86_mode_changed(core);
    }
}

static void mov_to_sreg(struct x86_core *core, const struct x86_insn *insn)
{
    if (insn->reg == X86_CS)
        x86_raise_ud(core);
    x86_segment_load(core, insn->reg, x86_read_rm16(core, insn));
    shadow(core, insn->reg);
}

static void mov_from_sreg(struct x86_core *core, const struct x86_insn *insn)
{
    x86_write_rm16(core, insn, core->cpu.seg[insn->reg].selector);
}

static void push_sreg(struct x86_core *core, const struct x86_insn *insn)
{
    x86_push(core, insn->opsize, core->cpu.seg[insn->sub].selector);
}

/* RSP moves only once the selector was accepted. */
static void pop_sreg(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_frame frame;
    x86_frame_current(core, 0, &frame);
    uint16_t selector = (uint16_t)x86_frame_pop(core, &frame, insn->opsize);
    x86_segment_load(core, insn->sub, selector);
    core->cpu.reg[X86_RSP] = frame.sp;
    shadow(core, insn->sub);
}

/* LDS, LES, LSS, LFS, LGS: sub is the segment. */
static void load_far_pointer(struct x86_core *core, const struct x86_insn *insn)
{
    uint64_t offset = 0, second = x86_effective(core, insn) + insn->opsize;
    uint16_t selector;
    x86_load_bytes(core, x86_linear(core, insn, insn->opsize, false), &offset, insn->opsize);
    /* The offset's faults come before the segment check of the selector. */
    if (!(insn->flags & X86_INSN_FLAT))
        second = x86_linear_access(core, insn->seg, second, 2, false);
    selector = x86_load16(core, second);
    x86_segment_load(core, insn->sub, selector);
    x86_gpr_set(core, insn->reg, insn->opsize, offset);
    x86_mode_changed(core);
}

/* ---- descriptor-table registers ---- */

/* What SGDT, SIDT, SLDT and STR tell is none of a program's business when CR4.UMIP is set. */
static void require_umip(struct x86_core *core)
{
    if ((core->cpu.cr4 & X86_CR4_UMIP) && (core->cpu.cr0 & X86_CR0_PE) && x86_cpl(&core->cpu) != 0)
        x86_raise_gp(core, 0);
}

/* LGDT, LIDT (sub 1): a 16-bit operand size loads 24 bits of base. */
static void load_table(struct x86_core *core, const struct x86_insn *insn)
{
    unsigned size = insn->mode == X86_CODE64 ? 8 : 4;
    struct x86_table table;
    uint8_t bytes[10];
    uint64_t base = 0;
    x86_require_cpl0(core);
    x86_load_bytes(core, x86_linear(core, insn, 2 + size, false), bytes, 2 + size);
    __builtin_memcpy(&table.limit, bytes, 2);
    __builtin_memcpy(&base, bytes + 2, size);
    if (size == 4 && insn->opsize == 2)
        base &= 0xffffff;
    if (core->long_mode && !x86_canonical(base))
        x86_raise_gp(core, 0);
    table.base = base;
    if (insn->sub)
        core->cpu.idtr = table;
    else
        core->cpu.gdtr = table;
}

static void store_table(struct x86_core *core, const struct x86_insn *insn)
{
    unsigned size = insn->mode == X86_CODE64 ? 8 : 4;
    const struct x86_table *table = insn->sub ? &core->cpu.idtr : &core->cpu.gdtr;
    uint8_t bytes[10];
    require_umip(core);
    __builtin_memcpy(bytes, &table->limit, 2);
    __builtin_memcpy(bytes + 2, &table->base, size);
    x86_store_bytes(core, x86_linear(core, insn, 2 + size, true), bytes, 2 + size);
}

static void require_protected(struct x86_core *core)
{
    if (!x86_protected(&core->cpu))
        x86_raise_ud(core);
}

static void lldt(struct x86_core *core, const struct x86_insn *insn)
{
    require_protected(core);
    x86_require_cpl0(core);
    x86_lldt(core, x86_read_rm16(core, insn));
}

static void ltr(struct x86_core *core, const struct x86_insn *insn)
{
    require_protected(core);
    x86_require_cpl0(core);
    x86_ltr(core, x86_read_rm16(core, insn));
}

static void sldt(struct x86_core *core, const struct x86_insn *insn)
{
    require_protected(core);
    require_umip(core);
    x86_write_rm16(core, insn, core->cpu.ldtr.selector);
}

static void str(struct x86_core *core, const struct x86_insn *insn)
{
    require_protected(core);
    require_umip(core);
    x86_write_rm16(core, insn, core->cpu.tr.selector);
}

/* ---- questions about descriptors; ZF answers ---- */

static void set_zf(struct x86_core *core, bool zf)
{
    core->cpu.rflags = zf ? core->cpu.rflags | X86_FLAG_ZF : core->cpu.rflags & ~(uint64_t)X86_FLAG_ZF;
}

/* True when a descriptor may be seen at this CPL and the selector's RPL. */
static bool visible(const struct x86_core *core, uint16_t selector, const struct x86_descriptor *d)
{
    unsigned dpl = x86_desc_dpl(d);
    if (x86_desc_code(d) && x86_desc_conforming(d))
        return true;
    return dpl >= x86_cpl(&core->cpu) && dpl >= (selector & 3u);
}

/* LAR and LSL: the descriptor, when its type is in the set (of system types) and it is visible. */
static bool inspect(struct x86_core *core, uint16_t selector, uint32_t types, struct x86_descriptor *ret)
{
    if (SELECTOR_NULL(selector) || !x86_desc_try(core, selector, ret))
        return false;
    if (!x86_desc_s(ret) && !(types >> x86_desc_type(ret) & 1))
        return false;
    return visible(core, selector, ret);
}

static void lar(struct x86_core *core, const struct x86_insn *insn)
{
    uint32_t legacy = 1u << X86_TYPE_TSS16 | 1u << X86_TYPE_LDT | 1u << X86_TYPE_TSS16_BUSY | 1u << X86_TYPE_CALL16 |
                      1u << X86_TYPE_TASK_GATE | 1u << X86_TYPE_TSS | 1u << X86_TYPE_TSS_BUSY | 1u << X86_TYPE_CALL;
    uint32_t wide = 1u << X86_TYPE_LDT | 1u << X86_TYPE_TSS | 1u << X86_TYPE_TSS_BUSY | 1u << X86_TYPE_CALL;
    struct x86_descriptor d;
    require_protected(core);
    bool ok = inspect(core, x86_read_rm16(core, insn), core->long_mode ? wide : legacy, &d);
    if (ok)
        x86_gpr_set(core, insn->reg, insn->opsize, d.low >> 32 & 0x00ffff00);
    set_zf(core, ok);
}

static void lsl(struct x86_core *core, const struct x86_insn *insn)
{
    uint32_t legacy = 1u << X86_TYPE_TSS16 | 1u << X86_TYPE_LDT | 1u << X86_TYPE_TSS16_BUSY | 1u << X86_TYPE_TSS |
                      1u << X86_TYPE_TSS_BUSY;
    uint32_t wide = 1u << X86_TYPE_LDT | 1u << X86_TYPE_TSS | 1u << X86_TYPE_TSS_BUSY;
    struct x86_descriptor d;
    require_protected(core);
    bool ok = inspect(core, x86_read_rm16(core, insn), core->long_mode ? wide : legacy, &d);
    if (ok)
        x86_gpr_set(core, insn->reg, insn->opsize, x86_desc_limit(&d));
    set_zf(core, ok);
}

/* VERR (sub 0) and VERW (sub 1). */
static void verify(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_descriptor d;
    require_protected(core);
    uint16_t selector = x86_read_rm16(core, insn);
    bool ok = inspect(core, selector, 0, &d);
    set_zf(core, ok && (insn->sub ? x86_desc_writable(&d) : x86_desc_readable(&d)));
}

/* Memory is probed for a store first, since hardware locks it whether or not it will write. */
static void arpl(struct x86_core *core, const struct x86_insn *insn)
{
    require_protected(core);
    uint16_t rpl = (uint16_t)*x86_gpr(core, insn->reg) & 3, selector;
    uint64_t linear = 0;
    if (insn->flags & X86_INSN_MEMORY) {
        linear = x86_linear(core, insn, 2, false); /* written only where the RPL changes */
        selector = x86_load16(core, linear);
    } else {
        selector = (uint16_t)*x86_gpr(core, insn->rm);
    }
    bool raise = (selector & 3) < rpl;
    if (raise && (insn->flags & X86_INSN_MEMORY))
        x86_store16(core, x86_linear(core, insn, 2, true), (uint16_t)((selector & ~3) | rpl));
    else if (raise)
        x86_gpr_set(core, insn->rm, 2, (uint16_t)((selector & ~3) | rpl));
    set_zf(core, raise);
}

static bool is_sreg(const ZydisDecodedOperand *operand)
{
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static x86_exec_fn *select_moves(const struct x86_zydis *z, struct x86_insn *insn)
{
    uint8_t number = is_sreg(&z->operand[0]) ? (uint8_t)ZydisRegisterGetId(z->operand[0].reg.value) : 0;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        if (is_sreg(&z->operand[0])) {
            insn->reg = number;
            if (number == X86_SS)
                insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
            return mov_to_sreg;
        }
        if (!is_sreg(&z->operand[1]))
            return NULL;
        insn->reg = (uint8_t)ZydisRegisterGetId(z->operand[1].reg.value);
        return mov_from_sreg;
    case ZYDIS_MNEMONIC_PUSH:
        insn->sub = number;
        return is_sreg(&z->operand[0]) ? push_sreg : NULL;
    case ZYDIS_MNEMONIC_POP:
        if (!is_sreg(&z->operand[0]))
            return NULL;
        insn->sub = number;
        if (number == X86_SS)
            insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
        return pop_sreg;
    case ZYDIS_MNEMONIC_LDS: insn->sub = X86_DS; return load_far_pointer;
    case ZYDIS_MNEMONIC_LES: insn->sub = X86_ES; return load_far_pointer;
    case ZYDIS_MNEMONIC_LFS: insn->sub = X86_FS; return load_far_pointer;
    case ZYDIS_MNEMONIC_LGS: insn->sub = X86_GS; return load_far_pointer;
    case ZYDIS_MNEMONIC_LSS:
        insn->sub = X86_SS;
        insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
        return load_far_pointer;
    default: return NULL;
    }
}

x86_exec_fn *x86_select_system_segment(const struct x86_zydis *z, struct x86_insn *insn)
{
    x86_exec_fn *exec = select_moves(z, insn);
    if (exec)
        return exec;
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_LGDT: insn->sub = 0; return load_table;
    case ZYDIS_MNEMONIC_LIDT: insn->sub = 1; return load_table;
    case ZYDIS_MNEMONIC_SGDT: insn->sub = 0; return store_table;
    case ZYDIS_MNEMONIC_SIDT: insn->sub = 1; return store_table;
    case ZYDIS_MNEMONIC_LLDT: return lldt;
    case ZYDIS_MNEMONIC_LTR: return ltr;
    case ZYDIS_MNEMONIC_SLDT: return sldt;
    case ZYDIS_MNEMONIC_STR: return str;
    case ZYDIS_MNEMONIC_LAR: return lar;
    case ZYDIS_MNEMONIC_LSL: return lsl;
    case ZYDIS_MNEMONIC_VERR: insn->sub = 0; return verify;
    case ZYDIS_MNEMONIC_VERW: insn->sub = 1; return verify;
    case ZYDIS_MNEMONIC_ARPL: return arpl;
    default: return NULL;
    }
}
