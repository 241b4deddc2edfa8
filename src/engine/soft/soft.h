/* soft.h - operations that engines in software share; as in struct engine_ops. */
#ifndef VENEER_ENGINE_SOFT_SOFT_H
#define VENEER_ENGINE_SOFT_SOFT_H

#include "engine/engine.h"
#include "engine/soft/tier.h"

/* tier: NULL for the interpreter alone; else it outlives the VM. */
int soft_vm_create(const struct engine_config *config, const struct tier_ops *tier, struct engine_vm **ret_vm,
                   struct error *error);
void soft_vm_destroy(struct engine_vm *vm);
int soft_vcpu_create(struct engine_vm *vm, unsigned index, struct engine_vcpu **ret_vcpu, struct error *error);
void soft_vcpu_destroy(struct engine_vcpu *vcpu);
int soft_run(struct engine_vcpu *vcpu, struct engine_exit *ret_exit);
void soft_kick(struct engine_vcpu *vcpu);
void soft_interrupt(struct engine_vcpu *vcpu);
void soft_nmi(struct engine_vcpu *vcpu);
int soft_get_state(struct engine_vcpu *vcpu, struct x86_cpu *ret_cpu, struct error *error);
int soft_set_state(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, struct error *error);
void soft_stats(struct engine_vm *vm, FILE *out);

/* What is the same in every such engine's struct engine_ops. */
#define SOFT_ENGINE_OPS                                                                                      \
    .irqchip = false, .vm_destroy = soft_vm_destroy, .vcpu_create = soft_vcpu_create,                        \
    .vcpu_destroy = soft_vcpu_destroy, .run = soft_run, .kick = soft_kick, .interrupt = soft_interrupt,      \
    .nmi = soft_nmi, .get_state = soft_get_state, .set_state = soft_set_state, .stats = soft_stats

#endif
