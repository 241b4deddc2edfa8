/* x86_control_test.c - control registers, EFER and the other MSRs, SYSCALL and SYSRET: what they accept, what
 * they refuse, and what they do. */
#include "isa/x86/exception.h"
#include "isa/x86/msr.h"

#include "check.h"
#include "guest.h"

static struct guest guest;

#define CPU (&guest.core->cpu)
#define REG(name) guest.core->cpu.reg[X86_##name]
#define STEP(...) guest_step(&guest, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void set_cpl(unsigned cpl)
{
    CPU->seg[X86_CS].attr = (CPU->seg[X86_CS].attr & ~X86_ATTR_DPL) | cpl << X86_ATTR_DPL_SHIFT;
    CPU->seg[X86_SS].attr = (CPU->seg[X86_SS].attr & ~X86_ATTR_DPL) | cpl << X86_ATTR_DPL_SHIFT;
    x86_mode_changed(guest.core);
}

/* MOV CRn, RAX; the vector, or -1. */
static int write_cr(unsigned number, uint64_t value)
{
    REG(RAX) = value;
    return STEP(0x0f, 0x22, (uint8_t)(0xc0 | number << 3));
}

static void test_cr0(void)
{
    uint64_t good = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_WP;
    guest_reset(&guest);
    CHECK_EQ(write_cr(0, good | X86_CR0_TS), -1);
    CHECK_EQ(CPU->cr0, good | X86_CR0_TS | X86_CR0_ET); /* ET is always 1 */
    CHECK_EQ(STEP(0x0f, 0x06), -1);                     /* clts */
    CHECK_EQ(CPU->cr0, good | X86_CR0_ET);
    CHECK_EQ(write_cr(0, good | UINT64_C(1) << 32), X86_GP);
    CHECK_EQ(write_cr(0, good | X86_CR0_NW), X86_GP); /* NW without CD */
    CHECK_EQ(write_cr(0, good | X86_CR0_NW | X86_CR0_CD), -1);
    CHECK_EQ(write_cr(0, good & ~(uint64_t)X86_CR0_PE), X86_GP);
    CHECK_EQ(write_cr(0, good & ~(uint64_t)X86_CR0_PG), X86_GP); /* from 64-bit code */
    REG(RAX) = 0;
    CHECK_EQ(STEP(0x0f, 0x01, 0xf0), -1); /* lmsw ax: PE stays */
    CHECK(CPU->cr0 & X86_CR0_PE);
    set_cpl(3);
    CHECK_EQ(write_cr(0, good), X86_GP);
    CHECK_EQ(STEP(0x0f, 0x20, 0xc0), X86_GP);
    CHECK_EQ(STEP(0x0f, 0x06), X86_GP);
}

/* The way into long mode and its conditions. */
static void test_long_mode(void)
{
    guest_reset32(&guest);
    CPU->tr = (struct x86_segment){.attr = 0x8b, .limit = 0x67};
    CPU->cr3 = GUEST_TABLES;
    CPU->efer = X86_EFER_LME;
    CHECK_EQ(write_cr(0, X86_CR0_PE | X86_CR0_PG), X86_GP); /* no PAE */
    CPU->cr4 = X86_CR4_PAE;
    CPU->seg[X86_CS].attr |= X86_ATTR_L;
    CHECK_EQ(write_cr(0, X86_CR0_PE | X86_CR0_PG), X86_GP); /* CS.L */
    CPU->seg[X86_CS].attr &= ~X86_ATTR_L;
    CPU->tr.attr = 0x83;
    CHECK_EQ(write_cr(0, X86_CR0_PE | X86_CR0_PG), X86_GP); /* a 16-bit TSS */
    CPU->tr.attr = 0x8b;
    CHECK_EQ(write_cr(0, X86_CR0_PE | X86_CR0_PG), -1);
    CHECK(CPU->efer & X86_EFER_LMA);
    CHECK_EQ(guest.core->mode, X86_CODE32); /* compatibility mode until CS changes */
    CHECK_EQ(write_cr(4, 0), X86_GP);       /* PAE may not go */
    CHECK_EQ(write_cr(0, X86_CR0_PE), -1);
    CHECK(!(CPU->efer & X86_EFER_LMA));
}

static void test_cr3_and_cr4(void)
{
    guest_reset(&guest);
    CHECK_EQ(write_cr(3, GUEST_TABLES | 0x18), -1);
    CHECK_EQ(CPU->cr3, GUEST_TABLES | 0x18);
    CHECK_EQ(write_cr(3, GUEST_TABLES | UINT64_C(1) << 40), X86_GP);
    CHECK_EQ(write_cr(3, GUEST_TABLES | UINT64_C(1) << 63), X86_GP);
    CHECK_EQ(write_cr(4, X86_CR4_PAE | X86_CR4_PCIDE), X86_GP); /* CR3 has low bits set */
    CHECK_EQ(write_cr(3, GUEST_TABLES), -1);
    CHECK_EQ(write_cr(4, X86_CR4_PAE | X86_CR4_PCIDE), -1);
    CHECK_EQ(write_cr(3, GUEST_TABLES | 5 | UINT64_C(1) << 63), -1);
    CHECK_EQ(CPU->cr3, GUEST_TABLES | 5);
    CHECK_EQ(write_cr(4, 0), X86_GP);
    CHECK_EQ(write_cr(4, X86_CR4_PAE | X86_CR4_VME), X86_GP); /* not in the model */
    CHECK_EQ(write_cr(4, X86_CR4_PAE | UINT64_C(1) << 12), X86_GP); /* LA57 */
    CHECK_EQ(write_cr(4, X86_CR4_PAE | UINT64_C(1) << 33), X86_GP);
    CHECK_EQ(write_cr(1, 0), X86_UD);
    CHECK_EQ(write_cr(4, X86_CR4_PAE | X86_CR4_SMAP), -1);
    CHECK(guest.core->tlb_now == guest.core->tlb[X86_TLB_SUPERVISOR_SMAP]);
    CHECK_EQ(STEP(0x0f, 0x01, 0xcb), -1); /* stac */
    CHECK(guest.core->tlb_now == guest.core->tlb[X86_TLB_SUPERVISOR]);
    CHECK_EQ(STEP(0x0f, 0x01, 0xca), -1); /* clac */
    CHECK(guest.core->tlb_now == guest.core->tlb[X86_TLB_SUPERVISOR_SMAP]);
    set_cpl(3);
    CHECK_EQ(STEP(0x0f, 0x01, 0xcb), X86_UD);
    CHECK(guest.core->tlb_now == guest.core->tlb[X86_TLB_USER]);
}

/* PAE paging checks the four pointers when CR3 is loaded. */
static void test_pdptes(void)
{
    const uint64_t good = 0x2001, bad = 0x2003;
    guest_reset32(&guest);
    CPU->cr4 = X86_CR4_PAE;
    guest_put(&guest, 0x5000, &good, 8);
    guest_put(&guest, 0x6000, &bad, 8); /* R/W is reserved there */
    CPU->cr0 |= X86_CR0_PG;
    x86_mode_changed(guest.core);
    CHECK_EQ(write_cr(3, 0x5000), -1);
    CHECK_EQ(write_cr(3, 0x6000), X86_GP);
    CHECK_EQ(CPU->cr3, 0x5000);
}

static int write_msr(uint32_t msr, uint64_t value)
{
    return x86_msr_write(guest.core, msr, value);
}

static uint64_t read_msr(uint32_t msr)
{
    uint64_t value = 0xbad;
    CHECK_EQ(x86_msr_read(guest.core, msr, &value), 0);
    return value;
}

static void test_msrs(void)
{
    static const uint32_t addresses[] = {0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102, 0x175, 0x176};
    uint64_t value;
    guest_reset(&guest);
    for (unsigned i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        CHECK_EQ(write_msr(addresses[i], UINT64_C(0xffff800000001000) + i), 0);
        CHECK_EQ(read_msr(addresses[i]), UINT64_C(0xffff800000001000) + i);
        CHECK_EQ(write_msr(addresses[i], UINT64_C(1) << 47), -1);
    }
    CHECK_EQ(CPU->seg[X86_GS].base, UINT64_C(0xffff800000001003));
    CHECK_EQ(write_msr(0x277, UINT64_C(0x0007010600070106)), 0);
    CHECK_EQ(write_msr(0x277, 2), -1);
    CHECK_EQ(write_msr(0x277, UINT64_C(8) << 56), -1);
    CHECK_EQ(read_msr(0x277), UINT64_C(0x0007010600070106));
    CHECK_EQ(write_msr(0x2ff, 0xc06), 0);
    CHECK_EQ(write_msr(0x2ff, 0xc02), -1);
    CHECK_EQ(write_msr(0x2ff, 0x1000), -1);
    CHECK_EQ(write_msr(0x200, UINT64_C(0xc0000000)), 0);
    CHECK_EQ(write_msr(0x200, 0x100), -1);
    CHECK_EQ(write_msr(0x201, UINT64_C(0xffc0000800)), 0);
    CHECK_EQ(write_msr(0x201, 0x400), -1);
    CHECK_EQ(write_msr(0x250, UINT64_C(0x0606060606060606)), 0);
    CHECK_EQ(write_msr(0x250, 3), -1);
    CHECK_EQ(write_msr(0xfe, 0), -1); /* read-only */
    CHECK_EQ(read_msr(0xfe) & 0xff, 8);
    CHECK_EQ(write_msr(0xc0000103, UINT64_C(1) << 32), -1);
    CHECK_EQ(write_msr(0xc0000103, 7), 0);
    CHECK_EQ(write_msr(0x48, 8), -1);
    CHECK_EQ(write_msr(0xda0, 1), -1);
    CHECK_EQ(x86_msr_read(guest.core, 0x12345, &value), -1);
    CHECK_EQ(write_msr(0x12345, 0), -1);
    CHECK_EQ(x86_msr_read(guest.core, 0x49, &value), -1); /* write-only */
    CHECK_EQ(write_msr(0xc0000080, X86_EFER_LME | X86_EFER_NXE | X86_EFER_SCE), 0);
    CHECK(CPU->efer & X86_EFER_LMA); /* not for WRMSR to change */
    CHECK_EQ(write_msr(0xc0000080, X86_EFER_NXE), -1); /* LME while paging */
    CHECK_EQ(write_msr(0xc0000080, X86_EFER_LME | 2), -1);
    REG(RCX) = 0x12345;
    CHECK_EQ(STEP(0x0f, 0x32), X86_GP); /* rdmsr */
    CHECK_EQ(STEP(0x0f, 0x30), X86_GP);
    REG(RCX) = 0xc0000082;
    REG(RAX) = 0x11223344;
    REG(RDX) = 0xffff8000;
    CHECK_EQ(STEP(0x0f, 0x30), -1);
    CHECK_EQ(CPU->lstar, UINT64_C(0xffff800011223344));
    set_cpl(3);
    CHECK_EQ(STEP(0x0f, 0x30), X86_GP);
    CHECK_EQ(STEP(0x0f, 0x32), X86_GP);
}

/* The TSC follows what is written to it, and TSC_ADJUST tells by how much. */
static void test_tsc(void)
{
    guest_reset(&guest);
    CHECK_EQ(write_msr(0x10, 0), 0);
    uint64_t adjust = read_msr(0x3b), offset = CPU->tsc_offset;
    CHECK_EQ(adjust, offset);
    CHECK(read_msr(0x10) < UINT64_C(1) << 40);
    CHECK_EQ(write_msr(0x3b, adjust + 1000), 0);
    CHECK_EQ(CPU->tsc_offset, offset + 1000);
    CPU->cr4 |= X86_CR4_TSD;
    CHECK_EQ(STEP(0x0f, 0x31), -1);
    set_cpl(3);
    CHECK_EQ(STEP(0x0f, 0x31), X86_GP);
    CPU->cr4 &= ~(uint64_t)X86_CR4_TSD;
    CPU->tsc_aux = 5;
    CHECK_EQ(STEP(0x0f, 0x01, 0xf9), -1); /* rdtscp */
    CHECK_EQ(REG(RCX), 5);
}

static void test_syscall(void)
{
    guest_reset(&guest);
    set_cpl(3);
    CPU->star = UINT64_C(0x0023001000000000);
    CPU->lstar = 0x12340;
    CPU->sfmask = X86_FLAG_IF | X86_FLAG_TF;
    CPU->rflags = X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_CF;
    CHECK_EQ(STEP(0x0f, 0x05), X86_UD); /* SCE is off */
    CPU->efer |= X86_EFER_SCE;
    CHECK_EQ(STEP(0x0f, 0x05), -1);
    CHECK_EQ(REG(RIP), 0x12340);
    CHECK_EQ(REG(RCX), GUEST_CODE + 2);
    CHECK_EQ(REG(R11), X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_CF);
    CHECK_EQ(CPU->rflags, X86_FLAG_FIXED | X86_FLAG_CF);
    CHECK_EQ(CPU->seg[X86_CS].selector, 0x10);
    CHECK_EQ(CPU->seg[X86_SS].selector, 0x18);
    CHECK_EQ(x86_cpl(CPU), 0);
    REG(R11) |= X86_FLAG_RF | X86_FLAG_VM;
    CHECK_EQ(STEP(0x48, 0x0f, 0x07), -1); /* sysretq */
    CHECK_EQ(REG(RIP), GUEST_CODE + 2);
    CHECK_EQ(CPU->seg[X86_CS].selector, 0x33);
    CHECK_EQ(CPU->seg[X86_SS].selector, 0x2b);
    CHECK_EQ(x86_cpl(CPU), 3);
    CHECK_EQ(guest.core->mode, X86_CODE64);
    CHECK_EQ(CPU->rflags, X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_CF);
    CHECK_EQ(STEP(0x48, 0x0f, 0x07), X86_GP); /* not at level 3 */
    set_cpl(0);
    CHECK_EQ(STEP(0x0f, 0x07), -1); /* to compatibility mode */
    CHECK_EQ(CPU->seg[X86_CS].selector, 0x23);
    CHECK_EQ(guest.core->mode, X86_CODE32);
}

/* SGDT and its kin under UMIP; POPF and IF by IOPL; STI's shadow. */
static void test_flags_and_umip(void)
{
    guest_reset(&guest);
    CHECK_EQ(STEP(0xfb), -1);
    CHECK(CPU->sti_shadow && !x86_interruptible(guest.core));
    CPU->sti_shadow = false;
    CHECK_EQ(STEP(0xfb), -1); /* IF is on: no second shadow */
    CHECK(!CPU->sti_shadow);
    set_cpl(3);
    CHECK_EQ(STEP(0xfa), X86_GP);
    for (uint64_t level = 0; level < 3; level++) { /* user pages, for the stack */
        uint64_t entry = guest_read64(&guest, GUEST_TABLES + level * 0x1000) | 4;
        guest_put(&guest, GUEST_TABLES + level * 0x1000, &entry, 8);
    }
    uint64_t flags = X86_FLAG_FIXED | X86_FLAG_IOPL | X86_FLAG_AC | X86_FLAG_ID;
    guest_put(&guest, GUEST_STACK - 8, &flags, 8);
    REG(RSP) = GUEST_STACK - 8;
    CHECK_EQ(STEP(0x9d), -1); /* popf: neither IF nor IOPL changes */
    CHECK_EQ(CPU->rflags, X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_AC | X86_FLAG_ID);
    CPU->rflags |= X86_FLAG_IOPL;
    CHECK_EQ(STEP(0xfa), -1);
    CHECK(!(CPU->rflags & X86_FLAG_IF));
    CHECK_EQ(STEP(0x0f, 0x01, 0xe0), -1); /* smsw eax */
    CPU->cr4 |= X86_CR4_UMIP;
    CHECK_EQ(STEP(0x0f, 0x01, 0xe0), X86_GP);
    CHECK_EQ(STEP(0x0f, 0x00, 0xc0), X86_GP); /* sldt */
    CHECK_EQ(STEP(0x0f, 0x00, 0xc8), X86_GP); /* str */
    REG(RAX) = GUEST_DATA;
    CHECK_EQ(STEP(0x0f, 0x01, 0x00), X86_GP); /* sgdt [rax] */
    CHECK_EQ(STEP(0xf4), X86_GP);             /* hlt */
    set_cpl(0);
    CHECK_EQ(STEP(0xf4), -1);
    CHECK_EQ(CPU->activity, X86_HALTED);
}

int main(void)
{
    if (guest_new(&guest) != 0)
        return 1;
    test_cr0();
    test_long_mode();
    test_cr3_and_cr4();
    test_pdptes();
    test_msrs();
    test_tsc();
    test_syscall();
    test_flags_and_umip();
    guest_free(&guest);
    CHECK_DONE();
}
