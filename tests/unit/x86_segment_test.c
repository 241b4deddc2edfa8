/* x86_segment_test.c - loading segment registers, LDTR and TR: each check and its error code; accesses
 * through segments: limits, expand-down, types. */
#include "isa/x86/segment.h"

#include "check.h"
#include "guest.h"

#define GDT UINT64_C(0x8000)
#define LDT UINT64_C(0x9000)

static struct guest guest;

#define CPU (&guest.core->cpu)
#define REG(name) guest.core->cpu.reg[X86_##name]
#define STEP(...) guest_step(&guest, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* A descriptor: base, limit in its unit, attributes as struct x86_segment has them. */
static uint64_t descriptor(uint32_t base, uint32_t limit, uint32_t attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(attr >> 12 & 15) << 52 | (uint64_t)(base >> 24) << 56;
}

static void put_descriptor(uint64_t table, unsigned index, uint64_t low)
{
    guest_put(&guest, table + index * 8, &low, 8);
}

enum {
    CODE0 = 8, DATA0 = 16, DATA3 = 24, READ_ONLY0 = 32, EXECUTE_ONLY0 = 40, CONFORMING0 = 48, ABSENT0 = 56, LDT_OK = 64,
    TSS_OK = 80, TSS_BUSY = 96, ABSENT_TSS = 112, CODE3 = 128, SYSTEM_ODD = 136, LAST = 144
};
#define ABSENT_CODE 0x1b /* + P gives 0x9b */

static void tables(void)
{
    put_descriptor(GDT, CODE0 / 8, descriptor(0, 0xfffff, 0xc09a));
    put_descriptor(GDT, DATA0 / 8, descriptor(0, 0xfffff, 0xc092));
    put_descriptor(GDT, DATA3 / 8, descriptor(0x1000, 0xfff, 0x40f2));
    put_descriptor(GDT, READ_ONLY0 / 8, descriptor(0, 0xfffff, 0xc090));
    put_descriptor(GDT, EXECUTE_ONLY0 / 8, descriptor(0, 0xfffff, 0xc098));
    put_descriptor(GDT, CONFORMING0 / 8, descriptor(0, 0xfffff, 0xc09e));
    put_descriptor(GDT, ABSENT0 / 8, descriptor(0, 0xfffff, 0xc012));
    put_descriptor(GDT, LDT_OK / 8, descriptor(LDT, 0x17, 0x82));
    put_descriptor(GDT, TSS_OK / 8, descriptor(0xa000, 0x67, 0x89));
    put_descriptor(GDT, TSS_BUSY / 8, descriptor(0xa000, 0x67, 0x8b));
    put_descriptor(GDT, ABSENT_TSS / 8, descriptor(0xa000, 0x67, 0x09));
    put_descriptor(GDT, CODE3 / 8, descriptor(0, 0xfffff, 0xc0fa));
    put_descriptor(GDT, SYSTEM_ODD / 8, descriptor(0, 0, 0x88)); /* a reserved type */
    put_descriptor(LDT, 1, descriptor(0x2000, 0xff, 0x4092));
    CPU->gdtr = (struct x86_table){GDT, LAST - 1};
    CPU->ldtr = (struct x86_segment){.attr = X86_ATTR_UNUSABLE};
}

/* CPL as the segments of level `cpl` have it. */
static void enter(bool wide, unsigned cpl)
{
    if (wide)
        guest_reset(&guest);
    else
        guest_reset32(&guest);
    tables();
    CPU->seg[X86_SS].attr |= cpl << X86_ATTR_DPL_SHIFT;
    CPU->seg[X86_CS].attr |= cpl << X86_ATTR_DPL_SHIFT;
    x86_mode_changed(guest.core);
}

/* Loads a selector into DS (3) or SS (2) by MOV; returns vector << 16 | error code, or 0. */
static uint32_t load(unsigned seg, uint16_t selector)
{
    REG(RAX) = selector;
    int vector = STEP(0x8e, (uint8_t)(0xc0 | seg << 3));
    return vector < 0 ? 0 : (uint32_t)vector << 16 | guest.core->raised.error_code;
}
#define FAULT(vector, error) ((uint32_t)(vector) << 16 | (error))

static void test_data(void)
{
    enter(false, 0);
    CHECK_EQ(load(X86_DS, DATA0), 0);
    CHECK_EQ(CPU->seg[X86_DS].limit, UINT32_MAX);
    CHECK_EQ(CPU->seg[X86_DS].attr, 0xc093);             /* accessed */
    CHECK_EQ(guest_read64(&guest, GDT + DATA0) >> 40 & 0xff, 0x93); /* in memory as well */
    CHECK_EQ(load(X86_DS, DATA3 | 3), 0);
    CHECK_EQ(CPU->seg[X86_DS].base, 0x1000);
    CHECK_EQ(CPU->seg[X86_DS].limit, 0xfff);
    CHECK_EQ(load(X86_DS, DATA0 | 3), FAULT(X86_GP, DATA0)); /* RPL > DPL */
    CHECK_EQ(CPU->seg[X86_DS].selector, DATA3 | 3);          /* nothing changed */
    CHECK_EQ(load(X86_DS, READ_ONLY0), 0);
    CHECK_EQ(load(X86_DS, CODE0), 0); /* readable code */
    CHECK_EQ(load(X86_DS, EXECUTE_ONLY0), FAULT(X86_GP, EXECUTE_ONLY0));
    CHECK_EQ(load(X86_DS, CONFORMING0 | 3), 0); /* whatever the RPL */
    CHECK_EQ(load(X86_DS, ABSENT0), FAULT(X86_NP, ABSENT0));
    CHECK_EQ(load(X86_DS, TSS_OK), FAULT(X86_GP, TSS_OK));
    CHECK_EQ(load(X86_DS, LAST), FAULT(X86_GP, LAST));
    CHECK_EQ(load(X86_DS, 12), FAULT(X86_GP, 12)); /* no LDT */
    CHECK_EQ(load(X86_DS, 3), 0);                  /* null */
    CHECK(CPU->seg[X86_DS].attr & X86_ATTR_UNUSABLE);
    enter(false, 3);
    CHECK_EQ(load(X86_DS, DATA0), FAULT(X86_GP, DATA0)); /* CPL > DPL */
    CHECK_EQ(load(X86_DS, DATA3), 0);
    CHECK_EQ(load(X86_DS, CODE3 | 3), 0);
}

static void test_stack(void)
{
    enter(false, 0);
    CHECK_EQ(load(X86_SS, DATA0), 0);
    CHECK(CPU->mov_ss_shadow);
    CPU->mov_ss_shadow = false;
    CHECK_EQ(load(X86_SS, 0), FAULT(X86_GP, 0));
    CHECK_EQ(load(X86_SS, DATA0 | 3), FAULT(X86_GP, DATA0)); /* RPL != CPL */
    CHECK_EQ(load(X86_SS, DATA3 | 3), FAULT(X86_GP, DATA3)); /* DPL != CPL */
    CHECK_EQ(load(X86_SS, READ_ONLY0), FAULT(X86_GP, READ_ONLY0));
    CHECK_EQ(load(X86_SS, CODE0), FAULT(X86_GP, CODE0));
    CHECK_EQ(load(X86_SS, ABSENT0), FAULT(X86_SSF, ABSENT0));
    CHECK(!CPU->mov_ss_shadow);
    enter(true, 0);
    CHECK_EQ(load(X86_SS, 0), 0); /* null is fine for 64-bit code below level 3 */
    CHECK_EQ(x86_cpl(CPU), 0);
    CHECK_EQ(load(X86_SS, 3), FAULT(X86_GP, 0));
    enter(true, 3);
    CHECK_EQ(load(X86_SS, 3), FAULT(X86_GP, 0));
    CHECK_EQ(load(X86_SS, DATA3 | 3), 0);
    CHECK_EQ(x86_cpl(CPU), 3);
}

/* LLDT AX or LTR AX. */
static uint32_t load_system(bool tr, uint16_t selector)
{
    REG(RAX) = selector;
    int vector = STEP(0x0f, 0x00, (uint8_t)(tr ? 0xd8 : 0xd0));
    return vector < 0 ? 0 : (uint32_t)vector << 16 | guest.core->raised.error_code;
}

static void test_ldtr_and_tr(void)
{
    enter(false, 0);
    CHECK_EQ(load_system(false, LDT_OK), 0);
    CHECK_EQ(CPU->ldtr.base, LDT);
    CHECK_EQ(load(X86_DS, 12), 0);
    CHECK_EQ(CPU->seg[X86_DS].base, 0x2000);
    CHECK_EQ(load(X86_DS, 8 * 3 + 4), FAULT(X86_GP, 8 * 3 + 4)); /* beyond it */
    CHECK_EQ(load_system(false, TSS_OK), FAULT(X86_GP, TSS_OK));
    CHECK_EQ(load_system(false, 12), FAULT(X86_GP, 12)); /* must be in the GDT */
    CHECK_EQ(load_system(false, 0), 0);
    CHECK_EQ(load(X86_DS, 12), FAULT(X86_GP, 12));
    CHECK_EQ(load_system(true, TSS_OK), 0);
    CHECK_EQ(guest_read64(&guest, GDT + TSS_OK) >> 40 & 0xff, 0x8b); /* busy */
    CHECK_EQ(CPU->tr.attr & 15, 11);
    CHECK_EQ(load_system(true, TSS_OK), FAULT(X86_GP, TSS_OK)); /* now it is busy */
    CHECK_EQ(load_system(true, TSS_BUSY), FAULT(X86_GP, TSS_BUSY));
    CHECK_EQ(load_system(true, ABSENT_TSS), FAULT(X86_NP, ABSENT_TSS));
    CHECK_EQ(load_system(true, 0), FAULT(X86_GP, 0));
    CHECK_EQ(load_system(true, DATA0), FAULT(X86_GP, DATA0));
    CHECK_EQ(load_system(true, SYSTEM_ODD), FAULT(X86_GP, SYSTEM_ODD));
    enter(false, 3);
    CHECK_EQ(load_system(true, TSS_OK), FAULT(X86_GP, 0));
    CPU->cr0 &= ~(uint64_t)X86_CR0_PE;
    CHECK_EQ(load_system(true, TSS_OK), FAULT(X86_UD, 0));
    enter(true, 0); /* 16-byte descriptors */
    CHECK_EQ(load_system(true, TSS_OK), 0);
    CHECK_EQ(CPU->tr.base, 0xa000);
    CPU->gdtr.limit = TSS_BUSY + 7;
    put_descriptor(GDT, TSS_BUSY / 8, descriptor(0xa000, 0x67, 0x89));
    CHECK_EQ(load_system(true, TSS_BUSY), FAULT(X86_GP, TSS_BUSY)); /* half of it is beyond the table */
    CPU->gdtr.limit = LAST - 1;
    put_descriptor(GDT, TSS_BUSY / 8 + 1, 0x00008000); /* a base that is not canonical */
    CHECK_EQ(load_system(true, TSS_BUSY), FAULT(X86_GP, TSS_BUSY));
    put_descriptor(GDT, TSS_BUSY / 8 + 1, UINT64_C(1) << 40); /* type bits in the second half */
    CHECK_EQ(load_system(true, TSS_BUSY), FAULT(X86_GP, TSS_BUSY));
}

/* MOV EAX, [offset] (or to it) through DS; returns the vector, or -1. */
static int access(uint32_t offset, bool write)
{
    return STEP((uint8_t)(write ? 0xa3 : 0xa1), (uint8_t)offset, (uint8_t)(offset >> 8), (uint8_t)(offset >> 16),
                (uint8_t)(offset >> 24));
}

static void set_ds(uint32_t base, uint32_t limit, uint32_t attr)
{
    CPU->seg[X86_DS] = (struct x86_segment){.selector = 16, .base = base, .limit = limit, .attr = attr};
}

static void test_limits(void)
{
    enter(false, 0);
    set_ds(0x1000, 0xfff, 0x4093);
    CHECK_EQ(access(0xffc, false), -1);
    CHECK_EQ(access(0xffd, false), X86_GP);
    CHECK_EQ(access(0xffc, true), -1);
    CHECK_EQ(access(0xfffffffe, false), X86_GP);
    set_ds(0x1000, 0xfff, 0x4097); /* expand-down: above the limit is inside */
    CHECK_EQ(access(0xfff, false), X86_GP);
    CHECK_EQ(access(0x1000, false), -1);
    CHECK_EQ(access(0xfffffffc, false), -1);
    CHECK_EQ(access(0xfffffffd, false), X86_GP);
    set_ds(0x1000, 0xfff, 0x0097); /* to 64 KiB when not big */
    CHECK_EQ(access(0xfffc, false), -1);
    CHECK_EQ(access(0xfffd, false), X86_GP);
    set_ds(0, UINT32_MAX, 0xc091); /* read-only */
    CHECK_EQ(access(0x3000, false), -1);
    CHECK_EQ(access(0x3000, true), X86_GP);
    set_ds(0, UINT32_MAX, 0xc099); /* execute-only */
    CHECK_EQ(access(0x3000, false), X86_GP);
    set_ds(0, UINT32_MAX, 0xc09b); /* readable code */
    CHECK_EQ(access(0x3000, false), -1);
    CHECK_EQ(access(0x3000, true), X86_GP);
    set_ds(0, UINT32_MAX, X86_ATTR_UNUSABLE);
    CHECK_EQ(access(0x3000, false), X86_GP);
    CPU->seg[X86_SS].limit = 0xfff;
    REG(RSP) = 0x1000;
    CHECK_EQ(STEP(0x50), -1); /* push eax */
    REG(RSP) = 0x2000;
    CHECK_EQ(STEP(0x50), X86_SSF);
    CHECK_EQ(REG(RSP), 0x2000);
    CHECK_EQ(guest.core->raised.error_code, 0);
}

/* An address beyond 4 GiB wraps: base and offset add up in 32 bits. */
static void test_wrap(void)
{
    enter(false, 0);
    set_ds(0xfffff000, UINT32_MAX, 0xc093);
    uint32_t value = 0x12345678;
    guest_put(&guest, 0x3000, &value, 4);
    CHECK_EQ(access(0x4000, false), -1);
    CHECK_EQ(REG(RAX), value);
}

int main(void)
{
    if (guest_new(&guest) != 0)
        return 1;
    test_data();
    test_stack();
    test_ldtr_and_tr();
    test_limits();
    test_wrap();
    guest_free(&guest);
    CHECK_DONE();
}
