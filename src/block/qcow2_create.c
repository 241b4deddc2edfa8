/* qcow2_create.c - a new image: header, refcount table, refcount blocks, L1 table, in this order, nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/qcow2.h"
#include "block/qcow2_format.h"

struct layout {
    unsigned cluster_bits, version;
    uint64_t size, l1_entries;
    uint64_t reftable_clusters, refblocks, l1_clusters; /* counts of clusters */
};

/* The refcount blocks count themselves and the table that names them: grown until both suffice. */
static int lay_out(struct layout *layout, const char *path, struct error *error)
{
    uint64_t cluster = 1ull << layout->cluster_bits, per_block = cluster / 2, per_table = cluster / 8;
    layout->l1_entries = qcow2_l1_entries(layout->size, layout->cluster_bits);
    if (layout->l1_entries > QCOW2_MAX_L1_BYTES / 8)
        return error_set(error, EFBIG, "%s: %" PRIu64 " bytes is too large for clusters of %" PRIu64 " bytes", path,
                         layout->size, cluster);
    layout->l1_clusters = (layout->l1_entries * 8 + cluster - 1) / cluster;
    layout->reftable_clusters = layout->refblocks = 1;
    for (;;) {
        uint64_t total = 1 + layout->reftable_clusters + layout->refblocks + layout->l1_clusters;
        uint64_t blocks = (total + per_block - 1) / per_block, tables = (blocks + per_table - 1) / per_table;
        if (blocks <= layout->refblocks && tables <= layout->reftable_clusters)
            return 0;
        layout->refblocks = blocks > layout->refblocks ? blocks : layout->refblocks;
        layout->reftable_clusters = tables > layout->reftable_clusters ? tables : layout->reftable_clusters;
    }
}

static int put_header(uint8_t *bytes, const struct layout *layout, const struct qcow2_create *create, struct error *error)
{
    uint64_t cluster = 1ull << layout->cluster_bits;
    size_t at = layout->version == 2 ? QCOW2_V2_LENGTH : QCOW2_V3_LENGTH + 8;
    qcow2_put32(bytes + QCOW2_AT_MAGIC, QCOW2_MAGIC);
    qcow2_put32(bytes + QCOW2_AT_VERSION, layout->version);
    qcow2_put32(bytes + QCOW2_AT_CLUSTER_BITS, layout->cluster_bits);
    qcow2_put64(bytes + QCOW2_AT_SIZE, layout->size);
    qcow2_put32(bytes + QCOW2_AT_L1_SIZE, (uint32_t)layout->l1_entries);
    qcow2_put64(bytes + QCOW2_AT_L1_OFFSET, (1 + layout->reftable_clusters + layout->refblocks) * cluster);
    qcow2_put64(bytes + QCOW2_AT_REFTABLE_OFFSET, cluster);
    qcow2_put32(bytes + QCOW2_AT_REFTABLE_CLUSTERS, (uint32_t)layout->reftable_clusters);
    if (layout->version == 3) {
        qcow2_put32(bytes + QCOW2_AT_REFCOUNT_ORDER, 4);
        qcow2_put32(bytes + QCOW2_AT_HEADER_LENGTH, (uint32_t)at);
    }
    if (!create->backing)
        return 0;
    size_t format = strlen(create->backing_format), name = strlen(create->backing);
    if (name > QCOW2_MAX_NAME || at + 8 + ((format + 7) & ~7ull) + 8 + name > cluster)
        return error_set(error, ENAMETOOLONG, "%s: the backing file's name is too long to be stored", create->path);
    qcow2_put32(bytes + at, QCOW2_EXT_BACKING_FORMAT);
    qcow2_put32(bytes + at + 4, (uint32_t)format);
    memcpy(bytes + at + 8, create->backing_format, format);
    at += 8 + ((format + 7) & ~7ull) + 8; /* and the extension of type 0, all zeroes, that ends them */
    qcow2_put64(bytes + QCOW2_AT_BACKING_OFFSET, at);
    qcow2_put32(bytes + QCOW2_AT_BACKING_LENGTH, (uint32_t)name);
    memcpy(bytes + at, create->backing, name);
    return 0;
}

static int put_at(int fd, const void *bytes, size_t length, uint64_t offset)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = pwrite(fd, (const char *)bytes + done, length - done, (off_t)(offset + done));
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Refcounts of 1 for every cluster there is. */
static int put_refcounts(int fd, const struct layout *layout)
{
    uint64_t cluster = 1ull << layout->cluster_bits;
    uint64_t total = 1 + layout->reftable_clusters + layout->refblocks + layout->l1_clusters;
    uint8_t *table = calloc(layout->reftable_clusters + layout->refblocks, cluster);
    if (!table)
        return -ENOMEM;
    for (uint64_t i = 0; i < layout->refblocks; i++)
        qcow2_put64(table + i * 8, (1 + layout->reftable_clusters + i) * cluster);
    uint8_t *counts = table + layout->reftable_clusters * cluster;
    for (uint64_t i = 0; i < total; i++)
        counts[2 * i + 1] = 1; /* 16 bits, big-endian */
    int status = put_at(fd, table, (layout->reftable_clusters + layout->refblocks) * cluster, cluster);
    free(table);
    return status;
}

static int put_image(int fd, const struct layout *layout, const struct qcow2_create *create, struct error *error)
{
    uint64_t cluster = 1ull << layout->cluster_bits;
    uint64_t total = 1 + layout->reftable_clusters + layout->refblocks + layout->l1_clusters;
    uint8_t *bytes = calloc(1, cluster);
    if (!bytes)
        return error_set(error, ENOMEM, "making %s: no memory", create->path);
    int status = put_header(bytes, layout, create, error);
    if (status == 0) {
        status = ftruncate(fd, (off_t)(total * cluster)) < 0 ? -errno : put_refcounts(fd, layout);
        if (status == 0)
            status = put_at(fd, bytes, cluster, 0);
        if (status < 0)
            error_set(error, -status, "making %s: %s", create->path, strerror(-status));
    }
    free(bytes);
    return status;
}

/* The backing file is looked for where the image will look for it. */
static int backing_size(const struct qcow2_create *create, uint64_t *ret_size, struct error *error)
{
    if (!create->backing_format)
        return error_set(error, EINVAL, "making %s: the format of the backing file %s must be given", create->path, create->backing);
    char *path = qcow2_backing_path(create->path, create->backing);
    if (!path)
        return error_set(error, ENOMEM, "making %s: no memory", create->path);
    struct block_options options = {.path = path, .format = create->backing_format, .readonly = true};
    struct block *block;
    int status = block_open(&options, NULL, &block, error);
    if (status < 0) {
        error_prefix(error, "making %s", create->path);
    } else {
        *ret_size = block->limits.size;
        block_close(block);
    }
    free(path);
    return status;
}

char *qcow2_backing_path(const char *path, const char *backing)
{
    const char *slash = strrchr(path, '/');
    char *joined = NULL;
    if (backing[0] == '/' || !slash)
        return strdup(backing);
    return asprintf(&joined, "%.*s/%s", (int)(slash - path), path, backing) < 0 ? NULL : joined;
}

int qcow2_create(const struct qcow2_create *create, struct error *error)
{
    struct layout layout = {.cluster_bits = create->cluster_bits ? create->cluster_bits : 16,
                            .version = create->version ? create->version : 3, .size = create->size};
    if (layout.cluster_bits < QCOW2_MIN_CLUSTER_BITS || layout.cluster_bits > QCOW2_MAX_CLUSTER_BITS)
        return error_set(error, EINVAL, "making %s: clusters of 2^%u bytes; 2^9 to 2^21 are possible", create->path, layout.cluster_bits);
    if (layout.version != 2 && layout.version != 3)
        return error_set(error, EINVAL, "making %s: version %u of qcow2; 2 and 3 are possible", create->path, layout.version);
    uint64_t below = 0;
    int status = create->backing ? backing_size(create, &below, error) : 0;
    if (status < 0)
        return status;
    layout.size = layout.size ? layout.size : below;
    if (layout.size % 512 || layout.size > INT64_MAX - 4096)
        return error_set(error, EINVAL, "making %s: a size of %" PRIu64 " bytes is not a whole number of 512-byte sectors",
                         create->path, layout.size);
    status = lay_out(&layout, create->path, error);
    if (status < 0)
        return status;
    int fd = open(create->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set(error, errno, "making %s: %s", create->path, strerror(errno));
    status = put_image(fd, &layout, create, error);
    if (status < 0)
        unlink(create->path);
    close(fd);
    return status;
}
