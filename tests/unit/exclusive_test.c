/* Being alone among vCPUs: four threads, of which each sometimes is, and sometimes waits for a lock that
 * another may hold, as in a callback of the machine. */
#include <pthread.h>
#include <stdlib.h>

#include "check.h"
#include "engine/soft/exclusive.h"

#define THREADS 4u
#define ROUNDS 3000u

static struct exclusive exclusive;
static pthread_mutex_t board = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool alone;            /* somebody is between begin and end */
static _Atomic unsigned disturbances; /* others that executed meanwhile */
static _Atomic unsigned turns;        /* times somebody was alone */
static uint64_t counter;              /* changed only by whoever is alone, without a lock */

struct runner {
    struct exclusive_member member;
    _Atomic bool prodded;
    unsigned seed;
};
static struct runner runner[THREADS];

static void prod(void *context)
{
    for (unsigned i = 0; i < THREADS; i++)
        if (&runner[i] != context)
            atomic_store(&runner[i].prodded, true);
}

static void be_alone(struct runner *self)
{
    exclusive_begin(&exclusive, &self->member, prod, self);
    atomic_store(&alone, true);
    atomic_fetch_add(&turns, 1);
    counter++;
    if (self->seed % 7 == 0) { /* MMIO: a callback while alone */
        exclusive_leave(&exclusive, &self->member);
        pthread_mutex_lock(&board);
        pthread_mutex_unlock(&board);
        exclusive_enter(&exclusive, &self->member);
    }
    counter++;
    atomic_store(&alone, false);
    exclusive_end(&exclusive);
}

static void *run(void *context)
{
    struct runner *self = context;
    exclusive_enter(&exclusive, &self->member);
    for (unsigned i = 0; i < ROUNDS; i++) {
        self->seed = self->seed * 1103515245u + 12345u;
        unsigned what = self->seed >> 16 & 7;
        if (what == 0) {
            be_alone(self);
        } else if (what == 1) {
            exclusive_leave(&exclusive, &self->member);
            pthread_mutex_lock(&board);
            pthread_mutex_unlock(&board);
            exclusive_enter(&exclusive, &self->member);
        } else if (atomic_load(&alone)) {
            disturbances++;
        }
        if (atomic_exchange(&self->prodded, false)) {
            exclusive_leave(&exclusive, &self->member);
            exclusive_enter(&exclusive, &self->member);
        }
    }
    exclusive_leave(&exclusive, &self->member);
    return NULL;
}

int main(void)
{
    pthread_t thread[THREADS];
    exclusive_init(&exclusive);
    for (unsigned i = 0; i < THREADS; i++) {
        runner[i].seed = i;
        exclusive_add(&exclusive, &runner[i].member);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, run, &runner[i]);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    CHECK_EQ(disturbances, 0);
    CHECK(turns > 0);
    CHECK_EQ(counter, 2 * turns);
    exclusive_destroy(&exclusive);
    CHECK_DONE();
}
