/* state_save.c - struct x86_cpu in a stream, and the checks on one that comes back.
 *
 * The saved form is the fields below in this order, so one table serves both directions. */
#include <stddef.h>
#include <string.h>

#include "isa/x86/msr.h"
#include "isa/x86/paging.h"
#include "isa/x86/state.h"

#define STATE_VERSION 1u

struct field {
    uint16_t offset;
    uint8_t size; /* 1 2 4 8 */
    uint8_t count;
};

#define FIELD(name) {offsetof(struct x86_cpu, name), sizeof(((struct x86_cpu *)0)->name), 1}
#define FIELDS(name)                                                                                         \
    {offsetof(struct x86_cpu, name), sizeof(((struct x86_cpu *)0)->name[0]),                                 \
     sizeof(((struct x86_cpu *)0)->name) / sizeof(((struct x86_cpu *)0)->name[0])}
#define SEGMENT(name) FIELD(name.selector), FIELD(name.attr), FIELD(name.limit), FIELD(name.base)

static const struct field fields[] = {
    FIELDS(reg), FIELD(rflags),
    SEGMENT(seg[0]), SEGMENT(seg[1]), SEGMENT(seg[2]), SEGMENT(seg[3]), SEGMENT(seg[4]), SEGMENT(seg[5]),
    SEGMENT(ldtr), SEGMENT(tr),
    FIELD(gdtr.base), FIELD(gdtr.limit), FIELD(idtr.base), FIELD(idtr.limit),
    FIELD(cr0), FIELD(cr2), FIELD(cr3), FIELD(cr4), FIELD(cr8), FIELD(xcr0), FIELDS(dr),
    FIELD(efer), FIELD(star), FIELD(lstar), FIELD(cstar), FIELD(sfmask), FIELD(kernel_gs_base),
    FIELD(sysenter_cs), FIELD(sysenter_esp), FIELD(sysenter_eip),
    FIELD(tsc_aux), FIELD(pat), FIELD(misc_enable), FIELD(xss), FIELD(spec_ctrl), FIELD(mcg_status),
    FIELDS(mtrr.fixed), FIELDS(mtrr.base), FIELDS(mtrr.mask), FIELD(mtrr.def_type),
    FIELD(tsc_offset), FIELD(tsc_adjust),
    FIELD(activity), FIELD(sti_shadow), FIELD(mov_ss_shadow), FIELD(nmi_blocked), FIELD(nmi_pending),
    FIELD(event.valid), FIELD(event.has_error), FIELD(event.soft), FIELD(event.external),
    FIELD(event.vector), FIELD(event.error_code),
    FIELDS(fx), FIELDS(ymm[0]), FIELDS(ymm[1]), FIELDS(ymm[2]), FIELDS(ymm[3]), FIELDS(ymm[4]),
    FIELDS(ymm[5]), FIELDS(ymm[6]), FIELDS(ymm[7]), FIELDS(ymm[8]), FIELDS(ymm[9]), FIELDS(ymm[10]),
    FIELDS(ymm[11]), FIELDS(ymm[12]), FIELDS(ymm[13]), FIELDS(ymm[14]), FIELDS(ymm[15]),
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

/* Bytes that are true or false in the structure; any other byte would be a trap representation. */
static const uint16_t flags[] = {
    offsetof(struct x86_cpu, sti_shadow),  offsetof(struct x86_cpu, mov_ss_shadow),
    offsetof(struct x86_cpu, nmi_blocked), offsetof(struct x86_cpu, nmi_pending),
    offsetof(struct x86_cpu, event.valid), offsetof(struct x86_cpu, event.has_error),
    offsetof(struct x86_cpu, event.soft),  offsetof(struct x86_cpu, event.external),
};

void x86_cpu_save(const struct x86_cpu *cpu, struct stream *stream)
{
    stream_begin(stream, "x86.cpu", STATE_VERSION);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const uint8_t *from = (const uint8_t *)cpu + fields[i].offset;
        for (unsigned n = 0; n < fields[i].count; n++, from += fields[i].size) {
            switch (fields[i].size) {
            case 1: stream_put_u8(stream, *from); break;
            case 2: stream_put_u16(stream, *(const uint16_t *)(const void *)from); break;
            case 4: stream_put_u32(stream, *(const uint32_t *)(const void *)from); break;
            default: stream_put_u64(stream, *(const uint64_t *)(const void *)from); break;
            }
        }
    }
    stream_end(stream);
}

static const char *check_segments(const struct x86_cpu *cpu)
{
    for (unsigned i = 0; i < X86_SEGS + 2; i++) {
        const struct x86_segment *seg = i < X86_SEGS ? &cpu->seg[i] : i == X86_SEGS ? &cpu->ldtr : &cpu->tr;
        if (seg->attr & ~0x1f0ffu)
            return "a segment has reserved attribute bits";
        if (!x86_canonical(seg->base))
            return "a segment base is not canonical";
    }
    if (!x86_canonical(cpu->gdtr.base) || !x86_canonical(cpu->idtr.base))
        return "a descriptor table's base is not canonical";
    return NULL;
}

static const char *check_control(const struct x86_cpu *cpu)
{
    const uint64_t cr0_bits = X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE |
                              X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG;
    bool paging = (cpu->cr0 & X86_CR0_PG) != 0;
    if (cpu->cr0 & ~cr0_bits || (paging && !(cpu->cr0 & X86_CR0_PE)))
        return "CR0 is not valid";
    if (cpu->cr3 >> 52 || cpu->cr8 > 15)
        return "CR3 or CR8 is out of range";
    if (cpu->cr4 & ~(uint64_t)X86_CR4_KNOWN)
        return "CR4 has unknown bits";
    if (cpu->efer & ~(uint64_t)(X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_AUTOIBRS))
        return "EFER has unknown bits";
    if (!!(cpu->efer & X86_EFER_LMA) != (paging && (cpu->efer & X86_EFER_LME)))
        return "EFER.LMA disagrees with CR0.PG and EFER.LME";
    if ((cpu->efer & X86_EFER_LMA) && (!(cpu->cr4 & X86_CR4_PAE) || (cpu->rflags & X86_FLAG_VM)))
        return "long mode without PAE, or with EFLAGS.VM";
    if ((cpu->efer & X86_EFER_LMA) && (cpu->seg[X86_CS].attr & X86_ATTR_L) && (cpu->seg[X86_CS].attr & X86_ATTR_DB))
        return "CS has both L and D";
    return NULL;
}

static const char *check_rest(const struct x86_cpu *cpu)
{
    uint32_t mxcsr;
    if (cpu->reg[X86_ZERO] != 0 || !x86_canonical(cpu->reg[X86_RIP]))
        return "RIP is not canonical";
    if ((cpu->rflags & ~(uint64_t)0x3f7fd7) || !(cpu->rflags & X86_FLAG_FIXED))
        return "RFLAGS has wrong reserved bits";
    if (!x86_canonical(cpu->lstar) || !x86_canonical(cpu->cstar) || !x86_canonical(cpu->kernel_gs_base) ||
        !x86_canonical(cpu->sysenter_esp) || !x86_canonical(cpu->sysenter_eip))
        return "an address in an MSR is not canonical";
    if (cpu->dr[6] >> 32 || cpu->dr[7] >> 32)
        return "DR6 or DR7 is out of range";
    if (!(cpu->xcr0 & X86_XCR0_X87) || (cpu->xcr0 & ~UINT64_C(7)) || (cpu->xcr0 & 6) == X86_XCR0_AVX)
        return "XCR0 is not valid";
    if (!x86_pat_valid(cpu->pat))
        return "PAT holds an unknown memory type";
    memcpy(&mxcsr, cpu->fx + 24, sizeof(mxcsr));
    if (mxcsr & 0xffff0000u)
        return "MXCSR has reserved bits";
    if (cpu->activity > X86_SHUTDOWN)
        return "the activity is unknown";
    return NULL;
}

int x86_cpu_load(struct x86_cpu *cpu, struct stream *stream, struct error *error)
{
    struct x86_cpu loaded;
    const char *wrong = NULL;
    memset(&loaded, 0, sizeof(loaded));
    stream_enter(stream, "x86.cpu", STATE_VERSION);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        uint8_t *to = (uint8_t *)&loaded + fields[i].offset;
        for (unsigned n = 0; n < fields[i].count; n++, to += fields[i].size) {
            switch (fields[i].size) {
            case 1: *to = stream_get_u8(stream); break;
            case 2: *(uint16_t *)(void *)to = stream_get_u16(stream); break;
            case 4: *(uint32_t *)(void *)to = stream_get_u32(stream); break;
            default: *(uint64_t *)(void *)to = stream_get_u64(stream); break;
            }
        }
    }
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (((const uint8_t *)&loaded)[flags[i]] > 1)
            wrong = "a flag is neither 0 nor 1";
    }
    if (!wrong)
        wrong = check_control(&loaded);
    if (!wrong)
        wrong = check_segments(&loaded);
    if (!wrong)
        wrong = check_rest(&loaded);
    if (wrong && !stream_status(stream, NULL))
        stream_fail(stream, "the saved processor state is not valid: %s", wrong);
    stream_leave(stream);
    int rc = stream_status(stream, error);
    if (!rc)
        *cpu = loaded;
    return rc;
}
