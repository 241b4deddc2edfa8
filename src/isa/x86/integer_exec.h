/* integer_exec.h - what exec functions of the integer family are made of.
 *
 * Private to exec_*.c of this family. Every operation exists once per operand form and size, made by the
 * macros below from one inline function, so that an exec function never asks what its operands are. */
#ifndef VENEER_ISA_X86_INTEGER_EXEC_H
#define VENEER_ISA_X86_INTEGER_EXEC_H

#include "isa/x86/core.h"
#include "isa/x86/flags.h"
#include "isa/x86/integer.h"
#include "isa/x86/mem.h"

#define X86_INLINE static inline __attribute__((always_inline))

/* Registers by byte offset: x86_get32(core, offset), x86_set32(core, offset, value) ... A 32-bit write
 * clears the upper half, narrower ones keep the rest. */
#define X86_REGISTER_ACCESS(bits)                                                                            \
    X86_INLINE x86_u##bits x86_get##bits(const struct x86_core *core, unsigned offset)                       \
    {                                                                                                        \
        return *(const x86_u##bits *)((const char *)core->cpu.reg + offset);                                 \
    }                                                                                                        \
    X86_INLINE void x86_set##bits(struct x86_core *core, unsigned offset, x86_u##bits value)                 \
    {                                                                                                        \
        if (bits == 32)                                                                                      \
            *(x86_u64 *)((char *)core->cpu.reg + offset) = (uint32_t)value;                                  \
        else                                                                                                 \
            *(x86_u##bits *)((char *)core->cpu.reg + offset) = value;                                        \
    }
X86_REGISTER_ACCESS(8)
X86_REGISTER_ACCESS(16)
X86_REGISTER_ACCESS(32)
X86_REGISTER_ACCESS(64)

/* A read-modify-write operand: x86_modify_begin gives the host address to work at; *ret_hit is the TLB
 * entry when the fast path was taken, else NULL and *rmw is in use. As x86_rmw_begin, nothing in between may
 * raise. */
X86_INLINE void *x86_modify_begin(struct x86_core *core, uint64_t linear, unsigned size, bool locked,
                                  struct x86_rmw *rmw, const struct x86_tlb_entry **ret_hit)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);

    if (__builtin_expect(entry->write_tag == (linear & ~UINT64_C(4095)) && (linear & 4095) <= 4096 - size, 1)) {
        *ret_hit = entry;
        return (void *)(uintptr_t)(linear + entry->addend);
    }
    *ret_hit = NULL;
    x86_rmw_begin(core, linear, size, locked, rmw);
    return rmw->host;
}

X86_INLINE void x86_modify_end(struct x86_core *core, uint64_t linear, unsigned size, struct x86_rmw *rmw,
                               const struct x86_tlb_entry *hit)
{
    if (__builtin_expect(hit == NULL, 0))
        x86_rmw_end(core, rmw);
    else if (__builtin_expect(x86_page_has_code(hit->flags), 0))
        x86_store_code(core, hit, linear, size);
}

/* Push and pop of 64 bits in 64-bit code, with the TLB hit in line. */
X86_INLINE void x86_push_64(struct x86_core *core, uint64_t value)
{
    uint64_t linear = core->cpu.reg[X86_RSP] - 8;
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);

    if (__builtin_expect(entry->write_tag == (linear & ~UINT64_C(4095)) && (linear & 4095) <= 4088, 1)) {
        *(volatile x86_u64 *)(uintptr_t)(linear + entry->addend) = value;
        core->cpu.reg[X86_RSP] = linear;
        if (__builtin_expect(x86_page_has_code(entry->flags), 0))
            x86_store_code(core, entry, linear, 8);
    } else {
        x86_push(core, 8, value);
    }
}

X86_INLINE uint64_t x86_pop_64(struct x86_core *core)
{
    uint64_t linear = core->cpu.reg[X86_RSP], value;
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);

    if (__builtin_expect(entry->read_tag != (linear & ~UINT64_C(4095)) || (linear & 4095) > 4088, 0))
        return x86_pop(core, 8);
    value = *(const volatile x86_u64 *)(uintptr_t)(linear + entry->addend);
    core->cpu.reg[X86_RSP] = linear + 8;
    return value;
}

/* The last act of a common exec function: on to the next instruction of the block, by a jump, since the
 * compiler makes this a tail call. Each function so has an indirect jump of its own, which the processor
 * predicts far better than one that all share. Whoever runs instructions must set core->insn_end. */
#define X86_NEXT(core, insn)                                                                                 \
    do {                                                                                                     \
        const struct x86_insn *x86_following = (insn) + 1;                                                   \
        if (__builtin_expect(x86_following < (core)->insn_end, 1)) {                                         \
            (core)->insn = x86_following;                                                                    \
            (core)->cpu.reg[X86_RIP] += x86_following->length;                                               \
            x86_following->exec(core, x86_following);                                                        \
        }                                                                                                    \
    } while (0)

/* Exec functions of `type op##bits(type d, type s, uint64_t *rflags)` in all forms that write. */
#define X86_BINARY_EXEC(op, bits)                                                                            \
    static void op##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        x86_set##bits(core, insn->reg,                                                                       \
                      op##bits(x86_get##bits(core, insn->reg), x86_get##bits(core, insn->rm),                \
                               &core->cpu.rflags));                                                          \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void op##bits##_rm(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        x86_u##bits s = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        x86_set##bits(core, insn->reg, op##bits(x86_get##bits(core, insn->reg), s, &core->cpu.rflags));      \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void op##bits##_ri(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        x86_set##bits(core, insn->reg,                                                                       \
                      op##bits(x86_get##bits(core, insn->reg), (x86_u##bits)insn->imm, &core->cpu.rflags));  \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    X86_MODIFY_EXEC(op##bits##_mr, bits, *p = op##bits(*p, x86_get##bits(core, insn->reg),                   \
                                                       &core->cpu.rflags), false)                            \
    X86_MODIFY_EXEC(op##bits##_mi, bits, *p = op##bits(*p, (x86_u##bits)insn->imm, &core->cpu.rflags), false)

/* An exec function that works on its memory operand at *p by `statement`. */
#define X86_MODIFY_EXEC(name, bits, statement, locked)                                                       \
    static void name(struct x86_core *core, const struct x86_insn *insn)                                     \
    {                                                                                                        \
        struct x86_rmw rmw __attribute__((uninitialized));                                                   \
        const struct x86_tlb_entry *hit;                                                                     \
        uint64_t linear = x86_linear(core, insn, bits / 8, true);                                            \
        x86_u##bits *p = x86_modify_begin(core, linear, bits / 8, locked, &rmw, &hit);                       \
        statement;                                                                                           \
        x86_modify_end(core, linear, bits / 8, &rmw, hit);                                                   \
        X86_NEXT(core, insn);                                                                                \
    }

/* Exec functions of `void op##bits(type d, type s, uint64_t *rflags)`: CMP, TEST, BT. */
#define X86_COMPARE_EXEC(op, bits)                                                                           \
    static void op##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        op##bits(x86_get##bits(core, insn->reg), x86_get##bits(core, insn->rm), &core->cpu.rflags);          \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void op##bits##_rm(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        x86_u##bits s = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        op##bits(x86_get##bits(core, insn->reg), s, &core->cpu.rflags);                                      \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void op##bits##_mr(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        x86_u##bits d = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        op##bits(d, x86_get##bits(core, insn->reg), &core->cpu.rflags);                                      \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void op##bits##_ri(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        op##bits(x86_get##bits(core, insn->reg), (x86_u##bits)insn->imm, &core->cpu.rflags);                 \
        X86_NEXT(core, insn);                                                                                \
    }                                                                                                        \
    static void op##bits##_mi(struct x86_core *core, const struct x86_insn *insn)                            \
    {                                                                                                        \
        x86_u##bits d = x86_load##bits(core, x86_linear(core, insn, bits / 8, false));                       \
        op##bits(d, (x86_u##bits)insn->imm, &core->cpu.rflags);                                              \
        X86_NEXT(core, insn);                                                                                \
    }

/* Rows of a table [form][size] for operations with the forms above. */
#define X86_SIZES(op, form) { op##8_##form, op##16_##form, op##32_##form, op##64_##form }
#define X86_FORM_TABLE(op)                                                                                   \
    { [X86_RR] = X86_SIZES(op, rr), [X86_RM] = X86_SIZES(op, rm), [X86_MR] = X86_SIZES(op, mr),              \
      [X86_RI] = X86_SIZES(op, ri), [X86_MI] = X86_SIZES(op, mi) }
#define X86_WIDE_FORM_TABLE(op) /* no byte forms */                                                          \
    { [X86_RR] = X86_WIDE_SIZES(op, rr), [X86_RM] = X86_WIDE_SIZES(op, rm), [X86_MR] = X86_WIDE_SIZES(op, mr), \
      [X86_RI] = X86_WIDE_SIZES(op, ri), [X86_MI] = X86_WIDE_SIZES(op, mi) }
#define X86_WIDE_SIZES(op, form) { NULL, op##16_##form, op##32_##form, op##64_##form }

#endif
