/* abuse.h - what a hostile driver needs: rings written by hand, memory that a device may write and memory that it may
 * not, and the check that a device has survived. */
#ifndef GUEST_ABUSE_H
#define GUEST_ABUSE_H

#include "blk.h"

#define RAM_END (256ull << 20)    /* the tests run with that much */
#define NOWHERE (RAM_END + 65536) /* neither RAM nor registers */
#define ABUSED_QUEUES 3u          /* of each device */

struct abuse {
    struct virtio *virtio;
    unsigned index; /* of the queue */
    u64 features;
    struct queue *queue;
    bool eager; /* the device looks at what this queue offers at once */
    u32 bar[6]; /* as they were found */
    u16 next;   /* packed: where the next descriptor goes */
    bool wrap;
};

void abuse_prepare(void);
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

/* Random rings and register writes. */
void abuse_at_random(struct abuse *abuse, unsigned rounds);

#endif
