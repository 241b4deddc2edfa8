/* sha256.h - SHA-256 (FIPS 180-4) of a stream, by the processor's SHA instructions where it has them.
 *
 * Images carry the digest of their whole virtual content, gigabytes of it, so it must run at the disk's speed. */
#ifndef VENEER_HOST_SHA256_H
#define VENEER_HOST_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32
#define SHA256_TEXT 65 /* hexadecimal and the final NUL */

struct sha256 {
    uint32_t state[8];
    uint64_t length; /* bytes taken so far */
    uint8_t block[64];
};

void sha256_begin(struct sha256 *sha);
void sha256_add(struct sha256 *sha, const void *bytes, size_t length);
/* Ends the stream. The digest as lower-case hexadecimal. */
void sha256_end(struct sha256 *sha, char ret_text[SHA256_TEXT]);
/* Makes every later sha256_begin... use the portable code, for tests that compare the two. Not thread-safe. */
void sha256_force_portable(int portable);

#endif
