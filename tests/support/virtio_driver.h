/* virtio_driver.h - the driver's side of virtio for tests, written from the specification and sharing no code with the device's.
 *
 * A queue here is one thread's. Memory is the guest's RAM through ram_host, with the barriers that a driver uses. */
#ifndef VENEER_TESTS_SUPPORT_VIRTIO_DRIVER_H
#define VENEER_TESTS_SUPPORT_VIRTIO_DRIVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "device/bus/bus.h"
#include "device/bus/pci.h"
#include "device/virtio/virtio_pci.h"
#include "memory/ram.h"

#define DRIVER_QUEUE_MAX 1024u

/* ---- a board with one device ---- */

struct driver_board {
    struct ram ram;
    struct bus *mmio, *ports;
    struct pci_host *host;
    struct loop *loop;
    pthread_mutex_t lock;
    _Atomic unsigned messages[64]; /* MSIs, by their data */
    int intx;                      /* level */
    struct device *device;
    uint64_t common, isr, config, notify; /* addresses, found through the capabilities */
    uint32_t notify_multiplier;
    uint64_t features;             /* as negotiated */
};

/* RAM of `memory` bytes, a bus with nothing on it. */
void driver_board_init(struct driver_board *board, uint64_t memory);
struct virtio_env driver_board_env(struct driver_board *board, bool packed);
/* Puts the virtio device at slot 1 with bus mastering on, MSI-X vector n sending data n. */
void driver_board_add(struct driver_board *board, struct virtio_device *virtio);
/* Serves the loop, on this thread, until nothing is left to do. */
void driver_board_settle(struct driver_board *board);
void driver_board_destroy(struct driver_board *board);

uint64_t driver_read(struct driver_board *board, uint64_t address, unsigned size);
void driver_write(struct driver_board *board, uint64_t address, unsigned size, uint64_t value);
uint64_t driver_config_read(struct driver_board *board, unsigned offset, unsigned size);
void driver_config_write(struct driver_board *board, unsigned offset, unsigned size, uint64_t value);

/* Writes 0 to the status and, when settle is set, serves the loop until it reads 0. */
void driver_reset(struct driver_board *board, bool settle);
/* ACKNOWLEDGE, DRIVER, features, FEATURES_OK; returns whether the device accepted them. */
bool driver_negotiate(struct driver_board *board, uint64_t features);
uint64_t driver_offered(struct driver_board *board);
uint8_t driver_status(struct driver_board *board);
void driver_ok(struct driver_board *board);

/* ---- queues ---- */

struct driver_piece {
    uint64_t gpa;
    uint32_t length;
};

struct driver_queue {
    struct ram *ram;
    bool packed, event_idx;
    unsigned number, size, left; /* free descriptors */
    uint64_t descriptors, driver, device, tables; /* GPAs; one indirect table of `size` entries for each ID at `tables` */
    uint16_t free_id[DRIVER_QUEUE_MAX], length[DRIVER_QUEUE_MAX]; /* stack of free IDs (packed) or heads; slots of each */
    unsigned free_ids;
    uint16_t next[DRIVER_QUEUE_MAX]; /* split: free descriptors' chain */
    uint16_t free_first;
    uint16_t avail, used, published; /* free-running (split), or slots (packed) */
    bool avail_wrap, used_wrap;
    unsigned added;            /* slots since the last publish (packed) */
    uint16_t first_flags;      /* of the chain that publish makes visible (packed) */
    uint16_t first_slot;
};

/* Bytes of guest memory that a queue at `base` takes. */
uint64_t driver_queue_bytes(unsigned size);
void driver_queue_init(struct driver_queue *queue, struct ram *ram, uint64_t base, unsigned number, unsigned size,
                       uint64_t features);
/* Tells the device of the queue: addresses, size, vector number + 1, enable. */
void driver_queue_setup(struct driver_board *board, const struct driver_queue *queue);
/* Makes one chain, not visible yet; returns its ID, or -1 when there is no room. */
int driver_add(struct driver_queue *queue, const struct driver_piece *pieces, unsigned readable, unsigned writable, bool indirect);
/* Makes what was added visible; returns whether the device wants to be notified of it. Packed: one chain at a time. */
bool driver_publish(struct driver_queue *queue);
void driver_notify(struct driver_board *board, const struct driver_queue *queue);
/* Takes one used chain. False when there is none. */
bool driver_take(struct driver_queue *queue, unsigned *ret_id, uint32_t *ret_written);
/* Asks for an interrupt once `ahead` more chains (slots, when packed) than taken are used: 0 is the next one. Without event index the
 * number is not looked at. False: no interrupt at all. */
void driver_want_interrupt(struct driver_queue *queue, bool wanted, unsigned ahead);

#endif
