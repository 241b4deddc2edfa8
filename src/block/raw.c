/* raw.c - opening, locking and starting requests.
 *
 * Where a request is done, cheapest first (bench/block.c has the figures):
 * - a read whose bytes are in the page cache: at kick, by one preadv2(RWF_NOWAIT);
 * - a small write to the page cache: at kick, since handing it to another thread costs more than the copy;
 * - other reads and writes, and flushes: io_uring, all of one kick in one system call;
 * - discards, write-zeroes, what raw_direct.c sends through memory of ours, the rare rest, and everything where the host refuses io_uring: a few threads. */
#include "block/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/raw_private.h"

#define POOL_THREADS RAW_BOUNCES /* each has memory to go through */

struct raw_tuning raw_tuning = {.inline_max = 64 << 10, .bounce_min = 256 << 10};

static struct raw *raw_of(struct block *block)
{
    return (struct raw *)((char *)block - offsetof(struct raw, block));
}

static void raw_kick(struct block *block);

struct raw_job {
    struct pool_job job;
    struct raw *raw;
    struct block_request *request;
    int status;
};

static void job_work(struct pool_job *pool_job)
{
    struct raw_job *job = (struct raw_job *)pool_job;
    job->status = raw_do(job->raw, job->request);
}

static void job_done(struct pool_job *pool_job)
{
    struct raw_job *job = (struct raw_job *)pool_job;
    struct block_request *request = job->request;
    struct raw *raw = job->raw;
    int status = job->status;
    free(job);
    raw_trim(raw, request);
    raw_end(raw, request, status);
}

static bool may_start(const struct raw *raw, const struct block_request *request)
{
    return !raw->lone && (!raw->under_way || !raw_is_lone(raw, request));
}

/* What waited for this, or for being alone, goes on first: until then this one is in flight, so that nobody closes the volume. */
void raw_end(struct raw *raw, struct block_request *request, int status)
{
    raw->under_way--;
    raw->lone = false; /* it was this one, if any */
    if (raw->first && may_start(raw, raw->first))
        raw_kick(&raw->block);
    block_complete(request, status);
}

void raw_do_later(struct raw *raw, struct block_request *request)
{
    struct raw_job *job = malloc(sizeof *job);
    if (!job || (!raw->pool && pool_new(raw->loop, POOL_THREADS, &raw->pool, NULL) < 0)) {
        free(job);
        raw_end(raw, request, -ENOMEM);
        return;
    }
    *job = (struct raw_job){.job = {.work = job_work, .done = job_done}, .raw = raw, .request = request};
    pool_run(raw->pool, &job->job);
}

static void start(struct raw *raw, struct block_request *request)
{
    bool cached = !raw->direct;
    raw->under_way++;
    raw->lone = raw_is_lone(raw, request);
    if (!raw->loop) {
        int status = raw_do(raw, request);
        raw_trim(raw, request);
        raw_end(raw, request, status);
        return;
    }
    if (request->op == BLOCK_READ && cached && !raw_tuning.no_nowait) {
        request->done = raw_read_cached(raw, request);
        if (request->done == request->length) {
            raw_end(raw, request, 0);
            return;
        }
    }
    if (request->op == BLOCK_WRITE && cached && !(request->flags & BLOCK_FUA) && request->length <= raw_tuning.inline_max) {
        raw_end(raw, request, raw_do(raw, request));
        return;
    }
    bool ring = request->op == BLOCK_READ || request->op == BLOCK_WRITE || request->op == BLOCK_FLUSH;
    if (ring && raw->has_ring && !(request->op != BLOCK_FLUSH && raw_needs_bounce(raw, request)))
        raw_ring_start(raw, request);
    else
        raw_do_later(raw, request);
}

static void raw_submit(struct block *block, struct block_request *request)
{
    struct raw *raw = raw_of(block);
    request->next = NULL;
    *raw->last = request;
    raw->last = &request->next;
}

/* A completion may submit and kick: what it adds is found by the loop that is under way. */
static void raw_kick(struct block *block)
{
    struct raw *raw = raw_of(block);
    if (raw->kicking)
        return;
    raw->kicking = true;
    do {
        while (raw->first && may_start(raw, raw->first)) {
            struct block_request *request = raw->first;
            raw->first = request->next;
            if (!raw->first)
                raw->last = &raw->first;
            start(raw, request);
        }
        if (raw->has_ring)
            raw_ring_kick(raw);
    } while (raw->first && may_start(raw, raw->first));
    raw->kicking = false;
}

static int raw_transfer(struct block *block, enum block_op op, unsigned flags, uint64_t offset, void *bytes, uint64_t length)
{
    struct iovec iov = {bytes, length};
    struct block_request request = {.op = op, .flags = flags, .offset = offset, .length = length, .iov = &iov, .iov_count = 1};
    int status = raw_do(raw_of(block), &request);
    raw_trim(raw_of(block), &request);
    return status;
}

static int raw_extent(struct block *block, uint64_t offset, uint64_t length, struct block_extent *ret_extent)
{
    struct raw *raw = raw_of(block);
    uint64_t sector = block->limits.sector_size;
    *ret_extent = (struct block_extent){.length = length, .data = true, .allocated = true};
    if (raw->device)
        return 0;
    off_t data = lseek(raw->fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        return 0; /* the file system does not tell: all is data */
    if (data < 0 || (uint64_t)data / sector * sector > offset) { /* a hole, up to the data's first sector */
        ret_extent->data = false;
        uint64_t hole = data < 0 ? length : (uint64_t)data / sector * sector - offset;
        ret_extent->length = hole < length ? hole : length;
        return 0;
    }
    off_t end = lseek(raw->fd, data, SEEK_HOLE);
    uint64_t run = end < 0 ? length : ((uint64_t)end + sector - 1) / sector * sector - offset;
    ret_extent->length = run && run < length ? run : length;
    return 0;
}

/* A device is as large as it is: what it was made elsewhere can be taken notice of. */
static int device_resized(struct raw *raw, uint64_t size, struct error *error)
{
    uint64_t now = 0;
    if (ioctl(raw->fd, BLKGETSIZE64, &now) < 0)
        return error_set(error, errno, "reading the device's size: %s", strerror(errno));
    now -= now % raw->block.limits.sector_size;
    if (now != size)
        return error_set(error, ENOTSUP, "a block device cannot be resized from here, and this one has %llu bytes",
                         (unsigned long long)now);
    raw->block.limits.size = size;
    return 0;
}

static int raw_resize(struct block *block, uint64_t size, struct error *error)
{
    struct raw *raw = raw_of(block);
    if (raw->device)
        return device_resized(raw, size, error);
    if (size > INT64_MAX || ftruncate(raw->fd, (off_t)size) < 0) {
        int code = size > INT64_MAX ? EFBIG : errno;
        return error_set(error, code, "setting the size to %llu bytes: %s", (unsigned long long)size, strerror(code));
    }
    block->limits.size = size;
    return 0;
}

static int raw_close(struct block *block)
{
    struct raw *raw = raw_of(block);
    int status = 0;
    raw_ring_close(raw);
    pool_free(raw->pool);
    raw_direct_close(raw);
    if (raw->fd >= 0) {
        /* The kernel takes the ring apart, and lets go of the file, only later; the lock must not last so long. */
        struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
        fcntl(raw->fd, F_OFD_SETLK, &whole);
        if (close(raw->fd) < 0 && errno != EINTR) /* it is closed; a file system of the network tells so what it lost */
            status = -errno;
    }
    free(raw);
    return status;
}

static const struct block_ops raw_ops = {
    .name = "raw", .submit = raw_submit, .kick = raw_kick, .transfer = raw_transfer, .extent = raw_extent,
    .resize = raw_resize, .close = raw_close};

/* A whole-file lock on the open file description: one writer, or any number of readers. QEMU's byte locks
 * collide with it, so that it refuses an image in use here, and the other way about. */
static int lock_file(const struct raw *raw, const struct block_options *options, struct error *error)
{
    struct flock whole = {.l_type = options->readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    if (options->unlocked || fcntl(raw->fd, F_OFD_SETLK, &whole) == 0)
        return 0;
    if (errno != EAGAIN && errno != EACCES)
        return 0; /* a file system without locks */
    return error_set(error, EBUSY, "%s is in use by another program%s", options->path,
                     options->readonly ? ", which writes it" : "");
}

/* The kernel opens such a device for writing and refuses each write. */
static int check_writable(const struct raw *raw, const char *path, struct error *error)
{
    int constant = 0;
    if (raw->device && ioctl(raw->fd, BLKROGET, &constant) == 0 && constant)
        return error_set(error, EROFS, "%s is a device that cannot be written to; it can be a disk with the option 'ro'", path);
    return 0;
}

static int read_limits(struct raw *raw, const char *path, struct error *error)
{
    struct stat st;
    if (fstat(raw->fd, &st) < 0)
        return error_set(error, errno, "%s: %s", path, strerror(errno));
    uint64_t size = (uint64_t)st.st_size;
    unsigned sector = 512;
    raw->device = S_ISBLK(st.st_mode);
    if (raw->device) {
        int logical = 0;
        if (ioctl(raw->fd, BLKGETSIZE64, &size) < 0 || ioctl(raw->fd, BLKSSZGET, &logical) < 0)
            return error_set(error, errno, "%s: reading the device's size: %s", path, strerror(errno));
        sector = (unsigned)logical;
        if (sector < 512 || sector > 4096 || (sector & (sector - 1)))
            return error_set(error, ENOTSUP, "%s: sectors of %u bytes are not supported", path, sector);
    } else if (!S_ISREG(st.st_mode)) {
        return error_set(error, EINVAL, "%s is neither a file nor a block device", path);
    }
    if (size > INT64_MAX - 4096)
        return error_set(error, EFBIG, "%s is too large", path);
    raw->block.limits = (struct block_limits){
        .size = (size + sector - 1) / sector * sector,
        .sector_size = sector,
        .physical_size = sector,
        .optimal_size = 4096,
        .max_iov = IOV_MAX,
        .max_transfer = 1u << 30,
        .discard_granularity = raw->device ? sector : 4096,
        .growable = !raw->device,
        .can_discard = true,
    };
    return 0;
}

/* Nobody writes to a device that the host has mounted or made something of (O_EXCL). */
static int open_file(struct raw *raw, const struct block_options *options, bool device, struct error *error)
{
    bool readonly = options->readonly;
    int mode = O_CLOEXEC | O_NONBLOCK | (readonly ? O_RDONLY : O_RDWR) | (options->direct ? O_DIRECT : 0);
    raw->fd = open(options->path, mode | (device && !readonly ? O_EXCL : 0));
    if (raw->fd >= 0)
        return 0;
    const char *why = strerror(errno);
    if (errno == EINVAL && options->direct)
        why = "its file system has no direct I/O";
    else if (errno == EBUSY && device)
        why = "the host uses the device, as a file system or part of something";
    return error_set(error, errno, "opening %s%s: %s", options->path, readonly ? "" : " for writing", why);
}

int raw_open(const struct block_options *options, struct loop *loop, struct block **ret_block, struct error *error)
{
    struct raw *raw = calloc(1, sizeof *raw);
    if (!raw)
        return error_set(error, ENOMEM, "opening %s: no memory", options->path);
    raw->block.ops = &raw_ops;
    raw->last = &raw->first;
    raw->loop = loop;
    pthread_mutex_init(&raw->bounce_lock, NULL);
    raw->direct = options->direct;
    struct stat st; /* looked at first, since merely opening some devices does something */
    if (stat(options->path, &st) < 0)
        st.st_mode = S_IFREG; /* the opening says why */
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        raw->fd = -1;
        raw_close(&raw->block);
        return error_set(error, EINVAL, "%s is neither a file nor a block device", options->path);
    }
    int status = open_file(raw, options, S_ISBLK(st.st_mode), error);
    if (status == 0)
        status = read_limits(raw, options->path, error);
    if (status == 0 && !options->readonly)
        status = check_writable(raw, options->path, error);
    if (status == 0)
        status = lock_file(raw, options, error);
    if (status == 0)
        status = raw_direct_open(raw, options->path, error);
    if (status < 0) {
        raw_close(&raw->block);
        return status;
    }
    raw->block.limits.readonly = options->readonly;
    if (loop && !raw_tuning.no_ring)
        raw_ring_open(raw); /* refused: the pool does it all */
    *ret_block = &raw->block;
    return 0;
}
