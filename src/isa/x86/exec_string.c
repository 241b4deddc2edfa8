/* exec_string.c - MOVS STOS LODS CMPS SCAS, with REP, REPE and REPNE. SDM 2B, "REP".
 *
 * A repeated instruction works in chunks: what lies in the present pages of source and destination goes in one
 * pass over host memory, after the chunk's first element went the ordinary way (which makes the TLB entries, and
 * is where a fault is raised, with the registers at exactly that element). After a bounded number of
 * elements, or when something wants the vCPU's attention, RIP goes back to the instruction and the runner
 * gets its turn; so interrupts are seen as on hardware. */
#include <string.h>

#include "isa/x86/integer_exec.h"

/* Elements per execution: a page of bytes. */
#define BUDGET 4096u

/* rCX, rSI, rDI as wide as the address size. */
static inline uint64_t get_index(const struct x86_core *core, const struct x86_insn *insn, enum x86_reg reg)
{
    uint64_t value = core->cpu.reg[reg];

    return insn->addrsize == 8 ? value : insn->addrsize == 4 ? (uint32_t)value : (uint16_t)value;
}

static inline void set_index(struct x86_core *core, const struct x86_insn *insn, enum x86_reg reg, uint64_t value)
{
    if (insn->addrsize == 8)
        x86_set64(core, reg * 8, value);
    else if (insn->addrsize == 4)
        x86_set32(core, reg * 8, (uint32_t)value);
    else
        x86_set16(core, reg * 8, (uint16_t)value);
}

/* Advances by `elements` in the direction of DF. */
static inline void advance(struct x86_core *core, const struct x86_insn *insn, enum x86_reg reg, uint64_t elements,
                           unsigned size)
{
    uint64_t bytes = elements * size;

    set_index(core, insn, reg, core->cpu.reg[reg] + (core->cpu.rflags & X86_FLAG_DF ? -bytes : bytes));
}

static inline uint64_t source(struct x86_core *core, const struct x86_insn *insn, unsigned size)
{
    uint64_t offset = get_index(core, insn, X86_RSI);

    return insn->flags & X86_INSN_FLAT ? offset : x86_linear_access(core, insn->seg, offset, size, false);
}

static inline uint64_t destination(struct x86_core *core, const struct x86_insn *insn, unsigned size, bool write)
{
    uint64_t offset = get_index(core, insn, X86_RDI);

    return insn->mode == X86_CODE64 ? offset : x86_linear_access(core, X86_ES, offset, size, write);
}

/* Whether a run of elements within one page may be worked on at once: neither the offset nor the segment
 * limit can end it before the page does. */
static bool bulk_segment(const struct x86_core *core, const struct x86_insn *insn, enum x86_seg seg)
{
    const struct x86_segment *segment = &core->cpu.seg[seg];

    if (insn->mode == X86_CODE64)
        return insn->addrsize == 8 || seg < X86_FS;
    return insn->addrsize == 4 && segment->base == 0 && segment->limit == UINT32_MAX &&
           (segment->attr & 0xc) != 4; /* an expand-down segment allows what is beyond its limit */
}

/* Elements from `linear` on, in the direction of DF, that lie wholly in its page; 0 if the first does not. */
static uint64_t in_page(const struct x86_core *core, uint64_t linear, unsigned size)
{
    unsigned offset = (unsigned)linear & 4095;

    if (offset + size > 4096)
        return 0;
    return core->cpu.rflags & X86_FLAG_DF ? offset / size + 1 : (4096 - offset) / size;
}

static inline uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The host address of a page present in the TLB for loads; NULL otherwise. */
static uint8_t *readable(struct x86_core *core, uint64_t linear)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);

    return entry->read_tag == (linear & ~UINT64_C(4095)) ? (uint8_t *)(uintptr_t)(linear + entry->addend) : NULL;
}

/* For stores, which `written` must follow. */
static uint8_t *writable(struct x86_core *core, uint64_t linear)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);

    return entry->write_tag == (linear & ~UINT64_C(4095)) ? (uint8_t *)(uintptr_t)(linear + entry->addend) : NULL;
}

/* After n elements from `linear` on, in the direction of DF, were stored to a writable page: once for all of
 * them, code derived from the page goes. */
static void written(struct x86_core *core, uint64_t linear, uint64_t n, unsigned size)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);

    if (x86_page_has_code(entry->flags))
        x86_store_code(core, entry, core->cpu.rflags & X86_FLAG_DF ? linear - (n - 1) * size : linear,
                       (unsigned)n * size);
}

/* The state of a repeated instruction: elements left in rCX and in this execution's budget. */
struct repeat {
    uint64_t count, budget;
};

static inline bool repeat_begin(const struct x86_core *core, const struct x86_insn *insn, struct repeat *repeat)
{
    repeat->count = get_index(core, insn, X86_RCX);
    repeat->budget = core->debug_armed ? 1 : BUDGET; /* a single-step trap comes after each element */
    return repeat->count != 0;
}

/* After `done` elements: true to go on. When the budget is spent first, the instruction starts over. */
static inline bool repeat_next(struct x86_core *core, const struct x86_insn *insn, struct repeat *repeat, uint64_t done)
{
    repeat->count -= done;
    repeat->budget -= done;
    set_index(core, insn, X86_RCX, repeat->count);
    if (repeat->count == 0)
        return false;
    if (repeat->budget != 0 && !atomic_load_explicit(&core->attention, memory_order_relaxed))
        return true;
    core->cpu.reg[X86_RIP] -= insn->length;
    x86_leave_block(core);
    return false;
}

/* The same, of an instruction that compares: it also ends when ZF (equal) disagrees with the prefix. */
static inline bool repeat_compare(struct x86_core *core, const struct x86_insn *insn, struct repeat *repeat,
                                  uint64_t done, bool equal)
{
    if (equal == ((insn->flags & X86_INSN_REP) != 0))
        return repeat_next(core, insn, repeat, done);
    set_index(core, insn, X86_RCX, repeat->count - done);
    return false;
}

/* A copy of n elements as the instruction makes it, one after the other: an overlap replicates. */
#define COPY(bits)                                                                                           \
    static void copy##bits(uint8_t *to, const uint8_t *from, uint64_t n, bool down)                          \
    {                                                                                                        \
        int64_t step = down ? -(bits / 8) : bits / 8;                                                        \
        if (!down && ((uintptr_t)to <= (uintptr_t)from || (uintptr_t)to - (uintptr_t)from >= n * (bits / 8))) { \
            memmove(to, from, n * (bits / 8));                                                               \
            return;                                                                                          \
        }                                                                                                    \
        for (; n != 0; n--, to += step, from += step)                                                        \
            *(volatile x86_u##bits *)to = *(const volatile x86_u##bits *)from;                               \
    }                                                                                                        \
    static void fill##bits(uint8_t *to, x86_u##bits value, uint64_t n, bool down)                            \
    {                                                                                                        \
        if (down)                                                                                            \
            to -= (n - 1) * (bits / 8);                                                                      \
        if (bits == 8) {                                                                                     \
            memset(to, (int)(value & 0xff), n);                                                              \
            return;                                                                                          \
        }                                                                                                    \
        for (; n != 0; n--, to += bits / 8)                                                                  \
            *(x86_u##bits *)to = value;                                                                      \
    }

#define MOVS(bits)                                                                                           \
    static void movs##bits(struct x86_core *core, const struct x86_insn *insn)                               \
    {                                                                                                        \
        x86_u##bits value = x86_load##bits(core, source(core, insn, bits / 8));                              \
        x86_store##bits(core, destination(core, insn, bits / 8, true), value);                               \
        advance(core, insn, X86_RSI, 1, bits / 8);                                                           \
        advance(core, insn, X86_RDI, 1, bits / 8);                                                           \
    }                                                                                                        \
    static void rep_movs##bits(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        bool bulk = bulk_segment(core, insn, insn->seg) && bulk_segment(core, insn, X86_ES);                 \
        bool down = core->cpu.rflags & X86_FLAG_DF;                                                          \
        struct repeat repeat;                                                                                \
        uint64_t n;                                                                                          \
        if (!repeat_begin(core, insn, &repeat))                                                              \
            return;                                                                                          \
        do {                                                                                                 \
            uint64_t from = source(core, insn, bits / 8), to;                                                \
            x86_u##bits value = x86_load##bits(core, from);                                                  \
            const uint8_t *host_from = readable(core, from);                                                 \
            uint8_t *host_to;                                                                                \
            to = destination(core, insn, bits / 8, true); /* its faults come after the source's */           \
            x86_store##bits(core, to, value);                                                                \
            host_to = writable(core, to);                                                                    \
            n = smaller(in_page(core, from, bits / 8), in_page(core, to, bits / 8));                         \
            n = smaller(n, smaller(repeat.count, repeat.budget));                                            \
            if (bulk && n > 1 && host_from != NULL && host_to != NULL) {                                     \
                copy##bits(down ? host_to - bits / 8 : host_to + bits / 8,                                   \
                           down ? host_from - bits / 8 : host_from + bits / 8, n - 1, down);                 \
                written(core, to, n, bits / 8);                                                              \
            } else {                                                                                         \
                n = 1;                                                                                       \
            }                                                                                                \
            advance(core, insn, X86_RSI, n, bits / 8);                                                       \
            advance(core, insn, X86_RDI, n, bits / 8);                                                       \
        } while (repeat_next(core, insn, &repeat, n));                                                       \
    }

#define STOS(bits)                                                                                           \
    static void stos##bits(struct x86_core *core, const struct x86_insn *insn)                               \
    {                                                                                                        \
        x86_store##bits(core, destination(core, insn, bits / 8, true), x86_get##bits(core, X86_RAX * 8));    \
        advance(core, insn, X86_RDI, 1, bits / 8);                                                           \
    }                                                                                                        \
    static void rep_stos##bits(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        x86_u##bits value = x86_get##bits(core, X86_RAX * 8);                                                \
        bool bulk = bulk_segment(core, insn, X86_ES);                                                        \
        struct repeat repeat;                                                                                \
        uint64_t n;                                                                                          \
        if (!repeat_begin(core, insn, &repeat))                                                              \
            return;                                                                                          \
        do {                                                                                                 \
            uint64_t to = destination(core, insn, bits / 8, true);                                           \
            uint8_t *host_to;                                                                                \
            x86_store##bits(core, to, value);                                                                \
            host_to = writable(core, to);                                                                    \
            n = smaller(in_page(core, to, bits / 8), smaller(repeat.count, repeat.budget));                  \
            if (bulk && n > 1 && host_to != NULL) {                                                          \
                fill##bits(host_to, value, n, core->cpu.rflags & X86_FLAG_DF);                               \
                written(core, to, n, bits / 8);                                                              \
            } else {                                                                                         \
                n = 1;                                                                                       \
            }                                                                                                \
            advance(core, insn, X86_RDI, n, bits / 8);                                                       \
        } while (repeat_next(core, insn, &repeat, n));                                                       \
    }

#define LODS(bits)                                                                                           \
    static void lods##bits(struct x86_core *core, const struct x86_insn *insn)                               \
    {                                                                                                        \
        x86_set##bits(core, X86_RAX * 8, x86_load##bits(core, source(core, insn, bits / 8)));                \
        advance(core, insn, X86_RSI, 1, bits / 8);                                                           \
    }                                                                                                        \
    static void rep_lods##bits(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        struct repeat repeat;                                                                                \
        if (!repeat_begin(core, insn, &repeat))                                                              \
            return;                                                                                          \
        do                                                                                                   \
            lods##bits(core, insn);                                                                          \
        while (repeat_next(core, insn, &repeat, 1));                                                         \
    }

/* The flags of the last comparison, d - s. */
#define COMPARE(bits, suffix)                                                                                \
    static void compare##bits(struct x86_core *core, x86_u##bits d, x86_u##bits s)                           \
    {                                                                                                        \
        uint32_t ax;                                                                                         \
        __asm__("cmp" suffix " %[s], %[d]" X86_FLAGS_OUT : "=&a"(ax) : [d] "r"(d), [s] "r"(s) : "cc");       \
        core->cpu.rflags = x86_flags_merge(core->cpu.rflags, ax);                                            \
    }

/* CMPS: the source is DS:rSI, from which ES:rDI is subtracted. A fault in between shows the flags of the
 * last comparison made, as on AMD processors; Intel's show those from before. Both start over alike. */
#define CMPS(bits)                                                                                           \
    static void cmps##bits(struct x86_core *core, const struct x86_insn *insn)                               \
    {                                                                                                        \
        x86_u##bits left = x86_load##bits(core, source(core, insn, bits / 8));                               \
        compare##bits(core, left, x86_load##bits(core, destination(core, insn, bits / 8, false)));           \
        advance(core, insn, X86_RSI, 1, bits / 8);                                                           \
        advance(core, insn, X86_RDI, 1, bits / 8);                                                           \
    }                                                                                                        \
    static void rep_cmps##bits(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        bool bulk = bulk_segment(core, insn, insn->seg) && bulk_segment(core, insn, X86_ES);                 \
        bool want = insn->flags & X86_INSN_REP;                                                              \
        int64_t step = core->cpu.rflags & X86_FLAG_DF ? -(bits / 8) : bits / 8;                              \
        struct repeat repeat;                                                                                \
        x86_u##bits left, right;                                                                             \
        uint64_t n, done;                                                                                    \
        if (!repeat_begin(core, insn, &repeat))                                                              \
            return;                                                                                          \
        do {                                                                                                 \
            uint64_t from = source(core, insn, bits / 8), to;                                                \
            const uint8_t *host_left, *host_right;                                                           \
            left = x86_load##bits(core, from);                                                               \
            host_left = readable(core, from);                                                                \
            to = destination(core, insn, bits / 8, false); /* its faults come after the source's */          \
            right = x86_load##bits(core, to);                                                                \
            host_right = readable(core, to);                                                                 \
            n = smaller(in_page(core, from, bits / 8), in_page(core, to, bits / 8));                         \
            n = smaller(n, smaller(repeat.count, repeat.budget));                                            \
            if (!bulk || host_left == NULL || host_right == NULL)                                            \
                n = 1;                                                                                       \
            for (done = 1; done < n && (left == right) == want; done++) {                                    \
                left = *(const volatile x86_u##bits *)(host_left += step);                                   \
                right = *(const volatile x86_u##bits *)(host_right += step);                                 \
            }                                                                                                \
            compare##bits(core, left, right);                                                                \
            advance(core, insn, X86_RSI, done, bits / 8);                                                    \
            advance(core, insn, X86_RDI, done, bits / 8);                                                    \
        } while (repeat_compare(core, insn, &repeat, done, left == right));                                  \
    }

#define SCAS(bits)                                                                                           \
    static void scas##bits(struct x86_core *core, const struct x86_insn *insn)                               \
    {                                                                                                        \
        x86_u##bits right = x86_load##bits(core, destination(core, insn, bits / 8, false));                  \
        compare##bits(core, x86_get##bits(core, X86_RAX * 8), right);                                        \
        advance(core, insn, X86_RDI, 1, bits / 8);                                                           \
    }                                                                                                        \
    static void rep_scas##bits(struct x86_core *core, const struct x86_insn *insn)                           \
    {                                                                                                        \
        bool bulk = bulk_segment(core, insn, X86_ES), want = insn->flags & X86_INSN_REP;                     \
        int64_t step = core->cpu.rflags & X86_FLAG_DF ? -(bits / 8) : bits / 8;                              \
        x86_u##bits left = x86_get##bits(core, X86_RAX * 8), right;                                          \
        struct repeat repeat;                                                                                \
        uint64_t n, done;                                                                                    \
        if (!repeat_begin(core, insn, &repeat))                                                              \
            return;                                                                                          \
        do {                                                                                                 \
            uint64_t to = destination(core, insn, bits / 8, false);                                          \
            const uint8_t *host;                                                                             \
            right = x86_load##bits(core, to);                                                                \
            host = readable(core, to);                                                                       \
            n = smaller(in_page(core, to, bits / 8), smaller(repeat.count, repeat.budget));                  \
            if (!bulk || host == NULL)                                                                       \
                n = 1;                                                                                       \
            for (done = 1; done < n && (left == right) == want; done++)                                      \
                right = *(const volatile x86_u##bits *)(host += step);                                       \
            compare##bits(core, left, right);                                                                \
            advance(core, insn, X86_RDI, done, bits / 8);                                                    \
        } while (repeat_compare(core, insn, &repeat, done, left == right));                                  \
    }

#define STRINGS(bits, suffix)                                                                                \
    COPY(bits) MOVS(bits) STOS(bits) LODS(bits) COMPARE(bits, suffix) CMPS(bits) SCAS(bits)
STRINGS(8, "b")
STRINGS(16, "w")
STRINGS(32, "l")
STRINGS(64, "q")

#define STRING_TABLE(op)                                                                                     \
    { { op##8, op##16, op##32, op##64 }, { rep_##op##8, rep_##op##16, rep_##op##32, rep_##op##64 } }
static x86_exec_fn *const string[][2][4] = {
    [X86_MOVS] = STRING_TABLE(movs), [X86_STOS] = STRING_TABLE(stos), [X86_LODS] = STRING_TABLE(lods),
    [X86_CMPS] = STRING_TABLE(cmps), [X86_SCAS] = STRING_TABLE(scas),
};

x86_exec_fn *x86_group_string(const struct x86_zydis *z, struct x86_insn *insn, unsigned what)
{
    bool repeated = insn->flags & (X86_INSN_REP | X86_INSN_REPNE);

    if (z->insn.meta.category != ZYDIS_CATEGORY_STRINGOP)
        return NULL; /* MOVSD and CMPSD of SSE2 */
    return string[what][repeated][x86_size_index(insn->opsize)];
}
