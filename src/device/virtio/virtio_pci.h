/* virtio_pci.h - virtio over PCI, modern (virtio 1.2, 4.1), as a device on the board.
 *
 * One 64-bit BAR holds the four register structures, one the MSI-X table; each queue may have a vector of its own. Without
 * MSI-X interrupts go by INTA and the ISR register. */
#ifndef VENEER_DEVICE_VIRTIO_VIRTIO_PCI_H
#define VENEER_DEVICE_VIRTIO_VIRTIO_PCI_H

#include "device/bus/pci.h"
#include "device/device.h"
#include "device/virtio/virtio.h"

/* Makes the PCI function of a device, not on a host yet. Takes the virtio device over, also on failure (it is
 * destroyed then). instance: tells several devices of one kind apart in the saved state. */
int virtio_pci_new(struct virtio_device *virtio, unsigned instance, struct device **ret_device, struct error *error);
/* For pci_add: the board's lock is held or the machine does not run. */
struct pci_function *virtio_pci_function(struct device *device);
struct virtio_device *virtio_pci_virtio(struct device *device);

/* Hot-unplug: takes the function off its host at once and starts a reset. gone(context) is called on the I/O thread
 * when nothing is in flight any more; the board may then destroy the device, from another thread. The board's lock is held. */
void virtio_pci_unplug(struct device *device, void (*gone)(void *context), void *context);

#endif
