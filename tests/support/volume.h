/* volume.h - for tests of volumes: requests that are waited for, and files to keep them in. */
#ifndef VENEER_TESTS_SUPPORT_VOLUME_H
#define VENEER_TESTS_SUPPORT_VOLUME_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/block.h"

struct volume_request {
    struct block_request request;
    struct iovec iov;
    struct loop *loop;
    int status;
    int completed; /* how often */
    unsigned *left; /* of a group; the last stops the loop */
};

static inline void volume_completed(struct block_request *request, int status)
{
    struct volume_request *own = (struct volume_request *)request;
    own->status = status;
    own->completed++;
    if (--*own->left == 0 && own->loop)
        loop_stop(own->loop);
}

static inline void volume_fill(struct volume_request *own, struct loop *loop, unsigned *left, enum block_op op,
                               unsigned flags, uint64_t offset, void *bytes, uint64_t length)
{
    bool buffers = op == BLOCK_READ || op == BLOCK_WRITE;
    *own = (struct volume_request){
        .request = {.op = op, .flags = flags, .offset = offset, .length = length, .iov_count = buffers ? 1 : 0,
                    .complete = volume_completed},
        .iov = {bytes, length}, .loop = loop, .status = 1, .left = left};
    own->request.iov = &own->iov;
}

/* Submits, kicks and serves the loop until every one of the requests has completed. */
static inline void volume_run(struct block *block, struct loop *loop, struct volume_request *requests, unsigned count)
{
    unsigned *left = requests[0].left;
    *left = count;
    for (unsigned i = 0; i < count; i++)
        block_submit(block, &requests[i].request);
    block_kick(block);
    if (loop)
        loop_run(loop); /* the stop of requests that are complete already is seen at once */
}

/* One request, waited for. Returns its status, or 1 when it did not complete exactly once. */
static inline int volume_do(struct block *block, struct loop *loop, enum block_op op, unsigned flags, uint64_t offset,
                            void *bytes, uint64_t length)
{
    unsigned left;
    struct volume_request own;
    volume_fill(&own, loop, &left, op, flags, offset, bytes, length);
    volume_run(block, loop, &own, 1);
    return own.completed == 1 ? own.status : 1;
}

/* Files go to memory where there is such a folder: most tests are about their contents, not about a disk. */
static inline void volume_in_memory(void)
{
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
}

/* A new file of `size` bytes, its path in `path`. */
static inline void volume_file(char path[64], uint64_t size)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, 64, "%.40s/veneer-block-XXXXXX", folder ? folder : "/var/tmp");
    int fd = mkstemp(path);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
        perror(path);
        exit(1);
    }
    close(fd);
}

/* Bytes that differ from place to place. */
static inline void volume_pattern(uint8_t *bytes, uint64_t length, uint64_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    for (uint64_t i = 0; i < length; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        bytes[i] = (uint8_t)(x >> 32);
    }
}

static inline bool volume_is_zero(const uint8_t *bytes, uint64_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

#endif
