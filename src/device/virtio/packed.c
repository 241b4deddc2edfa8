/* packed.c - the packed ring; virtio 1.2, 2.8.
 *
 * One ring of descriptors {address, length, id, flags} that both sides write. A descriptor is available when its AVAIL
 * flag equals the driver's wrap counter and its USED flag does not, and used when both equal the device's.
 * position.avail and position.used are slots below the size, each with its wrap counter, which starts as 1 and
 * flips when the slot passes the end. The driver and device areas are one event suppression structure each:
 * {slot and wrap counter, flags}. */
#include "device/virtio/virtio_private.h"

enum { FIELD_LENGTH = 8, FIELD_ID = 12, FIELD_FLAGS = 14 };
enum { EVENT_SLOT = 0, EVENT_FLAGS = 2 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_ONE = 2 };
#define EVENT_WRAP 0x8000u

static bool packed_available(struct virtqueue *queue)
{
    uint16_t flags = virtqueue_load16(queue->descriptors + queue->position.avail * VIRTQ_DESCRIPTOR + FIELD_FLAGS);
    bool wrap = queue->position.avail_wrap;
    return !!(flags & VIRTQ_AVAIL) == wrap && !!(flags & VIRTQ_USED) != wrap;
}

static void advance(uint16_t *slot, bool *wrap, unsigned by, unsigned size)
{
    unsigned at = *slot + by;
    if (at >= size) {
        at -= size;
        *wrap = !*wrap;
    }
    *slot = (uint16_t)at;
}

/* A chain is descriptors that follow each other in the ring, NEXT in all but the last, whose ID names the buffer (2.8.6). The first one's
 * flags were stored last (2.8.21.3.1), so all of them are there. */
static bool packed_take(struct virtqueue *queue, struct virtqueue_element *ret_head)
{
    if (!packed_available(queue))
        return false;
    unsigned at = queue->position.avail, count = 0;
    struct virtqueue_descriptor descriptor;
    virtqueue_chain_begin(queue);
    do {
        if (queue->slots + count >= queue->size) {
            virtqueue_break(queue, "more is available than the queue holds");
            return false;
        }
        descriptor = virtqueue_descriptor_read(queue->descriptors, at, true);
        bool indirect = descriptor.flags & VIRTQ_INDIRECT;
        if (indirect ? !virtqueue_chain_indirect(queue, &descriptor, true) : !virtqueue_chain_add(queue, &descriptor))
            return false;
        at = at + 1 == queue->size ? 0 : at + 1;
        count++;
    } while (descriptor.flags & VIRTQ_NEXT);
    ret_head->id = descriptor.other;
    ret_head->descriptors = (uint16_t)count;
    ret_head->position = queue->position.avail;
    advance(&queue->position.avail, &queue->position.avail_wrap, count, queue->size);
    return true;
}

static void packed_untake(struct virtqueue *queue, const struct virtqueue_element *element)
{
    if (element->position > queue->position.avail)
        queue->position.avail_wrap = !queue->position.avail_wrap;
    queue->position.avail = element->position;
}

/* 2.8.8.1: length and ID, then the flags. The chain's other slots are passed over. */
static void packed_put(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written)
{
    unsigned offset = queue->position.used * VIRTQ_DESCRIPTOR;
    uint8_t *slot = queue->descriptors + offset;
    unsigned flags = (queue->position.used_wrap ? VIRTQ_AVAIL | VIRTQ_USED : 0u) | (written ? VIRTQ_WRITE : 0u);
    __atomic_store_n((uint32_t *)(void *)(slot + FIELD_LENGTH), written, __ATOMIC_RELAXED);
    __atomic_store_n((uint16_t *)(void *)(slot + FIELD_ID), element->id, __ATOMIC_RELAXED);
    __atomic_store_n((uint16_t *)(void *)(slot + FIELD_FLAGS), (uint16_t)flags, __ATOMIC_RELEASE);
    ram_written(queue->device->env.ram, queue->setup.descriptors + offset + FIELD_LENGTH, VIRTQ_DESCRIPTOR - FIELD_LENGTH);
    advance(&queue->position.used, &queue->position.used_wrap, element->descriptors, queue->size);
}

/* 2.8.10. Slots are compared on a line on which this lap's are 0 to size - 1 and the last lap's before 0: an event of the next lap
 * lies so far before as to be none of the last `count`, which never exceeds the size. */
static bool packed_wants_interrupt(struct virtqueue *queue, uint16_t count)
{
    uint16_t flags = virtqueue_load16(queue->driver + EVENT_FLAGS) & 3;
    if (flags != EVENT_ONE || !queue->event_idx)
        return flags != EVENT_DISABLE;
    uint16_t event = virtqueue_load16(queue->driver + EVENT_SLOT);
    int slot = event & ~EVENT_WRAP;
    if (!!(event & EVENT_WRAP) != queue->position.used_wrap)
        slot -= (int)queue->size;
    return (uint16_t)(queue->position.used - slot - 1) < count;
}

static void packed_set_notify(struct virtqueue *queue, bool on)
{
    uint16_t flags = !on ? EVENT_DISABLE : queue->event_idx ? EVENT_ONE : EVENT_ENABLE;
    if (flags == EVENT_ONE)
        virtqueue_store16(queue, queue->device_area, queue->setup.device, EVENT_SLOT,
                          (uint16_t)(queue->position.avail | (queue->position.avail_wrap ? EVENT_WRAP : 0u)));
    virtqueue_store16(queue, queue->device_area, queue->setup.device, EVENT_FLAGS, flags);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* before the caller's look at what is available */
}

const struct virtqueue_ring virtqueue_packed = {
    .driver_bytes = 4, .driver_align = 4,
    .device_bytes = 4, .device_align = 4,
    .available = packed_available,
    .take = packed_take,
    .untake = packed_untake,
    .put = packed_put,
    .wants_interrupt = packed_wants_interrupt,
    .set_notify = packed_set_notify,
};
