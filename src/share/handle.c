/* handle.c - see handle.h. */
#include "share/handle.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "share/private.h"

#define PLACES_FIRST 64u

static uint64_t make_id(uint32_t place, uint32_t uses)
{
    return (uint64_t)uses << 32 | place;
}

/* Takes a free place, or -1 without memory. */
static int64_t take_place(struct handle_table *table)
{
    if (!table->free) {
        unsigned size = table->size ? 2 * table->size : PLACES_FIRST;
        struct handle_place *places = realloc(table->places, size * sizeof *places);
        if (!places)
            return -1;
        for (unsigned i = size; i-- > table->size;) {
            places[i] = (struct handle_place){NULL, 0, table->free};
            table->free = i + 1;
        }
        table->places = places;
        table->size = size;
    }
    unsigned place = table->free - 1;
    table->free = table->places[place].next_free;
    return place;
}

int handle_open(struct share *share, struct inode *inode, int fd, uint64_t *ret_id)
{
    struct handle *handle = calloc(1, sizeof *handle);
    pthread_mutex_lock(&share->lock);
    int64_t place = handle ? take_place(&share->handles) : -1;
    if (place < 0) {
        descriptor_give(share);
        pthread_mutex_unlock(&share->lock);
        close(fd);
        free(handle);
        return -ENOMEM;
    }
    struct handle_place *at = &share->handles.places[place];
    *handle = (struct handle){.id = make_id((uint32_t)place, ++at->uses), .inode = inode, .fd = fd, .refs = 1,
                              .folder = S_ISDIR(inode->type)};
    pthread_mutex_init(&handle->folder_lock, NULL);
    at->handle = handle;
    *ret_id = handle->id;
    pthread_mutex_unlock(&share->lock);
    inode_pin_again(share, inode);
    return 0;
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
