/* debug_exit.h - an opt-in port through which a test or teaching kernel ends the VM with a status.
 *
 * One region, 4 bytes. A write of 1, 2 or 4 bytes at its start ends the VM with that value; reads give 0. */
#ifndef VENEER_DEVICE_PLATFORM_DEBUG_EXIT_H
#define VENEER_DEVICE_PLATFORM_DEBUG_EXIT_H

#include "device/device.h"

struct debug_exit_config {
    void *owner;
    void (*exit)(void *owner, uint32_t status);
};

/* NULL when there is no memory. */
struct device *debug_exit_new(const struct debug_exit_config *config);

#endif
