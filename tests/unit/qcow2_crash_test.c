/* qcow2_crash_test.c - an image whose disk fails.
 *
 * Crash: a run of requests is logged, write for write. The power fails after each of them in turn; of the writes since
 * the last flush of the disk, none, all or a random part arrived. The image must be sound but for leaks, and every sector
 * hold what was last flushed, or something written later.
 * Failure: the n-th operation on the file fails, for every n. Requests may fail, the image must stay sound, and what
 * succeeded must be there.
 * Death: the n-th operation and all after it fail, up to the close, which must say so when something was not written.
 * Sectors carry numbers ("stamps"), each written once, so that a sector tells which write it holds. */
#include "block/fault.h"
#include "block/qcow2.h"

#include "check.h"
#include "support/memory_volume.h"
#include "support/qemu_img.h"
#include "support/volume.h"

#define SECTORS 2048u /* 1 MiB */
#define MOST 40       /* changes of one sector that are remembered */
#define ALWAYS UINT32_MAX

struct past {
    uint32_t stamp, round;
    bool maybe; /* the write failed, or it was a discard, which need not be heeded */
};

static struct past history[SECTORS][MOST];
static unsigned history_count[SECTORS];
static uint32_t last_stamp;
static uint64_t seed;
static uint8_t bytes[32][SECTORS * 512 / 8];

static uint64_t random_below(uint64_t limit)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 20) % limit;
}

static void remember(uint64_t sector, uint32_t stamp, uint32_t round, bool maybe)
{
    if (history_count[sector] < MOST)
        history[sector][history_count[sector]++] = (struct past){stamp, round, maybe};
}

/* Whether a sector may hold the stamp when everything up to `round` was flushed. */
static bool allowed(uint64_t sector, uint32_t stamp, uint32_t round)
{
    for (unsigned i = history_count[sector]; i-- > 0;) {
        const struct past *past = &history[sector][i];
        if (past->stamp == stamp)
            return true;
        if (past->round <= round && !past->maybe)
            return false;
    }
    return stamp == 0;
}

struct run {
    const char *base; /* of the image, or NULL */
    unsigned version, bits;
    struct memory_volume *memory;
    struct block *fault, *image;
    uint32_t round;
    bool hold;  /* requests are completed in random order */
    unsigned asked, fail_at;
    bool dies;  /* what comes after fail_at fails, too */
    int verdict;
    struct { uint32_t round; unsigned logged; } flushes[64]; /* what each made durable, and when */
    unsigned flush_count;
};

static int decide(void *context, enum block_op op, uint64_t offset, uint64_t length)
{
    struct run *run = context;
    (void)op, (void)offset, (void)length;
    run->asked++;
    if (run->asked == run->fail_at || (run->dies && run->fail_at && run->asked > run->fail_at))
        return run->verdict;
    return run->hold ? FAULT_HOLD : 0;
}

/* A fresh image, in memory, on the base. */
static void make(struct run *run)
{
    char path[64];
    static uint8_t file[1 << 20];
    volume_file(path, 0);
    unlink(path);
    struct qcow2_create create = {.path = path, .size = SECTORS * 512, .cluster_bits = run->bits, .version = run->version,
                                  .backing = run->base, .backing_format = run->base ? "raw" : NULL};
    CHECK_EQ(qcow2_create(&create, NULL), 0);
    int fd = open(path, O_RDONLY);
    ssize_t length = read(fd, file, sizeof file);
    close(fd);
    unlink(path);
    run->memory = memory_volume_new(file, (uint64_t)length);
    run->memory->kept = true;
    memset(history_count, 0, sizeof history_count);
    for (uint64_t sector = 0; run->base && sector < SECTORS / 2; sector++)
        remember(sector, (uint32_t)sector + 1, 0, false);
    last_stamp = SECTORS;
    run->round = run->asked = run->flush_count = 0;
}

static bool open_run(struct run *run)
{
    struct block_options options = {.path = "/dev/shm/image"};
    CHECK_EQ(fault_new(&run->memory->block, &(struct fault_plan){decide, run}, &run->fault), 0);
    return qcow2_open(&options, run->fault, NULL, &run->image, NULL) == 0;
}

static void put_stamps(uint8_t *to, uint64_t sectors, uint32_t *ret_first)
{
    *ret_first = last_stamp + 1;
    for (uint64_t i = 0; i < sectors; i++) {
        last_stamp++;
        for (unsigned j = 0; j < 128; j++)
            memcpy(to + i * 512 + j * 4, &last_stamp, 4);
    }
}

static void wait_for(struct run *run, const unsigned *left)
{
    block_kick(run->image);
    for (unsigned i = 0; *left && i < 100000; i++) {
        fault_release(run->fault, 1 + (unsigned)random_below(4), random_below(2));
        block_kick(run->image);
    }
    CHECK_EQ(*left, 0);
}

static void flush_done(struct run *run, const struct volume_request *flush, uint32_t round)
{
    if (flush->status < 0 || run->flush_count == 64)
        return;
    run->flushes[run->flush_count].round = round;
    run->flushes[run->flush_count++].logged = run->memory->logged;
}

/* One round: up to 8 requests that do not overlap, each within an eighth of the volume; perhaps a flush among them, for
 * what earlier rounds wrote, and perhaps one after them. */
static void play_round(struct run *run)
{
    struct volume_request requests[9], among;
    struct { uint64_t sector, count; uint32_t stamp; enum block_op op; } what[8];
    unsigned left, count = 1 + (unsigned)random_below(8);
    unsigned flush_at = (unsigned)random_below(16);
    run->round++;
    for (unsigned i = 0; i < count; i++) {
        if (i == flush_at) {
            volume_fill(&among, NULL, &left, BLOCK_FLUSH, 0, 0, NULL, 0);
            block_submit(run->image, &among.request);
        }
        static const enum block_op ops[] = {BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE_ZEROES, BLOCK_DISCARD};
        uint64_t part = SECTORS / 8, per_cluster = 1ull << (run->bits - 9), sectors = 1 + random_below(part / 4);
        uint64_t at = random_below(part - sectors);
        what[i].op = ops[random_below(5)];
        if (what[i].op == BLOCK_DISCARD) { /* whole clusters: they read as before, or as zeroes */
            at = at / per_cluster * per_cluster;
            sectors = (sectors + per_cluster - 1) / per_cluster * per_cluster;
            if (at + sectors > part || run->version < 3)
                what[i].op = BLOCK_WRITE_ZEROES;
            if (at + sectors > part)
                sectors = part - at;
        }
        what[i].sector = i * part + at;
        what[i].count = sectors;
        what[i].stamp = 0;
        if (what[i].op == BLOCK_WRITE)
            put_stamps(bytes[i], sectors, &what[i].stamp);
        unsigned flags = what[i].op == BLOCK_WRITE_ZEROES && random_below(2) ? BLOCK_UNMAP : 0;
        volume_fill(&requests[i], NULL, &left, what[i].op, flags, what[i].sector * 512, bytes[i], sectors * 512);
        block_submit(run->image, &requests[i].request);
    }
    left = count + (flush_at < count);
    wait_for(run, &left);
    if (flush_at < count)
        flush_done(run, &among, run->round - 1);
    for (unsigned i = 0; i < count; i++)
        for (uint64_t j = 0; j < what[i].count; j++)
            remember(what[i].sector + j, what[i].stamp ? what[i].stamp + (uint32_t)j : 0, run->round,
                     requests[i].status < 0 || what[i].op == BLOCK_DISCARD);
    if (random_below(2))
        return;
    volume_fill(&requests[8], NULL, &left, BLOCK_FLUSH, 0, 0, NULL, 0);
    left = 1;
    block_submit(run->image, &requests[8].request);
    wait_for(run, &left);
    flush_done(run, &requests[8], run->round);
}

static void check_sectors(struct block *image, uint32_t round)
{
    static uint8_t all[SECTORS * 512];
    CHECK_EQ(block_transfer(image, BLOCK_READ, 0, 0, all, sizeof all), 0);
    unsigned wrong = 0;
    for (uint64_t sector = 0; sector < SECTORS; sector++) {
        uint32_t stamp;
        memcpy(&stamp, all + sector * 512, 4);
        bool whole = true;
        for (unsigned i = 1; i < 128; i++)
            whole &= memcmp(all + sector * 512, all + sector * 512 + 4 * i, 4) == 0;
        if (!whole || !allowed(sector, stamp, round)) {
            if (!wrong++)
                fprintf(stderr, "sector %llu holds %u%s\n", (unsigned long long)sector, stamp, whole ? "" : ", in part");
        }
    }
    CHECK_EQ(wrong, 0);
}

/* The image in `file` is sound but for leaks, and holds what it must. */
static void check_image(const uint8_t *file, uint64_t length, uint32_t round, bool judge)
{
    char path[64];
    struct block *image = NULL;
    struct error error = {""};
    volume_file(path, 0);
    int fd = open(path, O_RDWR);
    CHECK(write(fd, file, length) == (ssize_t)length);
    close(fd);
    if (judge) {
        int status = qemu_img_check(path, -1);
        CHECK(status == 0 || status == 3);
        if (status && status != 3)
            qemu_img_check(path, 0); /* to show it */
    }
    struct block_options options = {.path = path, .format = "qcow2", .readonly = true};
    int status = block_open(&options, NULL, &image, &error);
    if (status < 0)
        fprintf(stderr, "%s\n", error.text);
    CHECK_EQ(status, 0);
    if (status == 0)
        check_sectors(image, round);
    block_close(image);
    unlink(path);
}

/* Which part of the writes since the disk's last flush arrived. */
enum arrival { ARRIVED_NONE, ARRIVED_ALL, ARRIVED_SOME };

static void crash_at(const struct run *run, const uint8_t *before, uint64_t length, unsigned cut, enum arrival arrival, bool judge)
{
    static uint8_t disk[12 << 20];
    unsigned durable = 0;
    for (unsigned i = 0; i < cut; i++)
        if (!run->memory->log[i].length)
            durable = i;
    memset(disk, 0, sizeof disk);
    memcpy(disk, before, length);
    for (unsigned i = 0; i < cut; i++) {
        const struct memory_write *write = &run->memory->log[i];
        for (uint64_t at = 0; at < write->length; at += 512) {
            if (i >= durable && (arrival == ARRIVED_NONE || (arrival == ARRIVED_SOME && random_below(2))))
                continue;
            memcpy(disk + write->offset + at, write->bytes + at, 512);
            if (write->offset + at + 512 > length)
                length = write->offset + at + 512;
        }
    }
    uint32_t round = 0;
    for (unsigned i = 0; i < run->flush_count; i++)
        if (run->flushes[i].logged <= cut)
            round = run->flushes[i].round;
    check_image(disk, length, round, judge);
}

static void crashes(struct run run, unsigned rounds, uint64_t with_seed)
{
    seed = with_seed;
    run.hold = true;
    make(&run);
    uint64_t length = run.memory->block.limits.size;
    uint8_t *before = malloc(length);
    memcpy(before, run.memory->bytes, length);
    CHECK(open_run(&run));
    for (unsigned i = 0; i < rounds; i++)
        play_round(&run);
    check_sectors(run.image, ALWAYS - 1);
    block_close(run.image);
    for (unsigned cut = 0; cut <= run.memory->logged; cut++) {
        enum arrival arrival = cut % 4 == 0 ? ARRIVED_NONE : cut % 4 == 1 ? ARRIVED_ALL : ARRIVED_SOME;
        crash_at(&run, before, length, cut, arrival, true);
    }
    memory_volume_free(run.memory);
    free(before);
}

/* Returns false when the run was over before the n-th operation. */
static bool failure(struct run run, unsigned n, int verdict, unsigned rounds, uint64_t with_seed, bool judge)
{
    seed = with_seed;
    run.fail_at = n;
    run.verdict = verdict;
    run.hold = n % 2;
    make(&run);
    bool reached = true; /* when it is the opening that fails */
    if (open_run(&run)) {
        for (unsigned i = 0; i < rounds; i++)
            play_round(&run);
        unsigned left = 1;
        struct volume_request last;
        reached = run.asked >= n;
        run.fail_at = 0;
        volume_fill(&last, NULL, &left, BLOCK_FLUSH, 0, 0, NULL, 0);
        block_submit(run.image, &last.request);
        wait_for(&run, &left);
        CHECK_EQ(last.status, 0);
        run.hold = false;
        check_sectors(run.image, ALWAYS - 1);
        block_close(run.image);
        check_image(run.memory->bytes, run.memory->block.limits.size, ALWAYS - 1, judge);
    }
    memory_volume_free(run.memory);
    return reached;
}

static void failures(struct run run, int verdict, unsigned rounds, uint64_t with_seed)
{
    unsigned n = 1;
    while (failure(run, n, verdict, rounds, with_seed, n % 3 == 0))
        n++;
    CHECK(n > 20);
}

/* Returns false when the run, with its close, was over before the n-th operation. */
static bool death(struct run run, unsigned n, int verdict, unsigned rounds, uint64_t with_seed, bool judge)
{
    seed = with_seed;
    run.fail_at = n;
    run.dies = true;
    run.verdict = verdict;
    make(&run);
    bool reached = true;
    if (open_run(&run)) {
        for (unsigned i = 0; i < rounds; i++)
            play_round(&run);
        unsigned left = 1, before = run.asked;
        struct volume_request write; /* something is unwritten when it is closed: this, in a cluster of its own */
        static uint8_t sector[512];
        volume_fill(&write, NULL, &left, BLOCK_WRITE, 0, (SECTORS - 1) * 512, sector, sizeof sector);
        block_submit(run.image, &write.request);
        wait_for(&run, &left);
        remember(SECTORS - 1, 0, run.round + 1, true);
        bool stored = write.status == 0 && run.asked < n; /* but for the metadata */
        int status = block_close(run.image);
        reached = run.asked >= n;
        CHECK(reached || status == 0);
        if (before < n && reached && stored)
            CHECK_EQ(status, verdict);
        uint32_t round = run.flush_count ? run.flushes[run.flush_count - 1].round : 0;
        check_image(run.memory->bytes, run.memory->block.limits.size, reached ? round : ALWAYS - 1, judge);
    }
    memory_volume_free(run.memory);
    return reached;
}

static void deaths(struct run run, int verdict, unsigned rounds, uint64_t with_seed)
{
    unsigned n = 1;
    while (death(run, n, verdict, rounds, with_seed, n % 3 == 0))
        n++;
    CHECK(n > 20);
}

int main(int argc, char **argv)
{
    volume_in_memory();
    unsigned more = argc > 1 ? (unsigned)atoi(argv[1]) : 1; /* how many seeds */
    char base[64];
    volume_file(base, 0);
    int fd = open(base, O_RDWR);
    last_stamp = 0;
    uint32_t first;
    for (unsigned i = 0; i < SECTORS / 2; i++) {
        put_stamps(bytes[0], 1, &first);
        CHECK(write(fd, bytes[0], 512) == 512);
    }
    close(fd);
    for (uint64_t i = 0; i < more; i++) {
        crashes((struct run){.version = 3, .bits = 12, .base = base}, 14, 1 + 10 * i);
        crashes((struct run){.version = 3, .bits = 9}, 6, 2 + 10 * i);
        crashes((struct run){.version = 2, .bits = 16, .base = base}, 16, 3 + 10 * i);
        failures((struct run){.version = 3, .bits = 12, .base = base}, -EIO, 10, 4 + 10 * i);
        failures((struct run){.version = 3, .bits = 9}, -ENOSPC, 5, 5 + 10 * i);
        failures((struct run){.version = 2, .bits = 16}, -EIO, 10, 6 + 10 * i);
        deaths((struct run){.version = 3, .bits = 12, .base = base}, -EIO, 6, 7 + 10 * i);
        deaths((struct run){.version = 2, .bits = 9}, -ENOSPC, 3, 8 + 10 * i);
    }
    unlink(base);
    CHECK_DONE();
}
