/* ram.h - guest RAM: regions of one memfd, bounded copies, dirty and code-page tracking.
 *
 * Addresses are guest-physical (GPA). RAM is made of at most RAM_REGIONS regions, set before the VM
 * runs and constant after, so that readers need no lock. Each 4 KiB page has one flag byte:
 *   RAM_PAGE_CODE   an engine holds something derived from the page's bytes as code;
 *   RAM_PAGE_DIRTY  written since the flag was last fetched.
 * Whoever stores to a page with RAM_PAGE_CODE must call ram_code_written after the store. Devices do so
 * through ram_write; engines look at the flag byte themselves.
 *
 * Setting RAM_PAGE_CODE while other threads may be storing: see ram_code_mark. */
#ifndef VENEER_MEMORY_RAM_H
#define VENEER_MEMORY_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define RAM_REGIONS 4
#define RAM_PAGE_SIZE 4096u
#define RAM_PAGE_CODE 0x01u
#define RAM_PAGE_DIRTY 0x02u

struct ram_region {
    uint64_t gpa;    /* first address, page-aligned */
    uint64_t size;   /* bytes, whole pages */
    uint8_t *host;   /* where it is mapped */
    uint64_t offset; /* in the memfd */
    uint8_t *flags;  /* one byte per page, atomic access */
};

struct ram {
    int fd; /* the memfd */
    unsigned regions;
    struct ram_region region[RAM_REGIONS];
    uint64_t size; /* bytes in all */
    void (*code_written)(void *owner, uint64_t gpa, uint64_t length); /* see ram_set_code_hook */
    void *code_owner;
    void (*dirty_fetched)(void *owner); /* see ram_set_dirty_hook */
    void *dirty_owner;
};

/* Makes RAM of `size` bytes (whole pages), [0, min(size, low_limit)) and, for the rest, from high_base on.
 * Nothing is touched yet: pages come from the host as the guest uses them. Returns 0 or a negative errno
 * (-ENOMEM with a text that says how much was asked). */
int ram_open(struct ram *ret_ram, uint64_t size, uint64_t low_limit, uint64_t high_base, struct error *error);
void ram_close(struct ram *ram);

/* The region that holds gpa, or NULL. */
const struct ram_region *ram_find(const struct ram *ram, uint64_t gpa);

/* Host address of [gpa, gpa + length) when it lies in one region, or NULL. The caller does its own
 * dirty and code tracking for stores through it. */
void *ram_host(const struct ram *ram, uint64_t gpa, uint64_t length);

/* Copies; the range must lie in RAM (it may span regions that touch). Return 0 or -EFAULT, and then
 * nothing was copied. ram_write marks pages dirty and calls the code hook. Any thread. */
int ram_read(const struct ram *ram, uint64_t gpa, void *ret_bytes, uint64_t length);
int ram_write(struct ram *ram, uint64_t gpa, const void *bytes, uint64_t length);

/* What ram_write does after its copy, for who stored to [gpa, gpa + length) through ram_host; the range lies in one
 * region. Any thread. */
void ram_written(struct ram *ram, uint64_t gpa, uint64_t length);

/* Gives the host back what backs whole pages of one region, under every mapping of them: they read as zero from then
 * on, and take memory again when they are touched. Marks them dirty and calls the code hook, as a store of zeroes
 * would. Returns 0, -EINVAL (not whole pages), -EFAULT (not in one region), or what the host refused with, and then they are
 * as they were. Any thread. */
int ram_discard(struct ram *ram, uint64_t gpa, uint64_t length);
/* Bytes of host memory that guest RAM takes now. Any thread. */
uint64_t ram_resident(const struct ram *ram);

/* The hook that ram_write calls (on the writing thread) after a store to pages with RAM_PAGE_CODE. */
void ram_set_code_hook(struct ram *ram, void (*code_written)(void *owner, uint64_t gpa, uint64_t length),
                       void *owner);

/* Marks the page that holds gpa as code and, when it was not, makes every thread of the process pass a
 * full memory barrier (membarrier(2)) before it returns. A thread that stored to the page before that
 * and saw no flag has its store visible to the caller afterwards; a later store sees the flag. So: mark,
 * then read the bytes. Any thread. */
void ram_code_mark(struct ram *ram, uint64_t gpa);
/* Takes the code flag back. The caller holds whatever lock orders it against ram_code_mark. */
void ram_code_clear(struct ram *ram, uint64_t gpa);

/* The hook that ram_dirty_fetch calls after it cleared flags: an engine that remembers that a page is dirty forgets it,
 * so that every store that comes after the hook marks its page again. A store that came in between was to a page that the
 * bitmap has: whoever copies pages reads them after the fetch. */
void ram_set_dirty_hook(struct ram *ram, void (*dirty_fetched)(void *owner), void *owner);

/* Sets bit n of the bitmap for each page n of the region whose dirty flag was set, and clears the flags.
 * bitmap: (pages + 63) / 64 words, not cleared first. */
void ram_dirty_fetch(struct ram *ram, unsigned region, uint64_t *bitmap);

#endif
