/* virtio_pci_save.c - a virtio device's saved form: PCI function, registers, where each queue stands, the device's own.
 *
 * The device is paused: nothing is in flight, so that a queue is its registers and its position (struct virtqueue_position). */
#include <errno.h>
#include <string.h>

#include "device/virtio/virtio_pci_private.h"

#define SAVED_VERSION 1

static void save_queue(const struct virtio_pci *pci, unsigned index, struct stream *stream)
{
    const struct virtqueue *queue = pci->virtio->queue[index];
    /* One that the I/O thread has not begun with yet stands where it will start. */
    const struct virtqueue_position *at = queue->ring ? &queue->position : &pci->virtio->io->from[index];
    stream_put_u16(stream, queue->setup.size);
    stream_put_u8(stream, queue->setup.enabled);
    stream_put_u64(stream, queue->setup.descriptors);
    stream_put_u64(stream, queue->setup.driver);
    stream_put_u64(stream, queue->setup.device);
    stream_put_u16(stream, pci->queue_vector[index]);
    stream_put_u16(stream, at->avail);
    stream_put_u16(stream, at->used);
    stream_put_u8(stream, at->avail_wrap);
    stream_put_u8(stream, at->used_wrap);
}

void virtio_pci_save(const struct device *device, struct stream *stream)
{
    const struct virtio_pci *pci = virtio_pci_of(device);
    const struct virtio_device *virtio = pci->virtio;
    stream_begin(stream, virtio->ops->name, SAVED_VERSION);
    stream_put_u32(stream, pci->instance);
    pci_function_save(&pci->function, stream);
    stream_put_u8(stream, pci->status);
    stream_put_u8(stream, pci->isr);
    stream_put_u8(stream, pci->generation);
    stream_put_u8(stream, pci->resetting);
    stream_put_u32(stream, pci->device_select);
    stream_put_u32(stream, pci->driver_select);
    stream_put_u64(stream, pci->driver_features);
    stream_put_u16(stream, pci->queue_select);
    stream_put_u16(stream, pci->config_vector);
    stream_put_u32(stream, virtio->config_size);
    stream_put_bytes(stream, virtio->config, virtio->config_size);
    stream_put_u32(stream, virtio->queues);
    for (unsigned i = 0; i < virtio->queues; i++)
        save_queue(pci, i, stream);
    if (virtio->ops->save)
        virtio->ops->save(virtio, stream);
    stream_end(stream);
}

static uint16_t load_vector(const struct virtio_pci *pci, struct stream *stream)
{
    uint16_t value = stream_get_u16(stream);
    if (value != VIRTIO_PCI_NO_VECTOR && value >= pci->function.msix.vectors)
        stream_fail(stream, "%s: interrupt vector %u does not exist", pci->virtio->ops->name, value);
    return value;
}

static void load_queue(struct virtio_pci *pci, unsigned index, struct stream *stream)
{
    struct virtqueue *queue = pci->virtio->queue[index];
    struct virtqueue_setup *setup = &queue->setup;
    struct virtqueue_position *at = &pci->virtio->io->from[index];
    setup->size = stream_get_u16(stream);
    setup->enabled = stream_get_u8(stream) != 0;
    setup->descriptors = stream_get_u64(stream);
    setup->driver = stream_get_u64(stream);
    setup->device = stream_get_u64(stream);
    pci->queue_vector[index] = load_vector(pci, stream);
    at->avail = stream_get_u16(stream);
    at->used = stream_get_u16(stream);
    at->avail_wrap = stream_get_u8(stream) != 0;
    at->used_wrap = stream_get_u8(stream) != 0;
    bool packed = pci->driver_features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    if (setup->size == 0 || setup->size > queue->size_max || (!packed && (setup->size & (setup->size - 1))))
        stream_fail(stream, "%s: queue %u has %u entries", pci->virtio->ops->name, index, setup->size);
}

/* What can be checked without the guest's memory, which is loaded later; the rings are checked when they are attached. */
static void load_registers(struct virtio_pci *pci, struct stream *stream, bool *ret_resetting)
{
    struct virtio_device *virtio = pci->virtio;
    pci->status = stream_get_u8(stream);
    pci->isr = stream_get_u8(stream);
    pci->generation = stream_get_u8(stream);
    *ret_resetting = stream_get_u8(stream) != 0;
    pci->device_select = stream_get_u32(stream);
    pci->driver_select = stream_get_u32(stream);
    pci->driver_features = stream_get_u64(stream);
    pci->queue_select = stream_get_u16(stream);
    pci->config_vector = load_vector(pci, stream);
    if ((pci->status & VIRTIO_FEATURES_OK) ? !virtio_pci_features_fit(pci) : (pci->status & VIRTIO_DRIVER_OK) != 0)
        stream_fail(stream, "%s: features 0x%llx are not what this device has", virtio->ops->name,
                    (unsigned long long)pci->driver_features);
    if (stream_get_u32(stream) != virtio->config_size)
        stream_fail(stream, "%s: the saved configuration has another size", virtio->ops->name);
    stream_get_bytes(stream, virtio->config, virtio->config_size);
    if (stream_get_u32(stream) != virtio->queues)
        stream_fail(stream, "%s: the saved device has another number of queues", virtio->ops->name);
    for (unsigned i = 0; i < virtio->queues; i++)
        load_queue(pci, i, stream);
}

int virtio_pci_load(struct device *device, struct stream *stream, struct error *error)
{
    struct virtio_pci *pci = virtio_pci_of(device);
    struct virtio_device *virtio = pci->virtio;
    uint8_t config[VIRTIO_CONFIG_MAX];
    bool resetting = false;
    if (pci->running)
        return error_set(error, EBUSY, "%s: a saved state is loaded before the machine runs", virtio->ops->name);
    memcpy(config, virtio->config, sizeof config);
    stream_enter(stream, virtio->ops->name, SAVED_VERSION);
    uint32_t instance = stream_get_u32(stream);
    if (instance != pci->instance)
        stream_fail(stream, "%s %u was saved where this machine has %u", virtio->ops->name, instance, pci->instance);
    pci_function_load(&pci->function, stream, NULL);
    load_registers(pci, stream, &resetting);
    if (virtio->ops->load)
        virtio->ops->load(virtio, stream);
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status < 0) {
        memcpy(virtio->config, config, sizeof config);
        for (unsigned i = 0; i < virtio->queues; i++)
            virtio->io->from[i] = VIRTQUEUE_BEGIN;
        pci->generation = 0;
        virtio_pci_reset(device);
        return status;
    }
    virtio_io_allow(virtio, pci_bus_master(&pci->function));
    atomic_store(&virtio->driver_features, (pci->status & VIRTIO_FEATURES_OK) ? pci->driver_features : 0);
    if (pci->status & VIRTIO_DRIVER_OK) {
        pci->running = true;
        virtio_io_control(virtio, VIRTIO_IO_START);
        if (resetting)
            virtio_pci_begin_reset(pci);
    }
    return 0;
}
