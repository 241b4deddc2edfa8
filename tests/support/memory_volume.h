/* memory_volume.h - a volume in memory that keeps a log of what was written to it, so that a test can ask what a disk
 * would hold had the power failed at any moment. */
#ifndef VENEER_TESTS_SUPPORT_MEMORY_VOLUME_H
#define VENEER_TESTS_SUPPORT_MEMORY_VOLUME_H

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "block/block.h"

struct memory_write {
    uint64_t offset, length; /* both 0: a flush */
    uint8_t *bytes;
};

struct memory_volume {
    struct block block;
    uint8_t *bytes;
    uint64_t room;
    uint64_t most; /* it grows no further */
    struct memory_write *log;
    unsigned logged, log_room;
    struct block_request *first, **last;
    bool kept; /* the close leaves it to memory_volume_free */
};

static inline struct memory_volume *memory_of(struct block *block)
{
    return (struct memory_volume *)((char *)block - offsetof(struct memory_volume, block));
}

static inline void memory_log(struct memory_volume *memory, uint64_t offset, const void *bytes, uint64_t length)
{
    if (memory->logged == memory->log_room) {
        memory->log_room = memory->log_room ? 2 * memory->log_room : 256;
        memory->log = realloc(memory->log, memory->log_room * sizeof *memory->log);
    }
    struct memory_write *write = &memory->log[memory->logged++];
    *write = (struct memory_write){.offset = offset, .length = length, .bytes = length ? malloc(length) : NULL};
    if (length)
        memcpy(write->bytes, bytes, length);
}

static inline int memory_do(struct memory_volume *memory, enum block_op op, uint64_t offset, void *bytes, uint64_t length)
{
    switch (op) {
    case BLOCK_READ:
        memcpy(bytes, memory->bytes + offset, length);
        break;
    case BLOCK_WRITE:
        memcpy(memory->bytes + offset, bytes, length);
        memory_log(memory, offset, bytes, length);
        break;
    case BLOCK_FLUSH:
        memory_log(memory, 0, NULL, 0);
        break;
    case BLOCK_DISCARD:
    case BLOCK_WRITE_ZEROES:
        memset(memory->bytes + offset, 0, length);
        memory_log(memory, offset, memory->bytes + offset, length);
        break;
    }
    return 0;
}

static inline void memory_submit(struct block *block, struct block_request *request)
{
    struct memory_volume *memory = memory_of(block);
    request->next = NULL;
    *memory->last = request;
    memory->last = &request->next;
}

static inline void memory_kick(struct block *block)
{
    struct memory_volume *memory = memory_of(block);
    while (memory->first) {
        struct block_request *request = memory->first;
        memory->first = request->next;
        if (!memory->first)
            memory->last = &memory->first;
        uint64_t offset = request->offset;
        if (!request->iov_count)
            memory_do(memory, request->op, offset, memory->bytes, request->length); /* not looked at */
        for (unsigned i = 0; i < request->iov_count; i++) {
            memory_do(memory, request->op, offset, request->iov[i].iov_base, request->iov[i].iov_len);
            offset += request->iov[i].iov_len;
        }
        block_complete(request, 0);
    }
}

static inline int memory_transfer(struct block *block, enum block_op op, unsigned flags, uint64_t offset, void *bytes, uint64_t length)
{
    (void)flags;
    return memory_do(memory_of(block), op, offset, bytes, length);
}

static inline int memory_extent(struct block *block, uint64_t offset, uint64_t length, struct block_extent *ret_extent)
{
    (void)block, (void)offset;
    *ret_extent = (struct block_extent){.length = length, .data = true, .allocated = true};
    return 0;
}

static inline int memory_resize(struct block *block, uint64_t size, struct error *error)
{
    struct memory_volume *memory = memory_of(block);
    if (size > memory->most)
        return error_set(error, EFBIG, "a volume in memory of more than %llu bytes", (unsigned long long)memory->most);
    if (size > memory->room) {
        memory->bytes = realloc(memory->bytes, size);
        memset(memory->bytes + memory->room, 0, size - memory->room);
        memory->room = size;
    } else if (size < block->limits.size) {
        memset(memory->bytes + size, 0, memory->room - size);
    }
    block->limits.size = size;
    return 0;
}

static inline void memory_volume_free(struct memory_volume *memory)
{
    for (unsigned i = 0; i < memory->logged; i++)
        free(memory->log[i].bytes);
    free(memory->log);
    free(memory->bytes);
    free(memory);
}

static inline int memory_close(struct block *block)
{
    if (!memory_of(block)->kept)
        memory_volume_free(memory_of(block));
    return 0;
}

/* A volume that holds a copy of the bytes; `length` in whole sectors. */
static inline struct memory_volume *memory_volume_new(const void *bytes, uint64_t length)
{
    static const struct block_ops ops = {.name = "memory", .submit = memory_submit, .kick = memory_kick, .transfer = memory_transfer,
                                         .extent = memory_extent, .resize = memory_resize, .close = memory_close};
    struct memory_volume *memory = calloc(1, sizeof *memory);
    memory->block.ops = &ops;
    memory->block.limits = (struct block_limits){.size = length, .sector_size = 512, .optimal_size = 4096, .max_iov = 1024,
                                                 .max_transfer = 1u << 30, .discard_granularity = 512, .growable = true,
                                                 .can_discard = true};
    memory->last = &memory->first;
    memory->bytes = malloc(length ? length : 1);
    if (length)
        memcpy(memory->bytes, bytes, length);
    memory->room = length;
    memory->most = 256u << 20;
    return memory;
}

#endif
