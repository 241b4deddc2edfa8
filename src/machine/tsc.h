/* tsc.h - the rate of the host's time-stamp counter, which is the guest's as well. */
#ifndef VENEER_MACHINE_TSC_H
#define VENEER_MACHINE_TSC_H

#include <stdint.h>

/* Ticks per second. From KVM when it is there, else from CPUID, else measured against CLOCK_MONOTONIC over
 * 20 ms. The first call finds out; not thread-safe until then. Never 0. */
uint64_t tsc_hz(void);

#endif
