/* postcode.c - see postcode.h. */
#include "device/platform/postcode.h"

#include <stdlib.h>

#define SAVED_VERSION 1

struct postcode {
    struct device device;
    uint8_t last[2];
};

static uint64_t postcode_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    const struct postcode *postcode = (const struct postcode *)device;
    (void)offset, (void)size;
    return postcode->last[region & 1];
}

static void postcode_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct postcode *postcode = (struct postcode *)device;
    (void)offset, (void)size;
    postcode->last[region & 1] = (uint8_t)value;
}

static void postcode_reset(struct device *device)
{
    struct postcode *postcode = (struct postcode *)device;
    postcode->last[0] = postcode->last[1] = 0;
}

static void postcode_save(const struct device *device, struct stream *stream)
{
    const struct postcode *postcode = (const struct postcode *)device;
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_put_bytes(stream, postcode->last, sizeof postcode->last);
    stream_end(stream);
}

static int postcode_load(struct device *device, struct stream *stream, struct error *error)
{
    struct postcode *postcode = (struct postcode *)device;
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    stream_get_bytes(stream, postcode->last, sizeof postcode->last);
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status)
        postcode_reset(device);
    return status;
}

static void postcode_destroy(struct device *device)
{
    free(device);
}

static const struct device_ops postcode_ops = {
    .name = "postcode",
    .reset = postcode_reset,
    .read = postcode_read,
    .write = postcode_write,
    .save = postcode_save,
    .load = postcode_load,
    .destroy = postcode_destroy,
};

struct device *postcode_new(void)
{
    struct postcode *postcode = calloc(1, sizeof *postcode);
    if (!postcode)
        return NULL;
    postcode->device.ops = &postcode_ops;
    return &postcode->device;
}
