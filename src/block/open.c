#include "block/open.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "block/raw.h"

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

int block_open(const struct block_options *options, struct loop *loop, struct block **ret_block, struct error *error)
{
    const char *format = options->format ? options->format : block_probe(options->path, error);
    if (!format)
        return -EIO;
    if (strcmp(format, "raw") == 0)
        return raw_open(options, loop, ret_block, error);
    return error_set(error, ENOTSUP, "%s: the format '%s' is not known; known are raw and qcow2", options->path, format);
}
