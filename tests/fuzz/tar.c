/* tar.c - fuzzes the archive reader: what it hands out is bounded and inside the root. */
#include "host/tar.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A path that would leave the root, or that is not clean. */
static void check_path(const char *path)
{
    size_t length = strlen(path);
    if (length >= TAR_PATH_MAX || path[0] == '/' || (length && path[length - 1] == '/') || strstr(path, "//"))
        abort();
    for (const char *at = path; *at; at += strcspn(at, "/"), at += *at == '/')
        if (strncmp(at, "../", 3) == 0 || strcmp(at, "..") == 0)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tar *tar;
    struct tar_entry entry;
    static uint8_t buffer[1000];
    volatile uint8_t sum = 0;
    int fd = memfd_create("tar", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) < 0 || tar_open(fd, &tar, NULL) < 0)
        abort();
    while (tar_next(tar, &entry, NULL) > 0) {
        check_path(entry.path);
        if (entry.type == TAR_LINK)
            check_path(entry.target);
        if (entry.mode > 07777 || entry.xattrs > TAR_XATTRS_MAX)
            abort();
        for (unsigned i = 0; i < entry.xattrs; i++)
            for (size_t b = 0; b < entry.xattr[i].length; b++)
                sum = (uint8_t)(sum + ((const uint8_t *)entry.xattr[i].value)[b] + entry.xattr[i].name[0]);
        for (int64_t got, total = 0; (got = tar_read(tar, buffer, sizeof buffer, NULL)) > 0; total += got)
            if ((uint64_t)(total + got) > entry.size)
                abort();
    }
    tar_close(tar);
    close(fd);
    return 0;
}
