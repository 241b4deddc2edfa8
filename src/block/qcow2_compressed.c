/* qcow2_compressed.c - reads compressed clusters; "Compressed Clusters Descriptor" of the specification. */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "block/qcow2_private.h"

/* A raw deflate stream with a window of 4 KiB. The stream may be followed by anything. */
static int unpack_zlib(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size)
{
    union { const uint8_t *given; uint8_t *taken; } same = {in}; /* zlib does not change its input */
    z_stream stream = {.next_in = same.taken, .avail_in = (uInt)in_size, .next_out = out, .avail_out = (uInt)out_size};
    if (inflateInit2(&stream, -12) != Z_OK)
        return -ENOMEM;
    int result = inflate(&stream, Z_FINISH);
    bool whole = stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_BUF_ERROR || result == Z_OK);
    inflateEnd(&stream);
    return whole ? 0 : -EIO;
}

static int unpack_zstd(const uint8_t *in, size_t in_size, uint8_t *out, size_t out_size)
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    if (!stream)
        return -ENOMEM;
    ZSTD_inBuffer from = {in, in_size, 0};
    ZSTD_outBuffer to = {out, out_size, 0};
    size_t left = 1, before;
    do {
        before = from.pos + to.pos;
        left = ZSTD_decompressStream(stream, &to, &from);
    } while (!ZSTD_isError(left) && left && to.pos < to.size && from.pos + to.pos > before);
    ZSTD_freeDStream(stream);
    return !ZSTD_isError(left) && to.pos == to.size ? 0 : -EIO;
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry)
{
    if (q->unpacked && q->unpacked_entry == entry)
        return 0;
    if (!q->unpacked)
        q->unpacked = malloc(q->cluster_size);
    unsigned shift = 62 - (q->cluster_bits - 8);
    uint64_t start = entry & ((1ull << shift) - 1), sectors = entry >> shift & ((1ull << (62 - shift)) - 1);
    uint64_t length = (sectors + 1) * 512 - (start & 511); /* at most two clusters: the field is so wide */
    /* The file is read in its own sectors. */
    uint64_t mask = q->file->limits.sector_size - 1, from = start & ~mask, end = (start + length + mask) & ~mask;
    uint8_t *packed = malloc(end - from);
    int status = q->unpacked && packed ? 0 : -ENOMEM;
    if (status == 0)
        status = file_read(q, from, packed, end - from);
    q->unpacked_entry = 0;
    if (status == 0 && q->compression)
        status = unpack_zstd(packed + (start - from), length, q->unpacked, q->cluster_size);
    else if (status == 0)
        status = unpack_zlib(packed + (start - from), length, q->unpacked, q->cluster_size);
    if (status == 0)
        q->unpacked_entry = entry;
    free(packed);
    return status;
}
