/* rootfs.h - makes a disk from an archive of a root file system: a GPT with one ext4 partition.
 *
 * A program of its own, veneer-rootfs (src/rootfs/), reads the archive by libarchive and writes the file system by
 * libext2fs: it has the archive, the disk and a pipe, and can do nothing else. */
#ifndef VENEER_HOST_ROOTFS_H
#define VENEER_HOST_ROOTFS_H

#include <stdint.h>

#include "base/error.h"

#define ROOTFS_SIZE_MIN (UINT64_C(64) << 20)

/* Makes the disk in `path`, an existing empty file, sparse and `size` bytes (whole MiB, at least ROOTFS_SIZE_MIN)
 * large, from the tar archive that comes out of `tar_fd`, and waits until it is on the host's disk. Runs mke2fs and
 * veneer-rootfs.
 * progress (may be NULL) is called now and then with the bytes of content written. Returns 0 or -ENODATA when the archive
 * ends early, or another negative errno, each with a sentence; the file then holds anything. */
int rootfs_make(const char *path, uint64_t size, int tar_fd, void (*progress)(void *owner, uint64_t bytes),
                void *owner, struct error *error);

#endif
