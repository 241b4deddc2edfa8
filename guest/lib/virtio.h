/* virtio.h - PCI and a virtio driver for test kernels: virtio 1.2 over PCI, split and packed rings.
 *
 * The driver is exact rather than fast, and leaves its rings open, so that a test can write to them what no driver
 * should. Completion is polled; interrupts are counted. */
#ifndef GUEST_VIRTIO_H
#define GUEST_VIRTIO_H

#include "kernel.h"

/* ---- pci.c: configuration space of bus 0, by ports 0xCF8 and 0xCFC ---- */

#define PCI_SLOTS 32
u32 pci_read(unsigned slot, unsigned offset, unsigned size);
void pci_write(unsigned slot, unsigned offset, unsigned size, u32 value);
/* The capability with this ID after `from` (0: the first); 0 when there is none. */
unsigned pci_capability(unsigned slot, unsigned id, unsigned from);
/* Where a memory BAR is; 0 when there is none. */
u64 pci_bar(unsigned slot, unsigned n);
/* Registers of [bar + offset, + length), mapped one to one. */
volatile u8 *pci_map(unsigned slot, unsigned bar, u32 offset, u32 length);
#define PCI_COMMAND 4
#define PCI_COMMAND_MEMORY 2u
#define PCI_COMMAND_MASTER 4u

/* ---- virtio.c ---- */

enum { VIRTIO_NET = 1, VIRTIO_BLK = 2, VIRTIO_CONSOLE = 3, VIRTIO_RNG = 4, VIRTIO_BALLOON = 5, VIRTIO_VSOCK = 19, VIRTIO_FS = 26 };

#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER 2u
#define STATUS_DRIVER_OK 4u
#define STATUS_FEATURES_OK 8u
#define STATUS_NEEDS_RESET 64u
#define STATUS_FAILED 128u

#define F_INDIRECT (1ull << 28)
#define F_EVENT_IDX (1ull << 29)
#define F_VERSION_1 (1ull << 32)
#define F_ACCESS_PLATFORM (1ull << 33)
#define F_PACKED (1ull << 34)
#define F_IN_ORDER (1ull << 35)
#define F_NOTIFICATION_DATA (1ull << 38)
#define F_RING_RESET (1ull << 40)

#define F_CONSOLE_SIZE (1ull << 0)
#define F_CONSOLE_MULTIPORT (1ull << 1)
#define F_CONSOLE_EMERGENCY (1ull << 2)
#define F_CONSOLE_ALL (F_CONSOLE_SIZE | F_CONSOLE_MULTIPORT | F_CONSOLE_EMERGENCY)

/* Offsets in the common configuration structure (4.1.4.3). */
enum { COMMON_DEVICE_FEATURE_SELECT = 0, COMMON_DEVICE_FEATURE = 4, COMMON_DRIVER_FEATURE_SELECT = 8, COMMON_DRIVER_FEATURE = 12,
       COMMON_CONFIG_VECTOR = 16, COMMON_NUM_QUEUES = 18, COMMON_STATUS = 20, COMMON_GENERATION = 21, COMMON_QUEUE_SELECT = 22,
       COMMON_QUEUE_SIZE = 24, COMMON_QUEUE_VECTOR = 26, COMMON_QUEUE_ENABLE = 28, COMMON_QUEUE_NOTIFY_OFF = 30,
       COMMON_QUEUE_DESC = 32, COMMON_QUEUE_DRIVER = 40, COMMON_QUEUE_DEVICE = 48, COMMON_END = 56 };

#define NO_VECTOR 0xffffu
#define QUEUE_SIZE_MAX 1024u
#define QUEUES_MAX 8u
#define MEMORIES 2u

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define DESC_AVAIL 0x80u /* packed */
#define DESC_USED 0x8000u

struct desc {
    u64 address;
    u32 length;
    u16 flags, next;
};
struct packed_desc {
    u64 address;
    u32 length;
    u16 id, flags;
};
struct avail {
    u16 flags, index, ring[QUEUE_SIZE_MAX + 1]; /* the last (by the queue's size) is used_event */
};
struct used {
    u16 flags, index;
    struct { u32 id, length; } ring[QUEUE_SIZE_MAX + 1]; /* the last is avail_event */
};
struct event { /* packed */
    u16 position, flags;
};

struct virtio;

struct queue {
    struct virtio *virtio;
    unsigned index, size;
    bool on;
    volatile u8 *notify;
    /* Ring memory; split. */
    volatile struct desc *desc;
    volatile struct avail *avail;
    volatile struct used *used;
    /* Packed. */
    volatile struct packed_desc *ring;
    volatile struct event *driver_event, *device_event;
    u16 next, seen; /* where the next goes; how far used ones were taken */
    bool wrap, seen_wrap;
    u16 told; /* split: avail index at the last notification */
    /* Buffers in flight: by head (split) or buffer ID (packed). */
    u16 free_first, free_count, next_free[QUEUE_SIZE_MAX], span[QUEUE_SIZE_MAX];
    void *owner[QUEUE_SIZE_MAX];
    volatile struct desc *indirect; /* 16 entries for each ID */
};

struct virtio {
    unsigned slot;
    u16 type;
    volatile u8 *common, *notify, *isr, *config;
    u32 notify_multiplier, config_length, common_length, notify_length;
    unsigned common_bar, msix; /* the capability's offset, or 0 */
    volatile u32 *msix_table;
    u64 offered, features;
    unsigned queues; /* that the device has */
    bool by_interrupt; /* queue_wait waits for messages, which virtio_interrupts and STI let in, rather than look all the time */
    unsigned memory; /* which rings, 0 or 1: devices that are driven at the same time need their own */
    struct queue queue[QUEUES_MAX];
};

struct buffer {
    u64 address;
    u32 length;
    bool write; /* by the device */
};

/* Fields of a register structure. */
u32 reg_read(volatile u8 *at, unsigned size);
void reg_write(volatile u8 *at, unsigned size, u32 value);
/* Any field of the common structure, by its offset. */
u32 common_read(const struct virtio *virtio, unsigned offset, unsigned size);
void common_write(const struct virtio *virtio, unsigned offset, unsigned size, u32 value);
void common_write64(const struct virtio *virtio, unsigned offset, u64 value);

/* Maps the registers of the device in a slot; false when there is no virtio device. */
bool virtio_at(struct virtio *virtio, unsigned slot);
/* Finds the n-th device of a type (0: of any) and maps its registers. */
bool virtio_find(struct virtio *virtio, unsigned type, unsigned n);
/* Resets and waits for it; false when the device does not come to an end. */
bool virtio_reset(struct virtio *virtio);
/* Reset, ACKNOWLEDGE, DRIVER, and the features that are both offered and wanted, up to FEATURES_OK. */
bool virtio_negotiate(struct virtio *virtio, u64 wanted);
/* Gives a queue memory and enables it; size 0: as large as the device allows. */
bool virtio_queue(struct virtio *virtio, unsigned index, unsigned size);
/* The same in memory of the caller's, RING_BYTES on a page boundary, of which it zeroes what
 * the queue has: descriptors at RING_DESCRIPTORS, the areas of driver and device at RING_DRIVER and RING_DEVICE. */
#define RING_BYTES (64u * 1024)
#define RING_DESCRIPTORS 0u
#define RING_DRIVER 0x4000u
#define RING_DEVICE 0x8000u
bool virtio_queue_at(struct virtio *virtio, unsigned index, unsigned size, u8 *memory);
/* The vector that a queue's or the configuration's messages come by (the same one); false: none. */
bool virtio_interrupts(struct virtio *virtio, bool on);
extern volatile u32 virtio_interrupt_count;
void virtio_go(struct virtio *virtio);
u32 virtio_status(const struct virtio *virtio);

/* Makes a chain available: readable buffers first. False when there is no room. At most 16 when indirect. */
bool queue_add(struct queue *queue, const struct buffer *buffers, unsigned count, void *owner, bool indirect);
/* Notifies the device if it wants to know. */
void queue_kick(struct queue *queue);
void queue_notify(struct queue *queue); /* unasked */
/* Takes a used buffer: its owner, or NULL; *ret_length is what the device wrote. */
void *queue_take(struct queue *queue, u32 *ret_length);
/* Waits for one; NULL when it does not come. */
void *queue_wait(struct queue *queue, u32 *ret_length);
/* Asks for an interrupt at the next used buffer, or for none. */
void queue_want_interrupt(struct queue *queue, bool want);

#endif
