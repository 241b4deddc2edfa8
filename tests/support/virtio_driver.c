#include "support/virtio_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ECAM 0xe0000000u
#define SLOT_CONFIG (ECAM + 0x8000u)

static void fail_if(bool bad, const char *what)
{
    if (bad) {
        fprintf(stderr, "virtio driver of the tests: %s\n", what);
        abort();
    }
}

/* ---- board ---- */

static void message(void *owner, uint64_t address, uint32_t data)
{
    struct driver_board *board = owner;
    (void)address;
    board->messages[data % 64]++;
}

static void wire(void *owner, unsigned pin, int level)
{
    struct driver_board *board = owner;
    (void)pin;
    board->intx = level;
}

static void lock(void *owner)
{
    pthread_mutex_lock(&((struct driver_board *)owner)->lock);
}

static void unlock(void *owner)
{
    pthread_mutex_unlock(&((struct driver_board *)owner)->lock);
}

void driver_board_init(struct driver_board *board, uint64_t memory)
{
    memset(board, 0, sizeof *board);
    pthread_mutex_init(&board->lock, NULL);
    fail_if(ram_open(&board->ram, memory, 0xc0000000u, UINT64_C(1) << 32, NULL) < 0, "no memory");
    board->mmio = bus_new(UINT64_C(1) << 46);
    board->ports = bus_new(65536);
    fail_if(loop_new(&board->loop, NULL) < 0, "no loop");
    struct pci_host_config config = {.mmio = board->mmio, .ports = board->ports, .window32_base = 0xd0000000u,
                                     .window32_size = 0x1000000, .window64_base = UINT64_C(1) << 40,
                                     .window64_size = 0x1000000, .msi = {message, board}};
    for (unsigned pin = 0; pin < 4; pin++)
        config.intx[pin] = (struct irq_line){wire, board, pin};
    board->host = pci_host_new(&config);
    fail_if(bus_map(board->mmio, ECAM, PCI_ECAM_SIZE, pci_host_device(board->host), PCI_REGION_ECAM) < 0, "no ECAM");
}

struct virtio_env driver_board_env(struct driver_board *board, bool packed)
{
    return (struct virtio_env){.ram = &board->ram, .loop = board->loop, .lock = lock, .unlock = unlock, .owner = board,
                               .packed = packed};
}

uint64_t driver_read(struct driver_board *board, uint64_t address, unsigned size)
{
    pthread_mutex_lock(&board->lock);
    uint64_t value = bus_read(board->mmio, address, size);
    pthread_mutex_unlock(&board->lock);
    return value;
}

void driver_write(struct driver_board *board, uint64_t address, unsigned size, uint64_t value)
{
    pthread_mutex_lock(&board->lock);
    bus_write(board->mmio, address, size, value);
    pthread_mutex_unlock(&board->lock);
}

uint64_t driver_config_read(struct driver_board *board, unsigned offset, unsigned size)
{
    return driver_read(board, SLOT_CONFIG + offset, size);
}

void driver_config_write(struct driver_board *board, unsigned offset, unsigned size, uint64_t value)
{
    driver_write(board, SLOT_CONFIG + offset, size, value);
}

/* BAR `n` as the guest sees it. */
static uint64_t bar(struct driver_board *board, unsigned n)
{
    uint64_t low = driver_config_read(board, 0x10 + 4 * n, 4);
    uint64_t high = (low & 6) == 4 ? driver_config_read(board, 0x14 + 4 * n, 4) << 32 : 0;
    return (low & ~UINT64_C(15)) | high;
}

/* 4.1.4: vendor capabilities tell which BAR and offset each structure is at. */
static void find_structures(struct driver_board *board)
{
    uint64_t msix = 0;
    for (unsigned at = (unsigned)driver_config_read(board, 0x34, 1); at; at = (unsigned)driver_config_read(board, at + 1, 1)) {
        uint64_t id = driver_config_read(board, at, 1);
        if (id == 0x11) {
            msix = bar(board, driver_config_read(board, at + 4, 4) & 7);
            driver_config_write(board, at + 2, 2, 0x8000);
        }
        if (id != 0x09)
            continue;
        uint64_t type = driver_config_read(board, at + 3, 1);
        uint64_t address = type == 5 ? 0 : bar(board, (unsigned)driver_config_read(board, at + 4, 1)) + driver_config_read(board, at + 8, 4);
        switch (type) {
        case 1: board->common = address; break;
        case 2:
            board->notify = address;
            board->notify_multiplier = (uint32_t)driver_config_read(board, at + 16, 4);
            break;
        case 3: board->isr = address; break;
        case 4: board->config = address; break;
        default: break;
        }
    }
    fail_if(!board->common || !board->notify || !board->isr || !msix, "the device lacks a structure");
    for (unsigned v = 0; v < 64; v++) { /* address, data, mask */
        driver_write(board, msix + v * 16, 4, 0xfee00000u);
        driver_write(board, msix + v * 16 + 8, 4, v);
        driver_write(board, msix + v * 16 + 12, 4, 0);
    }
}

void driver_board_add(struct driver_board *board, struct virtio_device *virtio)
{
    struct error error;
    fail_if(!virtio || virtio_pci_new(virtio, 0, &board->device, &error) < 0, "the device was not made");
    fail_if(pci_add(board->host, virtio_pci_function(board->device), 1) < 0, "no place on the bus");
    driver_config_write(board, 4, 2, 6); /* memory, bus master */
    find_structures(board);
}

static void stop(void *context)
{
    loop_stop(context);
}

/* Twice: what the last callbacks raised is served by the second. */
void driver_board_settle(struct driver_board *board)
{
    for (unsigned i = 0; i < 2; i++) {
        loop_post(board->loop, stop, board->loop);
        loop_run(board->loop);
    }
}

void driver_board_destroy(struct driver_board *board)
{
    if (board->device) {
        driver_reset(board, true);
        board->device->ops->destroy(board->device);
    }
    pci_host_device(board->host)->ops->destroy(pci_host_device(board->host));
    loop_free(board->loop);
    bus_free(board->mmio);
    bus_free(board->ports);
    ram_close(&board->ram);
    pthread_mutex_destroy(&board->lock);
}

/* ---- the common structure; 4.1.4.3 ---- */

uint8_t driver_status(struct driver_board *board)
{
    return (uint8_t)driver_read(board, board->common + 0x14, 1);
}

static void set_status(struct driver_board *board, uint8_t bits)
{
    driver_write(board, board->common + 0x14, 1, driver_status(board) | bits);
}

void driver_reset(struct driver_board *board, bool settle)
{
    driver_write(board, board->common + 0x14, 1, 0);
    for (unsigned i = 0; settle && driver_status(board) && i < 1000; i++)
        driver_board_settle(board);
}

uint64_t driver_offered(struct driver_board *board)
{
    uint64_t features = 0;
    for (unsigned i = 0; i < 2; i++) {
        driver_write(board, board->common, 4, i);
        features |= driver_read(board, board->common + 4, 4) << (32 * i);
    }
    return features;
}

bool driver_negotiate(struct driver_board *board, uint64_t features)
{
    set_status(board, 1);
    set_status(board, 2);
    for (unsigned i = 0; i < 2; i++) {
        driver_write(board, board->common + 8, 4, i);
        driver_write(board, board->common + 12, 4, features >> (32 * i) & UINT32_MAX);
    }
    set_status(board, 8);
    board->features = features;
    return driver_status(board) & 8;
}

void driver_ok(struct driver_board *board)
{
    set_status(board, 4);
}

/* ---- queues ---- */

static uint8_t *at(const struct driver_queue *queue, uint64_t gpa)
{
    uint8_t *host = ram_host(queue->ram, gpa, 16);
    fail_if(!host, "a ring is outside memory");
    return host;
}

static void put16(const struct driver_queue *queue, uint64_t gpa, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)at(queue, gpa), value, __ATOMIC_RELEASE);
}

static uint16_t get16(const struct driver_queue *queue, uint64_t gpa)
{
    return __atomic_load_n((uint16_t *)(void *)at(queue, gpa), __ATOMIC_ACQUIRE);
}

static void put_descriptor(const struct driver_queue *queue, uint64_t gpa, struct driver_piece piece, uint16_t third, uint16_t fourth)
{
    uint8_t *to = at(queue, gpa);
    memcpy(to, &piece.gpa, 8);
    memcpy(to + 8, &piece.length, 4);
    memcpy(to + 12, &third, 2);
    __atomic_store_n((uint16_t *)(void *)(to + 14), fourth, __ATOMIC_RELEASE);
}

uint64_t driver_queue_bytes(unsigned size)
{
    return (((uint64_t)size * 16 + 6 + 2 * size + 4095) & ~UINT64_C(4095)) + 4096 + 8 * size + 4096 + (uint64_t)size * size * 16;
}

void driver_queue_init(struct driver_queue *queue, struct ram *ram, uint64_t base, unsigned number, unsigned size,
                       uint64_t features)
{
    memset(queue, 0, sizeof *queue);
    queue->ram = ram;
    queue->number = number;
    queue->size = queue->left = size;
    queue->packed = features >> VIRTIO_F_RING_PACKED & 1;
    queue->event_idx = features >> VIRTIO_F_EVENT_IDX & 1;
    queue->descriptors = base;
    queue->driver = base + (uint64_t)size * 16;
    queue->device = (queue->driver + 6 + 2 * size + 4095) & ~UINT64_C(4095);
    queue->tables = (queue->device + 6 + 8 * size + 4095) & ~UINT64_C(4095);
    if (queue->driver % 4)
        queue->driver += 2;
    queue->avail_wrap = queue->used_wrap = true;
    for (unsigned i = 0; i < size; i++) {
        queue->free_id[queue->free_ids++] = (uint16_t)(size - 1 - i);
        queue->next[i] = (uint16_t)(i + 1);
    }
    memset(ram_host(ram, base, driver_queue_bytes(size)), 0, driver_queue_bytes(size));
}

void driver_queue_setup(struct driver_board *board, const struct driver_queue *queue)
{
    driver_write(board, board->common + 0x16, 2, queue->number);
    driver_write(board, board->common + 0x18, 2, queue->size);
    driver_write(board, board->common + 0x1a, 2, queue->number + 1);
    for (unsigned half = 0; half < 2; half++) {
        driver_write(board, board->common + 0x20 + 4 * half, 4, queue->descriptors >> (32 * half) & UINT32_MAX);
        driver_write(board, board->common + 0x28 + 4 * half, 4, queue->driver >> (32 * half) & UINT32_MAX);
        driver_write(board, board->common + 0x30 + 4 * half, 4, queue->device >> (32 * half) & UINT32_MAX);
    }
    driver_write(board, board->common + 0x1c, 2, 1);
}

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

static int add_split(struct driver_queue *queue, const struct driver_piece *pieces, unsigned readable, unsigned total, bool indirect)
{
    uint16_t head = queue->free_first, slot = head;
    for (unsigned i = 0; i < total; i++) {
        uint16_t flags = (uint16_t)((i + 1 < total ? NEXT : 0) | (i >= readable ? WRITE : 0));
        if (indirect) {
            uint64_t table = queue->tables + (uint64_t)head * queue->size * 16;
            put_descriptor(queue, table + i * 16, pieces[i], flags, (uint16_t)(i + 1));
            continue;
        }
        uint16_t next = queue->next[slot];
        put_descriptor(queue, queue->descriptors + slot * 16u, pieces[i], flags, next);
        slot = next;
    }
    if (indirect) {
        struct driver_piece table = {queue->tables + (uint64_t)head * queue->size * 16, total * 16};
        slot = queue->next[head];
        put_descriptor(queue, queue->descriptors + head * 16u, table, INDIRECT, 0);
    }
    queue->free_first = slot;
    queue->length[head] = (uint16_t)(indirect ? 1 : total);
    queue->left -= queue->length[head];
    put16(queue, queue->driver + 4 + 2u * (queue->avail % queue->size), head);
    queue->avail++;
    return head;
}

/* All but the first descriptor's flags, which publish stores. */
static int add_packed(struct driver_queue *queue, const struct driver_piece *pieces, unsigned readable, unsigned total, bool indirect)
{
    uint16_t id = queue->free_id[--queue->free_ids];
    uint64_t table = queue->tables + (uint64_t)id * queue->size * 16;
    struct driver_piece whole = {table, total * 16};
    for (unsigned i = 0; indirect && i < total; i++)
        put_descriptor(queue, table + i * 16, pieces[i], 0, i >= readable ? WRITE : 0);
    fail_if(queue->added, "packed chains are published one at a time");
    queue->length[id] = (uint16_t)(indirect ? 1 : total);
    for (unsigned i = 0; i < queue->length[id]; i++) {
        unsigned flags = (indirect ? INDIRECT : (i + 1 < total ? NEXT : 0u) | (i >= readable ? WRITE : 0u)) |
                         (queue->avail_wrap ? 1u << 7 : 1u << 15);
        bool first = i == 0;
        uint64_t gpa = queue->descriptors + queue->avail * 16u;
        if (first) {
            queue->first_flags = (uint16_t)flags;
            queue->first_slot = queue->avail;
            flags = get16(queue, gpa + 14); /* as it is, not available */
        }
        put_descriptor(queue, gpa, indirect ? whole : pieces[i], id, (uint16_t)flags);
        if (++queue->avail == queue->size) {
            queue->avail = 0;
            queue->avail_wrap = !queue->avail_wrap;
        }
    }
    queue->added = queue->length[id];
    queue->left -= queue->length[id];
    return id;
}

int driver_add(struct driver_queue *queue, const struct driver_piece *pieces, unsigned readable, unsigned writable, bool indirect)
{
    unsigned total = readable + writable;
    if (queue->left < (indirect ? 1 : total) || total == 0 || total > queue->size)
        return -1;
    return queue->packed ? add_packed(queue, pieces, readable, total, indirect) : add_split(queue, pieces, readable, total, indirect);
}

/* 2.7.10: the event lies among what is published now. */
static bool split_publish(struct driver_queue *queue)
{
    uint16_t old = queue->published;
    put16(queue, queue->driver + 2, queue->avail);
    queue->published = queue->avail;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!queue->event_idx)
        return !(get16(queue, queue->device) & 1);
    uint16_t event = get16(queue, queue->device + 4 + 8 * queue->size);
    for (uint16_t i = old; i != queue->avail; i++)
        if (i == event)
            return true;
    return false;
}

static bool packed_publish(struct driver_queue *queue)
{
    unsigned slot = queue->first_slot, count = queue->added;
    bool wrap = queue->first_flags >> 7 & 1;
    put16(queue, queue->descriptors + slot * 16u + 14, queue->first_flags);
    queue->added = 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint16_t flags = get16(queue, queue->device + 2), event = get16(queue, queue->device);
    if (flags != 2)
        return flags == 0;
    for (; count--; slot = slot + 1 == queue->size ? (wrap = !wrap, 0) : slot + 1)
        if ((event & 0x7fff) == slot && event >> 15 == wrap)
            return true;
    return false;
}

bool driver_publish(struct driver_queue *queue)
{
    return queue->packed ? packed_publish(queue) : split_publish(queue);
}

void driver_notify(struct driver_board *board, const struct driver_queue *queue)
{
    driver_write(board, board->common + 0x16, 2, queue->number);
    uint64_t offset = driver_read(board, board->common + 0x1e, 2) * board->notify_multiplier;
    driver_write(board, board->notify + offset, 2, queue->number);
}

static bool take_split(struct driver_queue *queue, unsigned *ret_id, uint32_t *ret_written)
{
    if (get16(queue, queue->device + 2) == queue->used)
        return false;
    uint32_t entry[2];
    memcpy(entry, at(queue, queue->device + 4 + 8u * (queue->used % queue->size)), 8);
    fail_if(entry[0] >= queue->size || queue->length[entry[0]] == 0, "a chain was used that was not available");
    queue->used++;
    uint16_t last = (uint16_t)entry[0];
    for (unsigned i = 1; i < queue->length[entry[0]]; i++)
        memcpy(&last, at(queue, queue->descriptors + last * 16u) + 14, 2);
    queue->next[last] = queue->free_first;
    for (uint16_t slot = (uint16_t)entry[0]; slot != last;) { /* rebuild the chain in `next`, which the ring has */
        uint16_t next;
        memcpy(&next, at(queue, queue->descriptors + slot * 16u) + 14, 2);
        queue->next[slot] = next;
        slot = next;
    }
    queue->free_first = (uint16_t)entry[0];
    queue->left += queue->length[entry[0]];
    queue->length[entry[0]] = 0;
    *ret_id = entry[0];
    *ret_written = entry[1];
    return true;
}

static bool take_packed(struct driver_queue *queue, unsigned *ret_id, uint32_t *ret_written)
{
    uint64_t gpa = queue->descriptors + queue->used * 16u;
    uint16_t flags = get16(queue, gpa + 14), id;
    bool avail = flags >> 7 & 1, used = flags >> 15 & 1;
    if (avail != used || used != queue->used_wrap)
        return false;
    memcpy(&id, at(queue, gpa) + 12, 2);
    memcpy(ret_written, at(queue, gpa) + 8, 4);
    fail_if(id >= queue->size || queue->length[id] == 0, "a chain was used that was not available");
    unsigned next = queue->used + queue->length[id];
    if (next >= queue->size) {
        next -= queue->size;
        queue->used_wrap = !queue->used_wrap;
    }
    queue->used = (uint16_t)next;
    queue->left += queue->length[id];
    queue->length[id] = 0;
    queue->free_id[queue->free_ids++] = id;
    *ret_id = id;
    return true;
}

bool driver_take(struct driver_queue *queue, unsigned *ret_id, uint32_t *ret_written)
{
    return queue->packed ? take_packed(queue, ret_id, ret_written) : take_split(queue, ret_id, ret_written);
}

void driver_want_interrupt(struct driver_queue *queue, bool wanted, unsigned ahead)
{
    if (!queue->packed && queue->event_idx) { /* not wanted: as far away as can be */
        put16(queue, queue->driver + 4 + 2 * queue->size, (uint16_t)(queue->used + (wanted ? ahead : 0x8000)));
    } else if (!queue->packed) {
        put16(queue, queue->driver, !wanted);
    } else if (wanted && queue->event_idx) {
        unsigned slot = queue->used + ahead;
        bool wrap = queue->used_wrap ^ (slot >= queue->size);
        put16(queue, queue->driver, (uint16_t)((slot % queue->size) | (wrap ? 0x8000u : 0)));
        put16(queue, queue->driver + 2, 2);
    } else {
        put16(queue, queue->driver + 2, wanted ? 0 : 1);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
