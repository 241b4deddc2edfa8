/* image_private.h - what the makers of images share. */
#ifndef VENEER_HOST_IMAGE_PRIVATE_H
#define VENEER_HOST_IMAGE_PRIVATE_H

#include "host/image.h"

/* progress and its functions may be NULL. */
void image_step(const struct image_progress *progress, const char *what);
void image_amount(const struct image_progress *progress, uint64_t bytes, uint64_t total);

#define IMAGE_DIGEST_TEXT 65 /* hexadecimal and the final NUL */

/* The SHA-256 (FIPS 180-4) of the first `size` bytes of a file, in lower case; its holes are not read. progress may be
 * NULL. Returns 0 or a negative errno with a sentence. */
int image_digest(int fd, uint64_t size, const struct image_progress *progress, char ret_digest[IMAGE_DIGEST_TEXT],
                 struct error *error);

/* Shell scripts that mmdebstrap runs on this host with the new root as $1, and packages for --include. */
extern const char debian_extract_hook[];   /* before anything is configured */
extern const char debian_initramfs_hook[]; /* the same: what the initramfs is made from */
extern const char debian_customize_hook[]; /* at the end */
extern const char debian_packages[];

#endif
