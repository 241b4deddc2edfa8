/* handle.h - what the guest has open: numbers (the protocol's `fh`) for real descriptors.
 *
 * A number is a place in a table and how often the place was used, so that one that was released is not
 * taken for its successor. A handle keeps its inode pinned. */
#ifndef VENEER_SHARE_HANDLE_H
#define VENEER_SHARE_HANDLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct share;
struct inode;

struct handle {
    uint64_t id;
    struct inode *inode;
    int fd;
    uint32_t flags; /* as it was opened */
    unsigned refs; /* requests that use it, and one while it is open */
    bool folder;

    /* A folder's entries that were read and not asked for yet; `folder_lock`, since requests may come at once. */
    pthread_mutex_t folder_lock;
    char *entries;
    size_t first, filled;
    int64_t next; /* the offset that the guest should ask for next; else the folder is read anew from where it asks */
};

struct handle_place {
    struct handle *handle;
    uint32_t uses;
    uint32_t next_free; /* plus one; 0 ends the list */
};

struct handle_table {
    struct handle_place *places;
    uint32_t size, free; /* free: the first free place plus one */
};

/* Makes a handle for a descriptor, which it owns from now on, failure included, and whose right (descriptor_take) the caller
 * took. inode: pinned by the caller; the handle takes a pin of its own. flags: how to open it once more. Returns 0 or a negative errno.
 * Any thread. */
int handle_open(struct share *share, struct inode *inode, int fd, uint32_t flags, uint64_t *ret_id);
/* The same with a number from a saved state; -EEXIST or -EINVAL when it cannot be. After the last one, handle_restored. */
int handle_restore(struct share *share, struct inode *inode, int fd, uint32_t flags, uint64_t id);
void handle_restored(struct share *share);
/* Finds the handle that the guest names, which must be of this inode and a folder or not; keeps it until handle_put.
 * Returns 0 or -EBADF. */
int handle_get(struct share *share, uint64_t id, const struct inode *inode, bool folder, struct handle **ret_handle);
void handle_put(struct share *share, struct handle *handle);
/* The guest releases it: it is closed when the last request has put it. Returns 0 or -EBADF. */
int handle_release(struct share *share, uint64_t id, const struct inode *inode);
/* Releases all. Any thread. */
void handle_table_reset(struct share *share);
/* The same, for good; nobody uses any. */
void handle_table_close(struct share *share);

#endif
