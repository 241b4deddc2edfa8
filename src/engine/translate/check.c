/* check.c - `--engine translate,check`: each trace's work is done by the interpreter first, undone, done by
 * the trace, and compared.
 *
 * A trace is left unchecked from the start when it comes to an instruction that cannot be done twice: device
 * access, what changes more than registers and memory, long stores. What the interpreter may store to is saved
 * before each of its instructions, at the operand and around the top of the stack. When an instruction faults, the trace must
 * come to the same fault, in the same state. */
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
#define RECENT 8u /* saved places that are looked at for being the same */

struct saved {
    uint8_t *host;
    unsigned length;
    uint8_t before[SAVED_BYTES], after[SAVED_BYTES];
};

enum outcome { DONE, FAULTED, GIVEN_UP };

struct check {
    struct x86_cpu before, after;
    struct x86_event raised; /* when it FAULTED */
    uint64_t raised_cr2;
    bool given_up; /* an instruction cannot be done twice */
    unsigned count;
    struct saved saved[SAVED_MAX];
};

/* Saves up to 64 bytes at a linear address, as far as its page goes; nothing when it leads nowhere, for then the
 * instruction faults. What is no RAM must not be accessed twice: the check is given up. */
static void save(struct translate_vcpu *t, struct check *check, uint64_t linear)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(&t->soft.core, linear);
    unsigned length = 4096 - (unsigned)(linear & 4095);
    uint64_t gpa;
    uint8_t *host;
    if (length > SAVED_BYTES)
        length = SAVED_BYTES;
    if (entry->read_tag == (linear & ~UINT64_C(4095))) {
        host = (uint8_t *)(uintptr_t)(linear + entry->addend);
    } else {
        if (x86_translate_quiet(&t->soft.core, linear, &gpa) < 0)
            return;
        host = ram_host(t->soft.vm->config.ram, gpa, length);
    }
    for (unsigned i = check->count; host && i-- > 0 && i + RECENT >= check->count;)
        if (check->saved[i].host == host && check->saved[i].length == length)
            return;
    check->given_up |= !host || check->count == SAVED_MAX;
    if (check->given_up)
        return;
    struct saved *saved = &check->saved[check->count++];
    saved->host = host;
    saved->length = length;
    memcpy(saved->before, host, length);
}

static bool is_prefix(uint8_t byte)
{
    return byte == 0x66 || byte == 0x67 || byte == 0xf2 || byte == 0xf3 || byte == 0xf0 || byte == 0x2e || byte == 0x36 ||
           byte == 0x3e || byte == 0x26 || byte == 0x64 || byte == 0x65 || (byte & 0xf0) == 0x40;
}

/* What stores to more than its operand and the stack, depends on or changes more than registers and memory, or
 * may have another result the second time. */
static bool beyond_operand(const struct x86_insn *insn)
{
    unsigned at = 0;
    if ((insn->flags & X86_INSN_PRIVILEGED) || insn->exec == x86_exec_ud || insn->exec == x86_exec_gp)
        return true;
    while (at + 1u < insn->length && is_prefix(insn->bytes[at]))
        at++;
    uint8_t first = insn->bytes[at], second = at + 1u < insn->length ? insn->bytes[at + 1] : 0;
    if (first != 0x0f) /* strings, ENTER, and the x87 environment */
        return (first >= 0xa4 && first <= 0xa7) || (first >= 0xaa && first <= 0xaf) || first == 0xc8 ||
               ((first == 0xd9 || first == 0xdd) && (insn->modrm >> 3 & 7) >= 4 && insn->modrm < 0xc0);
    /* RDTSC, RDTSCP and its neighbours, XSAVE and its kin, bit strings, RDRAND and CMPXCHG16B */
    return second == 0x31 || second == 0x01 || second == 0xae || second == 0xc7 ||
           ((insn->flags & X86_INSN_MEMORY) && (second == 0xa3 || second == 0xab || second == 0xb3 || second == 0xbb));
}

static void save_operands(struct translate_vcpu *t, struct check *check, const struct x86_insn *insn)
{
    const struct x86_cpu *cpu = &t->soft.core.cpu;
    save(t, check, cpu->reg[X86_RSP] - 8);
    if ((cpu->reg[X86_RSP] & 4095) < 8)
        save(t, check, cpu->reg[X86_RSP]);
    check->given_up |= beyond_operand(insn);
    if (!(insn->flags & X86_INSN_MEMORY))
        return;
    uint64_t address = x86_effective(&t->soft.core, insn);
    if (insn->seg == X86_FS || insn->seg == X86_GS)
        address += cpu->seg[insn->seg].base;
    save(t, check, address);
    if ((address & 4095) > 4096 - 32) /* the operand may go on in the next page */
        save(t, check, (address | 4095) + 1);
}

/* Interprets the trace's instructions. */
static enum outcome interpret_all(struct translate_vcpu *t, struct check *check, const struct trace *trace)
{
    struct x86_core *core = &t->soft.core;
    jmp_buf *outer = core->escape, here;
    volatile enum outcome outcome = FAULTED;
    if (_setjmp(here) == 0) {
        core->escape = &here;
        for (unsigned i = 0; i < trace->count; i++) {
            if (core->cpu.reg[X86_RIP] != trace->linear + (uint64_t)(int64_t)trace->insn[i].begin)
                break; /* the way parts from the trace */
            core->insn = trace_insn(trace, i);
            core->insn_end = core->insn + 1;
            core->cpu.reg[X86_RIP] += core->insn->length;
            save_operands(t, check, core->insn);
            if (check->given_up)
                break;
            core->insn->exec(core, core->insn);
        }
        outcome = DONE;
    }
    core->escape = outer;
    check->raised = core->raised;
    check->raised_cr2 = core->raised_cr2;
    return check->given_up ? GIVEN_UP : outcome;
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
static void compare(struct translate_vcpu *t, const struct check *check, const struct trace *trace, uint32_t undefined)
{
    const struct x86_cpu *want = &check->after, *got = &t->soft.core.cpu;
    if (memcmp(want->reg, got->reg, sizeof want->reg) != 0)
        report(t, check, trace, "registers");
    if ((want->rflags ^ got->rflags) & ~(uint64_t)undefined)
        report(t, check, trace, "flags");
    if (memcmp(want->ymm, got->ymm, sizeof want->ymm) != 0 || memcmp(want->fx, got->fx, sizeof want->fx) != 0)
        report(t, check, trace, "vector or x87 state");
    for (unsigned i = 0; i < check->count; i++)
        if (memcmp(check->saved[i].after, check->saved[i].host, check->saved[i].length) != 0)
            report(t, check, trace, "memory");
}

/* Puts memory and registers back to where they were, having noted how they came out. */
static void undo(struct check *check, struct x86_cpu *cpu)
{
    check->after = *cpu;
    for (unsigned i = 0; i < check->count; i++)
        memcpy(check->saved[i].after, check->saved[i].host, check->saved[i].length);
    for (unsigned i = check->count; i-- > 0;)
        memcpy(check->saved[i].host, check->saved[i].before, check->saved[i].length);
    *cpu = check->before;
}

/* The trace has raised an exception. */
static void compare_fault(struct translate_vcpu *t, const struct check *check, const struct trace *trace)
{
    const struct x86_event *want = &check->raised, *got = &t->soft.core.raised;
    if (want->vector != got->vector || want->error_code != got->error_code ||
        (want->vector == X86_PF && check->raised_cr2 != t->soft.core.raised_cr2))
        report(t, check, trace, "the exception that it raises");
    compare(t, check, trace, t->fault_undefined);
}

/* Runs the trace; an exception that it raises is noted in *ret_faulted. */
static bool run_caught(struct translate_vcpu *t, struct trace *trace, bool (*run)(struct translate_vcpu *, struct trace *),
                       bool *ret_faulted)
{
    struct x86_core *core = &t->soft.core;
    jmp_buf *outer = core->escape, here;
    volatile bool plain = false;
    *ret_faulted = true;
    if (_setjmp(here) == 0) {
        core->escape = &here;
        plain = run(t, trace);
        *ret_faulted = false;
    }
    core->escape = outer;
    return plain;
}

bool check_trace(struct translate_vcpu *t, struct trace *trace, bool (*run)(struct translate_vcpu *, struct trace *))
{
    struct x86_core *core = &t->soft.core;
    struct check *check = t->checker;
    bool faulted;
    if (!check)
        check = t->checker = malloc(sizeof *check);
    if (!check)
        abort(); /* a measuring run on a host without 100 KiB */
    check->before = core->cpu;
    check->count = 0;
    check->given_up = false;
    enum outcome outcome = interpret_all(t, check, trace);
    bool dropped = trace->dead; /* it stored to its own code */
    undo(check, &core->cpu);
    if (dropped)
        return true;
    bool plain = run_caught(t, trace, run, &faulted);
    if (outcome != GIVEN_UP && (faulted || !t->checked_away)) {
        t->stats.checked++;
        t->stats.checked_faults += faulted;
        if (faulted != (outcome == FAULTED))
            report(t, check, trace, faulted ? "that it faults" : "that it does not fault");
        if (faulted)
            compare_fault(t, check, trace);
        else
            compare(t, check, trace, t->exit_undefined);
    }
    if (faulted)
        longjmp(*core->escape, 1);
    return plain;
}

void check_close(struct translate_vcpu *t)
{
    free(t->checker);
    t->checker = NULL;
}
