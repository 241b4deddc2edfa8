/* tar.c - fuzzes how archives are read: what entries.c hands out of libarchive's is bounded and inside the root. In a run it is
 * confined to a process of its own. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rootfs/entries.h"

#define CONTENT_MAX (1u << 20) /* sparse files may be of any size */

/* A path that would leave the root, or that is not clean. */
static void check_path(const char *path)
{
    size_t length = strlen(path);
    if (length >= ENTRY_PATH_MAX || path[0] == '/' || (length && path[length - 1] == '/') || strstr(path, "//"))
        abort();
    for (const char *at = path; *at; at += strcspn(at, "/"), at += *at == '/')
        if (strncmp(at, "../", 3) == 0 || strcmp(at, "..") == 0)
            abort();
}

static void check_entry(const struct entry *entry)
{
    volatile uint8_t sum = 0;
    check_path(entry->path);
    if (entry->type == ENTRY_LINK)
        check_path(entry->target);
    if (entry->type > ENTRY_FIFO || strlen(entry->target) >= ENTRY_PATH_MAX || entry->mode > 07777 ||
        entry->xattrs > ENTRY_XATTRS_MAX || entry->size > INT64_MAX || (entry->size && entry->type != ENTRY_FILE))
        abort();
    for (unsigned i = 0; i < entry->xattrs; i++) {
        size_t length = strlen(entry->xattr[i].name);
        if (length == 0 || length > ENTRY_XATTR_NAME_MAX)
            abort();
        for (size_t b = 0; b < entry->xattr[i].length; b++)
            sum = (uint8_t)(sum + ((const uint8_t *)entry->xattr[i].value)[b]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct entries *entries;
    struct entry entry;
    static uint8_t buffer[1000];
    int fd = memfd_create("tar", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) < 0 || entries_open(fd, &entries, NULL) < 0)
        abort();
    while (entries_next(entries, &entry, NULL) > 0) {
        check_entry(&entry);
        int64_t got = entry.type == ENTRY_FILE ? 1 : 0;
        for (uint64_t done = 0; got > 0 && done < CONTENT_MAX; done += (uint64_t)got)
            if ((got = entries_read(entries, buffer, sizeof buffer, NULL)) > (int64_t)sizeof buffer)
                abort();
    }
    entries_drain(entries);
    entries_close(entries);
    close(fd);
    return 0;
}
