/* open.h - opening a volume by its file name, with the filters its options ask for. */
#ifndef VENEER_BLOCK_OPEN_H
#define VENEER_BLOCK_OPEN_H

#include "block/block.h"

struct block_options {
    const char *path;
    const char *format;   /* "raw", "qcow2", or NULL: told from the first bytes */
    bool readonly;
    bool direct;          /* past the host's page cache (O_DIRECT) */
    bool ignore_discard;  /* discards do nothing */
    bool unlocked;        /* for reading the description of an image in use */
    uint64_t iops;        /* at most so many reads and writes a second; 0: no bound */
    uint64_t bps;         /* at most so many bytes a second; 0: no bound */
    unsigned depth;       /* in a chain of backing files; 0 for the volume itself */
    const struct clock *clock; /* for the bounds; NULL: the loop's */
};

/* Opens a volume. loop: where completions run; NULL for a tool: block_kick then works
 * blockingly and completes everything itself.
 * A file that another process writes (or, unless readonly, uses) is refused with -EBUSY. Returns 0 or a
 * negative errno, with a sentence that names the file. The strings need not outlive the call. */
int block_open(const struct block_options *options, struct loop *loop, struct block **ret_block, struct error *error);

/* Closes what block_open opened by that name, or NULL, after work that ended with `status`. Returns status if that is a failure;
 * else 0 or what block_close says, with a sentence. */
int block_close_file(struct block *block, const char *path, int status, struct error *error);

/* "raw" or "qcow2", from a file's first bytes; NULL when it cannot be read. */
const char *block_probe(const char *path, struct error *error);

#endif
