/* check.c - `--engine translate,check`: each trace's work is done by the interpreter first, undone, done by
 * the trace, and compared.
 *
 * Only traces whose instructions all run as host code are compared: the others share the interpreter for
 * the rest, and must not do their I/O twice. What the interpreter may store to is saved before each of its
 * instructions, at the operand and around the top of the stack. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "engine/translate/vcpu.h"
#include "isa/x86/exception.h"
#include "isa/x86/mem.h"
#include "isa/x86/paging.h"

#define SAVED_MAX (4u * TRACE_INSNS)
#define SAVED_BYTES 64u

struct saved {
    uint8_t *host;
    unsigned length;
    uint8_t before[SAVED_BYTES], after[SAVED_BYTES];
};

struct check {
    struct x86_cpu before, after;
    unsigned count;
    struct saved saved[SAVED_MAX];
};

/* Saves up to 64 bytes at a linear address, as far as its page goes; nothing when there is no RAM. */
static void save(struct translate_vcpu *t, struct check *check, uint64_t linear)
{
    uint64_t gpa;
    if (check->count == SAVED_MAX || x86_translate_quiet(&t->soft.core, linear, &gpa) < 0)
        return;
    unsigned length = 4096 - (unsigned)(gpa & 4095);
    if (length > SAVED_BYTES)
        length = SAVED_BYTES;
    uint8_t *host = ram_host(t->soft.vm->config.ram, gpa, length);
    if (!host)
        return;
    struct saved *saved = &check->saved[check->count++];
    saved->host = host;
    saved->length = length;
    memcpy(saved->before, host, length);
}

static void save_operands(struct translate_vcpu *t, struct check *check, const struct x86_insn *insn)
{
    const struct x86_cpu *cpu = &t->soft.core.cpu;
    save(t, check, cpu->reg[X86_RSP] - 8);
    save(t, check, cpu->reg[X86_RSP]);
    if (!(insn->flags & X86_INSN_MEMORY))
        return;
    uint64_t address = x86_effective(&t->soft.core, insn);
    if (insn->seg == X86_FS || insn->seg == X86_GS)
        address += cpu->seg[insn->seg].base;
    save(t, check, address);
    if ((address & 4095) > 4096 - 32) /* the operand may go on in the next page */
        save(t, check, (address | 4095) + 1);
}

/* Interprets the trace's instructions. False when one faulted. */
static bool interpret_all(struct translate_vcpu *t, struct check *check, const struct trace *trace)
{
    struct x86_core *core = &t->soft.core;
    jmp_buf *outer = core->escape, here;
    bool done = false;
    if (_setjmp(here) == 0) {
        core->escape = &here;
        for (unsigned i = 0; i < trace->count; i++) {
            if (core->cpu.reg[X86_RIP] != trace->linear + (uint64_t)(int64_t)trace->insn[i].begin)
                break; /* the way parts from the trace */
            core->insn = trace_insn(trace, i);
            core->insn_end = core->insn + 1;
            core->cpu.reg[X86_RIP] += core->insn->length;
            save_operands(t, check, core->insn);
            core->insn->exec(core, core->insn);
        }
        done = true;
    }
    core->escape = outer;
    return done;
}

static void print_state(const struct x86_cpu *before, const struct x86_cpu *want, const struct x86_cpu *got)
{
    static const char *const name[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8",
                                       "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "-",   "rip"};
    for (unsigned i = 0; i < X86_REGS; i++)
        fprintf(stderr, "  %-4s %016" PRIx64 " -> interpreted %016" PRIx64 ", translated %016" PRIx64 "%s\n", name[i],
                before->reg[i], want->reg[i], got->reg[i], want->reg[i] == got->reg[i] ? "" : "   <--");
    fprintf(stderr, "  flags %08" PRIx64 " -> interpreted %08" PRIx64 ", translated %08" PRIx64 "%s\n", before->rflags,
            want->rflags, got->rflags, want->rflags == got->rflags ? "" : "   <--");
    for (unsigned i = 0; i < 16; i++)
        if (memcmp(want->ymm[i], got->ymm[i], sizeof want->ymm[i]) != 0)
            fprintf(stderr, "  ymm%u differs\n", i);
}

static _Noreturn void report(const struct translate_vcpu *t, const struct check *check, const struct trace *trace,
                             const char *what)
{
    log_error("the translation of the code at 0x%" PRIx64 " differs from the interpreter in %s", trace->linear, what);
    fputs("guest instructions:\n", stderr);
    for (unsigned i = 0; i < trace->count; i++) {
        const struct x86_insn *insn = trace_insn(trace, i);
        ZydisDisassembledInstruction text;
        if (ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, 0, insn->bytes, insn->length, &text)))
            fprintf(stderr, "  %s\n", text.text);
    }
    fputs("host code:\n", stderr);
    const uint8_t *code = t->code.exec;
    for (uint32_t at = trace->indirect_entry; at < trace->end;) {
        ZydisDisassembledInstruction text;
        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, at, code + at, trace->end - at, &text)))
            break;
        fprintf(stderr, "  %6x  %s\n", at, text.text);
        at += text.info.length;
    }
    print_state(&check->before, &check->after, &t->soft.core.cpu);
    abort();
}

/* But for arithmetic flags that are undefined at the end, both must agree. */
static void compare(struct translate_vcpu *t, const struct check *check, const struct trace *trace)
{
    const struct x86_cpu *want = &check->after, *got = &t->soft.core.cpu;
    if (memcmp(want->reg, got->reg, sizeof want->reg) != 0)
        report(t, check, trace, "registers");
    if ((want->rflags ^ got->rflags) & ~(uint64_t)t->exit_undefined)
        report(t, check, trace, "flags");
    if (memcmp(want->ymm, got->ymm, sizeof want->ymm) != 0 || memcmp(want->fx, got->fx, sizeof want->fx) != 0)
        report(t, check, trace, "vector or x87 state");
    for (unsigned i = 0; i < check->count; i++)
        if (memcmp(check->saved[i].after, check->saved[i].host, check->saved[i].length) != 0)
            report(t, check, trace, "memory");
}

bool check_trace(struct translate_vcpu *t, struct trace *trace, bool (*run)(struct translate_vcpu *, struct trace *))
{
    struct x86_core *core = &t->soft.core;
    static _Thread_local struct check check;
    if (!trace->native)
        return run(t, trace);
    check.before = core->cpu;
    check.count = 0;
    bool done = interpret_all(t, &check, trace);
    bool dropped = trace->dead; /* it stored to its own code */
    check.after = core->cpu;
    for (unsigned i = 0; i < check.count; i++)
        memcpy(check.saved[i].after, check.saved[i].host, check.saved[i].length);
    for (unsigned i = check.count; i-- > 0;)
        memcpy(check.saved[i].host, check.saved[i].before, check.saved[i].length);
    core->cpu = check.before;
    if (dropped)
        return true;
    bool plain = run(t, trace);
    t->stats.checked++;
    if (done && core->cpu.reg[X86_RIP] != trace->linear && !t->checked_away)
        compare(t, &check, trace);
    return plain;
}
