/* diskload.c - loads a block device from inside a guest: measures it, or verifies what it stores. A static Linux program.
 *
 *   diskload DEVICE randread|randwrite|seqread|seqwrite SIZE DEPTH SECONDS
 *       keeps DEPTH requests of SIZE bytes under way (O_DIRECT, asynchronous) and prints
 *       "MODE SIZE DEPTH: N requests, M bytes a second"
 *   diskload DEVICE verify SIZE DEPTH SECONDS [SEED]
 *       writes, discards, zeroes and flushes at random, DEPTH at a time, never two on one block at once, and reads back; every block holds
 *       its number and how often it was written. Ends with status 1 at the first difference, and 3 when a request
 *       fails (as they do when the driver is unbound meanwhile).
 *
 * Ends with status 4 when there is no such disk, or Linux is just deleting it: then it says of an open one that its size is 0. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 256
#define VERIFY_BLOCKS 4096u

struct slot {
    struct iocb iocb;
    uint8_t *buffer;
    uint64_t block; /* verify */
};

static int device;
static uint64_t device_size, size, blocks;
static unsigned depth;
static aio_context_t aio;
static struct slot slots[DEPTH_MAX];
static uint64_t random_state = 88172645463325252u;
static uint32_t written[VERIFY_BLOCKS]; /* generation of each block; 0: zeroes */
static bool busy[VERIFY_BLOCKS];

static void fail(const char *what)
{
    fprintf(stderr, "diskload: %s: %s\n", what, strerror(errno));
    exit(3);
}

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void submit(struct slot *slot, bool write, uint64_t offset)
{
    struct iocb *list[1] = {&slot->iocb};
    slot->iocb = (struct iocb){.aio_data = (uint64_t)(uintptr_t)slot, .aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
                               .aio_fildes = (uint32_t)device, .aio_buf = (uint64_t)(uintptr_t)slot->buffer, .aio_nbytes = size,
                               .aio_offset = (int64_t)offset};
    if (syscall(SYS_io_submit, aio, 1L, list) != 1)
        fail("io_submit");
}

/* Waits for at least one; calls done for each. */
static unsigned reap(void (*done)(struct slot *))
{
    struct io_event events[DEPTH_MAX];
    long n = syscall(SYS_io_getevents, aio, 1L, (long)DEPTH_MAX, events, NULL);
    if (n < 1)
        fail("io_getevents");
    for (long i = 0; i < n; i++) {
        if (events[i].res != (int64_t)size) {
            errno = events[i].res < 0 ? (int)-events[i].res : EIO;
            fail("a request");
        }
        done((struct slot *)(uintptr_t)events[i].data);
    }
    return (unsigned)n;
}

/* ---- measuring ---- */

static bool writing, sequential;
static uint64_t position;

static uint64_t next_offset(void)
{
    uint64_t block = sequential ? position++ % blocks : next_random() % blocks;
    return block * size;
}

static void again(struct slot *slot)
{
    submit(slot, writing, next_offset());
}

static void nothing(struct slot *slot)
{
    (void)slot;
}

static void measure(const char *mode, double limit)
{
    uint64_t requests = 0;
    writing = strstr(mode, "write") != NULL;
    sequential = strncmp(mode, "seq", 3) == 0;
    for (unsigned i = 0; i < depth; i++)
        again(&slots[i]);
    double start = seconds(), now = start;
    while (now - start < limit) {
        requests += reap(again);
        now = seconds();
    }
    for (unsigned left = depth; left;)
        left -= reap(nothing);
    printf("%s %" PRIu64 " %u: %.0f requests, %.0f bytes a second\n", mode, size, depth, (double)requests / (now - start),
           (double)(requests * size) / (now - start));
}

/* ---- verifying ---- */

static void fill(struct slot *slot)
{
    uint64_t *word = (uint64_t *)(void *)slot->buffer;
    for (uint64_t i = 0; i < size / 8; i++)
        word[i] = written[slot->block] ? slot->block << 40 ^ (uint64_t)written[slot->block] << 12 ^ i : 0;
}

static void check(struct slot *slot)
{
    const uint64_t *word = (const uint64_t *)(const void *)slot->buffer;
    for (uint64_t i = 0; i < size / 8; i++) {
        uint64_t want = written[slot->block] ? slot->block << 40 ^ (uint64_t)written[slot->block] << 12 ^ i : 0;
        if (word[i] != want) {
            printf("diskload: block %" PRIu64 " (written %u times) has 0x%" PRIx64 " at word %" PRIu64 ", not 0x%" PRIx64 "\n",
                   slot->block, written[slot->block], word[i], i, want);
            exit(1);
        }
    }
}

static uint64_t verified;

static void verify_next(struct slot *slot)
{
    do
        slot->block = next_random() % blocks;
    while (busy[slot->block]);
    unsigned what = next_random() % 32;
    uint64_t range[2] = {slot->block * size, size};
    if (what == 0 && fsync(device) < 0)
        fail("fsync");
    if (what == 1) { /* zeroes; a discard before shows that it harms nothing else */
        if (ioctl(device, BLKDISCARD, range) < 0 && errno != EOPNOTSUPP)
            fail("discard");
        if (ioctl(device, BLKZEROOUT, range) < 0)
            fail("zeroing");
        written[slot->block] = 0;
    }
    bool write = what >= 16;
    busy[slot->block] = true;
    if (write) {
        written[slot->block]++;
        fill(slot);
    }
    submit(slot, write, slot->block * size);
}

static void verify_done(struct slot *slot)
{
    if (slot->iocb.aio_lio_opcode == IOCB_CMD_PREAD)
        check(slot);
    busy[slot->block] = false;
    verified++;
}

static void verify_again(struct slot *slot)
{
    verify_done(slot);
    verify_next(slot);
}

static void verify(double limit)
{
    if (blocks > VERIFY_BLOCKS)
        blocks = VERIFY_BLOCKS;
    uint64_t all[2] = {0, blocks * size};
    if (blocks < 2 * depth)
        exit((fprintf(stderr, "diskload: the device is too small\n"), 2));
    if (ioctl(device, BLKZEROOUT, all) < 0)
        fail("zeroing");
    for (unsigned i = 0; i < depth; i++)
        verify_next(&slots[i]);
    for (double start = seconds(); seconds() - start < limit;)
        reap(verify_again);
    for (unsigned left = depth; left;)
        left -= reap(verify_done);
    for (uint64_t b = 0; b < blocks; b++) {
        slots[0].block = b;
        submit(&slots[0], false, b * size);
        reap(verify_done);
    }
    printf("verify %" PRIu64 " %u: %" PRIu64 " requests, nothing differs\n", size, depth, verified);
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return fprintf(stderr, "usage: diskload DEVICE MODE SIZE DEPTH SECONDS [SEED]\n"), 2;
    size = strtoull(argv[3], NULL, 10);
    depth = (unsigned)atoi(argv[4]);
    if (size < 512 || size % 512 || depth < 1 || depth > DEPTH_MAX)
        return fprintf(stderr, "diskload: a size of whole sectors and a depth of 1 to %d, please\n", DEPTH_MAX), 2;
    device = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
    if (device < 0)
        device = open(argv[1], O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (device < 0 && (errno == ENOENT || errno == ENXIO))
        return fprintf(stderr, "diskload: %s: no such disk\n", argv[1]), 4;
    if (device < 0 || ioctl(device, BLKGETSIZE64, &device_size) < 0)
        fail(argv[1]);
    if (device_size == 0)
        return fprintf(stderr, "diskload: %s: Linux says that its size is 0\n", argv[1]), 4;
    if (argc > 6)
        random_state ^= strtoull(argv[6], NULL, 10) * 0x9e3779b97f4a7c15u;
    blocks = device_size / size;
    if (syscall(SYS_io_setup, DEPTH_MAX, &aio) < 0)
        fail("io_setup");
    for (unsigned i = 0; i < depth; i++)
        if (posix_memalign((void **)&slots[i].buffer, 4096, size))
            fail("memory");
        else
            memset(slots[i].buffer, 0x5a, size);
    if (strcmp(argv[2], "verify") == 0)
        verify(atof(argv[5]));
    else
        measure(argv[2], atof(argv[5]));
    return 0;
}
