/* The virtio block and entropy devices, against a driver of the tests' own and a volume in memory. */
#include "device/virtio/blk.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "device/virtio/rng.h"
#include "device_check.h"
#include "support/memory_block.h"
#include "support/virtio_driver.h"

#define MEMORY (UINT64_C(8) << 20)
#define RINGS 0x100000u
#define HEADER 0x200000u
#define DATA 0x300000u
#define STATUS 0x400000u
#define DISK (UINT64_C(1) << 20)
#define VERSION_1 VIRTIO_BIT(VIRTIO_F_VERSION_1)

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, UNTOUCHED = 0x77 };

static struct driver_board board;
static struct driver_queue queue;
static struct memory_block *memory;
static struct virtio_device *device;

static void *resume_thread(void *context)
{
    virtio_resume(context);
    return NULL;
}

static void begin(bool readonly, uint64_t without)
{
    static const char serial[] = "a serial number of 20";
    struct error error = {""};
    pthread_t thread;
    driver_board_init(&board, MEMORY);
    memory = memory_block_new(DISK);
    memory->block.limits.readonly = readonly;
    struct virtio_env env = driver_board_env(&board, true);
    struct virtio_blk_config config = {.block = &memory->block, .queues = 2, .serial = serial};
    CHECK(!virtio_blk_new(&env, &config, &error)); /* 21 bytes */
    CHECK(strstr(error.text, "20 bytes") != NULL);
    config.serial = serial + 1;
    config.queues = 17;
    CHECK(!virtio_blk_new(&env, &config, &error));
    config.queues = 2;
    device = virtio_blk_new(&env, &config, &error);
    driver_board_add(&board, device);
    pthread_create(&thread, NULL, resume_thread, device);
    while (pthread_tryjoin_np(thread, NULL) != 0)
        driver_board_settle(&board);
    uint64_t features = driver_offered(&board) & ~without;
    CHECK(driver_negotiate(&board, features));
    driver_queue_init(&queue, &board.ram, RINGS, 1, 64, features);
    driver_queue_setup(&board, &queue);
    driver_ok(&board);
    driver_board_settle(&board);
    CHECK_EQ(driver_status(&board), 15);
}

static void end(void)
{
    driver_board_destroy(&board);
    CHECK_EQ(memory->block.in_flight, 0);
    block_close(&memory->block);
}

static uint8_t *ram_at(uint64_t gpa)
{
    return ram_host(&board.ram, gpa, 1);
}

/* Queues a request with its data in two pieces, the first of them behind the header when `joined`. */
static void submit(uint32_t type, uint64_t sector, uint64_t length, bool device_writes, bool joined)
{
    struct driver_piece pieces[4];
    unsigned out = 0, in = 0;
    uint64_t first = joined ? 0 : length / 3, data = DATA;
    uint32_t header[2] = {type, 0};
    memcpy(ram_at(joined && !device_writes ? DATA - 16 : HEADER), header, 8);
    memcpy(ram_at(joined && !device_writes ? DATA - 8 : HEADER + 8), &sector, 8);
    *ram_at(STATUS) = UNTOUCHED;
    if (joined && !device_writes) {
        pieces[out++] = (struct driver_piece){DATA - 16, (uint32_t)(16 + length)};
    } else {
        pieces[out++] = (struct driver_piece){HEADER, 16};
        if (length && !device_writes) {
            pieces[out++] = (struct driver_piece){data, (uint32_t)first};
            pieces[out++] = (struct driver_piece){data + first, (uint32_t)(length - first)};
        }
    }
    if (device_writes && joined) { /* the status byte is the last of the data's piece */
        pieces[out + in++] = (struct driver_piece){STATUS - length, (uint32_t)(length + 1)};
    } else {
        if (device_writes && length)
            pieces[out + in++] = (struct driver_piece){data, (uint32_t)length};
        pieces[out + in++] = (struct driver_piece){STATUS, 1};
    }
    CHECK(driver_add(&queue, pieces, out, in, false) >= 0);
    if (driver_publish(&queue))
        driver_notify(&board, &queue);
}

static uint8_t complete(uint32_t *ret_written)
{
    unsigned id;
    driver_board_settle(&board);
    CHECK(driver_take(&queue, &id, ret_written));
    return *ram_at(STATUS);
}

static uint8_t request(uint32_t type, uint64_t sector, uint64_t length, bool device_writes, bool joined)
{
    uint32_t written;
    submit(type, sector, length, device_writes, joined);
    uint8_t status = complete(&written);
    CHECK_EQ(written, device_writes && status == OK ? length + 1 : 1);
    return status;
}

static void test_transfers(bool joined)
{
    begin(false, 0);
    for (unsigned i = 0; i < 3 * 512; i++)
        ram_at(DATA)[i] = (uint8_t)(i * 7 + i / 512);
    CHECK_EQ(request(OUT, 5, 3 * 512, false, joined), OK);
    CHECK(memcmp(memory->bytes + 5 * 512, ram_at(DATA), 3 * 512) == 0);
    memset(ram_at(DATA), 0, 3 * 512);
    CHECK_EQ(request(IN, 5, 3 * 512, true, joined), OK);
    CHECK(memcmp(memory->bytes + 5 * 512, ram_at(joined ? STATUS - 3 * 512 : DATA), 3 * 512) == 0);
    CHECK_EQ(memory->fua, 0);
    CHECK_EQ(request(OUT, DISK / 512 - 1, 512, false, joined), OK);
    CHECK_EQ(request(OUT, DISK / 512 - 1, 1024, false, joined), IOERR); /* past the end */
    CHECK_EQ(request(IN, UINT64_MAX / 512, 512, true, joined), IOERR);
    CHECK_EQ(request(IN, UINT64_MAX, 512, true, joined), IOERR);
    CHECK_EQ(request(IN, 0, 100, true, joined), IOERR); /* not whole sectors */
    CHECK_EQ(request(IN, 0, 0, true, false), IOERR);
    memory->fail = -EIO;
    CHECK_EQ(request(OUT, 0, 512, false, joined), IOERR);
    CHECK_EQ(request(IN, 0, 512, true, joined), IOERR);
    memory->fail = 0;
    CHECK_EQ(request(IN, 0, 512, true, joined), OK);
    end();
}

static uint8_t range_request(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memcpy(ram_at(DATA + i * 16), &sector, 8);
        memcpy(ram_at(DATA + i * 16 + 8), &sectors, 4);
        memcpy(ram_at(DATA + i * 16 + 12), &flags, 4);
        sector += 2 * sectors;
    }
    return request(type, 0, count * 16, false, true);
}

static void test_ranges(void)
{
    begin(false, 0);
    memset(memory->bytes, 0xff, DISK);
    CHECK_EQ(range_request(WRITE_ZEROES, 8, 8, 1, 16), OK);
    CHECK_EQ(memory->zeroes, 16);
    CHECK_EQ(memory->unmap, 16);
    CHECK_EQ(memory->bytes[8 * 512 - 1], 0xff);
    CHECK_EQ(memory->bytes[8 * 512], 0);
    CHECK_EQ(memory->bytes[16 * 512], 0xff);
    CHECK_EQ(memory->bytes[(8 + 15 * 16) * 512], 0);
    CHECK_EQ(range_request(DISCARD, 8, 8, 0, 2), OK);
    CHECK_EQ(memory->discards, 2);
    CHECK_EQ(range_request(DISCARD, 8, 8, 1, 1), UNSUPP);       /* unmap is for the other */
    CHECK_EQ(range_request(WRITE_ZEROES, 8, 8, 2, 1), UNSUPP);
    CHECK_EQ(range_request(WRITE_ZEROES, DISK / 512 - 4, 8, 0, 1), IOERR);
    CHECK_EQ(range_request(WRITE_ZEROES, UINT64_MAX - 2, 8, 0, 1), IOERR);
    CHECK_EQ(range_request(WRITE_ZEROES, 0, 0, 0, 1), IOERR);
    CHECK_EQ(range_request(WRITE_ZEROES, 0, 0xffffffff, 0, 1), IOERR);
    CHECK_EQ(range_request(WRITE_ZEROES, 0, 1, 0, 17), IOERR); /* more than it said */
    CHECK_EQ(range_request(WRITE_ZEROES, 0, 1, 0, 0), IOERR);
    CHECK_EQ(memory->zeroes, 16);
    end();
}

static void test_others(void)
{
    begin(false, 0);
    CHECK_EQ(request(FLUSH, 0, 0, false, false), OK);
    CHECK_EQ(memory->flushes, 1);
    CHECK_EQ(request(GET_ID, 0, 20, true, false), OK);
    CHECK(memcmp(ram_at(DATA), " serial number of 20", 20) == 0);
    CHECK_EQ(request(99, 0, 0, false, false), UNSUPP);

    CHECK_EQ(driver_read(&board, board.config, 8), DISK / 512);
    CHECK_EQ(driver_read(&board, board.config + 20, 4), 512);
    CHECK_EQ(driver_read(&board, board.config + 34, 2), 2);
    CHECK_EQ(block_resize(&memory->block, 2 * DISK, NULL), 0);
    virtio_blk_resized(device);
    CHECK_EQ(driver_read(&board, board.config, 8), 2 * DISK / 512);
    CHECK_EQ(request(OUT, DISK / 512 + 7, 512, false, false), OK);

    /* A request that cannot be answered. */
    CHECK(driver_add(&queue, &(struct driver_piece){HEADER, 16}, 1, 0, false) >= 0);
    driver_publish(&queue);
    driver_notify(&board, &queue);
    driver_board_settle(&board);
    CHECK_EQ(driver_status(&board), 15 | 64);
    end();
}

static void test_readonly(void)
{
    begin(true, 0);
    CHECK(driver_offered(&board) & VIRTIO_BIT(5));
    CHECK(!(driver_offered(&board) & (VIRTIO_BIT(13) | VIRTIO_BIT(14))));
    CHECK_EQ(request(OUT, 0, 512, false, false), IOERR);
    CHECK_EQ(range_request(WRITE_ZEROES, 8, 8, 0, 1), IOERR);
    CHECK_EQ(request(IN, 0, 512, true, false), OK);
    CHECK_EQ(memory->writes + memory->zeroes, 0);
    end();
}

/* Without the flush command every write is durable when it is answered. */
static void test_write_through(void)
{
    begin(false, VIRTIO_BIT(9));
    CHECK_EQ(request(OUT, 0, 512, false, false), OK);
    CHECK_EQ(memory->fua, 1);
    CHECK_EQ(range_request(WRITE_ZEROES, 8, 8, 0, 1), OK);
    CHECK_EQ(memory->fua, 2);
    end();
}

/* Requests that take long: a reset waits for them, and one interrupt tells of a burst. */
static void test_slow(void)
{
    uint32_t written;
    begin(false, 0);
    memory->slow = true;
    for (unsigned i = 0; i < 8; i++) {
        submit(OUT, i, 512, false, true);
        driver_board_settle(&board);
    }
    unsigned before = board.messages[2];
    driver_want_interrupt(&queue, true, 0);
    memory_block_finish(memory);
    driver_board_settle(&board);
    CHECK_EQ(board.messages[2] - before, 1);
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(complete(&written), OK);
    submit(IN, 0, 512, true, true);
    driver_board_settle(&board);
    driver_reset(&board, false);
    driver_board_settle(&board);
    CHECK_EQ(driver_status(&board), 15);
    memory_block_finish(memory);
    driver_board_settle(&board);
    CHECK_EQ(driver_status(&board), 0);
    end();
}

static void test_saved_disk(void)
{
    begin(false, 0);
    driver_reset(&board, true);
    struct saved saved = device_saved(board.device);
    CHECK_EQ(device_loaded(board.device, saved.bytes, saved.length), 0);
    CHECK_EQ(block_resize(&memory->block, DISK / 2, NULL), 0);
    CHECK(device_loaded(board.device, saved.bytes, saved.length) < 0);
    free(saved.bytes);
    end();
}

static atomic_bool reading;
static _Atomic unsigned readings, wrong;

static void *capacity_reader(void *context)
{
    (void)context;
    while (reading) {
        wrong += driver_read(&board, board.config, 8) != DISK / 512;
        readings++;
        sched_yield();
    }
    return NULL;
}

/* The capacity holds while the device is reset with requests under way, is without a driver, and starts again. */
static void test_capacity(void)
{
    pthread_t thread;
    begin(false, 0);
    reading = true;
    pthread_create(&thread, NULL, capacity_reader, NULL);
    for (unsigned i = 0; i < 200; i++) {
        unsigned before = readings;
        memory->slow = true;
        submit(OUT, 0, 4096, false, false);
        driver_board_settle(&board);
        driver_reset(&board, false);
        CHECK(driver_status(&board) != 0); /* it waits for the write */
        CHECK_EQ(driver_read(&board, board.config, 8), DISK / 512);
        driver_board_settle(&board);
        memory_block_finish(memory);
        driver_reset(&board, true);
        CHECK_EQ(driver_status(&board), 0);
        CHECK_EQ(driver_read(&board, board.config, 8), DISK / 512);
        memory->slow = false;
        CHECK(driver_negotiate(&board, driver_offered(&board)));
        CHECK_EQ(driver_read(&board, board.config, 8), DISK / 512);
        driver_queue_init(&queue, &board.ram, RINGS, 1, 64, board.features);
        driver_queue_setup(&board, &queue);
        driver_ok(&board);
        driver_board_settle(&board);
        while (readings == before)
            sched_yield();
    }
    reading = false;
    pthread_join(thread, NULL);
    CHECK_EQ(wrong, 0);
    end();
}

static size_t counted(void *owner, void *bytes, size_t length)
{
    size_t *total = owner;
    memset(bytes, 0x5a, length);
    *total += length;
    return length;
}

static void test_rng(void)
{
    pthread_t thread;
    size_t total = 0;
    unsigned id;
    uint32_t written = 0;
    driver_board_init(&board, MEMORY);
    struct virtio_env env = driver_board_env(&board, false);
    device = virtio_rng_new(&env, counted, &total, NULL);
    driver_board_add(&board, device);
    pthread_create(&thread, NULL, resume_thread, device);
    while (pthread_tryjoin_np(thread, NULL) != 0)
        driver_board_settle(&board);
    CHECK(driver_negotiate(&board, VERSION_1));
    driver_queue_init(&queue, &board.ram, RINGS, 0, 8, 0);
    driver_queue_setup(&board, &queue);
    driver_ok(&board);
    static const uint32_t sizes[] = {1, 64, 4096, 1 << 20};
    for (unsigned i = 0; i < 4; i++) {
        CHECK(driver_add(&queue, &(struct driver_piece){DATA, sizes[i]}, 0, 1, false) >= 0);
        driver_publish(&queue);
        driver_notify(&board, &queue);
        driver_board_settle(&board);
        CHECK(driver_take(&queue, &id, &written));
        CHECK_EQ(written, sizes[i] < 4096 ? sizes[i] : 4096);
        CHECK_EQ(*ram_at(DATA + written - 1), 0x5a);
        CHECK_EQ(*ram_at(DATA + written), 0);
    }
    CHECK_EQ(total, 1 + 64 + 4096 + 4096);
    driver_board_destroy(&board);
}

int main(void)
{
    test_transfers(false);
    test_transfers(true);
    test_ranges();
    test_others();
    test_readonly();
    test_write_through();
    test_slow();
    test_saved_disk();
    test_capacity();
    test_rng();
    CHECK_DONE();
}
