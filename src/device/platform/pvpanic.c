#include "device/platform/pvpanic.h"

#include <stdlib.h>

#define EVENT_PANICKED 0x01u /* a read gives the events that the host wants to hear of */

struct pvpanic {
    struct device device;
    struct pvpanic_config config;
};

static void pvpanic_reset(struct device *device)
{
    (void)device; /* it has no state */
}

static uint64_t pvpanic_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    (void)device, (void)region, (void)offset, (void)size;
    return EVENT_PANICKED;
}

static void pvpanic_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    const struct pvpanic *pvpanic = (const struct pvpanic *)device;
    (void)region, (void)offset, (void)size;
    if (value & EVENT_PANICKED)
        pvpanic->config.panicked(pvpanic->config.owner);
}

static void pvpanic_save(const struct device *device, struct stream *stream)
{
    stream_begin(stream, device->ops->name, 1);
    stream_end(stream);
}

static int pvpanic_load(struct device *device, struct stream *stream, struct error *error)
{
    stream_enter(stream, device->ops->name, 1);
    stream_leave(stream);
    return stream_status(stream, error);
}

static void pvpanic_destroy(struct device *device)
{
    free(device);
}

struct device *pvpanic_new(const struct pvpanic_config *config)
{
    static const struct device_ops ops = {
        .name = "pvpanic",
        .reset = pvpanic_reset,
        .read = pvpanic_read,
        .write = pvpanic_write,
        .save = pvpanic_save,
        .load = pvpanic_load,
        .destroy = pvpanic_destroy,
    };
    struct pvpanic *pvpanic = calloc(1, sizeof *pvpanic);
    if (!pvpanic)
        return NULL;
    pvpanic->device.ops = &ops;
    pvpanic->config = *config;
    return &pvpanic->device;
}
