/* unpack.h - decompression of a kernel's payload with the libraries that own the formats. */
#ifndef VENEER_MACHINE_UNPACK_H
#define VENEER_MACHINE_UNPACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* The name of the format that `bytes` start in ("gzip", "LZ4" ...), or NULL when none is known. */
const char *unpack_format(const void *bytes, size_t length);

/* Decompresses a Linux payload: compressed data followed by its unpacked size in 4 bytes, little-endian
 * (for gzip, the format's own trailer). Formats: LZ4 (legacy frame), zstd, gzip, xz, lzma. The result is
 * exactly that size; a stream that gives more or fewer bytes is refused.
 * limit: the largest result allowed, in bytes. *ret_bytes is the caller's to unpack_free. Nothing in the input is trusted.
 * Returns 0; -ENOTSUP when the format is not known; -EINVAL, -EFBIG or -ENOMEM. `error` says what is wrong with
 * the data; the caller puts the file's name before it. */
int unpack_payload(const void *bytes, size_t length, uint64_t limit, uint8_t **ret_bytes, size_t *ret_length,
                   struct error *error);

/* Frees a result. NULL is allowed. */
void unpack_free(uint8_t *bytes, size_t length);

#endif
