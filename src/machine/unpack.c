/* unpack.c - one function a format; each fills a buffer of known size and may neither pass nor miss its end. */
#include "machine/unpack.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

/* What one decoder works on. Sizes are below 2^32 by the caller's check. */
struct unpack_job {
    const uint8_t *in;
    size_t in_size;
    uint8_t *out;
    size_t out_size;
};

#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_BLOCK (8u << 20) /* each block but the last unpacks to this */
#define XZ_MEMORY_LIMIT (UINT64_C(512) << 20)

static uint32_t get_le32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int wrong_size(struct error *error, const char *format, size_t got, size_t want)
{
    return error_set(error, EINVAL, "the %s payload unpacks to %zu bytes where its trailer promises %zu", format, got, want);
}

/* The legacy frame: a magic, then blocks of a 4-byte compressed size and the data. A magic may recur. */
static int unpack_lz4(const struct unpack_job *job, struct error *error)
{
    size_t in = 4, out = 0;
    while (job->in_size - in >= 4) {
        uint32_t size = get_le32(job->in + in);
        in += 4;
        if (size == LZ4_LEGACY_MAGIC)
            continue;
        if (size == 0 || size > job->in_size - in || size > INT_MAX)
            return error_set(error, EINVAL, "the LZ4 payload is damaged: a block of %u bytes at offset %zu of %zu", size,
                             in, job->in_size);
        size_t room = job->out_size - out < LZ4_LEGACY_BLOCK ? job->out_size - out : LZ4_LEGACY_BLOCK;
        int got = LZ4_decompress_safe((const char *)job->in + in, (char *)job->out + out, (int)size, (int)room);
        if (got < 0)
            return error_set(error, EINVAL, "the LZ4 payload is damaged in the block at offset %zu", in);
        in += size;
        out += (size_t)got;
    }
    return out == job->out_size ? 0 : wrong_size(error, "LZ4", out, job->out_size);
}

static int unpack_zstd(const struct unpack_job *job, struct error *error)
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    if (!stream)
        return error_set(error, ENOMEM, "no memory to unpack the zstd payload");
    ZSTD_inBuffer in = {job->in, job->in_size, 0};
    ZSTD_outBuffer out = {job->out, job->out_size, 0};
    size_t left = 1;
    while (left != 0) {
        size_t in_before = in.pos, out_before = out.pos;
        left = ZSTD_decompressStream(stream, &out, &in);
        if (ZSTD_isError(left) || (in.pos == in_before && out.pos == out_before))
            break;
    }
    ZSTD_freeDStream(stream);
    if (ZSTD_isError(left))
        return error_set(error, EINVAL, "the zstd payload is damaged: %s", ZSTD_getErrorName(left));
    if (left != 0 || out.pos != job->out_size)
        return wrong_size(error, "zstd", out.pos, job->out_size);
    return 0;
}

static int unpack_gzip(const struct unpack_job *job, struct error *error)
{
    z_stream stream = {.next_in = (z_const Bytef *)(uintptr_t)job->in, .avail_in = (uInt)job->in_size,
                       .next_out = job->out, .avail_out = (uInt)job->out_size};
    if (inflateInit2(&stream, 15 + 16) != Z_OK)
        return error_set(error, ENOMEM, "no memory to unpack the gzip payload");
    int code = inflate(&stream, Z_FINISH);
    size_t got = stream.total_out;
    const char *why = stream.msg ? stream.msg : "it ends too early";
    inflateEnd(&stream);
    if (code == Z_STREAM_END)
        return got == job->out_size ? 0 : wrong_size(error, "gzip", got, job->out_size);
    if (code == Z_BUF_ERROR && got == job->out_size)
        return error_set(error, EINVAL, "the gzip payload unpacks to more than the %zu bytes its trailer promises", got);
    return error_set(error, EINVAL, "the gzip payload is damaged: %s", why);
}

/* xz, and the older lzma container. */
static int unpack_xz(const struct unpack_job *job, struct error *error)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    if (lzma_auto_decoder(&stream, XZ_MEMORY_LIMIT, 0) != LZMA_OK)
        return error_set(error, ENOMEM, "no memory to unpack the xz payload");
    stream.next_in = job->in;
    stream.avail_in = job->in_size;
    stream.next_out = job->out;
    stream.avail_out = job->out_size;
    lzma_ret code = lzma_code(&stream, LZMA_RUN);
    size_t got = (size_t)stream.total_out;
    if (code == LZMA_OK && got == job->out_size) /* the end marker may still be unread */
        code = lzma_code(&stream, LZMA_RUN);
    lzma_end(&stream);
    if (code == LZMA_STREAM_END || (code == LZMA_BUF_ERROR && got == job->out_size))
        return got == job->out_size ? 0 : wrong_size(error, "xz", got, job->out_size);
    if (code == LZMA_MEMLIMIT_ERROR)
        return error_set(error, EINVAL, "the xz payload asks for more than 512 MiB of decoder memory");
    return error_set(error, EINVAL, "the xz payload is damaged or ends too early (liblzma code %d)", (int)code);
}

static const struct unpack_kind {
    const char *name;
    uint8_t magic[6];
    uint8_t magic_size;
    int (*unpack)(const struct unpack_job *job, struct error *error); /* NULL: known by name only */
} unpack_kinds[] = {
    {"LZ4", {0x02, 0x21, 0x4c, 0x18}, 4, unpack_lz4},
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, unpack_zstd},
    {"gzip", {0x1f, 0x8b, 0x08}, 3, unpack_gzip},
    {"xz", {0xfd, '7', 'z', 'X', 'Z', 0x00}, 6, unpack_xz},
    {"lzma", {0x5d, 0x00, 0x00}, 3, unpack_xz},
    {"bzip2", {'B', 'Z', 'h'}, 3, NULL},
    {"LZO", {0x89, 'L', 'Z', 'O'}, 4, NULL},
};

static const struct unpack_kind *unpack_find(const void *bytes, size_t length)
{
    for (size_t i = 0; i < sizeof unpack_kinds / sizeof unpack_kinds[0]; i++)
        if (length >= unpack_kinds[i].magic_size && memcmp(bytes, unpack_kinds[i].magic, unpack_kinds[i].magic_size) == 0)
            return &unpack_kinds[i];
    return NULL;
}

const char *unpack_format(const void *bytes, size_t length)
{
    const struct unpack_kind *kind = unpack_find(bytes, length);
    return kind ? kind->name : NULL;
}

/* Maps pages rather than take them from the heap, so that all of a kernel's 50 MB goes back afterwards and a
 * trailer that lies about the size costs nothing. */
int unpack_payload(const void *bytes, size_t length, uint64_t limit, uint8_t **ret_bytes, size_t *ret_length,
                   struct error *error)
{
    const struct unpack_kind *kind = unpack_find(bytes, length);
    if (!kind)
        return error_set(error, ENOTSUP, "the payload's compression format is not known");
    if (!kind->unpack)
        return error_set(error, ENOTSUP, "%s payloads are not unpacked here", kind->name);
    if (length < 12 || length > UINT32_MAX)
        return error_set(error, EINVAL, "the %s payload has an impossible size of %zu bytes", kind->name, length);

    bool trailer_is_data = kind->unpack == unpack_gzip;
    uint32_t out_size = get_le32((const uint8_t *)bytes + length - 4);
    if (out_size == 0)
        return error_set(error, EINVAL, "the %s payload's trailer promises 0 bytes", kind->name);
    if (out_size > limit)
        return error_set(error, EFBIG, "the %s payload unpacks to %u bytes; at most %llu fit", kind->name, out_size,
                         (unsigned long long)limit);
    void *out = mmap(NULL, out_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (out == MAP_FAILED)
        return error_set(error, ENOMEM, "no memory for the %u bytes of the unpacked kernel", out_size);

    struct unpack_job job = {bytes, trailer_is_data ? length : length - 4, out, out_size};
    int status = kind->unpack(&job, error);
    if (status < 0) {
        munmap(out, out_size);
        return status;
    }
    *ret_bytes = out;
    *ret_length = out_size;
    return 0;
}

void unpack_free(uint8_t *bytes, size_t length)
{
    if (bytes)
        munmap(bytes, length);
}
