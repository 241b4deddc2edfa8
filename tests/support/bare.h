/* bare.h - isa/x86 alone: one core over an array of RAM, fetch, decode, execute, deliver; nothing cached but the TLB.
 *
 * What lies outside RAM answers something, the same each time: reads of MMIO and ports give values made from the address,
 * even MSRs read as their number and take any value, odd ones do not exist, CR8 is 5. Writes have no effect. */
#ifndef VENEER_TESTS_BARE_H
#define VENEER_TESTS_BARE_H

#include "base/error.h"
#include "isa/x86/core.h"
#include "isa/x86/decode.h"

struct bare {
    struct x86_core *core; /* the owner fills core->cpu, then calls x86_core_attach or x86_mode_changed */
    struct x86_decoder decoder;
    struct x86_cpuid cpuid;
    struct x86_insn insn;
    uint8_t *ram;          /* physical addresses [0, size) */
    uint8_t *flags;        /* a byte a page; see memory/ram.h */
    uint64_t size;         /* bytes, whole pages */
    uint64_t rom;          /* pages from here on cannot be written; bare_open sets it to `size` */
    unsigned mmio;         /* accesses so far */
};

/* Makes it, RAM zeroed. Returns 0 or a negative errno. */
int bare_open(struct bare *bare, enum x86_cpu_model model, uint64_t size, struct error *error);
/* A zeroed or half-built one is allowed. */
void bare_close(struct bare *bare);

/* Executes instructions while more(context) says so, and delivers the exceptions they raise; `more` may deliver
 * interrupts. */
void bare_run(struct bare *bare, bool (*more)(void *context), void *context);

#endif
