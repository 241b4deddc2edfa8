/* raw_test.c - raw volumes, each way that their requests are done: ring, threads, page cache, no loop. */
#include "block/raw.h"

#include <sys/stat.h>

#include "check.h"
#include "support/volume.h"

#define SIZE (4u << 20)

static uint8_t model[SIZE], buffer[SIZE], other[SIZE];

static void check_same(struct block *block, struct loop *loop)
{
    memset(buffer, 0x5a, SIZE);
    CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, 0, buffer, SIZE), 0);
    CHECK(memcmp(buffer, model, SIZE) == 0);
}

static void operations(struct block *block, struct loop *loop)
{
    memset(model, 0, SIZE);
    check_same(block, loop);
    static const struct { uint64_t offset, length; unsigned flags; } writes[] = {
        {0, 512, 0}, {512, 4096, BLOCK_FUA}, {8192, 65536, 0}, {1 << 20, 1 << 20, 0}, {SIZE - 512, 512, 0}, {3 << 20, 512 << 10, BLOCK_FUA}};
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        volume_pattern(model + writes[i].offset, writes[i].length, i);
        CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, writes[i].flags, writes[i].offset, model + writes[i].offset, writes[i].length), 0);
    }
    check_same(block, loop);
    CHECK_EQ(volume_do(block, loop, BLOCK_FLUSH, 0, 0, NULL, 0), 0);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE_ZEROES, 0, 512, NULL, 1024), 0);
    memset(model + 512, 0, 1024);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE_ZEROES, BLOCK_UNMAP | BLOCK_FUA, 1 << 20, NULL, 70000 / 512 * 512), 0);
    memset(model + (1 << 20), 0, 70000 / 512 * 512);
    check_same(block, loop);
    CHECK_EQ(volume_do(block, loop, BLOCK_DISCARD, 0, 3 << 20, NULL, 256 << 10), 0);
    CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, 0, buffer, SIZE), 0);
    CHECK(memcmp(buffer, model, 3 << 20) == 0);
    memcpy(model, buffer, SIZE); /* a discarded part holds anything, but it holds it */
    check_same(block, loop);
}

/* Buffers cut oddly, many requests in one kick. */
static void batch(struct block *block, struct loop *loop)
{
    enum { COUNT = 600 };
    static struct volume_request requests[COUNT];
    unsigned left;
    for (int write = 1; write >= 0; write--) {
        for (unsigned i = 0; i < COUNT; i++) {
            uint8_t *bytes = (write ? model : buffer) + i * 4096;
            if (write)
                volume_pattern(bytes, 4096, i + 77);
            volume_fill(&requests[i], loop, &left, write ? BLOCK_WRITE : BLOCK_READ, 0, i * 4096, bytes, 4096);
        }
        volume_run(block, loop, requests, COUNT);
        for (unsigned i = 0; i < COUNT; i++)
            CHECK(requests[i].completed == 1 && requests[i].status == 0);
    }
    CHECK(memcmp(buffer, model, COUNT * 4096) == 0);
    struct iovec cut[40];
    uint64_t at = 0;
    for (unsigned i = 0; i < 40; i++) {
        uint64_t length = i == 39 ? 65536 - at : 1 + i * 31 % 997;
        cut[i] = (struct iovec){other + at, length};
        at += length;
    }
    struct volume_request own;
    for (int write = 0; write < 2; write++) {
        volume_fill(&own, loop, &left, write ? BLOCK_WRITE : BLOCK_READ, 0, write ? 1 << 20 : 4096, NULL, 65536);
        own.request.iov = cut;
        own.request.iov_count = 40;
        volume_run(block, loop, &own, 1);
        CHECK(own.completed == 1 && own.status == 0);
    }
    CHECK(memcmp(other, model + 4096, 65536) == 0);
    memcpy(model + (1 << 20), other, 65536);
    check_same(block, loop);
}

static void refusals(struct block *block, struct loop *loop)
{
    CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, SIZE, buffer, 512), -EINVAL);
    CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, SIZE - 512, buffer, 1024), -EINVAL);
    CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, UINT64_MAX - 511, buffer, 1024), -EINVAL);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, 0, 1, buffer, 512), -EINVAL);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, 0, 0, buffer, 511), -EINVAL);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, 0, 0, buffer, 0), -EINVAL);
    CHECK_EQ(volume_do(block, loop, BLOCK_FLUSH, 0, 512, NULL, 512), -EINVAL);
    CHECK_EQ(volume_do(block, loop, BLOCK_DISCARD, BLOCK_UNMAP, 0, NULL, 512), -EOPNOTSUPP);
    CHECK_EQ(volume_do(block, loop, (enum block_op)9, 0, 0, NULL, 512), -EOPNOTSUPP);
    unsigned left;
    struct volume_request own;
    volume_fill(&own, loop, &left, BLOCK_READ, 0, 0, buffer, 1024);
    own.iov.iov_len = 512; /* shorter than the request */
    volume_run(block, loop, &own, 1);
    CHECK_EQ(own.status, -EINVAL);
    CHECK_EQ(block->in_flight, 0);
}

/* Writes of single sectors, all in one kick, eight to what O_DIRECT may write at once, beside and among larger ones: each must
 * leave its neighbours alone. */
static void neighbours(struct block *block, struct loop *loop)
{
    enum { COUNT = 400 };
    static struct volume_request requests[COUNT];
    unsigned left;
    uint64_t at = 512;
    for (unsigned i = 0; i < COUNT; i++) {
        static const uint64_t lengths[] = {512, 512, 1024, 512, 4096, 7168, 512, 20480};
        uint64_t length = lengths[i % 8];
        bool zeroes = i % 16 == 9;
        volume_pattern(model + at, length, i + 1000);
        volume_fill(&requests[i], loop, &left, zeroes ? BLOCK_WRITE_ZEROES : BLOCK_WRITE, 0, at, zeroes ? NULL : model + at, length);
        if (zeroes)
            memset(model + at, 0, length);
        at += length;
    }
    CHECK(at < SIZE);
    volume_run(block, loop, requests, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        CHECK(requests[i].completed == 1 && requests[i].status == 0);
    check_same(block, loop);
    for (unsigned i = 0; i < COUNT; i++)
        volume_fill(&requests[i], loop, &left, BLOCK_READ, 0, i * 512 + 512, other + i * 512 + 512, 512);
    volume_run(block, loop, requests, COUNT);
    CHECK(memcmp(other + 512, model + 512, COUNT * 512) == 0);
}

/* O_DIRECT that takes only 4096 bytes at once, in a file that ends within as many: it stays as large as it is. */
static void in_large_units(bool looped)
{
    enum { ODD = 5632 };
    char path[64];
    struct stat st;
    struct loop *loop = NULL;
    struct block *block = NULL;
    struct error error = {""};
    raw_tuning = (struct raw_tuning){.direct_unit = 4096};
    volume_file(path, ODD);
    struct block_options options = {.path = path, .format = "raw", .direct = true};
    if (looped)
        CHECK_EQ(loop_new(&loop, NULL), 0);
    if (block_open(&options, loop, &block, &error) == 0) {
        CHECK_EQ(block->limits.sector_size, 512);
        CHECK_EQ(block->limits.physical_size, 4096);
        volume_pattern(model, ODD, 3);
        CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, 0, 0, model, 4096), 0);
        CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, BLOCK_FUA, 4096, model + 4096, 1024), 0);
        CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, 0, ODD - 512, model + ODD - 512, 512), 0);
        CHECK(stat(path, &st) == 0 && st.st_size == ODD);
        CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, 0, buffer, ODD), 0);
        CHECK(memcmp(buffer, model, ODD) == 0);
        CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, ODD - 512, buffer, 512), 0);
        CHECK(memcmp(buffer, model + ODD - 512, 512) == 0);
        CHECK_EQ(block_resize(block, ODD + 1024, &error), 0);
        CHECK_EQ(block_transfer(block, BLOCK_WRITE, 0, ODD, model, 1024), 0);
        CHECK(stat(path, &st) == 0 && st.st_size == ODD + 1024);
        CHECK_EQ(block_transfer(block, BLOCK_READ, 0, 0, buffer, ODD + 1024), 0);
        CHECK(memcmp(buffer, model, ODD) == 0 && memcmp(buffer + ODD, model, 1024) == 0);
        block_close(block);
    } else {
        CHECK(strstr(error.text, "direct") != NULL);
    }
    loop_free(loop);
    unlink(path);
}

static void each_way(const struct raw_tuning *tuning, bool direct, bool looped)
{
    char path[64];
    volume_file(path, SIZE);
    raw_tuning = *tuning;
    struct loop *loop = NULL;
    if (looped)
        CHECK_EQ(loop_new(&loop, NULL), 0);
    struct block *block = NULL, *second = NULL;
    struct error error = {""};
    struct block_options options = {.path = path, .format = "raw", .direct = direct};
    int status = block_open(&options, loop, &block, &error);
    if (status == -EINVAL && direct) {
        puts("O_DIRECT is not supported where the test's files are");
    } else if (status < 0) {
        fprintf(stderr, "%s\n", error.text);
        CHECK(false);
    } else {
        operations(block, loop);
        batch(block, loop);
        neighbours(block, loop);
        refusals(block, loop);
        CHECK_EQ(block_open(&options, loop, &second, &error), -EBUSY);
        CHECK(strstr(error.text, path) != NULL);
        block_close(block);
    }
    loop_free(loop);
    unlink(path);
}

static void sizes_and_locks(void)
{
    char path[64];
    volume_file(path, 1000); /* not whole sectors: the rest reads as zeroes */
    struct block *block = NULL, *second = NULL;
    struct error error;
    struct block_options options = {.path = path, .readonly = true};
    CHECK_EQ(block_open(&options, NULL, &block, &error), 0);
    CHECK_EQ(block->limits.size, 1024);
    memset(buffer, 1, 1024);
    CHECK_EQ(block_transfer(block, BLOCK_READ, 0, 0, buffer, 1024), 0);
    CHECK(volume_is_zero(buffer, 1024));
    CHECK_EQ(block_transfer(block, BLOCK_WRITE, 0, 0, buffer, 1024), -EROFS);
    CHECK_EQ(block_resize(block, 4096, &error), -EROFS);
    CHECK_EQ(block_open(&options, NULL, &second, &error), 0); /* readers share */
    block_close(second);
    options.readonly = false;
    CHECK_EQ(block_open(&options, NULL, &second, &error), -EBUSY);
    block_close(block);
    CHECK_EQ(block_open(&options, NULL, &block, &error), 0);
    CHECK_EQ(block_resize(block, 1000, &error), -EINVAL);
    CHECK_EQ(block_resize(block, 1 << 20, &error), 0);
    CHECK_EQ(block_transfer(block, BLOCK_WRITE, 0, 64 << 10, buffer, 4096), 0);
    struct block_extent extent;
    CHECK_EQ(block_extent(block, 4096, 1024, &extent), 0);
    CHECK(!extent.data && extent.length == 1024);
    CHECK_EQ(block_extent(block, 4096, 512 << 10, &extent), 0);
    CHECK(!extent.data && extent.length == 60 << 10);
    CHECK_EQ(block_extent(block, 64 << 10, 512 << 10, &extent), 0);
    CHECK(extent.data && extent.length == 4096);
    CHECK_EQ(block_extent(block, 1 << 20, 512, &extent), -EINVAL);
    block_close(block);
    unlink(path);
    CHECK(block_open(&options, NULL, &block, &error) < 0);
    CHECK(strstr(error.text, path) != NULL);
    options.path = "/";
    CHECK(block_open(&options, NULL, &block, &error) < 0);
    options = (struct block_options){.path = "/dev/null"};
    CHECK(block_open(&options, NULL, &block, &error) < 0);
    CHECK(strstr(error.text, "/dev/null") != NULL);
}

int main(void)
{
    static const struct raw_tuning ways[] = {
        {.inline_max = 64 << 10}, {.no_nowait = true}, {.no_ring = true, .inline_max = 4096}, {.no_ring = true, .no_nowait = true}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        each_way(&ways[i], false, true);
    each_way(&ways[0], true, true);
    each_way(&ways[3], true, true);
    static const struct raw_tuning large[] = {{.direct_unit = 4096}, {.direct_unit = 4096, .no_ring = true}, {.direct_unit = 1024}};
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++)
        each_way(&large[i], true, true);
    each_way(&large[0], true, false);
    static const struct raw_tuning bounced = {.bounce_min = 8192}; /* whatever is larger, aligned or not */
    each_way(&bounced, true, true);
    in_large_units(true);
    in_large_units(false);
    each_way(&ways[0], false, false);
    sizes_and_locks();
    CHECK_DONE();
}
