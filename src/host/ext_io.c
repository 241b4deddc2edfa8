#include "host/ext_io.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

/* The chunk with the byte at `offset` of the file system; NULL when it cannot be read. *ret_length: its bytes. */
static const uint8_t *find_chunk(struct ext_io *io, uint64_t offset, size_t *ret_length)
{
    uint64_t start = offset / EXT_IO_CHUNK * EXT_IO_CHUNK;
    size_t length = io->size - start < EXT_IO_CHUNK ? (size_t)(io->size - start) : EXT_IO_CHUNK;
    unsigned oldest = 0;
    *ret_length = length;
    for (unsigned i = 0; i < EXT_IO_CHUNKS; i++) {
        if (io->at[i] == start + 1) {
            io->used[i] = ++io->tick;
            return io->chunk[i];
        }
        if (io->used[i] < io->used[oldest])
            oldest = i;
    }
    io->at[oldest] = 0;
    if (io->read(io->owner, io->offset + start, io->chunk[oldest], length) < 0)
        return NULL;
    io->at[oldest] = start + 1;
    io->used[oldest] = ++io->tick;
    return io->chunk[oldest];
}

static errcode_t read_bytes(struct ext_io *io, uint64_t offset, void *data, uint64_t length)
{
    uint8_t *out = data;
    if (!range_within(offset, length, io->size))
        return EXT2_ET_SHORT_READ;
    while (length) {
        size_t held;
        const uint8_t *chunk = find_chunk(io, offset, &held);
        size_t at = offset % EXT_IO_CHUNK;
        if (!chunk)
            return EXT2_ET_SHORT_READ;
        size_t part = held - at < length ? held - at : (size_t)length;
        memcpy(out, chunk + at, part);
        out += part, offset += part, length -= part;
    }
    return 0;
}

/* A negative count is a number of bytes. */
static errcode_t io_read64(io_channel channel, unsigned long long block, int count, void *data)
{
    struct ext_io *io = channel->private_data;
    uint64_t size = (uint64_t)channel->block_size;
    uint64_t length = count < 0 ? (uint64_t)-(int64_t)count : (uint64_t)count * size;
    if (block > io->size / size)
        return EXT2_ET_SHORT_READ;
    return read_bytes(io, block * size, data, length);
}

static errcode_t io_read(io_channel channel, unsigned long block, int count, void *data)
{
    return io_read64(channel, block, count, data);
}

static errcode_t io_set_blksize(io_channel channel, int size)
{
    channel->block_size = size;
    return 0;
}

static errcode_t io_write64(io_channel channel, unsigned long long block, int count, const void *data)
{
    (void)channel, (void)block, (void)count, (void)data;
    return EXT2_ET_RO_FILSYS;
}

static errcode_t io_write(io_channel channel, unsigned long block, int count, const void *data)
{
    return io_write64(channel, block, count, data);
}

static errcode_t io_flush(io_channel channel)
{
    (void)channel;
    return 0;
}

/* The channel has its name from malloc and is freed with it, as libext2fs's own do. */
static errcode_t io_close(io_channel channel)
{
    if (--channel->refcount > 0)
        return 0;
    ext2fs_free_mem(&channel->name);
    return ext2fs_free_mem(&channel);
}

static errcode_t io_open(const char *name, int flags, io_channel *ret_channel);

static struct struct_io_manager manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "veneer",
    .open = io_open,
    .close = io_close,
    .set_blksize = io_set_blksize,
    .read_blk = io_read,
    .write_blk = io_write,
    .flush = io_flush,
    .read_blk64 = io_read64,
    .write_blk64 = io_write64,
};

static errcode_t io_open(const char *name, int flags, io_channel *ret_channel)
{
    (void)flags;
    io_channel channel = NULL;
    errcode_t code = ext2fs_get_memzero(sizeof *channel, &channel);
    if (!code)
        code = ext2fs_get_mem(strlen(name) + 1, &channel->name);
    if (code) {
        if (channel)
            ext2fs_free_mem(&channel);
        return code;
    }
    memcpy(channel->name, name, strlen(name) + 1);
    channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    channel->manager = &manager;
    channel->block_size = 1024;
    channel->refcount = 1;
    channel->private_data = (void *)(uintptr_t)strtoull(name, NULL, 16);
    *ret_channel = channel;
    return 0;
}

errcode_t ext_io_open(struct ext_io *io, ext2_filsys *ret_fs)
{
    char name[32];
    snprintf(name, sizeof name, "%" PRIxPTR, (uintptr_t)io);
    return ext2fs_open2(name, NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0, &manager, ret_fs);
}
