/* device_check.h - checks that hold for every device model: what is saved loads again, and what is not a
 * saved device is refused without harm. */
#ifndef VENEER_TESTS_DEVICE_CHECK_H
#define VENEER_TESTS_DEVICE_CHECK_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "device/device.h"

struct saved {
    uint8_t *bytes;
    size_t length;
};

static inline struct saved device_saved(const struct device *device)
{
    struct stream *stream = stream_new();
    struct saved saved = {0};
    device->ops->save(device, stream);
    CHECK_EQ(stream_status(stream, NULL), 0);
    const void *bytes = stream_bytes(stream, &saved.length);
    saved.bytes = malloc(saved.length ? saved.length : 1);
    memcpy(saved.bytes, bytes, saved.length);
    stream_free(stream);
    return saved;
}

/* Loads from exactly `length` bytes, so that a sanitizer sees a read past them. */
static inline int device_loaded(struct device *device, const uint8_t *bytes, size_t length)
{
    struct error error = {.text = ""};
    uint8_t *copy = malloc(length ? length : 1);
    memcpy(copy, bytes, length);
    struct stream *stream = stream_open(copy, length);
    int status = device->ops->load(device, stream, &error);
    CHECK((status == 0) == (error.text[0] == '\0'));
    stream_free(stream);
    free(copy);
    return status;
}

static inline bool same_saved(const struct saved *a, const struct saved *b)
{
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

/* `to` becomes what `from` is. */
static inline void check_round_trip(const struct device *from, struct device *to)
{
    struct saved first = device_saved(from);
    CHECK_EQ(device_loaded(to, first.bytes, first.length), 0);
    struct saved second = device_saved(to);
    CHECK(same_saved(&first, &second));
    free(first.bytes);
    free(second.bytes);
}

/* Every shorter input is refused and leaves a reset device; every input with one byte changed is taken or refused,
 * and the device still saves. */
static inline void check_hostile(struct device *device)
{
    struct saved good = device_saved(device);
    device->ops->reset(device);
    struct saved fresh = device_saved(device);
    for (size_t length = 0; length < good.length; length++) {
        CHECK(device_loaded(device, good.bytes, length) != 0);
        struct saved after = device_saved(device);
        CHECK(same_saved(&after, &fresh));
        free(after.bytes);
    }
    for (size_t at = 0; at < good.length; at++) {
        for (unsigned flip = 1; flip <= 0x80; flip <<= 1) {
            good.bytes[at] ^= (uint8_t)flip;
            device_loaded(device, good.bytes, good.length);
            good.bytes[at] ^= (uint8_t)flip;
        }
    }
    CHECK_EQ(device_loaded(device, good.bytes, good.length), 0);
    struct saved last = device_saved(device);
    CHECK(same_saved(&last, &good));
    free(good.bytes);
    free(fresh.bytes);
    free(last.bytes);
}

static inline uint64_t device_get(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    return device->ops->read(device, region, offset, size);
}

static inline void device_put(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    device->ops->write(device, region, offset, size, value);
}

/* An interrupt wire that remembers. */
struct test_line {
    int level;
    unsigned rises;
};

static inline void test_line_set(void *owner, unsigned pin, int level)
{
    struct test_line *line = (struct test_line *)owner + pin;
    if (level && !line->level)
        line->rises++;
    line->level = level;
}

static inline struct irq_line test_line(struct test_line *lines, unsigned pin)
{
    return (struct irq_line){.set = test_line_set, .owner = lines, .pin = pin};
}

#endif
