/* op_attr.c - attributes: of files, of the file system. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share/private.h"

#define MODE_BITS 07777u

static int reply_attributes(struct request *request)
{
    struct fuse_attr_out out = {.attr_valid_nsec = SHARE_VALID_NS};
    int r = inode_attributes(request->inode, &out.attr);
    return r < 0 ? r : request_reply(request, &out, sizeof out);
}

int op_getattr(struct share *share, struct request *request)
{
    (void)share;
    return reply_attributes(request);
}

/* A guest may keep set-user-ID and set-group-ID bits, and set the latter on folders, where they only say whose group new files
 * get. It gives no file a bit that lets a user of the host run it as another. */
static int check_mode(const struct inode *inode, uint32_t mode)
{
    struct fuse_attr now;
    uint32_t risky = mode & (S_ISDIR(inode->type) ? S_ISUID : S_ISUID | S_ISGID);
    if (!risky)
        return 0;
    int r = inode_attributes(inode, &now);
    if (r < 0)
        return r;
    return risky & ~now.mode ? -EPERM : 0;
}

static int set_mode(struct share *share, const struct inode *inode, uint32_t mode)
{
    char path[PROC_PATH_SIZE];
    if (S_ISLNK(inode->type))
        return -EOPNOTSUPP;
    int r = check_mode(inode, mode);
    if (r == 0 && mode & S_ISGID) { /* without CAP_FSETID only a member of the group may set it */
        struct fuse_attr now;
        r = inode_attributes(inode, &now);
        if (r == 0)
            r = credentials_assume_group(share, now.gid);
    }
    if (r < 0)
        return r;
    return chmod(share_proc_path(inode->fd, path), mode & MODE_BITS) < 0 ? -errno : 0;
}

static int set_owner(const struct inode *inode, const struct fuse_setattr_in *in)
{
    uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
    gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;
    return fchownat(inode->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* By the guest's handle, since a file may be open to write and not allow it any more; else by a descriptor of our own. */
static int set_size(struct share *share, struct request *request, const struct fuse_setattr_in *in)
{
    struct handle *handle;
    if (!S_ISREG(request->inode->type))
        return S_ISDIR(request->inode->type) ? -EISDIR : -EINVAL;
    if (in->size > INT64_MAX)
        return -EFBIG;
    if (in->valid & FATTR_FH) {
        int r = handle_get(share, in->fh, request->inode, false, &handle);
        if (r < 0)
            return r;
        r = ftruncate(handle->fd, (off_t)in->size) < 0 ? -errno : 0;
        handle_put(share, handle);
        return r;
    }
    int fd = share_reopen(share, request->inode->fd, O_WRONLY | O_NONBLOCK);
    if (fd < 0)
        return fd;
    int r = ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
    close(fd);
    return r;
}

static struct timespec time_of(const struct fuse_setattr_in *in, uint32_t set, uint32_t now, uint64_t seconds, uint32_t nanoseconds)
{
    if (in->valid & now)
        return (struct timespec){0, UTIME_NOW};
    if (in->valid & set)
        return (struct timespec){(time_t)seconds, nanoseconds};
    return (struct timespec){0, UTIME_OMIT};
}

static int set_times(const struct inode *inode, const struct fuse_setattr_in *in)
{
    struct timespec times[2] = {
        time_of(in, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
        time_of(in, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
    };
    return utimensat(inode->fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* The owner before the mode: a change of owner takes set-ID bits away. Size before times: it changes them. */
int op_setattr(struct share *share, struct request *request)
{
    const struct fuse_setattr_in *in = (const void *)request->argument;
    int r = 0;
    if (in->valid & (FATTR_UID | FATTR_GID))
        r = set_owner(request->inode, in);
    if (r == 0 && in->valid & FATTR_MODE)
        r = set_mode(share, request->inode, in->mode);
    if (r == 0 && in->valid & FATTR_SIZE)
        r = set_size(share, request, in);
    if (r == 0 && in->valid & (FATTR_ATIME | FATTR_MTIME))
        r = set_times(request->inode, in);
    return r < 0 ? r : reply_attributes(request);
}

/* A guest that checks permissions itself, as it is told to, does not ask. */
int op_access(struct share *share, struct request *request)
{
    const struct fuse_access_in *in = (const void *)request->argument;
    if (in->mask & ~(uint32_t)(R_OK | W_OK | X_OK))
        return -EINVAL;
    if (in->mask & W_OK && share->read_only)
        return -EROFS;
    long r = syscall(SYS_faccessat2, request->inode->fd, "", in->mask, AT_EMPTY_PATH | AT_EACCESS);
    return r < 0 ? -errno : 0;
}

int op_statfs(struct share *share, struct request *request)
{
    struct statfs fs;
    (void)share;
    if (fstatfs(request->inode->fd, &fs) < 0)
        return -errno;
    struct fuse_statfs_out out = {.st = {
        .blocks = fs.f_blocks,
        .bfree = fs.f_bfree,
        .bavail = fs.f_bavail,
        .files = fs.f_files,
        .ffree = fs.f_ffree,
        .bsize = (uint32_t)fs.f_bsize,
        .namelen = (uint32_t)fs.f_namelen,
        .frsize = (uint32_t)fs.f_frsize,
    }};
    return request_reply(request, &out, sizeof out);
}
