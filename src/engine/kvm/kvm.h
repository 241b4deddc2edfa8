/* kvm.h - the kvm engine's own structures, shared by its files only.
 *
 * kvm.c     the ops, VM and memory        vcpu.c    create, run, kick
 * state.c   struct x86_cpu <-> KVM        chips.c   interrupt controllers: lines, MSI, save and load
 * cpumodel.c  CPUID                       fallback.c  one instruction in the interpreter's code
 *
 * Locks: `running` of the VM is held for reading around each KVM_RUN, and for writing while an instruction
 * that must be alone is emulated (fallback.c). `lock` of a vCPU guards `in_run` and `thread`. */
#ifndef VENEER_ENGINE_KVM_KVM_H
#define VENEER_ENGINE_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"

#define KVM_VCPUS_MAX 64u

/* What `stats` prints. */
struct kvm_counters {
    _Atomic uint64_t exits, port, mmio, refused;
};

struct kvm_fallback;

struct engine_vcpu {
    struct engine_vm *vm;
    unsigned index;
    int fd;
    struct kvm_run *run; /* shared with the kernel */
    size_t run_size;

    pthread_mutex_t lock;
    bool in_run;      /* thread is between the entry to and the return from engine run */
    pthread_t thread; /* whom kick signals */
    _Atomic bool kicked;
    bool msrs_known;    /* lacks_msr is complete */
    uint64_t lacks_msr; /* MSRs of the state, by number in state.c, that this KVM does not have */
    bool shutdown; /* set_state put the vCPU into shutdown, which KVM has no state for */

    struct kvm_fallback *fallback; /* made when first needed */
};

struct engine_vm {
    struct engine_config config;
    int kvm, fd;
    bool dirty_log[RAM_REGIONS]; /* KVM logs writes to the region */
    pthread_rwlock_t running;
    struct kvm_cpuid2 *cpuid; /* what every vCPU gets but for its APIC ID */
    struct x86_cpuid model;   /* the same, as the fallback's decoder sees it */
    struct engine_vcpu *vcpu[KVM_VCPUS_MAX];
    struct kvm_counters counters;
};

/* cpumodel.c: fills vm->cpuid and vm->model from the machine's CPU model, less what this KVM does not have. */
int kvm_model_init(struct engine_vm *vm, struct error *error);
/* Gives the vCPU its CPUID. */
int kvm_model_apply(struct engine_vcpu *vcpu, struct error *error);

/* vcpu.c */
int kvm_vcpu_create(struct engine_vm *vm, unsigned index, struct engine_vcpu **ret_vcpu, struct error *error);
void kvm_vcpu_destroy(struct engine_vcpu *vcpu);
int kvm_vcpu_run(struct engine_vcpu *vcpu, struct engine_exit *ret_exit);
void kvm_vcpu_kick(struct engine_vcpu *vcpu);
void kvm_vcpu_nmi(struct engine_vcpu *vcpu);
/* Makes the thread leave KVM_RUN, if it is there; it enters again unless it was kicked. */
void kvm_vcpu_poke(struct engine_vcpu *vcpu);

/* state.c */
int kvm_get_state(struct engine_vcpu *vcpu, struct x86_cpu *ret_cpu, struct error *error);
int kvm_set_state(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, struct error *error);
/* Registers, segments, control and debug registers, events; the other fields of *cpu stay. */
int kvm_get_light_state(struct engine_vcpu *vcpu, struct x86_cpu *cpu, struct error *error);
/* set_state of what differs from `before`, which is KVM's state now. */
int kvm_set_state_changed(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, const struct x86_cpu *before,
                          struct error *error);
/* One MSR of this vCPU; 0 or a negative errno (-EINVAL: KVM has none of this number, or refuses the value). */
int kvm_msr_read(struct engine_vcpu *vcpu, uint32_t msr, uint64_t *ret_value);
int kvm_msr_write(struct engine_vcpu *vcpu, uint32_t msr, uint64_t value);

/* chips.c */
int kvm_chips_create(struct engine_vm *vm, struct error *error);
int kvm_irq_line(struct engine_vm *vm, unsigned gsi, int level);
int kvm_msi(struct engine_vm *vm, uint64_t address, uint32_t data);
void kvm_chips_save(struct engine_vm *vm, struct stream *stream);
int kvm_chips_load(struct engine_vm *vm, struct stream *stream, struct error *error);

/* fallback.c: executes the instruction at RIP, with what it raises, on the state that KVM holds.
 * Returns 0, or a negative errno with the reason. */
int kvm_fallback_step(struct engine_vcpu *vcpu, struct error *error);
void kvm_fallback_free(struct kvm_fallback *fallback);

#endif
