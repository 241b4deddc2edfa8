/* device_test DEVICE SECTOR BYTES GROW: a block device as a volume, with its sectors, its size and its refusals; the
 * command GROW doubles its size. For device.sh, which makes such devices. */
#include <stdlib.h>

#include "block/open.h"
#include "check.h"
#include "support/volume.h"

#define MOST (1u << 20)

static uint8_t model[MOST], bytes[MOST + 1];

static struct block *open_device(const char *path, bool direct, struct loop *loop)
{
    struct error error = {""};
    struct block *block = NULL;
    struct block_options options = {.path = path, .format = "raw", .direct = direct};
    if (block_open(&options, loop, &block, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        exit(1);
    }
    return block;
}

static void check_same(struct block *block, struct loop *loop)
{
    CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, 0, bytes + 1, MOST), 0); /* to an odd address */
    CHECK(memcmp(bytes + 1, model, MOST) == 0);
}

static void operations(struct block *block, struct loop *loop, uint32_t sector)
{
    volume_pattern(model, MOST, sector + block->limits.size);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, 0, 0, model, MOST), 0);
    check_same(block, loop);
    volume_pattern(model + sector, sector, 5);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, BLOCK_FUA, sector, model + sector, sector), 0);
    check_same(block, loop);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE_ZEROES, 0, 3 * sector, NULL, 5 * sector), 0);
    memset(model + 3 * sector, 0, 5 * sector);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE_ZEROES, BLOCK_UNMAP | BLOCK_FUA, 128 << 10, NULL, 64 << 10), 0);
    memset(model + (128 << 10), 0, 64 << 10);
    check_same(block, loop);
    CHECK_EQ(volume_do(block, loop, BLOCK_DISCARD, 0, 512 << 10, NULL, 256 << 10), 0);
    CHECK_EQ(volume_do(block, loop, BLOCK_FLUSH, 0, 0, NULL, 0), 0);
    CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, 0, bytes, MOST), 0);
    CHECK(memcmp(bytes, model, 512 << 10) == 0 && memcmp(bytes + (768 << 10), model + (768 << 10), 256 << 10) == 0);
    uint64_t size = block->limits.size;
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, 0, size - sector, model, sector), 0);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, 0, size, model, sector), -EINVAL);
    CHECK_EQ(volume_do(block, loop, BLOCK_WRITE, 0, sector / 2, model, sector), -EINVAL);
    CHECK_EQ(volume_do(block, loop, BLOCK_READ, 0, 0, bytes, sector / 2), -EINVAL);
}

static void used_by_others(const char *path)
{
    struct error error = {""};
    struct block *block = NULL;
    struct block_options options = {.path = path, .format = "raw"};
    CHECK_EQ(block_open(&options, NULL, &block, &error), -EBUSY);
    CHECK(strstr(error.text, path) && strstr(error.text, "use"));
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return fputs("usage: device_test DEVICE SECTOR BYTES GROW\n", stderr), 2;
    const char *path = argv[1];
    uint32_t sector = (uint32_t)atoi(argv[2]);
    uint64_t size = strtoull(argv[3], NULL, 10);
    struct error error = {""};
    struct loop *loop;
    CHECK_EQ(loop_new(&loop, NULL), 0);
    for (int way = 0; way < 4; way++) {
        struct loop *served = way & 1 ? loop : NULL;
        struct block *block = open_device(path, way & 2, served);
        CHECK_EQ(block->limits.sector_size, sector);
        CHECK_EQ(block->limits.physical_size, sector);
        CHECK_EQ(block->limits.size, size);
        CHECK(!block->limits.growable);
        operations(block, served, sector);
        used_by_others(path);
        block_close(block);
    }
    struct block *block = open_device(path, false, NULL);
    CHECK_EQ(block_resize(block, 2 * size, &error), -ENOTSUP);
    CHECK(strstr(error.text, argv[3]) != NULL);
    CHECK_EQ(system(argv[4]), 0);
    CHECK_EQ(block_resize(block, 2 * size, &error), 0);
    CHECK_EQ(block->limits.size, 2 * size);
    CHECK_EQ(block_transfer(block, BLOCK_WRITE, 0, 2 * size - sector, model, sector), 0);
    block_close(block);
    loop_free(loop);
    CHECK_DONE();
}
