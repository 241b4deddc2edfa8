/* block.c - what a raw volume's requests cost, by the ways there are to do them (block/raw.c chooses among them).
 *
 * Usage: bench-block FILE    (made, 256 MiB; its pages stay in the page cache)
 * Then the same in a qcow2 image, and on a clone. Prints microseconds a request, the median of five runs, for reads and writes of 4 KiB at depth 1 and 32, and of 1 MiB. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "block/copy.h"
#include "block/open.h"
#include "block/qcow2.h"
#include "block/raw.h"

#define SIZE (256u << 20)
#define RUNS 5

struct job {
    struct block_request request;
    struct iovec iov;
    struct bench *bench;
};

struct bench {
    struct block *block;
    struct loop *loop;
    unsigned left, in_flight;
    uint64_t seed, length;
    enum block_op op;
};

static void next(struct job *job)
{
    struct bench *bench = job->bench;
    bench->seed = bench->seed * 6364136223846793005u + 1442695040888963407u;
    job->request.op = bench->op;
    job->request.offset = (bench->seed >> 20) % (SIZE / bench->length) * bench->length;
    bench->left--;
    bench->in_flight++;
    block_submit(bench->block, &job->request);
}

static void done(struct block_request *request, int status)
{
    struct bench *bench = ((struct job *)request)->bench;
    if (status < 0) {
        fprintf(stderr, "%s\n", strerror(-status));
        exit(1);
    }
    bench->in_flight--;
    if (bench->left) {
        next((struct job *)request);
        block_kick(bench->block);
    } else if (!bench->in_flight) {
        loop_stop(bench->loop);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double run(struct bench *bench, enum block_op op, uint64_t length, unsigned depth, unsigned count)
{
    static struct job jobs[32];
    static uint8_t *memory;
    if (!memory && posix_memalign((void **)&memory, 4096, 32u << 20))
        exit(1);
    bench->op = op;
    bench->length = length;
    bench->left = count;
    bench->in_flight = 0;
    double start = now();
    for (unsigned i = 0; i < depth; i++) {
        jobs[i] = (struct job){.iov = {memory + ((size_t)i << 20), length}, .bench = bench};
        jobs[i].request = (struct block_request){.length = length, .iov = &jobs[i].iov, .iov_count = 1, .complete = done};
        next(&jobs[i]);
    }
    block_kick(bench->block);
    loop_run(bench->loop);
    return (now() - start) / count;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void way(const char *path, const char *format, const char *name, struct raw_tuning tuning, bool direct)
{
    static const struct { enum block_op op; uint64_t length; unsigned depth, count; } cells[] = {
        {BLOCK_READ, 4096, 1, 5000},  {BLOCK_READ, 4096, 32, 20000},  {BLOCK_READ, 1 << 20, 4, 300},
        {BLOCK_WRITE, 4096, 1, 5000}, {BLOCK_WRITE, 4096, 32, 20000}, {BLOCK_WRITE, 1 << 20, 4, 300}};
    struct bench bench = {.seed = 1};
    struct error error;
    struct block_options options = {.path = path, .format = format, .direct = direct};
    raw_tuning = tuning;
    if (loop_new(&bench.loop, &error) < 0 || block_open(&options, bench.loop, &bench.block, &error) < 0) {
        fprintf(stderr, "%s: %s\n", name, error.text);
        return;
    }
    printf("%-28s", name);
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
        double times[RUNS];
        for (unsigned j = 0; j < RUNS; j++)
            times[j] = run(&bench, cells[i].op, cells[i].length, cells[i].depth, direct ? cells[i].count / 10 : cells[i].count);
        qsort(times, RUNS, sizeof times[0], by_value);
        printf(" %9.2f", times[RUNS / 2]);
        fflush(stdout);
    }
    putchar('\n');
    block_close(bench.block);
    loop_free(bench.loop);
}

/* The same bytes in an image, and a new clone of the file: its first writes take clusters and copy what is around. */
static void in_qcow2(const char *path)
{
    char image[4096];
    struct error error = {""};
    struct block *from = NULL, *to = NULL;
    struct block_options source = {.path = path, .format = "raw", .readonly = true}, target = {.path = image, .format = "qcow2"};
    struct qcow2_create create = {.path = image, .size = SIZE};
    snprintf(image, sizeof image, "%s.qcow2", path);
    if (qcow2_create(&create, &error) < 0 || block_open(&source, NULL, &from, &error) < 0 ||
        block_open(&target, NULL, &to, &error) < 0 || block_copy(from, to, NULL, NULL, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        exit(1);
    }
    block_close(to);
    way(image, "qcow2", "qcow2, written", raw_tuning, false);
    unlink(image);
    create = (struct qcow2_create){.path = image, .backing = path, .backing_format = "raw"};
    block_close(from);
    if (qcow2_create(&create, &error) == 0)
        way(image, "qcow2", "qcow2, clone", raw_tuning, false);
    unlink(image);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: bench-block FILE\n", stderr);
        return 2;
    }
    int fd = open(argv[1], O_RDWR | O_CREAT | O_EXCL, 0600);
    static uint8_t chunk[1 << 20];
    memset(chunk, 1, sizeof chunk);
    for (unsigned i = 0; i < SIZE >> 20; i++)
        if (fd < 0 || write(fd, chunk, sizeof chunk) != sizeof chunk) {
            perror(argv[1]);
            return 1;
        }
    fsync(fd);
    close(fd);
    printf("%-28s %9s %9s %9s %9s %9s %9s\n", "us a request", "r4k d1", "r4k d32", "r1M d4", "w4k d1", "w4k d32", "w1M d4");
    struct raw_tuning chosen = raw_tuning;
    way(argv[1], "raw", "chosen", chosen, false);
    way(argv[1], "raw", "ring", (struct raw_tuning){.no_nowait = true}, false);
    way(argv[1], "raw", "threads", (struct raw_tuning){.no_nowait = true, .no_ring = true}, false);
    way(argv[1], "raw", "all at kick", (struct raw_tuning){.inline_max = UINT64_MAX}, false);
    way(argv[1], "raw", "direct, ring", (struct raw_tuning){0}, true);
    way(argv[1], "raw", "direct, threads", (struct raw_tuning){.no_ring = true}, true);
    raw_tuning = chosen;
    in_qcow2(argv[1]);
    unlink(argv[1]);
    return 0;
}
