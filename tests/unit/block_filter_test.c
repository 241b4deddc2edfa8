/* block_filter_test.c - throttling, on a clock turned by hand, and fault injection. */
#include "block/fault.h"
#include "block/open.h"
#include "block/throttle.h"

#include "check.h"
#include "fake_clock.h"
#include "support/volume.h"

#define MILLISECOND 1000000u

static uint8_t bytes[1 << 20];

static unsigned completed(const struct volume_request *requests, unsigned count)
{
    unsigned done = 0;
    for (unsigned i = 0; i < count; i++)
        done += requests[i].completed && requests[i].status == 0;
    return done;
}

static void throttled(struct block *file, uint64_t iops, uint64_t bps, uint64_t length, unsigned at_once, unsigned a_second)
{
    enum { COUNT = 300 };
    static struct volume_request requests[COUNT];
    struct fake_clock fake;
    fake_clock_open(&fake, 5 * 1000ull * MILLISECOND, 0);
    struct block *block = NULL;
    CHECK_EQ(throttle_new(file, &fake.clock, iops, bps, &block), 0);
    unsigned left = COUNT;
    for (unsigned i = 0; i < COUNT; i++) {
        volume_fill(&requests[i], NULL, &left, i % 2 ? BLOCK_READ : BLOCK_WRITE, 0, 0, bytes, length);
        block_submit(block, &requests[i].request);
    }
    block_kick(block);
    CHECK_EQ(completed(requests, COUNT), at_once);
    CHECK_EQ(volume_do(block, NULL, BLOCK_FLUSH, 0, 0, NULL, 0), 0); /* flushes do not wait */
    fake_clock_advance(&fake, 1000ull * MILLISECOND);
    CHECK_EQ(completed(requests, COUNT), at_once + a_second);
    fake_clock_advance(&fake, 1000ull * MILLISECOND);
    CHECK_EQ(completed(requests, COUNT), at_once + 2 * a_second);
    fake_clock_advance(&fake, 1000000ull * MILLISECOND);
    CHECK_EQ(completed(requests, COUNT), COUNT);
    CHECK_EQ(left, 0);
    CHECK_EQ(block->in_flight, 0);
    block_close(block);
}

static struct block *file_block(char path[64])
{
    struct block *block = NULL;
    volume_file(path, 1 << 20);
    struct block_options options = {.path = path, .format = "raw"};
    CHECK_EQ(block_open(&options, NULL, &block, NULL), 0);
    unlink(path);
    return block;
}

/* What was held back goes at once, and is paid for by what comes later. */
static void hurried(struct block *file)
{
    enum { COUNT = 61 };
    static struct volume_request requests[COUNT + 1];
    struct fake_clock fake;
    fake_clock_open(&fake, 5 * 1000ull * MILLISECOND, 0);
    struct block *block = NULL;
    CHECK_EQ(throttle_new(file, &fake.clock, 100, 0, &block), 0);
    unsigned left = COUNT + 1;
    for (unsigned i = 0; i < COUNT; i++) {
        volume_fill(&requests[i], NULL, &left, BLOCK_READ, 0, 0, bytes, 4096);
        block_submit(block, &requests[i].request);
    }
    block_kick(block);
    CHECK_EQ(completed(requests, COUNT), 11);
    block_hurry(block, true);
    CHECK_EQ(completed(requests, COUNT), COUNT);
    block_hurry(block, false);
    volume_fill(&requests[COUNT], NULL, &left, BLOCK_READ, 0, 0, bytes, 4096);
    block_submit(block, &requests[COUNT].request);
    block_kick(block);
    fake_clock_advance(&fake, 400ull * MILLISECOND);
    CHECK_EQ(left, 1);
    fake_clock_advance(&fake, 200ull * MILLISECOND);
    CHECK_EQ(left, 0);
    block_hurry(file, true); /* holds nothing back */
    block_close(block);
}

static void open_with_bounds(void)
{
    char path[64];
    struct fake_clock fake;
    struct block *block = NULL;
    fake_clock_open(&fake, 0, 0);
    volume_file(path, 1 << 20);
    struct block_options options = {.path = path, .format = "raw", .iops = 10, .clock = &fake.clock, .ignore_discard = true};
    CHECK_EQ(block_open(&options, NULL, &block, NULL), 0);
    CHECK_STR(block->ops->name, "throttle");
    CHECK(!block->limits.can_discard);
    memset(bytes, 7, 4096);
    CHECK_EQ(volume_do(block, NULL, BLOCK_WRITE, 0, 0, bytes, 4096), 0);
    CHECK_EQ(block_transfer(block, BLOCK_DISCARD, 0, 0, NULL, 4096), 0);
    memset(bytes, 0, 4096);
    CHECK_EQ(block_transfer(block, BLOCK_READ, 0, 0, bytes, 4096), 0);
    CHECK_EQ(bytes[4095], 7); /* the discard did nothing */
    block_close(block);
    options.clock = NULL;
    struct error error;
    CHECK_EQ(block_open(&options, NULL, &block, &error), -EINVAL); /* neither clock nor loop */
    unlink(path);
}

struct plan {
    unsigned asked, fail_at;
    int verdict;
};

static int decide(void *context, enum block_op op, uint64_t offset, uint64_t length)
{
    struct plan *plan = context;
    (void)op, (void)offset, (void)length;
    return ++plan->asked == plan->fail_at || !plan->fail_at ? plan->verdict : 0;
}

static void faults(void)
{
    char path[64];
    struct plan plan = {.fail_at = 3, .verdict = -ENOSPC};
    struct block *block = NULL;
    CHECK_EQ(fault_new(file_block(path), &(struct fault_plan){decide, &plan}, &block), 0);
    static const int want[] = {0, 0, -ENOSPC, 0};
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(volume_do(block, NULL, BLOCK_WRITE, 0, 0, bytes, 4096), want[i]);
    plan = (struct plan){.fail_at = 1, .verdict = -EIO};
    CHECK_EQ(block_transfer(block, BLOCK_FLUSH, 0, 0, NULL, 0), -EIO);
    CHECK_EQ(block_transfer(block, BLOCK_FLUSH, 0, 0, NULL, 0), 0);
    plan = (struct plan){.verdict = FAULT_HOLD};
    struct volume_request requests[3];
    unsigned left = 3;
    for (unsigned i = 0; i < 3; i++) {
        volume_fill(&requests[i], NULL, &left, BLOCK_READ, 0, 0, bytes, 4096);
        block_submit(block, &requests[i].request);
    }
    block_kick(block);
    CHECK_EQ(completed(requests, 3), 0);
    CHECK_EQ(fault_release(block, 1, true), 1);
    CHECK(requests[2].completed && !requests[0].completed);
    CHECK_EQ(fault_release(block, 1, false), 1);
    CHECK(requests[0].completed && !requests[1].completed);
    CHECK_EQ(fault_release(block, 9, false), 1);
    CHECK_EQ(completed(requests, 3), 3);
    block_close(block);
}

int main(void)
{
    char path[64];
    throttled(file_block(path), 100, 0, 4096, 11, 100);
    throttled(file_block(path), 0, 1 << 20, 65536, 2, 16); /* 62.5 ms each */
    throttled(file_block(path), 50, 1 << 20, 4096, 6, 50);
    hurried(file_block(path));
    open_with_bounds();
    faults();
    CHECK_DONE();
}
