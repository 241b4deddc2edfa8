/* device.h - the seam between a board and its device models.
 *
 * A device is reset, read, written, saved and loaded; it never re-enters the bus. Its effects leave
 * through an interrupt line, an MSI, a clock's timer, or what its creator gave it. The board calls every
 * device with the board's lock held, timers included, so devices hold no locks of their own. */
#ifndef VENEER_DEVICE_DEVICE_H
#define VENEER_DEVICE_DEVICE_H

#include <stdint.h>

#include "base/error.h"
#include "base/stream.h"

struct device;

struct device_ops {
    const char *name; /* unique on the board, with `instance`: the saved section's name */
    void (*reset)(struct device *device);
    /* region: the number given to bus_map; offset within it; size 1, 2, 4 or 8 bytes, any alignment.
     * Whatever the guest asks is answered: registers that do not exist read as all ones or zero, as the
     * hardware does. */
    uint64_t (*read)(struct device *device, unsigned region, uint64_t offset, unsigned size);
    void (*write)(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value);
    /* One section of the stream. load validates; on failure the device is as after reset. */
    void (*save)(const struct device *device, struct stream *stream);
    int (*load)(struct device *device, struct stream *stream, struct error *error);
    void (*destroy)(struct device *device); /* frees it; it is off the bus already */
};

/* Embedded first in each device. */
struct device {
    const struct device_ops *ops;
};

/* One wire to an interrupt controller: level 0 or 1. */
struct irq_line {
    void (*set)(void *owner, unsigned pin, int level);
    void *owner;
    unsigned pin;
};

static inline void irq_set(const struct irq_line *line, int level)
{
    if (line->set)
        line->set(line->owner, line->pin, level);
}

/* Where message-signalled interrupts go. */
struct msi_sink {
    void (*send)(void *owner, uint64_t address, uint32_t data);
    void *owner;
};

#endif
