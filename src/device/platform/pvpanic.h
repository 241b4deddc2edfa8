/* pvpanic.h - the port by which a guest's panic notifier tells the host: one byte, region 0.
 *
 * ACPI device QEMU0001. QEMU: docs/specs/pvpanic. */
#ifndef VENEER_DEVICE_PLATFORM_PVPANIC_H
#define VENEER_DEVICE_PLATFORM_PVPANIC_H

#include "device/device.h"

struct pvpanic_config {
    void *owner;
    void (*panicked)(void *owner); /* the guest panicked and will do nothing more */
};

/* NULL when there is no memory. */
struct device *pvpanic_new(const struct pvpanic_config *config);

#endif
