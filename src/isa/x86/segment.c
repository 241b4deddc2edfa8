/* segment.c - segment descriptors: fetching, checking and loading.
 *
 * A segment register holds the descriptor as it was when it was loaded; tables are read at loads only. Checks run in
 * the order of the SDM's pseudo-code, for which error arises first is visible to the guest. */
#include "isa/x86/segment.h"

#include "isa/x86/mem.h"
#include "isa/x86/paging.h"

#define SELECTOR_TI 4u

static uint32_t selector_error(uint16_t selector, unsigned ext)
{
    return (selector & 0xfffcu) | ext;
}

uint32_t x86_desc_limit(const struct x86_descriptor *d)
{
    uint32_t limit = (uint32_t)((d->low & 0xffff) | (d->low >> 32 & 0xf0000));
    return d->low >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

uint64_t x86_desc_base(const struct x86_descriptor *d)
{
    return (d->low >> 16 & 0xffffff) | (d->low >> 32 & 0xff000000u) | (d->high << 32);
}

struct x86_segment x86_desc_segment(const struct x86_descriptor *d, uint16_t selector)
{
    return (struct x86_segment){.selector = selector,
                                .attr = (uint32_t)(d->low >> 40) & 0xf0ff,
                                .limit = x86_desc_limit(d),
                                .base = x86_desc_base(d)};
}

/* Where a selector's descriptor is, when `size` bytes of it lie within the table. */
static bool descriptor_address(const struct x86_core *core, uint16_t selector, unsigned size, uint64_t *ret_address)
{
    const struct x86_cpu *cpu = &core->cpu;
    uint64_t base = cpu->gdtr.base;
    uint32_t limit = cpu->gdtr.limit, offset = selector & 0xfff8u;
    if (selector & SELECTOR_TI) {
        if (cpu->ldtr.attr & X86_ATTR_UNUSABLE)
            return false;
        base = cpu->ldtr.base;
        limit = cpu->ldtr.limit;
    }
    *ret_address = base + offset;
    return limit >= size - 1 && offset <= limit - (size - 1);
}

bool x86_desc_try(struct x86_core *core, uint16_t selector, struct x86_descriptor *ret_descriptor)
{
    if (!descriptor_address(core, selector, 8, &ret_descriptor->address))
        return false;
    ret_descriptor->low = x86_load_system(core, ret_descriptor->address, 8);
    ret_descriptor->high = 0;
    return true;
}

void x86_desc_fetch(struct x86_core *core, uint16_t selector, enum x86_vector vector, unsigned ext,
                    struct x86_descriptor *ret_descriptor)
{
    if (!x86_desc_try(core, selector, ret_descriptor))
        x86_raise(core, vector, selector_error(selector, ext));
}

void x86_desc_fetch_high(struct x86_core *core, uint16_t selector, enum x86_vector vector, unsigned ext,
                         struct x86_descriptor *descriptor)
{
    uint64_t address;
    if (!core->long_mode)
        return;
    if (!descriptor_address(core, selector, 16, &address))
        x86_raise(core, vector, selector_error(selector, ext));
    descriptor->high = x86_load_system(core, address + 8, 8);
    if (descriptor->high >> 40 & 0x1f)
        x86_raise(core, vector, selector_error(selector, ext));
}

void x86_desc_accessed(struct x86_core *core, struct x86_descriptor *descriptor)
{
    uint64_t byte = descriptor->low >> 40 & 0xff;
    if (byte & 1)
        return;
    x86_store_system(core, descriptor->address + 5, 1, byte | 1);
    descriptor->low |= UINT64_C(1) << 40;
}

void x86_desc_busy(struct x86_core *core, uint64_t address, bool busy)
{
    uint64_t byte = x86_load_system(core, address + 5, 1);
    x86_store_system(core, address + 5, 1, busy ? byte | 2 : byte & ~UINT64_C(2));
}

void x86_segment_real(struct x86_core *core, enum x86_seg seg, uint16_t selector)
{
    /* Limit and attributes stay as they are ("unreal mode"), but a null segment becomes usable again. */
    struct x86_segment *segment = &core->cpu.seg[seg];
    segment->selector = selector;
    segment->base = (uint64_t)selector << 4;
    if (segment->attr & X86_ATTR_UNUSABLE) {
        segment->attr = 0x93;
        segment->limit = 0xffff;
    }
    if (seg == X86_SS)
        segment->attr &= ~X86_ATTR_DPL;
}

void x86_segment_v86(struct x86_core *core, enum x86_seg seg, uint16_t selector)
{
    core->cpu.seg[seg] = (struct x86_segment){
        .selector = selector, .attr = 0xf3, .limit = 0xffff, .base = (uint64_t)selector << 4};
}

void x86_segment_null(struct x86_core *core, enum x86_seg seg, uint16_t selector, unsigned dpl)
{
    core->cpu.seg[seg] =
        (struct x86_segment){.selector = selector, .attr = X86_ATTR_UNUSABLE | dpl << X86_ATTR_DPL_SHIFT};
}

/* SS is stricter than the others: writable, and RPL, DPL and CPL all the same. Not present is #SS, not #NP. */
static void load_ss(struct x86_core *core, uint16_t selector)
{
    struct x86_descriptor d;
    unsigned cpl = x86_cpl(&core->cpu), rpl = selector & 3;
    if ((selector & 0xfffc) == 0) {
        if (core->mode != X86_CODE64 || cpl == 3 || rpl != cpl)
            x86_raise_gp(core, 0);
        x86_segment_null(core, X86_SS, selector, cpl);
        return;
    }
    x86_desc_fetch(core, selector, X86_GP, 0, &d);
    if (rpl != cpl || !x86_desc_writable(&d) || x86_desc_dpl(&d) != cpl)
        x86_raise_gp(core, selector_error(selector, 0));
    if (!x86_desc_present(&d))
        x86_raise(core, X86_SSF, selector_error(selector, 0));
    x86_desc_accessed(core, &d);
    core->cpu.seg[X86_SS] = x86_desc_segment(&d, selector);
}

void x86_segment_load(struct x86_core *core, enum x86_seg seg, uint16_t selector)
{
    struct x86_descriptor d;
    unsigned cpl = x86_cpl(&core->cpu), rpl = selector & 3;
    if (!x86_protected(&core->cpu)) {
        if (x86_v86(&core->cpu))
            x86_segment_v86(core, seg, selector);
        else
            x86_segment_real(core, seg, selector);
        return;
    }
    if (seg == X86_SS) {
        load_ss(core, selector);
        return;
    }
    if ((selector & 0xfffc) == 0) {
        x86_segment_null(core, seg, selector, 0);
        return;
    }
    x86_desc_fetch(core, selector, X86_GP, 0, &d);
    if (!x86_desc_readable(&d))
        x86_raise_gp(core, selector_error(selector, 0));
    if (!(x86_desc_code(&d) && x86_desc_conforming(&d)) && (rpl > x86_desc_dpl(&d) || cpl > x86_desc_dpl(&d)))
        x86_raise_gp(core, selector_error(selector, 0));
    if (!x86_desc_present(&d))
        x86_raise(core, X86_NP, selector_error(selector, 0));
    x86_desc_accessed(core, &d);
    core->cpu.seg[seg] = x86_desc_segment(&d, selector);
}

void x86_stack_segment_check(struct x86_core *core, uint16_t selector, unsigned cpl, enum x86_vector vector,
                             unsigned ext, struct x86_segment *ret_segment)
{
    struct x86_descriptor d;
    if ((selector & 0xfffc) == 0)
        x86_raise(core, vector, vector == X86_TS ? ext : 0);
    x86_desc_fetch(core, selector, vector, ext, &d);
    if ((selector & 3u) != cpl || x86_desc_dpl(&d) != cpl || !x86_desc_writable(&d))
        x86_raise(core, vector, selector_error(selector, ext));
    if (!x86_desc_present(&d))
        x86_raise(core, X86_SSF, selector_error(selector, ext));
    x86_desc_accessed(core, &d);
    *ret_segment = x86_desc_segment(&d, selector);
}

void x86_tss_stack(struct x86_core *core, unsigned cpl, unsigned ext, uint16_t *ret_ss, uint32_t *ret_esp)
{
    const struct x86_segment *tr = &core->cpu.tr;
    bool wide = (tr->attr & 8) != 0; /* 32-bit TSS */
    uint32_t offset = wide ? 4 + 8 * cpl : 2 + 4 * cpl;
    uint32_t size = wide ? 6 : 4;
    if ((uint64_t)offset + size - 1 > tr->limit)
        x86_raise(core, X86_TS, selector_error(tr->selector, ext));
    *ret_esp = (uint32_t)x86_load_system(core, tr->base + offset, wide ? 4 : 2);
    *ret_ss = (uint16_t)x86_load_system(core, tr->base + offset + (wide ? 4 : 2), 2);
}

uint64_t x86_tss_stack64(struct x86_core *core, unsigned index, unsigned ext)
{
    const struct x86_segment *tr = &core->cpu.tr;
    uint32_t offset = 4 + 8 * index;
    if ((uint64_t)offset + 7 > tr->limit)
        x86_raise(core, X86_TS, selector_error(tr->selector, ext));
    return x86_load_system(core, tr->base + offset, 8);
}

/* What LLDT and LTR share: a present system descriptor of the GDT, of a type in the set. */
static void fetch_system(struct x86_core *core, uint16_t selector, unsigned types, struct x86_descriptor *ret)
{
    if (selector & SELECTOR_TI)
        x86_raise_gp(core, selector_error(selector, 0));
    x86_desc_fetch(core, selector, X86_GP, 0, ret);
    if (x86_desc_s(ret) || !(types >> x86_desc_type(ret) & 1))
        x86_raise_gp(core, selector_error(selector, 0));
    if (!x86_desc_present(ret))
        x86_raise(core, X86_NP, selector_error(selector, 0));
    x86_desc_fetch_high(core, selector, X86_GP, 0, ret);
    if (core->long_mode && !x86_canonical(x86_desc_base(ret)))
        x86_raise_gp(core, selector_error(selector, 0));
}

void x86_lldt(struct x86_core *core, uint16_t selector)
{
    struct x86_descriptor d;
    if ((selector & 0xfffc) == 0) {
        core->cpu.ldtr = (struct x86_segment){.selector = selector, .attr = X86_ATTR_UNUSABLE};
        return;
    }
    fetch_system(core, selector, 1u << X86_TYPE_LDT, &d);
    core->cpu.ldtr = x86_desc_segment(&d, selector);
}

void x86_ltr(struct x86_core *core, uint16_t selector)
{
    struct x86_descriptor d;
    if ((selector & 0xfffc) == 0)
        x86_raise_gp(core, 0);
    fetch_system(core, selector, core->long_mode ? 1u << X86_TYPE_TSS : 1u << X86_TYPE_TSS | 1u << X86_TYPE_TSS16,
                 &d);
    x86_desc_busy(core, d.address, true);
    core->cpu.tr = x86_desc_segment(&d, selector);
    core->cpu.tr.attr |= 2;
}
