/* kvmclock.c - see kvmclock.h.
 *
 * A guest computes the time from its TSC and a structure in its memory: time = system_time + (tsc - base) scaled.
 * We write it when the guest gives the address and never again while the VM runs: the TSC's rate does not change,
 * and each rewriting could make time step.
 *
 * All vCPUs' structures are made from one pair (TSC, system time), so that the times they give agree to the
 * nanosecond. The pair is taken when the first structure is written and again by kvmclock_update. */
#include "device/platform/kvmclock.h"

#include <stdlib.h>
#include <string.h>

#define SAVED_VERSION 1
#define VCPUS 64u
#define NS_PER_SECOND 1000000000u
#define MSR_WALL_OLD 0x11u
#define MSR_TIME_OLD 0x12u
#define MSR_WALL 0x4B564D00u
#define MSR_TIME 0x4B564D01u
#define TIME_ENABLE 1u
#define FLAG_TSC_STABLE 1u

struct kvmclock {
    struct device device;
    struct kvmclock_config config;
    uint64_t boot; /* clock time at which the system time was 0 */
    uint64_t wall; /* the last wall clock address */
    uint64_t time[VCPUS]; /* MSR values: address and TIME_ENABLE */
    uint32_t version;     /* of the last structure written; even */
    uint64_t base_tsc, base_time;
    bool based;
    uint32_t multiplier; /* ns = (ticks << shift) * multiplier >> 32, a negative shift to the right */
    int8_t shift;
};

/* pvclock_vcpu_time_info. */
struct time_info {
    uint32_t version, pad;
    uint64_t tsc, system_time;
    uint32_t multiplier;
    int8_t shift;
    uint8_t flags, pad2[2];
};
_Static_assert(sizeof(struct time_info) == 32, "the guest's structure");

/* pvclock_wall_clock. */
struct wall_info {
    uint32_t version, seconds, nanoseconds;
};

static struct kvmclock *of(struct device *device)
{
    return (struct kvmclock *)device; /* embedded first */
}

/* Chooses the shift that makes the multiplier use all its 32 bits. */
static void scale(struct kvmclock *kvmclock, uint64_t hz)
{
    for (int shift = -31; shift <= 31; shift++) {
        unsigned __int128 multiplier = ((unsigned __int128)NS_PER_SECOND << (32 - shift)) / hz;
        if (multiplier > UINT32_MAX)
            continue;
        kvmclock->multiplier = (uint32_t)multiplier;
        kvmclock->shift = (int8_t)shift;
        return;
    }
}

static uint64_t system_time(const struct kvmclock *kvmclock)
{
    return clock_now(kvmclock->config.clock) - kvmclock->boot;
}

/* Stores a structure whose first word is a version that is odd while the rest changes. */
static int publish(struct kvmclock *kvmclock, uint64_t gpa, void *info, size_t size)
{
    struct ram *ram = kvmclock->config.ram;
    uint32_t odd = kvmclock->version + 1, even = kvmclock->version + 2;
    if (!ram_host(ram, gpa, size))
        return -1;
    kvmclock->version = even;
    memcpy(info, &even, sizeof even);
    ram_write(ram, gpa, &odd, sizeof odd);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ram_write(ram, gpa + sizeof odd, (const uint8_t *)info + sizeof odd, size - sizeof odd);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ram_write(ram, gpa, &even, sizeof even);
    return 0;
}

/* PVCLOCK_TSC_STABLE_BIT tells the guest that it need not compare the vCPUs' times, which it otherwise does
 * with an atomic operation at each reading. */
static int publish_time(struct kvmclock *kvmclock, unsigned vcpu)
{
    if (!kvmclock->based) {
        kvmclock->base_tsc = kvmclock->config.tsc_read(kvmclock->config.owner, vcpu);
        kvmclock->base_time = system_time(kvmclock);
        kvmclock->based = true;
    }
    struct time_info info = {.tsc = kvmclock->base_tsc, .system_time = kvmclock->base_time,
                             .multiplier = kvmclock->multiplier, .shift = kvmclock->shift, .flags = FLAG_TSC_STABLE};
    return publish(kvmclock, kvmclock->time[vcpu] & ~(uint64_t)TIME_ENABLE, &info, sizeof info);
}

/* The wall clock structure tells when system time was 0. */
static int publish_wall(struct kvmclock *kvmclock, uint64_t gpa)
{
    uint64_t since = system_time(kvmclock);
    int64_t boot = clock_wall(kvmclock->config.clock) - (int64_t)(since / NS_PER_SECOND);
    uint32_t fraction = (uint32_t)(since % NS_PER_SECOND);
    struct wall_info info = {.seconds = (uint32_t)(fraction ? boot - 1 : boot),
                             .nanoseconds = fraction ? NS_PER_SECOND - fraction : 0};
    return publish(kvmclock, gpa, &info, sizeof info);
}

void kvmclock_update(struct device *device)
{
    struct kvmclock *kvmclock = of(device);
    kvmclock->based = false;
    for (unsigned i = 0; i < kvmclock->config.vcpus; i++)
        if (kvmclock->time[i] & TIME_ENABLE)
            publish_time(kvmclock, i);
}

bool kvmclock_claims_msr(uint32_t msr)
{
    return msr == MSR_WALL || msr == MSR_TIME || msr == MSR_WALL_OLD || msr == MSR_TIME_OLD;
}

int kvmclock_msr_read(struct device *device, unsigned vcpu, uint32_t msr, uint64_t *ret_value)
{
    struct kvmclock *kvmclock = of(device);
    if (!kvmclock_claims_msr(msr))
        return -1;
    *ret_value = msr == MSR_WALL || msr == MSR_WALL_OLD ? kvmclock->wall : kvmclock->time[vcpu];
    return 0;
}

int kvmclock_msr_write(struct device *device, unsigned vcpu, uint32_t msr, uint64_t value)
{
    struct kvmclock *kvmclock = of(device);
    if (msr == MSR_WALL || msr == MSR_WALL_OLD) {
        if (publish_wall(kvmclock, value) != 0)
            return -1;
        kvmclock->wall = value;
        return 0;
    }
    if (msr != MSR_TIME && msr != MSR_TIME_OLD)
        return -1;
    uint64_t old = kvmclock->time[vcpu];
    kvmclock->time[vcpu] = value;
    if ((value & TIME_ENABLE) && publish_time(kvmclock, vcpu) != 0) {
        kvmclock->time[vcpu] = old;
        return -1;
    }
    return 0;
}

/* The device is on no bus. */
static uint64_t kvmclock_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    (void)device, (void)region, (void)offset, (void)size;
    return UINT64_MAX;
}

static void kvmclock_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device, (void)region, (void)offset, (void)size, (void)value;
}

/* The system time begins at 0 again. */
static void kvmclock_reset(struct device *device)
{
    struct kvmclock *kvmclock = of(device);
    memset(kvmclock->time, 0, sizeof kvmclock->time);
    kvmclock->wall = 0;
    kvmclock->version = 0;
    kvmclock->based = false;
    kvmclock->boot = clock_now(kvmclock->config.clock);
}

static void kvmclock_save(const struct device *device, struct stream *stream)
{
    const struct kvmclock *kvmclock = (const struct kvmclock *)device;
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_put_u64(stream, system_time(kvmclock));
    stream_put_u64(stream, kvmclock->wall);
    stream_put_u32(stream, kvmclock->version);
    stream_put_u32(stream, kvmclock->config.vcpus);
    for (unsigned i = 0; i < kvmclock->config.vcpus; i++)
        stream_put_u64(stream, kvmclock->time[i]);
    stream_end(stream);
}

/* Guest RAM and the TSCs must have been restored: the structures are written again. */
static int kvmclock_load(struct device *device, struct stream *stream, struct error *error)
{
    struct kvmclock *kvmclock = of(device);
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    uint64_t since = stream_get_u64(stream);
    kvmclock->wall = stream_get_u64(stream);
    kvmclock->version = stream_get_u32(stream) & ~1u;
    uint32_t vcpus = stream_get_u32(stream);
    if (vcpus != kvmclock->config.vcpus)
        stream_fail(stream, "the saved machine has %u vCPUs, this one %u", vcpus, kvmclock->config.vcpus);
    for (unsigned i = 0; i < kvmclock->config.vcpus; i++) {
        kvmclock->time[i] = stream_get_u64(stream);
        uint64_t gpa = kvmclock->time[i] & ~(uint64_t)TIME_ENABLE;
        if ((kvmclock->time[i] & TIME_ENABLE) && !ram_host(kvmclock->config.ram, gpa, sizeof(struct time_info)))
            stream_fail(stream, "kvmclock: the structure of vCPU %u is not in RAM", i);
    }
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status) {
        kvmclock_reset(device);
        return status;
    }
    kvmclock->boot = clock_now(kvmclock->config.clock) - since;
    kvmclock_update(device);
    return 0;
}

static void kvmclock_destroy(struct device *device)
{
    free(of(device));
}

static const struct device_ops kvmclock_ops = {
    .name = "kvmclock",
    .reset = kvmclock_reset,
    .read = kvmclock_read,
    .write = kvmclock_write,
    .save = kvmclock_save,
    .load = kvmclock_load,
    .destroy = kvmclock_destroy,
};

struct device *kvmclock_new(const struct kvmclock_config *config)
{
    if (config->vcpus < 1 || config->vcpus > VCPUS || !config->tsc_hz)
        return NULL;
    struct kvmclock *kvmclock = calloc(1, sizeof *kvmclock);
    if (!kvmclock)
        return NULL;
    kvmclock->device.ops = &kvmclock_ops;
    kvmclock->config = *config;
    scale(kvmclock, config->tsc_hz);
    kvmclock_reset(&kvmclock->device);
    return &kvmclock->device;
}
