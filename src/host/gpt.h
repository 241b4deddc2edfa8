/* gpt.h - the GUID partition table (UEFI specification 2.10, chapter 5): writes the one that images have, reads any.
 *
 * Tables that are read may be hostile; every number is checked against the volume and fixed limits. */
#ifndef VENEER_HOST_GPT_H
#define VENEER_HOST_GPT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define GPT_PARTITIONS_MAX 128
#define GPT_GUID_TEXT 37
#define GPT_ALIGN (UINT64_C(1) << 20)
#define GPT_OVERHEAD (2 * GPT_ALIGN) /* what gpt_write leaves before and after the partition */

struct gpt_partition {
    uint8_t type[16], id[16]; /* GUIDs as they lie on the disk */
    uint64_t offset, size;    /* bytes; within the volume */
};

/* The types that matter here. */
extern const uint8_t gpt_type_root_x86_64[16], gpt_type_linux[16];

/* Reads bytes [offset, offset + length) of the volume. Returns 0 or a negative errno. */
typedef int gpt_read_fn(void *owner, uint64_t offset, void *bytes, size_t length);

/* Reads the partitions in use, in the table's order; when the first copy is damaged, the one at the volume's end.
 * Returns their number, -ENOENT when the volume has no GPT at all, or another negative errno with a sentence. */
int gpt_read(gpt_read_fn *read, void *owner, uint64_t volume_size, struct gpt_partition ret_parts[GPT_PARTITIONS_MAX],
             struct error *error);

/* Writes both copies and the protective MBR to the file `fd` of `size` bytes (whole MiB, at least 4), with one
 * partition of the type x86-64 root and a random GUID between the first MiB and the last. */
int gpt_write(int fd, uint64_t size, struct gpt_partition *ret_part, struct error *error);

/* "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" */
void gpt_guid_text(const uint8_t guid[16], char ret_text[GPT_GUID_TEXT]);

#endif
