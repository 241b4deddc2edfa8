/* virtio_talk.h - whole messages over the queues of tests/support/virtio_driver.h: one call, one buffer. */
#ifndef VENEER_TESTS_SUPPORT_VIRTIO_TALK_H
#define VENEER_TESTS_SUPPORT_VIRTIO_TALK_H

#include <stdio.h>
#include <string.h>

#include "device_check.h"
#include "support/virtio_driver.h"

#define TALK_MEMORY (UINT64_C(64) << 20)
#define TALK_VERSION_1 (UINT64_C(1) << 32)
#define TALK_QUEUES 8u
#define TALK_SIZE 16u
#define TALK_BUFFER 8192u
#define TALK_RINGS UINT64_C(0x100000)
#define TALK_BUFFERS UINT64_C(0x800000)

/* A board with one device and its driver; each queue has TALK_SIZE buffers at fixed places, by their IDs. */
struct talk {
    struct driver_board board;
    struct driver_queue queue[TALK_QUEUES];
    unsigned queues;
    unsigned slot[TALK_QUEUES];                      /* the next buffer to use */
    uint64_t place[TALK_QUEUES][DRIVER_QUEUE_MAX];   /* of the buffer with an ID */
};

static inline void *talk_resume_thread(void *device)
{
    virtio_resume(device);
    return NULL;
}

static inline void *talk_pause_thread(void *device)
{
    virtio_pause(device);
    return NULL;
}

/* Pausing and resuming wait for the loop, which this thread serves: so they run beside it. */
static inline void talk_beside(struct talk *talk, struct virtio_device *device, void *(*what)(void *))
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, what, device), 0);
    while (pthread_tryjoin_np(thread, NULL) != 0)
        driver_board_settle(&talk->board);
}

/* Puts the device on the board; it runs. */
static inline void talk_put(struct talk *talk, struct virtio_device *device)
{
    driver_board_add(&talk->board, device);
    talk_beside(talk, device, talk_resume_thread);
}

/* Configuration space of the device. */
static inline uint64_t talk_config(struct talk *talk, unsigned offset, unsigned size)
{
    return driver_read(&talk->board, talk->board.config + offset, size);
}

static inline void talk_configure(struct talk *talk, unsigned offset, unsigned size, uint64_t value)
{
    driver_write(&talk->board, talk->board.config + offset, size, value);
}

/* Negotiates and starts the device that is on the board. */
static inline void talk_start(struct talk *talk, uint64_t features, unsigned queues)
{
    talk->queues = queues;
    CHECK(driver_negotiate(&talk->board, features | TALK_VERSION_1));
    for (unsigned i = 0; i < queues; i++) {
        talk->slot[i] = 0;
        driver_queue_init(&talk->queue[i], &talk->board.ram, TALK_RINGS + i * 0x10000, i, TALK_SIZE, features | TALK_VERSION_1);
        driver_queue_setup(&talk->board, &talk->queue[i]);
    }
    driver_ok(&talk->board);
    driver_board_settle(&talk->board);
    CHECK_EQ(driver_status(&talk->board), 15);
}

static inline uint64_t talk_place(struct talk *talk, unsigned queue)
{
    return TALK_BUFFERS + (queue * TALK_SIZE + talk->slot[queue]++ % TALK_SIZE) * TALK_BUFFER;
}

static inline void talk_add(struct talk *talk, unsigned queue, uint64_t place, uint32_t length, bool writable)
{
    struct driver_piece piece = {place, length};
    int id = driver_add(&talk->queue[queue], &piece, !writable, writable, false);
    CHECK(id >= 0);
    talk->place[queue][id] = place;
    driver_publish(&talk->queue[queue]);
    driver_notify(&talk->board, &talk->queue[queue]);
}

/* Hands the device bytes to read, and lets it. */
static inline void talk_say(struct talk *talk, unsigned queue, const void *bytes, uint32_t length)
{
    uint64_t place = talk_place(talk, queue);
    CHECK_EQ(ram_write(&talk->board.ram, place, bytes, length), 0);
    talk_add(talk, queue, place, length, false);
    driver_board_settle(&talk->board);
}

/* Hands the device a buffer to write to, and lets it. */
static inline void talk_offer(struct talk *talk, unsigned queue, uint32_t length)
{
    talk_add(talk, queue, talk_place(talk, queue), length, true);
    driver_board_settle(&talk->board);
}

/* The next buffer that the device used; its bytes go to ret_bytes (size of them at most). Returns its length, or -1. */
static inline int talk_hear(struct talk *talk, unsigned queue, void *ret_bytes, uint32_t size)
{
    unsigned id;
    uint32_t written;
    if (!driver_take(&talk->queue[queue], &id, &written))
        return -1;
    if (ret_bytes)
        CHECK_EQ(ram_read(&talk->board.ram, talk->place[queue][id], ret_bytes, written < size ? written : size), 0);
    return (int)written;
}

/* Saves the device of one board and loads it on another, where `device` is on the board and paused; the guest's memory and the
 * driver's state go along. `from` was paused and stays so. */
static inline void talk_move(struct talk *from, struct talk *to)
{
    struct saved saved = device_saved(from->board.device);
    memcpy(ram_host(&to->board.ram, 0, TALK_MEMORY), ram_host(&from->board.ram, 0, TALK_MEMORY), TALK_MEMORY);
    CHECK_EQ(device_loaded(to->board.device, saved.bytes, saved.length), 0);
    struct saved again = device_saved(to->board.device);
    CHECK_EQ(again.length, saved.length);
    free(again.bytes);
    free(saved.bytes);
    to->queues = from->queues;
    to->board.features = from->board.features;
    memcpy(to->queue, from->queue, sizeof to->queue);
    memcpy(to->slot, from->slot, sizeof to->slot);
    memcpy(to->place, from->place, sizeof to->place);
    for (unsigned i = 0; i < to->queues; i++)
        to->queue[i].ram = &to->board.ram;
}

#endif
