#include "machine/tsc.h"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define MEASURE_NS UINT64_C(20000000)
#define CPUID_HYPERVISOR (1u << 31)
#define HYPERVISOR_BASE 0x40000000u
#define HYPERVISOR_TIMING 0x40000010u

/* KVM knows the kernel's own calibration; 0 when there is no KVM to ask. */
static uint64_t from_kvm(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return 0;
    int khz = 0, vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm >= 0) {
        int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
        if (vcpu >= 0) {
            khz = ioctl(vcpu, KVM_GET_TSC_KHZ);
            close(vcpu);
        }
        close(vm);
    }
    close(kvm);
    return khz > 0 ? (uint64_t)khz * 1000 : 0;
}

/* Leaf 15h gives the ratio to a crystal (Intel SDM 2A, CPUID); hypervisors tell kHz in 40000010h. */
static uint64_t from_cpuid(void)
{
    unsigned eax, ebx, ecx, edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & CPUID_HYPERVISOR)) {
        __cpuid(HYPERVISOR_BASE, eax, ebx, ecx, edx);
        if (eax >= HYPERVISOR_TIMING && eax < HYPERVISOR_BASE + 0x1000) {
            __cpuid(HYPERVISOR_TIMING, eax, ebx, ecx, edx);
            if (eax != 0)
                return (uint64_t)eax * 1000;
        }
    }
    if (__get_cpuid(0x15, &eax, &ebx, &ecx, &edx) && eax != 0 && ebx != 0 && ecx != 0)
        return (uint64_t)ecx * ebx / eax;
    return 0;
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The tightest of several pairs of readings, so that an interruption between the two does not count. */
static void sample(uint64_t *ret_ns, uint64_t *ret_tsc)
{
    uint64_t best = UINT64_MAX;
    *ret_ns = *ret_tsc = 0;
    for (int i = 0; i < 32; i++) {
        uint64_t before = __rdtsc(), ns = nanoseconds(), after = __rdtsc();
        if (after - before < best) {
            best = after - before;
            *ret_ns = ns;
            *ret_tsc = before + (after - before) / 2;
        }
    }
}

static uint64_t measured(void)
{
    uint64_t ns0, tsc0, ns1, tsc1; /* some time lies between the two samples */
    sample(&ns0, &tsc0);
    struct timespec pause = {0, (long)MEASURE_NS};
    nanosleep(&pause, NULL);
    sample(&ns1, &tsc1);
    return (uint64_t)((__uint128_t)(tsc1 - tsc0) * 1000000000u / (ns1 - ns0));
}

uint64_t tsc_hz(void)
{
    static uint64_t hz;
    if (hz == 0)
        hz = from_kvm();
    if (hz == 0)
        hz = from_cpuid();
    if (hz == 0)
        hz = measured();
    return hz;
}
