/* bus.c - see bus.h.
 *
 * Ranges stand in an array sorted by base, which is searched by halves; the range of the last access is
 * tried first. A device may cause ranges to be mapped and unmapped while it is being accessed (a PCI BAR
 * moves), so nothing of a range is used after its device was called. */
#include "device/bus/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

struct range {
    uint64_t base, size;
    struct device *device;
    unsigned region;
};

struct bus {
    uint64_t limit;
    struct range *ranges; /* sorted by base, disjoint */
    size_t used, room;
    size_t last; /* index of the last range that was hit; may be stale */
};

struct bus *bus_new(uint64_t limit)
{
    struct bus *bus = calloc(1, sizeof *bus);
    if (bus)
        bus->limit = limit;
    return bus;
}

void bus_free(struct bus *bus)
{
    if (!bus)
        return;
    free(bus->ranges);
    free(bus);
}

/* Index of the first range whose base is above the address. */
static size_t upper_bound(const struct bus *bus, uint64_t address)
{
    size_t low = 0, high = bus->used;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (bus->ranges[middle].base > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int bus_map(struct bus *bus, uint64_t base, uint64_t size, struct device *device, unsigned region)
{
    if (size == 0 || !range_within(base, size, bus->limit))
        return -EINVAL;
    size_t at = upper_bound(bus, base);
    if (at > 0 && base - bus->ranges[at - 1].base < bus->ranges[at - 1].size)
        return -EEXIST;
    if (at < bus->used && bus->ranges[at].base - base < size)
        return -EEXIST;
    if (bus->used == bus->room) {
        size_t room = bus->room ? 2 * bus->room : 32;
        struct range *grown = realloc(bus->ranges, room * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        bus->ranges = grown;
        bus->room = room;
    }
    memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->used - at) * sizeof *bus->ranges);
    bus->ranges[at] = (struct range){.base = base, .size = size, .device = device, .region = region};
    bus->used++;
    return 0;
}

void bus_unmap(struct bus *bus, uint64_t base, const struct device *device)
{
    size_t at = upper_bound(bus, base);
    if (at == 0 || bus->ranges[at - 1].base != base || bus->ranges[at - 1].device != device)
        return;
    memmove(&bus->ranges[at - 1], &bus->ranges[at], (bus->used - at) * sizeof *bus->ranges);
    bus->used--;
}

static bool holds(const struct range *range, uint64_t address)
{
    return address >= range->base && address - range->base < range->size;
}

/* Guests access one device many times in a row (a string of bytes to the console, a driver's registers). */
static const struct range *find(struct bus *bus, uint64_t address)
{
    if (bus->last < bus->used && holds(&bus->ranges[bus->last], address))
        return &bus->ranges[bus->last];
    size_t at = upper_bound(bus, address);
    if (at == 0 || !holds(&bus->ranges[at - 1], address))
        return NULL;
    bus->last = at - 1;
    return &bus->ranges[at - 1];
}

/* True when [address, address + size) touches no range, given that its first byte is in none. */
static bool all_empty(const struct bus *bus, uint64_t address, unsigned size)
{
    size_t at = upper_bound(bus, address);
    return at == bus->used || bus->ranges[at].base - address >= size;
}

static uint64_t ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

/* What straddles a range's border is split, so that no device sees an offset past its end. */
uint64_t bus_read(struct bus *bus, uint64_t address, unsigned size)
{
    const struct range *range = find(bus, address);
    if (range && range_within(address - range->base, size, range->size))
        return range->device->ops->read(range->device, range->region, address - range->base, size) & ones(size);
    if (size == 1 || (!range && all_empty(bus, address, size)))
        return ones(size);
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= bus_read(bus, address + i, 1) << (8 * i);
    return value;
}

void bus_write(struct bus *bus, uint64_t address, unsigned size, uint64_t value)
{
    const struct range *range = find(bus, address);
    value &= ones(size);
    if (range && range_within(address - range->base, size, range->size)) {
        range->device->ops->write(range->device, range->region, address - range->base, size, value);
        return;
    }
    if (size == 1 || (!range && all_empty(bus, address, size)))
        return;
    for (unsigned i = 0; i < size; i++)
        bus_write(bus, address + i, 1, value >> (8 * i) & 0xFF);
}
