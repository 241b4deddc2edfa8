#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/store.h"
#include "host/store_private.h"

int store_draft_new(struct store *store, struct store_draft *ret_draft, struct error *error)
{
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        return error_set(error, EIO, "no random numbers: %s", strerror(errno));
    int r = store_begin(store, error); /* until the draft has its lock, a sweep would take it for a leftover */
    if (r < 0)
        return r;
    snprintf(ret_draft->path, sizeof ret_draft->path, "%s/images/%016" PRIx64 ".raw", store->root, number);
    ret_draft->fd = open(ret_draft->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (ret_draft->fd < 0)
        r = error_set(error, errno, "making %s: %s", ret_draft->path, strerror(errno));
    else if ((r = store_lock_take(ret_draft->fd)) < 0)
        error_set(error, -r, "locking %s: %s", ret_draft->path, strerror(-r));
    return store_end(store, r, error);
}

void store_draft_drop(struct store_draft *draft)
{
    if (draft->fd < 0)
        return;
    unlink(draft->path);
    close(draft->fd);
    draft->fd = -1;
}

/* Within a transaction. */
static int insert(struct store *store, const char *file, const struct store_image *image, struct error *error)
{
    int r = store_sql(store, error, NULL, NULL, "UPDATE image SET name = NULL WHERE name = ?", "s", image->name);
    if (r < 0)
        return r;
    return store_sql(store, error, NULL, NULL,
                     "INSERT INTO image (name, os, suite, created, size, digest, kernel, initrd, cmdline, file)"
                     " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                     "sssiisssss", image->name, image->os, image->suite, image->created, (int64_t)image->size,
                     image->digest, image->kernel, image->initrd, image->cmdline, file);
}

int store_draft_commit(struct store *store, struct store_draft *draft, const struct store_image *image,
                       struct error *error)
{
    int r = store_name_check(image->name, "image", error);
    if (r == 0 && (fchmod(draft->fd, 0400) < 0 || fsync(draft->fd) < 0 || fsync(store->images_fd) < 0))
        r = error_set(error, errno, "writing %s: %s", draft->path, strerror(errno));
    if (r == 0 && store_step)
        store_step();
    if (r == 0)
        r = store_begin(store, error);
    if (r == 0)
        r = store_end(store, insert(store, strrchr(draft->path, '/') + 1, image, error), error);
    if (r < 0) {
        store_draft_drop(draft);
        return r;
    }
    close(draft->fd);
    draft->fd = -1;
    return 0;
}

#define COLUMNS                                                                                                        \
    "SELECT name, os, suite, created, size, digest, kernel, initrd, cmdline, file,"                                    \
    " (SELECT count(*) FROM instance WHERE instance.image = image.id) FROM image WHERE name "

struct walk {
    struct store *store;
    int (*each)(void *owner, const struct store_image *image);
    void *owner;
};

static int image_row(void *owner, sqlite3_stmt *row)
{
    struct walk *walk = owner;
    struct store_image image = {.created = sqlite3_column_int64(row, 3), .size = (uint64_t)sqlite3_column_int64(row, 4)};
    char file[64];
    struct stat status;
    store_text(row, 0, image.name, sizeof image.name);
    store_text(row, 1, image.os, sizeof image.os);
    store_text(row, 2, image.suite, sizeof image.suite);
    store_text(row, 5, image.digest, sizeof image.digest);
    store_text(row, 6, image.kernel, sizeof image.kernel);
    store_text(row, 7, image.initrd, sizeof image.initrd);
    store_text(row, 8, image.cmdline, sizeof image.cmdline);
    store_text(row, 9, file, sizeof file);
    image.instances = (unsigned)sqlite3_column_int64(row, 10);
    snprintf(image.path, sizeof image.path, "%s/images/%s", walk->store->root, file);
    if (fstatat(walk->store->images_fd, file, &status, 0) == 0)
        image.stored = (uint64_t)status.st_blocks * 512;
    return walk->each(walk->owner, &image);
}

static int take_image(void *owner, const struct store_image *image)
{
    *(struct store_image *)owner = *image;
    return 1;
}

int store_image_find(struct store *store, const char *name, struct store_image *ret_image, struct error *error)
{
    struct walk walk = {store, take_image, ret_image};
    int r = store_sql(store, error, image_row, &walk, COLUMNS "= ?", "s", name);
    if (r == 0)
        r = error_set(error, ENOENT, "there is no image '%s'; 'veneer image list' shows those there are", name);
    return r < 0 ? r : 0;
}

int store_image_list(struct store *store, int (*each)(void *owner, const struct store_image *image), void *owner,
                     struct error *error)
{
    struct walk walk = {store, each, owner};
    return store_sql(store, error, image_row, &walk, COLUMNS "IS NOT NULL ORDER BY name", "");
}

/* Joins the instances' names for people. */
static int join_row(void *owner, sqlite3_stmt *row)
{
    char *list = owner;
    size_t length = strlen(list);
    char name[STORE_NAME_MAX + 1];
    store_text(row, 0, name, sizeof name);
    snprintf(list + length, 256 - length, "%s%s", length ? ", " : "", name);
    return 0;
}

int store_image_delete(struct store *store, const char *name, struct error *error)
{
    struct store_image image;
    char users[256] = "";
    int r = store_begin(store, error);
    if (r < 0)
        return r;
    r = store_image_find(store, name, &image, error);
    if (r == 0)
        r = store_sql(store, error, join_row, users,
                      "SELECT instance.name FROM instance JOIN image ON image.id = instance.image"
                      " WHERE image.name = ? ORDER BY instance.name", "s", name);
    if (r == 0 && users[0])
        r = error_set(error, EBUSY, "image '%s' is used by %s; 'veneer delete' removes an instance", name, users);
    if (r == 0)
        r = store_sql(store, error, NULL, NULL, "DELETE FROM image WHERE name = ?", "s", name);
    return store_end(store, r, error);
}
