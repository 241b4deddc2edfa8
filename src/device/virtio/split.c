/* split.c - the split ring; virtio 1.2, 2.7.
 *
 *   driver area:  flags, idx, ring[size], used_event        (2 bytes each)
 *   device area:  flags, idx, ring[size] of {id, length}, avail_event
 *
 * position.avail and position.used run freely through 16 bits; the driver's index may be ahead of ours by at most the size. */
#include "device/virtio/virtio_private.h"

enum { FLAGS = 0, INDEX = 2, RING = 4, AVAIL_ENTRY = 2, USED_ENTRY = 8 };
enum { NO_INTERRUPT = 1, NO_NOTIFY = 1 };

static uint16_t driver_index(const struct virtqueue *queue)
{
    return virtqueue_load16(queue->driver + INDEX);
}

static bool split_available(struct virtqueue *queue)
{
    return driver_index(queue) != queue->position.avail;
}

/* Follows `next` from the head; an indirect table ends the chain (2.7.5.3.2: after zero or more others). */
static bool walk(struct virtqueue *queue, unsigned at)
{
    virtqueue_chain_begin(queue);
    for (unsigned seen = 0; seen < queue->size; seen++) {
        if (at >= queue->size)
            break;
        struct virtqueue_descriptor descriptor = virtqueue_descriptor_read(queue->descriptors, at, false);
        if (descriptor.flags & VIRTQ_INDIRECT)
            return virtqueue_chain_indirect(queue, &descriptor, false);
        if (!virtqueue_chain_add(queue, &descriptor))
            return false;
        if (!(descriptor.flags & VIRTQ_NEXT))
            return true;
        at = descriptor.other;
    }
    virtqueue_break(queue, "a chain leaves the queue or loops");
    return false;
}

static bool split_take(struct virtqueue *queue, struct virtqueue_element *ret_head)
{
    uint16_t ahead = (uint16_t)(driver_index(queue) - queue->position.avail);
    if (ahead == 0)
        return false;
    if (ahead > queue->size || queue->slots >= queue->size) {
        virtqueue_break(queue, "more is available than the queue holds");
        return false;
    }
    unsigned slot = queue->position.avail & (queue->size - 1);
    ret_head->id = virtqueue_load16(queue->driver + RING + slot * AVAIL_ENTRY);
    ret_head->descriptors = 1; /* as counted in slots: one used entry */
    ret_head->position = queue->position.avail;
    if (!walk(queue, ret_head->id))
        return false;
    queue->position.avail++;
    return true;
}

static void split_untake(struct virtqueue *queue, const struct virtqueue_element *element)
{
    queue->position.avail = element->position;
}

static void split_put(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written)
{
    unsigned offset = RING + (queue->position.used & (queue->size - 1)) * USED_ENTRY;
    uint32_t *entry = (uint32_t *)(void *)(queue->device_area + offset);
    __atomic_store_n(&entry[0], (uint32_t)element->id, __ATOMIC_RELAXED);
    __atomic_store_n(&entry[1], written, __ATOMIC_RELAXED);
    ram_written(queue->device->env.ram, queue->setup.device + offset, USED_ENTRY);
    virtqueue_store16(queue, queue->device_area, queue->setup.device, INDEX, ++queue->position.used);
}

/* 2.7.7: with event index, interrupt when the put entries include the one that the driver named. */
static bool split_wants_interrupt(struct virtqueue *queue, uint16_t count)
{
    if (!queue->event_idx)
        return !(virtqueue_load16(queue->driver + FLAGS) & NO_INTERRUPT);
    uint16_t event = virtqueue_load16(queue->driver + RING + queue->size * AVAIL_ENTRY);
    return (uint16_t)(queue->position.used - event - 1) < count;
}

/* 2.7.10. With event index there is nothing to switch off: an old event is passed only when the index wraps around. */
static void split_set_notify(struct virtqueue *queue, bool on)
{
    if (!queue->event_idx)
        virtqueue_store16(queue, queue->device_area, queue->setup.device, FLAGS, on ? 0 : NO_NOTIFY);
    else if (on)
        virtqueue_store16(queue, queue->device_area, queue->setup.device, RING + queue->size * USED_ENTRY,
                          queue->position.avail);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* before the caller's look at what is available */
}

const struct virtqueue_ring virtqueue_split = {
    .driver_bytes = 6, .driver_per_entry = AVAIL_ENTRY, .driver_align = 2,
    .device_bytes = 6, .device_per_entry = USED_ENTRY, .device_align = 4,
    .available = split_available,
    .take = split_take,
    .untake = split_untake,
    .put = split_put,
    .wants_interrupt = split_wants_interrupt,
    .set_notify = split_set_notify,
};
