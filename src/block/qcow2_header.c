/* qcow2_header.c - reads a header from bytes that may be hostile. Every field is checked here, once. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "block/qcow2_format.h"

static int parse_features(struct qcow2_header *header, const uint8_t *bytes, size_t length, const char *name,
                          struct error *error)
{
    header->refcount_order = 4;
    if (header->version == 2)
        return 0;
    if (length < QCOW2_V3_LENGTH)
        return error_set(error, EINVAL, "%s: the file ends within its header", name);
    header->incompatible = qcow2_get64(bytes + QCOW2_AT_INCOMPATIBLE);
    header->compatible = qcow2_get64(bytes + QCOW2_AT_COMPATIBLE);
    header->autoclear = qcow2_get64(bytes + QCOW2_AT_AUTOCLEAR);
    uint32_t order = qcow2_get32(bytes + QCOW2_AT_REFCOUNT_ORDER);
    if (order > 6)
        return error_set(error, EINVAL, "%s: refcounts of 2^%u bits", name, order);
    header->refcount_order = order;
    if (header->incompatible & QCOW2_EXTERNAL_DATA)
        return error_set(error, ENOTSUP, "%s: images with an external data file are not supported", name);
    if (header->incompatible & QCOW2_EXTENDED_L2)
        return error_set(error, ENOTSUP, "%s: images with extended L2 entries are not supported", name);
    uint64_t unknown = header->incompatible & ~(QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION_TYPE);
    if (unknown)
        return error_set(error, ENOTSUP, "%s: needs features that are not known (bits 0x%" PRIx64 ")", name, unknown);
    return 0;
}

static int parse_tables(struct qcow2_header *header, const uint8_t *bytes, const char *name, struct error *error)
{
    uint64_t cluster = 1ull << header->cluster_bits;
    header->size = qcow2_get64(bytes + QCOW2_AT_SIZE);
    header->l1_size = qcow2_get32(bytes + QCOW2_AT_L1_SIZE);
    header->l1_offset = qcow2_get64(bytes + QCOW2_AT_L1_OFFSET);
    header->reftable_offset = qcow2_get64(bytes + QCOW2_AT_REFTABLE_OFFSET);
    header->reftable_clusters = qcow2_get32(bytes + QCOW2_AT_REFTABLE_CLUSTERS);
    header->snapshot_count = qcow2_get32(bytes + QCOW2_AT_SNAPSHOT_COUNT);
    if (header->size > INT64_MAX - 4096)
        return error_set(error, EINVAL, "%s: a size of %" PRIu64 " bytes", name, header->size);
    if (header->l1_size > QCOW2_MAX_L1_BYTES / 8)
        return error_set(error, EFBIG, "%s: an L1 table of %u entries is too large", name, header->l1_size);
    if (header->l1_size < qcow2_l1_entries(header->size, header->cluster_bits))
        return error_set(error, EINVAL, "%s: its L1 table is too small for its size", name);
    if (!header->reftable_clusters || header->reftable_clusters > QCOW2_MAX_REFTABLE_BYTES >> header->cluster_bits)
        return error_set(error, EINVAL, "%s: a refcount table of %u clusters", name, header->reftable_clusters);
    /* Neither table may lie on the header: what is written to it would be the next open's header. */
    uint64_t highest = (QCOW2_OFFSET_MASK | 511) - QCOW2_MAX_L1_BYTES;
    if ((header->l1_offset & (cluster - 1)) || header->l1_offset > highest || (header->l1_size && !header->l1_offset))
        return error_set(error, EINVAL, "%s: an L1 table at 0x%" PRIx64, name, header->l1_offset);
    if ((header->reftable_offset & (cluster - 1)) || header->reftable_offset > highest || !header->reftable_offset)
        return error_set(error, EINVAL, "%s: a refcount table at 0x%" PRIx64, name, header->reftable_offset);
    return 0;
}

static int parse_backing(struct qcow2_header *header, const uint8_t *bytes, size_t length, const char *name,
                         struct error *error)
{
    uint64_t offset = qcow2_get64(bytes + QCOW2_AT_BACKING_OFFSET);
    uint32_t size = qcow2_get32(bytes + QCOW2_AT_BACKING_LENGTH);
    if (!offset || !size)
        return 0;
    if (size > QCOW2_MAX_NAME || !range_within(offset, size, length))
        return error_set(error, EINVAL, "%s: the name of its backing file is not within the first cluster", name);
    memcpy(header->backing, bytes + offset, size);
    header->backing[size] = '\0';
    if (strlen(header->backing) != size)
        return error_set(error, EINVAL, "%s: a NUL in the name of its backing file", name);
    return 0;
}

/* "Header extensions": type, length, data, padded to 8 bytes, until one of type 0. */
static int parse_extensions(struct qcow2_header *header, const uint8_t *bytes, size_t length, uint64_t at,
                            const char *name, struct error *error)
{
    uint64_t end = qcow2_get64(bytes + QCOW2_AT_BACKING_OFFSET);
    if (!end || end > length)
        end = length;
    while (range_within(at, 8, end)) {
        uint32_t type = qcow2_get32(bytes + at), size = qcow2_get32(bytes + at + 4);
        at += 8;
        if (type == QCOW2_EXT_END)
            return 0;
        if (!range_within(at, size, end))
            return error_set(error, EINVAL, "%s: a header extension does not end", name);
        if (type == QCOW2_EXT_BACKING_FORMAT) {
            if (size >= sizeof header->backing_format)
                return error_set(error, EINVAL, "%s: the name of its backing file's format is too long", name);
            memcpy(header->backing_format, bytes + at, size);
            header->backing_format[size] = '\0';
        }
        at += ((uint64_t)size + 7) & ~7ull;
    }
    return 0;
}

static int parse_length(struct qcow2_header *header, const uint8_t *bytes, size_t length, uint64_t *ret_end,
                        const char *name, struct error *error)
{
    uint32_t end = header->version == 2 ? QCOW2_V2_LENGTH : qcow2_get32(bytes + QCOW2_AT_HEADER_LENGTH);
    if (end > length || (header->version == 3 && (end < QCOW2_V3_LENGTH || end % 8)))
        return error_set(error, EINVAL, "%s: a header of %u bytes", name, end);
    header->compression = end > QCOW2_AT_COMPRESSION ? bytes[QCOW2_AT_COMPRESSION] : 0;
    bool flagged = header->incompatible & QCOW2_COMPRESSION_TYPE;
    if (flagged != (header->compression != 0))
        return error_set(error, EINVAL, "%s: its compression type contradicts its feature bits", name);
    if (header->compression > 1)
        return error_set(error, ENOTSUP, "%s: compression type %u is not known", name, header->compression);
    *ret_end = end;
    return 0;
}

int qcow2_parse(struct qcow2_header *ret_header, const uint8_t *bytes, size_t length, uint64_t file_size, const char *name,
                struct error *error)
{
    struct qcow2_header header = {0};
    uint64_t end = 0;
    if (length < QCOW2_V2_LENGTH)
        return error_set(error, EINVAL, "%s: the file ends within its header", name);
    if (qcow2_get32(bytes) != QCOW2_MAGIC)
        return error_set(error, EINVAL, "%s is not a qcow2 image", name);
    header.version = qcow2_get32(bytes + QCOW2_AT_VERSION);
    if (header.version != 2 && header.version != 3)
        return error_set(error, ENOTSUP, "%s: version %u of qcow2 is not supported", name, header.version);
    header.cluster_bits = qcow2_get32(bytes + QCOW2_AT_CLUSTER_BITS);
    if (header.cluster_bits < QCOW2_MIN_CLUSTER_BITS || header.cluster_bits > QCOW2_MAX_CLUSTER_BITS)
        return error_set(error, EINVAL, "%s: clusters of 2^%u bytes", name, header.cluster_bits);
    if (length > 1ull << header.cluster_bits)
        length = 1ull << header.cluster_bits;
    if (qcow2_get32(bytes + QCOW2_AT_CRYPT))
        return error_set(error, ENOTSUP, "%s: encrypted images are not supported", name);
    int status = parse_features(&header, bytes, length, name, error);
    if (status == 0)
        status = parse_tables(&header, bytes, name, error);
    if (status == 0)
        status = parse_length(&header, bytes, length, &end, name, error);
    if (status == 0)
        status = parse_backing(&header, bytes, length, name, error);
    if (status == 0)
        status = parse_extensions(&header, bytes, length, end, name, error);
    if (status == 0 && !range_within(header.reftable_offset, 1, file_size))
        status = error_set(error, EINVAL, "%s: its refcount table lies beyond the end of the file", name);
    if (status == 0)
        *ret_header = header;
    return status;
}

int qcow2_read(const char *path, struct qcow2_header *ret_header, struct error *error)
{
    struct stat st;
    uint8_t *bytes = malloc(1u << QCOW2_MAX_CLUSTER_BITS);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t length = bytes && fd >= 0 && fstat(fd, &st) == 0 ? pread(fd, bytes, 1u << QCOW2_MAX_CLUSTER_BITS, 0) : -1;
    int status = length < 0 ? error_set(error, bytes ? errno : ENOMEM, "%s: %s", path, strerror(bytes ? errno : ENOMEM)) : 0;
    if (status == 0) {
        off_t size = S_ISBLK(st.st_mode) ? lseek(fd, 0, SEEK_END) : st.st_size;
        status = qcow2_parse(ret_header, bytes, (size_t)length, (uint64_t)size, path, error);
    }
    if (fd >= 0)
        close(fd);
    free(bytes);
    return status;
}
