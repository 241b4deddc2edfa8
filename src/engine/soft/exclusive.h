/* exclusive.h - one vCPU alone among the vCPUs of a VM.
 *
 * A LOCK operation across a page or on MMIO has no host instruction that is atomic; it is done while no other
 * vCPU executes one. Each vCPU is a member, and either executes guest code or not: outside its run
 * function, and inside a callback of the machine, it does not, so whoever waits for it there (for
 * the board's lock, say) is not in anyone's way.
 *
 * Invariant: a member that executes has seen `owner` NULL, or itself, after it said so. Both sides write their
 * own word and then read the other's, with full barriers. */
#ifndef VENEER_ENGINE_SOFT_EXCLUSIVE_H
#define VENEER_ENGINE_SOFT_EXCLUSIVE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct exclusive_member {
    _Atomic bool executing;
    struct exclusive_member *next; /* all members of a VM, set before any runs */
};

struct exclusive {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a member stopped executing while there is an owner, or the owner is done */
    struct exclusive_member *_Atomic owner;
    struct exclusive_member *members;
};

void exclusive_init(struct exclusive *exclusive);
void exclusive_destroy(struct exclusive *exclusive);
/* Not while a member executes. */
void exclusive_add(struct exclusive *exclusive, struct exclusive_member *member);
void exclusive_remove(struct exclusive *exclusive, const struct exclusive_member *member);

/* The member is about to execute guest code, or has stopped for now. Enter waits while another member is
 * alone. On the member's thread; at an instruction boundary or inside an instruction that holds no half-done
 * effect. */
void exclusive_enter(struct exclusive *exclusive, struct exclusive_member *member);
void exclusive_leave(struct exclusive *exclusive, struct exclusive_member *member);

/* Between these no other member executes. The member executes when it calls; `prod(context)` must make the
 * others call exclusive_leave soon and is called once this member owns the place. Of two that begin at once
 * one waits, counted as stopped. */
void exclusive_begin(struct exclusive *exclusive, struct exclusive_member *member, void (*prod)(void *context),
                     void *context);
void exclusive_end(struct exclusive *exclusive);

#endif
