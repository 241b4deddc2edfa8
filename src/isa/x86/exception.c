/* exception.c - delivery of exceptions and interrupts.
 *
 * One event is delivered by deliver(), which may itself raise: the frame is written to memory first and
 * registers change last, so that a fault leaves the state as it was. deliver_guarded catches such a fault
 * and applies the double-fault rules (Intel SDM 3A, table 6-5). */
#include "isa/x86/exception.h"

#include "isa/x86/frame.h"
#include "isa/x86/mem.h"
#include "isa/x86/paging.h"
#include "isa/x86/segment.h"
#include "isa/x86/task.h"

/* Flags that entering a handler clears, besides IF through an interrupt gate. */
#define FLAGS_CLEARED (X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_VM)

/* One event on its way to a handler. */
struct delivery {
    uint8_t vector;
    bool has_error;
    bool soft;      /* INT n, INT3, INTO: the gate's DPL counts and EXT is 0 */
    bool exception; /* counts for the double-fault rules */
    uint32_t error;
    uint64_t flags; /* to push */
};

/* The EXT bit of an error code: the program did not ask for this event. */
static unsigned ext_of(const struct delivery *e)
{
    return e->soft ? 0 : 1;
}

/* An error code that names the event's IDT entry. */
static uint32_t idt_error(const struct delivery *e)
{
    return e->vector * 8u + 2u + ext_of(e);
}

static uint32_t selector_error(uint16_t selector, const struct delivery *e)
{
    return (selector & 0xfffcu) | ext_of(e);
}

/* Real-address mode: three words on the stack, CS:IP from the table. No error codes, no checks but limits. */
static void deliver_real(struct x86_core *core, const struct delivery *e)
{
    struct x86_cpu *cpu = &core->cpu;
    struct x86_frame frame;
    if (e->vector * 4u + 3u > cpu->idtr.limit)
        x86_raise_gp(core, idt_error(e));
    uint32_t target = (uint32_t)x86_load_system(core, cpu->idtr.base + e->vector * 4u, 4);
    x86_frame_current(core, 0, &frame);
    x86_frame_push(core, &frame, 2, e->flags);
    x86_frame_push(core, &frame, 2, cpu->seg[X86_CS].selector);
    x86_frame_push(core, &frame, 2, cpu->reg[X86_RIP]);
    cpu->reg[X86_RSP] = frame.sp;
    x86_segment_real(core, X86_CS, (uint16_t)(target >> 16));
    cpu->reg[X86_RIP] = target & 0xffff;
    cpu->rflags &= ~(uint64_t)(X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_AC | X86_FLAG_RF);
}

/* The checks on a gate that all of protected and long mode share. */
static void check_gate(struct x86_core *core, const struct delivery *e, const struct x86_descriptor *gate,
                       uint32_t types)
{
    if (x86_desc_s(gate) || !(types >> x86_desc_type(gate) & 1))
        x86_raise_gp(core, idt_error(e));
    if (e->soft && x86_desc_dpl(gate) < x86_cpl(&core->cpu))
        x86_raise_gp(core, idt_error(e));
    if (!x86_desc_present(gate))
        x86_raise(core, X86_NP, idt_error(e));
}

/* The handler's code segment; returns the privilege level that it runs at. */
static unsigned check_handler(struct x86_core *core, const struct delivery *e, uint16_t selector,
                              struct x86_descriptor *ret_code)
{
    unsigned cpl = x86_cpl(&core->cpu);
    if ((selector & 0xfffc) == 0)
        x86_raise_gp(core, ext_of(e));
    x86_desc_fetch(core, selector, X86_GP, ext_of(e), ret_code);
    if (!x86_desc_code(ret_code) || x86_desc_dpl(ret_code) > cpl)
        x86_raise_gp(core, selector_error(selector, e));
    if (core->long_mode && (!x86_desc_l(ret_code) || x86_desc_db(ret_code)))
        x86_raise_gp(core, selector_error(selector, e));
    if (!x86_desc_present(ret_code))
        x86_raise(core, X86_NP, selector_error(selector, e));
    unsigned new_cpl = x86_desc_conforming(ret_code) ? cpl : x86_desc_dpl(ret_code);
    if (x86_v86(&core->cpu) && new_cpl != 0)
        x86_raise_gp(core, selector_error(selector, e));
    return new_cpl;
}

/* Registers that every entry through a gate sets last. */
static void enter_handler(struct x86_core *core, const struct x86_descriptor *code, uint16_t selector, unsigned cpl,
                          uint64_t rip, bool interrupt_gate)
{
    struct x86_cpu *cpu = &core->cpu;
    cpu->seg[X86_CS] = x86_desc_segment(code, (uint16_t)((selector & 0xfffc) | cpl));
    cpu->reg[X86_RIP] = rip;
    cpu->rflags &= ~(uint64_t)FLAGS_CLEARED;
    if (interrupt_gate)
        cpu->rflags &= ~(uint64_t)X86_FLAG_IF;
}

/* Long mode: the frame is the same whatever the levels, on a stack aligned to 16 bytes that is the current one, the
 * TSS's for the new level, or the one of the gate's IST. SDM 3A, 6.14. */
static void deliver_long(struct x86_core *core, const struct delivery *e)
{
    struct x86_cpu *cpu = &core->cpu;
    struct x86_descriptor gate, code;
    struct x86_frame frame;
    unsigned cpl = x86_cpl(cpu);
    if (e->vector * 16u + 15u > cpu->idtr.limit)
        x86_raise_gp(core, idt_error(e));
    gate.address = cpu->idtr.base + e->vector * 16u;
    gate.low = x86_load_system(core, gate.address, 8);
    gate.high = x86_load_system(core, gate.address + 8, 8);
    check_gate(core, e, &gate, 1u << X86_TYPE_INT | 1u << X86_TYPE_TRAP);
    uint16_t selector = x86_gate_selector(&gate);
    unsigned new_cpl = check_handler(core, e, selector, &code);
    unsigned ist = gate.low >> 32 & 7;

    frame = (struct x86_frame){
        .sp = cpu->reg[X86_RSP], .mask = UINT64_MAX, .user = new_cpl == 3, .error = ext_of(e)};
    if (ist)
        frame.sp = x86_tss_stack64(core, ist + 3, ext_of(e));
    else if (new_cpl != cpl)
        frame.sp = x86_tss_stack64(core, new_cpl, ext_of(e));
    frame.sp &= ~UINT64_C(15);
    if (!x86_canonical(x86_gate_offset(&gate)))
        x86_raise_gp(core, ext_of(e));
    x86_desc_accessed(core, &code);
    x86_frame_push(core, &frame, 8, cpu->seg[X86_SS].selector);
    x86_frame_push(core, &frame, 8, cpu->reg[X86_RSP]);
    x86_frame_push(core, &frame, 8, e->flags);
    x86_frame_push(core, &frame, 8, cpu->seg[X86_CS].selector);
    x86_frame_push(core, &frame, 8, cpu->reg[X86_RIP]);
    if (e->has_error)
        x86_frame_push(core, &frame, 8, e->error);

    cpu->reg[X86_RSP] = frame.sp;
    if (new_cpl != cpl)
        x86_segment_null(core, X86_SS, (uint16_t)new_cpl, new_cpl);
    enter_handler(core, &code, selector, new_cpl, x86_gate_offset(&gate), x86_desc_type(&gate) == X86_TYPE_INT);
}

/* Takes the stack for an inner privilege level from the TSS. */
static void inner_stack(struct x86_core *core, const struct delivery *e, unsigned cpl, struct x86_frame *ret_frame)
{
    struct x86_segment ss;
    uint16_t selector;
    uint32_t esp;
    x86_tss_stack(core, cpl, ext_of(e), &selector, &esp);
    x86_stack_segment_check(core, selector, cpl, X86_TS, ext_of(e), &ss);
    x86_frame_new(&ss, esp, selector_error(selector, e), ret_frame);
}

/* Frames of 16- and 32-bit gates: from virtual-8086 mode with the data segments, from an outer level with SS:SP. */
static void push_legacy_frame(struct x86_core *core, const struct delivery *e, struct x86_frame *frame, unsigned size,
                              bool inner)
{
    static const uint8_t v86_order[] = {X86_GS, X86_FS, X86_DS, X86_ES};
    const struct x86_cpu *cpu = &core->cpu;
    if (x86_v86(cpu)) {
        for (unsigned i = 0; i < sizeof(v86_order); i++)
            x86_frame_push(core, frame, size, cpu->seg[v86_order[i]].selector);
    }
    if (inner) {
        x86_frame_push(core, frame, size, cpu->seg[X86_SS].selector);
        x86_frame_push(core, frame, size, cpu->reg[X86_RSP]);
    }
    x86_frame_push(core, frame, size, e->flags);
    x86_frame_push(core, frame, size, cpu->seg[X86_CS].selector);
    x86_frame_push(core, frame, size, cpu->reg[X86_RIP]);
    if (e->has_error)
        x86_frame_push(core, frame, size, e->error);
}

/* Through a task gate: the error code goes onto the new task's stack. */
static void deliver_task(struct x86_core *core, const struct delivery *e, const struct x86_descriptor *gate)
{
    struct x86_frame frame;
    x86_task_gate(core, gate, X86_TASK_GATE, ext_of(e), 0);
    if (!e->has_error)
        return;
    x86_frame_current(core, ext_of(e), &frame);
    x86_frame_push(core, &frame, core->cpu.tr.attr & 8 ? 4 : 2, e->error);
    core->cpu.reg[X86_RSP] = frame.sp;
}

/* Protected mode outside long mode. SDM 3A, 6.12. */
static void deliver_legacy(struct x86_core *core, const struct delivery *e)
{
    struct x86_cpu *cpu = &core->cpu;
    struct x86_descriptor gate = {0}, code;
    struct x86_frame frame;
    unsigned cpl = x86_cpl(cpu);
    if (e->vector * 8u + 7u > cpu->idtr.limit)
        x86_raise_gp(core, idt_error(e));
    gate.address = cpu->idtr.base + e->vector * 8u;
    gate.low = x86_load_system(core, gate.address, 8);
    check_gate(core, e, &gate,
               1u << X86_TYPE_TASK_GATE | 1u << X86_TYPE_INT16 | 1u << X86_TYPE_TRAP16 | 1u << X86_TYPE_INT |
                   1u << X86_TYPE_TRAP);
    if (x86_desc_type(&gate) == X86_TYPE_TASK_GATE) {
        deliver_task(core, e, &gate);
        return;
    }
    uint16_t selector = x86_gate_selector(&gate);
    unsigned new_cpl = check_handler(core, e, selector, &code);
    unsigned size = x86_desc_type(&gate) & 8 ? 4 : 2;
    uint64_t rip = x86_gate_offset(&gate) & (size == 4 ? UINT32_MAX : UINT16_MAX);
    bool inner = new_cpl != cpl, from_v86 = x86_v86(cpu);
    if (inner)
        inner_stack(core, e, new_cpl, &frame);
    else
        x86_frame_current(core, ext_of(e), &frame);
    x86_desc_accessed(core, &code);
    push_legacy_frame(core, e, &frame, size, inner);
    if (rip > x86_desc_limit(&code))
        x86_raise_gp(core, ext_of(e));

    if (inner)
        cpu->seg[X86_SS] = frame.ss;
    cpu->reg[X86_RSP] = frame.sp;
    if (from_v86) {
        static const uint8_t nulled[] = {X86_ES, X86_DS, X86_FS, X86_GS};
        for (unsigned i = 0; i < sizeof(nulled); i++)
            x86_segment_null(core, (enum x86_seg)nulled[i], 0, 0);
    }
    enter_handler(core, &code, selector, new_cpl, rip, !(x86_desc_type(&gate) & 1));
}

static void deliver(struct x86_core *core, const struct delivery *e)
{
    if (!(core->cpu.cr0 & X86_CR0_PE))
        deliver_real(core, e);
    else if (core->long_mode)
        deliver_long(core, e);
    else
        deliver_legacy(core, e);
    x86_mode_changed(core);
}

/* What an exception does to CR2 and the debug registers before its handler is entered. */
static void latch(struct x86_core *core, uint8_t vector)
{
    struct x86_cpu *cpu = &core->cpu;
    if (vector == X86_PF)
        cpu->cr2 = core->raised_cr2;
    if (vector == X86_DB) {
        cpu->dr[6] = (cpu->dr[6] & ~UINT64_C(15)) | core->raised_dr6;
        cpu->dr[7] &= ~UINT64_C(0x2000); /* general detect */
        core->raised_dr6 = 0;
    }
}

/* SDM 3A, table 6-5. Whatever is not named there is benign. */
enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum fault_class class_of(uint8_t vector)
{
    switch (vector) {
    case X86_DE:
    case X86_TS:
    case X86_NP:
    case X86_SSF:
    case X86_GP: return CONTRIBUTORY;
    case X86_PF: return PAGE_FAULT;
    case X86_DF: return DOUBLE_FAULT;
    default: return BENIGN;
    }
}

/* What comes of a second fault while the first event is being delivered: its own vector, #DF, or -1. */
static int combine(enum fault_class first, uint8_t second)
{
    enum fault_class class = class_of(second);
    if (first == DOUBLE_FAULT)
        return class == BENIGN ? second : -1;
    if ((first == CONTRIBUTORY && class == CONTRIBUTORY) ||
        (first == PAGE_FAULT && (class == CONTRIBUTORY || class == PAGE_FAULT)))
        return X86_DF;
    return second;
}

/* Delivers with an escape of its own; faults on the way lead to their own handlers, #DF or shutdown. */
static void deliver_guarded(struct x86_core *core, const struct delivery *event)
{
    jmp_buf *outer = core->escape, here;
    volatile enum fault_class first = event->exception ? class_of(event->vector) : BENIGN;
    struct delivery e = *event;
    core->escape = &here;
    core->cpu.sti_shadow = core->cpu.mov_ss_shadow = false;
    if (setjmp(here)) {
        int vector = combine(first, core->raised.vector);
        latch(core, core->raised.vector);
        if (vector < 0) {
            core->cpu.activity = X86_SHUTDOWN;
            core->escape = outer;
            return;
        }
        first = class_of((uint8_t)vector);
        e = (struct delivery){.vector = (uint8_t)vector,
                              .has_error = vector == X86_DF || core->raised.has_error,
                              .error = vector == X86_DF ? 0 : core->raised.error_code,
                              .flags = core->cpu.rflags | (vector == X86_DF ? 0 : X86_FLAG_RF)};
    }
    deliver(core, &e);
    core->raised.valid = false;
    core->escape = outer;
}

void x86_deliver_raised(struct x86_core *core)
{
    uint8_t vector = core->raised.vector;
    struct delivery e = {.vector = vector,
                         .has_error = core->raised.has_error,
                         .error = core->raised.error_code,
                         .exception = true,
                         .flags = core->cpu.rflags};
    if (vector != X86_DB && vector != X86_DF)
        e.flags |= X86_FLAG_RF;
    if (!core->cpu.mov_ss_shadow)
        core->pending_dr6 = 0;
    latch(core, vector);
    deliver_guarded(core, &e);
}

/* An external interrupt is benign for the double-fault rules even when it has an exception's vector. */
void x86_deliver_interrupt(struct x86_core *core, uint8_t vector)
{
    struct delivery e = {.vector = vector, .flags = core->cpu.rflags};
    core->cpu.activity = X86_RUNNING;
    deliver_guarded(core, &e);
}

void x86_deliver_nmi(struct x86_core *core)
{
    struct delivery e = {.vector = X86_NMI, .flags = core->cpu.rflags};
    core->cpu.nmi_pending = false;
    core->cpu.nmi_blocked = true;
    core->cpu.activity = X86_RUNNING;
    deliver_guarded(core, &e);
}

void x86_deliver_pending(struct x86_core *core)
{
    struct x86_event event = core->cpu.event;
    core->cpu.event = (struct x86_event){0};
    if (!event.valid || event.soft) /* a software interrupt's instruction runs again */
        return;
    struct delivery e = {.vector = event.vector,
                         .has_error = event.has_error,
                         .error = event.error_code,
                         .exception = !event.external,
                         .flags = core->cpu.rflags};
    core->cpu.activity = X86_RUNNING;
    deliver_guarded(core, &e);
}

void x86_software_interrupt(struct x86_core *core, uint8_t vector, bool is_int3_or_into, bool is_int1)
{
    struct delivery e = {.vector = vector, .flags = core->cpu.rflags, .soft = !is_int1};
    core->step_done = true;
    if (x86_v86(&core->cpu) && !is_int3_or_into && !is_int1 &&
        (core->cpu.rflags & X86_FLAG_IOPL) != X86_FLAG_IOPL)
        x86_raise_gp(core, 0);
    deliver(core, &e);
}

/* Raises #DB as a trap or an instruction-breakpoint fault at the current RIP. */
static void deliver_debug(struct x86_core *core, uint64_t dr6)
{
    struct delivery e = {.vector = X86_DB, .flags = core->cpu.rflags, .exception = true};
    core->raised_dr6 = dr6;
    latch(core, X86_DB);
    deliver_guarded(core, &e);
}

bool x86_after_insn_debug(struct x86_core *core, bool traced)
{
    uint64_t dr6 = core->pending_dr6;
    if (core->rf_loaded)
        core->rf_loaded = false;
    else
        core->cpu.rflags &= ~(uint64_t)X86_FLAG_RF;
    if (core->cpu.mov_ss_shadow) /* held back until after the next instruction; a single step is lost */
        return false;
    core->pending_dr6 = 0;
    if (traced && !core->step_done)
        dr6 |= X86_DR6_BS;
    core->step_done = false;
    if (dr6)
        deliver_debug(core, dr6);
    else
        x86_mode_changed(core);
    return dr6 != 0;
}

bool x86_before_insn_debug(struct x86_core *core)
{
    const struct x86_cpu *cpu = &core->cpu;
    uint64_t rip = cpu->reg[X86_RIP] + (core->mode == X86_CODE64 ? 0 : cpu->seg[X86_CS].base), hits = 0;
    core->rf_loaded = core->step_done = false;
    if ((cpu->rflags & X86_FLAG_RF) || !(cpu->dr[7] & 0xff) || cpu->mov_ss_shadow)
        return false;
    if (core->mode != X86_CODE64)
        rip = (uint32_t)rip;
    for (unsigned i = 0; i < 4; i++) {
        if ((cpu->dr[7] >> (2 * i) & 3) && (cpu->dr[7] >> (16 + 4 * i) & 15) == 0 && cpu->dr[i] == rip)
            hits |= UINT64_C(1) << i;
    }
    if (hits)
        deliver_debug(core, hits);
    return hits != 0;
}
