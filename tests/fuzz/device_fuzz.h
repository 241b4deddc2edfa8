/* device_fuzz.h - drives a device model from the bytes of a fuzzer.
 *
 * The input is a list of operations: time passes, a register is read or written, the device is saved and
 * loaded, what was saved is damaged and loaded, it is reset, or the target's own `other` runs. Besides what
 * sanitizers see, two things are asserted: a device loads what it saved, and then saves the same. */
#ifndef VENEER_TESTS_FUZZ_DEVICE_FUZZ_H
#define VENEER_TESTS_FUZZ_DEVICE_FUZZ_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/device.h"
#include "fake_clock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_ASSERT(condition)                                                        \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);   \
            abort();                                                                  \
        }                                                                             \
    } while (0)

struct fuzz_input {
    const uint8_t *bytes;
    size_t left;
};

static inline uint64_t fuzz_take(struct fuzz_input *input, unsigned count)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < count && input->left; i++, input->bytes++, input->left--)
        value |= (uint64_t)*input->bytes << (8 * i);
    return value;
}

struct fuzz_region {
    unsigned number;
    uint64_t size;
};

struct fuzz_target {
    struct device *device;
    const struct fuzz_region *regions;
    unsigned count;
    struct fake_clock *fake; /* NULL: the device has no clock */
    void (*other)(struct fuzz_input *input, void *context); /* NULL: none */
    void *context;
    bool changes; /* loading changes what is saved (a version counts), so that it is not compared */
};

/* Loads from a copy exactly as long as the input. */
static inline int fuzz_load(struct device *device, const uint8_t *bytes, size_t length, struct error *error)
{
    uint8_t *copy = malloc(length ? length : 1);
    if (length)
        memcpy(copy, bytes, length);
    struct stream *stream = stream_open(copy, length);
    int status = device->ops->load(device, stream, error);
    stream_free(stream);
    free(copy);
    return status;
}

static inline struct stream *fuzz_saved(const struct device *device)
{
    struct stream *stream = stream_new();
    device->ops->save(device, stream);
    FUZZ_ASSERT(stream_status(stream, NULL) == 0);
    return stream;
}

/* The first load may serve a timer that is due; after that the state stands. */
static inline void fuzz_round_trip(const struct fuzz_target *target)
{
    struct stream *saved[2];
    size_t length[2];
    for (unsigned i = 0; i < 2; i++) {
        struct stream *before = fuzz_saved(target->device);
        const void *bytes = stream_bytes(before, &length[0]);
        struct error error;
        if (fuzz_load(target->device, bytes, length[0], &error) != 0) {
            fprintf(stderr, "what was saved does not load: %s\n", error.text);
            abort();
        }
        stream_free(before);
        saved[i] = fuzz_saved(target->device);
    }
    const void *first = stream_bytes(saved[0], &length[0]), *second = stream_bytes(saved[1], &length[1]);
    FUZZ_ASSERT(target->changes || (length[0] == length[1] && memcmp(first, second, length[0]) == 0));
    stream_free(saved[0]);
    stream_free(saved[1]);
}

static inline void fuzz_damage(const struct fuzz_target *target, struct fuzz_input *input)
{
    struct stream *stream = fuzz_saved(target->device);
    size_t length;
    const void *bytes = stream_bytes(stream, &length);
    uint8_t *copy = malloc(length + 1);
    memcpy(copy, bytes, length);
    stream_free(stream);
    for (unsigned changes = 1 + (fuzz_take(input, 1) & 7); changes > 0; changes--) {
        size_t at = fuzz_take(input, 2) % length;
        copy[at] = (uint8_t)fuzz_take(input, 1);
    }
    if (fuzz_take(input, 1) & 1)
        length = fuzz_take(input, 2) % length;
    fuzz_load(target->device, copy, length, NULL);
    free(copy);
}

static inline void fuzz_access(const struct fuzz_target *target, struct fuzz_input *input, bool write)
{
    struct device *device = target->device;
    const struct fuzz_region *region = &target->regions[fuzz_take(input, 1) % target->count];
    unsigned size = 1u << (fuzz_take(input, 1) & 3);
    uint64_t offset = fuzz_take(input, region->size > 256 ? 4 : 1) % region->size;
    while (size > region->size - offset) /* a bus hands on only what lies within */
        size /= 2;
    if (write)
        device->ops->write(device, region->number, offset, size,
                           fuzz_take(input, size) & (UINT64_MAX >> (64 - 8 * size)));
    else
        device->ops->read(device, region->number, offset, size);
}

static inline void fuzz_pass_time(struct fake_clock *fake, struct fuzz_input *input)
{
    uint64_t amount = fuzz_take(input, 2), shift = fuzz_take(input, 1) % 32;
    if (fake)
        fake_clock_run(fake, amount << shift, 64);
}

/* At most this many operations of an input are run, so that no input is slow. */
#define FUZZ_OPERATIONS 512

static inline void fuzz_device(const struct fuzz_target *target, const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    for (unsigned i = 0; i < FUZZ_OPERATIONS && input.left; i++) {
        switch (fuzz_take(&input, 1) % 16) {
        case 0: case 1: fuzz_pass_time(target->fake, &input); break;
        case 2: case 3: case 4: fuzz_access(target, &input, false); break;
        case 5: case 6: case 7: case 8: case 9: fuzz_access(target, &input, true); break;
        case 10: fuzz_round_trip(target); break;
        case 11: /* rarely, as both end what the operations before have built up */
            if (fuzz_take(&input, 1) % 4 == 0)
                fuzz_damage(target, &input);
            break;
        case 12:
            if (fuzz_take(&input, 1) % 8 == 0)
                target->device->ops->reset(target->device);
            break;
        default:
            if (target->other)
                target->other(&input, target->context);
            break;
        }
    }
}

static inline void fuzz_line_set(void *owner, unsigned pin, int level)
{
    (void)pin;
    *(int *)owner = level;
}

#endif
