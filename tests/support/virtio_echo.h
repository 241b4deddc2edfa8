/* virtio_echo.h - a virtio device for tests of the core: it answers each chain with a function of what it read. */
#ifndef VENEER_TESTS_VIRTIO_ECHO_H
#define VENEER_TESTS_VIRTIO_ECHO_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "device_check.h"
#include "support/virtio_driver.h"

#define ECHO_MEMORY (UINT64_C(64) << 20)
#define ECHO_RINGS 0x100000u /* where queues are */
#define ECHO_BUFFERS 0x3000000u
#define EVENT VIRTIO_BIT(VIRTIO_F_EVENT_IDX)
#define INDIRECT VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define VERSION_1 VIRTIO_BIT(VIRTIO_F_VERSION_1)

struct echo {
    struct virtio_device virtio;
    struct virtqueue_element *held[DRIVER_QUEUE_MAX];
    unsigned held_count, starts, stops, pauses, resumes, configs;
    bool hold, keep_on_stop, unpop_on_pause;
};

static uint64_t echo_random_state = 0x853c49e6748fea9b;

/* A number below the limit; the same ones in each run. */
static inline unsigned echo_random(unsigned limit)
{
    echo_random_state ^= echo_random_state << 13;
    echo_random_state ^= echo_random_state >> 7;
    echo_random_state ^= echo_random_state << 17;
    return (unsigned)(echo_random_state >> 16) % limit;
}

/* What the device answers, byte by byte, to what it read. */
static inline uint8_t echo_digest(const uint8_t *bytes, size_t length)
{
    uint32_t sum = 17;
    for (size_t i = 0; i < length; i++)
        sum = sum * 31 + bytes[i];
    return (uint8_t)(sum ^ sum >> 8);
}

/* Reads by odd steps, so that cursors cross pieces everywhere. */
static inline void echo_complete(struct virtqueue_element *element)
{
    struct virtio_cursor in = virtqueue_readable(element), out = virtqueue_writable(element);
    static uint8_t bytes[65536];
    size_t length = 0, got;
    while ((got = virtio_cursor_get(&in, bytes + length, 1 + length % 7)))
        length += got;
    CHECK_EQ(length, element->readable_bytes);
    uint8_t value = echo_digest(bytes, length);
    uint64_t written = 0;
    for (uint8_t step = 0; out.left; step++) {
        uint8_t answer[8];
        memset(answer, value, sizeof answer);
        written += virtio_cursor_put(&out, answer, 1 + step % 8);
    }
    CHECK_EQ(written, element->writable_bytes);
    virtqueue_push(element->queue, element, written);
}

/* Answers what is held. */
static inline void echo_complete_all(struct echo *echo)
{
    while (echo->held_count)
        echo_complete(echo->held[--echo->held_count]);
    for (unsigned i = 0; i < echo->virtio.queues; i++)
        virtqueue_notify(echo->virtio.queue[i]);
}

static inline void echo_process(struct virtio_device *device, struct virtqueue *queue)
{
    struct echo *echo = (struct echo *)device;
    struct virtqueue_element *element;
    while ((element = virtqueue_pop(queue)))
        echo->held[echo->held_count++] = element;
    if (!echo->hold)
        echo_complete_all(echo);
}

static inline void echo_start(struct virtio_device *device) { ((struct echo *)device)->starts++; }
static inline void echo_resume(struct virtio_device *device) { ((struct echo *)device)->resumes++; }
static inline void echo_config(struct virtio_device *device) { ((struct echo *)device)->configs++; }

static inline void echo_stop(struct virtio_device *device)
{
    struct echo *echo = (struct echo *)device;
    echo->stops++;
    while (!echo->keep_on_stop && echo->held_count) {
        struct virtqueue_element *element = echo->held[--echo->held_count];
        virtqueue_drop(element->queue, element);
    }
}

static inline void echo_pause(struct virtio_device *device)
{
    struct echo *echo = (struct echo *)device;
    echo->pauses++;
    while (echo->unpop_on_pause && echo->held_count) {
        struct virtqueue_element *element = echo->held[--echo->held_count];
        virtqueue_unpop(element->queue, element);
    }
}

static inline void echo_destroy(struct virtio_device *device)
{
    virtio_device_finish(device);
    free(device);
}

static const struct virtio_ops echo_ops = {.name = "virtio-echo", .id = 42, .class_code = 0xff0000, .start = echo_start,
    .process = echo_process, .stop = echo_stop, .pause = echo_pause, .resume = echo_resume, .config_written = echo_config,
    .destroy = echo_destroy};

static inline struct echo *echo_new(struct driver_board *board, bool packed, unsigned queues, unsigned size)
{
    struct virtio_env env = driver_board_env(board, packed);
    struct echo *echo = calloc(1, sizeof *echo);
    static const uint8_t config[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    CHECK_EQ(virtio_device_init(&echo->virtio, &echo_ops, &env, VIRTIO_BIT(3), config, sizeof config, NULL), 0);
    virtio_config_allow(&echo->virtio, 4, 2);
    for (unsigned i = 0; i < queues; i++)
        CHECK(virtio_queue_add(&echo->virtio, size) != NULL);
    return echo;
}

static inline void *echo_resume_thread(void *context)
{
    virtio_resume(context);
    return NULL;
}

static inline void *echo_pause_thread(void *context)
{
    virtio_pause(context);
    return NULL;
}

static inline void echo_beside(struct driver_board *board, struct virtio_device *virtio, void *(*what)(void *))
{
    pthread_t thread;
    pthread_create(&thread, NULL, what, virtio);
    while (pthread_tryjoin_np(thread, NULL) != 0)
        driver_board_settle(board);
}

/* A machine's pause and resume wait for the loop, which is served here: so they run beside it. */
static inline void echo_resume_beside(struct driver_board *board, struct echo *echo)
{
    echo_beside(board, &echo->virtio, echo_resume_thread);
}

static inline void echo_pause_beside(struct driver_board *board, struct echo *echo)
{
    echo_beside(board, &echo->virtio, echo_pause_thread);
}

/* A board with an echo device, running, its first queue set up. */
static inline struct echo *echo_begin(struct driver_board *board, struct driver_queue *queue, uint64_t features, unsigned size)
{
    driver_board_init(board, ECHO_MEMORY);
    struct echo *echo = echo_new(board, true, 2, size > 256 ? size : 256);
    driver_board_add(board, &echo->virtio);
    echo_resume_beside(board, echo);
    CHECK(driver_negotiate(board, features | VERSION_1));
    driver_queue_init(queue, &board->ram, ECHO_RINGS, 0, size, features);
    driver_queue_setup(board, queue);
    driver_ok(board);
    driver_board_settle(board);
    CHECK_EQ(driver_status(board), 15);
    return echo;
}

#endif
