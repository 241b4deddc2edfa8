/* balloon.h - a machine's memory balloon, for who controls the machine. Any thread while the machine exists. */
#ifndef VENEER_MACHINE_BALLOON_H
#define VENEER_MACHINE_BALLOON_H

#include "device/virtio/balloon.h"
#include "machine/machine.h"

struct machine_memory {
    uint64_t size;     /* bytes of RAM that the guest has */
    uint64_t resident; /* bytes of host memory behind it now */
    bool has_balloon;
    struct balloon_info balloon;
};

/* Sets how many bytes the balloon is to take from the guest; it does so as the guest can spare them. Returns 0, -ENOENT (the
 * machine has no balloon) or -ERANGE (more than the guest has) with a sentence. */
int machine_balloon_set(struct machine *machine, uint64_t bytes, struct error *error);
/* What is known now; asks the guest for new statistics, so that a call a moment later tells those. */
void machine_memory(struct machine *machine, struct machine_memory *ret_memory);

#endif
