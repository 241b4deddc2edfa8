/* x86_exception_test.c - delivery: frames in each mode, the error codes of what can go wrong on the way, and
 * the road to #DF and shutdown. */
#include "isa/x86/exception.h"

#include "check.h"
#include "guest.h"
#include "isa/x86/segment.h"

#define GDT UINT64_C(0x8000)
#define IDT UINT64_C(0x9000)
#define TSS UINT64_C(0xa000)
#define STACK0 UINT64_C(0x180000) /* the TSS's for level 0 */
#define IST1 UINT64_C(0x190000)
#define HANDLER UINT64_C(0x12340)

enum { CODE0 = 8, DATA0 = 16, CODE3 = 24, DATA3 = 32, ABSENT_CODE = 40, ABSENT_DATA = 48, LAST = 56 };

static struct guest guest;

#define CPU (&guest.core->cpu)
#define REG(name) guest.core->cpu.reg[X86_##name]

static void put64(uint64_t gpa, uint64_t value)
{
    guest_put(&guest, gpa, &value, 8);
}

static uint64_t flat(uint32_t attr)
{
    return 0xffff | (uint64_t)(attr & 0xff) << 40 | UINT64_C(15) << 48 | (uint64_t)(attr >> 12) << 52;
}

/* The state at `cpl`, with an IDT whose every gate leads to HANDLER. */
static void enter(bool wide, unsigned cpl)
{
    if (wide)
        guest_reset(&guest);
    else
        guest_reset32(&guest);
    put64(GDT + CODE0, flat(wide ? 0xa09b : 0xc09b));
    put64(GDT + DATA0, flat(0xc093));
    put64(GDT + CODE3, flat(wide ? 0xa0fb : 0xc0fb));
    put64(GDT + DATA3, flat(0xc0f3));
    put64(GDT + ABSENT_CODE, flat(wide ? 0xa01b : 0xc01b));
    put64(GDT + ABSENT_DATA, flat(0xc013));
    CPU->gdtr = (struct x86_table){GDT, LAST - 1};
    CPU->idtr = (struct x86_table){IDT, wide ? 0xfff : 0x7ff};
    CPU->tr = (struct x86_segment){.selector = 56, .attr = 0x8b, .limit = 0x67, .base = TSS};
    CPU->seg[X86_CS].selector = (uint16_t)(cpl ? CODE3 | cpl : CODE0);
    CPU->seg[X86_SS].selector = (uint16_t)(cpl ? DATA3 | cpl : DATA0);
    CPU->seg[X86_CS].attr |= cpl << X86_ATTR_DPL_SHIFT;
    CPU->seg[X86_SS].attr |= cpl << X86_ATTR_DPL_SHIFT;
    CPU->rflags = X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_DF;
    if (wide) {
        put64(TSS + 4, STACK0);
        put64(TSS + 0x24, IST1);
        for (uint64_t level = 0; level < 3; level++) /* user pages */
            put64(GUEST_TABLES + level * 0x1000, guest_read64(&guest, GUEST_TABLES + level * 0x1000) | 4);
    } else {
        put64(TSS + 4, STACK0 | (uint64_t)DATA0 << 32);
    }
    x86_mode_changed(guest.core);
}

/* A gate: type and DPL in `attr` (8E: present interrupt gate of level 0). */
static void gate(bool wide, unsigned vector, uint16_t selector, uint8_t attr, unsigned ist)
{
    uint64_t low = (HANDLER & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 | (uint64_t)attr << 40 |
                   (HANDLER >> 16) << 48;
    put64(IDT + vector * (wide ? 16 : 8), low);
    if (wide)
        put64(IDT + vector * 16 + 8, 0);
}

static void raise(uint8_t vector, bool has_error, uint32_t error)
{
    guest.core->raised = (struct x86_event){.valid = true, .vector = vector, .has_error = has_error, .error_code = error};
    guest.core->raised_cr2 = 0xabc;
    x86_deliver_raised(guest.core);
}

static void check_frame64(uint64_t rsp, uint64_t rip, uint16_t cs, uint64_t flags, uint64_t old_rsp, uint16_t ss)
{
    CHECK_EQ(guest_read64(&guest, rsp), rip);
    CHECK_EQ(guest_read64(&guest, rsp + 8), cs);
    CHECK_EQ(guest_read64(&guest, rsp + 16), flags);
    CHECK_EQ(guest_read64(&guest, rsp + 24), old_rsp);
    CHECK_EQ(guest_read64(&guest, rsp + 32), ss);
}

static void test_long(void)
{
    enter(true, 0);
    gate(true, 14, CODE0, 0x8e, 0);
    REG(RSP) = 0x150005;
    raise(X86_PF, true, 2);
    CHECK_EQ(REG(RIP), HANDLER);
    CHECK_EQ(REG(RSP), 0x150000 - 48);
    CHECK_EQ(guest_read64(&guest, REG(RSP)), 2);
    check_frame64(REG(RSP) + 8, GUEST_CODE, CODE0, 0x10602, 0x150005, DATA0); /* with RF */
    CHECK_EQ(CPU->rflags, X86_FLAG_FIXED | X86_FLAG_DF); /* IF off */
    CHECK_EQ(CPU->cr2, 0xabc);
    CHECK_EQ(CPU->seg[X86_SS].selector, DATA0); /* kept */

    enter(true, 3);
    gate(true, 0x30, CODE0, 0x8f, 0); /* a trap gate */
    CPU->rflags |= X86_FLAG_TF | X86_FLAG_AC;
    x86_deliver_interrupt(guest.core, 0x30);
    CHECK_EQ(REG(RSP), STACK0 - 40);
    check_frame64(REG(RSP), GUEST_CODE, CODE3 | 3, 0x40702, GUEST_STACK, DATA3 | 3);
    CHECK_EQ(CPU->rflags, X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_AC);
    CHECK_EQ(CPU->seg[X86_CS].selector, CODE0);
    CHECK_EQ(CPU->seg[X86_SS].selector, 0);
    CHECK_EQ(x86_cpl(CPU), 0);

    enter(true, 0);
    gate(true, 2, CODE0, 0x8e, 1);
    x86_deliver_nmi(guest.core);
    CHECK_EQ(REG(RSP), IST1 - 40);
    CHECK(CPU->nmi_blocked);
}

/* Delivers #UD; every handler but those the test gives is absent, so what it meets on the way ends in #GP or #NP
 * through vector 13 or 11, whose error code is at the top of the stack. */
static uint64_t error_after(unsigned expected_vector)
{
    gate(true, expected_vector, CODE0, 0x8e, 0);
    raise(X86_UD, false, 0);
    CHECK_EQ(CPU->activity, X86_RUNNING);
    CHECK_EQ(REG(RIP), HANDLER);
    return guest_read64(&guest, REG(RSP));
}

static void test_long_errors(void)
{
    enter(true, 0);
    gate(true, 6, CODE0, 0x0e, 0); /* not present */
    CHECK_EQ(error_after(11), 6 * 8 + 3);
    enter(true, 0);
    gate(true, 6, CODE0, 0x8c, 0); /* not a gate */
    CHECK_EQ(error_after(13), 6 * 8 + 3);
    enter(true, 0);
    gate(true, 6, 0, 0x8e, 0); /* null */
    CHECK_EQ(error_after(13), 1);
    enter(true, 0);
    gate(true, 6, DATA0, 0x8e, 0);
    CHECK_EQ(error_after(13), DATA0 + 1);
    enter(true, 0);
    gate(true, 6, LAST, 0x8e, 0); /* beyond the GDT */
    CHECK_EQ(error_after(13), LAST + 1);
    enter(true, 0);
    gate(true, 6, ABSENT_CODE, 0x8e, 0);
    CHECK_EQ(error_after(11), ABSENT_CODE + 1);
    enter(true, 0);
    gate(true, 6, CODE3, 0x8e, 0); /* outward */
    CHECK_EQ(error_after(13), CODE3 + 1);
    enter(true, 3);
    CPU->tr.limit = 10;
    gate(true, 6, CODE0, 0x8e, 0);
    gate(true, 10, CODE0, 0x8e, 0);
    raise(X86_UD, false, 0); /* #TS cannot be delivered either */
    CHECK_EQ(CPU->activity, X86_SHUTDOWN);
    enter(true, 0);
    put64(TSS + 0x24, UINT64_C(1) << 50);
    gate(true, 6, CODE0, 0x8e, 1);
    CHECK_EQ(error_after(12), 1);
    enter(true, 0);
    CPU->idtr.limit = 6 * 16 + 14;
    put64(IDT + 6 * 16, 0);
    raise(X86_UD, false, 0); /* nor is there a gate 13 */
    CHECK_EQ(CPU->activity, X86_SHUTDOWN);
}

static void test_double_fault(void)
{
    enter(true, 0); /* #GP whose gate is empty: another #GP, contributory twice */
    gate(true, 8, CODE0, 0x8e, 1);
    raise(X86_GP, true, 0);
    CHECK_EQ(REG(RIP), HANDLER);
    CHECK_EQ(REG(RSP), IST1 - 48);
    CHECK_EQ(guest_read64(&guest, REG(RSP)), 0);
    enter(true, 0); /* a benign one first: #GP in series */
    gate(true, 13, CODE0, 0x8e, 0);
    raise(X86_UD, false, 0);
    CHECK_EQ(guest_read64(&guest, REG(RSP)), 6 * 8 + 3);
    enter(true, 0); /* #PF then #PF: the stack is not mapped */
    gate(true, 14, CODE0, 0x8e, 0);
    gate(true, 8, CODE0, 0x8e, 1);
    REG(RSP) = 0x40000000;
    raise(X86_PF, true, 0);
    CHECK_EQ(REG(RSP), IST1 - 48);
    CHECK_EQ(CPU->cr2, 0x40000000 - 8);
    enter(true, 0); /* #GP then #PF: in series */
    gate(true, 13, CODE0, 0x8e, 0);
    gate(true, 14, CODE0, 0x8e, 1);
    REG(RSP) = 0x40000000;
    raise(X86_GP, true, 0);
    CHECK_EQ(REG(RSP), IST1 - 48);
    CHECK_EQ(guest_read64(&guest, REG(RSP)), 2);
    enter(true, 0); /* nothing there at all */
    raise(X86_GP, true, 0);
    CHECK_EQ(CPU->activity, X86_SHUTDOWN);
}

static uint32_t get32(uint64_t gpa)
{
    return (uint32_t)guest_read64(&guest, gpa);
}

static void test_protected(void)
{
    enter(false, 3);
    gate(false, 13, CODE0, 0x8e, 0);
    REG(RSP) = 0x150000;
    raise(X86_GP, true, 0x18);
    CHECK_EQ(REG(RSP), STACK0 - 24);
    const uint32_t want[] = {0x18, GUEST_CODE, CODE3 | 3, 0x10602, 0x150000, DATA3 | 3};
    for (unsigned i = 0; i < 6; i++)
        CHECK_EQ(get32(REG(RSP) + 4 * i), want[i]);
    CHECK_EQ(CPU->seg[X86_SS].selector, DATA0);
    CHECK_EQ(x86_cpl(CPU), 0);
    enter(false, 0); /* a 16-bit gate, same level */
    gate(false, 0x21, CODE0, 0x86, 0);
    x86_deliver_interrupt(guest.core, 0x21);
    CHECK_EQ(REG(RSP), GUEST_STACK - 6);
    CHECK_EQ(guest_read64(&guest, REG(RSP)) & 0xffff, GUEST_CODE & 0xffff);
    CHECK_EQ(REG(RIP), HANDLER & 0xffff);
    enter(false, 3); /* the TSS's SS is no good: #TS, which needs the stack too, so #DF and shutdown */
    put64(TSS + 4, STACK0 | (uint64_t)DATA3 << 32);
    gate(false, 6, CODE0, 0x8e, 0);
    raise(X86_UD, false, 0);
    CHECK_EQ(CPU->activity, X86_SHUTDOWN);
}

static void test_real(void)
{
    guest_reset32(&guest);
    CPU->cr0 = 0x10;
    for (unsigned i = 0; i < X86_SEGS; i++)
        CPU->seg[i] = (struct x86_segment){.selector = 0x1000, .base = 0x10000, .limit = 0xffff, .attr = 0x93};
    CPU->idtr = (struct x86_table){0, 0x3ff};
    REG(RSP) = 0x100;
    REG(RIP) = 0x42;
    CPU->rflags = X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_TF;
    put64(0x21 * 4, 0x30001234);
    x86_mode_changed(guest.core);
    x86_deliver_interrupt(guest.core, 0x21);
    CHECK_EQ(REG(RIP), 0x1234);
    CHECK_EQ(CPU->seg[X86_CS].base, 0x30000);
    CHECK_EQ(REG(RSP), 0xfa);
    CHECK_EQ(guest_read64(&guest, 0x100fa) & 0xffffffffffff, 0x030210000042);
    CHECK_EQ(CPU->rflags, X86_FLAG_FIXED);
    CPU->idtr.limit = 0; /* no vector at all */
    x86_deliver_interrupt(guest.core, 0x21);
    CHECK_EQ(CPU->activity, X86_SHUTDOWN);
}

/* INT n from level 3: the gate's DPL counts, EXT is 0, and nothing has changed when it faults. */
static void test_software(void)
{
    const uint8_t int80[] = {0xcd, 0x80}, int3[] = {0xcc};
    enter(true, 3);
    gate(true, 0x80, CODE0, 0x8e, 0);
    CHECK_EQ(guest_step(&guest, int80, 2), X86_GP);
    CHECK_EQ(guest.core->raised.error_code, 0x80 * 8 + 2);
    CHECK_EQ(REG(RIP), GUEST_CODE);
    gate(true, 0x80, CODE0, 0xee, 0);
    CHECK_EQ(guest_step(&guest, int80, 2), -1);
    CHECK_EQ(guest_read64(&guest, REG(RSP)), GUEST_CODE + 2);
    enter(true, 3);
    CHECK_EQ(guest_step(&guest, int3, 1), X86_GP); /* an empty gate is of no type at all */
    CHECK_EQ(guest.core->raised.error_code, 3 * 8 + 2);
}

int main(void)
{
    if (guest_new(&guest) != 0)
        return 1;
    test_long();
    test_long_errors();
    test_double_fault();
    test_protected();
    test_real();
    test_software();
    guest_free(&guest);
    CHECK_DONE();
}
