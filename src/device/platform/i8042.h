/* i8042.h - the keyboard controller, with nothing attached: what guests probe, A20 and reset.
 *
 * Ports 0x60 (region I8042_REGION_DATA), 0x64 (I8042_REGION_COMMAND) and 0x92 (I8042_REGION_PORT_A, the PS/2's
 * quicker way to A20 and reset), a byte each. A keyboard or mouse
 * command is answered as the controller does for an empty connector: time-out (0xFE, status bit 6). */
#ifndef VENEER_DEVICE_PLATFORM_I8042_H
#define VENEER_DEVICE_PLATFORM_I8042_H

#include "device/device.h"

enum { I8042_REGION_DATA, I8042_REGION_COMMAND, I8042_REGION_PORT_A };

struct i8042_config {
    struct irq_line irq1, irq12;
    void *owner;
    void (*reset)(void *owner); /* the guest pulsed the processor's reset line */
};

/* NULL when there is no memory. */
struct device *i8042_new(const struct i8042_config *config);

#endif
