/* op_name.c - operations on names: looking up, making, renaming, removing.
 *
 * Every name is one valid component in a folder held by descriptor, and no call here follows a link. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "share/private.h"

/* Looks up what was just made and replies with it. */
static int reply_entry(struct share *share, struct request *request, const char *name)
{
    struct fuse_entry_out entry;
    int r = inode_lookup(share, request->inode, name, &entry);
    return r < 0 ? r : request_reply(request, &entry, sizeof entry);
}

/* The name, and the guest's user as the one who makes it. */
static int prepare_making(struct share *share, struct request *request, char name[NAME_MAX + 1])
{
    int r = request_take_name(request, name);
    return r < 0 ? r : credentials_assume(share, request->header.uid, request->header.gid);
}

int op_lookup(struct share *share, struct request *request)
{
    char name[NAME_MAX + 1];
    int r = request_take_name(request, name);
    return r < 0 ? r : reply_entry(share, request, name);
}

int op_forget(struct share *share, struct request *request)
{
    const struct fuse_forget_in *in = (const void *)request->argument;
    inode_forget(share, request->header.nodeid, in->nlookup);
    return 0;
}

int op_batch_forget(struct share *share, struct request *request)
{
    const struct fuse_batch_forget_in *in = (const void *)request->argument;
    struct fuse_forget_one one;
    for (uint32_t i = 0; i < in->count && request_take(request, &one, sizeof one) == 0; i++)
        inode_forget(share, one.nodeid, one.nlookup);
    return 0;
}

int op_symlink(struct share *share, struct request *request)
{
    char name[NAME_MAX + 1], target[PATH_MAX];
    int r = prepare_making(share, request, name);
    if (r == 0)
        r = request_take_string(request, target, sizeof target);
    if (r < 0)
        return r;
    if (symlinkat(target, request->inode->fd, name) < 0)
        return -errno;
    return reply_entry(share, request, name);
}

/* Device nodes stay out of the host: a node would be the host's device, not the guest's. */
int op_mknod(struct share *share, struct request *request)
{
    const struct fuse_mknod_in *in = (const void *)request->argument;
    char name[NAME_MAX + 1];
    int r = prepare_making(share, request, name);
    if (r < 0)
        return r;
    mode_t type = in->mode & S_IFMT;
    if ((type != S_IFREG && type != S_IFIFO && type != S_IFSOCK) || in->mode & (S_ISUID | S_ISGID))
        return -EPERM;
    if (mknodat(request->inode->fd, name, in->mode, 0) < 0)
        return -errno;
    return reply_entry(share, request, name);
}

int op_mkdir(struct share *share, struct request *request)
{
    const struct fuse_mkdir_in *in = (const void *)request->argument;
    char name[NAME_MAX + 1];
    int r = prepare_making(share, request, name);
    if (r < 0)
        return r;
    if (mkdirat(request->inode->fd, name, in->mode & (S_IRWXU | S_IRWXG | S_IRWXO | S_ISVTX)) < 0)
        return -errno;
    return reply_entry(share, request, name);
}

static int unlink_name(struct share *share, struct request *request, int flags)
{
    char name[NAME_MAX + 1];
    int r = request_take_name(request, name);
    if (r < 0)
        return r;
    inode_before_unlink(share, request->inode, name);
    return unlinkat(request->inode->fd, name, flags) < 0 ? -errno : 0;
}

int op_unlink(struct share *share, struct request *request)
{
    return unlink_name(share, request, 0);
}

int op_rmdir(struct share *share, struct request *request)
{
    return unlink_name(share, request, AT_REMOVEDIR);
}

static int rename_names(struct share *share, struct request *request, uint64_t folder, unsigned flags)
{
    char from[NAME_MAX + 1], to[NAME_MAX + 1];
    struct inode *target;
    int r = request_take_name(request, from);
    if (r == 0)
        r = request_take_name(request, to);
    if (r == 0)
        r = inode_pin(share, folder, &target);
    if (r < 0)
        return r;
    /* Neither the file that is replaced nor the one that moves is where it was remembered. */
    inode_before_unlink(share, target, to);
    inode_before_unlink(share, request->inode, from);
    r = renameat2(request->inode->fd, from, target->fd, to, flags) < 0 ? -errno : 0;
    inode_unpin(share, target);
    return r;
}

int op_rename(struct share *share, struct request *request)
{
    const struct fuse_rename_in *in = (const void *)request->argument;
    return rename_names(share, request, in->newdir, 0);
}

/* RENAME_WHITEOUT would leave a device node. */
int op_rename2(struct share *share, struct request *request)
{
    const struct fuse_rename2_in *in = (const void *)request->argument;
    if (in->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    return rename_names(share, request, in->newdir, in->flags);
}

/* The nodes of a LINK are the other way round: the header has the folder, the argument the file. */
int op_link(struct share *share, struct request *request)
{
    const struct fuse_link_in *in = (const void *)request->argument;
    char name[NAME_MAX + 1], link[16];
    struct inode *file;
    int r = request_take_name(request, name);
    if (r == 0)
        r = inode_pin(share, in->oldnodeid, &file);
    if (r < 0)
        return r;
    /* The kernel's link in /proc leads to the inode itself, a symbolic link included, and no further. */
    snprintf(link, sizeof link, "%d", file->fd);
    r = S_ISDIR(file->type) ? -EPERM : 0;
    if (r == 0 && linkat(share->proc, link, request->inode->fd, name, AT_SYMLINK_FOLLOW) < 0)
        r = -errno;
    if (r == 0)
        r = reply_entry(share, request, name);
    inode_unpin(share, file);
    return r;
}

int op_readlink(struct share *share, struct request *request)
{
    char target[PATH_MAX];
    (void)share;
    ssize_t length = readlinkat(request->inode->fd, "", target, sizeof target);
    if (length < 0)
        return errno == ENOENT ? -EINVAL : -errno; /* the kernel's word for what is no link */
    return request_reply(request, target, (size_t)length);
}
