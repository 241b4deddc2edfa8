/* qcow2.h - images in QEMU's qcow2 format: sparse, on a backing file. docs/volumes.md tells how. */
#ifndef VENEER_BLOCK_QCOW2_H
#define VENEER_BLOCK_QCOW2_H

#include "block/open.h"

struct qcow2_create {
    const char *path;           /* must not exist */
    uint64_t size;              /* bytes, whole sectors; 0: that of the backing file */
    unsigned cluster_bits;      /* 9 to 21; 0: 16 (64 KiB) */
    unsigned version;           /* 2 or 3; 0: 3 */
    const char *backing;        /* NULL: none. A relative name is relative to path's folder */
    const char *backing_format; /* "raw" or "qcow2"; needed with backing, since it must not be guessed */
};

/* Makes an image, a thin clone when it has a backing file. Writes a few clusters; the backing file is only opened to
 * learn its size and that it can be opened. Nothing is left at path after a failure. 0 or a negative errno. */
int qcow2_create(const struct qcow2_create *create, struct error *error);

/* Where an image's backing file is: `backing` itself, or relative to the folder of `path`. The caller frees it;
 * NULL when there is no memory. */
char *qcow2_backing_path(const char *path, const char *backing);

/* Opens the image in `file`, which it then owns, also after a failure. options->path: the file's name, for errors
 * and to find the backing file. */
int qcow2_open(const struct block_options *options, struct block *file, struct loop *loop, struct block **ret_block,
               struct error *error);

#endif
