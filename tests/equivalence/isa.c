/* isa.c - runs a case by isa/x86 alone: fetch, decode, execute, deliver; nothing cached but the TLB. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "case.h"
#include "guest.h"
#include "support/bare.h"

#define PATIENCE 2000 /* instructions */

struct executor {
    struct bare bare;
    struct x86_cpu start; /* what every case has in common */
    unsigned steps;       /* of this case */
};

static bool more(void *context)
{
    struct executor *e = context;
    const struct x86_cpu *cpu = &e->bare.core->cpu;

    return x86_cpl(cpu) == 3 && cpu->activity == X86_RUNNING && e->steps++ < PATIENCE;
}

static void isa_run(struct executor *e, const struct eq_case *c, struct eq_result *ret_result)
{
    struct x86_core *core = e->bare.core;
    uint8_t *code = e->bare.ram + GUEST_IMAGE + eq_image_offset(c->address);
    unsigned fits = eq_code_fits(c);

    memcpy(code, c->code, fits);
    memset(ret_result, 0, sizeof *ret_result);
    core->cpu = e->start;
    guest_enter(c, &core->cpu);
    core->pending_dr6 = 0;
    x86_mode_changed(core);
    e->steps = 0;
    bare_run(&e->bare, more, e);
    memset(code, 0xcc, fits);
    if (!guest_leave(e->bare.ram, &core->cpu, ret_result))
        ret_result->stuck = true;
}

static int isa_open(struct executor **ret_executor)
{
    struct executor *e = calloc(1, sizeof *e);
    struct error error = {0};

    if (e == NULL)
        return -ENOMEM;
    int result = bare_open(&e->bare, X86_MODEL_HOST, GUEST_RAM_SIZE, &error);
    if (result != 0) {
        fprintf(stderr, "equivalence: %s\n", error.text);
        free(e);
        return result;
    }
    guest_build(e->bare.ram, &e->start);
    e->bare.core->cpu = e->start;
    x86_core_attach(e->bare.core);
    *ret_executor = e;
    return 0;
}

static uint8_t *isa_image(struct executor *e) { return e->bare.ram + GUEST_IMAGE; }

static void isa_close(struct executor *e)
{
    bare_close(&e->bare);
    free(e);
}

const struct executor_ops isa_executor = {"isa/x86", isa_open, isa_image, isa_run, isa_close, .translates = false};
