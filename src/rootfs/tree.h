/* tree.h - puts the entries of an archive into an ext4 file system, by libext2fs: owners, permissions, times, extended
 * attributes, device nodes and hard links as they are in it. So it takes no root and no mount.
 *
 * One thread. */
#ifndef VENEER_ROOTFS_TREE_H
#define VENEER_ROOTFS_TREE_H

#include <stdint.h>

#include "base/error.h"
#include "rootfs/entries.h"

struct tree;

/* Opens the empty file system that lies `offset` bytes into the file; its unused blocks are zeroes. Returns 0 or a negative
 * errno with a sentence. */
int tree_open(const char *path, uint64_t offset, struct tree **ret_tree, struct error *error);
/* Adds all entries. progress (may be NULL) is called now and then with the bytes of content written. Returns 0, -ENOSPC
 * when they do not fit, or another negative errno, each with a sentence; the tree then holds anything. */
int tree_fill(struct tree *tree, struct entries *entries, void (*progress)(uint64_t bytes), struct error *error);
/* Writes what is not written yet, waits until it is on the host's disk, and closes it. Returns 0 or a negative errno
 * with a sentence; it is closed then too. */
int tree_close(struct tree *tree, struct error *error);

#endif
