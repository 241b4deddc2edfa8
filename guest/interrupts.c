/* interrupts.c - when an interrupt is taken and when not: IF, the shadows of STI and MOV SS, HLT, priorities,
 * the task priority, NMI and what blocks it; the sources: self and other IPIs, the APIC timer in its three
 * modes, PIT through the I/O APIC and through the 8259, a gate that refuses.
 * Intel SDM 3A chapters 6 and 11. */
#include "kernel.h"

#define VECTOR 0x50
#define VECTOR2 0x61

static volatile unsigned count, count2;
static volatile u64 rips[16];

static void on_interrupt(struct frame *frame)
{
    if (count < 16)
        rips[count] = frame->rip;
    count++;
    apic_eoi();
}

static void on_second(struct frame *frame)
{
    (void)frame;
    count2++;
    apic_eoi();
}

static void start(void)
{
    count = count2 = 0;
    trap_set_handler(VECTOR, on_interrupt);
    trap_set_handler(VECTOR2, on_second);
}

/* Time enough for anything that is on its way; no check measures it. */
static void wait_for(volatile unsigned *counter, unsigned target)
{
    for (u64 begin = rdtsc(); *counter < target && rdtsc() - begin < 20000000000ull;)
        pause();
}

/* ---- when ---- */

/* Ring-0 snippets with an interrupt pending: RAX counts instructions that ran before it was taken. */
CODE(sti_shadow, "xor %eax, %eax\n sti\n inc %eax\n inc %eax\n cli\n int3")
CODE(sti_sti, "sti\n sti\n nop\n cli\n int3")
CODE(sti_cli, "sti\n cli\n nop\n nop\n int3")
CODE(mov_ss_shadow, "mov %ss, %ecx\n sti\n nop\n cli\n nop\n int3")
CODE(popf_if, "pushfq\n orl $0x200, (%rsp)\n popfq\n nop\n nop\n cli\n int3")

static void check_shadow(const char *name, const struct code *code, unsigned taken, u64 offset)
{
    start();
    apic_self(VECTOR);
    struct trap trap = run_code(code, 0);
    check_trap(name, &trap, 3, 0);
    check_equal("interrupts taken", count, taken);
    if (taken)
        check_equal("where it was taken", rips[0] - KCODE, offset);
    /* Take what is left. */
    sti();
    wait_for(&count, 1);
    cli();
    check_equal("interrupts taken in the end", count, 1);
}

CODE(mov_ss_then, "mov %ss, %ecx\n pushfq\n orl $0x200, (%rsp)\n popfq\n mov %ecx, %ss\n nop\n nop\n cli\n int3")

static void check_when(void)
{
    check_shadow("STI holds interrupts for one instruction", &sti_shadow, 1, 5);
    check_shadow("a second STI does not hold them longer", &sti_sti, 1, 2);
    check_shadow("STI, CLI lets none in", &sti_cli, 0, 0);
    check_shadow("POPF that sets IF lets them in at once", &popf_if, 1, 9);
    check_shadow("MOV SS after POPF comes too late", &mov_ss_then, 1, 11);
    check_shadow("STI, one instruction", &mov_ss_shadow, 1, 4);
}

/* ---- HLT ---- */

static void check_halt(void)
{
    start();
    apic_self(VECTOR);
    sti_hlt_cli();
    check_equal("STI, HLT with one pending", count, 1);
    apic_self(VECTOR);
    u64 flags;
    __asm__ volatile("sti; nop; pushfq; pop %0; cli" : "=r"(flags));
    check_equal("IF", flags & FLAG_IF, FLAG_IF);
    check_equal("taken without HLT", count, 2);
}

/* ---- priorities ---- */

static void on_high(struct frame *frame)
{
    (void)frame;
    /* The lower one is pending meanwhile, and must wait for the EOI. */
    rips[8] = count;
    count2++;
    apic_eoi();
}

static void check_priorities(void)
{
    start();
    apic_write(APIC_TPR, 0x60);
    apic_self(VECTOR);
    sti();
    delay(1000000);
    cli();
    check_equal("TPR holds a lower class back", count, 0);
    check_equal("it is in IRR", apic_read(APIC_IRR + 0x10 * (VECTOR / 32)) >> VECTOR % 32 & 1, 1);
    check_equal("CR8 is the TPR", read_cr8(), 6);
    write_cr8(4);
    check_equal("and the other way", apic_read(APIC_TPR), 0x40);
    sti();
    wait_for(&count, 1);
    cli();
    check_equal("a lower TPR lets it in", count, 1);
    write_cr8(0);

    start();
    trap_set_handler(VECTOR2, on_high);
    apic_self(VECTOR);
    apic_self(VECTOR2);
    sti();
    wait_for(&count, 1);
    cli();
    check_equal("both came", count + 10 * count2, 11);
    check_equal("the higher one first", rips[8], 0);

    start();
    apic_self(VECTOR);
    apic_self(VECTOR);
    sti();
    wait_for(&count, 1);
    delay(1000000);
    cli();
    check_equal("two of one vector are one", count, 1);
}

/* ---- NMI ---- */

static volatile unsigned nmis, nested;

/* The self shorthand goes with fixed delivery only: an NMI is sent to the own ID. */
static void send_nmi(void)
{
    apic_ipi(apic_read(APIC_ID) >> 24, 0x4400);
}

static void on_nmi(struct frame *frame)
{
    (void)frame;
    nmis++;
    if (nmis == 1) {
        send_nmi();
        delay(1000000);
        nested = nmis;
    }
}

static void check_nmi(void)
{
    trap_set_handler(2, on_nmi);
    nmis = nested = 0;
    send_nmi();
    wait_for(&nmis, 2);
    check_equal("an NMI with IF clear, and one more", nmis, 2);
    check_equal("the second waits for IRETQ", nested, 1);
    trap_set_handler(2, NULL);
}

/* ---- a gate that refuses an external interrupt ---- */

static void check_bad_gate(void)
{
    struct gate saved = idt[0x70];
    static const u8 spin[] = { 0xfb, 0xeb, 0xfe }; /* sti; jmp . */
    const struct code code = { spin, spin + sizeof spin };
    idt[0x70].attributes = 0x0e;
    apic_self(0x70);
    struct trap trap = run_code(&code, 0);
    check_trap("#NP for an external interrupt has EXT", &trap, 11, under_tcg() ? 0x70 * 16 + 2 : 0x70 * 8 + 3);
    apic_eoi();
    idt[0x70] = saved;
}

/* ---- the APIC timer ---- */

static void check_timer(void)
{
    start();
    apic_write(APIC_TIMER_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, VECTOR);
    apic_write(APIC_TIMER_INITIAL, 100000);
    sti();
    wait_for(&count, 1);
    delay(2000000);
    cli();
    check_equal("one-shot timer", count, 1);
    check_equal("its count is 0 then", apic_read(APIC_TIMER_CURRENT), 0);

    start();
    apic_write(APIC_LVT_TIMER, VECTOR | 0x20000);
    apic_write(APIC_TIMER_INITIAL, 100000);
    sti();
    wait_for(&count, 5);
    cli();
    check(count >= 5, "periodic timer", "%u interrupts", count);
    check(apic_read(APIC_TIMER_CURRENT) <= 100000, "its count is below the initial one", "%u", apic_read(APIC_TIMER_CURRENT));
    apic_write(APIC_TIMER_INITIAL, 0);
    sti();
    delay(2000000);
    cli();
    unsigned stopped = count;
    sti();
    delay(2000000);
    cli();
    check_equal("initial count 0 stops it", count, stopped);

    start();
    apic_write(APIC_LVT_TIMER, VECTOR | 0x10000);
    apic_write(APIC_TIMER_INITIAL, 1000);
    sti();
    delay(5000000);
    cli();
    check_equal("masked timer", count, 0);
}

static void check_deadline(void)
{
    if (!cpu_has(1, 2, 24)) {
        skip("TSC-deadline timer", "CPUID has none");
        return;
    }
    start();
    apic_write(APIC_LVT_TIMER, VECTOR | 0x40000);
    __asm__ volatile("mfence" : : : "memory");
    u64 deadline = rdtsc() + 1000000;
    wrmsr(MSR_TSC_DEADLINE, deadline);
    sti();
    wait_for(&count, 1);
    cli();
    check(count == 1 && rdtsc() >= deadline, "TSC-deadline timer", "%u interrupts", count);
    check_equal("the deadline is 0 after it", rdmsr(MSR_TSC_DEADLINE), 0);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() - 1000);
    sti();
    wait_for(&count, 2);
    cli();
    check_equal("a deadline in the past fires at once", count, 2);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 100000000000ull);
    wrmsr(MSR_TSC_DEADLINE, 0);
    check_equal("0 disarms", rdmsr(MSR_TSC_DEADLINE), 0);
    apic_write(APIC_LVT_TIMER, 0x10000);
}

/* ---- PIT: by the I/O APIC's pin 2, and by the 8259 ---- */

static void pit_periodic(u16 divisor)
{
    outb(0x43, 0x34);
    outb(0x40, (u8)divisor);
    outb(0x40, (u8)(divisor >> 8));
}

static void on_pic(struct frame *frame)
{
    (void)frame;
    count++;
    outb(0x20, 0x20);
}

static void check_pit(void)
{
    start();
    ioapic_route(2, VECTOR);
    pit_periodic(1193);
    sti();
    wait_for(&count, 3);
    cli();
    check(count >= 3, "PIT through the I/O APIC", "%u interrupts", count);
    ioapic_route(2, 0);
    sti();
    delay(100000);
    cli();
    unsigned before = count;
    sti();
    delay(20000000);
    cli();
    check_equal("masked in the I/O APIC", count, before);

    count = 0;
    trap_set_handler(0x20, on_pic);
    apic_write(APIC_LVT_LINT0, 0x700); /* ExtINT: the 8259's own vector */
    outb(0x21, 0xfe);
    sti();
    wait_for(&count, 3);
    cli();
    outb(0x21, 0xff);
    check(count >= 3, "PIT through the 8259", "%u interrupts", count);
    apic_write(APIC_LVT_LINT0, 0x10000);
    trap_set_handler(0x20, NULL);
    outb(0x43, 0x30); /* quiet: count down once */
    outb(0x40, 0xff);
    outb(0x40, 0xff);
}

/* ---- ring 3 is interrupted, too ---- */

CODE(spin3, "1: inc %rax\n jmp 1b")

static void check_ring3(void)
{
    trap_set_handler(VECTOR, NULL);
    apic_write(APIC_LVT_TIMER, VECTOR);
    apic_write(APIC_TIMER_INITIAL, 1000000);
    struct trap trap;
    struct frame frame = code_frame(&spin3, 3);
    frame.rflags = 2 | FLAG_IF;
    run(&frame, &trap);
    check_trap("the timer in ring 3", &trap, VECTOR, 0);
    check_equal("CS", trap.frame.cs, SEL_UCODE64);
    check(trap.frame.rax > 0, "ring 3 ran before it", "%lu turns", (unsigned long)trap.frame.rax);
    apic_eoi();
    frame.rflags = 2 | FLAG_IF;
    apic_self(VECTOR);
    run(&frame, &trap);
    check_trap("one that is pending", &trap, VECTOR, 0);
    check_equal("it is taken before the first instruction", trap.frame.rip, UCODE);
    apic_eoi();
}

void kernel_main(void)
{
    apic_enable();
    check_when();
    check_halt();
    check_priorities();
    check_nmi();
    check_bad_gate();
    check_timer();
    check_deadline();
    check_pit();
    check_ring3();
}
