/* pool.c - see pool.h. `lock` guards both lists and the counts; the eventfd tells the loop's thread that
 * `finished` is not empty. */
#include "block/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MOST_THREADS 16

struct pool {
    int event;
    struct loop_source *source;
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    struct pool_job *first, **last;
    struct pool_job *finished, **finished_last;
    unsigned idle, started, most, queued;
    bool stop;
    pthread_t threads[MOST_THREADS];
};

/* The finished job is put where the loop's thread finds it. */
static void finish(struct pool *pool, struct pool_job *job)
{
    pthread_mutex_lock(&pool->lock);
    bool wake = !pool->finished;
    job->next = NULL;
    *pool->finished_last = job;
    pool->finished_last = &job->next;
    pthread_mutex_unlock(&pool->lock);
    uint64_t one = 1;
    while (wake && write(pool->event, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void *serve(void *context)
{
    struct pool *pool = context;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->first && !pool->stop) {
            pool->idle++;
            pthread_cond_wait(&pool->wanted, &pool->lock);
            pool->idle--;
        }
        struct pool_job *job = pool->first;
        if (!job)
            break;
        pool->first = job->next;
        pool->queued--;
        if (!pool->first)
            pool->last = &pool->first;
        pthread_mutex_unlock(&pool->lock);
        job->work(job);
        finish(pool, job);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void ready(void *context, uint32_t events)
{
    struct pool *pool = context;
    (void)events;
    uint64_t count;
    while (read(pool->event, &count, sizeof count) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&pool->lock);
    struct pool_job *job = pool->finished;
    pool->finished = NULL;
    pool->finished_last = &pool->finished;
    pthread_mutex_unlock(&pool->lock);
    for (struct pool_job *next; job; job = next) {
        next = job->next;
        job->done(job);
    }
}

int pool_new(struct loop *loop, unsigned threads, struct pool **ret_pool, struct error *error)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return error_set(error, ENOMEM, "starting I/O threads: no memory");
    pool->most = threads < MOST_THREADS ? threads : MOST_THREADS;
    pool->last = &pool->first;
    pool->finished_last = &pool->finished;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wanted, NULL);
    pool->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int status = pool->event < 0 ? -errno : loop_add_fd(loop, pool->event, EPOLLIN, ready, pool, &pool->source);
    if (status < 0) {
        pool_free(pool);
        return error_set(error, -status, "starting I/O threads: %s", strerror(-status));
    }
    *ret_pool = pool;
    return 0;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->wanted);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++)
        pthread_join(pool->threads[i], NULL);
    loop_remove(pool->source);
    if (pool->event >= 0)
        close(pool->event);
    pthread_cond_destroy(&pool->wanted);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* One more thread, with every signal left to the others. Lock held. */
static void start_thread(struct pool *pool)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&pool->threads[pool->started], NULL, serve, pool) == 0)
        pool->started++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void pool_run(struct pool *pool, struct pool_job *job)
{
    pthread_mutex_lock(&pool->lock);
    if (pool->queued >= pool->idle && pool->started < pool->most)
        start_thread(pool);
    bool threads = pool->started > 0;
    if (threads) {
        job->next = NULL;
        *pool->last = job;
        pool->last = &job->next;
        pool->queued++;
        pthread_cond_signal(&pool->wanted);
    }
    pthread_mutex_unlock(&pool->lock);
    if (!threads) {
        job->work(job);
        finish(pool, job);
    }
}
