/* strings.c - repeated string instructions: stopped by a fault or an interrupt with their registers saying how
 * far they came, in both directions, with 16-, 32- and 64-bit counts, overlapping, across pages. */
#include "kernel.h"

#define T 0x400000000000ull /* three pages, the last one missing */
#define GUARD (T + 8192)

static u8 *pages;

CODE(fill, "rep stosb\n int3")
CODE(copy, "rep movsb\n int3")
CODE(copy8, "rep movsq\n int3")
CODE(scan, "repne scasb\n int3")
CODE(compare, "repe cmpsb\n int3")
CODE(load, "rep lodsb\n int3")
CODE(fill32, "addr32 rep stosb\n int3")
CODE(in_string, "mov $0x80, %edx\n rep insb\n int3")

static struct trap run_string(const struct code *code, u64 rdi, u64 rsi, u64 rcx, u64 rflags)
{
    struct trap trap;
    struct frame frame = code_frame(code, 3);
    frame.rdi = rdi, frame.rsi = rsi, frame.rcx = rcx;
    frame.rax = 0x5a;
    frame.rflags = 2 | rflags;
    run(&frame, &trap);
    return trap;
}

static void check_registers(const char *name, const struct trap *trap, u64 rdi, u64 rsi, u64 rcx)
{
    check(trap->frame.rdi == rdi && trap->frame.rsi == rsi && trap->frame.rcx == rcx, name,
          "RDI %lx RSI %lx RCX %lx, want %lx %lx %lx", (unsigned long)trap->frame.rdi, (unsigned long)trap->frame.rsi,
          (unsigned long)trap->frame.rcx, (unsigned long)rdi, (unsigned long)rsi, (unsigned long)rcx);
}

static void check_faults(void)
{
    memset(pages, 0, 8192);
    struct trap trap = run_string(&fill, GUARD - 100, 0, 200, 0);
    check_trap("REP STOSB into a missing page", &trap, 14, 6);
    check_equal("CR2", trap.cr2, GUARD);
    check_equal("RIP is the instruction", trap.frame.rip, UCODE);
    check_registers("it came to the page's end", &trap, GUARD, 0, 100);
    check_equal("what it wrote is there", pages[8191], 0x5a);
    /* Mapped now, it goes on where it stopped. */
    struct frame again = trap.frame;
    u64 *pte = entry_of(GUARD, 1);
    *pte |= PTE_P;
    run(&again, &trap);
    check_trap("it goes on", &trap, 3, 0);
    check_registers("to its end", &trap, GUARD + 100, 0, 0);
    *pte &= ~PTE_P;
    invlpg(GUARD);
    trap = run_string(&copy, GUARD - 8, T, 50, 0);
    check_trap("REP MOVSB, destination", &trap, 14, 6);
    check_registers("it stops between elements", &trap, GUARD, T + 8, 42);
    trap = run_string(&copy, T, GUARD - 8, 50, 0);
    check_trap("REP MOVSB, source", &trap, 14, 4);
    check_registers("it stops between elements", &trap, T + 8, GUARD, 42);
    trap = run_string(&copy8, T, GUARD - 20, 50, 0);
    check_trap("REP MOVSQ, the third element crosses", &trap, 14, 4);
    check_equal("CR2 is the missing page", trap.cr2, GUARD);
    check_registers("two were moved", &trap, T + 16, GUARD - 4, 48);
    trap = run_string(&fill, T + 5000, 0, 6000, FLAG_DF);
    check_trap("downwards, before the first page", &trap, 14, 6);
    check_registers("it came to the page's start", &trap, T - 1, 0, 6000 - 5001);
    trap = run_string(&load, 0, GUARD - 3, 9, 0);
    check_registers("REP LODSB", &trap, 0, GUARD, 6);
    trap = run_string(&in_string, T, 0, 5, 0);
    check_trap("REP INSB without permission", &trap, 13, 0);
    check_registers("nothing happened", &trap, T, 0, 5);
}

static void check_counts(void)
{
    struct trap trap = run_string(&fill, GUARD + 5000, 0, 0, 0);
    check_trap("a count of 0 touches nothing", &trap, 3, 0);
    memset(pages, 0, 8192);
    trap = run_string(&fill32, 0x70020000ull | 0x100000000ull, 0, 0x500000010ull, 0);
    check_trap("a 32-bit address size", &trap, 3, 0);
    check_registers("registers are cut to 32 bits", &trap, 0x70020010, 0, 0);
    memset(pages, 7, 100);
    pages[60] = 9;
    struct frame frame = code_frame(&scan, 3);
    frame.rdi = T, frame.rcx = 100, frame.rax = 9;
    run(&frame, &trap);
    check_registers("REPNE SCASB stops after the match", &trap, T + 61, 0, 39);
    check_equal("ZF", trap.frame.rflags & FLAG_ZF, FLAG_ZF);
    memcpy(pages + 4096, pages, 100);
    pages[4096 + 30] = 1;
    trap = run_string(&compare, T + 4096, T, 100, 0);
    check_registers("REPE CMPSB stops after the difference", &trap, T + 4096 + 31, T + 31, 69);
    check_equal("ZF", trap.frame.rflags & FLAG_ZF, 0);
    /* Overlapping by one, upwards: the first byte spreads. */
    memset(pages, 0, 300);
    pages[0] = 0x33;
    trap = run_string(&copy, T + 1, T, 255, 0);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 256; i++)
        wrong += pages[i] != 0x33;
    check(wrong == 0, "REP MOVSB over itself spreads a byte", "%u differ", wrong);
    for (unsigned i = 0; i < 256; i++)
        pages[i] = (u8)i;
    trap = run_string(&copy, T + 256, T + 255, 256, FLAG_DF);
    wrong = 0;
    for (unsigned i = 0; i < 256; i++)
        wrong += pages[i + 1] != i;
    check(wrong == 0, "downwards it moves", "%u differ", wrong);
    for (unsigned i = 0; i < 512; i++)
        pages[4096 - 256 + i] = (u8)(i * 7);
    run_string(&copy8, T + 5, T + 4096 - 256, 64, 0);
    wrong = 0;
    for (unsigned i = 0; i < 512; i++)
        wrong += pages[5 + i] != (u8)(i * 7);
    check(wrong == 0, "REP MOVSQ from across two pages, unaligned", "%u differ", wrong);
}

/* ---- interrupted ---- */

#define VECTOR 0x50
static volatile unsigned interrupts, inside;

static void on_timer(struct frame *frame)
{
    interrupts++;
    /* At the instruction, with some of the count left, and consistent registers. */
    if (frame->rip == UCODE && frame->rcx != 0)
        inside++;
    apic_eoi();
    apic_write(APIC_TIMER_INITIAL, 20000);
}

static void check_interrupted(void)
{
    const u32 size = 64u << 20;
    const u64 from = 0x440000000000ull, to = 0x450000000000ull;
    for (u64 at = 0; at < size; at += 0x200000) {
        map_large(from + at, 0x1000000 + at % 0x1000000, PTE_P | PTE_W | PTE_U, 2);
        map_large(to + at, 0x2000000 + at % 0x1000000, PTE_P | PTE_W | PTE_U, 2);
    }
    memset((void *)0x1000000, 0x77, 4096);
    apic_enable();
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, VECTOR);
    trap_set_handler(VECTOR, on_timer);
    apic_write(APIC_TIMER_INITIAL, 20000);
    struct trap trap = run_string(&copy, to, from, size, FLAG_IF);
    apic_write(APIC_LVT_TIMER, 0x10000);
    check_trap("a long REP MOVSB under interrupts", &trap, 3, 0);
    check_registers("its registers at the end", &trap, to + size, from + size, 0);
    check(inside > 0, "it was interrupted in the middle", "%u interrupts, none inside", interrupts);
    check_equal("what it copied", *(volatile u64 *)0x2000000, 0x7777777777777777);
}

void kernel_main(void)
{
    pages = pages_new(3);
    for (unsigned i = 0; i < 3; i++)
        map(T + 4096 * i, (u64)pages + 4096 * i, PTE_P | PTE_W | PTE_U);
    *entry_of(GUARD, 1) &= ~PTE_P;
    invlpg(GUARD);
    check_faults();
    check_counts();
    check_interrupted();
}
