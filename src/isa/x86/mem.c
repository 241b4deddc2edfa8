/* mem.c - guest memory by linear address: everything that is not a plain TLB hit.
 *
 * An access is first resolved into at most two spans (pieces within one page), which raises whatever it
 * has to, and only then performed. */
#include "isa/x86/mem.h"

#include <string.h>

#include "isa/x86/cpuid.h"
#include "isa/x86/paging.h"

/* Whose rights an ordinary access has: tlb_now is one row of core->tlb. */
static enum x86_tlb_context explicit_context(const struct x86_core *core)
{
    return (enum x86_tlb_context)((size_t)(core->tlb_now - core->tlb[0]) / X86_TLB_ENTRIES);
}

/* True when the operand being accessed is relative to SS, so that a bad address raises #SS. */
static bool stack_operand(const struct x86_core *core)
{
    return core->insn && (core->insn->flags & X86_INSN_MEMORY) && core->insn->seg == X86_SS;
}

/* Translates one page's part of an access. A page without a tag after the fill is MMIO, read-only memory being
 * stored to, or RAM with a data breakpoint: only the last has a host address. */
static void resolve_page(struct x86_core *core, uint64_t linear, unsigned length, enum x86_access access,
                         enum x86_tlb_context context, bool stack, struct x86_span *ret_span)
{
    uint64_t page = linear & ~UINT64_C(4095);
    enum x86_tlb_context table = context == X86_TLB_USER_ALIGN ? X86_TLB_USER : context;
    const struct x86_tlb_entry *entry = &core->tlb[table][x86_tlb_index(linear)];
    if ((access == X86_WRITE ? entry->write_tag : entry->read_tag) != page)
        entry = x86_tlb_fill(core, linear, access, context, stack);
    *ret_span = (struct x86_span){.gpa = entry->gpa + (linear & 4095), .length = length};
    if ((access == X86_WRITE ? entry->write_tag : entry->read_tag) == page) {
        ret_span->host = (uint8_t *)(uintptr_t)(linear + entry->addend);
        ret_span->flags = entry->flags;
    } else if (entry->watched) {
        struct x86_page ram;
        if (core->env->page(core->owner, entry->gpa, &ram) && !(access == X86_WRITE && ram.read_only)) {
            ret_span->host = ram.host + (linear & 4095);
            ret_span->flags = ram.flags;
        }
    }
}

/* Notes the data breakpoints that [linear, linear + length) touches, for a trap after the instruction. */
static void watch(struct x86_core *core, uint64_t linear, unsigned length, enum x86_access access)
{
    const struct x86_cpu *cpu = &core->cpu;
    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t sizes[] = {1, 2, 8, 4};
        unsigned control = cpu->dr[7] >> (16 + 4 * i) & 15, kind = control & 3, size = sizes[control >> 2];
        uint64_t at = cpu->dr[i] & ~(uint64_t)(size - 1);
        if (!(cpu->dr[7] >> (2 * i) & 3) || !(kind == 3 || (kind == 1 && access == X86_WRITE)))
            continue;
        if (linear < at + size && at < linear + length)
            core->pending_dr6 |= UINT64_C(1) << i;
    }
}

/* Linear addresses are 64 bits wide for 64-bit code and for the tables of long mode, else 32. */
static uint64_t wrap(const struct x86_core *core, uint64_t linear, bool system)
{
    bool wide = core->mode == X86_CODE64 || (system && core->long_mode);
    return wide ? linear : (uint32_t)linear;
}

/* Resolves [linear, linear + length), length <= 4096, into one or two spans; returns how many. */
static unsigned resolve(struct x86_core *core, uint64_t linear, unsigned length, enum x86_access access,
                        bool system, bool stack, struct x86_span span[2])
{
    enum x86_tlb_context context = system ? X86_TLB_SUPERVISOR : explicit_context(core);
    unsigned first = 4096 - (unsigned)(linear & 4095);
    unsigned spans = 1;
    if (first > length)
        first = length;
    /* Before the page faults, as on AMD processors; Intel's leave the order open. */
    if (context == X86_TLB_USER_ALIGN && length <= 8 && (length & (length - 1)) == 0 && (linear & (length - 1)) &&
        x86_canonical(linear))
        x86_raise(core, X86_AC, 0);
    /* So does the canonical check of the last byte. */
    if (first < length && x86_canonical(linear) && !x86_canonical(wrap(core, linear + length - 1, system)))
        x86_raise(core, stack ? X86_SSF : X86_GP, 0);
    resolve_page(core, linear, first, access, context, stack, &span[0]);
    if (first < length) {
        resolve_page(core, wrap(core, linear + first, system), length - first, access, context, stack, &span[1]);
        spans = 2;
    }
    if (core->cpu.dr[7] & 0xff)
        watch(core, linear, length, access);
    return spans;
}

/* Devices see accesses of 1, 2, 4 or 8 bytes: what is larger or odd goes in pieces, lowest address first. */
static void mmio_load(struct x86_core *core, uint64_t gpa, uint8_t *bytes, unsigned length)
{
    while (length) {
        unsigned size = length >= 8 ? 8 : length >= 4 ? 4 : length >= 2 ? 2 : 1;
        uint64_t value = core->env->mmio_read(core->owner, gpa, size);
        memcpy(bytes, &value, size);
        bytes += size;
        gpa += size;
        length -= size;
    }
}

static void mmio_store(struct x86_core *core, uint64_t gpa, const uint8_t *bytes, unsigned length)
{
    while (length) {
        unsigned size = length >= 8 ? 8 : length >= 4 ? 4 : length >= 2 ? 2 : 1;
        uint64_t value = 0;
        memcpy(&value, bytes, size);
        core->env->mmio_write(core->owner, gpa, size, value);
        bytes += size;
        gpa += size;
        length -= size;
    }
}

static void span_load(struct x86_core *core, const struct x86_span *span, void *ret_bytes)
{
    if (!span->host) {
        mmio_load(core, span->gpa, ret_bytes, span->length);
        return;
    }
    switch (span->length) { /* one host access each, so that it is atomic where hardware's is */
    case 1: *(uint8_t *)ret_bytes = *(volatile uint8_t *)span->host; break;
    case 2: *(x86_u16 *)ret_bytes = *(volatile x86_u16 *)span->host; break;
    case 4: *(x86_u32 *)ret_bytes = *(volatile x86_u32 *)span->host; break;
    case 8: *(x86_u64 *)ret_bytes = *(volatile x86_u64 *)span->host; break;
    default: memcpy(ret_bytes, span->host, span->length);
    }
}

/* After a store to RAM. The flag is read after the store, as ram.h demands: whoever marks the page as code in between
 * sees either the store or is told of it here. */
static void span_written(struct x86_core *core, const struct x86_span *span)
{
    if (x86_page_has_code(span->flags))
        core->env->code_written(core->owner, span->gpa, span->length);
}

static void span_store(struct x86_core *core, const struct x86_span *span, const void *bytes)
{
    if (!span->host) {
        mmio_store(core, span->gpa, bytes, span->length);
        return;
    }
    switch (span->length) {
    case 1: *(volatile uint8_t *)span->host = *(const uint8_t *)bytes; break;
    case 2: *(volatile x86_u16 *)span->host = *(const x86_u16 *)bytes; break;
    case 4: *(volatile x86_u32 *)span->host = *(const x86_u32 *)bytes; break;
    case 8: *(volatile x86_u64 *)span->host = *(const x86_u64 *)bytes; break;
    default: memcpy(span->host, bytes, span->length);
    }
    span_written(core, span);
}

static uint64_t load_value(struct x86_core *core, uint64_t linear, unsigned size, bool system, bool stack)
{
    struct x86_span span[2];
    uint8_t bytes[8] = {0};
    uint64_t value;
    unsigned spans = resolve(core, linear, size, X86_READ, system, stack, span);
    span_load(core, &span[0], bytes);
    if (spans == 2)
        span_load(core, &span[1], bytes + span[0].length);
    memcpy(&value, bytes, sizeof(value));
    return value;
}

static void store_value(struct x86_core *core, uint64_t linear, unsigned size, uint64_t value, bool system, bool stack)
{
    struct x86_span span[2];
    uint8_t bytes[8];
    unsigned spans = resolve(core, linear, size, X86_WRITE, system, stack, span);
    memcpy(bytes, &value, sizeof(bytes));
    span_store(core, &span[0], bytes);
    if (spans == 2)
        span_store(core, &span[1], bytes + span[0].length);
}

uint64_t x86_load_slow(struct x86_core *core, uint64_t linear, unsigned size, bool stack)
{
    return load_value(core, linear, size, false, stack || stack_operand(core));
}

void x86_store_slow(struct x86_core *core, uint64_t linear, unsigned size, uint64_t value, bool stack)
{
    store_value(core, linear, size, value, false, stack || stack_operand(core));
}

uint64_t x86_load_system(struct x86_core *core, uint64_t linear, unsigned size)
{
    return load_value(core, wrap(core, linear, true), size, true, false);
}

void x86_store_system(struct x86_core *core, uint64_t linear, unsigned size, uint64_t value)
{
    store_value(core, wrap(core, linear, true), size, value, true, false);
}

uint64_t x86_load_frame(struct x86_core *core, uint64_t linear, unsigned size, bool user)
{
    return load_value(core, linear, size, !user, true);
}

void x86_store_frame(struct x86_core *core, uint64_t linear, unsigned size, uint64_t value, bool user)
{
    store_value(core, linear, size, value, !user, true);
}

void x86_store_code(struct x86_core *core, const struct x86_tlb_entry *entry, uint64_t linear, unsigned size)
{
    core->env->code_written(core->owner, entry->gpa + (linear & 4095), size);
}

/* Resolving is the check: it raises, or fills the TLB and sets accessed and dirty bits. */
static void probe(struct x86_core *core, uint64_t linear, unsigned length, enum x86_access access)
{
    struct x86_span span[2];
    while (length) {
        unsigned piece = length > 4096 ? 4096 : length;
        (void)resolve(core, linear, piece, access, false, stack_operand(core), span);
        linear = wrap(core, linear + piece, false);
        length -= piece;
    }
}

void x86_probe_write(struct x86_core *core, uint64_t linear, unsigned length)
{
    probe(core, linear, length, X86_WRITE);
}

void x86_probe_read(struct x86_core *core, uint64_t linear, unsigned length)
{
    probe(core, linear, length, X86_READ);
}

void x86_load_bytes(struct x86_core *core, uint64_t linear, void *ret_bytes, unsigned length)
{
    uint8_t *bytes = ret_bytes;
    if (length > 4096)
        probe(core, linear, length, X86_READ);
    while (length) {
        struct x86_span span[2];
        unsigned piece = length > 4096 ? 4096 : length;
        unsigned spans = resolve(core, linear, piece, X86_READ, false, stack_operand(core), span);
        span_load(core, &span[0], bytes);
        if (spans == 2)
            span_load(core, &span[1], bytes + span[0].length);
        bytes += piece;
        linear = wrap(core, linear + piece, false);
        length -= piece;
    }
}

void x86_store_bytes(struct x86_core *core, uint64_t linear, const void *from, unsigned length)
{
    const uint8_t *bytes = from;
    if (length > 4096)
        probe(core, linear, length, X86_WRITE);
    while (length) {
        struct x86_span span[2];
        unsigned piece = length > 4096 ? 4096 : length;
        unsigned spans = resolve(core, linear, piece, X86_WRITE, false, stack_operand(core), span);
        span_store(core, &span[0], bytes);
        if (spans == 2)
            span_store(core, &span[1], bytes + span[0].length);
        bytes += piece;
        linear = wrap(core, linear + piece, false);
        length -= piece;
    }
}

void x86_rmw_begin(struct x86_core *core, uint64_t linear, unsigned size, bool locked, struct x86_rmw *ret_rmw)
{
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);
    ret_rmw->size = size;
    ret_rmw->spans = 0;
    ret_rmw->exclusive = false;
    if (__builtin_expect(entry->write_tag == (linear & ~UINT64_C(4095)) && (linear & 4095) <= 4096 - size, 1)) {
        ret_rmw->host = (void *)(uintptr_t)(linear + entry->addend);
        ret_rmw->span[0].flags = entry->flags;
        ret_rmw->span[0].gpa = entry->gpa + (linear & 4095);
        ret_rmw->span[0].length = size;
        return;
    }
    unsigned spans = resolve(core, linear, size, X86_WRITE, false, stack_operand(core), ret_rmw->span);
    ret_rmw->host = ret_rmw->span[0].host;
    if (spans == 1 && ret_rmw->host)
        return;
    if (locked) {
        core->env->exclusive_begin(core->owner);
        ret_rmw->exclusive = true;
    }
    ret_rmw->spans = spans;
    ret_rmw->host = ret_rmw->bounce;
    span_load(core, &ret_rmw->span[0], ret_rmw->bounce);
    if (spans == 2)
        span_load(core, &ret_rmw->span[1], ret_rmw->bounce + ret_rmw->span[0].length);
}

void x86_rmw_end(struct x86_core *core, struct x86_rmw *rmw)
{
    if (__builtin_expect(rmw->spans == 0, 1)) {
        span_written(core, &rmw->span[0]);
        return;
    }
    span_store(core, &rmw->span[0], rmw->bounce);
    if (rmw->spans == 2)
        span_store(core, &rmw->span[1], rmw->bounce + rmw->span[0].length);
    if (rmw->exclusive)
        core->env->exclusive_end(core->owner);
}

/* Limit, type and null checks of legacy and compatibility mode. */
static bool segment_allows(const struct x86_core *core, const struct x86_segment *seg, uint64_t offset, unsigned size,
                           bool write)
{
    uint64_t last = offset + size - 1;
    if (seg->attr & X86_ATTR_UNUSABLE)
        return false;
    if (core->cpu.cr0 & X86_CR0_PE) {
        bool code = (seg->attr & 8) != 0, write_or_read = (seg->attr & 2) != 0;
        if (write ? code || !write_or_read : code && !write_or_read)
            return false;
    }
    if ((seg->attr & 0xc) == 4) /* expand-down data */
        return offset > seg->limit && last <= (seg->attr & X86_ATTR_DB ? UINT32_MAX : UINT16_MAX);
    return last <= seg->limit;
}

uint64_t x86_linear_access(struct x86_core *core, enum x86_seg seg, uint64_t offset, unsigned size, bool write)
{
    const struct x86_segment *segment = &core->cpu.seg[seg];
    if (core->mode == X86_CODE64) {
        if (seg == X86_FS || seg == X86_GS) {
            /* AMD processors check the offset as well as the sum. */
            if (core->cpuid && core->cpuid->vendor == X86_VENDOR_AMD && !x86_canonical(offset))
                x86_raise(core, X86_GP, 0);
            offset += segment->base;
        }
        if (!x86_canonical(offset) || !x86_canonical(offset + size - 1))
            x86_raise(core, seg == X86_SS ? X86_SSF : X86_GP, 0);
        return offset;
    }
    if (!segment_allows(core, segment, offset, size, write))
        x86_raise(core, seg == X86_SS ? X86_SSF : X86_GP, 0);
    return (uint32_t)(segment->base + offset);
}

/* The width of the stack pointer: SS.B, or 64 bits for 64-bit code whatever SS says. */
static uint64_t stack_mask(const struct x86_core *core)
{
    if (core->mode == X86_CODE64)
        return UINT64_MAX;
    return core->cpu.seg[X86_SS].attr & X86_ATTR_DB ? UINT32_MAX : UINT16_MAX;
}

/* SP, ESP or RSP takes a new value; a 16-bit SP keeps the bits above. */
static void set_sp(struct x86_core *core, uint64_t mask, uint64_t value)
{
    uint64_t *rsp = &core->cpu.reg[X86_RSP];
    *rsp = mask == UINT16_MAX ? (*rsp & ~mask) | (value & mask) : value & mask;
}

void x86_push(struct x86_core *core, unsigned size, uint64_t value)
{
    uint64_t mask = stack_mask(core);
    uint64_t sp = (core->cpu.reg[X86_RSP] - size) & mask;
    uint64_t linear = mask == UINT64_MAX ? sp : x86_linear_access(core, X86_SS, sp, size, true);
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);
    if (size == 8 && entry->write_tag == (linear & ~UINT64_C(4095)) && (linear & 4095) <= 4096 - 8) {
        *(volatile x86_u64 *)(uintptr_t)(linear + entry->addend) = value;
        if (x86_page_has_code(entry->flags))
            x86_store_code(core, entry, linear, 8);
    } else {
        x86_store_slow(core, linear, size, value, true);
    }
    set_sp(core, mask, sp);
}

uint64_t x86_pop(struct x86_core *core, unsigned size)
{
    uint64_t mask = stack_mask(core);
    uint64_t sp = core->cpu.reg[X86_RSP] & mask;
    uint64_t linear = mask == UINT64_MAX ? sp : x86_linear_access(core, X86_SS, sp, size, false);
    const struct x86_tlb_entry *entry = x86_tlb_slot(core, linear);
    uint64_t value;
    if (size == 8 && entry->read_tag == (linear & ~UINT64_C(4095)) && (linear & 4095) <= 4096 - 8)
        value = *(const volatile x86_u64 *)(uintptr_t)(linear + entry->addend);
    else
        value = x86_load_slow(core, linear, size, true);
    set_sp(core, mask, sp + size);
    return value;
}

/* The entry for fetching at linear, or NULL with the result of x86_tlb_try_fill. */
static const struct x86_tlb_entry *fetch_entry(struct x86_core *core, uint64_t linear, int *ret_rc, uint32_t *ret_error)
{
    /* The explicit context, so that the runner finds the entry at x86_tlb_slot. */
    enum x86_tlb_context now = explicit_context(core), context = now == X86_TLB_USER_ALIGN ? X86_TLB_USER : now;
    struct x86_tlb_entry *entry = &core->tlb[context][x86_tlb_index(linear)];
    *ret_rc = 0;
    if (entry->exec_tag == (linear & ~UINT64_C(4095)))
        return entry;
    *ret_rc = x86_tlb_try_fill(core, linear, X86_EXECUTE, context, &entry, ret_error);
    return *ret_rc ? NULL : entry;
}

unsigned x86_fetch(struct x86_core *core, uint64_t address, uint8_t *ret_bytes, unsigned length,
                   uint32_t *ret_error_code)
{
    unsigned done = 0;
    *ret_error_code = 0;
    while (done < length) {
        uint64_t linear = wrap(core, address + done, false);
        unsigned piece = 4096 - (unsigned)(linear & 4095);
        int rc;
        const struct x86_tlb_entry *entry = fetch_entry(core, linear, &rc, ret_error_code);
        if (!entry)
            break;
        if (piece > length - done)
            piece = length - done;
        if (entry->exec_tag == (linear & ~UINT64_C(4095)))
            memcpy(ret_bytes + done, (const void *)(uintptr_t)(linear + entry->addend), piece);
        else
            mmio_load(core, entry->gpa + (linear & 4095), ret_bytes + done, piece);
        done += piece;
    }
    return done;
}

uint64_t x86_fetch_page(struct x86_core *core, uint64_t address, struct x86_page *ret_page)
{
    uint32_t error = 0;
    int rc;
    const struct x86_tlb_entry *entry = fetch_entry(core, address, &rc, &error);
    if (!entry && rc == -1)
        x86_raise_pf(core, address, error);
    if (!entry)
        x86_raise_gp(core, 0);
    if (entry->exec_tag == (address & ~UINT64_C(4095))) {
        ret_page->host = (uint8_t *)(uintptr_t)((address & ~UINT64_C(4095)) + entry->addend);
        ret_page->flags = entry->flags;
        ret_page->read_only = false;
    } else {
        ret_page->host = NULL;
    }
    return entry->gpa + (address & 4095);
}
