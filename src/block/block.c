#include "block/block.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "base/checked.h"

static bool is_write(enum block_op op)
{
    return op == BLOCK_WRITE || op == BLOCK_DISCARD || op == BLOCK_WRITE_ZEROES;
}

/* 0 when the operation keeps the contract, but for its buffers. */
static int check(const struct block *block, enum block_op op, unsigned flags, uint64_t offset, uint64_t length)
{
    const struct block_limits *limits = &block->limits;
    static const unsigned allowed[] = {
        [BLOCK_READ] = 0,
        [BLOCK_WRITE] = BLOCK_FUA,
        [BLOCK_FLUSH] = 0,
        [BLOCK_DISCARD] = 0,
        [BLOCK_WRITE_ZEROES] = BLOCK_FUA | BLOCK_UNMAP,
    };
    if ((unsigned)op >= sizeof allowed / sizeof allowed[0] || (flags & ~allowed[op]))
        return -EOPNOTSUPP;
    if (op == BLOCK_FLUSH)
        return offset || length ? -EINVAL : 0;
    if (!length || !range_within(offset, length, limits->size) || ((offset | length) & (limits->sector_size - 1)))
        return -EINVAL;
    if ((op == BLOCK_READ || op == BLOCK_WRITE) && length > limits->max_transfer)
        return -EINVAL;
    return is_write(op) && limits->readonly ? -EROFS : 0;
}

static int check_buffers(const struct block *block, const struct block_request *request)
{
    if (request->op != BLOCK_READ && request->op != BLOCK_WRITE)
        return 0;
    if (!request->iov_count || request->iov_count > block->limits.max_iov)
        return -EINVAL;
    uint64_t left = request->length;
    for (unsigned i = 0; i < request->iov_count; i++) {
        if (request->iov[i].iov_len > left)
            return -EINVAL;
        left -= request->iov[i].iov_len;
    }
    return left ? -EINVAL : 0;
}

void block_submit(struct block *block, struct block_request *request)
{
    request->block = block;
    request->next = NULL;
    request->done = 0;
    request->private = NULL;
    block->in_flight++;
    int status = check(block, request->op, request->flags, request->offset, request->length);
    if (status == 0)
        status = check_buffers(block, request);
    bool hint = request->op == BLOCK_DISCARD && !block->limits.can_discard; /* not taken */
    if (status < 0 || hint) {
        request->done = (uint64_t)-status;
        request->next = block->refused;
        block->refused = request;
        return;
    }
    block->ops->submit(block, request);
}

void block_kick(struct block *block)
{
    while (block->refused) {
        struct block_request *request = block->refused;
        block->refused = request->next;
        block_complete(request, -(int)request->done);
    }
    block->ops->kick(block);
}

void block_complete(struct block_request *request, int status)
{
    struct block *block = request->block;
    assert(block && block->in_flight && status <= 0); /* a request completes exactly once */
    request->block = NULL;
    block->in_flight--;
    request->complete(request, status);
}

int block_transfer(struct block *block, enum block_op op, unsigned flags, uint64_t offset, void *bytes, uint64_t length)
{
    int status = check(block, op, flags, offset, length);
    if (status == 0 && op == BLOCK_DISCARD && !block->limits.can_discard)
        return 0;
    return status < 0 ? status : block->ops->transfer(block, op, flags, offset, bytes, length);
}

int block_extent(struct block *block, uint64_t offset, uint64_t length, struct block_extent *ret_extent)
{
    if (!length || !range_within(offset, length, block->limits.size))
        return -EINVAL;
    int status = block->ops->extent(block, offset, length, ret_extent);
    assert(status < 0 || (ret_extent->length && ret_extent->length <= length));
    return status;
}

int block_resize(struct block *block, uint64_t size, struct error *error)
{
    if (size & (block->limits.sector_size - 1))
        return error_set(error, EINVAL, "a size of %llu bytes is not a whole number of %u-byte sectors",
                         (unsigned long long)size, block->limits.sector_size);
    if (block->limits.readonly)
        return error_set(error, EROFS, "the volume is open read-only");
    return size == block->limits.size ? 0 : block->ops->resize(block, size, error);
}

int block_close(struct block *block)
{
    if (!block)
        return 0;
    assert(!block->in_flight);
    int status = block->ops->close(block);
    assert(status <= 0);
    return status;
}
