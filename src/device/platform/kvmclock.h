/* kvmclock.h - the KVM paravirtual clock, for engines of our own: MSRs 0x4B564D00 and 0x4B564D01 (and the
 * older 0x11 and 0x12).
 *
 * It tells the guest the rate of its TSC, so that nothing is calibrated, and the time of boot. The guest's TSCs
 * run at one rate and in step (PVCLOCK_TSC_STABLE_BIT). CPUID 0x40000001 EAX must offer KVMCLOCK_CPUID_FEATURES.
 * Linux: Documentation/virt/kvm/x86/msr.rst, pvclock-abi.h.
 *
 * The device has no bus region. The board's lock is held in every call. */
#ifndef VENEER_DEVICE_PLATFORM_KVMCLOCK_H
#define VENEER_DEVICE_PLATFORM_KVMCLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "device/device.h"
#include "memory/ram.h"

/* CLOCKSOURCE (0), NOP_IO_DELAY (1), CLOCKSOURCE2 (3), CLOCKSOURCE_STABLE_BIT (24). */
#define KVMCLOCK_CPUID_FEATURES 0x0100000Bu

struct kvmclock_config {
    const struct clock *clock; /* outlives the device; so does ram */
    struct ram *ram;
    unsigned vcpus;            /* 1 to 64 */
    uint64_t tsc_hz;           /* not 0 */
    void *owner;
    uint64_t (*tsc_read)(void *owner, unsigned vcpu); /* the guest's TSC now */
};

/* NULL when there is no memory or the config is out of range. */
struct device *kvmclock_new(const struct kvmclock_config *config);

bool kvmclock_claims_msr(uint32_t msr);
/* 0, or -1: #GP (the address is not in RAM). */
int kvmclock_msr_read(struct device *kvmclock, unsigned vcpu, uint32_t msr, uint64_t *ret_value);
int kvmclock_msr_write(struct device *kvmclock, unsigned vcpu, uint32_t msr, uint64_t value);
/* Writes every vCPU's structure again: the guest's TSC was set anew (a VM was loaded). */
void kvmclock_update(struct device *kvmclock);

#endif
