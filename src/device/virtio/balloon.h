/* balloon.h - the virtio memory balloon (virtio 1.2, 5.5): memory that the guest does not need goes back to the host.
 *
 * Three ways: the balloon proper, which takes as much from the guest as the host sets as its target (and the guest takes
 * back when it would otherwise kill a program for want of memory); free page reporting, by which the guest tells
 * what it happens not to use; and reclaim.h, which uses the balloon where reporting is slow. Each way the pages leave
 * the host's memory at once and read as zero when the guest uses them again. */
#ifndef VENEER_DEVICE_VIRTIO_BALLOON_H
#define VENEER_DEVICE_VIRTIO_BALLOON_H

#include "device/virtio/virtio.h"

/* What a guest tells about its memory; the numbers are the standard's tags (5.5.6.4). */
enum balloon_stat {
    BALLOON_SWAP_IN, BALLOON_SWAP_OUT,       /* bytes, in all */
    BALLOON_MAJOR_FAULTS, BALLOON_MINOR_FAULTS,
    BALLOON_FREE, BALLOON_TOTAL,             /* bytes */
    BALLOON_AVAILABLE,                       /* bytes that programs can have without swapping */
    BALLOON_CACHES,                          /* bytes that can be had back quickly */
    BALLOON_HUGE_PAGES, BALLOON_HUGE_FAILED, /* allocations, in all */
    BALLOON_STATS
};

struct balloon_info {
    bool present;                 /* the guest has a driver for it */
    uint64_t target;              /* bytes that the host wants */
    uint64_t actual;              /* bytes that the balloon has */
    uint64_t inflated, reported;  /* bytes given back to the host since the start, by the balloon and by reporting */
    unsigned squeezes;            /* how often it was squeezed for memory that nobody used; see reclaim.h */
    unsigned known;               /* bit n: stat[n] was told */
    uint64_t stat[BALLOON_STATS]; /* as last told */
    uint64_t told_ns;             /* when, by the clock of the loop; 0: never */
};

/* target: bytes that the balloon is to take at first. NULL and an error when there is no memory. */
struct virtio_device *virtio_balloon_new(const struct virtio_env *env, uint64_t target, struct error *error);
/* Any thread that does not hold the board's lock. target: bytes, rounded down to pages and to what the guest has. */
void virtio_balloon_set(struct virtio_device *device, uint64_t target);
/* Asks the guest for new statistics; they come later. Any thread. */
void virtio_balloon_ask(struct virtio_device *device);
/* Any thread that does not hold the board's lock. */
void virtio_balloon_info(struct virtio_device *device, struct balloon_info *ret_info);

#endif
