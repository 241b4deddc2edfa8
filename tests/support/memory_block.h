/* memory_block.h - a volume in memory, for tests of what uses one. Completes what was submitted when it is kicked, or, with
 * `slow` set, when memory_block_finish is called. Counts what it did. */
#ifndef VENEER_TESTS_SUPPORT_MEMORY_BLOCK_H
#define VENEER_TESTS_SUPPORT_MEMORY_BLOCK_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/block.h"

struct memory_block {
    struct block block;
    uint8_t *bytes;
    struct block_request *first, **last;
    bool slow;
    int fail; /* 0, or what requests end with */
    unsigned reads, writes, flushes, discards, zeroes, fua, unmap;
};

static inline void memory_block_submit(struct block *block, struct block_request *request)
{
    struct memory_block *memory = (struct memory_block *)block;
    request->next = NULL;
    *memory->last = request;
    memory->last = &request->next;
}

static inline void memory_block_do(struct memory_block *memory, const struct block_request *request)
{
    uint64_t at = request->offset;
    memory->fua += (request->flags & BLOCK_FUA) != 0;
    memory->unmap += (request->flags & BLOCK_UNMAP) != 0;
    memory->reads += request->op == BLOCK_READ;
    memory->writes += request->op == BLOCK_WRITE;
    memory->flushes += request->op == BLOCK_FLUSH;
    memory->discards += request->op == BLOCK_DISCARD;
    memory->zeroes += request->op == BLOCK_WRITE_ZEROES;
    if (request->op == BLOCK_WRITE_ZEROES)
        memset(memory->bytes + at, 0, request->length);
    for (unsigned i = 0; i < request->iov_count; i++) {
        if (request->op == BLOCK_READ)
            memcpy(request->iov[i].iov_base, memory->bytes + at, request->iov[i].iov_len);
        else if (request->op == BLOCK_WRITE)
            memcpy(memory->bytes + at, request->iov[i].iov_base, request->iov[i].iov_len);
        at += request->iov[i].iov_len;
    }
}

static inline void memory_block_finish(struct memory_block *memory)
{
    while (memory->first) {
        struct block_request *request = memory->first;
        memory->first = request->next;
        if (!memory->first)
            memory->last = &memory->first;
        if (!memory->fail)
            memory_block_do(memory, request);
        block_complete(request, memory->fail);
    }
}

static inline void memory_block_kick(struct block *block)
{
    struct memory_block *memory = (struct memory_block *)block;
    if (!memory->slow)
        memory_block_finish(memory);
}

static inline int memory_block_close(struct block *block)
{
    struct memory_block *memory = (struct memory_block *)block;
    free(memory->bytes);
    free(memory);
    return 0;
}

static inline int memory_block_resize(struct block *block, uint64_t size, struct error *error)
{
    struct memory_block *memory = (struct memory_block *)block;
    uint8_t *bytes = realloc(memory->bytes, size);
    if (!bytes)
        return error_set(error, ENOMEM, "no memory");
    if (size > block->limits.size)
        memset(bytes + block->limits.size, 0, size - block->limits.size);
    memory->bytes = bytes;
    block->limits.size = size;
    return 0;
}

static inline struct memory_block *memory_block_new(uint64_t size)
{
    static const struct block_ops ops = {.name = "memory", .submit = memory_block_submit, .kick = memory_block_kick,
                                         .close = memory_block_close, .resize = memory_block_resize};
    struct memory_block *memory = calloc(1, sizeof *memory);
    memory->block.ops = &ops;
    memory->block.limits = (struct block_limits){.size = size, .sector_size = 512, .optimal_size = 4096, .max_iov = 1024,
        .max_transfer = UINT32_MAX, .discard_granularity = 4096, .can_discard = true};
    memory->bytes = calloc(1, size);
    memory->last = &memory->first;
    return memory;
}

#endif
