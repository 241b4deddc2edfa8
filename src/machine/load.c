/* load.c - reads the files, tells what they are, and places what every protocol has: initrd and command line. */
#include "machine/load.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "machine/load_private.h"
#include "machine/unpack.h"

#define FILE_MAX (UINT64_C(4) << 30)
#define PAGE UINT64_C(4096)

uint64_t load_low_end(const struct load *load)
{
    return load->ram->region[0].size;
}

int load_place(struct load *load, const char *what, uint64_t gpa, const void *bytes, uint64_t length, uint64_t room)
{
    uint64_t end = load_low_end(load);
    if (gpa < LOAD_KERNEL_MIN)
        return error_set(load->error, EINVAL, "kernel %s: %s wants address 0x%" PRIx64 "; below 0x%x is boot data",
                         load->kernel->name, what, gpa, LOAD_KERNEL_MIN);
    if (length > room || !range_within(gpa, room, end))
        return error_set(load->error, ENOMEM,
                         "kernel %s: %s needs 0x%" PRIx64 " bytes at 0x%" PRIx64 ", but the guest's memory %sends at 0x%" PRIx64,
                         load->kernel->name, what, room, gpa, load->ram->regions > 1 ? "below 4 GiB " : "", end);
    if (length && ram_write(load->ram, gpa, bytes, length) < 0)
        return error_set(load->error, EFAULT, "kernel %s: %s does not fit guest memory", load->kernel->name, what);
    if (gpa + room > load->kernel_end)
        load->kernel_end = gpa + room;
    return 0;
}

int load_put(struct load *load, const char *what, uint64_t gpa, const void *bytes, uint64_t length)
{
    if (ram_write(load->ram, gpa, bytes, length) < 0)
        return error_set(load->error, ENOMEM, "the guest's memory has no room for the %s at 0x%" PRIx64, what, gpa);
    return 0;
}

int load_cmdline(struct load *load, uint32_t max)
{
    size_t length = strlen(load->append);
    if (max > LOAD_CMDLINE_MAX - 1)
        max = LOAD_CMDLINE_MAX - 1;
    if (length > max)
        return error_set(load->error, E2BIG, "the kernel command line has %zu bytes; kernel %s takes at most %u", length,
                         load->kernel->name, max);
    return load_put(load, "command line", LOAD_CMDLINE, load->append, length + 1);
}

int load_initrd(struct load *load, uint64_t address_max)
{
    if (!load->initrd)
        return 0;
    uint64_t size = load->initrd->size, low = load_low_end(load);
    uint64_t end = address_max < low - 1 ? address_max + 1 : low;
    uint64_t start = (load->kernel_end + PAGE - 1) & ~(PAGE - 1);
    if (end <= start || size > end - start)
        return error_set(load->error, ENOMEM,
                         "initrd %s: its %" PRIu64 " bytes do not fit the guest's memory between the kernel's end at 0x%" PRIx64
                         " and 0x%" PRIx64, load->initrd->name, size, start, end);
    uint64_t gpa = (end - size) & ~(PAGE - 1);
    if (ram_write(load->ram, gpa, load->initrd->bytes, size) < 0)
        return error_set(load->error, EFAULT, "initrd %s does not fit guest memory", load->initrd->name);
    load->initrd_gpa = gpa;
    load->initrd_size = size;
    return 0;
}

/* A guest would panic over an initrd that it cannot read, minutes later on a slow engine; say so at once. */
static int check_initrd(const struct load_file *initrd, struct error *error)
{
    static const struct { uint16_t offset; uint8_t size; const char *magic; } known[] = {
        {0, 6, "070701"}, {0, 6, "070702"}, {0, 4, "hsqs"}, {0, 4, "\x45\x3d\xcd\x28"}, {0x438, 2, "\x53\xef"},
    };
    if (initrd->size == 0)
        return error_set(error, EINVAL, "initrd %s is empty", initrd->name);
    size_t zeros = 0; /* a cpio archive may follow padding */
    while (zeros < initrd->size && initrd->bytes[zeros] == 0)
        zeros++;
    if (unpack_format(initrd->bytes, initrd->size))
        return 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t at = known[i].offset ? known[i].offset : zeros;
        if (range_within(at, known[i].size, initrd->size) && memcmp(initrd->bytes + at, known[i].magic, known[i].size) == 0)
            return 0;
    }
    return error_set(error, EINVAL, "initrd %s is neither a cpio archive, plain or compressed, nor a file system image",
                     initrd->name);
}

static int load_by_kind(struct load *load, struct load_entry *ret_entry)
{
    const struct load_file *kernel = load->kernel;
    if (kernel->size == 0)
        return error_set(load->error, EINVAL, "kernel %s is empty", kernel->name);
    long header = multiboot_find(kernel);
    if (header < 0 && load->initrd) {
        int status = check_initrd(load->initrd, load->error);
        if (status < 0)
            return status;
    }
    if (bzimage_is(kernel))
        return load_bzimage(load, ret_entry);
    if (header >= 0)
        return load_multiboot(load, (uint32_t)header, ret_entry);
    if (elf_is(kernel)) {
        struct elf_image image;
        int status = elf_open(kernel, &image, load->error);
        if (status < 0)
            return status;
        if (image.has_pvh)
            return load_pvh(load, &image, ret_entry);
        return error_set(load->error, EINVAL,
                         "kernel %s is an ELF file with neither a PVH entry note nor a Multiboot header", kernel->name);
    }
    return error_set(load->error, EINVAL, "kernel %s is not a kernel: neither a Linux bzImage, nor an ELF or Multiboot image",
                     kernel->name);
}

int load_image(struct ram *ram, const struct load_config *config, const struct load_file *kernel,
               const struct load_file *initrd, struct load_entry *ret_entry, struct error *error)
{
    struct load load = {.ram = ram, .config = config, .kernel = kernel, .initrd = initrd,
                        .append = config->append ? config->append : "", .error = error};
    struct load_entry entry = {0};
    int status = load_by_kind(&load, &entry);
    if (status == 0)
        *ret_entry = entry;
    return status;
}

/* Reads a whole file; *ret_file.bytes is the caller's to free. */
static int read_file(const char *what, const char *path, struct load_file *ret_file, struct error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(error, errno, "cannot open %s %s: %s", what, path, strerror(errno));
    struct stat st;
    int status = 0;
    uint8_t *bytes = NULL;
    if (fstat(fd, &st) < 0)
        status = error_set(error, errno, "cannot examine %s %s: %s", what, path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        status = error_set(error, EINVAL, "%s %s is not a regular file", what, path);
    else if ((uint64_t)st.st_size > FILE_MAX)
        status = error_set(error, EFBIG, "%s %s has %jd bytes; at most 4 GiB are taken", what, path, (intmax_t)st.st_size);
    else if (!(bytes = malloc((size_t)st.st_size + 1)))
        status = error_set(error, ENOMEM, "no memory to read the %jd bytes of %s %s", (intmax_t)st.st_size, what, path);
    size_t used = 0;
    while (status == 0 && used < (size_t)st.st_size) {
        ssize_t got = read(fd, bytes + used, (size_t)st.st_size - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = error_set(error, errno, "cannot read %s %s: %s", what, path, strerror(errno));
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    close(fd);
    if (status < 0)
        free(bytes);
    else
        *ret_file = (struct load_file){path, bytes, used};
    return status;
}

int load_kernel(struct ram *ram, const struct load_config *config, struct load_entry *ret_entry, struct error *error)
{
    struct load_file kernel, initrd = {0};
    int status = read_file("kernel", config->kernel, &kernel, error);
    if (status < 0)
        return status;
    if (config->initrd)
        status = read_file("initrd", config->initrd, &initrd, error);
    if (status == 0) {
        status = load_image(ram, config, &kernel, config->initrd ? &initrd : NULL, ret_entry, error);
        free((void *)(uintptr_t)initrd.bytes);
    }
    free((void *)(uintptr_t)kernel.bytes);
    return status;
}
