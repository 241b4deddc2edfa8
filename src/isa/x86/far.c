/* far.c - far jumps, calls and returns, call gates, IRET.
 *
 * Each transfer first collects and checks everything: the selector, its descriptor, what lies on the stack, the
 * target address. Then it sets CS, SS, RSP and RIP in steps that cannot refuse, so that a fault finds the state
 * of before the instruction. The privilege level is DPL of SS throughout the core; every change of level
 * therefore installs an SS, a null one in long mode. */
#include "isa/x86/far.h"

#include "isa/x86/frame.h"
#include "isa/x86/mem.h"
#include "isa/x86/paging.h"
#include "isa/x86/segment.h"
#include "isa/x86/task.h"

#define SELECTOR_ERROR(selector) ((selector)&0xfffcu)

static bool is_null(uint16_t selector)
{
    return (selector & 0xfffc) == 0;
}

/* An offset or pointer cut to its operand size. */
static uint64_t operand(uint64_t value, unsigned size)
{
    return size == 8 ? value : size == 4 ? (uint32_t)value : (uint16_t)value;
}

/* The checks on a target address: canonical in 64-bit code, else within the segment. #GP(0). */
static void check_target(struct x86_core *core, const struct x86_descriptor *code, uint64_t rip)
{
    bool wide = core->long_mode && x86_desc_l(code);
    if (wide ? !x86_canonical(rip) : rip > x86_desc_limit(code))
        x86_raise_gp(core, 0);
}

/* A code segment, and in long mode not one with both L and D. */
static void check_code(struct x86_core *core, uint16_t selector, const struct x86_descriptor *code)
{
    if (!x86_desc_code(code) || (core->long_mode && x86_desc_l(code) && x86_desc_db(code)))
        x86_raise_gp(core, SELECTOR_ERROR(selector));
}

static void check_present(struct x86_core *core, uint16_t selector, const struct x86_descriptor *d)
{
    if (!x86_desc_present(d))
        x86_raise(core, X86_NP, SELECTOR_ERROR(selector));
}

/* CS for a transfer to privilege level cpl, and RIP. Nothing can fault any more. */
static void set_code(struct x86_core *core, const struct x86_descriptor *code, uint16_t selector, unsigned cpl,
                     uint64_t rip)
{
    core->cpu.seg[X86_CS] = x86_desc_segment(code, (uint16_t)((selector & 0xfffc) | cpl));
    core->cpu.reg[X86_RIP] = rip;
    x86_mode_changed(core);
}

/* Real-address and virtual-8086 mode. */
static void set_code_real(struct x86_core *core, uint16_t selector, uint64_t rip)
{
    if (x86_v86(&core->cpu))
        x86_segment_v86(core, X86_CS, selector);
    else
        x86_segment_real(core, X86_CS, selector);
    core->cpu.reg[X86_RIP] = rip;
    x86_mode_changed(core);
}

/* The descriptor that a far JMP or CALL names; code when x86_desc_s, else a gate or TSS. */
static void fetch_target(struct x86_core *core, uint16_t selector, struct x86_descriptor *ret)
{
    if (is_null(selector))
        x86_raise_gp(core, 0);
    x86_desc_fetch(core, selector, X86_GP, 0, ret);
}

/* Direct transfers to a code segment keep the privilege level. */
static void check_direct(struct x86_core *core, uint16_t selector, const struct x86_descriptor *code, uint64_t rip)
{
    unsigned cpl = x86_cpl(&core->cpu), rpl = selector & 3, dpl = x86_desc_dpl(code);
    check_code(core, selector, code);
    if (x86_desc_conforming(code) ? dpl > cpl : rpl > cpl || dpl != cpl)
        x86_raise_gp(core, SELECTOR_ERROR(selector));
    check_present(core, selector, code);
    check_target(core, code, rip);
}

/* Checks a gate or TSS named by a far transfer; reads the second half of a long-mode call gate. */
static void check_system(struct x86_core *core, uint16_t selector, struct x86_descriptor *gate)
{
    static const uint16_t legacy = 1u << X86_TYPE_TSS16 | 1u << X86_TYPE_CALL16 | 1u << X86_TYPE_TASK_GATE |
                                   1u << X86_TYPE_TSS | 1u << X86_TYPE_CALL;
    unsigned cpl = x86_cpl(&core->cpu), rpl = selector & 3, dpl = x86_desc_dpl(gate);
    uint32_t types = core->long_mode ? 1u << X86_TYPE_CALL : legacy;
    if (!(types >> x86_desc_type(gate) & 1) || dpl < cpl || rpl > dpl)
        x86_raise_gp(core, SELECTOR_ERROR(selector));
    check_present(core, selector, gate);
    x86_desc_fetch_high(core, selector, X86_GP, 0, gate);
}

/* The code segment behind a call gate. */
static void fetch_gate_code(struct x86_core *core, const struct x86_descriptor *gate, bool jump,
                            struct x86_descriptor *ret_code)
{
    uint16_t selector = x86_gate_selector(gate);
    unsigned cpl = x86_cpl(&core->cpu);
    fetch_target(core, selector, ret_code);
    check_code(core, selector, ret_code);
    if (x86_desc_dpl(ret_code) > cpl || (jump && !x86_desc_conforming(ret_code) && x86_desc_dpl(ret_code) != cpl))
        x86_raise_gp(core, SELECTOR_ERROR(selector));
    if (core->long_mode && !x86_desc_l(ret_code))
        x86_raise_gp(core, SELECTOR_ERROR(selector));
    check_present(core, selector, ret_code);
}

/* What a call gate pushes: 64-bit values in long mode, where 16- and 32-bit gates do not exist. */
static unsigned gate_size(const struct x86_core *core, const struct x86_descriptor *gate)
{
    return core->long_mode ? 8 : x86_desc_type(gate) == X86_TYPE_CALL ? 4 : 2;
}

/* A task gate or TSS; true when the descriptor was one and the task has been switched. */
static bool transfer_task(struct x86_core *core, uint16_t selector, const struct x86_descriptor *d,
                          enum x86_task_source source)
{
    unsigned length = core->insn->length;
    switch (x86_desc_type(d)) {
    case X86_TYPE_TASK_GATE: x86_task_gate(core, d, source, 0, length); return true;
    case X86_TYPE_TSS:
    case X86_TYPE_TSS16: x86_task_switch(core, selector, d, source, 0, length); return true;
    default: return false;
    }
}

void x86_far_jump(struct x86_core *core, uint16_t selector, uint64_t offset, unsigned opsize)
{
    struct x86_descriptor d, code;
    unsigned cpl = x86_cpl(&core->cpu);
    offset = operand(offset, opsize);
    if (!x86_protected(&core->cpu)) {
        if (offset > core->cpu.seg[X86_CS].limit)
            x86_raise_gp(core, 0);
        set_code_real(core, selector, offset);
        return;
    }
    fetch_target(core, selector, &d);
    if (x86_desc_s(&d)) {
        check_direct(core, selector, &d, offset);
        x86_desc_accessed(core, &d);
        set_code(core, &d, selector, cpl, offset);
        return;
    }
    check_system(core, selector, &d);
    if (transfer_task(core, selector, &d, X86_TASK_JUMP))
        return;
    fetch_gate_code(core, &d, true, &code);
    offset = operand(x86_gate_offset(&d), gate_size(core, &d));
    check_target(core, &code, offset);
    x86_desc_accessed(core, &code);
    set_code(core, &code, x86_gate_selector(&d), cpl, offset);
}

/* CALL through a gate to an inner level: the new stack from the TSS, with the parameters copied. */
static void call_inner(struct x86_core *core, const struct x86_descriptor *gate, struct x86_descriptor *code)
{
    struct x86_cpu *cpu = &core->cpu;
    struct x86_frame frame, old;
    struct x86_segment ss = {0};
    unsigned size = gate_size(core, gate), cpl = x86_desc_dpl(code);
    unsigned parameters = core->long_mode ? 0 : gate->low >> 32 & 31;
    uint64_t rip = operand(x86_gate_offset(gate), size), parameter[31];
    x86_frame_current(core, 0, &old);
    if (core->long_mode) {
        frame = (struct x86_frame){.sp = x86_tss_stack64(core, cpl, 0), .mask = UINT64_MAX};
    } else {
        uint16_t selector;
        uint32_t esp;
        x86_tss_stack(core, cpl, 0, &selector, &esp);
        x86_stack_segment_check(core, selector, cpl, X86_TS, 0, &ss);
        x86_frame_new(&ss, esp, SELECTOR_ERROR(selector), &frame);
    }
    check_target(core, code, rip);
    for (unsigned i = 0; i < parameters; i++)
        parameter[i] = x86_frame_pop(core, &old, size);
    x86_desc_accessed(core, code);
    x86_frame_push(core, &frame, size, cpu->seg[X86_SS].selector);
    x86_frame_push(core, &frame, size, cpu->reg[X86_RSP]);
    for (unsigned i = parameters; i > 0; i--)
        x86_frame_push(core, &frame, size, parameter[i - 1]);
    x86_frame_push(core, &frame, size, cpu->seg[X86_CS].selector);
    x86_frame_push(core, &frame, size, cpu->reg[X86_RIP]);
    cpu->reg[X86_RSP] = frame.sp;
    if (core->long_mode)
        x86_segment_null(core, X86_SS, (uint16_t)cpl, cpl);
    else
        cpu->seg[X86_SS] = ss;
    set_code(core, code, x86_gate_selector(gate), cpl, rip);
}

/* Pushes CS:RIP on the current stack; returns the stack pointer to commit. */
static uint64_t push_return(struct x86_core *core, unsigned size)
{
    struct x86_frame frame;
    x86_frame_current(core, 0, &frame);
    x86_frame_push(core, &frame, size, core->cpu.seg[X86_CS].selector);
    x86_frame_push(core, &frame, size, core->cpu.reg[X86_RIP]);
    return frame.sp;
}

/* CALL within the privilege level, direct or through a gate. */
static void call_same(struct x86_core *core, struct x86_descriptor *code, uint16_t selector, uint64_t rip,
                      unsigned size)
{
    check_target(core, code, rip);
    x86_desc_accessed(core, code);
    core->cpu.reg[X86_RSP] = push_return(core, size);
    set_code(core, code, selector, x86_cpl(&core->cpu), rip);
}

void x86_far_call(struct x86_core *core, uint16_t selector, uint64_t offset, unsigned opsize)
{
    struct x86_descriptor d, code;
    offset = operand(offset, opsize);
    if (!x86_protected(&core->cpu)) {
        if (offset > core->cpu.seg[X86_CS].limit)
            x86_raise_gp(core, 0);
        core->cpu.reg[X86_RSP] = push_return(core, opsize);
        set_code_real(core, selector, offset);
        return;
    }
    fetch_target(core, selector, &d);
    if (x86_desc_s(&d)) {
        check_direct(core, selector, &d, offset);
        call_same(core, &d, selector, offset, opsize);
        return;
    }
    check_system(core, selector, &d);
    if (transfer_task(core, selector, &d, X86_TASK_CALL))
        return;
    fetch_gate_code(core, &d, false, &code);
    if (!x86_desc_conforming(&code) && x86_desc_dpl(&code) < x86_cpl(&core->cpu)) {
        call_inner(core, &d, &code);
        return;
    }
    unsigned size = gate_size(core, &d);
    call_same(core, &code, x86_gate_selector(&d), operand(x86_gate_offset(&d), size), size);
}

/* ---- returns ---- */

/* The code segment that RETF or IRET returns to. */
static void fetch_return_code(struct x86_core *core, uint16_t selector, struct x86_descriptor *ret)
{
    unsigned rpl = selector & 3;
    fetch_target(core, selector, ret);
    check_code(core, selector, ret);
    if (rpl < x86_cpl(&core->cpu) ||
        (x86_desc_conforming(ret) ? x86_desc_dpl(ret) > rpl : x86_desc_dpl(ret) != rpl))
        x86_raise_gp(core, SELECTOR_ERROR(selector));
    check_present(core, selector, ret);
}

/* The stack segment that a return loads for privilege level `cpl`. A null one is allowed to 64-bit code
 * below level 3. */
static void check_return_stack(struct x86_core *core, uint16_t selector, unsigned cpl, bool to_64,
                               struct x86_segment *ret_ss)
{
    struct x86_descriptor d;
    if (is_null(selector)) {
        if (!to_64 || cpl == 3 || (selector & 3u) != cpl)
            x86_raise_gp(core, 0);
        *ret_ss = (struct x86_segment){.selector = selector, .attr = X86_ATTR_UNUSABLE | cpl << X86_ATTR_DPL_SHIFT};
        return;
    }
    x86_desc_fetch(core, selector, X86_GP, 0, &d);
    if ((selector & 3u) != cpl || !x86_desc_writable(&d) || x86_desc_dpl(&d) != cpl)
        x86_raise_gp(core, SELECTOR_ERROR(selector));
    if (!x86_desc_present(&d))
        x86_raise(core, X86_SSF, SELECTOR_ERROR(selector));
    x86_desc_accessed(core, &d);
    *ret_ss = x86_desc_segment(&d, selector);
}

/* Data segments that the outer level may not use become null. */
static void drop_inner_segments(struct x86_core *core, unsigned cpl)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    for (unsigned i = 0; i < sizeof(data); i++) {
        const struct x86_segment *seg = &core->cpu.seg[data[i]];
        unsigned dpl = (seg->attr & X86_ATTR_DPL) >> X86_ATTR_DPL_SHIFT;
        bool conforming = (seg->attr & 0xc) == 0xc;
        if (!(seg->attr & X86_ATTR_UNUSABLE) && dpl < cpl && !conforming)
            x86_segment_null(core, (enum x86_seg)data[i], 0, 0);
    }
}

/* What RETF and IRET took from the stack, and how. */
struct far_return {
    uint64_t rip;
    uint16_t selector;
    unsigned opsize, release;
    bool load_stack; /* SS:RSP even without a change of level */
};

/* The common end of RETF and IRET in protected mode: everything checked, then loaded. Flags are the caller's. */
static void return_protected(struct x86_core *core, struct x86_frame *frame, const struct far_return *r)
{
    struct x86_cpu *cpu = &core->cpu;
    struct x86_descriptor code;
    struct x86_segment ss = cpu->seg[X86_SS];
    unsigned cpl = x86_cpl(cpu), new_cpl = r->selector & 3;
    fetch_return_code(core, r->selector, &code);
    bool to_64 = core->long_mode && x86_desc_l(&code), outer = new_cpl > cpl;
    uint64_t sp = frame->sp;
    x86_frame_skip(frame, r->release);
    if (outer || r->load_stack) {
        sp = x86_frame_pop(core, frame, r->opsize);
        uint16_t selector = (uint16_t)x86_frame_pop(core, frame, r->opsize);
        check_return_stack(core, selector, new_cpl, to_64, &ss);
    } else {
        sp = frame->sp;
    }
    check_target(core, &code, r->rip);
    x86_desc_accessed(core, &code);
    if (outer || r->load_stack) {
        struct x86_frame next = {.sp = sp, .mask = UINT64_MAX};
        if (!to_64)
            x86_frame_new(&ss, sp, 0, &next);
        /* A 16-bit stack segment takes SP only when the frame is 16 bits wide. */
        if (r->opsize == 2 && next.mask == UINT16_MAX)
            next.sp = (cpu->reg[X86_RSP] & ~UINT64_C(0xffff)) | (uint16_t)sp;
        x86_frame_skip(&next, r->release);
        cpu->seg[X86_SS] = ss;
        sp = next.sp;
    }
    cpu->reg[X86_RSP] = sp;
    if (outer)
        drop_inner_segments(core, new_cpl);
    set_code(core, &code, r->selector, new_cpl, r->rip);
}

void x86_far_return(struct x86_core *core, unsigned opsize, unsigned release)
{
    struct x86_frame frame;
    struct far_return r = {.opsize = opsize, .release = release};
    x86_frame_current(core, 0, &frame);
    r.rip = x86_frame_pop(core, &frame, opsize);
    r.selector = (uint16_t)x86_frame_pop(core, &frame, opsize);
    if (x86_protected(&core->cpu)) {
        return_protected(core, &frame, &r);
        return;
    }
    if (r.rip > core->cpu.seg[X86_CS].limit)
        x86_raise_gp(core, 0);
    x86_frame_skip(&frame, release);
    core->cpu.reg[X86_RSP] = frame.sp;
    set_code_real(core, r.selector, r.rip);
}

/* Replaces the bits of RFLAGS in `mask`; a 16-bit pop leaves the upper ones. */
static void set_flags(struct x86_core *core, uint64_t flags, uint64_t mask, unsigned opsize)
{
    if (opsize == 2)
        mask &= 0xffff;
    core->cpu.rflags = (core->cpu.rflags & ~mask) | (flags & mask) | X86_FLAG_FIXED;
    core->rf_loaded = true;
}

#define IRET_FLAGS                                                                                           \
    (X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_AC | X86_FLAG_ID)

/* Real-address mode, and virtual-8086 mode with IOPL 3. */
static void iret_real(struct x86_core *core, unsigned opsize)
{
    struct x86_frame frame;
    uint64_t mask = IRET_FLAGS | X86_FLAG_IF;
    bool v86 = x86_v86(&core->cpu);
    if (v86 && (core->cpu.rflags & X86_FLAG_IOPL) != X86_FLAG_IOPL)
        x86_raise_gp(core, 0);
    x86_frame_current(core, 0, &frame);
    uint64_t rip = x86_frame_pop(core, &frame, opsize);
    uint16_t selector = (uint16_t)x86_frame_pop(core, &frame, opsize);
    uint64_t flags = x86_frame_pop(core, &frame, opsize);
    if (rip > core->cpu.seg[X86_CS].limit)
        x86_raise_gp(core, 0);
    if (!v86)
        mask |= X86_FLAG_IOPL;
    core->cpu.reg[X86_RSP] = frame.sp;
    set_flags(core, flags, mask, opsize);
    set_code_real(core, selector, rip);
}

/* From level 0 to virtual-8086 mode: nine values of 32 bits. */
static void iret_to_v86(struct x86_core *core, struct x86_frame *frame, uint64_t rip, uint16_t selector,
                        uint64_t flags)
{
    static const uint8_t order[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    struct x86_cpu *cpu = &core->cpu;
    uint16_t selectors[sizeof(order)];
    uint64_t sp = x86_frame_pop(core, frame, 4);
    uint16_t ss = (uint16_t)x86_frame_pop(core, frame, 4);
    for (unsigned i = 0; i < sizeof(order); i++)
        selectors[i] = (uint16_t)x86_frame_pop(core, frame, 4);
    if (rip > 0xffff)
        x86_raise_gp(core, 0);
    cpu->rflags = (flags & (IRET_FLAGS | X86_FLAG_IF | X86_FLAG_IOPL | X86_FLAG_VM | X86_FLAG_VIF | X86_FLAG_VIP)) |
                  X86_FLAG_FIXED;
    core->rf_loaded = true;
    for (unsigned i = 0; i < sizeof(order); i++)
        x86_segment_v86(core, (enum x86_seg)order[i], selectors[i]);
    x86_segment_v86(core, X86_SS, ss);
    cpu->reg[X86_RSP] = (uint32_t)sp;
    set_code_real(core, selector, rip);
}

/* Protected and long mode. IF changes only at IOPL or better, IOPL only at level 0; RF, NT and AC always. */
static void iret_protected(struct x86_core *core, unsigned opsize)
{
    struct x86_cpu *cpu = &core->cpu;
    struct x86_frame frame;
    struct far_return r = {.opsize = opsize, .load_stack = core->mode == X86_CODE64};
    unsigned cpl = x86_cpl(cpu);
    uint64_t mask = IRET_FLAGS;
    if (cpu->rflags & X86_FLAG_NT) {
        if (core->long_mode)
            x86_raise_gp(core, 0);
        x86_task_return(core, core->insn->length);
        return;
    }
    x86_frame_current(core, 0, &frame);
    r.rip = x86_frame_pop(core, &frame, opsize);
    r.selector = (uint16_t)x86_frame_pop(core, &frame, opsize);
    uint64_t flags = x86_frame_pop(core, &frame, opsize);
    if (opsize == 4 && (flags & X86_FLAG_VM) && cpl == 0 && !core->long_mode) {
        iret_to_v86(core, &frame, r.rip, r.selector, flags);
        return;
    }
    if (cpl <= (cpu->rflags & X86_FLAG_IOPL) >> 12)
        mask |= X86_FLAG_IF;
    if (cpl == 0)
        mask |= X86_FLAG_IOPL | X86_FLAG_VIF | X86_FLAG_VIP;
    return_protected(core, &frame, &r);
    set_flags(core, flags, mask, opsize);
    x86_mode_changed(core);
}

void x86_iret(struct x86_core *core, unsigned opsize)
{
    if (x86_protected(&core->cpu))
        iret_protected(core, opsize);
    else
        iret_real(core, opsize);
    core->cpu.nmi_blocked = false;
}
