/* reclaim.h - when to squeeze a guest: a policy over the balloon that brings free memory back to the host soon.
 *
 * Why reporting alone is not enough. Linux reports free pages in blocks of 2 MiB, no sooner than 2 seconds after the
 * first was freed, and then a sixteenth of them (at least 32 blocks of a size) every 2 seconds: after a program of 2 GiB ended, its
 * memory is back after half a minute. Nothing on the host's side changes that pace.
 *
 * But the host sees how much memory it has behind the guest, and the guest tells how much is free. The difference is
 * what the host holds for nobody. When that is much, twice in a row, the balloon takes free memory until the host has
 * got it back, and gives it to the guest again at once: the guest ends with as much free memory as before, and the host
 * has the pages. A guest that soon fills them again is squeezed less and less often.
 *
 * No clock, no device: what is known goes in, what is to be done comes out. */
#ifndef VENEER_DEVICE_VIRTIO_RECLAIM_H
#define VENEER_DEVICE_VIRTIO_RECLAIM_H

#include <stdbool.h>
#include <stdint.h>

enum reclaim_state { RECLAIM_WATCH, RECLAIM_CONFIRM, RECLAIM_SQUEEZE };

/* A zeroed one is at the beginning. The fields are reclaim.c's. */
struct reclaim {
    enum reclaim_state state;
    uint64_t surplus;          /* bytes, as seen first */
    uint64_t goal;             /* resident bytes at which a squeeze is over */
    uint64_t extra;            /* what the balloon takes for it */
    uint64_t actual, moved;    /* the balloon when it last grew, and when that was */
    uint64_t ended, rest;      /* when the last squeeze ended; how long to leave the guest alone after it */
    unsigned squeezes;         /* so far */
};

/* Bytes; times in nanoseconds of one clock. */
struct reclaim_view {
    uint64_t now;
    uint64_t size;     /* of the guest's RAM */
    uint64_t resident; /* host memory behind it */
    uint64_t target;   /* of the balloon, but for what reclaim itself asks */
    uint64_t actual;   /* in the balloon */
    bool fresh;        /* `free` was told for this look */
    uint64_t free;     /* in the guest, as it told */
};

struct reclaim_plan {
    uint64_t extra; /* what the balloon is to take besides its target */
    bool ask;       /* have the guest tell how much is free, and look again with that */
    uint64_t at;    /* look again then, in any case */
};

/* One look. To be called at plan.at, and when statistics arrive that were asked for. */
struct reclaim_plan reclaim_look(struct reclaim *reclaim, const struct reclaim_view *view);

#endif
