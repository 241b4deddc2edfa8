/* virtio_fuzz.h - drives a virtio device as a driver that may do anything, from the bytes of a fuzzer.
 *
 * The input is a list of operations: registers are read and written, rings are set up properly or memory anywhere near them is
 * overwritten, chains are added that are right or wrong, requests that the device understands are made by the
 * target, queues are notified, the device is reset, saved and loaded, and its I/O thread (this one) gets its turn. Besides what
 * sanitizers see: a reset ends, a device loads what it saved and goes on from there, and while nobody damaged the rings
 * each chain is used once at most and no longer than it is. */
#ifndef VENEER_TESTS_FUZZ_VIRTIO_FUZZ_H
#define VENEER_TESTS_FUZZ_VIRTIO_FUZZ_H

#include "base/log.h"
#include "device/virtio/virtio_private.h"
#include "device_fuzz.h"
#include "support/virtio_driver.h"

#define FUZZ_MEMORY (UINT64_C(1) << 20)
#define FUZZ_RING 0x10000u
#define FUZZ_RING_STEP 0x10000u
#define FUZZ_BUFFERS 0x80000u
#define FUZZ_SIZE_MAX 32u /* of a queue; its indirect tables fit into the step */
#define FUZZ_SLOT 0x2000u /* bytes of a request's buffer */
#define FUZZ_SLOTS 32u
#ifndef FUZZ_QUEUES /* at most 6; a target may want more than two */
#define FUZZ_QUEUES 2u
#endif

struct virtio_fuzz {
    struct driver_board board;
    struct virtio_device *virtio;
    struct driver_queue queue[FUZZ_QUEUES];
    uint64_t room[FUZZ_QUEUES][FUZZ_SIZE_MAX]; /* writable bytes of the chain with that ID */
    unsigned slot;
    bool set_up;
    bool raw_damages; /* chains at random may tell the device to change memory anywhere */
    bool damaged; /* since the set-up: the rings may hold anything, and what is used in them is not looked at */
    void (*finish)(void *context); /* completes what the device holds; NULL: nothing to do */
    /* Makes a request that the device may understand; choice: 0 to 25. NULL: chains at random take its place. */
    void (*request)(struct virtio_fuzz *fuzz, struct fuzz_input *input, unsigned choice);
    void (*used)(struct virtio_fuzz *fuzz, unsigned queue, unsigned id, uint32_t written); /* NULL: nobody looks */
    void *context;
};

/* Takes what the device used. */
static inline void virtio_fuzz_take(struct virtio_fuzz *fuzz)
{
    unsigned id;
    uint32_t written;
    for (unsigned i = 0; i < FUZZ_QUEUES && fuzz->set_up && !fuzz->damaged; i++)
        while (fuzz->queue[i].size && driver_take(&fuzz->queue[i], &id, &written)) {
            FUZZ_ASSERT(written <= fuzz->room[i][id]);
            if (fuzz->used)
                fuzz->used(fuzz, i, id, written);
        }
}

/* The loop polls while it is served, so that it does not come to sleep by itself here. */
static inline void virtio_fuzz_sleep(struct virtio_fuzz *fuzz)
{
    struct virtio_io *io = fuzz->virtio->io;
    if (!io->started)
        return;
    io->poller.sleep(io->poller.context);
    io->poller.wake(io->poller.context);
}

static inline void virtio_fuzz_serve(struct virtio_fuzz *fuzz)
{
    driver_board_settle(&fuzz->board);
    if (fuzz->finish)
        fuzz->finish(fuzz->context);
    driver_board_settle(&fuzz->board);
    virtio_fuzz_sleep(fuzz);
    virtio_fuzz_take(fuzz);
}

/* Says when the driver wants to be interrupted. */
static inline void virtio_fuzz_want(struct virtio_fuzz *fuzz, unsigned choice)
{
    for (unsigned i = 0; i < FUZZ_QUEUES && fuzz->set_up; i++)
        if (fuzz->queue[i].size)
            driver_want_interrupt(&fuzz->queue[i], choice & 1, choice >> 1 & 3);
}

static inline void virtio_fuzz_reset(struct virtio_fuzz *fuzz)
{
    driver_reset(&fuzz->board, false);
    fuzz->set_up = false;
    virtio_fuzz_serve(fuzz);
    FUZZ_ASSERT(driver_status(&fuzz->board) == 0);
}

/* Queue `index` with `size` entries or as many as the device allows, if it is there at all. */
static inline void virtio_fuzz_queue(struct virtio_fuzz *fuzz, unsigned index, unsigned size)
{
    driver_write(&fuzz->board, fuzz->board.common + 0x16, 2, index);
    unsigned most = (unsigned)driver_read(&fuzz->board, fuzz->board.common + 0x18, 2);
    fuzz->queue[index].size = 0;
    if (most == 0)
        return;
    driver_queue_init(&fuzz->queue[index], &fuzz->board.ram, FUZZ_RING + index * FUZZ_RING_STEP, index, size < most ? size : most,
                      fuzz->board.features);
    driver_queue_setup(&fuzz->board, &fuzz->queue[index]);
}

static inline void virtio_fuzz_setup(struct virtio_fuzz *fuzz, struct fuzz_input *input)
{
    unsigned choice = (unsigned)fuzz_take(input, 1), size = 1u << ((choice >> 3 & 3) + (choice >> 4 & 2));
    uint64_t features = driver_offered(&fuzz->board);
    virtio_fuzz_reset(fuzz);
    if (!(choice & 1))
        features &= ~VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    if (!(choice & 2))
        features &= ~VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
    if (!(choice & 4))
        features &= ~VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC);
    if (choice & 0x40) /* none of the device's own */
        features &= ~UINT64_C(0xffffff);
    driver_negotiate(&fuzz->board, features);
    for (unsigned i = 0; i < FUZZ_QUEUES; i++)
        virtio_fuzz_queue(fuzz, i, size);
    driver_ok(&fuzz->board);
    fuzz->set_up = true;
    fuzz->damaged = false;
}

enum { FUZZ_INDIRECT = 1, FUZZ_NOTIFY = 2 }; /* the second: even when the device does not ask for it */

/* Makes a chain available; of a queue that is too short for it, a shorter one. Returns its ID, or -1. */
static inline int virtio_fuzz_offer(struct virtio_fuzz *fuzz, unsigned index, const struct driver_piece *pieces, unsigned readable,
                                    unsigned writable, unsigned how)
{
    struct driver_queue *queue = &fuzz->queue[index];
    if (!fuzz->set_up || queue->size == 0)
        return -1;
    if (readable > queue->size)
        readable = queue->size;
    if (writable > queue->size - readable)
        writable = queue->size - readable;
    int id = driver_add(queue, pieces, readable, writable, how & FUZZ_INDIRECT);
    if (id < 0)
        return -1;
    fuzz->room[index][id] = 0;
    for (unsigned i = readable; i < readable + writable; i++)
        fuzz->room[index][id] += pieces[i].length;
    if (driver_publish(queue) || how & FUZZ_NOTIFY)
        driver_notify(&fuzz->board, queue);
    return id;
}

/* The next buffer of FUZZ_SLOT bytes for a request. */
static inline uint64_t virtio_fuzz_slot(struct virtio_fuzz *fuzz, uint8_t **ret_bytes)
{
    uint64_t gpa = FUZZ_BUFFERS + (uint64_t)(fuzz->slot++ % FUZZ_SLOTS) * FUZZ_SLOT;
    *ret_bytes = ram_host(&fuzz->board.ram, gpa, FUZZ_SLOT);
    return gpa;
}

/* A chain of up to four pieces at buffers that the input names. */
static inline void virtio_fuzz_add(struct virtio_fuzz *fuzz, struct fuzz_input *input, unsigned extra)
{
    struct driver_piece pieces[4];
    unsigned choice = (unsigned)fuzz_take(input, 1), readable = choice >> 1 & 3, writable = choice & 8 ? 1 : 4 - readable;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t place = fuzz_take(input, 2);
        pieces[i] = (struct driver_piece){FUZZ_BUFFERS + 16 * (place & 0xfff) * (place >> 15 ? 16 : 1), 1u << (place >> 12 & 7)};
        if (choice & 0x80 && i > 0)
            pieces[i].length = 512;
    }
    fuzz->damaged |= fuzz->raw_damages;
    virtio_fuzz_offer(fuzz, ((choice & 1) + 2 * extra) % FUZZ_QUEUES, pieces, readable, writable,
                      (choice & 16 ? FUZZ_INDIRECT : 0) | (choice & 32 ? FUZZ_NOTIFY : 0));
}

/* Overwrites a few bytes of a buffer, or of a ring: its descriptors and driver area, its device area, or its tables. */
static inline void virtio_fuzz_memory(struct virtio_fuzz *fuzz, struct fuzz_input *input, unsigned extra)
{
    uint64_t place = fuzz_take(input, 2), ring = FUZZ_RING + ((place >> 15) + 2 * (extra / 2)) % FUZZ_QUEUES * FUZZ_RING_STEP;
    unsigned length = 1 + (unsigned)(place & 7);
    uint64_t gpa = place & 8 ? FUZZ_BUFFERS + (place >> 4) * 16 : ring + (place >> 4 & 0x7ff);
    if (!(place & 8) && place & 0x4000) /* the device area begins on a page of its own, and the tables on the next */
        gpa = ring + (extra & 1 ? 8192 + (place >> 4 & 0x3ff) : 4096 + (place >> 4 & 0xff));
    uint64_t value = fuzz_take(input, length);
    fuzz->damaged |= !(place & 8);
    memcpy(ram_host(&fuzz->board.ram, gpa, length), &value, length);
}

/* An access to the common structure by the window in configuration space (4.1.4.9). */
static inline void virtio_fuzz_window(struct virtio_fuzz *fuzz, struct fuzz_input *input, bool write)
{
    struct driver_board *board = &fuzz->board;
    unsigned bar = 0, window = 0, at = (unsigned)driver_config_read(board, 0x34, 1);
    for (unsigned i = 0; at && i < 16; i++, at = (unsigned)driver_config_read(board, at + 1, 1)) {
        uint64_t type = driver_config_read(board, at, 1) == 9 ? driver_config_read(board, at + 3, 1) : 0;
        if (type == 1)
            bar = (unsigned)driver_config_read(board, at + 4, 1);
        else if (type == 5)
            window = at;
    }
    uint64_t offset = fuzz_take(input, 1);
    unsigned size = 1u << (offset & 3);
    driver_config_write(board, window + 4, 1, bar);
    driver_config_write(board, window + 8, 4, offset >> 2);
    driver_config_write(board, window + 12, 4, size);
    if (write)
        driver_config_write(board, window + 16, size < 4 ? size : 4, fuzz_take(input, 4));
    else
        driver_config_read(board, window + 16, size < 4 ? size : 4);
    fuzz->damaged |= write;
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
        else if (choice & 0x80)
            virtio_fuzz_window(fuzz, input, choice & 0x20);
        else
            driver_config_read(&fuzz->board, at, size);
    } else if (choice & 0x20) {
        driver_write(&fuzz->board, bar + offset, size, fuzz_take(input, size));
        fuzz->damaged = true;
    } else {
        driver_read(&fuzz->board, bar + offset, size);
    }
}

/* Stops the device as the machine does before it is saved; nothing is in flight then. */
static inline void virtio_fuzz_pause(struct virtio_fuzz *fuzz)
{
    virtio_io_control(fuzz->virtio, VIRTIO_IO_PAUSE);
    virtio_fuzz_serve(fuzz);
    FUZZ_ASSERT(fuzz->virtio->io->quiet);
}

static inline void virtio_fuzz_resume(struct virtio_fuzz *fuzz)
{
    virtio_io_control(fuzz->virtio, VIRTIO_IO_RESUME);
    driver_board_settle(&fuzz->board);
    FUZZ_ASSERT(!fuzz->virtio->io->quiet);
}

/* Loads what was saved with some bytes changed, and lets the device do what it does then. */
static inline void virtio_fuzz_load_damaged(struct virtio_fuzz *fuzz, struct fuzz_input *input, const uint8_t *bytes, size_t length,
                                            unsigned changes)
{
    struct error error;
    uint8_t *copy = malloc(length);
    memcpy(copy, bytes, length);
    for (; changes; changes--) {
        size_t at = fuzz_take(input, 2);
        /* The registers are behind the configuration space. */
        copy[(at & 0x8000 ? at : length - 1 - at % (length < 2048 ? 512 : length)) % length] ^= (uint8_t)fuzz_take(input, 1);
    }
    fuzz_load(fuzz->board.device, copy, length, &error);
    fuzz->damaged = true;
    virtio_fuzz_serve(fuzz);
    fuzz->board.device->ops->reset(fuzz->board.device);
    virtio_fuzz_serve(fuzz);
    free(copy);
}

/* Saved, in the middle of what it does or after a reset; damaged and loaded; and what was saved loads again. A device that
 * was saved in the middle goes on from there. */
static inline void virtio_fuzz_save(struct virtio_fuzz *fuzz, struct fuzz_input *input)
{
    struct device *device = fuzz->board.device;
    struct error error;
    unsigned choice = (unsigned)fuzz_take(input, 1);
    bool live = choice & 8, was_set_up = fuzz->set_up;
    if (!live)
        virtio_fuzz_reset(fuzz);
    virtio_fuzz_pause(fuzz);
    struct stream *stream = stream_new();
    device->ops->save(device, stream);
    bool good = stream_status(stream, NULL) == 0;
    FUZZ_ASSERT(good || live);
    size_t length;
    const uint8_t *bytes = stream_bytes(stream, &length);
    virtio_fuzz_resume(fuzz);
    if (live) { /* as the bytes go to a machine that was just made */
        device->ops->reset(device);
        fuzz->set_up = false;
        virtio_fuzz_serve(fuzz);
    }
    if (choice & 7)
        virtio_fuzz_load_damaged(fuzz, input, bytes, length, choice & 7);
    if (good) {
        FUZZ_ASSERT(fuzz_load(device, bytes, length, &error) == 0);
        fuzz->set_up = live && was_set_up;
        virtio_fuzz_serve(fuzz);
    }
    driver_config_write(&fuzz->board, 4, 2, 6);
    stream_free(stream);
}

static inline void virtio_fuzz_gone(void *context)
{
    *(bool *)context = true;
}

/* The device is taken off its bus with whatever it has to do, and destroyed when it says that it is out of use. */
static inline void virtio_fuzz_unplug(struct virtio_fuzz *fuzz)
{
    bool gone = false;
    pthread_mutex_lock(&fuzz->board.lock);
    virtio_pci_unplug(fuzz->board.device, virtio_fuzz_gone, &gone);
    pthread_mutex_unlock(&fuzz->board.lock);
    fuzz->set_up = false;
    virtio_fuzz_serve(fuzz);
    FUZZ_ASSERT(gone);
    fuzz->board.device->ops->destroy(fuzz->board.device);
    fuzz->board.device = NULL;
}

/* board and device are made; runs the input and destroys them: unplugged after an input of odd length. */
static inline void virtio_fuzz_run(struct virtio_fuzz *fuzz, const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    while (input.left) {
        unsigned operation = (unsigned)fuzz_take(&input, 1), extra = operation / 10;
        switch (operation % 10) {
        case 0: virtio_fuzz_setup(fuzz, &input); break;
        case 1: virtio_fuzz_add(fuzz, &input, extra); break;
        case 2:
            if (fuzz->request)
                fuzz->request(fuzz, &input, extra);
            else
                virtio_fuzz_add(fuzz, &input, extra);
            break;
        case 3: case 4: virtio_fuzz_memory(fuzz, &input, extra); break;
        case 5: driver_write(&fuzz->board, fuzz->board.notify + 4 * fuzz_take(&input, 1), 2, 0); break;
        case 6:
            if (extra >= 16)
                virtio_fuzz_want(fuzz, extra);
            virtio_fuzz_serve(fuzz);
            break;
        case 7: virtio_fuzz_registers(fuzz, &input); break;
        case 8: driver_reset(&fuzz->board, false); fuzz->set_up = false; break;
        default: virtio_fuzz_save(fuzz, &input); break;
        }
    }
    if (size & 1) {
        virtio_fuzz_unplug(fuzz);
    } else {
        virtio_fuzz_serve(fuzz);
        virtio_fuzz_reset(fuzz);
    }
    driver_board_destroy(&fuzz->board);
}

/* Warnings of broken rings are what this is about: not one each. */
static inline void virtio_fuzz_begin(struct virtio_fuzz *fuzz)
{
    log_set_level(LOG_ERROR);
    memset(fuzz, 0, sizeof *fuzz);
    driver_board_init(&fuzz->board, FUZZ_MEMORY);
}

static inline void virtio_fuzz_add_device(struct virtio_fuzz *fuzz, struct virtio_device *virtio)
{
    driver_board_add(&fuzz->board, virtio);
    fuzz->virtio = virtio;
    virtio_fuzz_resume(fuzz);
}

#endif
