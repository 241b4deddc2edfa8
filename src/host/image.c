#include "host/image.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/base16.h>
#include <nettle/sha2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "block/copy.h"
#include "block/open.h"
#include "block/qcow2.h"
#include "host/bootfiles.h"
#include "host/image_private.h"
#include "host/rootfs.h"

#define COPY_BYTES (1u << 20)

void image_step(const struct image_progress *progress, const char *what)
{
    if (progress && progress->step)
        progress->step(progress->owner, what);
}

void image_amount(const struct image_progress *progress, uint64_t bytes, uint64_t total)
{
    if (progress && progress->amount)
        progress->amount(progress->owner, bytes, total);
}

static void hash_zeroes(struct sha256_ctx *sha, uint64_t length)
{
    static const uint8_t zeroes[COPY_BYTES];
    for (; length; length -= length < COPY_BYTES ? length : COPY_BYTES)
        sha256_update(sha, length < COPY_BYTES ? (size_t)length : COPY_BYTES, zeroes);
}

int image_digest(int fd, uint64_t size, const struct image_progress *progress, char ret_digest[IMAGE_DIGEST_TEXT],
                 struct error *error)
{
    struct sha256_ctx sha;
    uint8_t *buffer = malloc(COPY_BYTES), digest[SHA256_DIGEST_SIZE];
    if (!buffer)
        return error_set(error, ENOMEM, "no memory to read the image");
    sha256_init(&sha);
    int r = 0;
    for (uint64_t at = 0; at < size && r == 0;) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        off_t hole = data < 0 ? (off_t)size : lseek(fd, data, SEEK_HOLE);
        if (data < 0 && errno == ENXIO)
            data = (off_t)size;
        if (data < 0 || hole < 0) /* a file system without holes */
            data = (off_t)at, hole = (off_t)size;
        hash_zeroes(&sha, (uint64_t)data - at);
        for (at = (uint64_t)data; at < (uint64_t)hole;) {
            size_t part = (uint64_t)hole - at < COPY_BYTES ? (size_t)((uint64_t)hole - at) : COPY_BYTES;
            ssize_t n = pread(fd, buffer, part, (off_t)at);
            if (n <= 0) {
                r = error_set(error, n < 0 ? errno : EIO, "reading the image: %s", n < 0 ? strerror(errno) : "it ends early");
                break;
            }
            sha256_update(&sha, (size_t)n, buffer);
            at += (uint64_t)n;
            image_amount(progress, at, size);
        }
    }
    free(buffer);
    sha256_digest(&sha, sizeof digest, digest);
    base16_encode_update(ret_digest, sizeof digest, digest);
    ret_digest[IMAGE_DIGEST_TEXT - 1] = 0;
    return r;
}

/* What its boot files say about a disk. They are read again for every run, since guests replace their kernels. */
static int describe(const char *path, struct store_image *image, struct error *error)
{
    struct block *disk;
    struct bootfiles files;
    struct block_options options = {.path = path, .format = "raw", .readonly = true, .unlocked = true};
    int r = block_open(&options, NULL, &disk, error);
    if (r < 0)
        return r;
    image->size = disk->limits.size;
    r = bootfiles_read(disk, &files, error);
    block_close(disk);
    if (r < 0)
        return r;
    memcpy(image->os, files.os, sizeof image->os);
    memcpy(image->suite, files.suite, sizeof image->suite);
    memcpy(image->kernel, files.kernel_path, sizeof image->kernel);
    memcpy(image->initrd, files.initrd_path, sizeof image->initrd);
    memcpy(image->cmdline, files.cmdline, sizeof image->cmdline);
    bootfiles_close(&files);
    return 0;
}

int image_finish(struct store *store, struct store_draft *draft, const char *name,
                 const struct image_progress *progress, struct error *error)
{
    struct store_image image = {.created = time(NULL)};
    snprintf(image.name, sizeof image.name, "%s", name);
    image_step(progress, "checking the disk");
    int r = describe(draft->path, &image, error);
    if (r < 0)
        error_prefix(error, "the disk cannot be started");
    if (r == 0)
        r = image_digest(draft->fd, image.size, progress, image.digest, error);
    if (r == 0)
        return store_draft_commit(store, draft, &image, error);
    store_draft_drop(draft);
    return r;
}

/* Whom to tell how far a copy is. */
struct amount_relay {
    const struct image_progress *progress;
    uint64_t total; /* where the copy itself does not know it */
};

static void copied(void *owner, uint64_t done, uint64_t total)
{
    const struct amount_relay *relay = owner;
    image_amount(relay->progress, done, total);
}

/* The whole of a volume into another of its size that is all zeroes. */
static int copy_volume(struct block *from, struct block *to, const struct image_progress *progress, struct error *error)
{
    struct amount_relay relay = {.progress = progress};
    return block_copy(from, to, copied, &relay, error);
}

/* Opens a raw file to be written, made `size` bytes. */
static int open_raw(const char *path, uint64_t size, struct block **ret_block, struct error *error)
{
    struct block_options options = {.path = path, .format = "raw", .unlocked = true};
    if (truncate(path, (off_t)size) < 0)
        return error_set(error, errno, "making %s: %s", path, strerror(errno));
    return block_open(&options, NULL, ret_block, error);
}

/* A disk file's content into the draft. */
static int import_disk(const char *path, const char *format, const char *draft_path,
                       const struct image_progress *progress, struct error *error)
{
    struct block *from = NULL, *to = NULL;
    struct block_options options = {.path = path, .format = format, .readonly = true};
    int r = block_open(&options, NULL, &from, error);
    if (r == 0 && (from->limits.size < IMAGE_SIZE_MIN / 64 || from->limits.size > IMAGE_SIZE_MAX))
        r = error_set(error, EINVAL, "%s has a size of %llu bytes, which is none for an image", path,
                      (unsigned long long)from->limits.size);
    if (r == 0)
        r = open_raw(draft_path, from->limits.size, &to, error);
    if (r == 0)
        r = copy_volume(from, to, progress, error);
    r = block_close_file(to, draft_path, r, error);
    block_close(from);
    return r;
}

static void relay_amount(void *owner, uint64_t bytes)
{
    struct amount_relay *relay = owner;
    image_amount(relay->progress, bytes, relay->total);
}

static int import_archive(int fd, uint64_t size, const char *draft_path, const struct image_progress *progress,
                          struct error *error)
{
    struct stat status;
    struct amount_relay relay = {progress, fstat(fd, &status) == 0 ? (uint64_t)status.st_size : 0};
    return rootfs_make(draft_path, size, fd, relay_amount, &relay, error);
}

/* ustar and GNU archives have their mark at byte 257. */
static bool is_archive(int fd)
{
    char mark[5];
    return pread(fd, mark, sizeof mark, 257) == sizeof mark && memcmp(mark, "ustar", 5) == 0;
}

int image_import(struct store *store, const char *path, const char *format, uint64_t size, const char *name,
                 const struct image_progress *progress, struct error *error)
{
    struct store_draft draft = {.fd = -1};
    int r = store_name_check(name, "image", error);
    if (r < 0)
        return r;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, errno, "opening %s: %s", path, strerror(errno));
    r = store_draft_new(store, &draft, error);
    image_step(progress, "copying the disk");
    if (r == 0)
        r = !format && is_archive(fd) ? import_archive(fd, size, draft.path, progress, error)
                                      : import_disk(path, format, draft.path, progress, error);
    close(fd);
    if (r == 0)
        return image_finish(store, &draft, name, progress, error);
    store_draft_drop(&draft);
    return r;
}

/* An empty volume of the format at `path`, which does not exist. */
static int make_volume(const char *path, const char *format, uint64_t size, struct block **ret_block, struct error *error)
{
    if (strcmp(format, "qcow2") == 0) {
        struct qcow2_create create = {.path = path, .size = size};
        struct block_options options = {.path = path, .format = "qcow2"};
        int r = qcow2_create(&create, error);
        return r < 0 ? r : block_open(&options, NULL, ret_block, error);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set(error, errno, "making %s: %s", path, strerror(errno));
    close(fd);
    return open_raw(path, size, ret_block, error);
}

int image_export(struct store *store, const char *name, const char *path, const char *format,
                 const struct image_progress *progress, struct error *error)
{
    struct store_image image;
    struct block *from = NULL, *to = NULL;
    char *part = NULL;
    int r = store_image_find(store, name, &image, error);
    if (r < 0)
        return r;
    struct block_options options = {.path = image.path, .format = "raw", .readonly = true};
    image_step(progress, "copying the disk");
    if (asprintf(&part, "%s.part-%d", path, (int)getpid()) < 0)
        return error_set(error, ENOMEM, "no memory to export an image");
    r = block_open(&options, NULL, &from, error);
    if (r == 0)
        r = make_volume(part, format, image.size, &to, error);
    bool made = r == 0;
    if (r == 0)
        r = copy_volume(from, to, progress, error);
    r = block_close_file(to, part, r, error);
    block_close(from);
    if (r == 0 && link(part, path) < 0) /* unlike rename: never over a file that is there */
        r = error_set(error, errno, "making %s: %s", path, strerror(errno));
    if (made)
        unlink(part);
    free(part);
    return r;
}
