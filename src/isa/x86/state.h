/* state.h - the whole architectural state of one x86-64 processor.
 *
 * This is what crosses between engines and what is saved: every engine can fill it and take it over at
 * an instruction boundary. Nothing here is derived or cached. Terms and bit numbers follow the Intel SDM
 * (volume 3A) and the AMD APM (volume 2). */
#ifndef VENEER_ISA_X86_STATE_H
#define VENEER_ISA_X86_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/stream.h"

/* Index into x86_cpu.reg. */
enum x86_reg {
    X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI,
    X86_R8, X86_R9, X86_R10, X86_R11, X86_R12, X86_R13, X86_R14, X86_R15,
    X86_ZERO, /* always 0: the base or index of an address that has none */
    X86_RIP,
    X86_REGS
};

/* Index into x86_cpu.seg; the order of the encoding. */
enum x86_seg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEGS };

/* Segment attributes: bits 8-15 and 20-23 of a descriptor's high word, shifted down by 8, and "unusable". */
#define X86_ATTR_TYPE 0x000fu
#define X86_ATTR_S 0x0010u
#define X86_ATTR_DPL_SHIFT 5
#define X86_ATTR_DPL 0x0060u
#define X86_ATTR_P 0x0080u
#define X86_ATTR_AVL 0x1000u
#define X86_ATTR_L 0x2000u
#define X86_ATTR_DB 0x4000u
#define X86_ATTR_G 0x8000u
#define X86_ATTR_UNUSABLE 0x10000u

struct x86_segment {
    uint16_t selector;
    uint32_t attr;
    uint32_t limit; /* in bytes, the granularity applied */
    uint64_t base;
};

struct x86_table { /* GDTR, IDTR */
    uint64_t base;
    uint16_t limit;
};

#define X86_FLAG_CF 0x00000001u
#define X86_FLAG_FIXED 0x00000002u
#define X86_FLAG_PF 0x00000004u
#define X86_FLAG_AF 0x00000010u
#define X86_FLAG_ZF 0x00000040u
#define X86_FLAG_SF 0x00000080u
#define X86_FLAG_TF 0x00000100u
#define X86_FLAG_IF 0x00000200u
#define X86_FLAG_DF 0x00000400u
#define X86_FLAG_OF 0x00000800u
#define X86_FLAG_IOPL 0x00003000u
#define X86_FLAG_NT 0x00004000u
#define X86_FLAG_RF 0x00010000u
#define X86_FLAG_VM 0x00020000u
#define X86_FLAG_AC 0x00040000u
#define X86_FLAG_VIF 0x00080000u
#define X86_FLAG_VIP 0x00100000u
#define X86_FLAG_ID 0x00200000u
#define X86_FLAGS_ARITH 0x000008d5u /* CF PF AF ZF SF OF */

#define X86_CR0_PE 0x00000001u
#define X86_CR0_MP 0x00000002u
#define X86_CR0_EM 0x00000004u
#define X86_CR0_TS 0x00000008u
#define X86_CR0_ET 0x00000010u
#define X86_CR0_NE 0x00000020u
#define X86_CR0_WP 0x00010000u
#define X86_CR0_AM 0x00040000u
#define X86_CR0_NW 0x20000000u
#define X86_CR0_CD 0x40000000u
#define X86_CR0_PG 0x80000000u

#define X86_CR4_VME 0x00000001u
#define X86_CR4_PVI 0x00000002u
#define X86_CR4_TSD 0x00000004u
#define X86_CR4_DE 0x00000008u
#define X86_CR4_PSE 0x00000010u
#define X86_CR4_PAE 0x00000020u
#define X86_CR4_MCE 0x00000040u
#define X86_CR4_PGE 0x00000080u
#define X86_CR4_PCE 0x00000100u
#define X86_CR4_OSFXSR 0x00000200u
#define X86_CR4_OSXMMEXCPT 0x00000400u
#define X86_CR4_UMIP 0x00000800u
#define X86_CR4_FSGSBASE 0x00010000u
#define X86_CR4_PCIDE 0x00020000u
#define X86_CR4_OSXSAVE 0x00040000u
#define X86_CR4_SMEP 0x00100000u
#define X86_CR4_SMAP 0x00200000u
#define X86_CR4_KNOWN                                                                                        \
    (X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE |        \
     X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_UMIP | X86_CR4_FSGSBASE |     \
     X86_CR4_PCIDE | X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_SMAP)

#define X86_EFER_SCE 0x0001u
#define X86_EFER_LME 0x0100u
#define X86_EFER_LMA 0x0400u
#define X86_EFER_NXE 0x0800u
#define X86_EFER_AUTOIBRS 0x200000u

#define X86_XCR0_X87 0x1u
#define X86_XCR0_SSE 0x2u
#define X86_XCR0_AVX 0x4u

enum x86_activity {
    X86_RUNNING,
    X86_HALTED,        /* after HLT, until an interrupt */
    X86_WAIT_FOR_SIPI, /* an application processor after INIT */
    X86_SHUTDOWN       /* after a triple fault */
};

/* An event (exception or interrupt) accepted but not yet delivered through the IDT. */
struct x86_event {
    bool valid;
    bool has_error;
    bool soft; /* INT n, INT3, INTO: the gate's DPL is checked */
    bool external;
    uint8_t vector;
    uint32_t error_code;
};

struct x86_fixed_mtrr_state {
    uint64_t fixed[11]; /* MSR 250h, 258h, 259h, 268h-26Fh */
    uint64_t base[8], mask[8];
    uint64_t def_type;
};

struct x86_cpu {
    uint64_t reg[X86_REGS]; /* reg[X86_ZERO] is 0 */
    uint64_t rflags;        /* bit 1 is 1 */
    struct x86_segment seg[X86_SEGS], ldtr, tr;
    struct x86_table gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8, xcr0;
    uint64_t dr[8]; /* 4 and 5 unused */

    /* Model-specific registers. */
    uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_aux, pat, misc_enable, xss, spec_ctrl, mcg_status;
    struct x86_fixed_mtrr_state mtrr; /* kept for the guest; RAM is always write-back */
    uint64_t tsc_offset;              /* the guest's TSC is the host's plus this, modulo 2^64 */
    uint64_t tsc_adjust;

    /* Between instructions. */
    uint8_t activity;    /* enum x86_activity */
    bool sti_shadow;     /* the instruction after STI: no maskable interrupt */
    bool mov_ss_shadow;  /* the instruction after MOV SS / POP SS: no interrupt, no single-step trap */
    bool nmi_blocked;    /* an NMI handler runs */
    bool nmi_pending;
    struct x86_event event;

    /* x87, SSE and AVX. `fx` is the first 160 bytes of an FXSAVE64 image: FCW, FSW, FTW (abridged), FOP,
     * FIP, FDP, MXCSR, MXCSR_MASK, ST0-ST7 (relative to TOP) in 16 bytes each. */
    _Alignas(16) uint8_t fx[160];
    _Alignas(32) uint8_t ymm[16][32]; /* XMM in the low 16 bytes */
};

/* The state after power-up or INIT (Intel SDM 3A, table 9-1). INIT keeps x87/SSE/AVX state, the TSC and
 * most MSRs. The bootstrap processor runs; others wait for SIPI. Pure. */
void x86_cpu_reset(struct x86_cpu *cpu, bool bootstrap);
void x86_cpu_init(struct x86_cpu *cpu, bool bootstrap);
/* What a start-up IPI does to a processor that waits for one: CS:IP = vector << 8 : 0, running. */
void x86_cpu_sipi(struct x86_cpu *cpu, uint8_t vector);

/* Current privilege level: DPL of SS, as hardware keeps it. */
static inline unsigned x86_cpl(const struct x86_cpu *cpu)
{
    return (cpu->seg[X86_SS].attr & X86_ATTR_DPL) >> X86_ATTR_DPL_SHIFT;
}

/* One section "x86.cpu". Load validates what the engines rely on (reserved bits, activity, canonical
 * addresses) and leaves *cpu untouched on failure. Returns 0 or a negative errno. */
void x86_cpu_save(const struct x86_cpu *cpu, struct stream *stream);
int x86_cpu_load(struct x86_cpu *cpu, struct stream *stream, struct error *error);

#endif
