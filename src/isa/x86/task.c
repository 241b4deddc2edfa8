/* task.c - hardware task switches.
 *
 * Until the old state has been saved, faults belong to the old task and leave it as it was; from then on to the new
 * one, whose registers are loaded by then (SDM 3A, 7.3). Segment registers start out null with the
 * new selectors, so that a fault halfway shows the handler what the task wanted to load. */
#include "isa/x86/task.h"

#include "isa/x86/exception.h"
#include "isa/x86/mem.h"
#include "isa/x86/paging.h"

/* Offsets within a 32-bit and a 16-bit TSS. */
struct layout {
    uint8_t size;     /* of a register slot */
    uint8_t ip, flags, gpr, seg, segs, ldt;
    uint8_t min_limit;
};
static const struct layout layout32 = {4, 0x20, 0x24, 0x28, 0x48, 6, 0x60, 0x67};
static const struct layout layout16 = {2, 0x0e, 0x10, 0x12, 0x22, 4, 0x2a, 0x2b};

#define TSS32_CR3 0x1c
#define TSS32_TRAP 0x64

/* What a TSS says, read as a whole before anything changes. */
struct task {
    const struct layout *layout;
    uint64_t ip, flags, cr3, gpr[8];
    uint16_t seg[6], ldt;
    bool trap;
};

static const struct layout *layout_of(unsigned type)
{
    return type & 8 ? &layout32 : &layout16;
}

static void read_task(struct x86_core *core, const struct x86_descriptor *tss, struct task *ret)
{
    const struct layout *l = layout_of(x86_desc_type(tss));
    uint64_t base = x86_desc_base(tss);
    *ret = (struct task){.layout = l};
    ret->ip = x86_load_system(core, base + l->ip, l->size);
    ret->flags = x86_load_system(core, base + l->flags, l->size);
    for (unsigned i = 0; i < 8; i++)
        ret->gpr[i] = x86_load_system(core, base + l->gpr + i * l->size, l->size);
    for (unsigned i = 0; i < l->segs; i++)
        ret->seg[i] = (uint16_t)x86_load_system(core, base + l->seg + i * l->size, 2);
    ret->ldt = (uint16_t)x86_load_system(core, base + l->ldt, 2);
    if (l == &layout32) {
        ret->cr3 = x86_load_system(core, base + TSS32_CR3, 4);
        ret->trap = x86_load_system(core, base + TSS32_TRAP, 2) & 1;
    }
}

static void save_task(struct x86_core *core, uint64_t flags)
{
    const struct x86_cpu *cpu = &core->cpu;
    const struct layout *l = layout_of(cpu->tr.attr & 15);
    uint64_t base = cpu->tr.base;
    x86_store_system(core, base + l->ip, l->size, cpu->reg[X86_RIP]);
    x86_store_system(core, base + l->flags, l->size, flags);
    for (unsigned i = 0; i < 8; i++)
        x86_store_system(core, base + l->gpr + i * l->size, l->size, cpu->reg[i]);
    for (unsigned i = 0; i < l->segs; i++)
        x86_store_system(core, base + l->seg + i * l->size, 2, cpu->seg[i].selector);
}

static uint32_t error_of(uint16_t selector, unsigned ext)
{
    return (selector & 0xfffcu) | ext;
}

/* Anything wrong with the new task's LDT, CS, SS or data segments is #TS with that selector; not present is #NP, or
 * #SS for the stack. */
static void load_ldt(struct x86_core *core, uint16_t selector, unsigned ext)
{
    struct x86_descriptor d;
    core->cpu.ldtr = (struct x86_segment){.selector = selector, .attr = X86_ATTR_UNUSABLE};
    if ((selector & 0xfffc) == 0)
        return;
    if ((selector & 4) || !x86_desc_try(core, selector, &d) || x86_desc_s(&d) || x86_desc_type(&d) != X86_TYPE_LDT ||
        !x86_desc_present(&d))
        x86_raise(core, X86_TS, error_of(selector, ext));
    core->cpu.ldtr = x86_desc_segment(&d, selector);
}

static void load_code(struct x86_core *core, uint16_t selector, unsigned ext)
{
    struct x86_descriptor d;
    unsigned rpl = selector & 3;
    if ((selector & 0xfffc) == 0 || !x86_desc_try(core, selector, &d) || !x86_desc_code(&d))
        x86_raise(core, X86_TS, error_of(selector, ext));
    if (x86_desc_conforming(&d) ? x86_desc_dpl(&d) > rpl : x86_desc_dpl(&d) != rpl)
        x86_raise(core, X86_TS, error_of(selector, ext));
    if (!x86_desc_present(&d))
        x86_raise(core, X86_NP, error_of(selector, ext));
    x86_desc_accessed(core, &d);
    core->cpu.seg[X86_CS] = x86_desc_segment(&d, selector);
}

static void load_data(struct x86_core *core, enum x86_seg seg, uint16_t selector, unsigned cpl, unsigned ext)
{
    struct x86_descriptor d;
    if ((selector & 0xfffc) == 0)
        return; /* null already */
    if (!x86_desc_try(core, selector, &d) || !x86_desc_readable(&d))
        x86_raise(core, X86_TS, error_of(selector, ext));
    if (!(x86_desc_code(&d) && x86_desc_conforming(&d)) &&
        ((selector & 3u) > x86_desc_dpl(&d) || cpl > x86_desc_dpl(&d)))
        x86_raise(core, X86_TS, error_of(selector, ext));
    if (!x86_desc_present(&d))
        x86_raise(core, X86_NP, error_of(selector, ext));
    x86_desc_accessed(core, &d);
    core->cpu.seg[seg] = x86_desc_segment(&d, selector);
}

/* Segment registers of the new task; a fault belongs to it. The level is that of the new CS's RPL. */
static void load_segments(struct x86_core *core, const struct task *task, unsigned ext)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    unsigned cpl = task->seg[X86_CS] & 3;
    struct x86_segment ss;
    if (core->cpu.rflags & X86_FLAG_VM) {
        for (unsigned i = 0; i < X86_SEGS; i++)
            x86_segment_v86(core, (enum x86_seg)i, task->seg[i]);
        load_ldt(core, task->ldt, ext);
        return;
    }
    for (unsigned i = 0; i < X86_SEGS; i++)
        x86_segment_null(core, (enum x86_seg)i, task->seg[i], i == X86_SS ? cpl : 0);
    x86_mode_changed(core);
    load_ldt(core, task->ldt, ext);
    load_code(core, task->seg[X86_CS], ext);
    x86_stack_segment_check(core, task->seg[X86_SS], cpl, X86_TS, ext, &ss);
    core->cpu.seg[X86_SS] = ss;
    for (unsigned i = 0; i < sizeof(data); i++)
        load_data(core, (enum x86_seg)data[i], task->seg[data[i]], cpl, ext);
}

/* General registers, flags and CR3. A 16-bit TSS leaves the upper halves and CR3 alone. */
static void load_registers(struct x86_core *core, const struct task *task, uint64_t flags)
{
    struct x86_cpu *cpu = &core->cpu;
    cpu->rflags = (flags & 0x3f7fd7) | X86_FLAG_FIXED;
    for (unsigned i = 0; i < 8; i++) {
        if (task->layout == &layout32)
            cpu->reg[i] = task->gpr[i];
        else
            cpu->reg[i] = (cpu->reg[i] & ~UINT64_C(0xffff)) | task->gpr[i];
    }
    cpu->reg[X86_RIP] = task->ip;
    if (task->layout == &layout32 && (cpu->cr0 & X86_CR0_PG)) {
        cpu->cr3 = task->cr3;
        x86_tlb_flush(core, true);
    }
    cpu->dr[7] &= ~UINT64_C(0x55); /* local breakpoints */
}

/* The old and the new TSS must be usable before either changes. */
static void check_switch(struct x86_core *core, uint16_t selector, const struct x86_descriptor *tss, unsigned ext)
{
    const struct x86_cpu *cpu = &core->cpu;
    const struct layout *old = layout_of(cpu->tr.attr & 15);
    if (!x86_desc_present(tss))
        x86_raise(core, X86_NP, error_of(selector, ext));
    if (x86_desc_limit(tss) < layout_of(x86_desc_type(tss))->min_limit)
        x86_raise(core, X86_TS, error_of(selector, ext));
    if (cpu->tr.limit < old->min_limit)
        x86_raise(core, X86_TS, error_of(cpu->tr.selector, ext));
    /* Both ends of the old TSS are written first: rewriting what is there shows that a page can be stored to. */
    x86_store_system(core, cpu->tr.base + old->ip, 1, x86_load_system(core, cpu->tr.base + old->ip, 1));
    x86_store_system(core, cpu->tr.base + old->ldt - 1, 1, x86_load_system(core, cpu->tr.base + old->ldt - 1, 1));
}

void x86_task_switch(struct x86_core *core, uint16_t selector, const struct x86_descriptor *tss,
                     enum x86_task_source source, unsigned ext, unsigned rewind)
{
    struct x86_cpu *cpu = &core->cpu;
    bool nested = source == X86_TASK_CALL || source == X86_TASK_GATE;
    uint16_t old_selector = cpu->tr.selector;
    uint64_t old_flags = cpu->rflags, old_descriptor = cpu->gdtr.base + (old_selector & 0xfff8u);
    struct task task;
    check_switch(core, selector, tss, ext);
    read_task(core, tss, &task);
    if (!nested)
        x86_desc_busy(core, old_descriptor, false);
    if (source == X86_TASK_RETURN)
        old_flags &= ~(uint64_t)X86_FLAG_NT;
    save_task(core, old_flags);
    if (nested)
        x86_store_system(core, x86_desc_base(tss), 2, old_selector);
    if (source != X86_TASK_RETURN)
        x86_desc_busy(core, tss->address, true);

    cpu->tr = x86_desc_segment(tss, selector);
    cpu->tr.attr |= 2;
    cpu->cr0 |= X86_CR0_TS;
    load_registers(core, &task, nested ? task.flags | X86_FLAG_NT : task.flags);
    cpu->reg[X86_RIP] += rewind;
    load_segments(core, &task, ext);
    x86_mode_changed(core);
    if (task.ip > cpu->seg[X86_CS].limit)
        x86_raise_gp(core, ext);
    cpu->reg[X86_RIP] -= rewind;
    if (task.trap)
        core->pending_dr6 |= X86_DR6_BT;
    x86_mode_changed(core);
}

void x86_task_gate(struct x86_core *core, const struct x86_descriptor *gate, enum x86_task_source source,
                   unsigned ext, unsigned rewind)
{
    uint16_t selector = x86_gate_selector(gate);
    struct x86_descriptor tss;
    if ((selector & 4) || (selector & 0xfffc) == 0)
        x86_raise_gp(core, error_of(selector, ext));
    x86_desc_fetch(core, selector, X86_GP, ext, &tss);
    if (x86_desc_s(&tss) || (x86_desc_type(&tss) != X86_TYPE_TSS && x86_desc_type(&tss) != X86_TYPE_TSS16))
        x86_raise_gp(core, error_of(selector, ext));
    x86_task_switch(core, selector, &tss, source, ext, rewind);
}

void x86_task_return(struct x86_core *core, unsigned rewind)
{
    uint16_t selector = (uint16_t)x86_load_system(core, core->cpu.tr.base, 2);
    struct x86_descriptor tss;
    if ((selector & 4) || (selector & 0xfffc) == 0)
        x86_raise(core, X86_TS, error_of(selector, 0));
    x86_desc_fetch(core, selector, X86_TS, 0, &tss);
    if (x86_desc_s(&tss) || (x86_desc_type(&tss) != X86_TYPE_TSS_BUSY && x86_desc_type(&tss) != X86_TYPE_TSS16_BUSY))
        x86_raise(core, X86_TS, error_of(selector, 0));
    x86_task_switch(core, selector, &tss, X86_TASK_RETURN, 0, rewind);
}
