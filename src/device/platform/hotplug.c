/* hotplug.c - see hotplug.h.
 *
 * `asked` outlives WANTED, which the guest clears when it has seen the request: it is what makes an eject count. A
 * request stays asked until the guest ejects, however late. */
#include "device/platform/hotplug.h"

#include <stdlib.h>

#define SAVED_VERSION 1
#define SLOTS 32u
#define NOTIFY_EJECT 3u      /* the low byte of both ways to say it, 0x003 and 0x103 */
#define STATUS_SUCCESS 0u
#define STATUS_IN_PROGRESS 0x84u

struct hotplug {
    struct device device;
    struct hotplug_config config;
    uint32_t arrived, wanted, asked, present;
};

static struct hotplug *of(struct device *device)
{
    return (struct hotplug *)device; /* embedded first */
}

void hotplug_arrived(struct device *device, unsigned slot, bool told)
{
    struct hotplug *hotplug = of(device);
    hotplug->present |= 1u << slot;
    if (!told)
        return;
    hotplug->arrived |= 1u << slot;
    hotplug->config.changed(hotplug->config.owner);
}

void hotplug_want(struct device *device, unsigned slot)
{
    struct hotplug *hotplug = of(device);
    hotplug->wanted |= 1u << slot;
    hotplug->asked |= 1u << slot;
    hotplug->config.changed(hotplug->config.owner);
}

static void empty(struct hotplug *hotplug, uint32_t slots)
{
    hotplug->present &= ~slots;
    hotplug->asked &= ~slots;
    hotplug->wanted &= ~slots;
    hotplug->arrived &= ~slots;
}

static uint32_t read_register(const struct hotplug *hotplug, unsigned offset)
{
    switch (offset) {
    case HOTPLUG_ARRIVED: return hotplug->arrived;
    case HOTPLUG_WANTED: return hotplug->wanted;
    case HOTPLUG_PRESENT: return hotplug->present;
    default: return 0;
    }
}

static uint64_t hotplug_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    (void)region;
    for (unsigned i = 0; i < size; i++) {
        unsigned at = (unsigned)(offset + i) & (HOTPLUG_SIZE - 1);
        value |= (uint64_t)(read_register(of(device), at & ~3u) >> 8 * (at & 3) & 0xFF) << (8 * i);
    }
    return value;
}

static void eject(struct hotplug *hotplug, uint32_t slots)
{
    slots &= hotplug->asked & hotplug->present;
    empty(hotplug, slots);
    for (unsigned slot = 0; slot < SLOTS; slot++)
        if (slots >> slot & 1)
            hotplug->config.ejected(hotplug->config.owner, slot);
}

static void outcome(struct hotplug *hotplug, uint32_t value)
{
    unsigned slot = value % SLOTS, event = value >> 8 & 0xFF, status = value >> 16;
    if (event == NOTIFY_EJECT && status != STATUS_SUCCESS && status != STATUS_IN_PROGRESS && (hotplug->asked >> slot & 1))
        hotplug->config.refused(hotplug->config.owner, slot, status);
}

/* Only whole registers are written, as the DSDT's fields are: a mask's half would mean something else. */
static void hotplug_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct hotplug *hotplug = of(device);
    (void)region;
    if (size != 4)
        return;
    switch (offset) {
    case HOTPLUG_ARRIVED: hotplug->arrived &= ~(uint32_t)value; break;
    case HOTPLUG_WANTED: hotplug->wanted &= ~(uint32_t)value; break;
    case HOTPLUG_PRESENT: eject(hotplug, (uint32_t)value); break;
    case HOTPLUG_OUTCOME: outcome(hotplug, (uint32_t)value); break;
    default: break;
    }
}

/* What is in the slots is the board's affair and stays. */
static void hotplug_reset(struct device *device)
{
    struct hotplug *hotplug = of(device);
    hotplug->arrived = hotplug->wanted = hotplug->asked = 0;
}

static void hotplug_save(const struct device *device, struct stream *stream)
{
    const struct hotplug *hotplug = (const struct hotplug *)device;
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_put_u32(stream, hotplug->arrived);
    stream_put_u32(stream, hotplug->wanted);
    stream_put_u32(stream, hotplug->asked);
    stream_end(stream);
}

/* Bits of slots that are empty here are dropped. */
static int hotplug_load(struct device *device, struct stream *stream, struct error *error)
{
    struct hotplug *hotplug = of(device);
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    hotplug->arrived = stream_get_u32(stream) & hotplug->present;
    hotplug->wanted = stream_get_u32(stream) & hotplug->present;
    hotplug->asked = (stream_get_u32(stream) & hotplug->present) | hotplug->wanted;
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status)
        hotplug_reset(device);
    return status;
}

static void hotplug_destroy(struct device *device)
{
    free(device);
}

struct device *hotplug_new(const struct hotplug_config *config)
{
    static const struct device_ops ops = {
        .name = "hotplug",
        .reset = hotplug_reset,
        .read = hotplug_read,
        .write = hotplug_write,
        .save = hotplug_save,
        .load = hotplug_load,
        .destroy = hotplug_destroy,
    };
    struct hotplug *hotplug = calloc(1, sizeof *hotplug);
    if (!hotplug)
        return NULL;
    hotplug->device.ops = &ops;
    hotplug->config = *config;
    return &hotplug->device;
}
