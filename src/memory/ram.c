#include "memory/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/checked.h"

static int membarrier(int command)
{
    return (int)syscall(SYS_membarrier, command, 0, 0);
}

static int add_region(struct ram *ram, uint64_t gpa, uint64_t size, uint64_t offset, struct error *error)
{
    struct ram_region *region = &ram->region[ram->regions];
    void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram->fd, (off_t)offset);
    if (host == MAP_FAILED)
        return error_set(error, ENOMEM, "mapping %llu MiB of guest memory: %s", (unsigned long long)size >> 20,
                         strerror(errno));
    /* Anonymous memory comes zeroed and untouched, so flags of pages the guest never uses cost nothing. */
    void *flags = mmap(NULL, size / RAM_PAGE_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (flags == MAP_FAILED) {
        int code = errno;
        munmap(host, size);
        return error_set(error, ENOMEM, "mapping the page flags of guest memory: %s", strerror(code));
    }
    madvise(host, size, MADV_HUGEPAGE); /* where the host grants it; a refusal changes nothing but speed */
    *region = (struct ram_region){.gpa = gpa, .size = size, .host = host, .offset = offset, .flags = flags};
    ram->regions++;
    return 0;
}

/* Refuses what the host can certainly not back, rather than letting the guest die of it later. */
static int check_available(uint64_t size, struct error *error)
{
    uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (size > host)
        return error_set(error, ENOMEM, "guest memory of %llu MiB is more than this host has (%llu MiB)",
                         (unsigned long long)size >> 20, (unsigned long long)host >> 20);
    return 0;
}

int ram_open(struct ram *ret_ram, uint64_t size, uint64_t low_limit, uint64_t high_base, struct error *error)
{
    *ret_ram = (struct ram){.fd = -1};
    if (!size || size % RAM_PAGE_SIZE || low_limit % RAM_PAGE_SIZE || high_base % RAM_PAGE_SIZE)
        return error_set(error, EINVAL, "guest memory of %llu bytes is not a whole number of pages",
                         (unsigned long long)size);
    int r = check_available(size, error);
    if (r < 0)
        return r;
    struct ram ram = {.fd = memfd_create("veneer-ram", MFD_CLOEXEC), .size = size};
    if (ram.fd < 0)
        return error_set(error, errno, "making guest memory: %s", strerror(errno));
    if (ftruncate(ram.fd, (off_t)size) < 0)
        r = error_set(error, ENOMEM, "making guest memory of %llu MiB: %s", (unsigned long long)size >> 20,
                      strerror(errno));
    uint64_t low = size < low_limit ? size : low_limit;
    if (r == 0)
        r = add_region(&ram, 0, low, 0, error);
    if (r == 0 && size > low)
        r = add_region(&ram, high_base, size - low, low, error);
    if (r < 0) {
        ram_close(&ram);
        return r;
    }
    /* Registration makes the expedited barrier of ram_code_mark available; it cannot fail on kernels that
     * have it, and ram_code_mark falls back to the slow one on those that do not. */
    membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
    *ret_ram = ram;
    return 0;
}

void ram_close(struct ram *ram)
{
    if (!ram)
        return;
    for (unsigned i = 0; i < ram->regions; i++) {
        munmap(ram->region[i].host, ram->region[i].size);
        munmap(ram->region[i].flags, ram->region[i].size / RAM_PAGE_SIZE);
    }
    if (ram->fd >= 0)
        close(ram->fd);
    *ram = (struct ram){.fd = -1};
}

const struct ram_region *ram_find(const struct ram *ram, uint64_t gpa)
{
    for (unsigned i = 0; i < ram->regions; i++)
        if (gpa - ram->region[i].gpa < ram->region[i].size)
            return &ram->region[i];
    return NULL;
}

void *ram_host(const struct ram *ram, uint64_t gpa, uint64_t length)
{
    const struct ram_region *region = ram_find(ram, gpa);
    if (!region || !range_within(gpa - region->gpa, length, region->size))
        return NULL;
    return region->host + (gpa - region->gpa);
}

/* Walks the pieces of [gpa, gpa + length) region by region; false when some of it is not RAM. */
static bool in_ram(const struct ram *ram, uint64_t gpa, uint64_t length)
{
    while (length) {
        const struct ram_region *region = ram_find(ram, gpa);
        if (!region)
            return false;
        uint64_t piece = region->size - (gpa - region->gpa);
        if (piece >= length)
            return true;
        gpa += piece;
        length -= piece;
    }
    return true;
}

int ram_read(const struct ram *ram, uint64_t gpa, void *ret_bytes, uint64_t length)
{
    if (!in_ram(ram, gpa, length))
        return -EFAULT;
    for (uint8_t *to = ret_bytes; length;) {
        const struct ram_region *region = ram_find(ram, gpa);
        uint64_t piece = region->size - (gpa - region->gpa);
        if (piece > length)
            piece = length;
        memcpy(to, region->host + (gpa - region->gpa), piece);
        to += piece;
        gpa += piece;
        length -= piece;
    }
    return 0;
}

/* Dirty marks, and the hook, for pages of one region just written. */
static void after_write(struct ram *ram, const struct ram_region *region, uint64_t offset, uint64_t length)
{
    uint64_t last = (offset + length - 1) / RAM_PAGE_SIZE;
    bool code = false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the bytes before the look at the flags: see ram_code_mark */
    for (uint64_t page = offset / RAM_PAGE_SIZE; page <= last; page++) {
        /* A page that is dirty already needs no store: whoever takes the flag back after this look reads the page
         * after that, and the fence has made the bytes visible by then. */
        uint8_t flags = __atomic_load_n(&region->flags[page], __ATOMIC_RELAXED);
        if (!(flags & RAM_PAGE_DIRTY))
            flags = __atomic_fetch_or(&region->flags[page], RAM_PAGE_DIRTY, __ATOMIC_RELAXED);
        code |= flags & RAM_PAGE_CODE;
    }
    if (code && ram->code_written)
        ram->code_written(ram->code_owner, region->gpa + offset, length);
}

int ram_write(struct ram *ram, uint64_t gpa, const void *bytes, uint64_t length)
{
    if (!in_ram(ram, gpa, length))
        return -EFAULT;
    for (const uint8_t *from = bytes; length;) {
        const struct ram_region *region = ram_find(ram, gpa);
        uint64_t offset = gpa - region->gpa;
        uint64_t piece = region->size - offset < length ? region->size - offset : length;
        memcpy(region->host + offset, from, piece);
        after_write(ram, region, offset, piece);
        from += piece;
        gpa += piece;
        length -= piece;
    }
    return 0;
}

void ram_written(struct ram *ram, uint64_t gpa, uint64_t length)
{
    const struct ram_region *region = ram_find(ram, gpa);
    if (region && length && range_within(gpa - region->gpa, length, region->size))
        after_write(ram, region, gpa - region->gpa, length);
}

int ram_discard(struct ram *ram, uint64_t gpa, uint64_t length)
{
    if (gpa % RAM_PAGE_SIZE || length % RAM_PAGE_SIZE)
        return -EINVAL;
    const struct ram_region *region = ram_find(ram, gpa);
    if (!region || !range_within(gpa - region->gpa, length, region->size))
        return -EFAULT;
    if (length == 0)
        return 0;
    /* Not madvise: the file's pages go, wherever else they are mapped, and what is no longer there costs nothing. */
    if (fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(region->offset + (gpa - region->gpa)),
                  (off_t)length) < 0)
        return -errno;
    after_write(ram, region, gpa - region->gpa, length);
    return 0;
}

uint64_t ram_resident(const struct ram *ram)
{
    struct stat info;
    return fstat(ram->fd, &info) == 0 ? (uint64_t)info.st_blocks * 512 : 0;
}

void ram_set_code_hook(struct ram *ram, void (*code_written)(void *owner, uint64_t gpa, uint64_t length), void *owner)
{
    ram->code_written = code_written;
    ram->code_owner = owner;
}

void ram_code_mark(struct ram *ram, uint64_t gpa)
{
    const struct ram_region *region = ram_find(ram, gpa);
    if (!region)
        return;
    uint8_t *flags = &region->flags[(gpa - region->gpa) / RAM_PAGE_SIZE];
    if (__atomic_fetch_or(flags, RAM_PAGE_CODE, __ATOMIC_SEQ_CST) & RAM_PAGE_CODE)
        return;
    if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) < 0)
        membarrier(MEMBARRIER_CMD_GLOBAL);
}

void ram_code_clear(struct ram *ram, uint64_t gpa)
{
    const struct ram_region *region = ram_find(ram, gpa);
    if (region)
        __atomic_fetch_and(&region->flags[(gpa - region->gpa) / RAM_PAGE_SIZE], (uint8_t)~RAM_PAGE_CODE,
                           __ATOMIC_SEQ_CST);
}

void ram_set_dirty_hook(struct ram *ram, void (*dirty_fetched)(void *owner), void *owner)
{
    ram->dirty_fetched = dirty_fetched;
    ram->dirty_owner = owner;
}

void ram_dirty_fetch(struct ram *ram, unsigned index, uint64_t *bitmap)
{
    const struct ram_region *region = &ram->region[index];
    for (uint64_t page = 0; page < region->size / RAM_PAGE_SIZE; page++) {
        if (!(__atomic_load_n(&region->flags[page], __ATOMIC_RELAXED) & RAM_PAGE_DIRTY))
            continue;
        __atomic_fetch_and(&region->flags[page], (uint8_t)~RAM_PAGE_DIRTY, __ATOMIC_SEQ_CST);
        bitmap[page / 64] |= UINT64_C(1) << (page % 64);
    }
    if (ram->dirty_fetched)
        ram->dirty_fetched(ram->dirty_owner);
}
