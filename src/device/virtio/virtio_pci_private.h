/* virtio_pci_private.h - what virtio_pci.c and virtio_pci_save.c share. */
#ifndef VENEER_DEVICE_VIRTIO_VIRTIO_PCI_PRIVATE_H
#define VENEER_DEVICE_VIRTIO_VIRTIO_PCI_PRIVATE_H

#include <stddef.h>

#include "device/virtio/virtio_pci.h"
#include "device/virtio/virtio_private.h"

#define VIRTIO_PCI_NO_VECTOR 0xffffu

struct virtio_pci {
    struct device device;
    struct virtio_transport transport;
    struct pci_function function;
    struct virtio_device *virtio;
    unsigned instance, window; /* the PCI configuration access capability's offset */

    uint8_t status, isr, generation;
    uint32_t device_select, driver_select;
    uint64_t driver_features;
    uint16_t queue_select, config_vector, queue_vector[VIRTIO_QUEUES_MAX];
    bool running, resetting;
    void (*gone)(void *context);
    void *gone_context;
};

static inline struct virtio_pci *virtio_pci_of(const struct device *device)
{
    return (struct virtio_pci *)((uintptr_t)device - offsetof(struct virtio_pci, device));
}

/* The board's lock is held in all of them. */
void virtio_pci_begin_reset(struct virtio_pci *pci);
bool virtio_pci_features_fit(const struct virtio_pci *pci);
/* device_ops; see virtio_pci.c's table. */
void virtio_pci_reset(struct device *device);
void virtio_pci_save(const struct device *device, struct stream *stream);
int virtio_pci_load(struct device *device, struct stream *stream, struct error *error);

#endif
