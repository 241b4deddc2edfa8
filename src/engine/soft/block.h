/* block.h - decoded code: straight runs of instructions, cached per guest-physical page. One cache a vCPU.
 *
 * A block is found by its key: the guest-physical address of its first byte and the code mode. Nothing else
 * goes into decoding, so blocks survive changes of the page tables and of the privilege level; whoever
 * enters a block has looked up, in the TLB, that its linear address leads to that physical one now.
 *
 * A block ends at an instruction with X86_INSN_ENDS or X86_INSN_PRIVILEGED, at BLOCK_INSNS, or before an
 * instruction that crosses into the next page. Such an instruction is a block of its own, with BLOCK_CROSSES
 * in its key, valid only where the next linear page leads to the physical page it was decoded from.
 *
 * Blocks are type-stable: a pointer to one stays readable after it was dropped, and its key then tells
 * that it is another (BLOCK_DEAD, or that of the code which took its place), until block_flush, which
 * empties `jump` too. Memory is reused by block_build only, so the block that is running may be dropped.
 *
 * A cache belongs to the thread of its vCPU; only the code map is shared. */
#ifndef VENEER_ENGINE_SOFT_BLOCK_H
#define VENEER_ENGINE_SOFT_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/soft/codemap.h"
#include "engine/soft/tier.h"
#include "isa/x86/decode.h"
#include "isa/x86/insn.h"

#define BLOCK_INSNS 64u
#define BLOCK_JUMPS 8192u   /* entries of the jump cache, a power of two */
#define BLOCK_BUCKETS 262144u /* of the hash table, at most; a power of two */
#define BLOCK_BUCKETS_MIN 1024u

/* Guest-physical addresses have at most 52 bits. */
#define BLOCK_MODE_SHIFT 56
#define BLOCK_CROSSES (UINT64_C(1) << 60)
#define BLOCK_DEAD UINT64_MAX

struct block {
    uint64_t key;
    struct block *hash_next;    /* in its bucket; in a free list once dropped */
    struct block *page_next[2]; /* in the list of its page, and of its second page */
    uint64_t second;            /* with BLOCK_CROSSES: the GPA of the page its end was decoded from */
    uint16_t bytes;             /* that it depends on */
    uint16_t count;             /* of instructions */
    uint16_t runs;              /* for a tier: how often it was offered the block */
    struct trace_part *parts;   /* for a tier: of what it is a part */
    uint32_t live;              /* for a tier: arithmetic flags that are read before they are written, if known */
    bool live_known;
    bool plain;                 /* ends without touching mode, privilege, interrupts or activity */
    _Alignas(64) struct x86_insn insn[];
};

struct block_cache {
    struct code_map *map;
    unsigned holder;       /* this vCPU's bit in the map */
    struct block **bucket; /* by key */
    size_t buckets;        /* a power of two, as befits the arena */
    struct block **page;   /* by number of the page: the first block of its list */
    uint8_t *arena;
    size_t arena_size, arena_used;
    struct block *free[BLOCK_INSNS + 1]; /* by number of instructions */
    struct block *running;               /* which the vCPU executes, or NULL */
    const struct tier_ops *tier; /* is told of what is dropped; may be NULL */
    struct engine_vcpu *vcpu;
    uint64_t built, dropped, flushes;    /* statistics */
    struct block *jump[BLOCK_JUMPS];     /* by linear address; unproven: compare the key */
};

/* map outlives the cache. arena_size: bytes for blocks, at least 64 KiB. Returns 0 or a negative errno. */
int block_cache_open(struct block_cache *ret_cache, struct code_map *map, unsigned holder, size_t arena_size,
                     struct error *error);
void block_cache_close(struct block_cache *cache);

static inline uint64_t block_key(uint64_t gpa, enum x86_code_mode mode)
{
    return gpa | (uint64_t)mode << BLOCK_MODE_SHIFT;
}
/* The slot of the jump cache for a linear address. */
static inline struct block **block_jump(struct block_cache *cache, uint64_t linear)
{
    return &cache->jump[(linear ^ linear >> 13) % BLOCK_JUMPS];
}

/* The block with this key, or NULL. second: as in struct block, looked at with BLOCK_CROSSES only. */
struct block *block_find(const struct block_cache *cache, uint64_t key, uint64_t second);

/* Where code is decoded from. */
struct block_source {
    uint64_t gpa;          /* of the first byte */
    const uint8_t *page;   /* host address of its page */
    uint64_t second;       /* GPA of the page that follows in linear order */
    const uint8_t *follow; /* its host address, or NULL: not looked up yet */
};

/* Decodes the block at source->gpa and enters it. Returns 0; or -EAGAIN when its first instruction crosses
 * into the next page and source->follow is NULL. May drop other blocks, but not while one runs: call it
 * between blocks. */
int block_build(struct block_cache *cache, struct x86_decoder *decoder, enum x86_code_mode mode,
                const struct block_source *source, struct block **ret_block);

/* True when block_build will not have to drop others to make room. */
bool block_has_room(const struct block_cache *cache);

/* Drops the blocks decoded from [gpa, gpa + length), which lies in one page. True when the running
 * block was among them. */
bool block_drop(struct block_cache *cache, uint64_t gpa, unsigned length);
/* Drops all. Not while a block runs. */
void block_flush(struct block_cache *cache);

#endif
