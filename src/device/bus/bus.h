/* bus.h - an address space of devices: ports, or memory-mapped registers.
 *
 * Ranges do not overlap. Accesses that no device answers read as all ones and drop writes. An access
 * that straddles the end of a range is split by bytes. The board's lock is held by the caller. */
#ifndef VENEER_DEVICE_BUS_BUS_H
#define VENEER_DEVICE_BUS_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"

struct bus;

/* limit: one past the last address (65536 for ports). NULL when there is no memory. */
struct bus *bus_new(uint64_t limit);
/* The devices stay. NULL is allowed. */
void bus_free(struct bus *bus);

/* Puts [base, base + size) in front of device, as its `region`. -EEXIST when it overlaps another range,
 * -EINVAL when it passes the limit, -ENOMEM. */
int bus_map(struct bus *bus, uint64_t base, uint64_t size, struct device *device, unsigned region);
/* Takes a range away that was mapped with this base and device; no effect when there is none. */
void bus_unmap(struct bus *bus, uint64_t base, const struct device *device);

/* size: 1, 2, 4 or 8 bytes. */
uint64_t bus_read(struct bus *bus, uint64_t address, unsigned size);
void bus_write(struct bus *bus, uint64_t address, unsigned size, uint64_t value);

#endif
