/* virtio_balloon_test.c - the balloon with a driver of the test's own: what it takes leaves the host, what it may not take stays,
 * statistics, and what is saved. */
#include "device/virtio/balloon.h"

#include <stdlib.h>

#include "device_check.h"
#include "support/virtio_talk.h"

enum { STATS = 2, ON_OOM = 4, POISON = 16, REPORTING = 32 };
enum { INFLATE, DEFLATE, THIRD, FOURTH };

static struct talk talk;
static struct virtio_device *device;

static struct balloon_info info(void)
{
    struct balloon_info now;
    virtio_balloon_info(device, &now);
    return now;
}

static void begin(uint64_t target)
{
    struct error error = {.text = ""};
    driver_board_init(&talk.board, TALK_MEMORY);
    struct virtio_env env = driver_board_env(&talk.board, true);
    device = virtio_balloon_new(&env, target, &error);
    CHECK_STR(error.text, "");
    talk_put(&talk, device);
}

static uint8_t *page(uint64_t number)
{
    return ram_host(&talk.board.ram, number * RAM_PAGE_SIZE, RAM_PAGE_SIZE);
}

/* How many of the pages [first, first + count) still have what they were filled with. */
static unsigned kept(uint64_t first, unsigned count)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++)
        n += page(first + i)[100] == 0x77;
    return n;
}

static void test_inflate(void)
{
    uint32_t pages[300];
    begin(0);
    CHECK_EQ(driver_offered(&talk.board) & 0x3f, STATS | ON_OOM | POISON | REPORTING);
    talk_start(&talk, ON_OOM, 2);
    memset(page(0x1000), 0x77, 600 * RAM_PAGE_SIZE);
    uint64_t before = ram_resident(&talk.board.ram);
    for (unsigned i = 0; i < 300; i++) /* every second one, backwards, and one twice */
        pages[i] = 0x1000 + 2 * (299 - i);
    pages[299] = pages[298];
    talk_say(&talk, INFLATE, pages, sizeof pages);
    CHECK_EQ(talk_hear(&talk, INFLATE, NULL, 0), 0);
    CHECK(before - ram_resident(&talk.board.ram) >= 298 * RAM_PAGE_SIZE);
    CHECK_EQ(info().inflated, 299 * RAM_PAGE_SIZE);
    CHECK_EQ(kept(0x1000, 600), 301);
    CHECK_EQ(page(0x1002)[0], 0);
    talk_configure(&talk, 4, 4, 299);
    driver_board_settle(&talk.board);
    CHECK_EQ(info().actual, 299 * RAM_PAGE_SIZE);
    page(0x1002)[0] = 5;
    talk_say(&talk, DEFLATE, pages, sizeof pages);
    CHECK_EQ(talk_hear(&talk, DEFLATE, NULL, 0), 0);
    CHECK_EQ(page(0x1002)[0], 5); /* what the guest stored before it said so is its own */
    driver_board_destroy(&talk.board);
}

static void test_wrong_pages(void)
{
    static const uint32_t beyond[] = {0xffffffff, 0x4000, 0x3fff, 0x80000000}; /* RAM ends before page 0x4000 */
    begin(0);
    talk_start(&talk, ON_OOM, 2);
    memset(page(0x3fff), 0x77, RAM_PAGE_SIZE);
    talk_say(&talk, INFLATE, beyond, sizeof beyond);
    CHECK_EQ(talk_hear(&talk, INFLATE, NULL, 0), 0);
    CHECK_EQ(driver_status(&talk.board), 15);
    talk_say(&talk, INFLATE, beyond, 7);
    CHECK_EQ(driver_status(&talk.board), 15 | 64);
    driver_board_destroy(&talk.board);
}

/* The pages are the buffer; only whole ones go, and none while the guest wants its pattern kept. Without statistics the queue is the
 * third. */
static void test_reporting(void)
{
    for (unsigned poison = 0; poison < 2; poison++) {
        begin(0);
        CHECK(driver_negotiate(&talk.board, TALK_VERSION_1 | REPORTING | POISON));
        driver_reset(&talk.board, true);
        talk_configure(&talk, 12, 4, poison ? 0xaaaaaaaa : 0);
        talk_start(&talk, REPORTING | POISON, 3);
        memset(page(0x1000), 0x77, 40 * RAM_PAGE_SIZE);
        struct driver_piece pieces[2] = {{0x1001000, 8 * RAM_PAGE_SIZE}, {0x1010800, 4 * RAM_PAGE_SIZE}};
        CHECK(driver_add(&talk.queue[THIRD], pieces, 0, 2, false) >= 0);
        driver_publish(&talk.queue[THIRD]);
        driver_notify(&talk.board, &talk.queue[THIRD]);
        driver_board_settle(&talk.board);
        CHECK_EQ(talk_hear(&talk, THIRD, NULL, 0), 0);
        CHECK_EQ(kept(0x1000, 40), poison ? 40 : 40 - 8 - 3);
        CHECK_EQ(info().reported, poison ? 0 : 11 * RAM_PAGE_SIZE);
        driver_board_destroy(&talk.board);
    }
}

struct entry {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));

static void test_stats(void)
{
    struct entry entries[] = {{BALLOON_FREE, 123456}, {99, 1}, {BALLOON_TOTAL, 999999}};
    begin(0);
    talk_start(&talk, STATS | REPORTING, 4);
    CHECK(info().present);
    CHECK_EQ(info().known, 0);
    talk_say(&talk, THIRD, entries, sizeof entries);
    CHECK_EQ(info().known, 1u << BALLOON_FREE | 1u << BALLOON_TOTAL);
    CHECK_EQ(info().stat[BALLOON_FREE], 123456);
    /* The device has the buffer until it wants to know more. */
    driver_board_settle(&talk.board);
    while (talk_hear(&talk, THIRD, NULL, 0) >= 0)
        talk_say(&talk, THIRD, entries, sizeof entries); /* the policy may have asked at the start */
    virtio_balloon_ask(device);
    driver_board_settle(&talk.board);
    CHECK_EQ(talk_hear(&talk, THIRD, NULL, 0), 0);
    entries[0].value = 77;
    talk_say(&talk, THIRD, entries, sizeof entries - 3); /* half an entry is none */
    CHECK_EQ(info().stat[BALLOON_FREE], 77);
    CHECK_EQ(info().known, 1u << BALLOON_FREE);
    driver_reset(&talk.board, true);
    CHECK(!info().present);
    driver_board_destroy(&talk.board);
}

static void test_target(void)
{
    begin(5 * RAM_PAGE_SIZE + 1);
    CHECK_EQ(talk_config(&talk, 0, 4), 5);
    virtio_balloon_set(device, 9 * RAM_PAGE_SIZE);
    driver_board_settle(&talk.board);
    CHECK_EQ(talk_config(&talk, 0, 4), 9);
    virtio_balloon_set(device, UINT64_MAX);
    driver_board_settle(&talk.board);
    CHECK_EQ(talk_config(&talk, 0, 4), TALK_MEMORY / RAM_PAGE_SIZE);
    talk_configure(&talk, 0, 4, 1); /* the target is not the driver's */
    CHECK_EQ(talk_config(&talk, 0, 4), TALK_MEMORY / RAM_PAGE_SIZE);
    CHECK_EQ(info().target, TALK_MEMORY);
    driver_board_destroy(&talk.board);
}

/* Saved while it holds the guest's buffer; the one that is loaded has it again. */
static void test_save(void)
{
    static struct talk other;
    struct entry entry = {BALLOON_FREE, 4711};
    struct error error = {.text = ""};
    begin(3 * RAM_PAGE_SIZE);
    talk_start(&talk, STATS, 3);
    talk_say(&talk, THIRD, &entry, sizeof entry);
    virtio_balloon_set(device, 7 * RAM_PAGE_SIZE);
    driver_board_settle(&talk.board);
    talk_beside(&talk, device, talk_pause_thread);
    driver_board_init(&other.board, TALK_MEMORY);
    struct virtio_env env = driver_board_env(&other.board, true);
    struct virtio_device *loaded = virtio_balloon_new(&env, 0, &error);
    driver_board_add(&other.board, loaded);
    talk_move(&talk, &other);
    talk_beside(&other, loaded, talk_resume_thread);
    struct balloon_info now;
    virtio_balloon_info(loaded, &now);
    CHECK_EQ(now.target, 7 * RAM_PAGE_SIZE);
    CHECK_EQ(now.stat[BALLOON_FREE], 4711);
    CHECK_EQ(talk_config(&other, 0, 4), 7);
    while (talk_hear(&other, THIRD, NULL, 0) >= 0)
        talk_say(&other, THIRD, &entry, sizeof entry);
    virtio_balloon_ask(loaded);
    driver_board_settle(&other.board);
    CHECK_EQ(talk_hear(&other, THIRD, NULL, 0), 0);
    driver_board_destroy(&other.board);
    talk_beside(&talk, device, talk_resume_thread);
    driver_board_destroy(&talk.board);
}

int main(void)
{
    test_inflate();
    test_wrong_pages();
    test_reporting();
    test_stats();
    test_target();
    test_save();
    CHECK_DONE();
}
