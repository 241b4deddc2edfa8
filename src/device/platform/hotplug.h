/* hotplug.h - the registers by which the DSDT and the board agree on which PCI slots changed.
 *
 * ACPI has no hardware of its own for this (ACPI 6.5, 5.6.6 and 6.3 leave it to the platform's methods), so the block
 * is the board's design. Each register is 32 bits wide, one bit a slot of bus 0:
 *   ARRIVED  slots that got a device which the guest has not been told of; bits are cleared by writing ones
 *   WANTED   slots whose device the host wants back; bits are cleared by writing ones, which means "seen"
 *   PRESENT  read: slots that have a device; written: slots that the guest has let go of
 *   OUTCOME  written by _OST: slot in bits 4:0, the notification in 15:8, the guest's status in 31:16; reads 0
 * When a bit comes up in ARRIVED or WANTED the board raises POWER_EVENT_HOTPLUG, whose method reads both. A slot
 * that was not asked for stays powered when the guest lets go of it: a later look at the bus finds the device
 * again. The board's lock is held in every call. */
#ifndef VENEER_DEVICE_PLATFORM_HOTPLUG_H
#define VENEER_DEVICE_PLATFORM_HOTPLUG_H

#include <stdbool.h>

#include "device/device.h"

/* Offsets, 4 bytes each. */
#define HOTPLUG_ARRIVED 0x00u
#define HOTPLUG_WANTED 0x04u
#define HOTPLUG_PRESENT 0x08u
#define HOTPLUG_OUTCOME 0x0Cu
#define HOTPLUG_SIZE 0x10u

struct hotplug_config {
    void *owner;
    void (*changed)(void *owner); /* a bit came up: raise the event */
    /* The guest let go of a slot that it was asked for. The slot counts as empty already. */
    void (*ejected)(void *owner, unsigned slot);
    /* The guest says what became of a request for this slot: it will not let go of it. status: ACPI 6.5, table
     * "OST Status Codes". */
    void (*refused)(void *owner, unsigned slot, unsigned status);
};

/* NULL when there is no memory. */
struct device *hotplug_new(const struct hotplug_config *config);
/* Slot 0-31 has a device now. told: the guest must hear of it; false for what is there when it starts. */
void hotplug_arrived(struct device *hotplug, unsigned slot, bool told);
/* Asks the guest for the slot's device; again when it was asked already. */
void hotplug_want(struct device *hotplug, unsigned slot);

#endif
