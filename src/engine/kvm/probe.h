/* probe.h - can KVM be used here, and is it worth it? */
#ifndef VENEER_ENGINE_KVM_PROBE_H
#define VENEER_ENGINE_KVM_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Opens /dev/kvm and checks the API version and every extension the engine needs. Returns a descriptor
 * (the caller's), or a negative errno and one sentence that says what is missing. */
int kvm_open(struct error *error);

/* engine_ops.probe: 0, or a negative errno and why not. */
int kvm_probe(struct error *error);

/* How much longer the longer runs took: between the least of each, since what delays a run is no part of its cost, and a delayed
 * short run must not hide what the long ones cost. Nanoseconds, not below 0. */
int64_t kvm_probe_difference(const int64_t *shorter, const int64_t *longer, unsigned count);

/* True when the KVM here has no hardware under it and emulates kernel code one instruction at a time:
 * found by timing a short ring-0 loop in a scratch VM (10 ms on what was measured). *ret_ns gets
 * the nanoseconds an instruction took, 0 for less than one. False when KVM cannot be used at all.
 * The answer is measured once a process; any thread. */
bool engine_kvm_is_software(unsigned *ret_ns);

#endif
