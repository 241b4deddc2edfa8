/* The block cache by itself: what a block covers, who is told of stores, and what is dropped. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine/soft/block.h"

static struct ram ram;
static struct code_map map;
static struct x86_cpuid cpuid;
static struct x86_decoder decoder;
static struct block_cache *cache[2];

static void set_up(void)
{
    struct error error;
    CHECK_EQ(ram_open(&ram, 0x200000, 0x100000, UINT64_C(1) << 32, &error), 0);
    CHECK_EQ(code_map_open(&map, &ram, &error), 0);
    x86_cpuid_init(&cpuid, X86_MODEL_DEFAULT, 1, 1000000000);
    CHECK_EQ(x86_decoder_init(&decoder, &cpuid, &error), 0);
    for (unsigned i = 0; i < 2; i++) {
        cache[i] = malloc(sizeof(*cache[i]));
        CHECK_EQ(block_cache_open(cache[i], &map, i, 65536, &error), 0);
    }
}

static void tear_down(void)
{
    for (unsigned i = 0; i < 2; i++) {
        block_cache_close(cache[i]);
        free(cache[i]);
    }
    x86_decoder_destroy(&decoder);
    code_map_close(&map);
    ram_close(&ram);
}

static struct block *build(unsigned holder, uint64_t gpa, uint64_t second)
{
    struct block_source source = {.gpa = gpa, .page = ram_host(&ram, gpa & ~UINT64_C(4095), 4096)};
    struct block *block = NULL;
    if (second) {
        source.second = second;
        source.follow = ram_host(&ram, second, 4096);
    }
    if (block_build(cache[holder], &decoder, X86_CODE64, &source, &block) != 0)
        return NULL;
    return block;
}

static bool flagged(uint64_t gpa)
{
    const struct ram_region *region = ram_find(&ram, gpa);
    return region->flags[(gpa - region->gpa) / 4096] & RAM_PAGE_CODE;
}

static void test_extent(void)
{
    /* Three one-byte instructions and a branch; then more NOPs than a block holds. */
    ram_write(&ram, 0x1000, "\x90\x90\x90\xeb\x00\x90", 6);
    struct block *block = build(0, 0x1000, 0);
    CHECK_EQ(block->count, 4);
    CHECK_EQ(block->bytes, 5);
    CHECK(block->plain);
    memset(ram_host(&ram, 0x2000, 4096), 0x90, 4096);
    block = build(0, 0x2000, 0);
    CHECK_EQ(block->count, BLOCK_INSNS);
    /* The end of the page, with nothing across it. */
    block = build(0, 0x2ffe, 0);
    CHECK_EQ(block->count, 2);
    CHECK_EQ(block_find(cache[0], block_key(0x2ffe, X86_CODE64), 0) == block, true);
    CHECK_EQ(block_find(cache[0], block_key(0x2ffe, X86_CODE32), 0) == NULL, true);
    /* STI changes what the loop must look at. */
    ram_write(&ram, 0x1100, "\xfb", 1);
    CHECK(!build(0, 0x1100, 0)->plain);
}

static void test_drop(void)
{
    memset(ram_host(&ram, 0x3000, 4096), 0x90, 4096);
    ram_write(&ram, 0x300f, "\xc3", 1);
    ram_write(&ram, 0x340f, "\xc3", 1);
    build(0, 0x3000, 0);
    struct block *block = build(0, 0x3400, 0);
    CHECK(flagged(0x3000));
    /* Stores to other chunks concern nobody; to the chunk, this vCPU; and only overlapping blocks go. */
    CHECK_EQ(code_map_written(&map, 0x3800, 8), 0);
    CHECK_EQ(code_map_written(&map, 0x3438, 16), 1);
    CHECK(!block_drop(cache[0], 0x3438, 8));
    CHECK_EQ(block_find(cache[0], block_key(0x3400, X86_CODE64), 0) == block, true);
    cache[0]->running = block;
    CHECK(!block_drop(cache[0], 0x300f, 1));
    CHECK(block_drop(cache[0], 0x33fc, 5));
    CHECK_EQ(block->key, BLOCK_DEAD);
    CHECK_EQ(block->count, 16); /* still readable: it was running */
    CHECK_EQ(block_find(cache[0], block_key(0x3000, X86_CODE64), 0) == NULL, true);
    CHECK_EQ(code_map_written(&map, 0x3000, 4096), 0);
    /* The flag goes too, in time. */
    for (unsigned i = 0; i < 1000 && flagged(0x3000); i++)
        code_map_written(&map, 0x3000, 8);
    CHECK(!flagged(0x3000));
}

static void test_two_holders(void)
{
    ram_write(&ram, 0x4000, "\xc3", 1);
    build(0, 0x4000, 0);
    build(1, 0x4000, 0);
    CHECK_EQ(code_map_written(&map, 0x4000, 1), 3);
    block_drop(cache[0], 0x4000, 1);
    CHECK_EQ(code_map_written(&map, 0x4000, 1), 2);
    block_drop(cache[1], 0x4000, 1);
    CHECK_EQ(code_map_written(&map, 0x4000, 1), 0);
}

static void test_crossing(void)
{
    ram_write(&ram, 0x5ffe, "\xb8\x01", 2);
    ram_write(&ram, 0x8000, "\x02\x03\x04", 3);
    ram_write(&ram, 0x9000, "\x05\x06\x07", 3);
    CHECK(build(0, 0x5ffe, 0) == NULL);
    struct block *one = build(0, 0x5ffe, 0x8000), *two = build(0, 0x5ffe, 0x9000);
    CHECK_EQ(one->count, 1);
    CHECK_EQ(one->bytes, 5);
    const uint64_t key = block_key(0x5ffe, X86_CODE64) | BLOCK_CROSSES;
    CHECK_EQ(block_find(cache[0], key, 0x8000) == one, true);
    CHECK_EQ(block_find(cache[0], key, 0x9000) == two, true);
    CHECK_EQ(code_map_written(&map, 0x8002, 1), 1);
    block_drop(cache[0], 0x8003, 1); /* past its end */
    CHECK_EQ(block_find(cache[0], key, 0x8000) == one, true);
    block_drop(cache[0], 0x8002, 1);
    CHECK_EQ(block_find(cache[0], key, 0x8000) == NULL, true);
    block_drop(cache[0], 0x5fff, 1);
    CHECK_EQ(block_find(cache[0], key, 0x9000) == NULL, true);
    /* A page that follows itself. */
    ram_write(&ram, 0xaffe, "\xb8\x01", 2);
    build(0, 0xaffe, 0xa000);
    block_drop(cache[0], 0xa001, 1);
    CHECK_EQ(block_find(cache[0], block_key(0xaffe, X86_CODE64) | BLOCK_CROSSES, 0xa000) == NULL, true);
}

/* What could not be decoded depends on bytes past the one it rewinds over, in the next page too. */
static void test_invalid(void)
{
    ram_write(&ram, 0xb000, "\x0f\xff\xc0", 3);
    build(0, 0xb000, 0);
    block_drop(cache[0], 0xb001, 1);
    CHECK_EQ(block_find(cache[0], block_key(0xb000, X86_CODE64), 0) == NULL, true);
    ram_write(&ram, 0xbfff, "\x0f", 1);
    ram_write(&ram, 0xd000, "\xff", 1);
    CHECK(build(0, 0xbfff, 0) == NULL);
    build(0, 0xbfff, 0xd000);
    const uint64_t key = block_key(0xbfff, X86_CODE64) | BLOCK_CROSSES;
    CHECK(block_find(cache[0], key, 0xd000) != NULL);
    CHECK_EQ(code_map_written(&map, 0xd000, 1), 1);
    block_drop(cache[0], 0xd000, 1);
    CHECK_EQ(block_find(cache[0], key, 0xd000) == NULL, true);
}

/* The arena is small: building past it empties the cache and goes on, and dropped blocks are used again. */
static void test_full(void)
{
    memset(ram_host(&ram, 0x10000, 0x10000), 0xc3, 0x10000);
    uint64_t flushes = cache[0]->flushes;
    for (uint64_t gpa = 0x10000; gpa < 0x11000; gpa++)
        CHECK(build(0, gpa, 0) != NULL);
    CHECK(cache[0]->flushes > flushes);
    struct block *last = block_find(cache[0], block_key(0x10fff, X86_CODE64), 0);
    CHECK(last != NULL);
    flushes = cache[0]->flushes;
    for (unsigned i = 0; i < 10000; i++) {
        block_drop(cache[0], 0x10fff, 1);
        CHECK(build(0, 0x10fff, 0) == last);
    }
    CHECK_EQ(cache[0]->flushes, flushes);
}

int main(void)
{
    set_up();
    test_extent();
    test_drop();
    test_two_holders();
    test_crossing();
    test_invalid();
    test_full();
    tear_down();
    CHECK_DONE();
}
