/* qcow2_test.c - reads, writes, discards and write-zeroes on images of many shapes, compared with an array of bytes and
 * judged by qemu-img; images made by qemu-img; what is refused. */
#include "block/qcow2.h"

#include <sys/stat.h>

#include "block/fault.h"
#include "check.h"
#include "support/memory_volume.h"
#include "support/qemu_img.h"
#include "support/volume.h"

#define SIZE (6u << 20)

static uint8_t model[SIZE], buffer[SIZE];
static uint64_t seed;

static uint64_t random_below(uint64_t limit)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 20) % limit;
}

static void new_path(char path[64])
{
    volume_file(path, 0);
    unlink(path);
}

static struct block *open_image(const char *path, struct loop *loop, bool readonly)
{
    struct block *block = NULL;
    struct error error = {""};
    struct block_options options = {.path = path, .format = "qcow2", .readonly = readonly};
    if (block_open(&options, loop, &block, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        exit(1);
    }
    return block;
}

/* The image is sound and holds the model, by our reading and by qemu-img's. */
static void judge(const char *path, uint64_t size)
{
    CHECK_EQ(qemu_img_check(path, 0), 0);
    char raw[64];
    new_path(raw);
    int fd = open(raw, O_RDWR | O_CREAT, 0600);
    CHECK(write(fd, model, size) == (ssize_t)size);
    close(fd);
    CHECK_EQ(shell(0, "qemu-img compare -f qcow2 -F raw '%s' '%s'", path, raw), 0);
    unlink(raw);
    struct block *block = open_image(path, NULL, true);
    CHECK_EQ(block_transfer(block, BLOCK_READ, 0, 0, buffer, size), 0);
    CHECK(memcmp(buffer, model, size) == 0);
    for (uint64_t at = 0; at < size;) { /* what is said to be zeroes is */
        struct block_extent extent;
        CHECK_EQ(block_extent(block, at, size - at, &extent), 0);
        CHECK(extent.data || volume_is_zero(model + at, extent.length));
        at += extent.length;
    }
    block_close(block);
}

struct change {
    enum block_op op;
    uint64_t offset, length;
};

static bool disjoint(const struct change *changes, unsigned count, const struct change *next)
{
    for (unsigned i = 0; i < count; i++)
        if (changes[i].offset < next->offset + next->length && next->offset < changes[i].offset + changes[i].length)
            return false;
    return true;
}

/* A batch of requests that do not overlap but share clusters; a model of what discards leave is read back. */
static void batch(struct block *block, struct loop *loop, uint64_t size, unsigned count)
{
    static struct volume_request requests[33];
    struct change changes[32];
    unsigned left, used = 0;
    while (used < count) {
        static const enum block_op ops[] = {BLOCK_READ, BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE, BLOCK_DISCARD, BLOCK_WRITE_ZEROES};
        uint64_t sectors = random_below(10) ? random_below(40) + 1 : random_below(600) + 1;
        struct change next = {ops[random_below(6)], random_below(size / 512 - sectors) * 512, sectors * 512};
        if (!disjoint(changes, used, &next))
            continue;
        unsigned flags = 0;
        if (next.op == BLOCK_WRITE_ZEROES)
            flags = random_below(2) ? BLOCK_UNMAP : 0;
        if ((next.op == BLOCK_WRITE || next.op == BLOCK_WRITE_ZEROES) && !random_below(10))
            flags |= BLOCK_FUA;
        if (next.op == BLOCK_WRITE)
            volume_pattern(model + next.offset, next.length, random_below(1 << 30));
        if (next.op == BLOCK_WRITE_ZEROES)
            memset(model + next.offset, 0, next.length);
        uint8_t *bytes = next.op == BLOCK_READ ? buffer + next.offset : model + next.offset;
        volume_fill(&requests[used], loop, &left, next.op, flags, next.offset, bytes, next.length);
        changes[used++] = next;
    }
    bool flush = random_below(3) == 0;
    if (flush)
        volume_fill(&requests[used], loop, &left, BLOCK_FLUSH, 0, 0, NULL, 0);
    volume_run(block, loop, requests, used + flush);
    for (unsigned i = 0; i < used + flush; i++)
        CHECK(requests[i].completed == 1 && requests[i].status == 0);
    for (unsigned i = 0; i < used; i++) {
        const struct change *change = &changes[i];
        if (change->op == BLOCK_READ)
            CHECK(memcmp(buffer + change->offset, model + change->offset, change->length) == 0);
        if (change->op == BLOCK_DISCARD)
            CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, change->offset, model + change->offset, change->length), 0);
    }
}

static void exercise(const char *path, uint64_t size, unsigned rounds, bool looped)
{
    for (unsigned round = 0; round < rounds; round++) {
        struct loop *loop = NULL;
        if (looped)
            CHECK_EQ(loop_new(&loop, NULL), 0);
        struct block *block = open_image(path, loop, false);
        for (unsigned i = 0; i < 12; i++)
            batch(block, loop, size, 1 + (unsigned)random_below(32));
        block_close(block);
        loop_free(loop);
        judge(path, size);
    }
}

static void each_shape(void)
{
    static const unsigned bits[] = {9, 12, 16, 18};
    for (size_t i = 0; i < 4; i++)
        for (unsigned version = 2; version <= 3; version++)
            for (unsigned looped = 0; looped < 2; looped++) {
                char path[64];
                new_path(path);
                memset(model, 0, SIZE);
                uint64_t size = SIZE - 512 * (random_below(3) * 5);
                struct qcow2_create create = {.path = path, .size = size, .cluster_bits = bits[i], .version = version};
                CHECK_EQ(qcow2_create(&create, NULL), 0);
                exercise(path, size, 3, looped);
                unlink(path);
            }
}

/* A clone of a clone of a raw file, the three of different sizes. */
static void on_backing(unsigned version, unsigned bits, bool looped)
{
    char base[64], middle[64], top[64];
    new_path(middle);
    new_path(top);
    volume_file(base, 0);
    memset(model, 0, SIZE);
    volume_pattern(model, 3 << 20, 5);
    memset(model + (1 << 20), 0, 1 << 19);
    int fd = open(base, O_RDWR);
    CHECK(write(fd, model, 3 << 20) == 3 << 20);
    close(fd);
    struct qcow2_create create = {.path = middle, .size = 4 << 20, .cluster_bits = 16, .backing = base, .backing_format = "raw"};
    CHECK_EQ(qcow2_create(&create, NULL), 0);
    judge(middle, 4 << 20);
    exercise(middle, 4 << 20, 1, looped);
    create = (struct qcow2_create){.path = top, .size = SIZE, .cluster_bits = bits, .version = version,
                                   .backing = middle, .backing_format = "qcow2"};
    CHECK_EQ(qcow2_create(&create, NULL), 0);
    judge(top, SIZE);
    exercise(top, SIZE, 3, looped);
    unlink(base);
    unlink(middle);
    unlink(top);
}

/* Images that qemu-img made: compressed both ways, narrow and wide refcounts, snapshots, preallocated. */
static void from_qemu(void)
{
    static const char *const options[] = {
        "-c -o cluster_size=64k", "-c -o compression_type=zstd", "-c -o cluster_size=512", "-c -o compat=0.10",
        "-o refcount_bits=1", "-o refcount_bits=2,cluster_size=4k", "-o refcount_bits=64,cluster_size=512",
        "-o preallocation=metadata", "-o preallocation=full,cluster_size=2M", "-o lazy_refcounts=on"};
    char raw[64], path[64];
    new_path(path);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        volume_file(raw, 0);
        memset(model, 0, SIZE);
        for (uint64_t at = 0; at < SIZE; at += 1 << 18) /* some of it compresses */
            volume_pattern(model + at, random_below(1 << 17), at);
        int fd = open(raw, O_RDWR);
        CHECK(write(fd, model, SIZE) == SIZE);
        close(fd);
        CHECK_EQ(shell(0, "qemu-img convert -f raw -O qcow2 %s '%s' '%s'", options[i], raw, path), 0);
        judge(path, SIZE);
        exercise(path, SIZE, 2, true);
        unlink(path);
        unlink(raw);
    }
}

/* An internal snapshot shares clusters and tables: they are copied, and the snapshot stays as it was. */
static void with_snapshot(const char *options)
{
    char path[64];
    static uint8_t before[SIZE];
    new_path(path);
    memset(model, 0, SIZE);
    CHECK_EQ(shell(0, "qemu-img create -f qcow2 %s '%s' %u", options, path, SIZE), 0);
    exercise(path, SIZE, 1, true);
    memcpy(before, model, SIZE);
    CHECK_EQ(shell(0, "qemu-img snapshot -c one '%s'", path), 0);
    exercise(path, SIZE, 2, true);
    CHECK_EQ(shell(0, "qemu-img snapshot -a one '%s'", path), 0);
    memcpy(model, before, SIZE);
    judge(path, SIZE);
    exercise(path, SIZE, 1, false);
    CHECK_EQ(shell(0, "qemu-img snapshot -d one '%s'", path), 0);
    judge(path, SIZE);
    unlink(path);
}

static int no_transfer(struct block *block, enum block_op op, unsigned flags, uint64_t offset, void *to, uint64_t length)
{
    (void)block, (void)op, (void)flags, (void)offset, (void)to, (void)length;
    return -EIO;
}

static int hold(void *context, enum block_op op, uint64_t offset, uint64_t length)
{
    (void)op, (void)offset, (void)length;
    ++*(unsigned *)context;
    return FAULT_HOLD;
}

/* Reads of an image whose metadata is not in memory block on nothing, and wait only for their own: the file refuses to be read at
 * once, and the later request's page comes first. */
static void cold_reads(void)
{
    enum { CLUSTERS = 512 };
    static uint8_t file[2 << 20], got[3][512];
    char path[64];
    new_path(path);
    struct qcow2_create create = {.path = path, .size = CLUSTERS * 512, .cluster_bits = 9};
    struct block_options options = {.path = path, .format = "qcow2"};
    struct block *block = NULL, *fault = NULL;
    CHECK_EQ(qcow2_create(&create, NULL), 0);
    CHECK_EQ(block_open(&options, NULL, &block, NULL), 0);
    volume_pattern(file, CLUSTERS * 512, 9);
    uint8_t first[512], last[512];
    memcpy(first, file, 512);
    memcpy(last, file + (CLUSTERS - 1) * 512, 512);
    CHECK_EQ(block_transfer(block, BLOCK_WRITE, 0, 0, file, CLUSTERS * 512), 0);
    CHECK_EQ(block_close(block), 0);
    int fd = open(path, O_RDONLY);
    ssize_t length = read(fd, file, sizeof file);
    close(fd);
    unlink(path);
    unsigned asked = 0, left;
    struct block_extent extent;
    struct memory_volume *memory = memory_volume_new(file, (uint64_t)length);
    struct volume_request requests[3];
    CHECK_EQ(fault_new(&memory->block, &(struct fault_plan){hold, &asked}, &fault), 0);
    CHECK_EQ(qcow2_open(&options, fault, NULL, &block, NULL), 0);
    struct block_ops ops = *fault->ops, whole = *fault->ops;
    ops.transfer = no_transfer;
    fault->ops = &ops;
    asked = 0;
    for (unsigned i = 0; i < 3; i++) /* two of the same page */
        volume_fill(&requests[i], NULL, &left, BLOCK_READ, 0, i == 2 ? (CLUSTERS - 1) * 512 : i * 512, got[i], 512);
    volume_run(block, NULL, requests, 3);
    CHECK_EQ(asked, 2); /* for pages */
    CHECK_EQ(fault_release(fault, 1, true), 1);
    CHECK_EQ(asked, 3);
    CHECK_EQ(fault_release(fault, 1, true), 1);
    CHECK(requests[2].completed == 1 && requests[2].status == 0 && memcmp(got[2], last, 512) == 0);
    CHECK(!requests[0].completed && !requests[1].completed);
    fault->ops = &whole; /* the other page is now read at once, too: the load's bytes are too late to be taken */
    CHECK_EQ(block_extent(block, 0, 512, &extent), 0);
    CHECK_EQ(fault_release(fault, 1, true), 1);
    CHECK_EQ(fault_release(fault, 2, true), 2);
    CHECK(requests[0].completed == 1 && requests[0].status == 0 && requests[1].completed == 1 && requests[1].status == 0);
    CHECK(memcmp(got[0], first, 512) == 0);
    CHECK_EQ(block_close(block), 0);
}

static void resize(void)
{
    char path[64], base[64];
    struct error error = {""};
    new_path(path);
    volume_file(base, 0);
    memset(model, 0, SIZE);
    volume_pattern(model, 5 << 20, 9);
    int fd = open(base, O_RDWR);
    CHECK(write(fd, model, 5 << 20) == 5 << 20);
    close(fd);
    struct qcow2_create create = {.path = path, .size = 1 << 20, .cluster_bits = 9, .backing = base, .backing_format = "raw"};
    CHECK_EQ(qcow2_create(&create, NULL), 0);
    memset(model + (1 << 20), 0, SIZE - (1 << 20)); /* the backing file does not appear in what is added */
    exercise(path, 1 << 20, 1, true);
    struct block *block = open_image(path, NULL, false);
    CHECK_EQ(block_resize(block, 512, &error), -ENOTSUP);
    CHECK_EQ(block_resize(block, 1ull << 50, &error), -EFBIG);
    CHECK_EQ(block_resize(block, SIZE, &error), 0);
    block_close(block);
    judge(path, SIZE);
    exercise(path, SIZE, 1, true);
    block = open_image(path, NULL, false);
    CHECK_EQ(block_resize(block, 1ull << 30, &error), 0); /* a longer L1 table again */
    block_close(block);
    CHECK_EQ(qemu_img_check(path, 0), 0);
    unlink(path);
    unlink(base);
}

/* More clusters than the first refcount table reaches: 64 blocks of 256 counts of 512-byte clusters are 8 MiB. */
static void longer_refcount_table(void)
{
    char path[64];
    new_path(path);
    struct qcow2_create create = {.path = path, .size = 24 << 20, .cluster_bits = 9};
    CHECK_EQ(qcow2_create(&create, NULL), 0);
    struct block *block = open_image(path, NULL, false);
    volume_pattern(model, SIZE, 3);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(block_transfer(block, BLOCK_WRITE, 0, (uint64_t)i * SIZE, model, SIZE), 0);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(block_transfer(block, BLOCK_READ, 0, (uint64_t)i * SIZE, buffer, SIZE), 0);
        CHECK(memcmp(buffer, model, SIZE) == 0);
    }
    block_close(block);
    CHECK_EQ(qemu_img_check(path, 0), 0);
    unlink(path);
}

/* What was discarded is used again, so the file does not grow for ever. */
static void space_is_reused(void)
{
    char path[64];
    struct stat st;
    new_path(path);
    struct qcow2_create create = {.path = path, .size = SIZE};
    CHECK_EQ(qcow2_create(&create, NULL), 0);
    struct block *block = open_image(path, NULL, false);
    for (unsigned i = 0; i < 20; i++) {
        CHECK_EQ(block_transfer(block, BLOCK_WRITE, 0, 0, model, 4 << 20), 0);
        CHECK_EQ(block_transfer(block, BLOCK_DISCARD, 0, 0, NULL, 4 << 20), 0);
        CHECK_EQ(block_transfer(block, BLOCK_FLUSH, 0, 0, NULL, 0), 0);
    }
    block_close(block);
    CHECK(stat(path, &st) == 0 && st.st_size < 6 << 20);
    CHECK_EQ(qemu_img_check(path, 0), 0);
    unlink(path);
}

int main(void)
{
    volume_in_memory();
    each_shape();
    on_backing(3, 16, true);
    on_backing(2, 12, true);
    on_backing(3, 9, false);
    from_qemu();
    with_snapshot("-o cluster_size=64k");
    with_snapshot("-o cluster_size=512");
    cold_reads();
    resize();
    longer_refcount_table();
    space_is_reused();
    CHECK_DONE();
}
