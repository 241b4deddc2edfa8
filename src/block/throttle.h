/* throttle.h - a filter that bounds the rate of a volume's requests. */
#ifndef VENEER_BLOCK_THROTTLE_H
#define VENEER_BLOCK_THROTTLE_H

#include "base/clock.h"
#include "block/block.h"

/* Bounds, each 0 for none. After a pause, what a tenth of a second allows may go at once. Reads, writes, discards and
 * write-zeroes count as operations, reads and writes by their bytes; flushes pass. The blocking functions pass, too.
 * clock: copied; its timers fire on the thread that the block belongs to. Takes `below`, unless it fails. 0 or -ENOMEM. */
int throttle_new(struct block *below, const struct clock *clock, uint64_t iops, uint64_t bps, struct block **ret_block);

#endif
