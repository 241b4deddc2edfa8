/* debug_exit.c - see debug_exit.h. It has no state. */
#include "device/platform/debug_exit.h"

#include <stdlib.h>

#define SAVED_VERSION 1

struct debug_exit {
    struct device device;
    struct debug_exit_config config;
};

static uint64_t exit_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    (void)device, (void)region, (void)offset, (void)size;
    return 0;
}

static void exit_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct debug_exit *self = (struct debug_exit *)device;
    (void)region, (void)size;
    if (offset == 0)
        self->config.exit(self->config.owner, (uint32_t)value);
}

static void exit_reset(struct device *device)
{
    (void)device;
}

static void exit_save(const struct device *device, struct stream *stream)
{
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_end(stream);
}

static int exit_load(struct device *device, struct stream *stream, struct error *error)
{
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    stream_leave(stream);
    return stream_status(stream, error);
}

static void exit_destroy(struct device *device)
{
    free(device);
}

static const struct device_ops exit_ops = {
    .name = "debug-exit",
    .reset = exit_reset,
    .read = exit_read,
    .write = exit_write,
    .save = exit_save,
    .load = exit_load,
    .destroy = exit_destroy,
};

struct device *debug_exit_new(const struct debug_exit_config *config)
{
    struct debug_exit *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->device.ops = &exit_ops;
    self->config = *config;
    return &self->device;
}
