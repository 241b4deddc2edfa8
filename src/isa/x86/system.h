/* system.h - what the files of the system family share. Private to exec_system*.c. */
#ifndef VENEER_ISA_X86_SYSTEM_H
#define VENEER_ISA_X86_SYSTEM_H

#include "isa/x86/core.h"
#include "isa/x86/decode.h"
#include "isa/x86/mem.h"
#include "isa/x86/segment.h"

static inline uint64_t *x86_gpr(struct x86_core *core, unsigned offset)
{
    return (uint64_t *)(void *)((char *)core->cpu.reg + offset);
}

/* Writes a general register at an operand size of 2, 4 (clears the upper half) or 8 bytes. */
static inline void x86_gpr_set(struct x86_core *core, unsigned offset, unsigned size, uint64_t value)
{
    uint64_t *reg = x86_gpr(core, offset);
    if (size == 2)
        *reg = (*reg & ~UINT64_C(0xffff)) | (uint16_t)value;
    else
        *reg = size == 4 ? (uint32_t)value : value;
}

/* #GP(0) unless at privilege level 0. */
static inline void x86_require_cpl0(struct x86_core *core)
{
    if (x86_cpl(&core->cpu) != 0)
        x86_raise_gp(core, 0);
}

static inline unsigned x86_iopl(const struct x86_cpu *cpu) { return cpu->rflags >> 12 & 3; }

/* The 16-bit r/m operand, read; and written: memory takes 16 bits, a register its operand size. */
uint16_t x86_read_rm16(struct x86_core *core, const struct x86_insn *insn);
void x86_write_rm16(struct x86_core *core, const struct x86_insn *insn, uint64_t value);

/* Mnemonic tables of the files: each returns the exec function or NULL, and sets insn->flags. */
x86_exec_fn *x86_select_system_segment(const struct x86_zydis *z, struct x86_insn *insn);
x86_exec_fn *x86_select_system_register(const struct x86_zydis *z, struct x86_insn *insn);
x86_exec_fn *x86_select_system_control(const struct x86_zydis *z, struct x86_insn *insn);
x86_exec_fn *x86_select_system_io(const struct x86_zydis *z, struct x86_insn *insn);

#endif
