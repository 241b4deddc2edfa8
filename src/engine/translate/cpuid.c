/* cpuid.c - CPUID as host code: a small table of answers that the interpreter gave.
 *
 * An answer depends on EAX, ECX and a few registers of the state that change rarely, and only by instructions that are
 * interpreted and end their trace: before another trace is entered from C, cpuid_refresh forgets the answers if those
 * registers have changed.
 *
 * CPUID serializes: code that another vCPU has changed must not run after it. So with anything in `attention`, it is
 * interpreted, and the loop looks at what there is. */
#include "engine/translate/compile.h"

#define SHIFT 5 /* log2 of an entry's size */
_Static_assert(sizeof(struct cpuid_answer) == 1u << SHIFT, "generated code scales by it");

static uint64_t key_of(uint32_t function, uint32_t index) { return (uint64_t)index << 32 | function; }
static unsigned slot_of(uint32_t function, uint32_t index) { return (function + index) % CPUID_ANSWERS; }

/* An empty entry has the key of one that belongs elsewhere. */
static void forget(struct translate_vcpu *t)
{
    for (unsigned slot = 0; slot < CPUID_ANSWERS; slot++)
        t->cpuid[slot].key = key_of(slot + 1, 0);
}

void cpuid_refresh(struct translate_vcpu *t)
{
    const struct x86_cpu *cpu = &t->soft.core.cpu;
    const struct cpuid_inputs now = {.cr4 = cpu->cr4, .xcr0 = cpu->xcr0, .xss = cpu->xss,
                                     .misc_enable = cpu->misc_enable, .known = true};
    if (now.cr4 == t->cpuid_inputs.cr4 && now.xcr0 == t->cpuid_inputs.xcr0 && now.xss == t->cpuid_inputs.xss &&
        now.misc_enable == t->cpuid_inputs.misc_enable && t->cpuid_inputs.known)
        return;
    t->cpuid_inputs = now;
    forget(t);
}

void cpuid_learn(struct translate_vcpu *t, uint32_t function, uint32_t index)
{
    const uint64_t *reg = t->soft.core.cpu.reg;
    t->cpuid[slot_of(function, index)] =
        (struct cpuid_answer){.key = key_of(function, index), .eax = (uint32_t)reg[X86_RAX], .ebx = (uint32_t)reg[X86_RBX],
                              .ecx = (uint32_t)reg[X86_RCX], .edx = (uint32_t)reg[X86_RDX]};
}

/* mov to, from; 32 bits */
static void move32(struct emit *e, unsigned to, unsigned from)
{
    emit_rex(e, false, from, 0, to);
    emit8(e, 0x89);
    emit8(e, 0xc0 | (from & 7) << 3 | (to & 7));
}

void emit_cpuid(struct compiler *c, unsigned insn)
{
    struct emit *e = &c->e;
    const bool busy = flags_busy(c, insn);
    uint32_t failed[2];
    if (busy)
        emit_save_flags(e);
    emit8(e, 0x65); /* cmp dword gs:[attention], 0 */
    emit8(e, 0x83);
    emit8(e, 0x3c);
    emit8(e, 0x25);
    emit32(e, (uint32_t)GS_ATTENTION);
    emit8(e, 0);
    failed[0] = emit_jcc(e, CC_NE);
    move32(e, H_R10, H_RCX); /* R10 = key */
    move32(e, H_R11, H_RAX);
    emit_rorx(e, H_R10, H_R10, 32);
    emit_lea(e, H_R10, H_R10, H_R11, 0, 0);
    emit_lea(e, H_R11, H_RAX, H_RCX, 0, 0); /* R11 = the entry's offset */
    emit_and_imm(e, H_R11, CPUID_ANSWERS - 1);
    emit_rorx(e, H_R11, H_R11, 64 - SHIFT);
    emit_gs_index(e, true, 0x3b, H_R10, H_R11, GS(cpuid) + offsetof(struct cpuid_answer, key)); /* cmp */
    failed[1] = emit_jcc(e, CC_NE);
    emit_gs_index(e, false, 0x8b, H_RAX, H_R11, GS(cpuid) + offsetof(struct cpuid_answer, eax));
    emit_gs_index(e, false, 0x8b, H_RBX, H_R11, GS(cpuid) + offsetof(struct cpuid_answer, ebx));
    emit_gs_index(e, false, 0x8b, H_RCX, H_R11, GS(cpuid) + offsetof(struct cpuid_answer, ecx));
    emit_gs_index(e, false, 0x8b, H_RDX, H_R11, GS(cpuid) + offsetof(struct cpuid_answer, edx));
    if (busy)
        emit_restore_flags(e);
    uint32_t done = emit_jmp(e);
    for (unsigned i = 0; i < 2 && !e->full; i++)
        emit_patch32(e->start, failed[i], emit_offset(e));
    if (busy)
        emit_restore_flags(e);
    add_slow(c, emit_jmp(e), SITE_INTERPRET, insn)->resume_next = true;
    if (!e->full)
        emit_patch32(e->start, done, emit_offset(e));
}
