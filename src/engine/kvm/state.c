/* state.c - the architectural state between struct x86_cpu and KVM's several structures.
 *
 * The local APIC and its base belong to the machine's chips (chips.c), not to the CPU state. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

/* Offsets in the standard form of the XSAVE area. Intel SDM 1, 13.4. */
#define XSAVE_FCW 0u
#define XSAVE_XMM 160u
#define XSAVE_MXCSR 24u
#define XSAVE_BV 512u
#define XSAVE_YMM_HIGH 576u

#define MSR_TSC 0x10u
#define MTRR_RANGES 8u

/* MSRs of struct x86_cpu. One that KVM does not have may be left out when it holds its reset value. */
#define CPU_MSR(number, field, reset) { number, offsetof(struct x86_cpu, field), reset }
static const struct {
    uint32_t msr;
    size_t offset;
    uint64_t reset;
} msrs[] = {
    CPU_MSR(0xc0000081, star, 0),
    CPU_MSR(0xc0000082, lstar, 0),
    CPU_MSR(0xc0000083, cstar, 0),
    CPU_MSR(0xc0000084, sfmask, 0),
    CPU_MSR(0xc0000102, kernel_gs_base, 0),
    CPU_MSR(0x174, sysenter_cs, 0),
    CPU_MSR(0x175, sysenter_esp, 0),
    CPU_MSR(0x176, sysenter_eip, 0),
    CPU_MSR(0xc0000103, tsc_aux, 0),
    CPU_MSR(0x277, pat, 0x0007040600070406),
    CPU_MSR(0x1a0, misc_enable, 1),
    CPU_MSR(0xda0, xss, 0),
    CPU_MSR(0x48, spec_ctrl, 0),
    CPU_MSR(0x17a, mcg_status, 0),
    CPU_MSR(0x3b, tsc_adjust, 0),
    CPU_MSR(0x2ff, mtrr.def_type, 0),
};

/* All of them: those, and the MTRRs. One bit each in engine_vcpu.lacks_msr. */
#define STATE_MSRS (sizeof msrs / sizeof msrs[0] + 11 + 2 * MTRR_RANGES)
_Static_assert(STATE_MSRS <= 64, "a bit for each");

static const uint32_t fixed_mtrr[11] = { 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f };

struct one_msr {
    struct kvm_msrs head;
    struct kvm_msr_entry entry;
};

int kvm_msr_read(struct engine_vcpu *vcpu, uint32_t msr, uint64_t *ret_value)
{
    struct one_msr one = { .head = { .nmsrs = 1 }, .entry = { .index = msr } };
    int count = ioctl(vcpu->fd, KVM_GET_MSRS, &one);
    if (count != 1)
        return count < 0 ? -errno : -EINVAL;
    *ret_value = one.entry.data;
    return 0;
}

int kvm_msr_write(struct engine_vcpu *vcpu, uint32_t msr, uint64_t value)
{
    struct one_msr one = { .head = { .nmsrs = 1 }, .entry = { .index = msr, .data = value } };
    int count = ioctl(vcpu->fd, KVM_SET_MSRS, &one);
    if (count != 1)
        return count < 0 ? -errno : -EINVAL;
    return 0;
}

static int failed(struct error *error, struct engine_vcpu *vcpu, const char *what)
{
    int code = errno;
    return error_set(error, code, "%s of vCPU %u: %s", what, vcpu->index, strerror(code));
}

/* ---- segments and general registers ---- */

static struct x86_segment segment_from(const struct kvm_segment *from)
{
    struct x86_segment to = { .selector = from->selector, .limit = from->limit, .base = from->base };
    to.attr = from->type | (uint32_t)from->s << 4 | (uint32_t)from->dpl << X86_ATTR_DPL_SHIFT | (uint32_t)from->present << 7 |
              (uint32_t)from->avl << 12 | (uint32_t)from->l << 13 | (uint32_t)from->db << 14 | (uint32_t)from->g << 15 |
              (from->unusable ? X86_ATTR_UNUSABLE : 0);
    return to;
}

static struct kvm_segment segment_to(const struct x86_segment *from)
{
    return (struct kvm_segment){
        .base = from->base,
        .limit = from->limit,
        .selector = from->selector,
        .type = from->attr & X86_ATTR_TYPE,
        .s = from->attr >> 4 & 1,
        .dpl = from->attr >> X86_ATTR_DPL_SHIFT & 3,
        .present = from->attr >> 7 & 1,
        .avl = from->attr >> 12 & 1,
        .l = from->attr >> 13 & 1,
        .db = from->attr >> 14 & 1,
        .g = from->attr >> 15 & 1,
        .unusable = (from->attr & X86_ATTR_UNUSABLE) || !(from->attr & X86_ATTR_P),
    };
}

/* The registers in the order of enum x86_reg. */
#define REGISTERS(regs)                                                                                      \
    { &(regs)->rax, &(regs)->rcx, &(regs)->rdx, &(regs)->rbx, &(regs)->rsp, &(regs)->rbp, &(regs)->rsi,      \
      &(regs)->rdi, &(regs)->r8,  &(regs)->r9,  &(regs)->r10, &(regs)->r11, &(regs)->r12, &(regs)->r13,      \
      &(regs)->r14, &(regs)->r15 }

static int get_registers(struct engine_vcpu *vcpu, struct x86_cpu *cpu, struct error *error)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return failed(error, vcpu, "cannot read the registers");
    __u64 *const reg[] = REGISTERS(&regs);
    for (unsigned i = 0; i < 16; i++)
        cpu->reg[i] = *reg[i];
    cpu->reg[X86_RIP] = regs.rip;
    cpu->rflags = regs.rflags;
    const struct kvm_segment *const segment[X86_SEGS] = { &sregs.es, &sregs.cs, &sregs.ss, &sregs.ds, &sregs.fs, &sregs.gs };
    for (unsigned i = 0; i < X86_SEGS; i++)
        cpu->seg[i] = segment_from(segment[i]);
    cpu->ldtr = segment_from(&sregs.ldt);
    cpu->tr = segment_from(&sregs.tr);
    cpu->gdtr = (struct x86_table){ .base = sregs.gdt.base, .limit = sregs.gdt.limit };
    cpu->idtr = (struct x86_table){ .base = sregs.idt.base, .limit = sregs.idt.limit };
    cpu->cr0 = sregs.cr0;
    cpu->cr2 = sregs.cr2;
    cpu->cr3 = sregs.cr3;
    cpu->cr4 = sregs.cr4;
    cpu->cr8 = sregs.cr8;
    cpu->efer = sregs.efer;
    return 0;
}

static int set_system_registers(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, struct error *error)
{
    struct kvm_sregs sregs;
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0) /* for the APIC base */
        return failed(error, vcpu, "cannot read the registers");
    struct kvm_segment *const segment[X86_SEGS] = { &sregs.es, &sregs.cs, &sregs.ss, &sregs.ds, &sregs.fs, &sregs.gs };
    for (unsigned i = 0; i < X86_SEGS; i++)
        *segment[i] = segment_to(&cpu->seg[i]);
    sregs.ldt = segment_to(&cpu->ldtr);
    sregs.tr = segment_to(&cpu->tr);
    sregs.gdt = (struct kvm_dtable){ .base = cpu->gdtr.base, .limit = cpu->gdtr.limit };
    sregs.idt = (struct kvm_dtable){ .base = cpu->idtr.base, .limit = cpu->idtr.limit };
    sregs.cr0 = cpu->cr0;
    sregs.cr2 = cpu->cr2;
    sregs.cr3 = cpu->cr3;
    sregs.cr4 = cpu->cr4;
    sregs.cr8 = cpu->cr8;
    sregs.efer = cpu->efer;
    memset(sregs.interrupt_bitmap, 0, sizeof sregs.interrupt_bitmap); /* it goes with the events */
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
        return failed(error, vcpu, "KVM does not take the control registers");
    return 0;
}

static int set_registers(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, struct error *error)
{
    struct kvm_regs regs = { .rip = cpu->reg[X86_RIP], .rflags = cpu->rflags };
    __u64 *const reg[] = REGISTERS(&regs);
    for (unsigned i = 0; i < 16; i++)
        *reg[i] = cpu->reg[i];
    if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return failed(error, vcpu, "KVM does not take the registers");
    return 0;
}

/* ---- x87, SSE, AVX ---- */

static int get_vectors(struct engine_vcpu *vcpu, struct x86_cpu *cpu, struct error *error)
{
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs;
    if (ioctl(vcpu->fd, KVM_GET_XSAVE, &xsave) < 0 || ioctl(vcpu->fd, KVM_GET_XCRS, &xcrs) < 0)
        return failed(error, vcpu, "cannot read the vector registers");
    const uint8_t *area = (const uint8_t *)xsave.region;
    uint64_t present;
    memcpy(&present, area + XSAVE_BV, sizeof present);
    memcpy(cpu->fx, area, sizeof cpu->fx);
    /* A component whose bit is clear is in its initial state, whatever the area holds; MXCSR counts always. */
    if (!(present & X86_XCR0_X87)) {
        const uint16_t initial_fcw = 0x37f;
        memset(cpu->fx, 0, XSAVE_MXCSR);
        memset(cpu->fx + XSAVE_MXCSR + 8, 0, sizeof cpu->fx - XSAVE_MXCSR - 8);
        memcpy(cpu->fx + XSAVE_FCW, &initial_fcw, sizeof initial_fcw);
    }
    for (unsigned i = 0; i < 16; i++) {
        memset(cpu->ymm[i], 0, sizeof cpu->ymm[i]);
        if (present & X86_XCR0_SSE)
            memcpy(cpu->ymm[i], area + XSAVE_XMM + 16 * i, 16);
        if (present & X86_XCR0_AVX)
            memcpy(cpu->ymm[i] + 16, area + XSAVE_YMM_HIGH + 16 * i, 16);
    }
    cpu->xcr0 = X86_XCR0_X87;
    for (unsigned i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
        if (xcrs.xcrs[i].xcr == 0)
            cpu->xcr0 = xcrs.xcrs[i].value;
    return 0;
}

static int set_vectors(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, struct error *error)
{
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = cpu->xcr0 } } };
    uint8_t *area = (uint8_t *)xsave.region;
    uint64_t present;
    /* Components that struct x86_cpu does not have, where KVM gives the guest some, stay as they are. */
    if (ioctl(vcpu->fd, KVM_GET_XSAVE, &xsave) < 0)
        return failed(error, vcpu, "cannot read the vector registers");
    memcpy(&present, area + XSAVE_BV, sizeof present);
    present = (present & ~(uint64_t)X86_XCR0_AVX) | X86_XCR0_X87 | X86_XCR0_SSE;
    memcpy(area, cpu->fx, sizeof cpu->fx);
    for (unsigned i = 0; i < 16; i++) {
        static const uint8_t zero[16];
        memcpy(area + XSAVE_XMM + 16 * i, cpu->ymm[i], 16);
        memcpy(area + XSAVE_YMM_HIGH + 16 * i, cpu->ymm[i] + 16, 16);
        if (memcmp(cpu->ymm[i] + 16, zero, 16) != 0)
            present |= X86_XCR0_AVX; /* only where needed: the host may lack it */
    }
    memcpy(area + XSAVE_BV, &present, sizeof present);
    if (ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) < 0)
        return failed(error, vcpu, "KVM does not take XCR0");
    if (ioctl(vcpu->fd, KVM_SET_XSAVE, &xsave) < 0)
        return failed(error, vcpu, "KVM does not take the vector registers");
    return 0;
}

/* ---- MSRs and time ---- */

static uint64_t *msr_field(struct x86_cpu *cpu, unsigned i)
{
    return (uint64_t *)(void *)((char *)cpu + msrs[i].offset);
}

static uint64_t host_tsc(void)
{
    return __builtin_ia32_rdtsc();
}

/* The offset of the guest's TSC to ours: exactly where KVM tells it, else by reading both. */
static struct kvm_device_attr tsc_offset_attr(uint64_t *offset)
{
    return (struct kvm_device_attr){ .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset };
}

static uint64_t get_tsc_offset(struct engine_vcpu *vcpu)
{
    uint64_t offset = 0, tsc = 0;
    struct kvm_device_attr attr = tsc_offset_attr(&offset);
    if (ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr) == 0)
        return offset;
    (void)kvm_msr_read(vcpu, MSR_TSC, &tsc);
    return tsc - host_tsc();
}

static int set_tsc_offset(struct engine_vcpu *vcpu, uint64_t offset)
{
    struct kvm_device_attr attr = tsc_offset_attr(&offset);
    if (ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr) == 0)
        return 0;
    return kvm_msr_write(vcpu, MSR_TSC, host_tsc() + offset);
}

/* The i-th MSR of the state: its number, and where its value lies. NULL past the last. */
static uint64_t *state_msr(struct x86_cpu *cpu, unsigned i, uint32_t *ret_msr)
{
    const unsigned named = sizeof msrs / sizeof msrs[0];
    if (i < named) {
        *ret_msr = msrs[i].msr;
        return msr_field(cpu, i);
    }
    i -= named;
    if (i < 11) {
        *ret_msr = fixed_mtrr[i];
        return &cpu->mtrr.fixed[i];
    }
    i -= 11;
    if (i >= 2 * MTRR_RANGES)
        return NULL;
    *ret_msr = 0x200 + i;
    return i % 2 ? &cpu->mtrr.mask[i / 2] : &cpu->mtrr.base[i / 2];
}

/* What an MSR that KVM does not have holds. */
static uint64_t reset_value(unsigned i)
{
    return i < sizeof msrs / sizeof msrs[0] ? msrs[i].reset : 0;
}

/* All MSRs that KVM has in one call: it stops at the first that it does not have, so those are found out
 * once and left out from then on. */
static void get_msrs(struct engine_vcpu *vcpu, struct x86_cpu *cpu)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry[STATE_MSRS];
    } batch = { .head = { 0 } };
    uint64_t *to[STATE_MSRS], *field;
    uint32_t msr;
    for (unsigned i = 0; (field = state_msr(cpu, i, &msr)); i++) {
        *field = reset_value(i);
        if (vcpu->lacks_msr >> i & 1)
            continue;
        uint64_t value;
        if (!vcpu->msrs_known && kvm_msr_read(vcpu, msr, &value) < 0) {
            vcpu->lacks_msr |= UINT64_C(1) << i;
            continue;
        }
        to[batch.head.nmsrs] = field;
        batch.entry[batch.head.nmsrs++].index = msr;
    }
    vcpu->msrs_known = true;
    int count = ioctl(vcpu->fd, KVM_GET_MSRS, &batch);
    for (int i = 0; i < count; i++)
        *to[i] = batch.entry[i].data;
    cpu->tsc_offset = get_tsc_offset(vcpu);
}

/* Writes the MSRs that differ from `before`, or all when that is NULL. MTRRs have no effect on RAM, which is
 * write-back always: a KVM that refuses one loses nothing. */
static int set_msrs(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, const struct x86_cpu *before, struct error *error)
{
    struct x86_cpu now = *cpu, was;
    uint64_t *field;
    uint32_t msr;
    if (before)
        was = *before;
    for (unsigned i = 0; (field = state_msr(&now, i, &msr)); i++) {
        if (before && *state_msr(&was, i, &msr) == *field)
            continue;
        if (kvm_msr_write(vcpu, msr, *field) < 0 && *field != reset_value(i) && i < sizeof msrs / sizeof msrs[0])
            return error_set(error, EINVAL, "KVM here does not take value 0x%llx of MSR 0x%x for vCPU %u",
                             (unsigned long long)*field, msr, vcpu->index);
    }
    if (before && before->tsc_offset == cpu->tsc_offset)
        return 0;
    return set_tsc_offset(vcpu, cpu->tsc_offset) < 0 ? failed(error, vcpu, "KVM does not take the TSC") : 0;
}

/* ---- what is between instructions ---- */

static struct x86_event event_from(const struct kvm_vcpu_events *events)
{
    if (events->exception.injected)
        return (struct x86_event){ .valid = true, .has_error = events->exception.has_error_code,
                                   .vector = events->exception.nr, .error_code = events->exception.error_code };
    if (events->interrupt.injected)
        return (struct x86_event){ .valid = true, .vector = events->interrupt.nr, .soft = events->interrupt.soft,
                                   .external = !events->interrupt.soft };
    return (struct x86_event){ .valid = false };
}

static uint8_t activity_from(uint32_t mp_state)
{
    switch (mp_state) {
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED: return X86_WAIT_FOR_SIPI;
    case KVM_MP_STATE_HALTED: return X86_HALTED;
    default: return X86_RUNNING;
    }
}

static int get_between(struct engine_vcpu *vcpu, struct x86_cpu *cpu, struct error *error)
{
    struct kvm_vcpu_events events;
    struct kvm_mp_state activity;
    struct kvm_debugregs debug;
    if (ioctl(vcpu->fd, KVM_GET_MP_STATE, &activity) < 0 || ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0 ||
        ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug) < 0)
        return failed(error, vcpu, "cannot read the events");
    for (unsigned i = 0; i < 4; i++)
        cpu->dr[i] = debug.db[i];
    cpu->dr[6] = debug.dr6;
    cpu->dr[7] = debug.dr7;
    cpu->activity = vcpu->shutdown ? (uint8_t)X86_SHUTDOWN : activity_from(activity.mp_state);
    cpu->sti_shadow = (events.interrupt.shadow & KVM_X86_SHADOW_INT_STI) != 0;
    cpu->mov_ss_shadow = (events.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS) != 0;
    cpu->nmi_blocked = events.nmi.masked;
    cpu->nmi_pending = events.nmi.pending || events.nmi.injected;
    cpu->event = event_from(&events);
    return 0;
}

static int set_between(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, struct error *error)
{
    static const uint32_t activity_to[] = {
        [X86_RUNNING] = KVM_MP_STATE_RUNNABLE,
        [X86_HALTED] = KVM_MP_STATE_HALTED,
        [X86_WAIT_FOR_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
        [X86_SHUTDOWN] = KVM_MP_STATE_RUNNABLE,
    };
    struct kvm_mp_state activity = { .mp_state = activity_to[cpu->activity] };
    struct kvm_debugregs debug = { .db = { cpu->dr[0], cpu->dr[1], cpu->dr[2], cpu->dr[3] }, .dr6 = cpu->dr[6], .dr7 = cpu->dr[7] };
    struct kvm_vcpu_events events = {
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        .nmi = { .pending = cpu->nmi_pending, .masked = cpu->nmi_blocked },
    };
    events.interrupt.shadow = (uint8_t)((cpu->sti_shadow ? KVM_X86_SHADOW_INT_STI : 0) |
                                        (cpu->mov_ss_shadow ? KVM_X86_SHADOW_INT_MOV_SS : 0));
    if (cpu->event.valid && (cpu->event.external || cpu->event.soft)) {
        events.interrupt.injected = 1;
        events.interrupt.nr = cpu->event.vector;
        events.interrupt.soft = cpu->event.soft;
    } else if (cpu->event.valid) {
        events.exception.injected = 1;
        events.exception.nr = cpu->event.vector;
        events.exception.has_error_code = cpu->event.has_error;
        events.exception.error_code = cpu->event.error_code;
    }
    vcpu->shutdown = cpu->activity == X86_SHUTDOWN;
    if (ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug) < 0)
        return failed(error, vcpu, "KVM does not take the debug registers");
    if (ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
        return failed(error, vcpu, "KVM does not take the pending events");
    if (ioctl(vcpu->fd, KVM_SET_MP_STATE, &activity) < 0)
        return failed(error, vcpu, "KVM does not take the activity");
    return 0;
}

int kvm_get_state(struct engine_vcpu *vcpu, struct x86_cpu *ret_cpu, struct error *error)
{
    struct x86_cpu cpu;
    memset(&cpu, 0, sizeof cpu);
    int result = get_registers(vcpu, &cpu, error);
    if (result == 0)
        result = get_vectors(vcpu, &cpu, error);
    if (result == 0)
        result = get_between(vcpu, &cpu, error);
    if (result < 0)
        return result;
    get_msrs(vcpu, &cpu);
    *ret_cpu = cpu;
    return 0;
}

int kvm_get_light_state(struct engine_vcpu *vcpu, struct x86_cpu *cpu, struct error *error)
{
    int result = get_registers(vcpu, cpu, error);
    return result == 0 ? get_between(vcpu, cpu, error) : result;
}

/* What need not be written again. KVM pays for control registers by forgetting shadow page tables. */
static bool same_system(const struct x86_cpu *a, const struct x86_cpu *b)
{
    return memcmp(a->seg, b->seg, sizeof a->seg) == 0 && memcmp(&a->ldtr, &b->ldtr, sizeof a->ldtr) == 0 &&
           memcmp(&a->tr, &b->tr, sizeof a->tr) == 0 && memcmp(&a->gdtr, &b->gdtr, sizeof a->gdtr) == 0 &&
           memcmp(&a->idtr, &b->idtr, sizeof a->idtr) == 0 && a->cr0 == b->cr0 && a->cr2 == b->cr2 && a->cr3 == b->cr3 &&
           a->cr4 == b->cr4 && a->cr8 == b->cr8 && a->efer == b->efer;
}

static bool same_vectors(const struct x86_cpu *a, const struct x86_cpu *b)
{
    return a->xcr0 == b->xcr0 && memcmp(a->fx, b->fx, sizeof a->fx) == 0 && memcmp(a->ymm, b->ymm, sizeof a->ymm) == 0;
}

static bool same_between(const struct x86_cpu *a, const struct x86_cpu *b)
{
    return a->activity == b->activity && a->sti_shadow == b->sti_shadow && a->mov_ss_shadow == b->mov_ss_shadow &&
           a->nmi_blocked == b->nmi_blocked && a->nmi_pending == b->nmi_pending &&
           memcmp(&a->event, &b->event, sizeof a->event) == 0 && memcmp(a->dr, b->dr, sizeof a->dr) == 0;
}

/* Control registers first: what KVM accepts as XCR0 and MSR values depends on them; activity last. */
int kvm_set_state_changed(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, const struct x86_cpu *before,
                          struct error *error)
{
    int result = before && same_system(cpu, before) ? 0 : set_system_registers(vcpu, cpu, error);
    if (result == 0)
        result = set_registers(vcpu, cpu, error);
    if (result == 0 && !(before && same_vectors(cpu, before)))
        result = set_vectors(vcpu, cpu, error);
    if (result == 0)
        result = set_msrs(vcpu, cpu, before, error);
    if (result == 0 && !(before && same_between(cpu, before)))
        result = set_between(vcpu, cpu, error);
    return result;
}

int kvm_set_state(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, struct error *error)
{
    return kvm_set_state_changed(vcpu, cpu, NULL, error);
}
