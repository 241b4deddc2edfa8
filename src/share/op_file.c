/* op_file.c - operations on open files. Data goes straight between the file and the guest's memory. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "share/private.h"

#define VECTORS 64u           /* iovecs of one system call; requests with more take several */
#define COPY_MAX (64u << 20)  /* bytes that one COPY_FILE_RANGE may keep a thread busy with; the guest asks again */
#define FALLOCATE_MODES (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)

/* Moves up to `length` bytes between file and cursor, until the file or the cursor ends. Returns the bytes, or a negative errno when
 * it was the first step that failed. */
static ssize_t transfer(int fd, struct cursor *cursor, uint64_t offset, size_t length, bool writes)
{
    size_t done = 0;
    while (done < length) {
        struct iovec iov[VECTORS];
        size_t bytes;
        unsigned count = cursor_slice(cursor, length - done, iov, VECTORS, &bytes);
        if (count == 0)
            break;
        off_t at = (off_t)(offset + done);
        ssize_t r = writes ? pwritev(fd, iov, (int)count, at) : preadv(fd, iov, (int)count, at);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return done ? (ssize_t)done : -errno;
        cursor_advance(cursor, (size_t)r);
        done += (size_t)r;
        if ((size_t)r < bytes)
            break;
    }
    return (ssize_t)done;
}

static bool is_range(uint64_t offset, uint64_t length)
{
    return offset <= INT64_MAX && length <= INT64_MAX - offset;
}

int op_read(struct share *share, struct request *request)
{
    const struct fuse_read_in *in = (const void *)request->argument;
    struct handle *handle;
    size_t length = in->size < request->out_left ? in->size : request->out_left;
    if (!is_range(in->offset, length))
        return -EINVAL;
    int r = handle_get(share, in->fh, request->inode, false, &handle);
    if (r < 0)
        return r;
    ssize_t done = transfer(handle->fd, &request->out, in->offset, length, false);
    handle_put(share, handle);
    if (done < 0)
        return (int)done;
    request->out_used += (size_t)done;
    request->out_left -= (size_t)done;
    return 0;
}

int op_write(struct share *share, struct request *request)
{
    const struct fuse_write_in *in = (const void *)request->argument;
    struct fuse_write_out out = {0};
    struct handle *handle;
    if (in->size > request->in_left || !is_range(in->offset, in->size))
        return -EINVAL;
    int r = handle_get(share, in->fh, request->inode, false, &handle);
    if (r < 0)
        return r;
    ssize_t done = transfer(handle->fd, &request->in, in->offset, in->size, true);
    handle_put(share, handle);
    if (done < 0)
        return (int)done;
    out.size = (uint32_t)done;
    return request_reply(request, &out, sizeof out);
}

/* What a close does on the host: some file systems (NFS) tell of a failed write only then. On those that do not, one -ENOSYS saves
 * the guest a request for every close. */
int op_flush(struct share *share, struct request *request)
{
    const struct fuse_flush_in *in = (const void *)request->argument;
    struct handle *handle;
    if (!share->flushes)
        return -ENOSYS;
    int r = handle_get(share, in->fh, request->inode, false, &handle);
    if (r < 0)
        return r;
    int fd = fcntl(handle->fd, F_DUPFD_CLOEXEC, 0);
    r = fd < 0 || close(fd) < 0 ? -errno : 0;
    handle_put(share, handle);
    return r;
}

/* FSYNC and FSYNCDIR. */
int op_fsync(struct share *share, struct request *request)
{
    const struct fuse_fsync_in *in = (const void *)request->argument;
    struct handle *handle;
    int r = handle_get(share, in->fh, request->inode, request->header.opcode == FUSE_FSYNCDIR, &handle);
    if (r < 0)
        return r;
    r = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(handle->fd) : fsync(handle->fd);
    r = r < 0 ? -errno : 0;
    handle_put(share, handle);
    return r;
}

int op_fallocate(struct share *share, struct request *request)
{
    const struct fuse_fallocate_in *in = (const void *)request->argument;
    struct handle *handle;
    if (in->mode & ~(uint32_t)FALLOCATE_MODES)
        return -EOPNOTSUPP;
    if (!is_range(in->offset, in->length))
        return -EINVAL;
    int r = handle_get(share, in->fh, request->inode, false, &handle);
    if (r < 0)
        return r;
    r = fallocate(handle->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno : 0;
    handle_put(share, handle);
    return r;
}

/* Holes and data; other positions the guest knows itself. */
int op_lseek(struct share *share, struct request *request)
{
    const struct fuse_lseek_in *in = (const void *)request->argument;
    struct fuse_lseek_out out = {0};
    struct handle *handle;
    if ((in->whence != SEEK_DATA && in->whence != SEEK_HOLE) || in->offset > INT64_MAX)
        return -EINVAL;
    int r = handle_get(share, in->fh, request->inode, false, &handle);
    if (r < 0)
        return r;
    off_t at = lseek(handle->fd, (off_t)in->offset, (int)in->whence);
    r = at < 0 ? -errno : 0;
    handle_put(share, handle);
    out.offset = (uint64_t)at;
    return r < 0 ? r : request_reply(request, &out, sizeof out);
}

int op_copy_file_range(struct share *share, struct request *request)
{
    const struct fuse_copy_file_range_in *in = (const void *)request->argument;
    struct fuse_write_out out = {0};
    struct inode *target;
    struct handle *from, *to;
    size_t length = in->len < COPY_MAX ? (size_t)in->len : COPY_MAX;
    if (in->flags || !is_range(in->off_in, length) || !is_range(in->off_out, length))
        return -EINVAL;
    int r = inode_pin(share, in->nodeid_out, &target);
    if (r < 0)
        return r;
    r = handle_get(share, in->fh_in, request->inode, false, &from);
    if (r < 0)
        goto unpin;
    r = handle_get(share, in->fh_out, target, false, &to);
    if (r < 0)
        goto put;
    off_t off_in = (off_t)in->off_in, off_out = (off_t)in->off_out;
    ssize_t done = copy_file_range(from->fd, &off_in, to->fd, &off_out, length, 0);
    r = done < 0 ? -errno : 0;
    out.size = (uint32_t)done;
    handle_put(share, to);
put:
    handle_put(share, from);
unpin:
    inode_unpin(share, target);
    return r < 0 ? r : request_reply(request, &out, sizeof out);
}

int op_syncfs(struct share *share, struct request *request)
{
    (void)share;
    /* Regular files and folders only may be opened; a guest asks for the root. */
    if (!S_ISDIR(request->inode->type))
        return -EINVAL;
    int fd = openat(request->inode->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = syncfs(fd) < 0 ? -errno : 0;
    close(fd);
    return r;
}
