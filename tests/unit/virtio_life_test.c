/* The virtio core over a device's life: reset, pause, unplug, save and load, against a driver of the tests' own. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "device_check.h"
#include "support/virtio_echo.h"

static void request(struct driver_board *board, struct driver_queue *queue)
{
    CHECK(driver_add(queue, &(struct driver_piece){ECHO_BUFFERS, 16}, 0, 1, false) >= 0);
    driver_publish(queue);
    driver_notify(board, queue);
    driver_board_settle(board);
}

/* The status reads 0 only when what is in flight has come back, and none of it reaches the ring. */
static void test_reset(uint64_t features)
{
    static struct driver_board board;
    static struct driver_queue queue;
    struct echo *echo = echo_begin(&board, &queue, features, 8);
    unsigned id;
    uint32_t written;
    echo->hold = echo->keep_on_stop = true;
    request(&board, &queue);
    CHECK_EQ(echo->held_count, 1);
    driver_reset(&board, false);
    driver_board_settle(&board);
    CHECK_EQ(driver_status(&board), 15);
    CHECK_EQ(echo->stops, 1);
    driver_write(&board, board.common + 0x14, 1, 1); /* ignored meanwhile */
    driver_notify(&board, &queue);
    driver_reset(&board, false);
    driver_board_settle(&board);
    CHECK_EQ(driver_status(&board), 15);
    unsigned before = board.messages[1];
    echo_complete_all(echo);
    driver_board_settle(&board);
    CHECK_EQ(driver_status(&board), 0);
    CHECK_EQ(board.messages[1], before);
    CHECK(!driver_take(&queue, &id, &written));
    CHECK_EQ(echo->stops, 1);
    echo->hold = false;
    CHECK(driver_negotiate(&board, features | VERSION_1));
    driver_queue_init(&queue, &board.ram, ECHO_RINGS, 0, 8, features);
    driver_queue_setup(&board, &queue);
    driver_ok(&board);
    request(&board, &queue);
    CHECK(driver_take(&queue, &id, &written));
    CHECK_EQ(echo->starts, 2);
    driver_board_destroy(&board);
}

/* A function that may not be bus master reads nothing; what waited is served when it may again. */
static void test_bus_master(void)
{
    static struct driver_board board;
    static struct driver_queue queue;
    echo_begin(&board, &queue, 0, 8);
    unsigned id;
    uint32_t written;
    driver_config_write(&board, 4, 2, 2);
    request(&board, &queue);
    CHECK(!driver_take(&queue, &id, &written));
    driver_config_write(&board, 4, 2, 6);
    driver_board_settle(&board);
    CHECK(driver_take(&queue, &id, &written));
    driver_board_destroy(&board);
}

static void gone(void *context)
{
    *(bool *)context = true;
}

static void test_unplug(bool running)
{
    static struct driver_board board;
    static struct driver_queue queue;
    struct echo *echo = echo_begin(&board, &queue, 0, 8);
    bool is_gone = false;
    echo->hold = echo->keep_on_stop = true;
    if (running)
        request(&board, &queue);
    else
        driver_reset(&board, true);
    pthread_mutex_lock(&board.lock);
    virtio_pci_unplug(board.device, gone, &is_gone);
    pthread_mutex_unlock(&board.lock);
    driver_board_settle(&board);
    CHECK_EQ(driver_config_read(&board, 0, 4), 0xffffffff);
    CHECK_EQ(is_gone, !running);
    echo_complete_all(echo);
    driver_board_settle(&board);
    CHECK(is_gone);
    board.device->ops->destroy(board.device);
    board.device = NULL;
    driver_board_destroy(&board);
}

/* A machine stops with a chain held and one waiting; another one takes the state over, and both are answered once. */
static void test_save(uint64_t features)
{
    static struct driver_board board, other;
    static struct driver_queue queue;
    struct echo *echo = echo_begin(&board, &queue, features, 8);
    unsigned id, taken = 0;
    uint32_t written;
    for (unsigned i = 0; i < 13; i++) { /* somewhere in the second lap */
        request(&board, &queue);
        CHECK(driver_take(&queue, &id, &written));
    }
    echo->hold = echo->unpop_on_pause = true;
    request(&board, &queue);
    request(&board, &queue);
    CHECK_EQ(echo->held_count, 2);
    echo_pause_beside(&board, echo);
    CHECK_EQ(echo->pauses, 1);
    CHECK_EQ(echo->held_count, 0);
    struct saved saved = device_saved(board.device);

    driver_board_init(&other, ECHO_MEMORY);
    memcpy(other.ram.region[0].host, board.ram.region[0].host, ECHO_MEMORY);
    struct echo *second = echo_new(&other, true, 2, 256);
    driver_board_add(&other, &second->virtio);
    for (size_t length = 0; length < saved.length; length += 1 + length / 16) /* every short input is refused */
        CHECK(device_loaded(other.device, saved.bytes, length) < 0);
    CHECK_EQ(device_loaded(other.device, saved.bytes, saved.length), 0);
    struct saved again = device_saved(other.device);
    CHECK(same_saved(&saved, &again));
    CHECK_EQ(driver_status(&other), 15);
    echo_resume_beside(&other, second);
    driver_board_settle(&other);
    CHECK_EQ(second->starts, 1);
    queue.ram = &other.ram;
    for (; driver_take(&queue, &id, &written); taken++)
        CHECK_EQ(written, 16);
    CHECK_EQ(taken, 2);
    request(&other, &queue);
    CHECK(driver_take(&queue, &id, &written));

    /* The first one goes on as well, as if nothing had been. */
    echo->hold = false;
    echo_resume_beside(&board, echo);
    driver_board_settle(&board);
    queue.ram = &board.ram;
    CHECK_EQ(echo->resumes, 1);
    CHECK_EQ(driver_status(&board), 15);
    free(saved.bytes);
    free(again.bytes);
    driver_board_destroy(&board);
    driver_board_destroy(&other);
}

/* One changed byte at a time: taken or refused, and the device still resets. */
static void test_hostile_save(void)
{
    static struct driver_board board;
    static struct driver_queue queue;
    struct echo *echo = echo_begin(&board, &queue, PACKED, 8);
    echo_pause_beside(&board, echo);
    struct saved saved = device_saved(board.device);
    echo_resume_beside(&board, echo);
    driver_reset(&board, true);
    for (size_t at = 4096; at < saved.length; at++) {
        const uint8_t bit = (uint8_t)(1u << echo_random(8));
        saved.bytes[at] ^= bit;
        int status = device_loaded(board.device, saved.bytes, saved.length);
        CHECK(status <= 0);
        driver_board_settle(&board);
        board.device->ops->reset(board.device);
        driver_board_settle(&board);
        saved.bytes[at] ^= bit;
    }
    driver_config_write(&board, 4, 2, 6);
    free(saved.bytes);
    driver_board_destroy(&board);
}

int main(void)
{
    test_reset(0);
    test_reset(PACKED | EVENT);
    test_bus_master();
    test_unplug(true);
    test_unplug(false);
    test_save(EVENT);
    test_save(PACKED);
    test_hostile_save();
    CHECK_DONE();
}
