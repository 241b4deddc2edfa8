/* qcow2.c - fuzzes images: the file is the input, opened and then read, written, discarded and flushed.
 *
 * Besides what sanitizers see: nothing changes the place and length of the backing file's name (a guest must not choose
 * which of the host's files the next open reads), nothing is written to an image that is open read-only, and who refuses
 * an image says why. */
#include <stdio.h>
#include <stdlib.h>

#include "block/qcow2.h"
#include "block/qcow2_format.h"
#include "support/memory_volume.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_ASSERT(condition)                                                        \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);   \
            abort();                                                                  \
        }                                                                             \
    } while (0)

static uint8_t bytes[256 << 10];

/* Fills in an operation by its number; false for an image without sectors. */
static bool choose(const struct block *image, unsigned number, uint64_t most, struct block_request *ret_request)
{
    static const enum block_op ops[] = {BLOCK_READ, BLOCK_WRITE, BLOCK_WRITE_ZEROES, BLOCK_DISCARD, BLOCK_FLUSH};
    uint64_t sectors = image->limits.size / 512, length = most / 512;
    if (!sectors)
        return false;
    enum block_op op = ops[number % 5];
    uint64_t at = (number * 2654435761u) % (sectors < 4096 ? sectors : 4096);
    length = length < sectors - at ? length : sectors - at;
    length = number % 3 ? (length < 5 ? length : 5) : length;
    if (op == BLOCK_FLUSH)
        at = length = 0;
    *ret_request = (struct block_request){.op = op, .flags = op == BLOCK_WRITE_ZEROES && number % 2 ? BLOCK_UNMAP : 0,
                                          .offset = at * 512, .length = length * 512};
    return true;
}

/* Operations may fail, as the image may be anything. */
static void operate(struct block *image, unsigned number)
{
    struct block_request what;
    struct block_extent extent;
    if (!choose(image, number, sizeof bytes, &what))
        return;
    memset(bytes, (int)number, sizeof bytes);
    (void)block_transfer(image, what.op, what.flags, what.offset, bytes, what.length);
    if (what.length)
        (void)block_extent(image, what.offset, what.length, &extent);
}

static unsigned completed;

static void count(struct block_request *request, int status)
{
    (void)request, (void)status;
    completed++;
}

/* Several at once, each with its part of `bytes`: all complete, once. */
static void operate_together(struct block *image, unsigned number)
{
    enum { COUNT = 8, PART = sizeof bytes / COUNT };
    struct block_request requests[COUNT];
    struct iovec iov[COUNT];
    completed = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        if (!choose(image, number + i, PART, &requests[i]))
            return;
        bool buffers = requests[i].op == BLOCK_READ || requests[i].op == BLOCK_WRITE;
        iov[i] = (struct iovec){bytes + i * PART, requests[i].length};
        requests[i].iov = &iov[i];
        requests[i].iov_count = buffers;
        requests[i].complete = count;
        block_submit(image, &requests[i]);
    }
    block_kick(image);
    FUZZ_ASSERT(completed == COUNT);
}

static void use(const uint8_t *data, size_t size, bool readonly)
{
    uint8_t first[QCOW2_AT_CLUSTER_BITS];
    uint64_t length = (size + 511) & ~(uint64_t)511;
    uint8_t *padded = calloc(1, length ? length : 1);
    memcpy(padded, data, size);
    if (size >= QCOW2_V2_LENGTH) /* no file of this host is to be opened */
        memset(padded + QCOW2_AT_BACKING_OFFSET, 0, 12);
    memcpy(first, padded, length ? sizeof first : 0);
    struct memory_volume *memory = memory_volume_new(padded, length);
    free(padded);
    memory->kept = true;
    memory->most = 16u << 20;
    struct block_options options = {.path = "image", .readonly = readonly};
    struct block *image;
    struct error error = {""};
    memory->block.limits.readonly = readonly;
    if (qcow2_open(&options, &memory->block, NULL, &image, &error) == 0) {
        operate_together(image, 3); /* while no metadata is in memory */
        for (unsigned i = 0; i < 24; i++)
            operate(image, i);
        operate_together(image, 40);
        if (!readonly)
            (void)block_resize(image, (image->limits.size & ~511ull) + 65536, NULL);
        for (unsigned i = 24; i < 32; i++)
            operate(image, i);
        block_close(image);
        FUZZ_ASSERT(memcmp(first, memory->bytes, sizeof first) == 0);
        for (unsigned i = 0; readonly && i < memory->logged; i++)
            FUZZ_ASSERT(memory->log[i].length == 0); /* a flush */
    } else {
        FUZZ_ASSERT(error.text[0]);
    }
    memory_volume_free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1 << 20)
        return 0;
    use(data, size, true);
    use(data, size, false);
    return 0;
}
