/* blk.h - block and random requests over virtio.h, verified: what was written is read again, and nothing but the buffers that
 * were given is touched. For the tests of devices, and to see that one still works after it was ill-treated. */
#ifndef GUEST_BLK_H
#define GUEST_BLK_H

#include "virtio.h"

enum { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8, BLK_DISCARD = 11, BLK_WRITE_ZEROES = 13 };
enum { BLK_OK = 0, BLK_IOERR = 1, BLK_UNSUPPORTED = 2, BLK_PENDING = 0xee };
#define F_BLK_RO (1ull << 5)
#define F_BLK_FLUSH (1ull << 9)
#define F_BLK_MQ (1ull << 12)
#define F_BLK_DISCARD (1ull << 13)
#define F_BLK_WRITE_ZEROES (1ull << 14)
#define F_BLK_ALL (F_BLK_RO | F_BLK_FLUSH | F_BLK_MQ | F_BLK_DISCARD | F_BLK_WRITE_ZEROES)

#define BLK_REQUESTS 128u
#define BLK_SECTORS 16u   /* of one request, at most */
#define BLK_AREA 8192u    /* sectors that are used, from the start of the disk; fewer when it has fewer */
#define BLK_AREA_MIN 256u /* that a disk must have */

struct blk_request {
    struct { u32 type, reserved; u64 sector; } header;
    u8 status;
    bool busy;
    u8 queue;  /* its index */
    u64 place; /* its first sector; a flush holds some as well */
    u32 sectors;
    u8 *data; /* BLK_SECTORS sectors, a page of canaries before and after */
};

/* How many requests each queue has under way at once, at most; 16 unless set. */
extern unsigned blk_depth;
/* How many requests were under way at once, in all queues, at most. */
extern unsigned blk_most;

u64 blk_capacity(const struct virtio *virtio);
/* One request, waited for; returns its status, or BLK_PENDING when it did not end. */
u8 blk_do(struct queue *queue, u32 type, u64 sector, void *data, u32 length, bool indirect);
/* `operations` random ones, as many at once as fit, over queues[0..count); false after the first failure, which is
 * reported as `name`. */
bool blk_exercise(struct virtio *virtio, unsigned queues, unsigned operations, bool indirect, const char *name);
/* Starts random requests until the queue is full, and notifies; nothing is waited for. What is on the disk there is unknown
 * afterwards. */
void blk_flood(struct virtio *virtio, unsigned queues, bool indirect);
/* After a reset that ended a flood: overwrites all data buffers... */
void blk_abandon(void);
/* ... which stay as they are: false when something was written since. */
bool blk_untouched(void);

/* Somebody else may have written to the disk: nothing is known of it. */
void blk_forget(void);

/* Asks the entropy device for `rounds` random pieces; false (reported as `name`) when lengths or canaries are wrong. */
bool rng_exercise(struct virtio *virtio, unsigned rounds, bool indirect, const char *name);

#endif
