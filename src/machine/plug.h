/* plug.h - PCI functions that come and go while the guest runs.
 *
 * A device with a name on the board: what machine_unplug finds. Removal is a request to the guest (an ACPI eject
 * request); the function leaves the bus in the moment that the guest lets go of it, and its device is destroyed soon
 * after on the thread that serves the machine's loop. */
#ifndef VENEER_MACHINE_PLUG_H
#define VENEER_MACHINE_PLUG_H

#include "device/bus/pci.h"
#include "machine/machine.h"

#define PLUG_ID 64u /* bytes of a name, with its end */

struct plug_config {
    const char *id; /* not empty; copied */
    enum machine_kind kind;
    struct device *device;
    struct pci_function *function; /* part of `device`; described, on no host */
    unsigned slot;                 /* 1-31, or 0 for the first free one */
    /* Takes the function off its host, and calls gone(context) on some thread, without the board's lock, as soon as the
     * device may be destroyed; the board's lock is held. NULL: pci_remove is all there is to do. */
    void (*detach)(struct device *device, void (*gone)(void *context), void *context);
    /* The device is destroyed: what it was made of can go. On the loop's thread, or machine_destroy's. May be NULL. */
    void (*released)(void *owner);
    void *owner;
};

/* Takes the device, puts its function on the bus and, once the machine has started, tells the guest. Any thread, without
 * the board's lock. On failure the device is still the caller's, and `released` is not called: -EEXIST (the name is
 * taken), -ENOSPC (no slot, no addresses), -ENOMEM. */
int plug_add(struct machine *machine, const struct plug_config *config, struct error *error);

/* For the board. The guest is done with a slot, or refuses; the board's lock is held. owner: the machine. */
void plug_ejected(void *owner, unsigned slot);
void plug_refused(void *owner, unsigned slot, unsigned status);
/* From now on the guest is told what arrives. */
void plug_started(struct machine *machine);
/* Takes everything off and destroys it, when no vCPU runs any more but I/O threads still do. Unplugs that were under way
 * end with -ECANCELED. */
void plug_destroy_all(struct machine *machine);

#endif
