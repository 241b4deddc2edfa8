/* queue.c - what both ring formats share: elements, cursors, and the walk's limits. See virtqueue.h.
 *
 * Memory order. The guest's processors and this thread share the ring, so the barriers that the specification asks of
 * each side pair up as between two threads of one program:
 * - reading what is available: the index or flags that announce a chain are loaded with acquire order, the chain after
 *   them (2.7.13.3, 2.8.21.3.1: the driver has stored it before);
 * - giving back: data and used entry are stored before the index or flags that announce it, which are stored with
 *   release order (2.7.8.2, 2.8.8.1);
 * - deciding to interrupt, or to sleep: one side stores what it announces and then loads what the other asked for, while the
 *   other does the opposite (2.7.10, 2.8.10). A sequentially consistent fence between the two accesses, here in
 *   virtqueue_notify and set_notify, makes sure that at least one of them sees the other.
 *
 * Invariants: `slots` never exceeds the ring's size, so that what a driver can make this side keep is bounded; a chain has at most
 * `size` pieces (2.7.5.3.1), so that a loop ends. */
#include "device/virtio/virtqueue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtio/virtio_private.h"

#define ELEMENT_BYTES_MAX (UINT64_C(1) << 32) /* of one direction of a chain; 2.7.5: lengths add up to 2^32 at most */

static const unsigned class_capacity[VIRTQUEUE_CLASSES] = {8, 136, VIRTQUEUE_SEGMENTS_MAX};

/* ---- elements ---- */

static struct virtqueue_element *element_new(struct virtqueue *queue, unsigned pieces)
{
    unsigned class = 0;
    while (class_capacity[class] < pieces)
        class++;
    struct virtqueue_element *element = queue->free[class];
    if (element) {
        queue->free[class] = element->next;
        return element;
    }
    unsigned capacity = class_capacity[class];
    element = malloc(sizeof *element + capacity * (sizeof *element->iov + sizeof *element->gpa));
    if (!element)
        return NULL;
    element->queue = queue;
    element->iov = (struct iovec *)(element + 1);
    element->gpa = (uint64_t *)(element->iov + capacity);
    element->capacity = class;
    return element;
}

static void element_free(struct virtqueue *queue, struct virtqueue_element *element)
{
    element->next = queue->free[element->capacity];
    queue->free[element->capacity] = element;
}

void virtqueue_free(struct virtqueue *queue)
{
    if (!queue)
        return;
    for (unsigned class = 0; class < VIRTQUEUE_CLASSES; class++)
        while (queue->free[class]) {
            struct virtqueue_element *element = queue->free[class];
            queue->free[class] = element->next;
            free(element);
        }
    free(queue->scratch);
    free(queue->scratch_gpa);
    free(queue);
}

/* ---- life ---- */

/* An area of the ring, or NULL when it is not all in RAM or not aligned. */
static uint8_t *area(struct virtqueue *queue, uint64_t gpa, uint64_t length, unsigned align)
{
    return gpa % align == 0 ? ram_host(queue->device->env.ram, gpa, length) : NULL;
}

void virtqueue_attach(struct virtqueue *queue, const struct virtqueue_position *from)
{
    const struct virtqueue_setup *setup = &queue->setup;
    if (!setup->enabled)
        return;
    const struct virtqueue_ring *ring = virtio_has(queue->device, VIRTIO_F_RING_PACKED) ? &virtqueue_packed : &virtqueue_split;
    queue->ring = ring;
    queue->size = setup->size;
    queue->broken = false;
    queue->event_idx = virtio_has(queue->device, VIRTIO_F_EVENT_IDX);
    queue->indirect = virtio_has(queue->device, VIRTIO_F_INDIRECT_DESC);
    queue->unsignalled = 0;
    queue->position = *from;
    queue->descriptors = area(queue, setup->descriptors, (uint64_t)setup->size * VIRTQ_DESCRIPTOR, VIRTQ_DESCRIPTOR);
    queue->driver = area(queue, setup->driver, ring->driver_bytes + (uint64_t)setup->size * ring->driver_per_entry,
                         ring->driver_align);
    queue->device_area = area(queue, setup->device, ring->device_bytes + (uint64_t)setup->size * ring->device_per_entry,
                              ring->device_align);
    if (!queue->descriptors || !queue->driver || !queue->device_area)
        virtqueue_break(queue, "the ring is not in memory, or not aligned");
    else if (ring == &virtqueue_packed && (from->avail >= queue->size || from->used >= queue->size))
        virtqueue_break(queue, "the ring's saved position is outside it");
}

void virtqueue_detach(struct virtqueue *queue)
{
    queue->ring = NULL;
    queue->size = 0;
}

void virtqueue_break(struct virtqueue *queue, const char *reason)
{
    char text[200];
    if (queue->broken)
        return;
    queue->broken = true;
    snprintf(text, sizeof text, "queue %u: %s", queue->index, reason);
    virtio_needs_reset(queue->device, text);
}

/* True while the ring may be touched on the device's behalf. */
static bool live(const struct virtqueue *queue)
{
    const struct virtio_io *io = queue->device->io;
    return queue->ring && !queue->broken && !io->stopping && atomic_load_explicit(&io->dma, memory_order_relaxed);
}

unsigned virtqueue_index(const struct virtqueue *queue) { return queue->index; }
unsigned virtqueue_size(const struct virtqueue *queue) { return queue->size; }
unsigned virtqueue_in_flight(const struct virtqueue *queue) { return queue->in_flight; }

bool virtqueue_available(struct virtqueue *queue)
{
    return live(queue) && queue->ring->available(queue);
}

/* ---- chains ---- */

/* Guest memory is read once: the asm keeps the compiler from loading the value again where it is used. */
static uint64_t load64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    __asm__ volatile("" : "+r"(value));
    return value;
}

struct virtqueue_descriptor virtqueue_descriptor_read(const uint8_t *table, unsigned n, bool packed)
{
    const uint8_t *at = table + (size_t)n * VIRTQ_DESCRIPTOR;
    uint64_t rest = load64(at + 8);
    uint16_t third = (uint16_t)(rest >> 32), fourth = (uint16_t)(rest >> 48);
    return (struct virtqueue_descriptor){.gpa = load64(at), .length = (uint32_t)rest, .flags = packed ? fourth : third,
                                         .other = packed ? third : fourth};
}

void virtqueue_chain_begin(struct virtqueue *queue)
{
    queue->pieces = queue->readable = 0;
    queue->readable_bytes = queue->writable_bytes = 0;
}

bool virtqueue_chain_add(struct virtqueue *queue, const struct virtqueue_descriptor *descriptor)
{
    bool writable = descriptor->flags & VIRTQ_WRITE;
    uint64_t *bytes = writable ? &queue->writable_bytes : &queue->readable_bytes;
    if (!writable && queue->readable != queue->pieces)
        virtqueue_break(queue, "a readable buffer comes after a writable one");
    else if (descriptor->length > ELEMENT_BYTES_MAX - *bytes)
        virtqueue_break(queue, "a chain has more than 4 GiB");
    if (queue->broken || descriptor->length == 0)
        return !queue->broken;
    uint8_t *host = ram_host(queue->device->env.ram, descriptor->gpa, descriptor->length);
    if (!host || queue->pieces == queue->size) {
        virtqueue_break(queue, host ? "a chain is longer than the queue" : "a buffer is not in memory");
        return false;
    }
    queue->scratch[queue->pieces] = (struct iovec){host, descriptor->length};
    queue->scratch_gpa[queue->pieces++] = descriptor->gpa;
    queue->readable += !writable;
    *bytes += descriptor->length;
    return true;
}

bool virtqueue_chain_indirect(struct virtqueue *queue, const struct virtqueue_descriptor *table, bool packed)
{
    const uint8_t *entries = ram_host(queue->device->env.ram, table->gpa, table->length);
    unsigned count = table->length / VIRTQ_DESCRIPTOR;
    if (!queue->indirect || (table->flags & VIRTQ_NEXT) || !entries || count == 0 || table->length % VIRTQ_DESCRIPTOR) {
        virtqueue_break(queue, "a descriptor has a bad indirect table");
        return false;
    }
    for (unsigned seen = 0, at = 0;; seen++) {
        if (seen == queue->size || at >= count) {
            virtqueue_break(queue, "an indirect table's chain leaves it, or is longer than the queue");
            return false;
        }
        struct virtqueue_descriptor entry = virtqueue_descriptor_read(entries, at, packed);
        if (entry.flags & VIRTQ_INDIRECT) {
            virtqueue_break(queue, "an indirect table names another");
            return false;
        }
        if (!virtqueue_chain_add(queue, &entry))
            return false;
        if (packed ? at + 1 == count : !(entry.flags & VIRTQ_NEXT))
            return true;
        at = packed ? at + 1 : entry.other;
    }
}

/* ---- pop and push ---- */

static void count_in(struct virtqueue *queue, const struct virtqueue_element *element)
{
    queue->in_flight++;
    queue->slots += element->descriptors;
    queue->device->io->in_flight++;
}

static void count_out(struct virtqueue *queue, struct virtqueue_element *element)
{
    queue->in_flight--;
    queue->slots -= element->descriptors;
    element_free(queue, element);
    virtio_io_returned(queue->device);
}

struct virtqueue_element *virtqueue_pop(struct virtqueue *queue)
{
    struct virtqueue_element head;
    struct virtio_io *io = queue->device->io;
    if (io->paused)
        return NULL;
    if (!live(queue) || !queue->ring->take(queue, &head)) {
        io->waiting |= UINT64_C(1) << queue->index;
        return NULL;
    }
    struct virtqueue_element *element = element_new(queue, queue->pieces);
    if (!element) {
        virtqueue_break(queue, "there is no memory for a request");
        return NULL;
    }
    element->readable = queue->readable;
    element->writable = queue->pieces - queue->readable;
    element->readable_bytes = queue->readable_bytes;
    element->writable_bytes = queue->writable_bytes;
    element->touched = 0;
    element->owner = NULL;
    element->next = NULL;
    element->id = head.id;
    element->descriptors = head.descriptors;
    element->position = head.position;
    memcpy(element->iov, queue->scratch, queue->pieces * sizeof *element->iov);
    memcpy(element->gpa, queue->scratch_gpa, queue->pieces * sizeof *element->gpa);
    count_in(queue, element);
    return element;
}

/* Dirty marks and the code hook for the first `bytes` writable ones. */
static void mark(struct virtqueue *queue, const struct virtqueue_element *element, uint64_t bytes)
{
    for (unsigned i = element->readable; i < element->readable + element->writable && bytes; i++) {
        uint64_t piece = element->iov[i].iov_len < bytes ? element->iov[i].iov_len : bytes;
        ram_written(queue->device->env.ram, element->gpa[i], piece);
        bytes -= piece;
    }
}

void virtqueue_push(struct virtqueue *queue, struct virtqueue_element *element, uint64_t written)
{
    if (written > element->writable_bytes)
        written = element->writable_bytes;
    mark(queue, element, written > element->touched ? written : element->touched);
    if (live(queue)) {
        queue->ring->put(queue, element, (uint32_t)written);
        queue->unsignalled = (uint16_t)(queue->unsignalled + element->descriptors);
    }
    count_out(queue, element);
}

void virtqueue_drop(struct virtqueue *queue, struct virtqueue_element *element)
{
    mark(queue, element, element->touched);
    count_out(queue, element);
}

void virtqueue_unpop(struct virtqueue *queue, struct virtqueue_element *element)
{
    queue->ring->untake(queue, element);
    count_out(queue, element);
}

void virtqueue_notify(struct virtqueue *queue)
{
    if (queue->unsignalled == 0 || !live(queue))
        return;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* what was put, before what the driver asked for; see the top */
    bool wanted = queue->ring->wants_interrupt(queue, queue->unsignalled);
    queue->unsignalled = 0;
    struct virtio_transport *transport = queue->device->transport;
    if (wanted && transport)
        transport->ops->interrupt(transport, queue->index);
}

void virtqueue_notify_later(struct virtqueue *queue)
{
    struct virtio_io *io = queue->device->io;
    if (!io->notify)
        loop_signal_raise(io->signal);
    io->notify |= UINT64_C(1) << queue->index;
}

void virtqueue_store16(struct virtqueue *queue, uint8_t *area_host, uint64_t gpa, unsigned offset, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)(area_host + offset), value, __ATOMIC_RELEASE);
    ram_written(queue->device->env.ram, gpa + offset, sizeof value);
}
