/* x86_legacy_test.c - what only 32-bit protected mode has: call gates with parameters, virtual-8086 mode,
 * hardware tasks. */
#include "check.h"
#include "guest.h"
#include "isa/x86/exception.h"
#include "isa/x86/segment.h"

#define GDT UINT64_C(0x8000)
#define IDT UINT64_C(0x9000)
#define TSS_A UINT64_C(0xa000)
#define TSS_B UINT64_C(0xb000)
#define STACK0 UINT64_C(0x180000)
#define STACK_B UINT64_C(0x190000)
#define TARGET UINT64_C(0x12340)

enum {
    CODE0 = 8, DATA0 = 16, CODE3 = 24, DATA3 = 32, GATE = 40, SEL_A = 48, SEL_B = 56, TASK_GATE = 64, SEL_B16 = 72,
    LAST = 80
};

static struct guest guest;

#define CPU (&guest.core->cpu)
#define REG(name) guest.core->cpu.reg[X86_##name]
#define STEP(...) guest_step(&guest, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put64(uint64_t gpa, uint64_t value) { guest_put(&guest, gpa, &value, 8); }
static void put32(uint64_t gpa, uint32_t value) { guest_put(&guest, gpa, &value, 4); }
static void put16(uint64_t gpa, uint16_t value) { guest_put(&guest, gpa, &value, 2); }
static uint32_t get32(uint64_t gpa) { return (uint32_t)guest_read64(&guest, gpa); }

static uint64_t flat(uint32_t attr)
{
    return 0xffff | (uint64_t)(attr & 0xff) << 40 | UINT64_C(15) << 48 | (uint64_t)(attr >> 12) << 52;
}

static uint64_t tss_descriptor(uint64_t base, uint32_t limit, uint8_t type)
{
    return limit | base << 16 | (uint64_t)(0x80 | type) << 40;
}

static uint8_t type_of(unsigned selector)
{
    return guest_read64(&guest, GDT + selector) >> 40 & 0xff;
}

static void enter(unsigned cpl)
{
    guest_reset32(&guest);
    put64(GDT + CODE0, flat(0xc09b));
    put64(GDT + DATA0, flat(0xc093));
    put64(GDT + CODE3, flat(0xc0fb));
    put64(GDT + DATA3, flat(0xc0f3));
    /* A call gate of level 3 with two parameters. */
    put64(GDT + GATE, (TARGET & 0xffff) | CODE0 << 16 | UINT64_C(2) << 32 | UINT64_C(0xec) << 40 | (TARGET >> 16) << 48);
    put64(GDT + SEL_A, tss_descriptor(TSS_A, 0x67, 0xb));
    put64(GDT + SEL_B, tss_descriptor(TSS_B, 0x67, 0x9));
    put64(GDT + TASK_GATE, (uint64_t)SEL_B << 16 | UINT64_C(0xe5) << 40);
    put64(GDT + SEL_B16, tss_descriptor(TSS_B, 0x2b, 0x1));
    CPU->gdtr = (struct x86_table){GDT, LAST - 1};
    CPU->idtr = (struct x86_table){IDT, 0x7ff};
    CPU->tr = (struct x86_segment){.selector = SEL_A, .attr = 0x8b, .limit = 0x67, .base = TSS_A};
    CPU->ldtr = (struct x86_segment){.attr = X86_ATTR_UNUSABLE};
    put32(TSS_A + 4, STACK0);
    put32(TSS_A + 8, DATA0);
    for (unsigned i = 0; i < X86_SEGS; i++) {
        CPU->seg[i].selector = (uint16_t)((i == X86_CS ? (cpl ? CODE3 : CODE0) : (cpl ? DATA3 : DATA0)) | cpl);
        CPU->seg[i].attr |= cpl << X86_ATTR_DPL_SHIFT;
    }
    x86_mode_changed(guest.core);
}

static void test_call_gate(void)
{
    enter(3);
    put32(GUEST_STACK - 8, 0x1111);
    put32(GUEST_STACK - 4, 0x2222);
    REG(RSP) = GUEST_STACK - 8;
    CHECK_EQ(STEP(0x9a, 0, 0, 0, 0, GATE, 0), -1); /* call far */
    CHECK_EQ(REG(RIP), TARGET);
    CHECK_EQ(CPU->seg[X86_CS].selector, CODE0);
    CHECK_EQ(CPU->seg[X86_SS].selector, DATA0);
    CHECK_EQ(REG(RSP), STACK0 - 24);
    const uint32_t want[] = {GUEST_CODE + 7, CODE3 | 3, 0x1111, 0x2222, GUEST_STACK - 8, DATA3 | 3};
    for (unsigned i = 0; i < 6; i++)
        CHECK_EQ(get32(STACK0 - 24 + 4 * i), want[i]);
    /* DS holds a level-0 segment when the gate's code returns: it becomes null. ES may stay. */
    CPU->seg[X86_DS] = (struct x86_segment){.selector = DATA0, .attr = 0xc093, .limit = UINT32_MAX};
    CHECK_EQ(STEP(0xca, 8, 0), -1); /* retf 8 */
    CHECK_EQ(REG(RIP), GUEST_CODE + 7);
    CHECK_EQ(CPU->seg[X86_CS].selector, CODE3 | 3);
    CHECK_EQ(x86_cpl(CPU), 3);
    CHECK_EQ(REG(RSP), GUEST_STACK);
    CHECK_EQ(CPU->seg[X86_DS].selector, 0);
    CHECK_EQ(CPU->seg[X86_ES].selector, DATA3 | 3);
    /* JMP through the gate would change the level: refused. */
    CHECK_EQ(STEP(0xea, 0, 0, 0, 0, GATE, 0), X86_GP);
    CHECK_EQ(guest.core->raised.error_code, CODE0);
}

static void test_v86(void)
{
    enter(0);
    const uint32_t frame[] = {0x50, 0x1000, X86_FLAG_VM | X86_FLAG_FIXED | X86_FLAG_IOPL | X86_FLAG_IF, 0x200, 0x3000,
                              0x4000, 0x5000, 0x6000, 0x7000};
    REG(RSP) = STACK0 - sizeof frame;
    guest_put(&guest, REG(RSP), frame, sizeof frame);
    CHECK_EQ(STEP(0xcf), -1);
    CHECK_EQ(CPU->rflags, X86_FLAG_VM | X86_FLAG_FIXED | X86_FLAG_IOPL | X86_FLAG_IF);
    CHECK_EQ(REG(RIP), 0x50);
    CHECK_EQ(REG(RSP), 0x200);
    CHECK_EQ(x86_cpl(CPU), 3);
    CHECK_EQ(guest.core->mode, X86_CODE16);
    const uint16_t selectors[] = {0x4000, 0x1000, 0x3000, 0x5000, 0x6000, 0x7000};
    for (unsigned i = 0; i < X86_SEGS; i++) {
        CHECK_EQ(CPU->seg[i].selector, selectors[i]);
        CHECK_EQ(CPU->seg[i].base, selectors[i] * 16u);
    }
    /* INT 21h goes to level 0 with all segments on the stack. */
    put64(IDT + 0x21 * 8, (TARGET & 0xffff) | CODE0 << 16 | UINT64_C(0xee) << 40 | (TARGET >> 16) << 48);
    CHECK_EQ(STEP(0xcd, 0x21), -1);
    CHECK_EQ(REG(RSP), STACK0 - 36);
    const uint32_t want[] = {0x52, 0x1000, X86_FLAG_VM | X86_FLAG_FIXED | X86_FLAG_IOPL | X86_FLAG_IF, 0x200, 0x3000,
                             0x4000, 0x5000, 0x6000, 0x7000};
    for (unsigned i = 0; i < 9; i++)
        CHECK_EQ(get32(STACK0 - 36 + 4 * i), want[i]);
    CHECK_EQ(CPU->rflags & (X86_FLAG_VM | X86_FLAG_IF), 0);
    CHECK(CPU->seg[X86_DS].attr & X86_ATTR_UNUSABLE);
    /* Without IOPL 3 it is #GP(0). */
    CHECK_EQ(STEP(0xcf), -1);
    CPU->rflags &= ~(uint64_t)X86_FLAG_IOPL;
    CHECK_EQ(STEP(0xcd, 0x21), X86_GP);
    CHECK_EQ(guest.core->raised.error_code, 0);
    CHECK_EQ(STEP(0xfa), X86_GP); /* cli */
    CHECK_EQ(STEP(0x9c), X86_GP); /* pushf */
}

/* Task B at level 0, about to run TARGET. */
static void task_b(void)
{
    put32(TSS_B + 0x20, TARGET);
    put32(TSS_B + 0x24, X86_FLAG_FIXED);
    for (unsigned i = 0; i < 8; i++)
        put32(TSS_B + 0x28 + 4 * i, 0xb0 + i);
    put32(TSS_B + 0x38, STACK_B);
    for (unsigned i = 0; i < X86_SEGS; i++)
        put32(TSS_B + 0x48 + 4 * i, i == X86_CS ? CODE0 : DATA0);
}

static void test_task_jump(void)
{
    enter(0);
    task_b();
    REG(RBX) = 0xaaaa;
    CHECK_EQ(STEP(0xea, 0, 0, 0, 0, SEL_B, 0), -1);
    CHECK_EQ(REG(RIP), TARGET);
    CHECK_EQ(REG(RBX), 0xb3);
    CHECK_EQ(REG(RSP), STACK_B);
    CHECK_EQ(CPU->tr.selector, SEL_B);
    CHECK(CPU->cr0 & X86_CR0_TS);
    CHECK_EQ(type_of(SEL_A), 0x89); /* no longer busy */
    CHECK_EQ(type_of(SEL_B), 0x8b);
    CHECK_EQ(get32(TSS_A + 0x20), GUEST_CODE + 7);
    CHECK_EQ(get32(TSS_A + 0x34), 0xaaaa);
    CHECK_EQ(get32(TSS_A + 0x4c), CODE0);
    CHECK_EQ(STEP(0xea, 0, 0, 0, 0, SEL_B, 0), X86_GP); /* busy: not to itself */
    CHECK_EQ(guest.core->raised.error_code, SEL_B);
    CHECK_EQ(STEP(0xea, 0, 0, 0, 0, SEL_A, 0), -1); /* and back */
    CHECK_EQ(REG(RIP), GUEST_CODE + 7);
    CHECK_EQ(REG(RBX), 0xaaaa);
}

static void test_task_call(void)
{
    enter(3);
    task_b();
    CHECK_EQ(STEP(0x9a, 0, 0, 0, 0, TASK_GATE, 0), -1);
    CHECK_EQ(REG(RIP), TARGET);
    CHECK_EQ(x86_cpl(CPU), 0);
    CHECK(CPU->rflags & X86_FLAG_NT);
    CHECK_EQ(get32(TSS_B) & 0xffff, SEL_A);
    CHECK_EQ(type_of(SEL_A), 0x8b); /* nested: both busy */
    CHECK_EQ(STEP(0xcf), -1);       /* iret */
    CHECK_EQ(REG(RIP), GUEST_CODE + 7);
    CHECK_EQ(x86_cpl(CPU), 3);
    CHECK_EQ(CPU->tr.selector, SEL_A);
    CHECK_EQ(type_of(SEL_B), 0x89);
    CHECK_EQ(CPU->rflags & X86_FLAG_NT, 0);
}

/* Through a task gate of the IDT, with an error code; then a new task that cannot run. */
static void test_task_interrupt(void)
{
    enter(3);
    task_b();
    put64(IDT + 13 * 8, (uint64_t)SEL_B << 16 | UINT64_C(0x85) << 40);
    guest.core->raised = (struct x86_event){.valid = true, .vector = X86_GP, .has_error = true, .error_code = 0x1234};
    x86_deliver_raised(guest.core);
    CHECK_EQ(REG(RIP), TARGET);
    CHECK_EQ(REG(RSP), STACK_B - 4);
    CHECK_EQ(get32(STACK_B - 4), 0x1234);

    enter(0);
    task_b();
    put32(TSS_B + 0x50, DATA3); /* SS of the wrong level: #TS, in the new task */
    CHECK_EQ(STEP(0xea, 0, 0, 0, 0, SEL_B, 0), X86_TS);
    CHECK_EQ(guest.core->raised.error_code, DATA3);
    CHECK_EQ(REG(RIP), TARGET);
    CHECK_EQ(CPU->tr.selector, SEL_B);

    enter(0);
    task_b();
    put64(GDT + SEL_B, tss_descriptor(TSS_B, 0x66, 0x9)); /* too small: #TS, in the old one */
    CHECK_EQ(STEP(0xea, 0, 0, 0, 0, SEL_B, 0), X86_TS);
    CHECK_EQ(guest.core->raised.error_code, SEL_B);
    CHECK_EQ(REG(RIP), GUEST_CODE);
    CHECK_EQ(CPU->tr.selector, SEL_A);
}

static void test_task16(void)
{
    enter(0);
    const uint16_t words[] = {0x2340, X86_FLAG_FIXED, 1, 2, 3, 4, 0x5000, 6, 7, 8, DATA0, CODE0, DATA0, DATA0, 0};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        put16(TSS_B + 0x0e + 2 * i, words[i]);
    REG(RAX) = 0xffff0000;
    CHECK_EQ(STEP(0xea, 0, 0, 0, 0, SEL_B16, 0), -1);
    CHECK_EQ(REG(RIP), 0x2340);
    CHECK_EQ(REG(RAX) & 0xffff, 1);
    CHECK_EQ(REG(RSP) & 0xffff, 0x5000);
    CHECK_EQ(REG(RDI) & 0xffff, 8);
    CHECK_EQ(CPU->seg[X86_FS].selector, 0);
    CHECK_EQ(STEP(0xea, 0, 0, 0, 0, SEL_A, 0), -1);
    CHECK_EQ(get32(TSS_B + 0x0e) & 0xffff, 0x2347);
}

int main(void)
{
    if (guest_new(&guest) != 0)
        return 1;
    test_call_gate();
    test_v86();
    test_task_jump();
    test_task_call();
    test_task_interrupt();
    test_task16();
    guest_free(&guest);
    CHECK_DONE();
}
