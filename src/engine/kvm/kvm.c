/* kvm.c - the engine over /dev/kvm: its ops, the VM and its memory. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kvm/probe.h"

/* Three pages that KVM wants on Intel hosts, in the hole below 4 GiB, and one for its identity map. */
#define KVM_TSS_ADDRESS 0xfffbd000ul
#define KVM_IDENTITY_ADDRESS 0xfffbc000ull

static int map_ram(struct engine_vm *vm, struct error *error)
{
    const struct ram *ram = vm->config.ram;
    for (unsigned i = 0; i < ram->regions; i++) {
        struct kvm_userspace_memory_region region = {
            .slot = i,
            .flags = 0, /* until someone asks which pages were written, KVM need not watch them */
            .guest_phys_addr = ram->region[i].gpa,
            .memory_size = ram->region[i].size,
            .userspace_addr = (uintptr_t)ram->region[i].host,
        };
        if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
            return error_set(error, errno, "KVM does not take RAM at 0x%llx: %s", region.guest_phys_addr, strerror(errno));
    }
    return 0;
}

static void kvm_vm_destroy(struct engine_vm *vm)
{
    if (!vm)
        return;
    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->kvm >= 0)
        close(vm->kvm);
    pthread_rwlock_destroy(&vm->running);
    free(vm->cpuid);
    free(vm);
}

/* Unknown MSRs are the machine's to answer, as under every engine. */
static void forward_unknown_msrs(struct engine_vm *vm)
{
    struct kvm_enable_cap cap = { .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { KVM_MSR_EXIT_REASON_UNKNOWN } };
    (void)ioctl(vm->fd, KVM_ENABLE_CAP, &cap); /* an older KVM raises #GP by itself */
}

static int init_vm(struct engine_vm *vm, struct error *error)
{
    uint64_t identity = KVM_IDENTITY_ADDRESS;
    vm->kvm = kvm_open(error);
    if (vm->kvm < 0)
        return vm->kvm;
    do
        vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
    while (vm->fd < 0 && errno == EINTR);
    if (vm->fd < 0)
        return error_set(error, errno, "KVM cannot make a VM: %s", strerror(errno));
    int most = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (vm->config.vcpus > KVM_VCPUS_MAX || (most > 0 && vm->config.vcpus > (unsigned)most))
        return error_set(error, EINVAL, "KVM here has at most %d vCPUs, not %u", most, vm->config.vcpus);
    (void)ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (ioctl(vm->fd, KVM_SET_TSS_ADDR, KVM_TSS_ADDRESS) < 0)
        return error_set(error, errno, "KVM_SET_TSS_ADDR: %s", strerror(errno));
    int result = kvm_chips_create(vm, error);
    if (result == 0)
        result = map_ram(vm, error);
    if (result == 0)
        result = kvm_model_init(vm, error);
    if (result == 0)
        forward_unknown_msrs(vm);
    return result;
}

static int kvm_vm_create(const struct engine_config *config, struct engine_vm **ret_vm, struct error *error)
{
    struct engine_vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return error_set(error, ENOMEM, "no memory for a KVM virtual machine");
    vm->config = *config;
    vm->kvm = vm->fd = -1;
    /* The writer is rare and must not wait for readers that come back for ever. */
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&vm->running, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    int result = init_vm(vm, error);
    if (result < 0) {
        kvm_vm_destroy(vm);
        return result;
    }
    *ret_vm = vm;
    return 0;
}

/* Fetches the kernel's bitmap of a region into RAM's flags. The first call turns logging on and must
 * take every page as written, for nobody has watched until now. */
static int sync_region(struct engine_vm *vm, unsigned slot)
{
    const struct ram_region *region = &vm->config.ram->region[slot];
    const uint64_t pages = region->size / RAM_PAGE_SIZE;
    if (!vm->dirty_log[slot]) {
        struct kvm_userspace_memory_region logged = { slot, KVM_MEM_LOG_DIRTY_PAGES, region->gpa, region->size,
                                                      (uintptr_t)region->host };
        if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &logged) < 0)
            return -errno;
        vm->dirty_log[slot] = true;
        for (uint64_t page = 0; page < pages; page++)
            __atomic_fetch_or(&region->flags[page], RAM_PAGE_DIRTY, __ATOMIC_RELAXED);
        return 0;
    }
    uint64_t *bitmap = calloc((pages + 63) / 64, sizeof *bitmap);
    if (!bitmap)
        return -ENOMEM;
    struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bitmap };
    int result = ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log) < 0 ? -errno : 0;
    for (uint64_t page = 0; result == 0 && page < pages; page++)
        if (bitmap[page / 64] >> page % 64 & 1)
            __atomic_fetch_or(&region->flags[page], RAM_PAGE_DIRTY, __ATOMIC_RELAXED);
    free(bitmap);
    return result;
}

static int kvm_dirty_sync(struct engine_vm *vm)
{
    int result = 0;
    for (unsigned i = 0; result == 0 && i < vm->config.ram->regions; i++)
        result = sync_region(vm, i);
    return result;
}

/* Where ring 0 is emulated one instruction at a time, any other engine is faster. */
static int kvm_recommend(struct error *error)
{
    unsigned ns;
    if (!engine_kvm_is_software(&ns))
        return 0;
    return error_set(error, ENOTSUP, "KVM here emulates kernel code in software (%u ns an instruction)", ns);
}

/* The kernel's local APIC finds pending interrupts by itself. */
static void kvm_interrupt(struct engine_vcpu *vcpu)
{
    (void)vcpu;
}

static void kvm_stats(struct engine_vm *vm, FILE *out)
{
    fprintf(out, "kvm.exits %llu\nkvm.port %llu\nkvm.mmio %llu\nkvm.refused_instructions %llu\n",
            (unsigned long long)vm->counters.exits, (unsigned long long)vm->counters.port,
            (unsigned long long)vm->counters.mmio, (unsigned long long)vm->counters.refused);
}

const struct engine_ops engine_kvm = {
    .name = "kvm",
    .summary = "the kernel's virtual machines (/dev/kvm)",
    .irqchip = true,
    .probe = kvm_probe,
    .recommend = kvm_recommend,
    .vm_create = kvm_vm_create,
    .vm_destroy = kvm_vm_destroy,
    .vcpu_create = kvm_vcpu_create,
    .vcpu_destroy = kvm_vcpu_destroy,
    .run = kvm_vcpu_run,
    .kick = kvm_vcpu_kick,
    .interrupt = kvm_interrupt,
    .nmi = kvm_vcpu_nmi,
    .get_state = kvm_get_state,
    .set_state = kvm_set_state,
    .dirty_sync = kvm_dirty_sync,
    .irq_line = kvm_irq_line,
    .msi = kvm_msi,
    .irqchip_save = kvm_chips_save,
    .irqchip_load = kvm_chips_load,
    .stats = kvm_stats,
};
