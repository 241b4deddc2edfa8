/* system.h - system instructions as host code: those that only move or change parts of struct x86_cpu, without
 * a way to fail at the trace's privilege level. */
#ifndef VENEER_ENGINE_TRANSLATE_SYSTEM_H
#define VENEER_ENGINE_TRANSLATE_SYSTEM_H

#include "engine/translate/native.h"
#include "engine/translate/vcpu.h"

/* The kind of a system instruction: NATIVE_SYSTEM, NATIVE_SWITCH, NATIVE_PUSHF, NATIVE_POPF, NATIVE_CPUID; else NATIVE_NO.
 * Whether a trace can have it is for system_allows to say. */
enum native_kind system_kind(const struct native *n);

/* True when the instruction can be host code in a trace for this TLB context, under the bits of CR4 in
 * t->assumed_cr4 and t->assumed_avx; system_agrees: whether they still hold and code of this privilege level may run at all. */
bool system_allows(const struct translate_vcpu *t, unsigned context, const struct native *n);
bool system_agrees(const struct translate_vcpu *t);
void system_assume(struct translate_vcpu *t);

/* False when doing it twice shows: the time passes, and the TLB context is not the state's. */
bool system_repeats(const struct native *n);

/* NATIVE_SYSTEM: goes on after the instruction. flags_live: the host flags must stay. */
void system_emit(struct emit *e, const struct native *n, bool flags_live);
/* NATIVE_SWITCH (STAC, CLAC, STI): goes on at linear address `next`. Returns the field of a jump to be led to
 * an exit that interprets it instead, RCX being in GS(spill) there; or 0. */
uint32_t system_emit_switch(struct emit *e, const struct translate_vcpu *t, const struct native *n, unsigned context,
                            uint64_t next);
/* GS(target) = RFLAGS as PUSHFQ stores them. Keeps all registers but R10, R11, and the flags. */
void system_emit_get_flags(struct emit *e);
/* The arithmetic flags = those of R10. Returns the field of a jump taken, before anything changed, when R10 differs in
 * other flags too. */
uint32_t system_emit_set_flags(struct emit *e);

#endif
