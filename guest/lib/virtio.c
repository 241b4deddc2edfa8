/* virtio.c - see virtio.h. */
#include "virtio.h"

#define VENDOR 0x1af4u
#define CAPABILITY_VENDOR 9u
#define CAPABILITY_MSIX 0x11u
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE };
#define VECTOR 0x60
#define PATIENCE 20000000000ull /* cycles */
#define INDIRECT_MAX 16u
#define EVENT_ENABLE 0u
#define EVENT_DISABLE 1u
#define EVENT_DESC 2u

volatile u32 virtio_interrupt_count;

static void barrier(void)
{
    __asm__ volatile("mfence" : : : "memory");
}

/* ---- registers ---- */

u32 reg_read(volatile u8 *at, unsigned size)
{
    return size == 1 ? *at : size == 2 ? *(volatile u16 *)at : *(volatile u32 *)at;
}

void reg_write(volatile u8 *at, unsigned size, u32 value)
{
    if (size == 1)
        *at = (u8)value;
    else if (size == 2)
        *(volatile u16 *)at = (u16)value;
    else
        *(volatile u32 *)at = value;
}

u32 common_read(const struct virtio *virtio, unsigned offset, unsigned size)
{
    return reg_read(virtio->common + offset, size);
}

void common_write(const struct virtio *virtio, unsigned offset, unsigned size, u32 value)
{
    reg_write(virtio->common + offset, size, value);
}

void common_write64(const struct virtio *virtio, unsigned offset, u64 value)
{
    common_write(virtio, offset, 4, (u32)value);
    common_write(virtio, offset + 4, 4, (u32)(value >> 32));
}

u32 virtio_status(const struct virtio *virtio)
{
    return common_read(virtio, COMMON_STATUS, 1);
}

/* ---- finding and setting up ---- */

static void map_structures(struct virtio *virtio)
{
    unsigned slot = virtio->slot;
    for (unsigned at = pci_capability(slot, CAPABILITY_VENDOR, 0); at; at = pci_capability(slot, CAPABILITY_VENDOR, at)) {
        unsigned type = pci_read(slot, at + 3, 1), bar = pci_read(slot, at + 4, 1);
        u32 offset = pci_read(slot, at + 8, 4), length = pci_read(slot, at + 12, 4);
        if (type < CAP_COMMON || type > CAP_DEVICE)
            continue;
        volatile u8 *registers = pci_map(slot, bar, offset, length);
        if (type == CAP_COMMON) {
            virtio->common = registers;
            virtio->common_length = length;
            virtio->common_bar = bar;
        } else if (type == CAP_NOTIFY) {
            virtio->notify = registers;
            virtio->notify_length = length;
            virtio->notify_multiplier = pci_read(slot, at + 16, 4);
        } else if (type == CAP_ISR) {
            virtio->isr = registers;
        } else {
            virtio->config = registers;
            virtio->config_length = length;
        }
    }
}

static void count_interrupt(struct frame *frame)
{
    (void)frame;
    virtio_interrupt_count++;
    apic_eoi();
}

static void map_msix(struct virtio *virtio)
{
    virtio->msix = pci_capability(virtio->slot, CAPABILITY_MSIX, 0);
    if (!virtio->msix)
        return;
    u32 table = pci_read(virtio->slot, virtio->msix + 4, 4);
    virtio->msix_table = (volatile u32 *)pci_map(virtio->slot, table & 7, table & ~7u, 4096);
}

/* The type of the virtio device in a slot, or 0. */
static u16 type_at(unsigned slot)
{
    u32 id = pci_read(slot, 0, 4);
    return (id & 0xffff) == VENDOR && id >> 16 > 0x1040 && id >> 16 <= 0x107f ? (u16)((id >> 16) - 0x1040) : 0;
}

bool virtio_at(struct virtio *virtio, unsigned slot)
{
    memset(virtio, 0, sizeof *virtio);
    virtio->slot = slot;
    virtio->type = type_at(slot);
    if (!virtio->type)
        return false;
    pci_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    map_structures(virtio);
    map_msix(virtio);
    return virtio->common && virtio->notify && virtio->isr;
}

bool virtio_find(struct virtio *virtio, unsigned type, unsigned n)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        u16 found = type_at(slot);
        if (found && (!type || found == type) && n-- == 0)
            return virtio_at(virtio, slot);
    }
    return false;
}

bool virtio_reset(struct virtio *virtio)
{
    common_write(virtio, COMMON_STATUS, 1, 0);
    u64 start = rdtsc();
    while (virtio_status(virtio) != 0) {
        if (rdtsc() - start > PATIENCE)
            return false;
        pause();
    }
    for (unsigned i = 0; i < QUEUES_MAX; i++)
        virtio->queue[i].on = false;
    return true;
}

static u64 offered(struct virtio *virtio)
{
    u64 features = 0;
    for (unsigned i = 0; i < 2; i++) {
        common_write(virtio, COMMON_DEVICE_FEATURE_SELECT, 4, i);
        features |= (u64)common_read(virtio, COMMON_DEVICE_FEATURE, 4) << (32 * i);
    }
    return features;
}

bool virtio_negotiate(struct virtio *virtio, u64 wanted)
{
    if (!virtio_reset(virtio))
        return false;
    common_write(virtio, COMMON_STATUS, 1, STATUS_ACKNOWLEDGE);
    common_write(virtio, COMMON_STATUS, 1, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    virtio->queues = common_read(virtio, COMMON_NUM_QUEUES, 2);
    virtio->offered = offered(virtio);
    virtio->features = virtio->offered & (wanted | F_VERSION_1);
    for (unsigned i = 0; i < 2; i++) {
        common_write(virtio, COMMON_DRIVER_FEATURE_SELECT, 4, i);
        common_write(virtio, COMMON_DRIVER_FEATURE, 4, (u32)(virtio->features >> (32 * i)));
    }
    common_write(virtio, COMMON_STATUS, 1, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    return virtio_status(virtio) & STATUS_FEATURES_OK;
}

/* Memory for rings and indirect tables is taken once for each queue's number, at its largest. */
static u8 *ring_memory(const struct virtio *virtio, unsigned index)
{
    static u8 *memories[MEMORIES][QUEUES_MAX];
    u8 **memory = &memories[virtio->memory][index];
    if (!*memory)
        *memory = pages_new(RING_BYTES / 4096);
    return *memory;
}

static volatile struct desc *indirect_memory(const struct virtio *virtio, unsigned index)
{
    static volatile struct desc *memories[MEMORIES][QUEUES_MAX];
    volatile struct desc **memory = &memories[virtio->memory][index];
    if (!*memory)
        *memory = pages_new(QUEUE_SIZE_MAX * INDIRECT_MAX * sizeof(struct desc) / 4096);
    return *memory;
}

static void place_rings(struct queue *queue, u8 *at)
{
    memset(at + RING_DESCRIPTORS, 0, queue->size * sizeof(struct desc));
    memset(at + RING_DRIVER, 0, 6 + 2 * queue->size);
    memset(at + RING_DEVICE, 0, 6 + 8 * queue->size);
    queue->desc = (volatile struct desc *)(at + RING_DESCRIPTORS);
    queue->ring = (volatile struct packed_desc *)(at + RING_DESCRIPTORS);
    queue->avail = (volatile struct avail *)(at + RING_DRIVER);
    queue->driver_event = (volatile struct event *)(at + RING_DRIVER);
    queue->used = (volatile struct used *)(at + RING_DEVICE);
    queue->device_event = (volatile struct event *)(at + RING_DEVICE);
    queue->indirect = indirect_memory(queue->virtio, queue->index);
}

bool virtio_queue_at(struct virtio *virtio, unsigned index, unsigned size, u8 *memory)
{
    if (index >= QUEUES_MAX || index >= virtio->queues)
        return false;
    struct queue *queue = &virtio->queue[index];
    memset(queue, 0, sizeof *queue);
    queue->virtio = virtio;
    queue->index = index;
    common_write(virtio, COMMON_QUEUE_SELECT, 2, index);
    unsigned max = common_read(virtio, COMMON_QUEUE_SIZE, 2);
    queue->size = size && size < max ? size : max;
    if (queue->size > QUEUE_SIZE_MAX)
        queue->size = QUEUE_SIZE_MAX;
    if (!queue->size)
        return false;
    place_rings(queue, memory);
    queue->wrap = queue->seen_wrap = true;
    for (unsigned i = 0; i < queue->size; i++)
        queue->next_free[i] = (u16)(i + 1);
    queue->free_count = (u16)queue->size;
    common_write(virtio, COMMON_QUEUE_SIZE, 2, queue->size);
    common_write64(virtio, COMMON_QUEUE_DESC, (u64)queue->desc);
    common_write64(virtio, COMMON_QUEUE_DRIVER, (u64)queue->avail);
    common_write64(virtio, COMMON_QUEUE_DEVICE, (u64)queue->used);
    queue->notify = virtio->notify + common_read(virtio, COMMON_QUEUE_NOTIFY_OFF, 2) * virtio->notify_multiplier;
    common_write(virtio, COMMON_QUEUE_ENABLE, 2, 1);
    queue->on = common_read(virtio, COMMON_QUEUE_ENABLE, 2) == 1;
    queue_want_interrupt(queue, false);
    return queue->on;
}

bool virtio_queue(struct virtio *virtio, unsigned index, unsigned size)
{
    return index < QUEUES_MAX && virtio_queue_at(virtio, index, size, ring_memory(virtio, index));
}

bool virtio_interrupts(struct virtio *virtio, bool on)
{
    if (!virtio->msix_table)
        return false;
    trap_set_handler(VECTOR, count_interrupt);
    virtio->msix_table[0] = 0xfee00000;
    virtio->msix_table[1] = 0;
    virtio->msix_table[2] = VECTOR;
    virtio->msix_table[3] = 0;
    pci_write(virtio->slot, virtio->msix + 2, 2, on ? 0x8000 : 0);
    u32 vector = on ? 0 : NO_VECTOR;
    common_write(virtio, COMMON_CONFIG_VECTOR, 2, vector);
    bool taken = common_read(virtio, COMMON_CONFIG_VECTOR, 2) == vector;
    for (unsigned i = 0; i < virtio->queues && i < QUEUES_MAX; i++) {
        common_write(virtio, COMMON_QUEUE_SELECT, 2, i);
        common_write(virtio, COMMON_QUEUE_VECTOR, 2, vector);
        taken = taken && common_read(virtio, COMMON_QUEUE_VECTOR, 2) == vector;
    }
    return taken;
}

void virtio_go(struct virtio *virtio)
{
    common_write(virtio, COMMON_STATUS, 1,
                 STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

/* ---- rings ---- */

static bool packed(const struct queue *queue)
{
    return queue->virtio->features & F_PACKED;
}

static u16 take_id(struct queue *queue, unsigned count)
{
    u16 id = queue->free_first;
    queue->free_first = queue->next_free[id];
    queue->free_count = (u16)(queue->free_count - count);
    queue->span[id] = (u16)count;
    return id;
}

/* In a packed ring's table the order alone chains, and the flags are elsewhere (2.8.7). */
static void fill_indirect(struct queue *queue, volatile struct desc *table, const struct buffer *buffers, unsigned count)
{
    volatile struct packed_desc *packed_table = (volatile struct packed_desc *)table;
    for (unsigned i = 0; i < count; i++) {
        u16 write = buffers[i].write ? DESC_WRITE : 0;
        table[i].address = buffers[i].address;
        table[i].length = buffers[i].length;
        if (packed(queue)) {
            packed_table[i].id = 0;
            packed_table[i].flags = write;
        } else {
            table[i].flags = (u16)(write | (i + 1 < count ? DESC_NEXT : 0));
            table[i].next = (u16)(i + 1 < count ? i + 1 : 0);
        }
    }
}

/* Split: the descriptors of a chain are those of the free list, in its order. */
static void add_split(struct queue *queue, const struct buffer *buffers, unsigned count, void *owner, u16 extra)
{
    u16 head = queue->free_first, at = head;
    for (unsigned i = 0; i < count; i++) {
        volatile struct desc *desc = &queue->desc[at];
        u16 next = queue->next_free[at];
        desc->address = buffers[i].address;
        desc->length = buffers[i].length;
        desc->flags = (u16)((buffers[i].write ? DESC_WRITE : 0) | (i + 1 < count ? DESC_NEXT : 0) | extra);
        desc->next = i + 1 < count ? next : 0;
        at = next;
    }
    queue->free_first = at;
    queue->free_count = (u16)(queue->free_count - count);
    queue->span[head] = (u16)count;
    queue->owner[head] = owner;
    queue->avail->ring[queue->next % queue->size] = head;
    barrier();
    queue->avail->index = ++queue->next;
}

static void step(u16 *position, bool *wrap, unsigned size)
{
    if (++*position == size) {
        *position = 0;
        *wrap = !*wrap;
    }
}

/* Packed: the first descriptor's flags are written last. */
static void add_packed(struct queue *queue, const struct buffer *buffers, unsigned count, void *owner, u16 extra)
{
    u16 id = take_id(queue, count), first = queue->next;
    u16 first_flags = 0;
    queue->owner[id] = owner;
    for (unsigned i = 0; i < count; i++) {
        volatile struct packed_desc *desc = &queue->ring[queue->next];
        u16 flags = (u16)((buffers[i].write ? DESC_WRITE : 0) | (i + 1 < count ? DESC_NEXT : 0) | extra |
                          (queue->wrap ? DESC_AVAIL : DESC_USED));
        desc->address = buffers[i].address;
        desc->length = buffers[i].length;
        desc->id = id;
        if (i == 0)
            first_flags = flags;
        else
            desc->flags = flags;
        step(&queue->next, &queue->wrap, queue->size);
    }
    barrier();
    queue->ring[first].flags = first_flags;
}

bool queue_add(struct queue *queue, const struct buffer *buffers, unsigned count, void *owner, bool indirect)
{
    struct buffer table;
    if (queue->free_count < (indirect ? 1 : count) || (indirect && count > INDIRECT_MAX))
        return false;
    if (indirect) {
        volatile struct desc *entries = queue->indirect + INDIRECT_MAX * queue->free_first;
        fill_indirect(queue, entries, buffers, count);
        table = (struct buffer){ (u64)entries, count * (u32)sizeof(struct desc), false };
        buffers = &table;
        count = 1;
    }
    if (packed(queue))
        add_packed(queue, buffers, count, owner, indirect ? DESC_INDIRECT : 0);
    else
        add_split(queue, buffers, count, owner, indirect ? DESC_INDIRECT : 0);
    return true;
}

void queue_notify(struct queue *queue)
{
    barrier();
    if (queue->virtio->features & F_NOTIFICATION_DATA) {
        u32 next = packed(queue) ? queue->next | (queue->wrap ? 0x8000u : 0) : queue->next;
        reg_write(queue->notify, 4, queue->index | next << 16);
    } else {
        reg_write(queue->notify, 2, queue->index);
    }
}

void queue_kick(struct queue *queue)
{
    barrier();
    bool events = queue->virtio->features & F_EVENT_IDX;
    if (packed(queue)) {
        if (queue->device_event->flags != EVENT_DISABLE) /* more often than needed, where an event is asked for */
            queue_notify(queue);
        return;
    }
    u16 event = *(volatile u16 *)&queue->used->ring[queue->size];
    u16 since = (u16)(queue->next - queue->told);
    if (events ? (u16)(queue->next - event - 1) < since : !(queue->used->flags & 1))
        queue_notify(queue);
    queue->told = queue->next;
}

static void give_back(struct queue *queue, u16 id)
{
    if (packed(queue)) {
        queue->next_free[id] = queue->free_first;
    } else {
        u16 last = id;
        for (unsigned i = 1; i < queue->span[id]; i++)
            last = queue->next_free[last];
        queue->next_free[last] = queue->free_first;
    }
    queue->free_first = id;
    queue->free_count = (u16)(queue->free_count + queue->span[id]);
    queue->span[id] = 0;
}

static void *taken(struct queue *queue, u32 id)
{
    if (id >= queue->size || !queue->span[id]) {
        check(false, "used buffer", "ID %u was not given to the device", id);
        return NULL;
    }
    void *owner = queue->owner[id];
    give_back(queue, (u16)id);
    return owner;
}

static void *take_packed(struct queue *queue, u32 *ret_length)
{
    volatile struct packed_desc *desc = &queue->ring[queue->seen];
    u16 flags = desc->flags;
    bool available = flags & DESC_AVAIL, used = flags & DESC_USED;
    if (available != used || used != queue->seen_wrap)
        return NULL;
    barrier();
    u16 id = desc->id;
    *ret_length = desc->length;
    unsigned span = id < queue->size ? queue->span[id] : 1;
    void *owner = taken(queue, id);
    for (unsigned i = 0; i < span; i++)
        step(&queue->seen, &queue->seen_wrap, queue->size);
    return owner;
}

void *queue_take(struct queue *queue, u32 *ret_length)
{
    if (packed(queue))
        return take_packed(queue, ret_length);
    if (queue->used->index == queue->seen)
        return NULL;
    barrier();
    u32 id = queue->used->ring[queue->seen % queue->size].id;
    *ret_length = queue->used->ring[queue->seen % queue->size].length;
    queue->seen++;
    return taken(queue, id);
}

static void *wait_looking(struct queue *queue, u32 *ret_length)
{
    u64 start = rdtsc();
    void *owner;
    while (!(owner = queue_take(queue, ret_length)) && rdtsc() - start < PATIENCE)
        pause();
    return owner;
}

/* Asks first and looks then, so that no message is missed. Other queues' messages come by the same vector. */
static void *wait_for_message(struct queue *queue, u32 *ret_length)
{
    u64 start = rdtsc();
    void *owner = NULL;
    while (!owner && rdtsc() - start < PATIENCE) {
        u32 before = virtio_interrupt_count;
        queue_want_interrupt(queue, true);
        owner = queue_take(queue, ret_length);
        while (!owner && virtio_interrupt_count == before && rdtsc() - start < PATIENCE)
            pause();
    }
    queue_want_interrupt(queue, false);
    if (!owner && (owner = queue_take(queue, ret_length)))
        check(false, "interrupt", "none came for queue %u, though it has been used", queue->index);
    return owner;
}

void *queue_wait(struct queue *queue, u32 *ret_length)
{
    return queue->virtio->by_interrupt ? wait_for_message(queue, ret_length) : wait_looking(queue, ret_length);
}

void queue_want_interrupt(struct queue *queue, bool want)
{
    bool events = queue->virtio->features & F_EVENT_IDX;
    if (packed(queue)) {
        queue->driver_event->position = (u16)(queue->seen | (queue->seen_wrap ? 0x8000u : 0));
        queue->driver_event->flags = !want ? EVENT_DISABLE : events ? EVENT_DESC : EVENT_ENABLE;
    } else {
        queue->avail->flags = want ? 0 : 1;
        if (events)
            *(volatile u16 *)&queue->avail->ring[queue->size] = want ? queue->seen : (u16)(queue->seen - 1);
    }
    barrier();
}
