/* op_dir.c - reading folders.
 *
 * Offsets are the host's own (d_off), so a guest may come back to any of them. What the host gave and the guest had no room for
 * stays in the handle; a guest that asks for another offset than the next makes the host seek. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "share/private.h"

#define ENTRIES_SIZE 4096u

/* Makes the handle's entries start at the one that the guest asks for. Returns 1, 0 at the end, or a negative errno. */
static int fill(struct handle *handle, int64_t offset)
{
    if (!handle->entries) {
        handle->entries = malloc(ENTRIES_SIZE);
        if (!handle->entries)
            return -ENOMEM;
    }
    if (offset != handle->next) {
        if (lseek(handle->fd, offset, SEEK_SET) < 0)
            return -errno;
        handle->next = offset;
        handle->first = handle->filled = 0;
    }
    if (handle->first < handle->filled)
        return 1;
    ssize_t length = getdents64(handle->fd, handle->entries, ENTRIES_SIZE);
    handle->first = 0;
    handle->filled = length > 0 ? (size_t)length : 0;
    return length < 0 ? -errno : length > 0;
}

/* Looks an entry up for READDIRPLUS. "." and "..", and what is gone already, stay mere names. */
static void look_up(struct share *share, struct inode *folder, const char *name, struct fuse_entry_out *ret_entry)
{
    memset(ret_entry, 0, sizeof *ret_entry);
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return;
    if (inode_lookup(share, folder, name, ret_entry) < 0)
        memset(ret_entry, 0, sizeof *ret_entry);
}

/* Appends one entry; false when there is no room for it. */
static bool put_entry(struct share *share, struct request *request, const struct dirent64 *host, size_t *room, bool plus)
{
    static const char zeroes[8];
    size_t length = strlen(host->d_name);
    size_t record = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
    size_t all = record + (plus ? sizeof(struct fuse_entry_out) : 0);
    if (all > *room)
        return false;
    struct fuse_dirent entry = {.ino = host->d_ino, .off = (uint64_t)host->d_off, .namelen = (uint32_t)length, .type = host->d_type};
    if (request->inode == share->inodes.root && strcmp(host->d_name, "..") == 0)
        entry.ino = share->inodes.root->key.number; /* as for "/": what is above is not the guest's */
    if (plus) {
        struct fuse_entry_out looked;
        look_up(share, request->inode, host->d_name, &looked);
        request_reply(request, &looked, sizeof looked);
    }
    request_reply(request, &entry, FUSE_NAME_OFFSET);
    request_reply(request, host->d_name, length);
    request_reply(request, zeroes, record - FUSE_NAME_OFFSET - length);
    *room -= all;
    return true;
}

static int read_folder(struct share *share, struct request *request, bool plus)
{
    const struct fuse_read_in *in = (const void *)request->argument;
    struct handle *handle;
    size_t room = in->size < request->out_left ? in->size : request->out_left;
    int64_t offset = (int64_t)in->offset;
    int r = handle_get(share, in->fh, request->inode, true, &handle);
    if (r < 0)
        return r;
    pthread_mutex_lock(&handle->folder_lock);
    bool full = false;
    while (!full && (r = fill(handle, offset)) > 0) {
        const struct dirent64 *entry = (const void *)(handle->entries + handle->first);
        full = !put_entry(share, request, entry, &room, plus);
        if (!full) {
            handle->first += entry->d_reclen;
            offset = handle->next = entry->d_off;
        }
    }
    pthread_mutex_unlock(&handle->folder_lock);
    handle_put(share, handle);
    if (full && request->out_used == 0)
        return -EINVAL; /* not even one */
    return request->out_used ? 0 : r;
}

int op_readdir(struct share *share, struct request *request)
{
    return read_folder(share, request, false);
}

int op_readdirplus(struct share *share, struct request *request)
{
    return read_folder(share, request, true);
}
