#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "block/qcow2.h"
#include "host/store.h"
#include "host/store_private.h"

#define COLUMNS                                                                                                        \
    "SELECT instance.name, image.name, temporary, instance.created, image.size, image.cmdline, image.file"             \
    " FROM instance JOIN image ON image.id = instance.image "

struct walk {
    struct store *store;
    int (*each)(void *owner, const struct store_instance *instance);
    void *owner;
};

/* True when some process holds the instance's lock. */
static bool is_running(struct store *store, const char *name)
{
    char path[STORE_NAME_MAX + 8];
    snprintf(path, sizeof path, "%s/lock", name);
    int fd = openat(store->instances_fd, path, O_RDWR | O_CLOEXEC);
    bool running = fd >= 0 && store_lock_held(fd);
    if (fd >= 0)
        close(fd);
    return running;
}

static int instance_row(void *owner, sqlite3_stmt *row)
{
    struct walk *walk = owner;
    struct store_instance instance = {.temporary = sqlite3_column_int64(row, 2) != 0,
                                      .created = sqlite3_column_int64(row, 3),
                                      .size = (uint64_t)sqlite3_column_int64(row, 4),
                                      .fd = -1};
    char disk[STORE_NAME_MAX + 8];
    struct stat status;
    store_text(row, 0, instance.name, sizeof instance.name);
    store_text(row, 1, instance.image, sizeof instance.image);
    store_text(row, 5, instance.cmdline, sizeof instance.cmdline);
    snprintf(disk, sizeof disk, "%s/disk", instance.name);
    snprintf(instance.path, sizeof instance.path, "%s/instances/%s", walk->store->root, disk);
    if (fstatat(walk->store->instances_fd, disk, &status, 0) == 0)
        instance.stored = (uint64_t)status.st_blocks * 512;
    return walk->each(walk->owner, &instance);
}

static int take_instance(void *owner, const struct store_instance *instance)
{
    *(struct store_instance *)owner = *instance;
    return 1;
}

/* Returns 0 with the instance, -ENOENT without a sentence, or another negative errno. */
static int find(struct store *store, const char *name, struct store_instance *ret_instance, struct error *error)
{
    struct walk walk = {store, take_instance, ret_instance};
    int r = store_sql(store, error, instance_row, &walk, COLUMNS "WHERE instance.name = ?", "s", name);
    return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

/* The lock of an instance's folder, which exists. */
static int take_lock(struct store *store, struct store_instance *instance, struct error *error)
{
    char path[STORE_NAME_MAX + 8];
    snprintf(path, sizeof path, "%s/lock", instance->name);
    instance->fd = openat(store->instances_fd, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int r = instance->fd < 0 ? -errno : store_lock_take(instance->fd);
    if (r == 0)
        return 0;
    if (instance->fd >= 0)
        close(instance->fd);
    instance->fd = -1;
    if (r == -EBUSY)
        return error_set(error, EBUSY, "instance '%s' is running", instance->name);
    return error_set(error, -r, "locking instance '%s': %s", instance->name, strerror(-r));
}

/* A new folder with a thin clone of the image; within a transaction. What may be there is a leftover. */
static int make(struct store *store, const char *image_name, bool temporary, struct store_instance *instance,
                struct error *error)
{
    struct store_image image;
    int r = store_image_find(store, image_name, &image, error);
    if (r < 0)
        return r;
    store_remove_instance_files(store, instance->name);
    if (mkdirat(store->instances_fd, instance->name, 0700) < 0)
        return error_set(error, errno, "making the folder of instance '%s': %s", instance->name, strerror(errno));
    snprintf(instance->path, sizeof instance->path, "%s/instances/%s/disk", store->root, instance->name);
    if (store_step)
        store_step();
    struct qcow2_create create = {.path = instance->path, .backing = image.path, .backing_format = "raw"};
    r = qcow2_create(&create, error);
    if (r == 0)
        r = take_lock(store, instance, error);
    if (r == 0 && store_step)
        store_step();
    instance->created = time(NULL);
    if (r == 0)
        r = store_sql(store, error, NULL, NULL,
                      "INSERT INTO instance (name, image, created, temporary)"
                      " VALUES (?, (SELECT id FROM image WHERE name = ?), ?, ?)",
                      "ssii", instance->name, image.name, instance->created, (int64_t)temporary);
    if (r < 0)
        return r;
    memcpy(instance->image, image.name, sizeof instance->image);
    memcpy(instance->cmdline, image.cmdline, sizeof instance->cmdline);
    instance->size = image.size;
    instance->temporary = temporary;
    instance->fresh = true;
    return 0;
}

/* An instance that was found is as good as the caller asked for. */
static int check_found(const struct store_instance *found, const char *image, struct error *error)
{
    if (!image || strcmp(found->image, image) == 0 || !found->image[0])
        return 0;
    return error_set(error, EEXIST, "instance '%s' is one of image '%s', not of '%s'", found->name, found->image, image);
}

int store_instance_open(struct store *store, const char *image, const char *name, bool temporary,
                        struct store_instance *ret_instance, struct error *error)
{
    struct store_instance instance = {.fd = -1};
    int r = store_name_check(name, "instance", error);
    if (r == 0)
        r = store_begin(store, error);
    if (r < 0)
        return r;
    r = find(store, name, &instance, error);
    bool found = r == 0;
    if (r == 0)
        r = check_found(&instance, image, error);
    if (r == 0) {
        r = take_lock(store, &instance, error);
    } else if (r == -ENOENT && image) {
        instance = (struct store_instance){.fd = -1};
        memcpy(instance.name, name, strlen(name) + 1);
        r = make(store, image, temporary, &instance, error);
    } else if (r == -ENOENT) {
        error_set(error, ENOENT, "there is no instance '%s'; 'veneer list' shows those there are", name);
    }
    /* Opening what is there changes nothing, so there is nothing to commit. */
    int ended = store_end(store, found && r == 0 ? -ECANCELED : r, error);
    r = found && r == 0 ? 0 : ended;
    if (r == 0)
        *ret_instance = instance;
    else if (instance.fd >= 0)
        close(instance.fd);
    return r;
}

/* Within a transaction: forgets the instance; its files go with the transaction's end. */
static int forget(struct store *store, const char *name, struct error *error)
{
    return store_sql(store, error, NULL, NULL, "DELETE FROM instance WHERE name = ?", "s", name);
}

int store_instance_close(struct store *store, struct store_instance *instance, struct error *error)
{
    int r = 0;
    if (instance->fd >= 0 && instance->temporary) {
        r = store_begin(store, error);
        if (r == 0)
            r = store_end(store, forget(store, instance->name, error), error);
    }
    if (instance->fd >= 0)
        close(instance->fd);
    instance->fd = -1;
    return r;
}

static int list_row(void *owner, const struct store_instance *found)
{
    struct walk *walk = owner;
    struct store_instance instance = *found;
    instance.running = is_running(walk->store, instance.name);
    return walk->each(walk->owner, &instance);
}

int store_instance_list(struct store *store, int (*each)(void *owner, const struct store_instance *instance),
                        void *owner, struct error *error)
{
    struct walk asked = {store, each, owner}, walk = {store, list_row, &asked};
    return store_sql(store, error, instance_row, &walk, COLUMNS "ORDER BY instance.name", "");
}

int store_instance_delete(struct store *store, const char *name, struct error *error)
{
    struct store_instance instance = {.fd = -1};
    int r = store_begin(store, error);
    if (r < 0)
        return r;
    r = find(store, name, &instance, error);
    if (r == -ENOENT)
        error_set(error, ENOENT, "there is no instance '%s'; 'veneer list' shows those there are", name);
    if (r == 0)
        r = take_lock(store, &instance, error);
    if (r == 0)
        r = forget(store, name, error);
    r = store_end(store, r, error);
    if (instance.fd >= 0)
        close(instance.fd);
    return r;
}
