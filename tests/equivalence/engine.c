/* engine.c - runs a case under a whole engine, through engine.h: block cache, tiers and all.
 *
 * An engine that translates does so only for code that runs often, so a case can be run several times over,
 * from the same state and memory; the last run's result counts. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "case.h"
#include "guest.h"
#include "support/flat.h"

#define PATIENCE_S 3 /* twice this at most, then a case counts as stuck */

struct executor {
    struct flat flat;
    _Atomic unsigned runs; /* started */
    pthread_t watchdog;
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool closing; /* under lock */
    struct x86_cpu start; /* what every case has in common */
    uint8_t before[EQ_IMAGE_SIZE];
};

unsigned engine_repeats = 1;

static uint8_t *engine_image(struct executor *e) { return ram_host(&e->flat.ram, GUEST_IMAGE, EQ_IMAGE_SIZE); }

/* Kicks the vCPU out of a run that it has seen twice. */
static void *watch(void *context)
{
    struct executor *e = context;

    pthread_mutex_lock(&e->lock);
    for (unsigned seen = 0, now; !e->closing; seen = now) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += PATIENCE_S;
        now = atomic_load(&e->runs);
        if (now == seen && now > 0)
            e->flat.engine->kick(e->flat.vcpu[0]);
        pthread_cond_timedwait(&e->over, &e->lock, &until);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static int open_engine(const struct engine_ops *engine, struct executor **ret_executor)
{
    struct executor *e = calloc(1, sizeof *e);

    if (e == NULL)
        return -ENOMEM;
    flat_open(&e->flat, engine, 1, 2);
    memset(ram_host(&e->flat.ram, 0, GUEST_RAM_SIZE), 0, GUEST_RAM_SIZE);
    guest_build(ram_host(&e->flat.ram, 0, GUEST_RAM_SIZE), &e->start);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->over, NULL);
    if (pthread_create(&e->watchdog, NULL, watch, e) != 0)
        return -EAGAIN;
    *ret_executor = e;
    return 0;
}

static void engine_run(struct executor *e, const struct eq_case *c, struct eq_result *ret_result)
{
    uint8_t *data = engine_image(e) + EQ_CODE_PAGES * EQ_PAGE;
    const unsigned data_size = EQ_IMAGE_SIZE - EQ_CODE_PAGES * EQ_PAGE;
    uint64_t code = GUEST_IMAGE + (uint64_t)eq_image_offset(c->address);
    unsigned fits = eq_code_fits(c);
    struct x86_cpu cpu;
    uint8_t field[EQ_CODE_MAX];

    memset(field, 0xcc, sizeof field);
    memcpy(e->before, data, data_size);
    ram_write(&e->flat.ram, code, c->code, fits);
    memset(ret_result, 0, sizeof *ret_result);
    for (unsigned run = 0; run < engine_repeats && !ret_result->stuck; run++) {
        cpu = e->start;
        guest_enter(c, &cpu);
        if (run > 0)
            memcpy(data, e->before, data_size);
        atomic_fetch_add(&e->runs, 1);
        ret_result->stuck = flat_run(&e->flat, 0, &cpu, &cpu) != ENGINE_EXIT_HALT;
    }
    ram_write(&e->flat.ram, code, field, fits);
    if (!guest_leave(ram_host(&e->flat.ram, 0, GUEST_RAM_SIZE), &cpu, ret_result))
        ret_result->stuck = true;
}

static void engine_close(struct executor *e)
{
    pthread_mutex_lock(&e->lock);
    e->closing = true;
    pthread_cond_signal(&e->over);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->watchdog, NULL);
    flat_close(&e->flat);
    free(e);
}

static int open_interpret(struct executor **ret_executor) { return open_engine(&engine_interpret, ret_executor); }
static int open_translate(struct executor **ret_executor) { return open_engine(&engine_translate, ret_executor); }

const struct executor_ops interpret_executor = {"interpret", open_interpret, engine_image, engine_run, engine_close, .translates = false};
const struct executor_ops translate_executor = {"translate", open_translate, engine_image, engine_run, engine_close,
                                                 .translates = true};
