/* hotplug.c - fuzzes the registers of ACPI hot-plug. */
#include "device/platform/hotplug.h"

#include "device_fuzz.h"

/* What the board believes: an eject must be of a slot that has a device and was asked for. */
struct slots {
    struct device *hotplug;
    uint32_t present, asked;
};

static void changed(void *owner)
{
    (void)owner;
}

static void ejected(void *owner, unsigned slot)
{
    struct slots *slots = owner;
    FUZZ_ASSERT(slots->present >> slot & 1);
    slots->present &= ~(1u << slot);
}

static void refused(void *owner, unsigned slot, unsigned status)
{
    const struct slots *slots = owner;
    FUZZ_ASSERT(status != 0 && (slots->present >> slot & 1));
}

static void plug(struct fuzz_input *input, void *context)
{
    struct slots *slots = context;
    unsigned what = (unsigned)fuzz_take(input, 1), slot = what & 31;
    if (what & 0x80) {
        slots->present |= 1u << slot;
        hotplug_arrived(slots->hotplug, slot, what & 0x40);
    } else if (slots->present >> slot & 1) {
        hotplug_want(slots->hotplug, slot);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_region regions[] = {{0, HOTPLUG_SIZE}};
    struct slots slots = {0};
    struct hotplug_config config = {.owner = &slots, .changed = changed, .ejected = ejected, .refused = refused};
    slots.hotplug = hotplug_new(&config);
    struct fuzz_target target = {.device = slots.hotplug, .regions = regions, .count = 1, .other = plug, .context = &slots};
    fuzz_device(&target, data, size);
    FUZZ_ASSERT(slots.hotplug->ops->read(slots.hotplug, 0, HOTPLUG_PRESENT, 4) == slots.present);
    slots.hotplug->ops->destroy(slots.hotplug);
    return 0;
}
