/* raw.h - a file or block device whose bytes are the volume's. */
#ifndef VENEER_BLOCK_RAW_H
#define VENEER_BLOCK_RAW_H

#include "block/open.h"

/* Opens options->path (the filters' and format's options are not looked at) and locks it. */
int raw_open(const struct block_options *options, struct loop *loop, struct block **ret_block, struct error *error);

/* How raw gets its work done, for tests and measurements. */
struct raw_tuning {
    bool no_ring;        /* as where the host refuses io_uring */
    uint64_t inline_max; /* writes to the page cache up to so many bytes are done at kick; the rest by the ring */
    bool no_nowait;      /* reads do not look into the page cache first */
    uint64_t bounce_min; /* past the page cache, those of so many bytes go through memory of ours; 0: none for its size */
    uint32_t direct_unit; /* O_DIRECT takes only multiples of it, if that is more than is so; 0: no more */
};
extern struct raw_tuning raw_tuning;

#endif
