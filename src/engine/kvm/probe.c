/* probe.c - whether /dev/kvm can be used, and whether it is a software one. */
#include "engine/kvm/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const struct {
    int extension;
    const char *name;
} needed[] = {
    { KVM_CAP_IRQCHIP, "in-kernel interrupt controllers" },
    { KVM_CAP_PIT2, "an in-kernel timer (PIT2)" },
    { KVM_CAP_USER_MEMORY, "user memory regions" },
    { KVM_CAP_SET_TSS_ADDR, "KVM_SET_TSS_ADDR" },
    { KVM_CAP_EXT_CPUID, "KVM_SET_CPUID2" },
    { KVM_CAP_MP_STATE, "KVM_SET_MP_STATE" },
    { KVM_CAP_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS" },
    { KVM_CAP_DEBUGREGS, "KVM_SET_DEBUGREGS" },
    { KVM_CAP_XSAVE, "KVM_SET_XSAVE" },
    { KVM_CAP_XCRS, "KVM_SET_XCRS" },
    { KVM_CAP_SIGNAL_MSI, "KVM_SIGNAL_MSI" },
    { KVM_CAP_IMMEDIATE_EXIT, "immediate exit" },
    { KVM_CAP_IRQ_ROUTING, "interrupt routing" },
};

int kvm_open(struct error *error)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, errno, errno == EACCES ? "no permission to open /dev/kvm (is the user in group kvm?)"
                                                       : "cannot open /dev/kvm: %s", strerror(errno));
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        close(fd);
        return error_set(error, ENOTSUP, "/dev/kvm has API version %d, not %d", version, KVM_API_VERSION);
    }
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].extension) <= 0) {
            close(fd);
            return error_set(error, ENOTSUP, "this KVM lacks %s", needed[i].name);
        }
    }
    return fd;
}

int kvm_probe(struct error *error)
{
    int fd = kvm_open(error);
    if (fd < 0)
        return fd;
    /* The device may open and yet refuse to make a VM: another hypervisor holds the processor. */
    int vm = ioctl(fd, KVM_CREATE_VM, 0);
    int code = errno;
    if (vm >= 0)
        close(vm);
    close(fd);
    return vm < 0 ? error_set(error, code, "/dev/kvm cannot make a VM: %s", strerror(code)) : 0;
}

/* ---- how fast is ring 0? ---- */

#define SCRATCH_CODE 0x1000u
#define LOOP_INSTRUCTIONS 2u /* dec, jnz */
/* Hardware takes about 1 ns; the emulators that were seen took thousands. */
#define SOFTWARE_NS 100u

struct scratch {
    int kvm, vm, vcpu;
    uint8_t *memory;
    struct kvm_run *run;
    size_t run_size;
};

static void scratch_close(struct scratch *scratch)
{
    if (scratch->run != MAP_FAILED)
        munmap(scratch->run, scratch->run_size);
    if (scratch->memory != MAP_FAILED)
        munmap(scratch->memory, 0x2000);
    const int fds[] = { scratch->vcpu, scratch->vm, scratch->kvm };
    for (unsigned i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* A VM of one page of code: mov ecx, N; 1: dec ecx; jnz 1b; hlt. */
static int scratch_open(struct scratch *scratch)
{
    static const uint8_t code[] = { 0x49, 0x75, 0xfd, 0xf4 };
    *scratch = (struct scratch){ .kvm = -1, .vm = -1, .vcpu = -1, .memory = MAP_FAILED, .run = MAP_FAILED };
    if ((scratch->kvm = kvm_open(NULL)) < 0 || (scratch->vm = ioctl(scratch->kvm, KVM_CREATE_VM, 0)) < 0)
        return -1;
    scratch->memory = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (scratch->memory == MAP_FAILED)
        return -1;
    memcpy(scratch->memory + SCRATCH_CODE, code, sizeof code);
    struct kvm_userspace_memory_region region = { .memory_size = 0x2000,
                                                  .userspace_addr = (uintptr_t)scratch->memory };
    (void)ioctl(scratch->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
    int size = ioctl(scratch->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run) || ioctl(scratch->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ||
        (scratch->vcpu = ioctl(scratch->vm, KVM_CREATE_VCPU, 0)) < 0)
        return -1;
    scratch->run_size = (size_t)size;
    scratch->run = mmap(NULL, scratch->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, scratch->vcpu, 0);
    return scratch->run == MAP_FAILED ? -1 : 0;
}

/* Runs the loop in flat 32-bit ring 0. Returns the nanoseconds it took, or -1. */
static int64_t scratch_time(struct scratch *scratch, uint32_t iterations)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = { .rip = SCRATCH_CODE, .rcx = iterations, .rflags = 2 };
    if (ioctl(scratch->vcpu, KVM_GET_SREGS, &sregs) < 0)
        return -1;
    sregs.cr0 |= 1;
    sregs.cs = (struct kvm_segment){ .selector = 8, .limit = 0xffffffff, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1 };
    struct kvm_segment data = { .selector = 16, .limit = 0xffffffff, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    if (ioctl(scratch->vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(scratch->vcpu, KVM_SET_REGS, &regs) < 0)
        return -1;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int result;
    while ((result = ioctl(scratch->vcpu, KVM_RUN, 0)) < 0 && errno == EINTR)
        ;
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (result < 0 || scratch->run->exit_reason != KVM_EXIT_HLT)
        return -1;
    return (int64_t)(end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec);
}

static pthread_once_t measured = PTHREAD_ONCE_INIT;
static bool software;
static unsigned software_ns;

int64_t kvm_probe_difference(const int64_t *shorter, const int64_t *longer, unsigned count)
{
    int64_t least[2] = { INT64_MAX, INT64_MAX };
    for (unsigned i = 0; i < count; i++) {
        least[0] = shorter[i] < least[0] ? shorter[i] : least[0];
        least[1] = longer[i] < least[1] ? longer[i] : least[1];
    }
    return least[1] > least[0] ? least[1] - least[0] : 0;
}

/* The cost of a run itself (an exit, on a nested host tens of microseconds) must not be taken for the
 * instructions': the difference of a short loop and a longer one is looked at. */
static void measure(void)
{
    enum { RUNS = 4 };
    const uint32_t few = 10, many = 1010;
    int64_t shorter[RUNS], longer[RUNS];
    struct scratch scratch;
    bool ran = scratch_open(&scratch) == 0 && scratch_time(&scratch, few) >= 0; /* the first is slower */
    for (unsigned i = 0; ran && i < RUNS; i++) {
        shorter[i] = scratch_time(&scratch, few);
        longer[i] = scratch_time(&scratch, many);
        ran = shorter[i] >= 0 && longer[i] >= 0;
    }
    if (ran)
        software_ns = (unsigned)(kvm_probe_difference(shorter, longer, RUNS) / ((many - few) * LOOP_INSTRUCTIONS));
    software = software_ns >= SOFTWARE_NS;
    scratch_close(&scratch);
}

bool engine_kvm_is_software(unsigned *ret_ns)
{
    pthread_once(&measured, measure);
    if (ret_ns)
        *ret_ns = software_ns;
    return software;
}
