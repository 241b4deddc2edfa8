/* raw_direct.c - what O_DIRECT does not take as it is, or takes badly.
 *
 * It takes memory, offsets and lengths that are aligned, to what only the file system and the disk below it know: 512 bytes
 * mostly, 4096 where the disk's sectors are so large. The guest's sectors stay what they are without O_DIRECT, or its
 * partitions would not be found again; so a request that is not aligned goes through memory of ours, in whole units, and a
 * write of less than a unit reads the unit first. For that long nothing else may be under way (raw.c sees to it): the other
 * half of the unit would be written back as it was. Guests are told of the unit and have no reason to do so often.
 *
 * Large requests go that way too. Where the host does not give huge pages to shared memory, which is what most do, a guest's
 * memory is single pages from all over the host's; a disk is given each by itself then. Into one huge page and a copy from there
 * takes half as long: a guest read 1 MiB at a time 2.0 to 2.5 thousand times a second so, eight at once, and 0.9 to 1.2 without. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/raw.h"
#include "block/raw_private.h"

#define UNIT_MAX 4096u
#define BOUNCE_BYTES (UINT64_C(2) << 20) /* a huge page */

/* Which reads the kernel takes, when it does not tell what it takes. 0: none that is tried. */
static uint32_t probe_unit(int fd, uint32_t sector)
{
    void *memory = NULL;
    uint32_t unit = sector;
    if (posix_memalign(&memory, UNIT_MAX, UNIT_MAX))
        return UNIT_MAX;
    while (unit <= UNIT_MAX && pread(fd, memory, unit, 0) < 0 && errno == EINVAL)
        unit *= 2;
    free(memory);
    return unit <= UNIT_MAX ? unit : 0;
}

int raw_direct_open(struct raw *raw, const char *path, struct error *error)
{
    uint32_t sector = raw->block.limits.sector_size;
    struct statx stat = {0};
    raw->direct_unit = raw->direct_memory = sector;
    if (!raw->direct)
        return 0;
    bool told = false;
#ifdef STATX_DIOALIGN
    told = statx(raw->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stat) == 0 && (stat.stx_mask & STATX_DIOALIGN);
    raw->direct_unit = stat.stx_dio_offset_align;
    raw->direct_memory = stat.stx_dio_mem_align;
#endif
    if (!told)
        raw->direct_memory = raw->direct_unit = probe_unit(raw->fd, sector);
    if (raw_tuning.direct_unit > raw->direct_unit)
        raw->direct_unit = raw_tuning.direct_unit;
    if (!raw->direct_unit || raw->direct_unit > UNIT_MAX || (raw->direct_unit & (raw->direct_unit - 1)))
        return error_set(error, ENOTSUP, "%s cannot be used past the host's page cache (direct)", path);
    if (raw->direct_unit < sector)
        raw->direct_unit = sector;
    if (raw->direct_memory < 512) /* what is less pays off for nobody, and is less tried */
        raw->direct_memory = 512;
    if (raw->direct_unit > raw->block.limits.physical_size)
        raw->block.limits.physical_size = raw->direct_unit;
    return 0;
}

bool raw_needs_bounce(const struct raw *raw, const struct block_request *request)
{
    uint64_t units = request->offset | request->length;
    uintptr_t memory = 0;
    if (!raw->direct)
        return false;
    if (raw_tuning.bounce_min && request->length >= raw_tuning.bounce_min)
        return true;
    for (unsigned i = 0; i < request->iov_count; i++) {
        memory |= (uintptr_t)request->iov[i].iov_base;
        units |= request->iov[i].iov_len;
    }
    return (units & (raw->direct_unit - 1)) || (memory & (raw->direct_memory - 1));
}

bool raw_is_lone(const struct raw *raw, const struct block_request *request)
{
    bool changes = request->op != BLOCK_READ && request->op != BLOCK_FLUSH;
    return raw->direct && changes && ((request->offset | request->length) & (raw->direct_unit - 1));
}

/* BOUNCE_BYTES of memory, in one piece where the host has such; NULL when there is none. Any thread. */
static void *take_memory(struct raw *raw)
{
    void *memory = NULL;
    pthread_mutex_lock(&raw->bounce_lock);
    if (raw->bounces)
        memory = raw->bounce[--raw->bounces];
    pthread_mutex_unlock(&raw->bounce_lock);
    if (!memory && posix_memalign(&memory, BOUNCE_BYTES, BOUNCE_BYTES) == 0)
        madvise(memory, BOUNCE_BYTES, MADV_HUGEPAGE);
    return memory;
}

static void give_memory(struct raw *raw, void *memory)
{
    pthread_mutex_lock(&raw->bounce_lock);
    bool keep = raw->bounces < RAW_BOUNCES;
    if (keep)
        raw->bounce[raw->bounces++] = memory;
    pthread_mutex_unlock(&raw->bounce_lock);
    if (!keep)
        free(memory);
}

void raw_direct_close(struct raw *raw)
{
    while (raw->bounces)
        free(raw->bounce[--raw->bounces]);
    pthread_mutex_destroy(&raw->bounce_lock);
}

/* Between `bytes` and the request's buffers from `skip` on. */
static void copy(const struct block_request *request, uint64_t skip, char *bytes, uint64_t length)
{
    struct iovec part[RAW_PART];
    for (uint64_t done = 0; done < length;) {
        unsigned count = raw_take_iov(request, skip + done, part);
        for (unsigned i = 0; i < count && done < length; i++) {
            size_t n = part[i].iov_len < length - done ? part[i].iov_len : (size_t)(length - done);
            bool write = request->op == BLOCK_WRITE;
            memcpy(write ? bytes + done : part[i].iov_base, write ? part[i].iov_base : bytes + done, n);
            done += n;
        }
    }
}

/* One read of the file, into aligned memory. Beyond the file's end there are zeroes. */
static int read_units(struct raw *raw, uint64_t offset, void *memory, uint64_t length)
{
    struct iovec iov = {memory, length};
    struct block_request read = {.op = BLOCK_READ, .offset = offset, .length = length, .iov = &iov, .iov_count = 1};
    return raw_read(raw, &read);
}

/* `size` bytes of the request from `skip` on, whose units have room in `memory`. */
static int bounce_part(struct raw *raw, const struct block_request *request, uint64_t skip, uint64_t size, char *memory)
{
    uint64_t unit = raw->direct_unit, offset = request->offset + skip, from = offset & ~(unit - 1);
    uint64_t head = offset - from, length = (head + size + unit - 1) & ~(unit - 1);
    int status = 0;
    if (request->op == BLOCK_READ) {
        status = read_units(raw, from, memory, length);
        if (status == 0)
            copy(request, skip, memory + head, size);
        return status;
    }
    if (head || (size & (unit - 1))) /* the first and the last unit; there may be no other */
        status = read_units(raw, from, memory, unit);
    if (status == 0 && length > unit && head + size < length)
        status = read_units(raw, from + length - unit, memory + length - unit, unit);
    if (status == 0) {
        struct iovec iov = {memory, length};
        struct block_request write = {.op = BLOCK_WRITE, .flags = request->flags, .offset = from, .length = length, .iov = &iov,
                                      .iov_count = 1};
        copy(request, skip, memory + head, size);
        status = raw_write(raw, &write);
    }
    return status;
}

int raw_bounce(struct raw *raw, const struct block_request *request)
{
    char *memory = take_memory(raw);
    int status = memory ? 0 : -ENOMEM;
    for (uint64_t done = 0, size; status == 0 && done < request->length; done += size) {
        size = BOUNCE_BYTES - ((request->offset + done) & (raw->direct_unit - 1)); /* later parts begin with a unit */
        if (size > request->length - done)
            size = request->length - done;
        status = bounce_part(raw, request, done, size, memory);
    }
    if (memory)
        give_memory(raw, memory);
    return status;
}

void raw_trim(struct raw *raw, const struct block_request *request)
{
    uint64_t size = raw->block.limits.size;
    uint64_t end = (request->offset + request->length + raw->direct_unit - 1) & ~(uint64_t)(raw->direct_unit - 1);
    if (!raw->device && raw_is_lone(raw, request) && end > size && ftruncate(raw->fd, (off_t)size) < 0)
        return; /* longer than it need be, as if it had been so from the start */
}
