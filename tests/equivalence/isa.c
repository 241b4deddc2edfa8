/* isa.c - runs a case by isa/x86 alone: fetch, decode, execute, deliver; nothing cached but the TLB. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "case.h"
#include "guest.h"
#include "isa/x86/core.h"
#include "isa/x86/decode.h"
#include "isa/x86/exception.h"
#include "isa/x86/mem.h"

#define PATIENCE 2000 /* instructions */

struct executor {
    struct x86_core *core;
    struct x86_decoder decoder;
    struct x86_cpuid cpuid;
    struct x86_cpu start; /* what every case has in common */
    struct x86_insn insn;
    uint8_t *ram;
    uint8_t flags[GUEST_RAM_SIZE / EQ_PAGE];
};

static const struct x86_insn fetching = {.length = 0};

static bool env_page(void *owner, uint64_t gpa, struct x86_page *ret_page)
{
    struct executor *e = owner;

    if (gpa >= GUEST_RAM_SIZE)
        return false;
    *ret_page = (struct x86_page){.host = e->ram + gpa, .flags = &e->flags[gpa / EQ_PAGE]};
    return true;
}

static uint64_t env_mmio_read(void *owner, uint64_t gpa, unsigned size)
{
    (void)owner, (void)gpa, (void)size;
    return UINT64_MAX;
}

static void env_mmio_write(void *owner, uint64_t gpa, unsigned size, uint64_t value)
{
    (void)owner, (void)gpa, (void)size, (void)value;
}

static uint32_t env_port_in(void *owner, uint16_t port, unsigned size)
{
    (void)owner, (void)port, (void)size;
    return UINT32_MAX;
}

static void env_port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
    (void)owner, (void)port, (void)size, (void)value;
}

static int env_msr_read(void *owner, uint32_t msr, uint64_t *ret_value)
{
    (void)owner, (void)msr, (void)ret_value;
    return -1;
}

static int env_msr_write(void *owner, uint32_t msr, uint64_t value)
{
    (void)owner, (void)msr, (void)value;
    return -1;
}

static uint8_t env_tpr_read(void *owner)
{
    (void)owner;
    return 0;
}

static void env_tpr_write(void *owner, uint8_t cr8) { (void)owner, (void)cr8; }

static void env_code_written(void *owner, uint64_t gpa, unsigned length) { (void)owner, (void)gpa, (void)length; }

static void env_mapping_changed(void *owner, enum x86_flush scope, uint64_t linear) { (void)owner, (void)scope, (void)linear; }

static void env_exclusive(void *owner) { (void)owner; }

static uint64_t env_hypercall(void *owner, uint64_t number, const uint64_t argument[4])
{
    (void)owner, (void)number, (void)argument;
    return UINT64_MAX;
}

static const struct x86_env_ops env = {
    .page = env_page,
    .mmio_read = env_mmio_read,
    .mmio_write = env_mmio_write,
    .port_in = env_port_in,
    .port_out = env_port_out,
    .msr_read = env_msr_read,
    .msr_write = env_msr_write,
    .tpr_read = env_tpr_read,
    .tpr_write = env_tpr_write,
    .code_written = env_code_written,
    .mapping_changed = env_mapping_changed,
    .exclusive_begin = env_exclusive,
    .exclusive_end = env_exclusive,
    .hypercall = env_hypercall,
};

/* Fetches and executes one instruction; escapes on a fault. */
static void step(struct executor *e)
{
    struct x86_core *core = e->core;
    uint64_t *rip = &core->cpu.reg[X86_RIP];
    uint8_t bytes[X86_INSN_MAX];
    uint32_t error_code = 0;
    unsigned have;

    core->insn = &fetching;
    if (core->mode != X86_CODE64)
        *rip = (uint32_t)*rip;
    have = x86_fetch(core, *rip, bytes, sizeof bytes, &error_code);
    if (have == 0) {
        struct x86_page page;

        x86_fetch_page(core, *rip, &page); /* raises what the fetch would */
        return;
    }
    if (x86_decode(&e->decoder, (enum x86_code_mode)core->mode, bytes, have, &e->insn) == 0) {
        struct x86_page page;

        x86_fetch_page(core, *rip + have, &page);
        return;
    }
    core->insn = &e->insn;
    core->insn_end = &e->insn + 1;
    *rip += e->insn.length;
    e->insn.exec(core, &e->insn);
}

/* One instruction and the traps that follow it. */
static void step_debugged(struct executor *e)
{
    struct x86_core *core = e->core;
    bool traced = (core->cpu.rflags & X86_FLAG_TF) != 0;

    if (!core->debug_armed) {
        core->cpu.mov_ss_shadow = core->cpu.sti_shadow = false;
        step(e);
        return;
    }
    if (x86_before_insn_debug(core))
        return;
    core->cpu.mov_ss_shadow = core->cpu.sti_shadow = false;
    step(e);
    x86_after_insn_debug(core, traced);
}

static void isa_run(struct executor *e, const struct eq_case *c, struct eq_result *ret_result)
{
    struct x86_core *core = e->core;
    uint8_t *code = e->ram + GUEST_IMAGE + eq_image_offset(c->address);
    unsigned fits = eq_code_fits(c);
    jmp_buf escape;
    volatile unsigned steps = 0;

    memcpy(code, c->code, fits);
    memset(ret_result, 0, sizeof *ret_result);
    core->cpu = e->start;
    guest_enter(c, &core->cpu);
    core->pending_dr6 = 0;
    x86_mode_changed(core);
    if (_setjmp(escape) != 0) {
        x86_fault_rewind(core);
        x86_deliver_raised(core);
    }
    core->escape = &escape;
    while (x86_cpl(&core->cpu) == 3 && core->cpu.activity == X86_RUNNING && steps++ < PATIENCE)
        step_debugged(e);
    memset(code, 0xcc, fits);
    if (!guest_leave(e->ram, &core->cpu, ret_result))
        ret_result->stuck = true;
}

static int isa_open(struct executor **ret_executor)
{
    struct executor *e = calloc(1, sizeof *e);
    struct error error = {0};
    int result = -ENOMEM;

    if (e == NULL)
        return result;
    e->core = aligned_alloc(64, (sizeof *e->core + 63) & ~(size_t)63);
    e->ram = aligned_alloc(EQ_PAGE, GUEST_RAM_SIZE);
    if (e->core != NULL && e->ram != NULL) {
        memset(e->core, 0, sizeof *e->core);
        memset(e->ram, 0, GUEST_RAM_SIZE);
        x86_cpuid_init(&e->cpuid, X86_MODEL_HOST, 1, 1000000000);
        result = x86_decoder_init(&e->decoder, &e->cpuid, &error);
    }
    if (result != 0) {
        fprintf(stderr, "equivalence: %s\n", error.text);
        free(e->core);
        free(e->ram);
        free(e);
        return result;
    }
    guest_build(e->ram, &e->start);
    e->core->cpu = e->start;
    e->core->env = &env;
    e->core->owner = e;
    e->core->cpuid = &e->cpuid;
    x86_core_attach(e->core);
    *ret_executor = e;
    return 0;
}

static uint8_t *isa_image(struct executor *e) { return e->ram + GUEST_IMAGE; }

static void isa_close(struct executor *e)
{
    x86_decoder_destroy(&e->decoder);
    free(e->core);
    free(e->ram);
    free(e);
}

const struct executor_ops isa_executor = {"isa/x86", isa_open, isa_image, isa_run, isa_close, .translates = false};
