/* machine.c - a machine's life: create, run, end, destroy. See machine.h. */
#include "machine/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <x86intrin.h>

#include "device/platform/power.h"
#include "machine/machine_private.h"
#include "machine/plug.h"
#include "machine/tsc.h"

#define MIB (UINT64_C(1) << 20)

void machine_finish(struct machine *machine, enum machine_end end, int status, const char *format, ...)
{
    pthread_mutex_lock(&machine->end_lock);
    bool first = !atomic_load(&machine->ended);
    if (first) {
        va_list list;
        va_start(list, format);
        vsnprintf(machine->result.text, sizeof machine->result.text, format, list);
        va_end(list);
        machine->result.end = end;
        machine->result.status = status;
        atomic_store(&machine->ended, true);
    }
    pthread_mutex_unlock(&machine->end_lock);
    if (!first)
        return;
    for (unsigned i = 0; i < machine->config.vcpus; i++) {
        machine->engine->kick(machine->vcpu[i].engine);
        vcpu_wake(&machine->vcpu[i]);
    }
    console_release(machine);
    loop_stop(machine->loop);
}

void machine_guest_died(struct machine *machine, enum machine_end end, const char *text)
{
    if (machine->panic_text[0])
        machine_finish(machine, MACHINE_END_PANIC, MACHINE_END_PANIC, "the guest panicked: %s", machine->panic_text);
    else
        machine_finish(machine, end, (int)end, "%s", text);
}

void machine_stop(struct machine *machine)
{
    machine_finish(machine, MACHINE_END_STOPPED, MACHINE_END_STOPPED, "the machine was stopped");
}

void machine_power_button(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    power_button(machine->power);
    pthread_mutex_unlock(&machine->lock);
}

bool machine_power_button_heard(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    bool heard = power_button_heard(machine->power);
    pthread_mutex_unlock(&machine->lock);
    return heard;
}

struct loop *machine_loop(struct machine *machine)
{
    return machine->loop;
}

static int check_config(const struct machine_config *config, struct error *error)
{
    if (!config->kernel)
        return error_set(error, EINVAL, "a machine needs a kernel");
    if (config->vcpus < 1 || config->vcpus > MACHINE_VCPUS_MAX)
        return error_set(error, EINVAL, "%u vCPUs: a machine has 1 to %u", config->vcpus, MACHINE_VCPUS_MAX);
    if (config->memory < MACHINE_MEMORY_MIN)
        return error_set(error, EINVAL, "%" PRIu64 " bytes of memory: a machine needs at least 1 MiB", config->memory);
    if (config->memory > BOARD_RAM_MAX)
        return error_set(error, EINVAL, "%" PRIu64 " MiB of memory: a machine has at most %" PRIu64 " MiB",
                         config->memory / MIB, BOARD_RAM_MAX / MIB);
    struct sysinfo host;
    if (sysinfo(&host) == 0) {
        uint64_t have = (uint64_t)(host.totalram + host.totalswap) * host.mem_unit;
        if (config->memory > have)
            return error_set(error, ENOMEM, "no memory for the guest: %" PRIu64 " MiB are asked, the host has %" PRIu64
                             " MiB with its swap", config->memory / MIB, have / MIB);
    }
    return 0;
}

/* All vCPUs' TSCs start at 0 together. */
static void reset_state(struct machine *machine, unsigned index, uint64_t tsc_offset, struct x86_cpu *cpu)
{
    struct vcpu *vcpu = &machine->vcpu[index];
    x86_cpu_reset(cpu, index == 0);
    cpu->tsc_offset = tsc_offset;
    atomic_store(&vcpu->tsc_offset, tsc_offset);
    vcpu->wait_for_sipi = cpu->activity == X86_WAIT_FOR_SIPI;
}

static int create_vcpus(struct machine *machine, struct error *error)
{
    uint64_t tsc_offset = -__rdtsc();
    for (unsigned i = 0; i < machine->config.vcpus; i++) {
        struct vcpu *vcpu = &machine->vcpu[i];
        vcpu->machine = machine;
        vcpu->index = i;
        int status = machine->engine->vcpu_create(machine->vm, i, &vcpu->engine, error);
        if (status < 0)
            return status;
        struct x86_cpu cpu;
        reset_state(machine, i, tsc_offset, &cpu);
        if (i == 0)
            status = board_boot(machine, &cpu, error);
        if (status == 0)
            status = machine->engine->set_state(vcpu->engine, &cpu, error);
        if (status < 0)
            return status;
    }
    return 0;
}

static int build(struct machine *machine, struct error *error)
{
    const struct machine_config *config = &machine->config;
    int status = loop_new(&machine->loop, error);
    if (status < 0)
        return status;
    machine->loop_clock = loop_clock(machine->loop);
    machine->clock = board_clock(machine);
    status = ram_open(&machine->ram, config->memory & ~(uint64_t)(RAM_PAGE_SIZE - 1), BOARD_LOW_RAM_MAX, BOARD_HIGH_RAM_BASE,
                      error);
    if (status < 0)
        return status;
    machine->tsc_hz = tsc_hz();
    x86_cpuid_init(&machine->cpuid, config->cpu_model, config->vcpus, machine->tsc_hz);
    struct engine_config engine = {.ram = &machine->ram, .vcpus = config->vcpus, .cpuid = &machine->cpuid,
                                   .tsc_hz = machine->tsc_hz, .check = config->check, .code_cache = config->code_cache,
                                   .machine_ops = &board_engine_ops, .machine = machine};
    status = machine->engine->vm_create(&engine, &machine->vm, error);
    if (status == 0)
        status = board_create(machine, error);
    if (status == 0)
        status = create_vcpus(machine, error);
    return status;
}

/* Held for less than going to sleep and being woken takes: so whoever finds it taken looks again a while first. */
static void init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

int machine_create(const struct machine_config *config, struct machine **ret_machine, struct error *error)
{
    int status = check_config(config, error);
    if (status < 0)
        return status;
    struct machine *machine = calloc(1, sizeof *machine);
    if (!machine)
        return error_set(error, ENOMEM, "no memory for the machine");
    machine->config = *config;
    machine->engine = config->engine;
    machine->ram.fd = -1;
    init_lock(&machine->lock);
    pthread_mutex_init(&machine->end_lock, NULL);
    pthread_cond_init(&machine->plug_gone, NULL);
    pthread_mutex_init(&machine->console.lock, NULL);
    pthread_cond_init(&machine->console.filled, NULL);
    pthread_cond_init(&machine->console.drained, NULL);
    status = build(machine, error);
    if (status < 0) {
        machine_destroy(machine);
        return status;
    }
    *ret_machine = machine;
    return 0;
}

void machine_run(struct machine *machine, struct machine_result *ret_result)
{
    struct error error;
    plug_started(machine);
    int failed = console_queue_start(machine, &error);
    board_virtio_resume(machine);
    for (unsigned i = 0; failed == 0 && i < machine->config.vcpus; i++)
        failed = vcpu_start(&machine->vcpu[i], &error);
    if (failed < 0)
        machine_finish(machine, MACHINE_END_FAILED, MACHINE_END_FAILED, "%s", error.text);
    int status = loop_run(machine->loop);
    if (status < 0)
        machine_finish(machine, MACHINE_END_FAILED, MACHINE_END_FAILED, "the event loop failed: %s", strerror(-status));
    for (unsigned i = 0; i < machine->config.vcpus; i++)
        if (machine->vcpu[i].started)
            pthread_join(machine->vcpu[i].thread, NULL);
    board_virtio_pause(machine);
    console_queue_end(machine);
    *ret_result = machine->result;
}

void machine_stats(struct machine *machine, FILE *out)
{
    fprintf(out, "board.port_accesses %" PRIu64 "\n", atomic_load(&machine->port_accesses));
    fprintf(out, "board.mmio_accesses %" PRIu64 "\n", atomic_load(&machine->mmio_accesses));
    fprintf(out, "board.msr_accesses %" PRIu64 "\n", atomic_load(&machine->msr_accesses));
    fprintf(out, "board.interrupts %" PRIu64 "\n", atomic_load(&machine->interrupts));
    uint64_t halts = 0;
    for (unsigned i = 0; i < machine->config.vcpus; i++)
        halts += atomic_load(&machine->vcpu[i].halts);
    fprintf(out, "board.halts %" PRIu64 "\n", halts);
    if (machine->engine->stats)
        machine->engine->stats(machine->vm, out);
}

void machine_destroy(struct machine *machine)
{
    if (!machine)
        return;
    for (unsigned i = 0; i < machine->config.vcpus; i++)
        if (machine->vcpu[i].engine)
            machine->engine->vcpu_destroy(machine->vcpu[i].engine);
    board_destroy(machine);
    if (machine->vm)
        machine->engine->vm_destroy(machine->vm);
    if (machine->ram.fd >= 0)
        ram_close(&machine->ram);
    loop_free(machine->loop);
    pthread_mutex_destroy(&machine->lock);
    pthread_mutex_destroy(&machine->end_lock);
    pthread_cond_destroy(&machine->plug_gone);
    pthread_mutex_destroy(&machine->console.lock);
    pthread_cond_destroy(&machine->console.filled);
    pthread_cond_destroy(&machine->console.drained);
    free(machine);
}
