/* vcpu.c - a vCPU's thread: run the engine, wait while halted, obey INIT and start-up IPIs.
 *
 * Waiting: `wake` is a futex of three values. Whoever has news for a vCPU sets it to 1 and, when it was -1, wakes
 * the sleeper. The thread sleeps only by exchanging 0 for -1, so news that came at any time since it last looked makes it
 * look again, and none is lost; an extra look is harmless. The engine alone decides whether a halted
 * processor goes on: it is simply run again.
 *
 * Before it sleeps, a thread looks for news a while where that has paid lately: handing over between threads by
 * futex costs tens of microseconds, as long as many a halt lasts. The time doubles after a halt that was short and
 * goes to zero after a long one, so an idle guest costs nothing. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include "machine/machine_private.h"

void vcpu_wake(struct vcpu *vcpu)
{
    if (atomic_exchange(&vcpu->wake, 1) == -1)
        syscall(SYS_futex, &vcpu->wake, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

#define POLL_FIRST_NS 10000u
#define POLL_MAX_NS 200000u

static void wait_for_news(struct vcpu *vcpu)
{
    const struct clock *clock = &vcpu->machine->clock;
    uint64_t start = clock_now(clock), now = start;
    while (now - start < vcpu->poll_ns && atomic_load_explicit(&vcpu->wake, memory_order_relaxed) == 0) {
        for (unsigned i = 0; i < 16; i++)
            __builtin_ia32_pause();
        now = clock_now(clock);
    }
    int none = 0;
    if (atomic_compare_exchange_strong(&vcpu->wake, &none, -1)) {
        while (atomic_load(&vcpu->wake) == -1)
            syscall(SYS_futex, &vcpu->wake, FUTEX_WAIT_PRIVATE, -1, NULL, NULL, 0);
        now = clock_now(clock);
        if (now - start > POLL_MAX_NS)
            vcpu->poll_ns = 0;
        else if (vcpu->poll_ns < POLL_MAX_NS)
            vcpu->poll_ns = vcpu->poll_ns ? 2 * vcpu->poll_ns : POLL_FIRST_NS;
    }
    atomic_exchange(&vcpu->wake, 0);
}

void machine_lock_deferring(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    machine->defer_wakes = true;
}

void machine_unlock_waking(struct machine *machine)
{
    unsigned wakes = machine->deferred_wakes;
    machine->deferred_wakes = 0;
    machine->defer_wakes = false;
    pthread_mutex_unlock(&machine->lock);
    for (; wakes; wakes &= wakes - 1)
        vcpu_wake(&machine->vcpu[__builtin_ctz(wakes)]);
}

void vcpu_interrupt(void *owner, unsigned index)
{
    struct machine *machine = owner;
    machine->engine->interrupt(machine->vcpu[index].engine);
    if (machine->defer_wakes)
        machine->deferred_wakes |= 1u << index;
    else
        vcpu_wake(&machine->vcpu[index]);
}

void vcpu_nmi(void *owner, unsigned index)
{
    struct machine *machine = owner;
    machine->engine->nmi(machine->vcpu[index].engine);
    vcpu_wake(&machine->vcpu[index]);
}

/* An INIT forgets a start-up IPI that was not obeyed yet. */
void vcpu_init(void *owner, unsigned index)
{
    struct machine *machine = owner;
    struct vcpu *vcpu = &machine->vcpu[index];
    atomic_store(&vcpu->requests, VCPU_REQUEST_INIT);
    machine->engine->kick(vcpu->engine);
    vcpu_wake(vcpu);
}

void vcpu_sipi(void *owner, unsigned index, uint8_t vector)
{
    struct machine *machine = owner;
    struct vcpu *vcpu = &machine->vcpu[index];
    vcpu->sipi_vector = vector;
    atomic_fetch_or(&vcpu->requests, VCPU_REQUEST_SIPI);
    machine->engine->kick(vcpu->engine);
    vcpu_wake(vcpu);
}

uint64_t vcpu_tsc(void *owner, unsigned index)
{
    struct machine *machine = owner;
    return __rdtsc() + atomic_load_explicit(&machine->vcpu[index].tsc_offset, memory_order_relaxed);
}

/* On the vCPU's own thread. A start-up IPI to a processor that does not wait for one is ignored. */
static void obey(struct vcpu *vcpu)
{
    struct machine *machine = vcpu->machine;
    pthread_mutex_lock(&machine->lock);
    unsigned requests = atomic_exchange(&vcpu->requests, 0);
    uint8_t vector = vcpu->sipi_vector;
    pthread_mutex_unlock(&machine->lock);

    bool init = requests & VCPU_REQUEST_INIT;
    bool sipi = (requests & VCPU_REQUEST_SIPI) && (vcpu->wait_for_sipi || (init && vcpu->index != 0));
    if (!init && !sipi)
        return;
    struct x86_cpu cpu;
    struct error error;
    int status = machine->engine->get_state(vcpu->engine, &cpu, &error);
    if (status == 0) {
        if (init)
            x86_cpu_init(&cpu, vcpu->index == 0);
        if (sipi)
            x86_cpu_sipi(&cpu, vector);
        vcpu->wait_for_sipi = cpu.activity == X86_WAIT_FOR_SIPI;
        status = machine->engine->set_state(vcpu->engine, &cpu, &error);
    }
    if (status < 0)
        machine_finish(machine, MACHINE_END_ENGINE, MACHINE_END_ENGINE, "vCPU %u could not be started: %s", vcpu->index,
                       error.text);
}

static void describe_triple_fault(struct vcpu *vcpu)
{
    struct x86_cpu cpu;
    char where[64] = "";
    if (vcpu->machine->engine->get_state(vcpu->engine, &cpu, NULL) == 0)
        snprintf(where, sizeof where, " near 0x%llx", (unsigned long long)cpu.reg[X86_RIP]);
    char text[160];
    snprintf(text, sizeof text, "the guest triple-faulted: vCPU %u shut down%s", vcpu->index, where);
    machine_guest_died(vcpu->machine, MACHINE_END_TRIPLE_FAULT, text);
}

static void run_once(struct vcpu *vcpu)
{
    struct machine *machine = vcpu->machine;
    struct engine_exit exit = {.reason = ENGINE_EXIT_ERROR};
    int status = machine->engine->run(vcpu->engine, &exit);
    if (status < 0) {
        machine_finish(machine, MACHINE_END_ENGINE, MACHINE_END_ENGINE, "the %s engine failed on vCPU %u: %s",
                       machine->engine->name, vcpu->index, strerror(-status));
        return;
    }
    switch (exit.reason) {
    case ENGINE_EXIT_HALT:
        atomic_fetch_add_explicit(&vcpu->halts, 1, memory_order_relaxed);
        wait_for_news(vcpu);
        break;
    case ENGINE_EXIT_KICK:
        break;
    case ENGINE_EXIT_SHUTDOWN:
        describe_triple_fault(vcpu);
        break;
    case ENGINE_EXIT_ERROR:
        machine_finish(machine, MACHINE_END_ENGINE, MACHINE_END_ENGINE, "the %s engine cannot go on with vCPU %u: %s",
                       machine->engine->name, vcpu->index, exit.text);
        break;
    }
}

static void *vcpu_thread(void *argument)
{
    struct vcpu *vcpu = argument;
    struct machine *machine = vcpu->machine;
    while (!atomic_load(&machine->ended)) {
        if (atomic_load(&vcpu->requests))
            obey(vcpu);
        else if (vcpu->wait_for_sipi && !machine->engine->irqchip)
            wait_for_news(vcpu);
        else
            run_once(vcpu);
    }
    return NULL;
}

/* The program's signals are for its main thread; faults, and what engines kick with, stay. */
int vcpu_start(struct vcpu *vcpu, struct error *error)
{
    static const int keep[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, ENGINE_KICK_SIGNAL};
    sigset_t all, old;
    sigfillset(&all);
    for (unsigned i = 0; i < sizeof keep / sizeof keep[0]; i++)
        sigdelset(&all, keep[i]);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int code = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (code != 0)
        return error_set(error, code, "cannot start a thread for vCPU %u: %s", vcpu->index, strerror(code));
    char name[16];
    snprintf(name, sizeof name, "vcpu%u", vcpu->index);
    pthread_setname_np(vcpu->thread, name);
    vcpu->started = true;
    return 0;
}
