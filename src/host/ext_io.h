/* ext_io.h - lets libext2fs read a file system through a function, read-only.
 *
 * A libext2fs "io manager" is a table of functions without an owner, and its channels are opened by name; so the name is
 * the address of a struct ext_io in hexadecimal. What was read is kept in a few chunks, since libext2fs reads block
 * by block. One thread. */
#ifndef VENEER_HOST_EXT_IO_H
#define VENEER_HOST_EXT_IO_H

#include <ext2fs/ext2fs.h>
#include <stdint.h>

#define EXT_IO_CHUNK (128u << 10)
#define EXT_IO_CHUNKS 16u

struct ext_io {
    int (*read)(void *owner, uint64_t offset, void *bytes, size_t length); /* 0 or a negative errno */
    void *owner;
    uint64_t offset, size; /* where the file system lies, in bytes */
    uint64_t tick, used[EXT_IO_CHUNKS], at[EXT_IO_CHUNKS]; /* at: offset + 1 in the file system; 0: empty */
    uint8_t chunk[EXT_IO_CHUNKS][EXT_IO_CHUNK];
};

/* Opens the file system that io describes (chunks all zero at first); close with ext2fs_close_free. */
errcode_t ext_io_open(struct ext_io *io, ext2_filsys *ret_fs);

#endif
