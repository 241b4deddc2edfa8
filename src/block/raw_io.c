/* raw_io.c - blocking operations on the file: each does all of a request, however the kernel cuts it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "block/raw_private.h"

unsigned raw_take_iov(const struct block_request *request, uint64_t skip, struct iovec part[RAW_PART])
{
    unsigned count = 0;
    for (unsigned i = 0; i < request->iov_count && count < RAW_PART; i++) {
        struct iovec iov = request->iov[i];
        if (skip >= iov.iov_len) {
            skip -= iov.iov_len;
            continue;
        }
        part[count++] = (struct iovec){(char *)iov.iov_base + skip, iov.iov_len - (size_t)skip};
        skip = 0;
    }
    return count;
}

/* The end of the file within the volume (its last sector may be half a one) reads as zeroes. */
static void clear_rest(const struct block_request *request, uint64_t done)
{
    struct iovec part[RAW_PART];
    while (done < request->length) {
        unsigned count = raw_take_iov(request, done, part);
        for (unsigned i = 0; i < count; i++) {
            memset(part[i].iov_base, 0, part[i].iov_len);
            done += part[i].iov_len;
        }
    }
}

int raw_read(struct raw *raw, const struct block_request *request)
{
    for (uint64_t done = request->done; done < request->length;) {
        struct iovec part[RAW_PART];
        unsigned count = raw_take_iov(request, done, part);
        ssize_t n = preadv(raw->fd, part, (int)count, (off_t)(request->offset + done));
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (uint64_t)n : 0;
        /* O_DIRECT reads no part of a sector but at the file's end, and none from there. */
        if (n == 0 || (n > 0 && raw->direct && n % 512)) {
            clear_rest(request, done);
            return 0;
        }
    }
    return 0;
}

int raw_write(struct raw *raw, const struct block_request *request)
{
    int flags = request->flags & BLOCK_FUA ? RWF_DSYNC : 0;
    for (uint64_t done = request->done; done < request->length;) {
        struct iovec part[RAW_PART];
        unsigned count = raw_take_iov(request, done, part);
        ssize_t n = pwritev2(raw->fd, part, (int)count, (off_t)(request->offset + done), flags);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -EIO;
        done += n > 0 ? (uint64_t)n : 0;
    }
    return 0;
}

static bool unsupported(int code)
{
    return code == EOPNOTSUPP || code == ENOSYS || code == ENODEV || code == ENOTTY;
}

/* For what the file system or the device cannot do by itself. */
static int write_zero_bytes(struct raw *raw, uint64_t offset, uint64_t length)
{
    size_t size = length < (1u << 20) ? (size_t)length : 1u << 20;
    void *zeroes = NULL;
    if (posix_memalign(&zeroes, 4096, size))
        return -ENOMEM;
    memset(zeroes, 0, size);
    int status = 0;
    while (status == 0 && length) {
        struct iovec iov = {zeroes, length < size ? (size_t)length : size};
        struct block_request part = {.op = BLOCK_WRITE, .offset = offset, .length = iov.iov_len, .iov = &iov, .iov_count = 1};
        status = raw_do(raw, &part);
        offset += part.length;
        length -= part.length;
    }
    free(zeroes);
    return status;
}

static int punch(struct raw *raw, uint64_t offset, uint64_t length)
{
    if (raw->no_punch)
        return -EOPNOTSUPP;
    while (fallocate(raw->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) < 0) {
        if (errno == EINTR)
            continue;
        if (!unsupported(errno))
            return -errno;
        raw->no_punch = true;
        return -EOPNOTSUPP;
    }
    return 0;
}

/* Punching reads back as zeroes, on files by definition, on devices by the kernel's contract for
 * PUNCH_HOLE (it writes zeroes where the disk promises none); zero-range keeps the space. */
static int write_zeroes(struct raw *raw, const struct block_request *request)
{
    uint64_t offset = request->offset, length = request->length;
    int status = request->flags & BLOCK_UNMAP ? punch(raw, offset, length) : -EOPNOTSUPP;
    if (status == -EOPNOTSUPP && !raw->no_zero) {
        do
            status = fallocate(raw->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) < 0 ? -errno : 0;
        while (status == -EINTR);
        if (status < 0 && unsupported(-status)) {
            raw->no_zero = true;
            status = -EOPNOTSUPP;
        }
    }
    if (status == -EOPNOTSUPP)
        status = write_zero_bytes(raw, offset, length);
    if (status == 0 && (request->flags & BLOCK_FUA) && fdatasync(raw->fd) < 0)
        status = -errno;
    return status;
}

/* A hint: where it is not taken, nothing is lost. Devices are told so in their own words, since they need not read as zeroes
 * afterwards, which punching a hole promises. */
static int discard(struct raw *raw, uint64_t offset, uint64_t length)
{
    uint64_t range[2] = {offset, length};
    int status = 0;
    if (!raw->device)
        status = punch(raw, offset, length);
    else if (!raw->no_discard && ioctl(raw->fd, BLKDISCARD, range) < 0)
        status = unsupported(errno) ? -EOPNOTSUPP : -errno;
    if (status == -EOPNOTSUPP)
        raw->no_discard = true;
    return status == -EOPNOTSUPP ? 0 : status;
}

int raw_do(struct raw *raw, const struct block_request *request)
{
    switch (request->op) {
    case BLOCK_READ:
        return raw_needs_bounce(raw, request) ? raw_bounce(raw, request) : raw_read(raw, request);
    case BLOCK_WRITE:
        return raw_needs_bounce(raw, request) ? raw_bounce(raw, request) : raw_write(raw, request);
    case BLOCK_FLUSH:
        return fdatasync(raw->fd) < 0 ? -errno : 0;
    case BLOCK_DISCARD:
        return discard(raw, request->offset, request->length);
    case BLOCK_WRITE_ZEROES:
        return write_zeroes(raw, request);
    }
    return -EOPNOTSUPP;
}

uint64_t raw_read_cached(struct raw *raw, const struct block_request *request)
{
    ssize_t n = preadv2(raw->fd, request->iov, (int)request->iov_count, (off_t)request->offset, RWF_NOWAIT);
    return n > 0 ? (uint64_t)n : 0;
}
