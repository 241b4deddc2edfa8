/* handle.c - see handle.h. */
#include "share/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "share/private.h"

#define PLACES_FIRST 64u
#define PLACES_MAX (1u << 20) /* of a saved state */

static uint64_t make_id(uint32_t place, uint32_t uses)
{
    return (uint64_t)uses << 32 | place;
}

/* Makes the table hold at least `size` places. The lock is held. */
static int grow(struct handle_table *table, uint32_t size)
{
    struct handle_place *places = realloc(table->places, size * sizeof *places);
    if (!places)
        return -ENOMEM;
    for (uint32_t i = size; i-- > table->size;) {
        places[i] = (struct handle_place){NULL, 0, table->free};
        table->free = i + 1;
    }
    table->places = places;
    table->size = size;
    return 0;
}

/* Puts a new handle into a free place. Returns its number. The lock is held. */
static uint64_t settle(struct share *share, struct handle *handle, struct inode *inode, int fd, uint32_t flags, uint32_t place)
{
    struct handle_place *at = &share->handles.places[place];
    *handle = (struct handle){.id = make_id(place, at->uses), .inode = inode, .fd = fd, .flags = flags, .refs = 1,
                              .folder = S_ISDIR(inode->type)};
    pthread_mutex_init(&handle->folder_lock, NULL);
    at->handle = handle;
    inode->pins++;
    return handle->id;
}

/* What a failure leaves behind. The lock is held. */
static int give_up(struct share *share, struct handle *handle, int fd, int code)
{
    descriptor_give(share);
    close(fd);
    free(handle);
    return -code;
}

int handle_open(struct share *share, struct inode *inode, int fd, uint32_t flags, uint64_t *ret_id)
{
    struct handle_table *table = &share->handles;
    struct handle *handle = calloc(1, sizeof *handle);
    int r = 0;
    pthread_mutex_lock(&share->lock);
    if (!handle || (!table->free && grow(table, table->size ? 2 * table->size : PLACES_FIRST) < 0)) {
        r = give_up(share, handle, fd, ENOMEM);
    } else {
        uint32_t place = table->free - 1;
        table->free = table->places[place].next_free;
        table->places[place].uses++;
        *ret_id = settle(share, handle, inode, fd, flags, place);
    }
    pthread_mutex_unlock(&share->lock);
    return r;
}

int handle_restore(struct share *share, struct inode *inode, int fd, uint32_t flags, uint64_t id)
{
    struct handle_table *table = &share->handles;
    struct handle *handle = calloc(1, sizeof *handle);
    uint32_t place = (uint32_t)id;
    int r = 0;
    pthread_mutex_lock(&share->lock);
    if (!handle || place >= PLACES_MAX || (place >= table->size && grow(table, place + 1) < 0)) {
        r = give_up(share, handle, fd, handle ? EINVAL : ENOMEM);
    } else if (table->places[place].handle) {
        r = give_up(share, handle, fd, EEXIST);
    } else {
        table->places[place].uses = (uint32_t)(id >> 32);
        settle(share, handle, inode, fd, flags, place);
    }
    pthread_mutex_unlock(&share->lock);
    return r;
}

void handle_restored(struct share *share)
{
    struct handle_table *table = &share->handles;
    pthread_mutex_lock(&share->lock);
    table->free = 0;
    for (uint32_t i = table->size; i-- > 0;)
        if (!table->places[i].handle) {
            table->places[i].next_free = table->free;
            table->free = i + 1;
        }
    pthread_mutex_unlock(&share->lock);
}

/* The place of a handle that is open and of this inode, or NULL. The lock is held. */
static struct handle_place *find(struct share *share, uint64_t id, const struct inode *inode)
{
    uint32_t place = (uint32_t)id;
    if (place >= share->handles.size)
        return NULL;
    struct handle_place *at = &share->handles.places[place];
    return at->handle && at->handle->id == id && at->handle->inode == inode ? at : NULL;
}

int handle_get(struct share *share, uint64_t id, const struct inode *inode, bool folder, struct handle **ret_handle)
{
    pthread_mutex_lock(&share->lock);
    struct handle_place *at = find(share, id, inode);
    struct handle *handle = at && at->handle->folder == folder ? at->handle : NULL;
    if (handle)
        handle->refs++;
    pthread_mutex_unlock(&share->lock);
    if (!handle)
        return -EBADF;
    *ret_handle = handle;
    return 0;
}

void handle_put(struct share *share, struct handle *handle)
{
    struct inode *inode = handle->inode;
    pthread_mutex_lock(&share->lock);
    bool last = --handle->refs == 0;
    if (last)
        descriptor_give(share);
    pthread_mutex_unlock(&share->lock);
    if (!last)
        return;
    close(handle->fd);
    pthread_mutex_destroy(&handle->folder_lock);
    free(handle->entries);
    free(handle);
    inode_unpin(share, inode);
}

/* Takes a handle out of its place: its number is void from now on. The lock is held. */
static struct handle *detach(struct share *share, struct handle_place *at)
{
    struct handle *handle = at->handle;
    at->handle = NULL;
    at->next_free = share->handles.free;
    share->handles.free = (uint32_t)(at - share->handles.places) + 1;
    return handle;
}

int handle_release(struct share *share, uint64_t id, const struct inode *inode)
{
    pthread_mutex_lock(&share->lock);
    struct handle_place *at = find(share, id, inode);
    struct handle *handle = at ? detach(share, at) : NULL;
    pthread_mutex_unlock(&share->lock);
    if (!handle)
        return -EBADF;
    handle_put(share, handle);
    return 0;
}

void handle_table_reset(struct share *share)
{
    pthread_mutex_lock(&share->lock);
    for (uint32_t i = 0; i < share->handles.size; i++) {
        if (!share->handles.places[i].handle)
            continue;
        struct handle *handle = detach(share, &share->handles.places[i]);
        pthread_mutex_unlock(&share->lock);
        handle_put(share, handle);
        pthread_mutex_lock(&share->lock);
    }
    pthread_mutex_unlock(&share->lock);
}

void handle_table_close(struct share *share)
{
    handle_table_reset(share);
    free(share->handles.places);
    share->handles = (struct handle_table){0};
}
