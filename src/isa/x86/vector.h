/* vector.h - what the files of the vector, x87 and XSAVE instructions share; not for other rooms.
 *
 * exec_vector.c picks a way for each instruction: plain C for moves (vector_move.c) and for what touches
 * memory element by element (vector_masked.c), C for control (exec_x87.c, exec_xsave.c), a host thunk
 * (hostcode.h) for everything that computes. */
#ifndef VENEER_ISA_X86_VECTOR_H
#define VENEER_ISA_X86_VECTOR_H

#include <string.h>

#include "isa/x86/core.h"
#include "isa/x86/decode.h"
#include "isa/x86/hostcode.h"
#include "isa/x86/mem.h"
#include "isa/x86/paging.h"

/* Fields of the FXSAVE image in x86_cpu.fx (Intel SDM 1, table 10-2). */
#define FX_FCW 0u
#define FX_FSW 2u
#define FX_FTW 4u /* one bit a physical register: 1 is not empty */
#define FX_FOP 6u
#define FX_FIP 8u
#define FX_FDP 16u
#define FX_MXCSR 24u
#define FX_MXCSR_MASK 28u
#define FX_ST 32u

#define FSW_ES 0x0080u
#define FSW_B 0x8000u
#define FSW_TOP 0x3800u
#define FSW_TOP_SHIFT 11

#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_FLAGS 0x3fu
#define MXCSR_DAZ 0x40u
#define MXCSR_MASKS 0x1f80u
#define MXCSR_FTZ 0x8000u
#define MXCSR_VALID 0xffffu

static inline uint16_t fx_get16(const struct x86_cpu *cpu, unsigned offset)
{
    uint16_t value;
    memcpy(&value, cpu->fx + offset, sizeof value);
    return value;
}

static inline void fx_put16(struct x86_cpu *cpu, unsigned offset, uint16_t value)
{
    memcpy(cpu->fx + offset, &value, sizeof value);
}

static inline uint32_t fx_mxcsr(const struct x86_cpu *cpu)
{
    uint32_t value;
    memcpy(&value, cpu->fx + FX_MXCSR, sizeof value);
    return value;
}

static inline void fx_set_mxcsr(struct x86_cpu *cpu, uint32_t value)
{
    memcpy(cpu->fx + FX_MXCSR, &value, sizeof value);
}

/* Raise #UD or #NM when the instruction set is off (exec_vector.c). */
void x86_sse_gate_fail(struct x86_core *core);
void x86_avx_gate_fail(struct x86_core *core);

/* SSE: #UD with CR0.EM or without CR4.OSFXSR, then #NM with CR0.TS. */
static inline void x86_sse_gate(struct x86_core *core)
{
    const struct x86_cpu *cpu = &core->cpu;
    if (__builtin_expect((cpu->cr0 & (X86_CR0_EM | X86_CR0_TS)) | (~cpu->cr4 & X86_CR4_OSFXSR), 0))
        x86_sse_gate_fail(core);
}

/* AVX: protected mode, CR4.OSXSAVE and XCR0 with SSE and AVX, or #UD; then #NM with CR0.TS. */
static inline void x86_avx_gate(struct x86_core *core)
{
    const struct x86_cpu *cpu = &core->cpu;
    uint64_t off = (cpu->cr0 & X86_CR0_TS) | (~cpu->cr0 & X86_CR0_PE) | (~cpu->cr4 & X86_CR4_OSXSAVE) |
                   (~cpu->xcr0 & (X86_XCR0_SSE | X86_XCR0_AVX)) | (cpu->rflags & X86_FLAG_VM);
    if (__builtin_expect(off != 0, 0))
        x86_avx_gate_fail(core);
}

/* MMX: #UD with CR0.EM, #NM with CR0.TS, #MF with an x87 exception pending (exec_x87.c). */
void x86_mmx_gate(struct x86_core *core);
/* What each MMX instruction does to the x87 state: TOP 0, no register empty. */
void x86_mmx_enter(struct x86_cpu *cpu);

/* Linear address of the memory operand for a load or a store of `size` bytes. Misaligned: #GP when the
 * instruction asks for alignment; else #AC when alignment checking is on and it is not aligned to 16, as AMD
 * processors do for all vector operands, before any page fault. (x86_load_slow does so for 8 bytes and less.) */
static inline uint64_t x86_vector_linear(struct x86_core *core, const struct x86_insn *insn, unsigned size,
                                         bool write, bool aligned)
{
    uint64_t linear = x86_linear(core, insn, size, write);
    if (linear & (size - 1)) {
        if (aligned)
            x86_raise_gp(core, 0);
        if (__builtin_expect(core->tlb_now == core->tlb[X86_TLB_USER_ALIGN], 0) && size >= 16 &&
            (linear & 15) && x86_canonical(linear))
            x86_raise(core, X86_AC, 0);
    }
    return linear;
}

/* The bytes at `linear`: in guest RAM itself when they lie in one mapped page, else copied to `bounce`. */
static inline void *x86_vector_source(struct x86_core *core, uint64_t linear, unsigned size, void *bounce)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);
    if (__builtin_expect(entry->read_tag == (linear & ~UINT64_C(4095)) && (linear & 4095) <= 4096 - size, 1))
        return (void *)(uintptr_t)(linear + entry->addend);
    x86_load_bytes(core, linear, bounce, size);
    return bounce;
}

/* Stores `size` bytes (a constant 4, 8, 16 or 32 is quickest). */
static inline void x86_vector_store(struct x86_core *core, uint64_t linear, const void *bytes, unsigned size)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);
    if (__builtin_expect(entry->write_tag == (linear & ~UINT64_C(4095)) && (linear & 4095) <= 4096 - size, 1)) {
        memcpy((void *)(uintptr_t)(linear + entry->addend), bytes, size);
        if (__builtin_expect(x86_page_has_code(entry->flags), 0))
            x86_store_code(core, entry, linear, size);
        return;
    }
    x86_store_bytes(core, linear, bytes, size);
}

/* The selectors of the single files: the exec function, or NULL when the instruction is not theirs. */
x86_exec_fn *x86_select_move(const struct x86_zydis *z, struct x86_insn *insn);
x86_exec_fn *x86_select_masked(const struct x86_zydis *z, struct x86_insn *insn);
x86_exec_fn *x86_select_x87(const struct x86_zydis *z, struct x86_insn *insn);
x86_exec_fn *x86_select_xsave(const struct x86_zydis *z, struct x86_insn *insn);

/* The decoder's thunk cache, made at first need; NULL when there is no memory. */
struct x86_hostcode *x86_decoder_hostcode(struct x86_decoder *decoder);

#endif
