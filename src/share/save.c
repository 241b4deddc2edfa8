/* save.c - the saved form of a share: what the guest knows and has open, by paths within the folder.
 *
 * A path is what the kernel calls the descriptor (/proc/self/fd), checked by opening it anew. Loading opens the paths below the root,
 * through no link, and takes a file only if it is the same: number, time of birth and type. What is not found again is left out: the
 * guest gets ESTALE, as it would from a server that restarted. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "share/private.h"

#define VERSION 1

/* The absolute path that the kernel has for a descriptor; false when there is none or it is too long. */
static bool kernel_path(int fd, char path[PATH_MAX])
{
    char link[PROC_PATH_SIZE];
    ssize_t length = readlink(share_proc_path(fd, link), path, PATH_MAX);
    if (length <= 0 || length >= PATH_MAX)
        return false;
    path[length] = '\0';
    return true;
}

/* The inode's path from the root on, or false: it has none, or none that leads there. */
static bool find_path(struct share *share, const struct inode *inode, char path[PATH_MAX])
{
    char root[PATH_MAX], whole[PATH_MAX];
    int fd = inode->fd >= 0 ? inode->fd : inode->parent ? inode->parent->fd : -1;
    if (fd < 0 || !kernel_path(share->inodes.root->fd, root) || !kernel_path(fd, whole))
        return false;
    size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(whole, root, length) != 0 || (whole[length] != '/' && whole[length] != '\0'))
        return false;
    const char *below = whole[length] ? whole + length + 1 : "";
    int n = inode->fd >= 0 ? snprintf(path, PATH_MAX, "%s", below)
                           : snprintf(path, PATH_MAX, "%s%s%s", below, below[0] ? "/" : "", inode->name);
    return n > 0 && n < PATH_MAX && inode_is_at(share, inode, path);
}

/* True when the inode is among those that a guest has open. */
static bool is_open(const struct share *share, const struct inode *inode)
{
    for (uint32_t i = 0; i < share->handles.size; i++)
        if (share->handles.places[i].handle && share->handles.places[i].handle->inode == inode)
            return true;
    return false;
}

static void save_inode(struct share *share, struct stream *stream, const struct inode *inode)
{
    char path[PATH_MAX];
    if (inode == share->inodes.root || inode->lookups == 0)
        return;
    if (!find_path(share, inode, path)) {
        if (is_open(share, inode))
            stream_fail(stream, "the guest has a file of the share open that has no name any more; such a machine cannot be saved");
        return;
    }
    stream_put_u64(stream, inode->id);
    stream_put_u64(stream, inode->lookups);
    stream_put_u32(stream, inode->type);
    stream_put_u64(stream, inode->key.number);
    stream_put_u64(stream, (uint64_t)inode->key.birth_s);
    stream_put_u64(stream, inode->key.birth_ns);
    stream_put_u16(stream, (uint16_t)strlen(path));
    stream_put_bytes(stream, path, strlen(path));
}

void share_save(struct share *share, struct stream *stream)
{
    struct inode *inode;
    stream_begin(stream, "share", VERSION);
    stream_put_u8(stream, share->read_only);
    stream_put_u8(stream, share_in_use(share));
    stream_put_u64(stream, share->inodes.last_id);
    for (unsigned i = 0; i < share->inodes.buckets; i++)
        LIST_FOREACH(inode, &share->inodes.by_id[i], by_id)
            save_inode(share, stream, inode);
    stream_put_u64(stream, 0); /* no inode's number */
    for (uint32_t i = 0; i < share->handles.size; i++) {
        const struct handle *handle = share->handles.places[i].handle;
        if (!handle)
            continue;
        stream_put_u64(stream, handle->id);
        stream_put_u64(stream, handle->inode->id);
        stream_put_u32(stream, handle->flags);
    }
    stream_put_u64(stream, 0);
    stream_end(stream);
}

/* Reads one inode; false at the end of them. */
static bool load_inode(struct share *share, struct stream *stream)
{
    char path[PATH_MAX];
    struct inode saved = {.id = stream_get_u64(stream)};
    if (saved.id == 0 || stream_status(stream, NULL) < 0)
        return false;
    saved.lookups = stream_get_u64(stream);
    saved.type = stream_get_u32(stream);
    saved.key.number = stream_get_u64(stream);
    saved.key.birth_s = (int64_t)stream_get_u64(stream);
    saved.key.birth_ns = stream_get_u64(stream);
    uint16_t length = stream_get_u16(stream);
    if (length == 0 || length >= PATH_MAX)
        stream_fail(stream, "a path of %u bytes in a share", length);
    else
        stream_get_bytes(stream, path, length);
    if (stream_status(stream, NULL) < 0)
        return false;
    path[length] = '\0';
    if (saved.id > share->inodes.last_id || saved.lookups == 0 || strlen(path) != length) {
        stream_fail(stream, "an impossible file in a share");
        return false;
    }
    if (inode_restore(share, &saved, path) == -EEXIST)
        stream_fail(stream, "a file of a share comes twice");
    return stream_status(stream, NULL) == 0;
}

/* Reads one handle; false at the end of them. One whose file is not there any more is left out. */
static bool load_handle(struct share *share, struct stream *stream)
{
    uint64_t id = stream_get_u64(stream);
    if (id == 0 || stream_status(stream, NULL) < 0)
        return false;
    uint64_t node = stream_get_u64(stream);
    uint32_t flags = stream_get_u32(stream);
    struct inode *inode;
    if (stream_status(stream, NULL) < 0)
        return false;
    if (inode_pin(share, node, &inode) < 0)
        return true;
    int fd = share_open_again(share, inode, flags);
    int r = fd < 0 ? 0 : handle_restore(share, inode, fd, flags, id);
    inode_unpin(share, inode);
    if (r < 0)
        stream_fail(stream, "an impossible open file in a share");
    return r == 0;
}

void share_load(struct share *share, struct stream *stream)
{
    if (!stream_enter(stream, "share", VERSION))
        return;
    bool read_only = stream_get_u8(stream), session = stream_get_u8(stream);
    uint64_t last_id = stream_get_u64(stream);
    if (read_only != share->read_only)
        stream_fail(stream, "the share was %s when it was saved", read_only ? "read-only" : "writable");
    else if (last_id < FUSE_ROOT_ID || last_id > INT64_MAX)
        stream_fail(stream, "an impossible number in a share");
    if (stream_status(stream, NULL) == 0) {
        share->inodes.last_id = last_id;
        while (load_inode(share, stream))
            continue;
        while (load_handle(share, stream))
            continue;
        handle_restored(share);
    }
    stream_leave(stream);
    if (stream_status(stream, NULL) == 0)
        atomic_store(&share->session, session);
    else
        share_reset(share);
}
