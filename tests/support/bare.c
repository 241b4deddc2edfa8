#include "support/bare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "isa/x86/exception.h"
#include "isa/x86/mem.h"

#define PAGE 4096u

static const struct x86_insn fetching = {.length = 0};

static bool env_page(void *owner, uint64_t gpa, struct x86_page *ret_page)
{
    struct bare *bare = owner;

    if (gpa >= bare->size)
        return false;
    *ret_page = (struct x86_page){.host = bare->ram + gpa, .flags = &bare->flags[gpa / PAGE], .read_only = gpa >= bare->rom};
    return true;
}

static uint64_t env_mmio_read(void *owner, uint64_t gpa, unsigned size)
{
    (void)size;
    ((struct bare *)owner)->mmio++;
    return gpa * UINT64_C(0x9e3779b97f4a7c15);
}

static void env_mmio_write(void *owner, uint64_t gpa, unsigned size, uint64_t value)
{
    (void)gpa, (void)size, (void)value;
    ((struct bare *)owner)->mmio++;
}

static uint32_t env_port_in(void *owner, uint16_t port, unsigned size)
{
    (void)owner, (void)size;
    return port * 0x01010101u;
}

static void env_port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
    (void)owner, (void)port, (void)size, (void)value;
}

static int env_msr_read(void *owner, uint32_t msr, uint64_t *ret_value)
{
    (void)owner;
    *ret_value = msr;
    return msr & 1 ? -1 : 0;
}

static int env_msr_write(void *owner, uint32_t msr, uint64_t value)
{
    (void)owner, (void)value;
    return msr & 1 ? -1 : 0;
}

static uint8_t env_tpr_read(void *owner)
{
    (void)owner;
    return 5;
}

static void env_tpr_write(void *owner, uint8_t cr8) { (void)owner, (void)cr8; }

static void env_code_written(void *owner, uint64_t gpa, unsigned length) { (void)owner, (void)gpa, (void)length; }

static void env_mapping_changed(void *owner, enum x86_flush scope, uint64_t linear) { (void)owner, (void)scope, (void)linear; }

static void env_exclusive(void *owner) { (void)owner; }

static uint64_t env_hypercall(void *owner, uint64_t number, const uint64_t argument[4])
{
    (void)owner;
    return number + argument[0];
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

int bare_open(struct bare *bare, enum x86_cpu_model model, uint64_t size, struct error *error)
{
    memset(bare, 0, sizeof *bare);
    bare->core = aligned_alloc(64, (sizeof *bare->core + 63) & ~(size_t)63);
    bare->ram = aligned_alloc(PAGE, size);
    bare->flags = calloc(size / PAGE, 1);
    bare->size = bare->rom = size;
    x86_cpuid_init(&bare->cpuid, model, 1, 1000000000);
    int status = -ENOMEM;
    if (bare->core && bare->ram && bare->flags)
        status = x86_decoder_init(&bare->decoder, &bare->cpuid, error);
    if (status < 0) {
        bare_close(bare);
        return status;
    }
    memset(bare->core, 0, sizeof *bare->core);
    memset(bare->ram, 0, size);
    bare->core->env = &env;
    bare->core->owner = bare;
    bare->core->cpuid = &bare->cpuid;
    return 0;
}

void bare_close(struct bare *bare)
{
    x86_decoder_destroy(&bare->decoder);
    free(bare->core);
    free(bare->ram);
    free(bare->flags);
    memset(bare, 0, sizeof *bare);
}

/* Fetches and executes one instruction; escapes on a fault. */
static void step(struct bare *bare)
{
    struct x86_core *core = bare->core;
    struct x86_page page;
    uint8_t bytes[X86_INSN_MAX];
    uint32_t error_code;
    uint64_t *rip = &core->cpu.reg[X86_RIP];

    core->insn = &fetching;
    if (core->mode != X86_CODE64) {
        *rip = (uint32_t)*rip;
        if (*rip > core->cpu.seg[X86_CS].limit)
            x86_raise_gp(core, 0);
    }
    uint64_t linear = *rip;
    if (core->mode != X86_CODE64)
        linear = (uint32_t)(linear + core->cpu.seg[X86_CS].base);
    unsigned have = x86_fetch(core, linear, bytes, sizeof bytes, &error_code);
    if (have == 0 || x86_decode(&bare->decoder, (enum x86_code_mode)core->mode, bytes, have, &bare->insn) == 0) {
        x86_fetch_page(core, linear + have, &page); /* raises what the fetch would */
        x86_raise_ud(core); /* code where there is no RAM */
    }
    core->insn = &bare->insn;
    core->insn_end = core->insn + 1;
    *rip += bare->insn.length;
    bare->insn.exec(core, &bare->insn);
}

/* One instruction and the traps that follow it. */
static void step_debugged(struct bare *bare)
{
    struct x86_core *core = bare->core;
    bool traced = (core->cpu.rflags & X86_FLAG_TF) != 0, armed = core->debug_armed; /* before: POPF may clear TF */

    if (armed && x86_before_insn_debug(core))
        return;
    core->cpu.sti_shadow = core->cpu.mov_ss_shadow = false;
    step(bare);
    if (armed)
        x86_after_insn_debug(core, traced);
}

void bare_run(struct bare *bare, bool (*more)(void *context), void *context)
{
    struct x86_core *core = bare->core;
    jmp_buf escape;

    if (_setjmp(escape) != 0) {
        x86_fault_rewind(core);
        x86_deliver_raised(core);
    }
    core->escape = &escape;
    while (more(context))
        step_debugged(bare);
    core->escape = NULL;
}
