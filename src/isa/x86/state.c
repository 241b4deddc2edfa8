/* state.c - the state after power-up, INIT and a start-up IPI. Intel SDM 3A, section 9.1 and table 9-1. */
#include "isa/x86/state.h"

#include <string.h>

#define ATTR_REAL_DATA 0x93u /* present, writable data, accessed */
#define ATTR_REAL_CODE 0x9bu /* present, readable code, accessed */
#define ATTR_LDT 0x82u
#define ATTR_BUSY_TSS 0x8bu

#define RESET_RDX 0x600u /* the family field of a processor signature */

/* What power-up and INIT have in common. */
static void reset_common(struct x86_cpu *cpu, bool bootstrap)
{
    memset(cpu->reg, 0, sizeof(cpu->reg));
    cpu->reg[X86_RIP] = 0xfff0;
    cpu->reg[X86_RDX] = RESET_RDX;
    cpu->rflags = X86_FLAG_FIXED;
    for (unsigned i = 0; i < X86_SEGS; i++)
        cpu->seg[i] = (struct x86_segment){.attr = ATTR_REAL_DATA, .limit = 0xffff};
    cpu->seg[X86_CS] =
        (struct x86_segment){.selector = 0xf000, .attr = ATTR_REAL_CODE, .limit = 0xffff, .base = 0xffff0000u};
    cpu->ldtr = (struct x86_segment){.attr = ATTR_LDT, .limit = 0xffff};
    cpu->tr = (struct x86_segment){.attr = ATTR_BUSY_TSS, .limit = 0xffff};
    cpu->gdtr = cpu->idtr = (struct x86_table){.limit = 0xffff};
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->cr8 = 0;
    memset(cpu->dr, 0, sizeof(cpu->dr));
    cpu->dr[6] = 0xffff0ff0u;
    cpu->dr[7] = 0x400;
    cpu->efer = 0;
    cpu->activity = bootstrap ? X86_RUNNING : X86_WAIT_FOR_SIPI;
    cpu->sti_shadow = cpu->mov_ss_shadow = false;
    cpu->nmi_blocked = cpu->nmi_pending = false;
    cpu->event = (struct x86_event){0};
}

void x86_cpu_reset(struct x86_cpu *cpu, bool bootstrap)
{
    static const uint8_t fcw[2] = {0x40, 0x00};
    static const uint8_t mxcsr[4] = {0x80, 0x1f, 0, 0}, mxcsr_mask[4] = {0xff, 0xff, 0, 0};
    memset(cpu, 0, sizeof(*cpu));
    reset_common(cpu, bootstrap);
    cpu->cr0 = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET;
    cpu->xcr0 = X86_XCR0_X87;
    cpu->pat = UINT64_C(0x0007040600070406);
    cpu->misc_enable = 1; /* fast strings */
    cpu->mtrr.def_type = 0x806; /* enabled, write-back: as firmware would leave it, for there is none */
    memcpy(cpu->fx, fcw, sizeof(fcw));
    cpu->fx[4] = 0xff; /* every x87 register holds a valid +0.0 */
    memcpy(cpu->fx + 24, mxcsr, sizeof(mxcsr));
    memcpy(cpu->fx + 28, mxcsr_mask, sizeof(mxcsr_mask));
}

void x86_cpu_init(struct x86_cpu *cpu, bool bootstrap)
{
    uint64_t cache = cpu->cr0 & (X86_CR0_CD | X86_CR0_NW);
    reset_common(cpu, bootstrap);
    cpu->cr0 = cache | X86_CR0_ET;
}

void x86_cpu_sipi(struct x86_cpu *cpu, uint8_t vector)
{
    if (cpu->activity != X86_WAIT_FOR_SIPI)
        return;
    cpu->seg[X86_CS].selector = (uint16_t)(vector << 8);
    cpu->seg[X86_CS].base = (uint64_t)vector << 12;
    cpu->reg[X86_RIP] = 0;
    cpu->activity = X86_RUNNING;
}
