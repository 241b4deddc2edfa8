/* bootdisk.c - fuzzes what looks for a kernel in a guest's disk: the partition table, and libext2fs as it is used there. In a
 * run it is confined to a process of its own; here it must not even need that. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "host/bootfiles_private.h"

struct disk {
    const uint8_t *bytes;
    size_t size;
    unsigned reads;
};

static int read_disk(void *owner, uint64_t offset, void *bytes, size_t length)
{
    struct disk *disk = owner;
    if (!range_within(offset, length, disk->size))
        return -EINVAL;
    if (++disk->reads > 2000) /* a deadline: a run has one in seconds */
        return -EIO;
    memcpy(bytes, disk->bytes + offset, length);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct disk disk = {data, size / 512 * 512, 0};
    struct bootfiles files;
    struct error error;
    int kernel = memfd_create("kernel", MFD_CLOEXEC), initrd = memfd_create("initrd", MFD_CLOEXEC);
    if (kernel < 0 || initrd < 0)
        abort();
    bootfiles_look(read_disk, &disk, disk.size, kernel, initrd, &files, &error);
    close(kernel);
    close(initrd);
    return 0;
}
