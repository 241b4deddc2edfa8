/* vcpu.c - a vCPU: its descriptor, its run loop, and how another thread makes it stop. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* A signal whose handler does nothing: that it arrives ends KVM_RUN. It comes after immediate_exit was
 * set, so a vCPU that is just about to enter leaves at once as well. */
#define KICK_SIGNAL ENGINE_KICK_SIGNAL

static void kick_handler(int signal)
{
    (void)signal;
}

static void install_kick_handler(void)
{
    struct sigaction action = { .sa_handler = kick_handler };
    sigemptyset(&action.sa_mask);
    sigaction(KICK_SIGNAL, &action, NULL);
}

int kvm_vcpu_create(struct engine_vm *vm, unsigned index, struct engine_vcpu **ret_vcpu, struct error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_kick_handler);
    if (index >= vm->config.vcpus)
        return error_set(error, EINVAL, "vCPU %u of a VM of %u", index, vm->config.vcpus);
    struct engine_vcpu *vcpu = calloc(1, sizeof *vcpu);
    if (!vcpu)
        return error_set(error, ENOMEM, "no memory for vCPU %u", index);
    vcpu->vm = vm;
    vcpu->index = index;
    vcpu->run = MAP_FAILED;
    pthread_mutex_init(&vcpu->lock, NULL);
    vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)index);
    int size = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    int result = 0;
    if (vcpu->fd < 0 || size < (int)sizeof(struct kvm_run)) {
        result = error_set(error, errno ? errno : EIO, "KVM cannot make vCPU %u: %s", index, strerror(errno));
    } else {
        vcpu->run_size = (size_t)size;
        vcpu->run = mmap(NULL, vcpu->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
        if (vcpu->run == MAP_FAILED)
            result = error_set(error, errno, "cannot map vCPU %u of KVM: %s", index, strerror(errno));
        else
            result = kvm_model_apply(vcpu, error);
    }
    if (result < 0) {
        kvm_vcpu_destroy(vcpu);
        return result;
    }
    vm->vcpu[index] = vcpu;
    *ret_vcpu = vcpu;
    return 0;
}

void kvm_vcpu_destroy(struct engine_vcpu *vcpu)
{
    if (!vcpu)
        return;
    if (vcpu->vm->vcpu[vcpu->index] == vcpu)
        vcpu->vm->vcpu[vcpu->index] = NULL;
    kvm_fallback_free(vcpu->fallback);
    if (vcpu->run != MAP_FAILED)
        munmap(vcpu->run, vcpu->run_size);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    pthread_mutex_destroy(&vcpu->lock);
    free(vcpu);
}

void kvm_vcpu_poke(struct engine_vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (vcpu->in_run && !pthread_equal(vcpu->thread, pthread_self()))
        pthread_kill(vcpu->thread, KICK_SIGNAL);
    pthread_mutex_unlock(&vcpu->lock);
}

void kvm_vcpu_kick(struct engine_vcpu *vcpu)
{
    vcpu->kicked = true;
    kvm_vcpu_poke(vcpu);
}

void kvm_vcpu_nmi(struct engine_vcpu *vcpu)
{
    (void)ioctl(vcpu->fd, KVM_NMI, 0);
}

static void set_in_run(struct engine_vcpu *vcpu, bool in_run)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->in_run = in_run;
    vcpu->thread = pthread_self();
    pthread_mutex_unlock(&vcpu->lock);
}

/* ---- what the guest asked for ---- */

static void serve_port(struct engine_vcpu *vcpu)
{
    const struct engine_config *config = &vcpu->vm->config;
    const struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)vcpu->run + run->io.data_offset;
    const unsigned size = run->io.size;
    vcpu->vm->counters.port++;
    /* `count` is more than one for string instructions; the data lie one after another. */
    for (unsigned i = 0; i < run->io.count; i++, data += size) {
        uint32_t value = 0;
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, size);
            config->machine_ops->port_out(config->machine, vcpu->index, run->io.port, size, value);
        } else {
            value = config->machine_ops->port_in(config->machine, vcpu->index, run->io.port, size);
            memcpy(data, &value, size);
        }
    }
}

/* The machine's devices know accesses of 1, 2, 4 and 8 bytes; KVM may ask for any up to 8. */
static void serve_mmio(struct engine_vcpu *vcpu)
{
    const struct engine_config *config = &vcpu->vm->config;
    uint64_t gpa = vcpu->run->mmio.phys_addr;
    uint8_t *data = vcpu->run->mmio.data;
    vcpu->vm->counters.mmio++;
    for (unsigned left = vcpu->run->mmio.len, size; left > 0; left -= size, gpa += size, data += size) {
        uint64_t value = 0;
        for (size = 8; size > left; size /= 2)
            ;
        if (vcpu->run->mmio.is_write) {
            memcpy(&value, data, size);
            config->machine_ops->mmio_write(config->machine, vcpu->index, gpa, size, value);
        } else {
            value = config->machine_ops->mmio_read(config->machine, vcpu->index, gpa, size);
            memcpy(data, &value, size);
        }
    }
}

static void serve_msr(struct engine_vcpu *vcpu)
{
    const struct engine_config *config = &vcpu->vm->config;
    struct kvm_run *run = vcpu->run;
    uint64_t value = 0;
    int result;
    if (run->exit_reason == KVM_EXIT_X86_WRMSR) {
        result = config->machine_ops->msr_write(config->machine, vcpu->index, run->msr.index, run->msr.data);
    } else {
        result = config->machine_ops->msr_read(config->machine, vcpu->index, run->msr.index, &value);
        run->msr.data = value;
    }
    run->msr.error = result != 0; /* KVM raises #GP(0) */
}

static int end(struct engine_exit *ret_exit, enum engine_exit_reason reason, const char *text)
{
    ret_exit->reason = reason;
    snprintf(ret_exit->text, sizeof ret_exit->text, "%.*s", (int)sizeof ret_exit->text - 1, text);
    return 1;
}

/* KVM could not emulate the instruction at RIP: hand that one to the interpreter's code. */
static int serve_refusal(struct engine_vcpu *vcpu, struct engine_exit *ret_exit)
{
    struct error error = { { 0 } };
    vcpu->vm->counters.refused++;
    if (vcpu->run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
        error_set(&error, EIO, "KVM internal error %u on vCPU %u", vcpu->run->internal.suberror, vcpu->index);
        return end(ret_exit, ENGINE_EXIT_ERROR, error.text);
    }
    if (kvm_fallback_step(vcpu, &error) < 0) {
        error_prefix(&error, "after KVM refused an instruction");
        return end(ret_exit, ENGINE_EXIT_ERROR, error.text);
    }
    return vcpu->shutdown ? end(ret_exit, ENGINE_EXIT_SHUTDOWN, "triple fault") : 0;
}

/* Serves one exit. Returns 1 when the run ends with *ret_exit, 0 to go on. */
static int serve(struct engine_vcpu *vcpu, struct engine_exit *ret_exit)
{
    struct error error;
    vcpu->vm->counters.exits++;
    switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO:
        serve_port(vcpu);
        return 0;
    case KVM_EXIT_MMIO:
        serve_mmio(vcpu);
        return 0;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        serve_msr(vcpu);
        return 0;
    case KVM_EXIT_INTERNAL_ERROR:
        return serve_refusal(vcpu, ret_exit);
    case KVM_EXIT_SHUTDOWN:
        return end(ret_exit, ENGINE_EXIT_SHUTDOWN, "triple fault");
    case KVM_EXIT_HLT:
        return end(ret_exit, ENGINE_EXIT_HALT, "");
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return 0;
    case KVM_EXIT_FAIL_ENTRY:
        error_set(&error, EIO, "KVM could not enter vCPU %u: hardware reason 0x%llx", vcpu->index,
                  (unsigned long long)vcpu->run->fail_entry.hardware_entry_failure_reason);
        return end(ret_exit, ENGINE_EXIT_ERROR, error.text);
    default:
        error_set(&error, EIO, "KVM left vCPU %u for a reason that veneer does not know: %u", vcpu->index,
                  vcpu->run->exit_reason);
        return end(ret_exit, ENGINE_EXIT_ERROR, error.text);
    }
}

/* KVM_RUN was cut short: by a kick, a poke, or (EAGAIN) a change of the vCPU's activity. An I/O exit that
 * was served before has been completed by then, so the state is that of an instruction boundary. */
static int interrupted(struct engine_vcpu *vcpu, int code, struct engine_exit *ret_exit)
{
    struct error error;
    if (code == EINTR || code == EAGAIN) {
        __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        return atomic_exchange(&vcpu->kicked, false) ? end(ret_exit, ENGINE_EXIT_KICK, "") : 0;
    }
    error_set(&error, code, "KVM cannot run vCPU %u: %s", vcpu->index, strerror(code));
    return end(ret_exit, ENGINE_EXIT_ERROR, error.text);
}

int kvm_vcpu_run(struct engine_vcpu *vcpu, struct engine_exit *ret_exit)
{
    int ended = 0;
    if (vcpu->shutdown) {
        end(ret_exit, ENGINE_EXIT_SHUTDOWN, "triple fault");
        return 0;
    }
    set_in_run(vcpu, true);
    while (!ended) {
        pthread_rwlock_rdlock(&vcpu->vm->running);
        int result = ioctl(vcpu->fd, KVM_RUN, 0);
        int code = errno;
        pthread_rwlock_unlock(&vcpu->vm->running);
        ended = result < 0 ? interrupted(vcpu, code, ret_exit) : serve(vcpu, ret_exit);
    }
    set_in_run(vcpu, false);
    return 0;
}
