/* save.c - a machine's whole state as a stream, and back.
 *
 * In order: "machine" (what must be the same on both sides, and the host's TSC), for each vCPU "x86.cpu" and
 * "vcpu" (start-up requests it has not obeyed yet), every device in the board's order, the engine's
 * interrupt controllers if it has them, and RAM as runs of pages that are not zero.
 *
 * TSC offsets are relative to the host's counter, which is another one or another time when the machine is
 * loaded: they are moved so that the guest's counter goes on from where it stood. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#include "device/platform/kvmclock.h"
#include "machine/machine_private.h"

#define RUN_PAGES 1024u /* at most, in one section */

static bool is_zero(const uint8_t *page)
{
    static const uint8_t zeros[RAM_PAGE_SIZE];
    return memcmp(page, zeros, sizeof zeros) == 0;
}

/* One past the last byte at or after `from` of the region that the memfd has pages for; *ret_start is where they
 * start. Holes read as zero, and reading them through the mapping would fill them. */
static uint64_t next_data(const struct ram *ram, const struct ram_region *region, uint64_t from, uint64_t *ret_start)
{
    off_t data = lseek(ram->fd, (off_t)(region->offset + from), SEEK_DATA);
    off_t hole = data < 0 ? -1 : lseek(ram->fd, data, SEEK_HOLE);
    if (data < 0 || hole < 0 || (uint64_t)data >= region->offset + region->size) {
        *ret_start = region->size;
        return region->size;
    }
    *ret_start = (uint64_t)data - region->offset;
    uint64_t end = (uint64_t)hole - region->offset;
    return end < region->size ? end : region->size;
}

static void put_run(struct stream *stream, const struct ram_region *region, uint64_t offset, uint64_t pages)
{
    stream_begin(stream, "ram.pages", 1);
    stream_put_u64(stream, region->gpa + offset);
    stream_put_u32(stream, (uint32_t)pages);
    stream_put_bytes(stream, region->host + offset, pages * RAM_PAGE_SIZE);
    stream_end(stream);
}

static void save_data(struct stream *stream, const struct ram_region *region, uint64_t start, uint64_t end)
{
    uint64_t run = 0; /* pages before `at` that wait to be put */
    for (uint64_t at = start; at < end; at += RAM_PAGE_SIZE) {
        bool zero = is_zero(region->host + at);
        if (run > 0 && (zero || run == RUN_PAGES)) {
            put_run(stream, region, at - run * RAM_PAGE_SIZE, run);
            run = 0;
        }
        run += !zero;
    }
    if (run > 0)
        put_run(stream, region, end - run * RAM_PAGE_SIZE, run);
}

static void save_ram(const struct ram *ram, struct stream *stream)
{
    for (unsigned r = 0; r < ram->regions; r++) {
        uint64_t start, end = 0;
        while (end < ram->region[r].size) {
            end = next_data(ram, &ram->region[r], end, &start);
            save_data(stream, &ram->region[r], start, end);
        }
    }
    stream_begin(stream, "ram.pages", 1);
    stream_put_u64(stream, 0);
    stream_put_u32(stream, 0); /* the last */
    stream_end(stream);
}

/* False after the last run or a failure. */
static bool load_run(struct ram *ram, struct stream *stream)
{
    stream_enter(stream, "ram.pages", 1);
    uint64_t gpa = stream_get_u64(stream);
    uint32_t pages = stream_get_u32(stream);
    uint8_t *host = NULL;
    if (pages > RUN_PAGES || gpa % RAM_PAGE_SIZE != 0 ||
        (pages > 0 && !(host = ram_host(ram, gpa, (uint64_t)pages * RAM_PAGE_SIZE))))
        stream_fail(stream, "the saved machine has %u pages of memory at 0x%" PRIx64 ", where there is none", pages, gpa);
    else if (pages > 0)
        stream_get_bytes(stream, host, (size_t)pages * RAM_PAGE_SIZE);
    stream_leave(stream);
    return pages > 0 && stream_status(stream, NULL) == 0;
}

static int load_ram(struct ram *ram, struct stream *stream, struct error *error)
{
    /* What is there already, a kernel, goes; the pages of holes read as zero again. */
    for (unsigned r = 0; r < ram->regions; r++)
        if (fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)ram->region[r].offset,
                      (off_t)ram->region[r].size) < 0)
            return error_set(error, errno, "cannot clear the guest's memory: %s", strerror(errno));
    while (load_run(ram, stream))
        continue;
    return stream_status(stream, error);
}

static int save_vcpu(struct vcpu *vcpu, struct stream *stream, struct error *error)
{
    struct x86_cpu cpu;
    int status = vcpu->machine->engine->get_state(vcpu->engine, &cpu, error);
    if (status < 0)
        return status;
    x86_cpu_save(&cpu, stream);
    stream_begin(stream, "vcpu", 1);
    stream_put_u32(stream, atomic_load(&vcpu->requests));
    stream_put_u8(stream, vcpu->sipi_vector);
    stream_end(stream);
    return 0;
}

static int load_vcpu(struct vcpu *vcpu, uint64_t tsc_moved, struct stream *stream, struct error *error)
{
    struct x86_cpu cpu;
    int status = x86_cpu_load(&cpu, stream, error);
    if (status < 0)
        return status;
    stream_enter(stream, "vcpu", 1);
    uint32_t requests = stream_get_u32(stream);
    uint8_t vector = stream_get_u8(stream);
    if (requests & ~(VCPU_REQUEST_INIT | VCPU_REQUEST_SIPI))
        stream_fail(stream, "the saved vCPU %u has unknown requests 0x%x", vcpu->index, requests);
    stream_leave(stream);
    status = stream_status(stream, error);
    if (status < 0)
        return status;
    cpu.tsc_offset += tsc_moved;
    vcpu->sipi_vector = vector;
    vcpu->wait_for_sipi = cpu.activity == X86_WAIT_FOR_SIPI;
    atomic_store(&vcpu->requests, requests);
    atomic_store(&vcpu->tsc_offset, cpu.tsc_offset);
    return vcpu->machine->engine->set_state(vcpu->engine, &cpu, error);
}

int machine_save(struct machine *machine, struct stream *stream, struct error *error)
{
    stream_begin(stream, "machine", 1);
    stream_put_u32(stream, machine->config.vcpus);
    stream_put_u64(stream, machine->ram.size);
    stream_put_u64(stream, machine->tsc_hz);
    stream_put_u8(stream, machine->engine->irqchip);
    stream_put_u64(stream, __rdtsc());
    stream_end(stream);
    for (unsigned i = 0; i < machine->config.vcpus; i++) {
        int status = save_vcpu(&machine->vcpu[i], stream, error);
        if (status < 0)
            return status;
    }
    pthread_mutex_lock(&machine->lock);
    for (unsigned i = 0; i < machine->devices; i++)
        machine->device[i]->ops->save(machine->device[i], stream);
    pthread_mutex_unlock(&machine->lock);
    if (machine->engine->irqchip)
        machine->engine->irqchip_save(machine->vm, stream);
    save_ram(&machine->ram, stream);
    return stream_status(stream, error);
}

/* Checks that the saved machine is one like this; *ret_tsc_moved is what TSC offsets gain. */
static int load_head(const struct machine *machine, struct stream *stream, uint64_t *ret_tsc_moved, struct error *error)
{
    stream_enter(stream, "machine", 1);
    uint32_t vcpus = stream_get_u32(stream);
    uint64_t memory = stream_get_u64(stream), hz = stream_get_u64(stream);
    bool irqchip = stream_get_u8(stream) != 0;
    *ret_tsc_moved = stream_get_u64(stream) - __rdtsc();
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status < 0)
        return status;
    if (vcpus != machine->config.vcpus || memory != machine->ram.size)
        return error_set(error, EINVAL,
                         "the saved machine has %u vCPUs and %" PRIu64 " bytes of memory; this one has %u and %" PRIu64, vcpus,
                         memory, machine->config.vcpus, machine->ram.size);
    uint64_t apart = hz > machine->tsc_hz ? hz - machine->tsc_hz : machine->tsc_hz - hz;
    if (apart > machine->tsc_hz / 1000) /* calibrations of one host differ by less */
        return error_set(error, EINVAL, "the saved machine's time-stamp counter runs at %" PRIu64 " Hz, this host's at %" PRIu64,
                         hz, machine->tsc_hz);
    if (irqchip != machine->engine->irqchip)
        return error_set(error, ENOTSUP, "the saved machine's interrupt controllers are %s; the %s engine cannot take them over",
                         irqchip ? "the engine's" : "the board's", machine->engine->name);
    return 0;
}

int machine_load(struct machine *machine, struct stream *stream, struct error *error)
{
    uint64_t tsc_moved;
    int status = load_head(machine, stream, &tsc_moved, error);
    for (unsigned i = 0; status == 0 && i < machine->config.vcpus; i++)
        status = load_vcpu(&machine->vcpu[i], tsc_moved, stream, error);
    pthread_mutex_lock(&machine->lock);
    for (unsigned i = 0; status == 0 && i < machine->devices; i++)
        status = machine->device[i]->ops->load(machine->device[i], stream, error);
    pthread_mutex_unlock(&machine->lock);
    if (status == 0 && machine->engine->irqchip)
        status = machine->engine->irqchip_load(machine->vm, stream, error);
    if (status == 0)
        status = load_ram(&machine->ram, stream, error);
    if (status == 0 && machine->kvmclock) {
        pthread_mutex_lock(&machine->lock);
        kvmclock_update(machine->kvmclock);
        pthread_mutex_unlock(&machine->lock);
    }
    return status;
}
