/* qcow2_format.h - the bytes of a qcow2 file, by its specification ("The QCOW2 Image Format", version 2 and 3).
 * All numbers are big-endian. Section names below are the specification's. */
#ifndef VENEER_BLOCK_QCOW2_FORMAT_H
#define VENEER_BLOCK_QCOW2_FORMAT_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"

/* "Header": offsets of its fields. */
#define QCOW2_MAGIC 0x514649fbu
enum qcow2_field {
    QCOW2_AT_MAGIC = 0,
    QCOW2_AT_VERSION = 4,
    QCOW2_AT_BACKING_OFFSET = 8,
    QCOW2_AT_BACKING_LENGTH = 16,
    QCOW2_AT_CLUSTER_BITS = 20,
    QCOW2_AT_SIZE = 24,
    QCOW2_AT_CRYPT = 32,
    QCOW2_AT_L1_SIZE = 36,
    QCOW2_AT_L1_OFFSET = 40,
    QCOW2_AT_REFTABLE_OFFSET = 48,
    QCOW2_AT_REFTABLE_CLUSTERS = 56,
    QCOW2_AT_SNAPSHOT_COUNT = 60,
    QCOW2_AT_SNAPSHOT_OFFSET = 64,
    QCOW2_V2_LENGTH = 72, /* the rest is of version 3 */
    QCOW2_AT_INCOMPATIBLE = 72,
    QCOW2_AT_COMPATIBLE = 80,
    QCOW2_AT_AUTOCLEAR = 88,
    QCOW2_AT_REFCOUNT_ORDER = 96,
    QCOW2_AT_HEADER_LENGTH = 100,
    QCOW2_AT_COMPRESSION = 104,
    QCOW2_V3_LENGTH = 104,
};

#define QCOW2_DIRTY (1ull << 0)
#define QCOW2_CORRUPT (1ull << 1)
#define QCOW2_EXTERNAL_DATA (1ull << 2)
#define QCOW2_COMPRESSION_TYPE (1ull << 3)
#define QCOW2_EXTENDED_L2 (1ull << 4)

/* "Header extensions". */
#define QCOW2_EXT_END 0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau

/* "Cluster mapping". */
#define QCOW2_COPIED (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO (1ull << 0)
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull

/* Bounds on what a file may ask to be kept in memory; the tables of an 8 EiB volume would not be. */
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_L1_BYTES (32u << 20)
#define QCOW2_MAX_REFTABLE_BYTES (8u << 20)
#define QCOW2_MAX_NAME 1023

/* A header, checked: what is out of the format's bounds is refused by qcow2_parse. */
struct qcow2_header {
    uint32_t version; /* 2 or 3 */
    unsigned cluster_bits;
    uint64_t size;
    uint32_t l1_size; /* entries, enough for size */
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshot_count;
    uint64_t incompatible, compatible, autoclear;
    unsigned refcount_order; /* bits of a refcount, as a power of two */
    unsigned compression;    /* 0 zlib, 1 zstd */
    char backing[QCOW2_MAX_NAME + 1]; /* "" when there is none */
    char backing_format[16];          /* "" when the file does not say */
};

static inline uint32_t qcow2_get32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return be32toh(value);
}
static inline uint64_t qcow2_get64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return be64toh(value);
}
static inline void qcow2_put32(uint8_t *bytes, uint32_t value)
{
    value = htobe32(value);
    memcpy(bytes, &value, sizeof value);
}
static inline void qcow2_put64(uint8_t *bytes, uint64_t value)
{
    value = htobe64(value);
    memcpy(bytes, &value, sizeof value);
}

/* Entries of the L1 table that a volume needs. */
static inline uint64_t qcow2_l1_entries(uint64_t size, unsigned cluster_bits)
{
    unsigned bits = cluster_bits + cluster_bits - 3; /* what one L2 table maps */
    return (size >> bits) + ((size & ((1ull << bits) - 1)) != 0);
}

/* Checks and takes a header from the file's first `length` bytes (its first cluster, or the whole file when that
 * is shorter). file_size: bytes. Returns 0, -EINVAL for what breaks the format, or -ENOTSUP for features that
 * are not supported. name: of the file, for the error. */
int qcow2_parse(struct qcow2_header *ret_header, const uint8_t *bytes, size_t length, uint64_t file_size, const char *name,
                struct error *error);
/* The same from a file, which is neither locked nor changed; its backing file is not looked for. */
int qcow2_read(const char *path, struct qcow2_header *ret_header, struct error *error);

#endif
