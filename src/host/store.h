/* store.h - what one user keeps: images, and the disks of instances, thin clones of them.
 *
 * A folder (0700): `veneer.db` (SQLite: the truth), `lock`, `images/FILE` (read-only once made) and
 * `instances/NAME/{disk,lock}`. Every change holds `lock` and becomes true by one transaction, after the files
 * that it needs are on the disk and before those that it makes useless go. So a crash leaves the old state or the new
 * one, and files that the database does not know, which the next change sweeps away.
 *
 * Any number of processes may use a store at once. A `struct store` belongs to one thread. */
#ifndef VENEER_HOST_STORE_H
#define VENEER_HOST_STORE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define STORE_NAME_MAX 63
#define STORE_NAME_FORM "up to 63 letters, digits, '-', '_' and '.', the first a letter or digit"

struct store;

struct store_image {
    char name[STORE_NAME_MAX + 1];
    char os[64];      /* "debian" */
    char suite[64];   /* "bookworm"; "" when it is not known */
    int64_t created;  /* seconds since 1970, UTC */
    uint64_t size;    /* bytes that a guest sees */
    uint64_t stored;  /* bytes that the image takes on the host; filled by the store */
    unsigned instances; /* that use it; filled by the store */
    char digest[65];  /* SHA-256 of the whole content as a raw file */
    char kernel[256], initrd[256]; /* their paths in the image, "" when there is none */
    char cmdline[1024];            /* what the image wants on the kernel's command line */
    char path[PATH_MAX];           /* the file, raw; filled by the store */
};

/* True for what may name an image or an instance. */
bool store_name_valid(const char *name);
/* 0, or -EINVAL with a sentence. what: "image" or "instance". */
int store_name_check(const char *name, const char *what, struct error *error);

/* Opens the store in `root`, or with NULL the user's own: $VENEER_STORE, /var/lib/veneer for root, else XDG_DATA_HOME/veneer or
 * ~/.local/share/veneer. Makes it when it is missing. Returns 0 or a negative errno with a sentence. */
int store_open(const char *root, struct store **ret_store, struct error *error);
/* NULL is allowed. */
void store_close(struct store *store);

/* An image that is being made: an empty file that only its maker knows. */
struct store_draft {
    char path[PATH_MAX];
    int fd; /* open for reading and writing; holds the draft's lock */
};

int store_draft_new(struct store *store, struct store_draft *ret_draft, struct error *error);
/* Makes the draft's file, which is complete, the image `image` (the name is checked; the fields filled by the store
 * are not read). An image of that name is replaced at once; instances of it keep the old one, which goes with the last
 * of them. The draft is spent, also on failure. Returns 0 or a negative errno with a sentence. */
int store_draft_commit(struct store *store, struct store_draft *draft, const struct store_image *image,
                       struct error *error);
/* Gives the draft up and removes its file. A draft that is spent or all zeroes with fd -1 is allowed. */
void store_draft_drop(struct store_draft *draft);

/* The image of that name. Returns 0, or -ENOENT or another negative errno with a sentence. */
int store_image_find(struct store *store, const char *name, struct store_image *ret_image, struct error *error);
/* All images by name. The callback ends the walk by a result other than 0, which is returned. */
int store_image_list(struct store *store, int (*each)(void *owner, const struct store_image *image), void *owner,
                     struct error *error);
/* Refused with -EBUSY while instances use it: the sentence names them. */
int store_image_delete(struct store *store, const char *name, struct error *error);

struct store_instance {
    char name[STORE_NAME_MAX + 1];
    char image[STORE_NAME_MAX + 1]; /* its name, "" when that was given to a newer image */
    bool temporary;                 /* goes when its run ends */
    bool running;                   /* in this or another process; in a list only */
    bool fresh;                     /* made by this store_instance_open */
    int64_t created;
    uint64_t size, stored;          /* bytes that a guest sees; that its own disk takes on the host */
    char cmdline[1024];             /* the image's */
    char path[PATH_MAX];            /* its disk */
    int fd;                         /* open: holds its lock */
};

/* Takes the instance `name`, or makes it as a thin clone of `image` (NULL: it must exist). While it is taken nobody
 * else can take or delete it; a temporary one goes when it is released, or by the next sweep when this process dies.
 * temporary: counts when it is made. Returns 0, or with a sentence: -ENOENT, -EBUSY when it is running,
 * -EEXIST when it is an instance of another image, or another negative errno. */
int store_instance_open(struct store *store, const char *image, const char *name, bool temporary,
                        struct store_instance *ret_instance, struct error *error);
/* Releases it. Returns 0 or a negative errno with a sentence when a temporary one could not be removed. */
int store_instance_close(struct store *store, struct store_instance *instance, struct error *error);
int store_instance_list(struct store *store, int (*each)(void *owner, const struct store_instance *instance),
                        void *owner, struct error *error);
/* Removes an instance and its disk. -ENOENT; -EBUSY while it runs. */
int store_instance_delete(struct store *store, const char *name, struct error *error);

#endif
