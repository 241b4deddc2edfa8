/* private.h - the server's parts, for the files of this folder.
 *
 *   share.c        opening, closing, sessions (INIT, DESTROY)
 *   request.c      the bytes of requests and replies; the table of operations
 *   inode.c        what the guest knows of the folder: numbers and O_PATH descriptors
 *   handle.c       what the guest has open
 *   credentials.c  whose files are made, and what serving threads may do
 *   op_*.c         the operations
 *   save.c         the saved form of what the guest knows and has open
 *
 * `lock` covers the tables of inodes and handles and is never held across an operation that may wait for a disk, but for
 * the rare re-opening of a descriptor that was put away (inode.c). */
#ifndef VENEER_SHARE_PRIVATE_H
#define VENEER_SHARE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "share/handle.h"
#include "share/inode.h"
#include "share/request.h"
#include "share/share.h"

struct share {
    bool read_only;
    bool as_root;         /* may give files to any user; see credentials.c */
    bool flushes;         /* closing a file of this folder may fail */
    int proc;             /* O_PATH of /proc/self/fd: how a verified O_PATH descriptor is opened for real */
    _Atomic bool session; /* INIT came */

    pthread_mutex_t lock;
    struct inode_table inodes;
    struct handle_table handles;
    unsigned descriptors, descriptors_max; /* of inodes and handles */
};

/* How long a guest may believe what it was told of names and attributes, in ns: one tick of its clock, at most two (8 ms). With none at all
 * it asks for each component of each path and again for each use; docs/share.md has the figures. */
#define SHARE_VALID_NS 1000000u

/* Takes and gives back the right to one descriptor. Taking puts idle inodes' descriptors away where that is needed; returns 0 or
 * -ENFILE. The lock is held. */
int descriptor_take(struct share *share);
void descriptor_give(struct share *share);

/* Opens what an O_PATH descriptor stands for, which the caller knows to be a regular file or a folder, through the kernel's own
 * link in /proc/self/fd, which leads to that very inode. Returns a descriptor or a negative errno. */
int share_reopen(const struct share *share, int fd, int flags);
/* The path of that link, for calls that know no descriptors. */
#define PROC_PATH_SIZE 32
const char *share_proc_path(int fd, char path[PROC_PATH_SIZE]);

/* credentials.c: who makes the files that this thread makes from now on. Returns 0, or -EPERM when there is no such
 * user here. */
int credentials_assume(const struct share *share, uint32_t uid, uint32_t gid);
/* The group alone, for S_ISGID on a folder of that group. */
int credentials_assume_group(const struct share *share, uint32_t gid);
/* True when this process may give files to any user and override permissions. */
bool credentials_are_roots(void);

/* share.c */
int op_init(struct share *share, struct request *request);
int op_destroy(struct share *share, struct request *request);
/* op_name.c */
int op_lookup(struct share *share, struct request *request);
int op_forget(struct share *share, struct request *request);
int op_batch_forget(struct share *share, struct request *request);
int op_symlink(struct share *share, struct request *request);
int op_mknod(struct share *share, struct request *request);
int op_mkdir(struct share *share, struct request *request);
int op_unlink(struct share *share, struct request *request);
int op_rmdir(struct share *share, struct request *request);
int op_rename(struct share *share, struct request *request);
int op_rename2(struct share *share, struct request *request);
int op_link(struct share *share, struct request *request);
int op_readlink(struct share *share, struct request *request);
/* op_attr.c */
int op_getattr(struct share *share, struct request *request);
int op_setattr(struct share *share, struct request *request);
int op_access(struct share *share, struct request *request);
int op_statfs(struct share *share, struct request *request);
/* op_xattr.c */
int op_setxattr(struct share *share, struct request *request);
int op_getxattr(struct share *share, struct request *request);
int op_listxattr(struct share *share, struct request *request);
int op_removexattr(struct share *share, struct request *request);
/* op_open.c */
int op_open(struct share *share, struct request *request);
int op_create(struct share *share, struct request *request);
int op_tmpfile(struct share *share, struct request *request);
int op_opendir(struct share *share, struct request *request);
int op_release(struct share *share, struct request *request);
/* For a saved state: opens a pinned file or folder as a handle of these flags was, without truncating it. Returns a descriptor, whose
 * right is taken, or a negative errno. */
int share_open_again(struct share *share, const struct inode *inode, uint32_t flags);
/* op_file.c */
int op_read(struct share *share, struct request *request);
int op_write(struct share *share, struct request *request);
int op_flush(struct share *share, struct request *request);
int op_fsync(struct share *share, struct request *request);
int op_fallocate(struct share *share, struct request *request);
int op_lseek(struct share *share, struct request *request);
int op_copy_file_range(struct share *share, struct request *request);
int op_syncfs(struct share *share, struct request *request);
/* op_dir.c */
int op_readdir(struct share *share, struct request *request);
int op_readdirplus(struct share *share, struct request *request);

#endif
