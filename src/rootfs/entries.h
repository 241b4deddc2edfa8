/* entries.h - the entries of a tar archive that comes out of a descriptor, read by libarchive. What is handed out is
 * bounded and inside the archive's root, whatever the bytes are.
 *
 * One thread. The process is in the C locale: names are bytes then. */
#ifndef VENEER_ROOTFS_ENTRIES_H
#define VENEER_ROOTFS_ENTRIES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct entries;

#define ENTRY_PATH_MAX 4096
#define ENTRY_XATTRS_MAX 32
#define ENTRY_XATTR_NAME_MAX 255

struct entry_xattr {
    const char *name; /* "security.capability" */
    const void *value;
    size_t length;
};

enum entry_type { ENTRY_FILE, ENTRY_LINK, ENTRY_SYMLINK, ENTRY_CHAR, ENTRY_BLOCK, ENTRY_FOLDER, ENTRY_FIFO };

struct entry {
    enum entry_type type;
    const char *path;   /* relative, without "." and ".." parts; "" is the root itself */
    const char *target; /* ENTRY_LINK: a path as above; ENTRY_SYMLINK: any text; else "" */
    uint32_t mode;      /* permissions, 07777 */
    uint32_t uid, gid;
    int64_t mtime;      /* seconds since 1970 */
    uint64_t size;      /* ENTRY_FILE: bytes of content, at most INT64_MAX */
    uint32_t major, minor;
    unsigned xattrs;
    struct entry_xattr xattr[ENTRY_XATTRS_MAX];
};

/* The descriptor stays the caller's; nothing is read of it before an entry is asked for, and nothing else opened from then
 * on. Returns 0 or -ENOMEM with a sentence. */
int entries_open(int fd, struct entries **ret_entries, struct error *error);
/* The next entry, valid until the next call; content that was not read is skipped. Returns 1, 0 at the archive's end
 * mark, -ENODATA when it ends without one, or another negative errno, each with a sentence. */
int entries_next(struct entries *entries, struct entry *ret_entry, struct error *error);
/* Content of the current entry, the holes of sparse files as zeroes (one at the end is left out). It may be more than the
 * entry's size says. Returns the bytes read, 0 at its end, or a negative errno with a sentence. */
int64_t entries_read(struct entries *entries, void *bytes, size_t length, struct error *error);
/* Reads and drops what comes after the end mark (tar pads to 10 KiB), so that the writer does not see a broken pipe. */
void entries_drain(struct entries *entries);
/* NULL is allowed. */
void entries_close(struct entries *entries);

#endif
