#include "block/open.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "block/qcow2.h"
#include "block/raw.h"
#include "block/throttle.h"

const char *block_probe(const char *path, struct error *error)
{
    static const char qcow2[4] = {'Q', 'F', 'I', (char)0xfb};
    char magic[4] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : pread(fd, magic, sizeof magic, 0);
    int code = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0) {
        error_set(error, code, "opening %s: %s", path, strerror(code));
        return NULL;
    }
    return n == (ssize_t)sizeof magic && memcmp(magic, qcow2, sizeof magic) == 0 ? "qcow2" : "raw";
}

/* The bounds of the options, around what was opened. */
static int add_filters(const struct block_options *options, struct loop *loop, struct block **block, struct error *error)
{
    if (options->ignore_discard)
        (*block)->limits.can_discard = false;
    if (!options->iops && !options->bps)
        return 0;
    struct clock clock = options->clock ? *options->clock : (struct clock){0};
    if (!options->clock && !loop)
        return error_set(error, EINVAL, "%s: bounds on its rate need a clock", options->path);
    if (!options->clock)
        clock = loop_clock(loop);
    int status = throttle_new(*block, &clock, options->iops, options->bps, block);
    return status < 0 ? error_set(error, -status, "opening %s: no memory", options->path) : 0;
}

int block_open(const struct block_options *options, struct loop *loop, struct block **ret_block, struct error *error)
{
    struct block *block = NULL;
    const char *format = options->format ? options->format : block_probe(options->path, error);
    if (!format)
        return -EIO;
    bool qcow2 = strcmp(format, "qcow2") == 0;
    if (!qcow2 && strcmp(format, "raw") != 0)
        return error_set(error, ENOTSUP, "%s: the format '%s' is not known; known are raw and qcow2", options->path, format);
    int status = raw_open(options, loop, &block, error);
    if (status == 0 && qcow2)
        status = qcow2_open(options, block, loop, &block, error);
    if (status < 0)
        return status;
    status = add_filters(options, loop, &block, error);
    if (status < 0) {
        block_close(block);
        return status;
    }
    *ret_block = block;
    return 0;
}

int block_close_file(struct block *block, const char *path, int status, struct error *error)
{
    int closed = block_close(block);
    if (status < 0 || closed == 0)
        return status;
    return error_set(error, -closed, "closing %s: %s; what was written last may be lost", path, strerror(-closed));
}
