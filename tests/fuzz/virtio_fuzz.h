/* virtio_fuzz.h - drives a virtio device as a driver that may do anything, from the bytes of a fuzzer.
 *
 * The input is a list of operations: registers are read and written, rings are set up properly or memory anywhere near them is
 * overwritten, chains are added that are right or wrong, queues are notified, the device is reset, saved and loaded,
 * and its I/O thread (this one) gets its turn. Besides what sanitizers see: a reset ends, and a device loads what it saved. */
#ifndef VENEER_TESTS_FUZZ_VIRTIO_FUZZ_H
#define VENEER_TESTS_FUZZ_VIRTIO_FUZZ_H

#include "base/log.h"
#include "device_fuzz.h"
#include "support/virtio_driver.h"

#define FUZZ_MEMORY (UINT64_C(1) << 20)
#define FUZZ_RING 0x10000u
#define FUZZ_RING_STEP 0x10000u
#define FUZZ_BUFFERS 0x80000u
#ifndef FUZZ_QUEUES /* at most 6; a target may want more than two */
#define FUZZ_QUEUES 2u
#endif

struct virtio_fuzz {
    struct driver_board board;
    struct driver_queue queue[FUZZ_QUEUES];
    bool set_up;
    void (*finish)(void *context); /* completes what the device holds; NULL: nothing to do */
    void *context;
};

static inline void virtio_fuzz_serve(struct virtio_fuzz *fuzz)
{
    driver_board_settle(&fuzz->board);
    if (fuzz->finish)
        fuzz->finish(fuzz->context);
    driver_board_settle(&fuzz->board);
}

static inline void virtio_fuzz_reset(struct virtio_fuzz *fuzz)
{
    driver_reset(&fuzz->board, false);
    virtio_fuzz_serve(fuzz);
    FUZZ_ASSERT(driver_status(&fuzz->board) == 0);
    fuzz->set_up = false;
}

static inline void virtio_fuzz_setup(struct virtio_fuzz *fuzz, struct fuzz_input *input)
{
    unsigned choice = (unsigned)fuzz_take(input, 1), size = 1u << (choice >> 3 & 3);
    uint64_t features = driver_offered(&fuzz->board);
    virtio_fuzz_reset(fuzz);
    if (!(choice & 1))
        features &= ~VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    if (!(choice & 2))
        features &= ~VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
    if (!(choice & 4))
        features &= ~VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
    driver_negotiate(&fuzz->board, features);
    for (unsigned i = 0; i < FUZZ_QUEUES; i++) {
        driver_queue_init(&fuzz->queue[i], &fuzz->board.ram, FUZZ_RING + i * FUZZ_RING_STEP, i, size, features);
        driver_queue_setup(&fuzz->board, &fuzz->queue[i]);
    }
    driver_ok(&fuzz->board);
    fuzz->set_up = true;
}

/* A chain of up to four pieces at buffers that the input names. */
static inline void virtio_fuzz_add(struct virtio_fuzz *fuzz, struct fuzz_input *input)
{
    struct driver_piece pieces[4];
    unsigned choice = (unsigned)fuzz_take(input, 1), readable = choice >> 1 & 3, writable = 4 - readable;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t place = fuzz_take(input, 2);
        pieces[i] = (struct driver_piece){FUZZ_BUFFERS + 16 * (place & 0xfff) * (place >> 15 ? 16 : 1), 1u << (place >> 12 & 7)};
        if (choice & 0x80 && i > 0)
            pieces[i].length = 512;
    }
    if (!fuzz->set_up)
        return;
    struct driver_queue *queue = &fuzz->queue[choice & 1];
    if (queue->packed && queue->added)
        return;
    /* The ring may have been damaged, which this driver does not look at; its own notes stay right. */
    if (driver_add(queue, pieces, readable, choice & 8 ? 1 : writable, choice & 16) >= 0 && (driver_publish(queue) || choice & 32))
        driver_notify(&fuzz->board, queue);
}

static inline void virtio_fuzz_memory(struct virtio_fuzz *fuzz, struct fuzz_input *input)
{
    uint64_t place = fuzz_take(input, 2);
    unsigned length = 1 + (unsigned)(place & 7);
    uint64_t gpa = place & 8 ? FUZZ_BUFFERS + (place >> 4) * 16 : FUZZ_RING + (place >> 4 & 0x7ff) + (place >> 15) * FUZZ_RING_STEP;
    if (!(place & 8) && place & 0x4000) /* the device area begins on a page of its own */
        gpa = FUZZ_RING + (place >> 15) * FUZZ_RING_STEP + 4096 + (place >> 4 & 0xff);
    uint64_t value = fuzz_take(input, length);
    memcpy(ram_host(&fuzz->board.ram, gpa, length), &value, length);
}

static inline void virtio_fuzz_registers(struct virtio_fuzz *fuzz, struct fuzz_input *input)
{
    unsigned choice = (unsigned)fuzz_take(input, 1), size = 1u << (choice & 3);
    uint64_t offset = fuzz_take(input, 1) | (uint64_t)(choice >> 2 & 3) << 12, bar = fuzz->board.common;
    if (choice & 0x10) { /* configuration space; the BARs stay where they are */
        unsigned at = (unsigned)(offset & 0xff);
        if (choice & 0x40)
            driver_config_write(&fuzz->board, 4, 2, choice & 0x80 ? 6 : 2);
        else if (choice & 0x20 && at >= 0x40)
            driver_config_write(&fuzz->board, at, size, fuzz_take(input, size));
        else
            driver_config_read(&fuzz->board, at, size);
    } else if (choice & 0x20) {
        driver_write(&fuzz->board, bar + offset, size, fuzz_take(input, size));
    } else {
        driver_read(&fuzz->board, bar + offset, size);
    }
}

/* Saved while nothing runs, damaged, loaded; what was saved loads again. */
static inline void virtio_fuzz_save(struct virtio_fuzz *fuzz, struct fuzz_input *input)
{
    struct device *device = fuzz->board.device;
    struct error error;
    virtio_fuzz_reset(fuzz);
    struct stream *stream = stream_new();
    device->ops->save(device, stream);
    size_t length;
    const uint8_t *bytes = stream_bytes(stream, &length);
    uint8_t *copy = malloc(length);
    memcpy(copy, bytes, length);
    for (unsigned i = (unsigned)fuzz_take(input, 1) & 7; i; i--) {
        uint64_t at = fuzz_take(input, 2);
        /* The registers are behind the configuration space. */
        copy[(at & 0x8000 ? at : length - 1 - at % 512) % length] ^= (uint8_t)fuzz_take(input, 1);
    }
    fuzz_load(device, copy, length, &error);
    virtio_fuzz_serve(fuzz);
    device->ops->reset(device);
    virtio_fuzz_serve(fuzz);
    FUZZ_ASSERT(fuzz_load(device, bytes, length, &error) == 0);
    driver_config_write(&fuzz->board, 4, 2, 6);
    free(copy);
    stream_free(stream);
}

/* board and device are made; runs the input and destroys them. */
static inline void virtio_fuzz_run(struct virtio_fuzz *fuzz, const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    while (input.left) {
        switch (fuzz_take(&input, 1) % 10) {
        case 0: virtio_fuzz_setup(fuzz, &input); break;
        case 1: case 2: virtio_fuzz_add(fuzz, &input); break;
        case 3: case 4: virtio_fuzz_memory(fuzz, &input); break;
        case 5: driver_write(&fuzz->board, fuzz->board.notify + 4 * fuzz_take(&input, 1), 2, 0); break;
        case 6: virtio_fuzz_serve(fuzz); break;
        case 7: virtio_fuzz_registers(fuzz, &input); break;
        case 8: driver_reset(&fuzz->board, false); fuzz->set_up = false; break;
        default: virtio_fuzz_save(fuzz, &input); break;
        }
    }
    virtio_fuzz_serve(fuzz);
    virtio_fuzz_reset(fuzz);
    driver_board_destroy(&fuzz->board);
}

/* Warnings of broken rings are what this is about: not one each. */
static inline void virtio_fuzz_begin(struct virtio_fuzz *fuzz)
{
    log_set_level(LOG_ERROR);
    memset(fuzz, 0, sizeof *fuzz);
    driver_board_init(&fuzz->board, FUZZ_MEMORY);
}

static inline void *virtio_fuzz_resume_thread(void *context)
{
    virtio_resume(context);
    return NULL;
}

static inline void virtio_fuzz_add_device(struct virtio_fuzz *fuzz, struct virtio_device *virtio)
{
    pthread_t thread;
    driver_board_add(&fuzz->board, virtio);
    FUZZ_ASSERT(pthread_create(&thread, NULL, virtio_fuzz_resume_thread, virtio) == 0);
    while (pthread_tryjoin_np(thread, NULL) != 0)
        driver_board_settle(&fuzz->board);
}

#endif
