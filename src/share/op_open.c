/* op_open.c - opening, making and releasing files and folders.
 *
 * Only what is known to be a regular file or a folder is ever opened: opening a FIFO may block, opening a device may act. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "share/private.h"

/* What a guest may ask of an open. O_DIRECT is its own matter: its page cache is bypassed, the host's is not. */
#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC)
#define CREATE_TRIES 8 /* against others who make and remove the name meanwhile */
#define FILE_MODE 0777u

static bool wants_to_write(uint32_t flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

/* Takes the right to one descriptor more. */
static int take_right(struct share *share)
{
    pthread_mutex_lock(&share->lock);
    int r = descriptor_take(share);
    pthread_mutex_unlock(&share->lock);
    return r;
}

static void give_right(struct share *share)
{
    pthread_mutex_lock(&share->lock);
    descriptor_give(share);
    pthread_mutex_unlock(&share->lock);
}

/* Opens a pinned regular file. Returns a descriptor or a negative errno. */
static int open_file(const struct share *share, const struct inode *inode, uint32_t flags)
{
    if (S_ISDIR(inode->type))
        return -EISDIR;
    if (!S_ISREG(inode->type))
        return S_ISLNK(inode->type) ? -ELOOP : -ENXIO;
    if (wants_to_write(flags) && share->read_only)
        return -EROFS;
    return share_reopen(share, inode->fd, (int)(flags & OPEN_FLAGS));
}

int op_open(struct share *share, struct request *request)
{
    const struct fuse_open_in *in = (const void *)request->argument;
    struct fuse_open_out out = {0}; /* no flags: cached pages are dropped, so that the host's changes are seen */
    int r = take_right(share);
    if (r < 0)
        return r;
    int fd = open_file(share, request->inode, in->flags);
    if (fd < 0) {
        give_right(share);
        return fd;
    }
    r = handle_open(share, request->inode, fd, in->flags & OPEN_FLAGS, &out.fh);
    return r < 0 ? r : request_reply(request, &out, sizeof out);
}

int op_opendir(struct share *share, struct request *request)
{
    struct fuse_open_out out = {0};
    int r = take_right(share);
    if (r < 0)
        return r;
    int fd = openat(request->inode->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        r = -errno;
        give_right(share);
        return r;
    }
    r = handle_open(share, request->inode, fd, 0, &out.fh);
    return r < 0 ? r : request_reply(request, &out, sizeof out);
}

/* Opens the file of a name that exists already, when it is a regular one. */
static int open_existing(struct share *share, struct inode *folder, const char *name, uint32_t flags,
                         struct fuse_entry_out *ret_entry, struct inode **ret_inode)
{
    int r = inode_lookup(share, folder, name, ret_entry);
    if (r < 0)
        return r;
    r = inode_pin(share, ret_entry->nodeid, ret_inode);
    int fd = r < 0 ? r : open_file(share, *ret_inode, flags & ~(uint32_t)O_CREAT);
    if (r == 0 && fd < 0)
        inode_unpin(share, *ret_inode);
    if (fd < 0)
        inode_forget(share, ret_entry->nodeid, 1);
    return fd;
}

/* Makes a file, or opens it if it is there and need not be new. With O_EXCL the host makes it or fails, so nothing else that has the
 * name meanwhile is opened. Returns a descriptor, and its inode pinned and counted as looked up; or a negative errno. */
static int create(struct share *share, struct inode *folder, const char *name, const struct fuse_create_in *in,
                  struct fuse_entry_out *ret_entry, struct inode **ret_inode)
{
    int flags = (int)(in->flags & OPEN_FLAGS) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
    for (int i = 0; i < CREATE_TRIES; i++) {
        int fd = openat(folder->fd, name, flags, in->mode & FILE_MODE);
        int r = fd < 0 ? -errno : inode_adopt(share, folder, name, fd, ret_entry, ret_inode);
        if (fd >= 0 && r < 0)
            close(fd);
        if (fd >= 0)
            return r < 0 ? r : fd;
        if (r != -EEXIST || in->flags & O_EXCL)
            return r;
        fd = open_existing(share, folder, name, in->flags, ret_entry, ret_inode);
        if (fd != -ENOENT)
            return fd;
    }
    return -EAGAIN;
}

/* Takes over what `create` returned: the handle, and the reply with both. */
static int reply_created(struct share *share, struct request *request, int fd, const struct fuse_entry_out *entry,
                         struct inode *inode)
{
    const struct fuse_create_in *in = (const void *)request->argument;
    struct fuse_open_out opened = {0};
    int r = handle_open(share, inode, fd, in->flags & OPEN_FLAGS, &opened.fh);
    inode_unpin(share, inode);
    if (r < 0) {
        inode_forget(share, entry->nodeid, 1);
        return r;
    }
    r = request_reply(request, entry, sizeof *entry);
    return r < 0 ? r : request_reply(request, &opened, sizeof opened);
}

int op_create(struct share *share, struct request *request)
{
    const struct fuse_create_in *in = (const void *)request->argument;
    struct fuse_entry_out entry;
    struct inode *inode;
    char name[NAME_MAX + 1];
    int r = request_take_name(request, name);
    if (r == 0 && in->mode & (S_ISUID | S_ISGID))
        r = -EPERM;
    if (r == 0)
        r = credentials_assume(share, request->header.uid, request->header.gid);
    if (r == 0)
        r = take_right(share);
    if (r < 0)
        return r;
    int fd = create(share, request->inode, name, in, &entry, &inode);
    if (fd < 0) {
        give_right(share);
        return fd;
    }
    return reply_created(share, request, fd, &entry, inode);
}

/* A file without a name; LINK may give it one. */
int op_tmpfile(struct share *share, struct request *request)
{
    const struct fuse_create_in *in = (const void *)request->argument;
    struct fuse_entry_out entry;
    struct inode *inode;
    int r = in->mode & (S_ISUID | S_ISGID) ? -EPERM : credentials_assume(share, request->header.uid, request->header.gid);
    if (r == 0)
        r = take_right(share);
    if (r < 0)
        return r;
    int flags = (int)(in->flags & OPEN_FLAGS & ~(uint32_t)O_TRUNC) | O_TMPFILE | O_CLOEXEC;
    int fd = openat(request->inode->fd, ".", flags, in->mode & FILE_MODE);
    r = fd < 0 ? -errno : inode_adopt(share, request->inode, NULL, fd, &entry, &inode);
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        give_right(share);
        return r;
    }
    return reply_created(share, request, fd, &entry, inode);
}

int share_open_again(struct share *share, const struct inode *inode, uint32_t flags)
{
    int r = take_right(share);
    if (r < 0)
        return r;
    if (S_ISDIR(inode->type)) {
        int fd = openat(inode->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = fd < 0 ? -errno : fd;
    } else {
        r = open_file(share, inode, flags & ~(uint32_t)O_TRUNC);
    }
    if (r < 0)
        give_right(share);
    return r;
}

int op_release(struct share *share, struct request *request)
{
    const struct fuse_release_in *in = (const void *)request->argument;
    return handle_release(share, in->fh, request->inode);
}
