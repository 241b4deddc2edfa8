/* op_xattr.c - extended attributes: those of users only.
 *
 * "security.*", "trusted.*" and "system.*" mean something to the host's kernel: a guest that sets file capabilities or
 * access lists would set the host's. They are not there for a guest, neither to see nor to set. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "share/private.h"

static const char prefix[] = "user.";

static bool is_served(const char *name)
{
    return strncmp(name, prefix, sizeof prefix - 1) == 0;
}

/* The name, and the path of a file that may have such attributes: the host allows them on regular files and folders. */
static int prepare(struct request *request, char name[XATTR_NAME_MAX + 1], char path[PROC_PATH_SIZE])
{
    int r = request_take_string(request, name, XATTR_NAME_MAX + 1);
    if (r < 0)
        return r == -ENAMETOOLONG ? -ERANGE : r;
    if (!is_served(name) || (!S_ISREG(request->inode->type) && !S_ISDIR(request->inode->type)))
        return -EOPNOTSUPP;
    share_proc_path(request->inode->fd, path);
    return 0;
}

int op_setxattr(struct share *share, struct request *request)
{
    struct fuse_setxattr_in in = {0};
    char name[XATTR_NAME_MAX + 1], path[PROC_PATH_SIZE];
    (void)share;
    memcpy(&in, request->argument, FUSE_COMPAT_SETXATTR_IN_SIZE);
    int r = prepare(request, name, path);
    if (r < 0)
        return r;
    if (in.size > XATTR_SIZE_MAX)
        return -E2BIG;
    uint8_t *value = malloc(in.size ? in.size : 1);
    if (!value)
        return -ENOMEM;
    r = request_take(request, value, in.size);
    if (r == 0 && setxattr(path, name, value, in.size, (int)in.flags) < 0)
        r = -errno;
    free(value);
    return r;
}

/* Replies with a value, or with its size alone when that is what the guest asked for (size 0). */
static int reply_value(struct request *request, const char *value, size_t length, uint32_t size)
{
    struct fuse_getxattr_out out = {.size = (uint32_t)length};
    if (size == 0)
        return request_reply(request, &out, sizeof out);
    if (length > size || length > request->out_left)
        return -ERANGE;
    return request_reply(request, value, length);
}

int op_getxattr(struct share *share, struct request *request)
{
    const struct fuse_getxattr_in *in = (const void *)request->argument;
    char name[XATTR_NAME_MAX + 1], path[PROC_PATH_SIZE];
    (void)share;
    int r = prepare(request, name, path);
    if (r < 0)
        return r;
    char *value = malloc(XATTR_SIZE_MAX);
    if (!value)
        return -ENOMEM;
    ssize_t length = getxattr(path, name, value, XATTR_SIZE_MAX);
    r = length < 0 ? -errno : reply_value(request, value, (size_t)length, in->size);
    free(value);
    return r;
}

/* Drops the names that are not served; returns the length of the rest. */
static size_t filter(char *names, size_t length)
{
    size_t kept = 0;
    for (size_t at = 0; at < length;) {
        size_t one = strnlen(names + at, length - at) + 1;
        if (one > length - at)
            break;
        if (is_served(names + at)) {
            memmove(names + kept, names + at, one);
            kept += one;
        }
        at += one;
    }
    return kept;
}

int op_listxattr(struct share *share, struct request *request)
{
    const struct fuse_getxattr_in *in = (const void *)request->argument;
    char path[PROC_PATH_SIZE];
    (void)share;
    if (!S_ISREG(request->inode->type) && !S_ISDIR(request->inode->type))
        return reply_value(request, "", 0, in->size);
    char *names = malloc(XATTR_LIST_MAX);
    if (!names)
        return -ENOMEM;
    ssize_t length = listxattr(share_proc_path(request->inode->fd, path), names, XATTR_LIST_MAX);
    int r = length < 0 ? -errno : reply_value(request, names, filter(names, (size_t)length), in->size);
    free(names);
    return r;
}

int op_removexattr(struct share *share, struct request *request)
{
    char name[XATTR_NAME_MAX + 1], path[PROC_PATH_SIZE];
    (void)share;
    int r = prepare(request, name, path);
    if (r == 0 && removexattr(path, name) < 0)
        r = -errno;
    return r;
}
