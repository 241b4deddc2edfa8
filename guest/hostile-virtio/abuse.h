/* abuse.h - what a hostile driver needs: rings written by hand, memory that a device may write and memory that it may
 * not, and the check that a device has survived. */
#ifndef GUEST_ABUSE_H
#define GUEST_ABUSE_H

#include "blk.h"

#define RAM_END (256ull << 20)    /* the tests run with that much */
#define NOWHERE (RAM_END + 65536) /* neither RAM nor registers */
#define SCRATCH_BYTES (256u * 1024)
#define CONTROL_IN 2u  /* queues of a console with ports */
#define CONTROL_OUT 3u

struct abuse {
    struct virtio *virtio;
    unsigned index; /* of the queue */
    u64 features;
    struct queue *queue;
    bool eager; /* the device looks at what this queue offers at once */
    u32 bar[6]; /* as they were found */
    u16 next;   /* packed: where the next descriptor goes */
    bool wrap;
    unsigned cases; /* begun */
};

struct abuse_case {
    const char *name;
    void (*run)(struct abuse *abuse);
    enum { EITHER, BREAKS, SPLIT_BREAKS } expect; /* of a queue that the device reads at once */
};

/* The cases: rings.c, registers.c, console.c, disturb.c. */
extern const struct abuse_case ring_cases[], register_cases[], console_cases[], disturb_cases[];
extern const unsigned ring_case_count, register_case_count, console_case_count, disturb_case_count;

/* ---- abuse.c ---- */

void abuse_prepare(void);
/* Resets and starts the device with all its queues; returns how many there are, up to QUEUES_MAX. */
unsigned abuse_set_up(struct virtio *virtio, u64 features);
/* A fresh device with all its queues enabled; false (and reported) when it does not come up. */
bool abuse_begin(struct abuse *abuse);
/* Waits a little, then checks: the device asks for a reset if it must; no canary is written; a reset ends; and it works again. */
void abuse_end(struct abuse *abuse, const char *name, bool must_break);
/* BARs and the command register as they were. */
void restore_function(struct abuse *abuse);

/* Memory that devices may write, 256 KiB from scratch_at(0); tables go to its end. */
u64 scratch_at(u32 offset);
u64 table_at(void);
/* Memory that no device is ever given as a buffer. */
u64 canary_address(void);

/* Descriptor n of the chain to be offered. `next` is for split rings; in packed ones the order chains. */
void chain_item(struct abuse *abuse, unsigned n, u64 address, u32 length, u16 flags, u16 next);
/* Entry n of the indirect table. */
void table_item(struct abuse *abuse, unsigned n, u64 address, u32 length, u16 flags, u16 next);
/* Makes the chain from `head` available, `count` descriptors in a packed ring, and notifies. */
void offer(struct abuse *abuse, u16 head, unsigned count);

/* A chain of one descriptor, offered. */
void offer_piece(struct abuse *abuse, u64 address, u32 length, u16 flags);
/* The same buffer in every descriptor, all of them heads. */
void offer_all_the_same(struct abuse *abuse);
/* Starts the device anew with this queue alone, at these addresses. */
void set_areas(struct abuse *abuse, u64 descriptors, u64 driver, u64 device, unsigned size);

/* ---- random.c ---- */

/* Random rings, messages and register writes. */
void abuse_at_random(struct abuse *abuse, unsigned rounds);

/* ---- console.c ---- */

/* Whether a console's ports are told of, as they should be. */
bool console_exercise(struct virtio *virtio);
/* A control message or none at random, into scratch memory at `offset`; returns its length. */
u32 console_random_message(u32 offset);

/* ---- disturb.c: nothing without a second CPU ---- */

/* The second CPU begins to notify and read, and when rough to reset and write. */
void disturb_begin(const struct virtio *virtio, bool rough);
void disturb_end(void);

#endif
