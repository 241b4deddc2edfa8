/* exec_exchange.c - XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B. SDM 2A/2C. XCHG with memory is always locked. */
#include "isa/x86/integer_exec.h"

#define XCHG(bits, suffix)                                                                                   \
    X86_INLINE void xchg_memory##bits(struct x86_core *core, const struct x86_insn *insn, x86_u##bits *p)    \
    {                                                                                                        \
        x86_u##bits value = x86_get##bits(core, insn->reg);                                                  \
        __asm__ volatile("xchg" suffix " %[v], %[p]" : [v] "+r"(value), [p] "+m"(*p) : : "memory");          \
        x86_set##bits(core, insn->reg, value);                                                               \
    }                                                                                                        \
    static void xchg##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                          \
    {                                                                                                        \
        x86_u##bits value = x86_get##bits(core, insn->reg);                                                  \
        x86_set##bits(core, insn->reg, x86_get##bits(core, insn->rm));                                       \
        x86_set##bits(core, insn->rm, value);                                                                \
    }                                                                                                        \
    X86_MODIFY_EXEC(xchg##bits##_m, bits, xchg_memory##bits(core, insn, p), true)
XCHG(8, "b")
XCHG(16, "w")
XCHG(32, "l")
XCHG(64, "q")

#define XADD(bits, suffix, lock, name, locked)                                                               \
    X86_INLINE void name##_memory##bits(struct x86_core *core, const struct x86_insn *insn, x86_u##bits *p)  \
    {                                                                                                        \
        x86_u##bits value = x86_get##bits(core, insn->reg);                                                  \
        uint32_t ax;                                                                                         \
        __asm__ volatile(lock "xadd" suffix " %[v], %[p]" X86_FLAGS_OUT                                      \
                         : [v] "+&r"(value), [p] "+m"(*p), "=&a"(ax) : : "cc", "memory");                    \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, ax);                                            \
        x86_set##bits(core, insn->reg, value);                                                               \
    }                                                                                                        \
    X86_MODIFY_EXEC(name##bits##_m, bits, name##_memory##bits(core, insn, p), locked)
#define XADD_FORMS(bits, suffix)                                                                             \
    /* The source is written first: with both the same register the sum stays. */                            \
    static void xadd##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                          \
    {                                                                                                        \
        x86_u##bits d = x86_get##bits(core, insn->reg), s = x86_get##bits(core, insn->rm), sum = s;          \
        uint32_t ax;                                                                                         \
        __asm__("add" suffix " %[d], %[sum]" X86_FLAGS_OUT                                                   \
                : [sum] "+&r"(sum), "=&a"(ax) : [d] "r"(d) : "cc");                                          \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, ax);                                            \
        x86_set##bits(core, insn->rm, d);                                                                    \
        x86_set##bits(core, insn->reg, sum);                                                                 \
    }                                                                                                        \
    XADD(bits, suffix, "", xadd, false)                                                                      \
    XADD(bits, suffix, "lock ", xadd_locked, true)
XADD_FORMS(8, "b")
XADD_FORMS(16, "w")
XADD_FORMS(32, "l")
XADD_FORMS(64, "q")

/* RAX goes in and out whole: which half of it (or of a register destination) is written after a 32-bit
 * comparison depends on the outcome. */
#define CMPXCHG(bits, suffix, size, lock, name, locked)                                                      \
    X86_INLINE void name##_memory##bits(struct x86_core *core, const struct x86_insn *insn, x86_u##bits *p)  \
    {                                                                                                        \
        uint64_t ax = core->cpu.reg[X86_RAX], rax;                                                           \
        __asm__ volatile(lock "cmpxchg" suffix " %[s], %[p]\n\tmov %%rax, %[rax]" X86_FLAGS_OUT              \
                         : "+&a"(ax), [rax] "=&r"(rax), [p] "+m"(*p)                                         \
                         : [s] "r"(x86_get##bits(core, insn->reg)) : "cc", "memory");                        \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, (uint32_t)ax);                                  \
        core->cpu.reg[X86_RAX] = rax;                                                                        \
    }                                                                                                        \
    X86_MODIFY_EXEC(name##bits##_m, bits, name##_memory##bits(core, insn, p), locked)
#define CMPXCHG_FORMS(bits, suffix, size)                                                                    \
    static void cmpxchg##bits##_rr(struct x86_core *core, const struct x86_insn *insn)                       \
    {                                                                                                        \
        unsigned high = insn->reg & 7; /* AH..BH are worked on at bit 0 */                                   \
        uint64_t ax = core->cpu.reg[X86_RAX], rax, d = x86_get64(core, insn->reg - high);                    \
        if (high)                                                                                            \
            d = x86_get8(core, insn->reg);                                                                   \
        __asm__("cmpxchg" suffix " %" size "[s], %" size "[d]\n\tmov %%rax, %[rax]" X86_FLAGS_OUT            \
                : "+&a"(ax), [rax] "=&r"(rax), [d] "+&r"(d)                                                  \
                : [s] "r"((uint64_t)x86_get##bits(core, insn->rm)) : "cc");                                  \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, (uint32_t)ax);                                  \
        core->cpu.reg[X86_RAX] = rax; /* first: RAX may be the destination as well */                        \
        if (high)                                                                                            \
            x86_set8(core, insn->reg, (uint8_t)d);                                                           \
        else                                                                                                 \
            x86_set64(core, insn->reg, d);                                                                   \
    }                                                                                                        \
    CMPXCHG(bits, suffix, size, "", cmpxchg, false)                                                          \
    CMPXCHG(bits, suffix, size, "lock ", cmpxchg_locked, true)
CMPXCHG_FORMS(8, "b", "b")
CMPXCHG_FORMS(16, "w", "w")
CMPXCHG_FORMS(32, "l", "k")
CMPXCHG_FORMS(64, "q", "q")

/* EDX:EAX against memory, ECX:EBX stored if equal; only ZF changes. */
static void cmpxchg8b(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_rmw rmw __attribute__((uninitialized));
    const struct x86_tlb_entry *hit;
    uint64_t linear = x86_linear(core, insn, 8, true);
    uint64_t *reg = core->cpu.reg;
    uint64_t *p = x86_modify_begin(core, linear, 8, true, &rmw, &hit);
    uint32_t low = (uint32_t)reg[X86_RAX], high = (uint32_t)reg[X86_RDX];
    bool equal;

    __asm__ volatile("lock cmpxchg8b %[p]"
                     : [p] "+m"(*p), "+a"(low), "+d"(high), "=@ccz"(equal)
                     : "b"((uint32_t)reg[X86_RBX]), "c"((uint32_t)reg[X86_RCX]) : "memory");
    core->cpu.rflags = (core->cpu.rflags & ~(uint64_t)X86_FLAG_ZF) | (equal ? X86_FLAG_ZF : 0);
    if (!equal) {
        reg[X86_RAX] = low;
        reg[X86_RDX] = high;
    }
    x86_modify_end(core, linear, 8, &rmw, hit);
}

static void cmpxchg16b(struct x86_core *core, const struct x86_insn *insn)
{
    struct x86_rmw rmw __attribute__((uninitialized));
    const struct x86_tlb_entry *hit;
    uint64_t linear = x86_linear(core, insn, 16, true);
    uint64_t *reg = core->cpu.reg;
    unsigned __int128 *p;
    bool equal;

    if (linear & 15)
        x86_raise_gp(core, 0);
    p = x86_modify_begin(core, linear, 16, true, &rmw, &hit);
    __asm__ volatile("lock cmpxchg16b %[p]"
                     : [p] "+m"(*p), "+a"(reg[X86_RAX]), "+d"(reg[X86_RDX]), "=@ccz"(equal)
                     : "b"(reg[X86_RBX]), "c"(reg[X86_RCX]) : "memory");
    core->cpu.rflags = (core->cpu.rflags & ~(uint64_t)X86_FLAG_ZF) | (equal ? X86_FLAG_ZF : 0);
    x86_modify_end(core, linear, 16, &rmw, hit);
}

static x86_exec_fn *const xchg[2][4] = { X86_SIZES(xchg, rr), X86_SIZES(xchg, m) };
static x86_exec_fn *const xadd[3][4] = { X86_SIZES(xadd, rr), X86_SIZES(xadd, m), X86_SIZES(xadd_locked, m) };
static x86_exec_fn *const cmpxchg[3][4] = { X86_SIZES(cmpxchg, rr), X86_SIZES(cmpxchg, m),
                                            X86_SIZES(cmpxchg_locked, m) };

x86_exec_fn *x86_exec_xchg(unsigned size) { return xchg[0][x86_size_index(size)]; }

x86_exec_fn *x86_group_exchange(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    enum x86_form form = x86_form(z, insn);
    unsigned size = x86_size_index(insn->opsize);
    unsigned place = form == X86_RR ? 0 : insn->flags & X86_INSN_LOCK ? 2 : 1;

    switch ((enum x86_exchange)what) {
    case X86_XCHG: return xchg[form != X86_RR][size];
    case X86_XADD: return xadd[place][size];
    case X86_CMPXCHG: return cmpxchg[place][size];
    case X86_CMPXCHG8B: return cmpxchg8b;
    case X86_CMPXCHG16B: return cmpxchg16b;
    }
    return NULL;
}
