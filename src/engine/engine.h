/* engine.h - the seam between the machine and whatever executes its vCPUs.
 *
 * An engine executes guest code until the machine is needed. What the guest asks for in passing (port
 * and MMIO access, MSRs of devices, interrupt acknowledge) are calls back through struct
 * engine_machine_ops on the vCPU's thread, so that an access in the middle of an instruction needs no
 * resumption; what ends a run (halt, shutdown, kick) is an exit.
 *
 * Threads: vm_create, map, vcpu_create before any run. run, get_state, set_state: the vCPU's own thread
 * (get/set also from another while the vCPU is not in run). kick, interrupt, irq_line, msi: any thread. */
#ifndef VENEER_ENGINE_ENGINE_H
#define VENEER_ENGINE_ENGINE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "isa/x86/cpuid.h"
#include "isa/x86/state.h"
#include "memory/ram.h"

/* Engines may send this signal to a vCPU's thread and install a handler for it: the thread must not block it. */
#define ENGINE_KICK_SIGNAL SIGUSR1

struct engine_vm;
struct engine_vcpu;

enum engine_exit_reason {
    ENGINE_EXIT_HALT,     /* the vCPU halted (HLT); wait until it has an interrupt, then run again */
    ENGINE_EXIT_KICK,     /* engine_kick was called */
    ENGINE_EXIT_SHUTDOWN, /* triple fault */
    ENGINE_EXIT_ERROR     /* the engine cannot go on; text says why */
};

struct engine_exit {
    enum engine_exit_reason reason;
    char text[256];
};

/* What an engine asks of the machine; on the vCPU's thread; `vcpu` is its index. */
struct engine_machine_ops {
    uint64_t (*mmio_read)(void *machine, unsigned vcpu, uint64_t gpa, unsigned size);
    void (*mmio_write)(void *machine, unsigned vcpu, uint64_t gpa, unsigned size, uint64_t value);
    uint32_t (*port_in)(void *machine, unsigned vcpu, uint16_t port, unsigned size);
    void (*port_out)(void *machine, unsigned vcpu, uint16_t port, unsigned size, uint32_t value);
    int (*msr_read)(void *machine, unsigned vcpu, uint32_t msr, uint64_t *ret_value); /* 0, or -1: #GP */
    int (*msr_write)(void *machine, unsigned vcpu, uint32_t msr, uint64_t value);
    uint8_t (*tpr_read)(void *machine, unsigned vcpu); /* CR8 */
    void (*tpr_write)(void *machine, unsigned vcpu, uint8_t cr8);
    /* Takes the highest deliverable external interrupt (APIC or 8259); -1 when there is none. */
    int (*interrupt_ack)(void *machine, unsigned vcpu);
    /* True when interrupt_ack would give one. */
    bool (*interrupt_pending)(void *machine, unsigned vcpu);
    uint64_t (*hypercall)(void *machine, unsigned vcpu, uint64_t number, const uint64_t argument[4]);
    /* The guest set the vCPU's TSC: it is now the host's plus this. Not from an engine with irqchip. May be NULL. */
    void (*tsc_moved)(void *machine, unsigned vcpu, uint64_t tsc_offset);
};

#define ENGINE_CODE_CACHE ((size_t)64 << 20) /* for each vCPU, since each has code of its own */
#define ENGINE_CODE_CACHE_MIN ((size_t)1 << 20) /* for each vCPU; a smaller code_cache is made this much */

struct engine_config {
    struct ram *ram; /* outlives the VM */
    unsigned vcpus;
    const struct x86_cpuid *cpuid; /* outlives the VM; vCPU's APIC ID is its index */
    uint64_t tsc_hz;
    size_t code_cache; /* bytes for decoded and translated code, of all vCPUs together; 0: ENGINE_CODE_CACHE each */
    bool check; /* only for an engine with `can_check`: compare all it does with the interpreter */
    const struct engine_machine_ops *machine_ops;
    void *machine;
};

struct engine_ops {
    const char *name;
    const char *summary; /* one line for `veneer engines` */
    /* The engine has local APICs, I/O APIC, 8259s and PIT of its own (in the kernel); the machine makes
     * none, interrupt lines go through irq_line and msi, and HALT exits do not occur. */
    bool irqchip;
    bool can_check;

    /* 0 when the engine can run here; else a negative errno and why not. */
    int (*probe)(struct error *error);
    /* Of an engine that can run: 0 when it is worth choosing unasked, else a negative errno and one line that
     * says why not ("KVM here is emulated in software: ..."). May take some milliseconds. NULL: always 0. */
    int (*recommend)(struct error *error);
    int (*vm_create)(const struct engine_config *config, struct engine_vm **ret_vm, struct error *error);
    void (*vm_destroy)(struct engine_vm *vm);

    int (*vcpu_create)(struct engine_vm *vm, unsigned index, struct engine_vcpu **ret_vcpu, struct error *error);
    void (*vcpu_destroy)(struct engine_vcpu *vcpu);
    /* Runs until an exit. Returns 0 with *ret_exit set. */
    int (*run)(struct engine_vcpu *vcpu, struct engine_exit *ret_exit);
    /* run returns soon with ENGINE_EXIT_KICK; remembered when the vCPU is not running. */
    void (*kick)(struct engine_vcpu *vcpu);
    /* interrupt_pending may have become true: the vCPU asks interrupt_ack as soon as it can take one. */
    void (*interrupt)(struct engine_vcpu *vcpu);
    void (*nmi)(struct engine_vcpu *vcpu);
    /* The whole architectural state; not while the vCPU runs. 0 or a negative errno. */
    int (*get_state)(struct engine_vcpu *vcpu, struct x86_cpu *ret_cpu, struct error *error);
    int (*set_state)(struct engine_vcpu *vcpu, const struct x86_cpu *cpu, struct error *error);

    /* Brings the dirty flags of RAM up to date (ram_dirty_fetch reads them). NULL: they always are. */
    int (*dirty_sync)(struct engine_vm *vm);

    /* Only with irqchip. */
    int (*irq_line)(struct engine_vm *vm, unsigned gsi, int level);
    int (*msi)(struct engine_vm *vm, uint64_t address, uint32_t data);
    void (*irqchip_save)(struct engine_vm *vm, struct stream *stream);
    int (*irqchip_load)(struct engine_vm *vm, struct stream *stream, struct error *error);

    /* Prints what the engine did, "name value" a line. */
    void (*stats)(struct engine_vm *vm, FILE *out);
};

extern const struct engine_ops engine_interpret;
extern const struct engine_ops engine_translate;
extern const struct engine_ops engine_kvm;

/* All engines, best first, NULL-terminated (select.c). The last one runs everywhere. */
extern const struct engine_ops *const engine_table[];

/* The engine of that name, or NULL. */
const struct engine_ops *engine_find(const char *name);

/* The best engine here; *ret_note gets one line for the user when a usable one was passed over ("KVM here
 * is emulated in software: ..."), else "". Never NULL: interpret works everywhere. */
const struct engine_ops *engine_choose(char *ret_note, size_t note_size);

#endif
