#include "block/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PART (1u << 20)     /* read at once */
#define PIECE (64u << 10)   /* written, or left out when it is zero */
#define STEP (64ull << 20)  /* between two reports */

static bool is_zero(const uint8_t *bytes, size_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

static int copy_data(struct block *from, struct block *to, uint64_t offset, uint64_t length, uint8_t *buffer)
{
    int status = 0;
    while (length && status == 0) {
        uint64_t part = length < PART ? length : PART;
        status = block_transfer(from, BLOCK_READ, 0, offset, buffer, part);
        for (uint64_t at = 0; status == 0 && at < part; at += PIECE) {
            uint64_t piece = part - at < PIECE ? part - at : PIECE;
            if (!is_zero(buffer + at, piece))
                status = block_transfer(to, BLOCK_WRITE, 0, offset + at, buffer + at, piece);
        }
        offset += part;
        length -= part;
    }
    return status;
}

int block_copy(struct block *from, struct block *to, void (*amount)(void *context, uint64_t done, uint64_t total), void *context,
               struct error *error)
{
    uint64_t size = from->limits.size;
    uint8_t *buffer = malloc(PART);
    int status = buffer ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < size && status == 0;) {
        struct block_extent extent = {0};
        status = block_extent(from, at, size - at < STEP ? size - at : STEP, &extent);
        if (status == 0 && extent.data)
            status = copy_data(from, to, at, extent.length, buffer);
        at += extent.length;
        if (amount && status == 0)
            amount(context, at, size);
    }
    free(buffer);
    if (status == 0)
        status = block_transfer(to, BLOCK_FLUSH, 0, 0, NULL, 0);
    return status < 0 ? error_set(error, -status, "copying the disk: %s", strerror(-status)) : 0;
}
