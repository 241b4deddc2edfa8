/* qcow2_stress_test.c - 32 workers at one image without pause, on io_uring or threads: each has 4 KiB pieces of its own that
 * share clusters with the others', writes, zeroes, discards and reads them back, and flushes now and then.
 *
 * Usage: qcow2_stress_test [REQUESTS-OF-A-WORKER] */
#include "block/qcow2.h"
#include "block/raw.h"

#include "check.h"
#include "support/qemu_img.h"
#include "support/volume.h"

#define WORKERS 32u
#define PIECES 48u /* of a worker */
#define PIECE 4096u
#define SIZE (WORKERS * PIECES * PIECE)

struct worker {
    struct block_request request;
    struct iovec iov;
    struct stress *stress;
    unsigned number, left, piece;
    uint64_t seed;
    uint8_t bytes[PIECE];
    uint8_t value[PIECES]; /* what each piece is full of */
    bool maybe_zero[PIECES]; /* discarded since */
};

struct stress {
    struct block *block;
    struct loop *loop;
    unsigned running;
    struct worker workers[WORKERS];
};

static struct stress stress;

static unsigned random_below(struct worker *worker, unsigned limit)
{
    worker->seed = worker->seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((worker->seed >> 33) % limit);
}

static void begin(struct worker *worker);

static void check_read(struct worker *worker)
{
    uint8_t value = worker->value[worker->piece], got = worker->bytes[0];
    CHECK(volume_is_zero(worker->bytes, PIECE) || (got != 0 && memcmp(worker->bytes, worker->bytes + 1, PIECE - 1) == 0));
    CHECK(got == value || (got == 0 && worker->maybe_zero[worker->piece]));
    worker->value[worker->piece] = got;
    worker->maybe_zero[worker->piece] = false;
}

static void done(struct block_request *request, int status)
{
    struct worker *worker = (struct worker *)request;
    CHECK_EQ(status, 0);
    if (request->op == BLOCK_READ)
        check_read(worker);
    if (request->op == BLOCK_WRITE || request->op == BLOCK_WRITE_ZEROES) {
        worker->value[worker->piece] = request->op == BLOCK_WRITE ? worker->bytes[0] : 0;
        worker->maybe_zero[worker->piece] = false;
    }
    if (request->op == BLOCK_DISCARD)
        worker->maybe_zero[worker->piece] = true;
    if (worker->left) {
        begin(worker);
        block_kick(worker->stress->block);
    } else if (--worker->stress->running == 0) {
        loop_stop(worker->stress->loop);
    }
}

static void begin(struct worker *worker)
{
    static const enum block_op ops[] = {BLOCK_READ, BLOCK_READ, BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE_ZEROES, BLOCK_DISCARD};
    enum block_op op = ops[random_below(worker, 7)];
    worker->left--;
    worker->piece = random_below(worker, PIECES);
    if (random_below(worker, 40) == 0)
        op = BLOCK_FLUSH;
    worker->iov = (struct iovec){worker->bytes, PIECE};
    worker->request = (struct block_request){.op = op, .iov = &worker->iov, .iov_count = 1, .complete = done};
    if (op != BLOCK_FLUSH) {
        worker->request.offset = ((uint64_t)worker->piece * WORKERS + worker->number) * PIECE;
        worker->request.length = PIECE;
    }
    if (op == BLOCK_WRITE)
        memset(worker->bytes, 1 + (int)random_below(worker, 255), PIECE);
    if (op == BLOCK_WRITE_ZEROES && random_below(worker, 2))
        worker->request.flags = BLOCK_UNMAP;
    if (op == BLOCK_WRITE && random_below(worker, 100) == 0)
        worker->request.flags = BLOCK_FUA;
    block_submit(worker->stress->block, &worker->request);
}

static void play(const char *path, unsigned requests)
{
    struct error error = {""};
    struct block_options options = {.path = path, .format = "qcow2"};
    CHECK_EQ(loop_new(&stress.loop, &error), 0);
    if (block_open(&options, stress.loop, &stress.block, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        exit(1);
    }
    stress.running = WORKERS;
    for (unsigned i = 0; i < WORKERS; i++) {
        stress.workers[i].left = requests;
        begin(&stress.workers[i]);
    }
    block_kick(stress.block);
    loop_run(stress.loop);
    CHECK_EQ(stress.block->in_flight, 0);
    block_close(stress.block);
    loop_free(stress.loop);
    CHECK_EQ(qemu_img_check(path, 0), 0);
}

static void shape(unsigned bits, const char *backing, const struct raw_tuning *tuning, unsigned requests)
{
    char path[64];
    volume_file(path, 0);
    unlink(path);
    raw_tuning = *tuning;
    struct qcow2_create create = {.path = path, .size = SIZE, .cluster_bits = bits, .backing = backing, .backing_format = backing ? "raw" : NULL};
    CHECK_EQ(qcow2_create(&create, NULL), 0);
    memset(&stress, 0, sizeof stress);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct worker *worker = &stress.workers[i];
        worker->stress = &stress;
        worker->number = i;
        worker->seed = bits * 1000 + i;
        memset(worker->value, backing ? 0xaa : 0, PIECES);
    }
    play(path, requests);
    play(path, requests); /* once more, on what was written */
    unlink(path);
}

int main(int argc, char **argv)
{
    static const struct raw_tuning inline_writes = {.inline_max = 64 << 10}, ring = {.no_nowait = true},
                                   threads = {.no_ring = true, .no_nowait = true};
    unsigned requests = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 120;
    char base[64];
    volume_file(base, 0);
    uint8_t *bytes = malloc(SIZE);
    memset(bytes, 0xaa, SIZE);
    int fd = open(base, O_RDWR);
    CHECK(write(fd, bytes, SIZE) == SIZE);
    close(fd);
    free(bytes);
    shape(16, NULL, &ring, requests);
    shape(12, base, &ring, requests);
    shape(16, base, &threads, requests);
    shape(9, NULL, &threads, requests);
    shape(12, base, &inline_writes, requests);
    unlink(base);
    CHECK_DONE();
}
