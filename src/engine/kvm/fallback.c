/* fallback.c - one instruction that KVM refuses, executed by the interpreter's code on the same RAM.
 *
 * A KVM without hardware under it emulates kernel code, but not every instruction (LOCK CMPXCHG16B, for
 * one). The state moves into a struct x86_core, the instruction runs with all that it raises, and the state
 * moves back. LOCK operations work on the guest's RAM itself with the host's LOCK, so they are atomic
 * against vCPUs that run under KVM; where the host has no such instruction (across a page), all others
 * are kept out of KVM_RUN meanwhile.
 *
 * KVM is not told of the stores made here. That matters only for page tables that it shadows, whose entries
 * kernels write with plain stores, which are not refused. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "isa/x86/core.h"
#include "isa/x86/decode.h"
#include "isa/x86/exception.h"
#include "isa/x86/mem.h"
#include "isa/x86/paging.h"

struct kvm_fallback {
    struct x86_core core;
    struct x86_cpu before; /* KVM's state when the instruction began */
    struct x86_decoder decoder;
    struct x86_insn insn;
    struct engine_vcpu *vcpu;
    bool exclusive;
};

/* ---- the world behind the core ---- */

static bool env_page(void *owner, uint64_t gpa, struct x86_page *ret_page)
{
    struct kvm_fallback *fallback = owner;
    const struct ram_region *region = ram_find(fallback->vcpu->vm->config.ram, gpa);
    if (!region)
        return false;
    ret_page->host = region->host + (gpa - region->gpa);
    ret_page->flags = region->flags + (gpa - region->gpa) / RAM_PAGE_SIZE;
    ret_page->read_only = false;
    return true;
}

static uint64_t env_mmio_read(void *owner, uint64_t gpa, unsigned size)
{
    struct kvm_fallback *fallback = owner;
    const struct engine_config *config = &fallback->vcpu->vm->config;
    return config->machine_ops->mmio_read(config->machine, fallback->vcpu->index, gpa, size);
}

static void env_mmio_write(void *owner, uint64_t gpa, unsigned size, uint64_t value)
{
    struct kvm_fallback *fallback = owner;
    const struct engine_config *config = &fallback->vcpu->vm->config;
    config->machine_ops->mmio_write(config->machine, fallback->vcpu->index, gpa, size, value);
}

static uint32_t env_port_in(void *owner, uint16_t port, unsigned size)
{
    struct kvm_fallback *fallback = owner;
    const struct engine_config *config = &fallback->vcpu->vm->config;
    return config->machine_ops->port_in(config->machine, fallback->vcpu->index, port, size);
}

static void env_port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
    struct kvm_fallback *fallback = owner;
    const struct engine_config *config = &fallback->vcpu->vm->config;
    config->machine_ops->port_out(config->machine, fallback->vcpu->index, port, size, value);
}

/* MSRs that struct x86_cpu does not hold: KVM's (the local APIC's, kvmclock's), then the machine's. */
static int env_msr_read(void *owner, uint32_t msr, uint64_t *ret_value)
{
    struct kvm_fallback *fallback = owner;
    const struct engine_config *config = &fallback->vcpu->vm->config;
    if (kvm_msr_read(fallback->vcpu, msr, ret_value) == 0)
        return 0;
    return config->machine_ops->msr_read(config->machine, fallback->vcpu->index, msr, ret_value);
}

static int env_msr_write(void *owner, uint32_t msr, uint64_t value)
{
    struct kvm_fallback *fallback = owner;
    const struct engine_config *config = &fallback->vcpu->vm->config;
    if (kvm_msr_write(fallback->vcpu, msr, value) == 0)
        return 0;
    return config->machine_ops->msr_write(config->machine, fallback->vcpu->index, msr, value);
}

/* The state that moves to and fro holds CR8. */
static uint8_t env_tpr_read(void *owner)
{
    struct kvm_fallback *fallback = owner;
    return (uint8_t)fallback->core.cpu.cr8;
}

static void env_tpr_write(void *owner, uint8_t cr8)
{
    struct kvm_fallback *fallback = owner;
    fallback->core.cpu.cr8 = cr8;
}

static void env_code_written(void *owner, uint64_t gpa, unsigned length)
{
    (void)owner, (void)gpa, (void)length; /* nothing decoded is kept */
}

static void env_mapping_changed(void *owner, enum x86_flush scope, uint64_t linear)
{
    (void)owner, (void)scope, (void)linear; /* the core lives for one instruction */
}

static void env_exclusive_begin(void *owner)
{
    struct kvm_fallback *fallback = owner;
    struct engine_vm *vm = fallback->vcpu->vm;
    /* Those in KVM_RUN hold the lock for reading. One that enters just now may be poked too early, but
     * pthread's lock prefers the writer, and the poke's immediate_exit stays until the vCPU has left. */
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->vcpu[i] && vm->vcpu[i] != fallback->vcpu)
            kvm_vcpu_poke(vm->vcpu[i]);
    pthread_rwlock_wrlock(&vm->running);
    fallback->exclusive = true;
}

static void env_exclusive_end(void *owner)
{
    struct kvm_fallback *fallback = owner;
    fallback->exclusive = false;
    pthread_rwlock_unlock(&fallback->vcpu->vm->running);
}

static uint64_t env_hypercall(void *owner, uint64_t number, const uint64_t argument[4])
{
    struct kvm_fallback *fallback = owner;
    const struct engine_config *config = &fallback->vcpu->vm->config;
    return config->machine_ops->hypercall(config->machine, fallback->vcpu->index, number, argument);
}

static const struct x86_env_ops env_ops = {
    .page = env_page,
    .mmio_read = env_mmio_read,
    .mmio_write = env_mmio_write,
    .port_in = env_port_in,
    .port_out = env_port_out,
    .msr_read = env_msr_read,
    .msr_write = env_msr_write,
    .tpr_read = env_tpr_read,
    .tpr_write = env_tpr_write,
    .code_written = env_code_written,
    .mapping_changed = env_mapping_changed,
    .exclusive_begin = env_exclusive_begin,
    .exclusive_end = env_exclusive_end,
    .hypercall = env_hypercall,
};

/* ---- one instruction ---- */

static int fallback_new(struct engine_vcpu *vcpu, struct error *error)
{
    struct kvm_fallback *fallback = aligned_alloc(64, (sizeof *fallback + 63) & ~(size_t)63);
    if (!fallback)
        return error_set(error, ENOMEM, "no memory to emulate an instruction");
    memset(fallback, 0, sizeof *fallback);
    int result = x86_decoder_init(&fallback->decoder, &vcpu->vm->model, error);
    if (result < 0) {
        free(fallback);
        return result;
    }
    fallback->vcpu = vcpu;
    fallback->core.env = &env_ops;
    fallback->core.owner = fallback;
    fallback->core.cpuid = &vcpu->vm->model;
    fallback->core.apic_id = vcpu->index;
    memset(&fallback->core.cpu, 0, sizeof fallback->core.cpu);
    x86_core_attach(&fallback->core);
    vcpu->fallback = fallback;
    return 0;
}

void kvm_fallback_free(struct kvm_fallback *fallback)
{
    if (!fallback)
        return;
    x86_decoder_destroy(&fallback->decoder);
    free(fallback);
}

/* Makes the core see the state that was just read. Other vCPUs, and this one under KVM, have changed page
 * tables since the last time: nothing is remembered. */
static void refresh(struct kvm_fallback *fallback)
{
    struct x86_core *core = &fallback->core;
    fallback->before = core->cpu;
    x86_tlb_flush(core, false);
    x86_mode_changed(core);
    core->pending_dr6 = 0;
}

/* Fetches and decodes the instruction at RIP; escapes with what is raised. */
static void decode(struct kvm_fallback *fallback)
{
    struct x86_core *core = &fallback->core;
    static const struct x86_insn fetching = { .length = 0 };
    uint64_t linear = core->cpu.reg[X86_RIP];
    uint8_t bytes[X86_INSN_MAX];
    uint32_t code = 0;
    core->insn = &fetching;
    if (core->mode != X86_CODE64)
        linear = (uint32_t)(core->cpu.seg[X86_CS].base + linear);
    unsigned have = x86_fetch(core, linear, bytes, sizeof bytes, &code);
    unsigned length = have ? x86_decode(&fallback->decoder, core->mode, bytes, have, &fallback->insn) : 0;
    if (length == 0)
        x86_raise_pf(core, linear + have, code);
}

/* What kernels meet by the thousand needs no vector registers and no MSRs: CLAC and STAC, CMPXCHG8B and 16B,
 * POPCNT. (One-byte opcodes of the same number are as modest.) */
static bool is_light(const struct x86_insn *insn)
{
    return (insn->opcode == 0x01 && (insn->modrm == 0xca || insn->modrm == 0xcb)) ||
           (insn->opcode == 0xc7 && (insn->modrm >> 3 & 7) == 1) || insn->opcode == 0xb8;
}

static void execute(struct kvm_fallback *fallback)
{
    struct x86_core *core = &fallback->core;
    const bool traced = core->cpu.rflags & X86_FLAG_TF;
    core->insn = &fallback->insn;
    core->insn_end = core->insn + 1;
    core->cpu.reg[X86_RIP] += fallback->insn.length;
    core->cpu.sti_shadow = core->cpu.mov_ss_shadow = false;
    fallback->insn.exec(core, core->insn);
    if (core->debug_armed || traced)
        x86_after_insn_debug(core, traced);
}

/* Runs one of the two above; true when it raised something, which is then delivered. */
static bool guarded(struct kvm_fallback *fallback, void (*step)(struct kvm_fallback *fallback))
{
    struct x86_core *core = &fallback->core;
    jmp_buf escape;
    core->escape = &escape;
    if (_setjmp(escape)) {
        if (fallback->exclusive)
            env_exclusive_end(fallback);
        x86_fault_rewind(core);
        x86_deliver_raised(core);
        core->escape = NULL;
        return true;
    }
    step(fallback);
    core->escape = NULL;
    return false;
}

int kvm_fallback_step(struct engine_vcpu *vcpu, struct error *error)
{
    int result = vcpu->fallback ? 0 : fallback_new(vcpu, error);
    if (result < 0)
        return result;
    struct kvm_fallback *fallback = vcpu->fallback;
    struct x86_cpu *cpu = &fallback->core.cpu;
    result = kvm_get_light_state(vcpu, cpu, error);
    if (result < 0)
        return result;
    refresh(fallback);
    if (!guarded(fallback, decode)) {
        if (!is_light(&fallback->insn)) {
            result = kvm_get_state(vcpu, cpu, error);
            if (result < 0)
                return result;
            refresh(fallback);
        }
        guarded(fallback, execute);
    }
    return kvm_set_state_changed(vcpu, cpu, &fallback->before, error);
}
