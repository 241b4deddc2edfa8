#include "cli/progress.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    bool terminal;
    char step[60];
    double start, shown; /* seconds; when the line was last written */
} line = {.lock = PTHREAD_MUTEX_INITIALIZER};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void step(void *owner, const char *what)
{
    (void)owner;
    pthread_mutex_lock(&line.lock);
    snprintf(line.step, sizeof line.step, "%s", what);
    if (line.terminal)
        fprintf(stderr, "\r\033[K%s", line.step);
    else
        fprintf(stderr, "veneer: %s\n", line.step);
    line.shown = now();
    pthread_mutex_unlock(&line.lock);
}

static void amount(void *owner, uint64_t bytes, uint64_t total)
{
    (void)owner;
    pthread_mutex_lock(&line.lock);
    if (line.terminal && now() - line.shown >= 0.1) {
        fprintf(stderr, "\r\033[K%s: %.0f MiB", line.step, (double)bytes / 1048576);
        if (total)
            fprintf(stderr, " of %.0f", (double)total / 1048576);
        line.shown = now();
    }
    pthread_mutex_unlock(&line.lock);
}

const struct image_progress *progress_begin(void)
{
    static const struct image_progress progress = {step, amount, NULL};
    line.terminal = isatty(STDERR_FILENO);
    line.start = now();
    return &progress;
}

void progress_end(const char *done)
{
    if (line.terminal)
        fputs("\r\033[K", stderr);
    if (done)
        fprintf(stderr, "veneer: %s in %.1f s\n", done, now() - line.start);
}
