/* codemap.h - which pages of guest RAM hold code that some vCPU has decoded. One per VM, shared.
 *
 * For each page: the vCPUs that hold blocks of it, and which of its 64 chunks of 64 bytes those blocks were
 * decoded from. Both may say too much (a vCPU has since dropped its blocks), never too little. They let a
 * store beside code go on after one look, and an invalidation go only to whom it concerns.
 *
 * No store is lost. A vCPU that decodes (1) marks the chunks, (2) makes sure that the page has
 * RAM_PAGE_CODE, with membarrier's help, and (3) reads the bytes, again if it had read them before. One
 * that stores (a) stores, (b) looks at RAM_PAGE_CODE and, if set, (c) passes a full barrier and looks at the
 * chunks. If (b) saw no flag, the barrier in (2) put the store before (3). If it did, then either (c)
 * sees the mark of (1), or the store was visible before (1) and so to (3). */
#ifndef VENEER_ENGINE_SOFT_CODEMAP_H
#define VENEER_ENGINE_SOFT_CODEMAP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/ram.h"

#define CODE_HOLDERS 64u       /* vCPUs, bits of a word */
#define CODE_CHUNK 64u         /* bytes */
#define CODE_NO_PAGE SIZE_MAX

struct code_page {
    _Atomic uint64_t holders; /* bit n: vCPU n may hold blocks */
    _Atomic uint64_t chunks;  /* bit n: bytes [64 n, 64 n + 64) may be decoded somewhere */
};

struct code_map {
    struct ram *ram;
    size_t first[RAM_REGIONS]; /* the number of each region's first page */
    size_t pages;
    struct code_page *page; /* by page number; touched lazily */
    pthread_mutex_t lock;   /* orders changes of `page` and RAM_PAGE_CODE among each other */
    _Atomic unsigned beside; /* stores to flagged pages without code, so far */
};

/* ram outlives the map. Returns 0 or a negative errno. */
int code_map_open(struct code_map *ret_map, struct ram *ram, struct error *error);
void code_map_close(struct code_map *map);

/* The number of the page of RAM that holds gpa, or CODE_NO_PAGE. */
static inline size_t code_map_page(const struct code_map *map, uint64_t gpa)
{
    for (unsigned i = 0; i < map->ram->regions; i++) {
        const struct ram_region *region = &map->ram->region[i];
        if (gpa - region->gpa < region->size)
            return map->first[i] + (size_t)((gpa - region->gpa) / RAM_PAGE_SIZE);
    }
    return CODE_NO_PAGE;
}

/* The chunks that the bytes [offset, offset + length) of a page touch; length at least 1, within the page. */
static inline uint64_t code_chunks(unsigned offset, unsigned length)
{
    unsigned first = offset / CODE_CHUNK, last = (offset + length - 1) / CODE_CHUNK;
    return (UINT64_MAX >> (63 - last)) & (UINT64_MAX << first);
}

/* Steps (1) and (2): vCPU `holder` is about to trust its reading of these chunks of the page at gpa. False,
 * and nothing done, when the page has no RAM_PAGE_CODE yet and `may_mark` is not set: a tier whose stores do not
 * look at the flag needs all vCPUs stopped while a page gets it. */
bool code_map_hold(struct code_map *map, uint64_t gpa, unsigned holder, uint64_t chunks, bool may_mark);
/* vCPU `holder` now holds blocks of just these chunks of the page (none: 0). */
void code_map_keep(struct code_map *map, uint64_t gpa, unsigned holder, uint64_t chunks);

/* Step (c), after a store to [gpa, gpa + length), which lies in one page of RAM: the vCPUs that must drop
 * what they decoded from it, as bits. Any thread. */
uint64_t code_map_written(struct code_map *map, uint64_t gpa, unsigned length);

#endif
