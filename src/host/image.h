/* image.h - makes images: from a distribution's packages, from a disk or an archive in a file; and gives them out again.
 *
 * All of these take seconds to minutes and block. What they make is in the store at once or not at all. */
#ifndef VENEER_HOST_IMAGE_H
#define VENEER_HOST_IMAGE_H

#include <stdint.h>

#include "base/error.h"
#include "host/store.h"

#define IMAGE_SIZE_DEFAULT (UINT64_C(4) << 30)
#define IMAGE_SIZE_MIN (UINT64_C(64) << 20)
#define IMAGE_SIZE_MAX (UINT64_C(8) << 40)

/* Who is told how it goes. Both may be called from another thread, one at a time, while the call lasts. */
struct image_progress {
    void (*step)(void *owner, const char *what);                    /* a new step begins: "installing packages" */
    void (*amount)(void *owner, uint64_t bytes, uint64_t total);    /* of this step; total 0: not known */
    void *owner;
};

struct image_build {
    const char *name;     /* of the image */
    const char *suite;    /* "bookworm" */
    const char *packages; /* further ones, separated by commas, or NULL */
    const char *mirror;   /* where Debian's packages are, or NULL: what the machine's apt is configured with */
    uint64_t size;        /* bytes, whole MiB */
    const char *agent;    /* the guest agent's program, or NULL: the image has none */
    const char *agent_unit; /* and its systemd unit */
};

/* Builds a Debian image by mmdebstrap, as root or not. Returns 0 or a negative errno with a sentence. */
int image_build_debian(struct store *store, const struct image_build *build, const struct image_progress *progress,
                       struct error *error);

/* Makes an image of a file: a disk (raw or qcow2; format NULL: told from its first bytes), or a tar archive of a root
 * file system, which gets a disk of `size` bytes. */
int image_import(struct store *store, const char *path, const char *format, uint64_t size, const char *name,
                 const struct image_progress *progress, struct error *error);

/* Writes the image to a new file, which appears when it is whole. format: "raw" or "qcow2". */
int image_export(struct store *store, const char *name, const char *path, const char *format,
                 const struct image_progress *progress, struct error *error);

/* For the two above: hashes the finished disk in the draft, looks for its kernel, and makes it the image `name`; os and
 * suite (may be NULL) when the disk does not say. The draft is spent, also on failure. */
int image_finish(struct store *store, struct store_draft *draft, const char *name,
                 const struct image_progress *progress, struct error *error);

#endif
