/* tar.h - reads a tar archive from a pipe: ustar, its pax extensions (POSIX.1-2017, "pax Interchange Format") and
 * GNU's long names. What it hands out is bounded and inside the archive's root, whatever the bytes are.
 *
 * One thread. */
#ifndef VENEER_HOST_TAR_H
#define VENEER_HOST_TAR_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tar;

#define TAR_PATH_MAX 4096
#define TAR_XATTRS_MAX 32

struct tar_xattr {
    const char *name; /* "security.capability" */
    const void *value;
    size_t length;
};

enum tar_type { TAR_FILE, TAR_LINK, TAR_SYMLINK, TAR_CHAR, TAR_BLOCK, TAR_FOLDER, TAR_FIFO };

struct tar_entry {
    enum tar_type type;
    const char *path;   /* relative, without "." and ".." parts; "" is the root itself */
    const char *target; /* TAR_LINK: a path as above; TAR_SYMLINK: any text; else "" */
    uint32_t mode;      /* permissions, 07777 */
    uint32_t uid, gid;
    int64_t mtime;      /* seconds since 1970 */
    uint64_t size;      /* TAR_FILE: bytes of content */
    uint32_t major, minor;
    unsigned xattrs;
    struct tar_xattr xattr[TAR_XATTRS_MAX];
};

/* The descriptor stays the caller's. Returns 0 or -ENOMEM. */
int tar_open(int fd, struct tar **ret_tar, struct error *error);
/* The next entry, valid until the next call; content that was not read is skipped. Returns 1, 0 at the archive's end,
 * or a negative errno with a sentence. */
int tar_next(struct tar *tar, struct tar_entry *ret_entry, struct error *error);
/* Content of the current entry. Returns the bytes read, 0 at its end, or a negative errno with a sentence. */
int64_t tar_read(struct tar *tar, void *bytes, size_t length, struct error *error);
/* NULL is allowed. */
void tar_close(struct tar *tar);

#endif
