/* segment.h - segment descriptors: fetching, checking and loading. Intel SDM 3A chapters 3.4, 3.5 and 5.
 *
 * Everything here raises through core.h with the error code that the SDM gives: the selector without its
 * RPL, and `ext` (0 or 1) as bit 0 when an event that the program did not ask for is being delivered. */
#ifndef VENEER_ISA_X86_SEGMENT_H
#define VENEER_ISA_X86_SEGMENT_H

#include "isa/x86/core.h"

struct x86_descriptor {
    uint64_t address; /* linear */
    uint64_t low;
    uint64_t high; /* second half of a 16-byte system descriptor or gate, else 0 */
};

/* Types of system descriptors. */
enum x86_system_type {
    X86_TYPE_TSS16 = 1, X86_TYPE_LDT = 2, X86_TYPE_TSS16_BUSY = 3, X86_TYPE_CALL16 = 4, X86_TYPE_TASK_GATE = 5,
    X86_TYPE_INT16 = 6, X86_TYPE_TRAP16 = 7, X86_TYPE_TSS = 9, X86_TYPE_TSS_BUSY = 11, X86_TYPE_CALL = 12,
    X86_TYPE_INT = 14, X86_TYPE_TRAP = 15
};

static inline unsigned x86_desc_type(const struct x86_descriptor *d) { return d->low >> 40 & 15; }
static inline bool x86_desc_s(const struct x86_descriptor *d) { return d->low >> 44 & 1; }
static inline unsigned x86_desc_dpl(const struct x86_descriptor *d) { return d->low >> 45 & 3; }
static inline bool x86_desc_present(const struct x86_descriptor *d) { return d->low >> 47 & 1; }
static inline bool x86_desc_l(const struct x86_descriptor *d) { return d->low >> 53 & 1; }
static inline bool x86_desc_db(const struct x86_descriptor *d) { return d->low >> 54 & 1; }
/* A code or data segment that is code; that is conforming code; that may be read; that may be written. */
static inline bool x86_desc_code(const struct x86_descriptor *d) { return (d->low >> 43 & 3) == 3; }
static inline bool x86_desc_conforming(const struct x86_descriptor *d) { return d->low >> 42 & 1; }
static inline bool x86_desc_readable(const struct x86_descriptor *d)
{
    return x86_desc_s(d) && (!x86_desc_code(d) || (d->low >> 41 & 1));
}
static inline bool x86_desc_writable(const struct x86_descriptor *d)
{
    return x86_desc_s(d) && !x86_desc_code(d) && (d->low >> 41 & 1);
}
/* Fields of a gate. */
static inline uint16_t x86_gate_selector(const struct x86_descriptor *d) { return (uint16_t)(d->low >> 16); }
static inline uint64_t x86_gate_offset(const struct x86_descriptor *d)
{
    return (d->low & 0xffff) | (d->low >> 32 & 0xffff0000u) | (d->high << 32);
}

/* Limit in bytes and base of a segment descriptor. */
uint32_t x86_desc_limit(const struct x86_descriptor *d);
uint64_t x86_desc_base(const struct x86_descriptor *d);
/* The segment register that a descriptor and its selector make. */
struct x86_segment x86_desc_segment(const struct x86_descriptor *d, uint16_t selector);

static inline bool x86_protected(const struct x86_cpu *cpu) /* with selectors that mean descriptors */
{
    return (cpu->cr0 & X86_CR0_PE) && !(cpu->rflags & X86_FLAG_VM);
}
static inline bool x86_v86(const struct x86_cpu *cpu) { return (cpu->rflags & X86_FLAG_VM) != 0; }

/* Reads the descriptor of a non-null selector from the GDT or LDT. False when it is beyond the table. */
bool x86_desc_try(struct x86_core *core, uint16_t selector, struct x86_descriptor *ret_descriptor);
/* The same, raising `vector` with the selector as error code. */
void x86_desc_fetch(struct x86_core *core, uint16_t selector, enum x86_vector vector, unsigned ext,
                    struct x86_descriptor *ret_descriptor);
/* In long mode, reads the second half of a system descriptor; raises as x86_desc_fetch beyond the table. */
void x86_desc_fetch_high(struct x86_core *core, uint16_t selector, enum x86_vector vector, unsigned ext,
                         struct x86_descriptor *descriptor);
/* Sets the accessed bit of a code or data segment, in memory and in *descriptor. */
void x86_desc_accessed(struct x86_core *core, struct x86_descriptor *descriptor);
/* Sets or clears the busy bit of a TSS in memory. */
void x86_desc_busy(struct x86_core *core, uint64_t address, bool busy);

/* A segment register in real-address and virtual-8086 mode. No checks; the caller calls x86_mode_changed. */
void x86_segment_real(struct x86_core *core, enum x86_seg seg, uint16_t selector);
void x86_segment_v86(struct x86_core *core, enum x86_seg seg, uint16_t selector);
/* MOV/POP/LDS ... of ES, SS, DS, FS or GS in the current mode. */
void x86_segment_load(struct x86_core *core, enum x86_seg seg, uint16_t selector);
/* Makes a segment register null. In 64-bit code a null SS keeps the privilege level. */
void x86_segment_null(struct x86_core *core, enum x86_seg seg, uint16_t selector, unsigned dpl);

/* SS for the privilege level `cpl`, as CALL gates and events take it from the TSS: raises #TS, or #SS when
 * it is not present. Reads only; the caller installs *ret_segment. */
void x86_stack_segment_check(struct x86_core *core, uint16_t selector, unsigned cpl, enum x86_vector vector,
                             unsigned ext, struct x86_segment *ret_segment);

/* Stack pointers of the current TSS for privilege `cpl` (legacy: SS as well). #TS when beyond its limit. */
void x86_tss_stack(struct x86_core *core, unsigned cpl, unsigned ext, uint16_t *ret_ss, uint32_t *ret_esp);
uint64_t x86_tss_stack64(struct x86_core *core, unsigned index, unsigned ext); /* 0-2: RSPn, 4-10: ISTn-3 */

/* LLDT and LTR of a selector at CPL 0 in protected mode. */
void x86_lldt(struct x86_core *core, uint16_t selector);
void x86_ltr(struct x86_core *core, uint16_t selector);

#endif
