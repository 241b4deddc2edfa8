/* debug.c - single-step, breakpoints in DR0-DR3, general detect, and what DR6 tells.
 * Intel SDM 3B chapter 18; AMD APM 2 chapter 13. */
#include "kernel.h"

#define DR6_BS 0x4000u
#define DR6_BD 0x2000u
#define DR7_GD 0x2000u
#define DR7_FIXED 0x400u
/* Breakpoint n, globally enabled, of a kind (0 execute, 1 write, 2 I/O, 3 read or write) and length. */
#define DR7_BREAK(n, kind, length)                                                                           \
    (2ull << 2 * (n) | (u64)((kind) | ((length) == 8 ? 2 : (length) - 1) << 2) << (16 + 4 * (n)))
#define BITS(dr6) ((dr6) & 0xe00f)

static void clear(void)
{
    write_dr7(DR7_FIXED);
    write_dr6(0xffff0ff0);
}

static struct trap run_flags(const struct code *code, unsigned ring, u64 rflags)
{
    struct trap trap;
    struct frame frame = code_frame(code, ring);
    frame.rflags = rflags;
    frame.rdi = ring ? UDATA : (u64)entry_of;
    run(&frame, &trap);
    return trap;
}

/* ---- single-step ---- */

static unsigned steps;
static u64 step_rip[64];
static u64 step_dr6;

static void on_step(struct frame *frame)
{
    if (steps < 64)
        step_rip[steps] = frame->rip;
    steps++;
    step_dr6 |= read_dr6();
    if (steps > 60)
        frame->rflags &= ~(u64)FLAG_TF;
}

CODE(five, "nop\n mov $1, %eax\n inc %eax\n add %eax, %eax\n int3")
CODE(repeated, "mov $3, %ecx\n cld\n rep stosb\n int3")
CODE(set_by_popf, "pushfq\n orl $0x100, (%rsp)\n popfq\n nop\n nop\n int3")
CODE(step_ss, "mov %ss, %eax\n mov %eax, %ss\n nop\n nop\n int3")
CODE(step_int, "int $0x80\n nop\n int3")
CODE(branch, "jmp 1f\n nop\n 1: nop\n int3")

static void on_int80(struct frame *frame)
{
    frame->rax = frame->rflags;
    u64 flags;
    __asm__ volatile("pushfq; pop %0" : "=r"(flags));
    frame->rbx = flags;
}

static void expect_steps(const char *name, const struct code *code, unsigned ring, u64 rflags, const u64 *offsets, unsigned count)
{
    u64 start = ring ? UCODE : KCODE;
    steps = 0;
    step_dr6 = 0;
    clear();
    trap_set_handler(1, on_step);
    struct trap trap = run_flags(code, ring, rflags);
    trap_set_handler(1, NULL);
    check_trap(name, &trap, 3, 0);
    check_equal("number of steps", steps, count);
    for (unsigned i = 0; i < count && i < steps; i++)
        check_equal("address after the step", step_rip[i] - start, offsets[i]);
    check_equal("DR6", BITS(step_dr6), DR6_BS);
}

static void check_steps(void)
{
    /* The step after IRETQ set TF comes after the first instruction; INT3 clears TF on its way. */
    static const u64 plain[] = { 1, 6, 8, 10 };
    expect_steps("single-step in ring 3", &five, 3, 2 | FLAG_TF, plain, 4);
    expect_steps("single-step in ring 0", &five, 0, 2 | FLAG_TF, plain, 4);
    static const u64 string[] = { 5, 6, 6, 6, 8 };
    expect_steps("each iteration of a repeated string", &repeated, 3, 2 | FLAG_TF, string, 5);
    static const u64 popf[] = { 10, 11 };
    expect_steps("TF set by POPF", &set_by_popf, 3, 2, popf, 2);
    static const u64 jump[] = { 3, 4 };
    expect_steps("a branch", &branch, 3, 2 | FLAG_TF, jump, 2);
    trap_set_handler(0x80, on_int80);
    static const u64 interrupt[] = { 3 };
    expect_steps("INT n clears TF and its return sets it", &step_int, 3, 2 | FLAG_TF, interrupt, 1);
    trap_set_handler(0x80, NULL);
    static const u64 shadow[] = { 2, 5, 6 };
    if (under_tcg())
        skip("MOV SS holds the step back", "TCG steps after it");
    else
        expect_steps("MOV SS holds the step back", &step_ss, 3, 2 | FLAG_TF, shadow, 3);
}

/* SYSCALL with TF masked by SFMASK runs free; SYSRET sets it again. */
CODE(do_syscall, "syscall\n nop\n int3")
CODE(on_syscall, "nop\n sysretq")

static void check_step_syscall(void)
{
    u8 *target = page_new();
    const u64 entry = 0x100000022000ull;
    map(entry, (u64)target, PTE_P | PTE_W);
    memcpy(target, on_syscall.start, (size_t)(on_syscall.end - on_syscall.start));
    wrmsr(MSR_STAR, (u64)SEL_UCODE32 << 48 | (u64)SEL_CODE64 << 32);
    wrmsr(MSR_LSTAR, entry);
    wrmsr(MSR_SFMASK, FLAG_TF);
    steps = 0;
    clear();
    trap_set_handler(1, on_step);
    struct trap trap = run_flags(&do_syscall, 3, 2 | FLAG_TF);
    trap_set_handler(1, NULL);
    check_trap("SYSCALL with TF", &trap, 3, 0);
    bool inside = false;
    for (unsigned i = 0; i < steps && i < 64; i++)
        inside |= step_rip[i] > entry && step_rip[i] < entry + 16;
    check(!inside, "no step in the kernel behind SFMASK", "%u steps, the first at %lx", steps, (unsigned long)step_rip[0]);
    check(steps >= 1 && steps <= 2 && step_rip[steps - 1] == UCODE + 3, "steps go on after SYSRET", "%u, the last at %lx",
          steps, (unsigned long)step_rip[0]);
}

/* ---- breakpoints ---- */

CODE(touch, "nop\n mov (%rdi), %al\n nop\n mov %al, 4(%rdi)\n nop\n int3")

static void expect_break(const char *name, u64 address, u64 dr7, unsigned ring, u64 offset, u64 dr6)
{
    clear();
    write_dr1(address);
    write_dr7(DR7_FIXED | dr7);
    struct trap trap = run_flags(&touch, ring, 2);
    u64 status = read_dr6();
    clear();
    if (offset == ~0ull) {
        check_trap(name, &trap, 3, 0);
        return;
    }
    check_trap(name, &trap, 1, 0);
    check_equal("its address", trap.frame.rip - (ring ? UCODE : KCODE), offset);
    check_equal("DR6", BITS(status), dr6);
}

static void check_breakpoints(void)
{
    expect_break("execution", UCODE + 3, DR7_BREAK(1, 0, 1), 3, 3, 2);
    expect_break("execution, another address", UCODE + 2, DR7_BREAK(1, 0, 1), 3, ~0ull, 0);
    expect_break("write", UDATA + 4, DR7_BREAK(1, 1, 1), 3, 7, 2);
    expect_break("write, not hit by the read", UDATA, DR7_BREAK(1, 1, 1), 3, ~0ull, 0);
    expect_break("read or write, by the read", UDATA, DR7_BREAK(1, 3, 1), 3, 3, 2);
    expect_break("read or write, 8 bytes", UDATA, DR7_BREAK(1, 3, 8), 3, 3, 2);
    expect_break("write, in 4 bytes", UDATA + 4, DR7_BREAK(1, 1, 4), 3, 7, 2);
    expect_break("disabled", UDATA, DR7_BREAK(1, 3, 8) & ~0xffull, 3, ~0ull, 0);
    expect_break("local enable", UDATA, (DR7_BREAK(1, 3, 1) & ~0xffull) | 4, 3, 3, 2);
    expect_break("execution in ring 0", KCODE + 3, DR7_BREAK(1, 0, 1), 0, 3, 2);

    /* An IRETQ with RF set passes an execution breakpoint. */
    clear();
    write_dr0(UCODE + 1);
    write_dr7(DR7_FIXED | DR7_BREAK(0, 0, 1));
    struct trap trap = run_flags(&touch, 3, 2);
    check_trap("execution breakpoint", &trap, 1, 0);
    struct frame again = trap.frame;
    again.rflags |= FLAG_RF;
    run(&again, &trap);
    check_trap("resumed with RF", &trap, 3, 0);
    check_equal_not_tcg("RF does not last", trap.frame.rflags & FLAG_RF, 0, "TCG keeps it");
    clear();

    /* Two at once. */
    write_dr0(UDATA);
    write_dr2(UDATA);
    write_dr7(DR7_FIXED | DR7_BREAK(0, 3, 1) | DR7_BREAK(2, 3, 1));
    trap = run_flags(&touch, 3, 2);
    check_equal_not_tcg("two breakpoints at once", BITS(read_dr6()), 5, "TCG tells one");
    clear();
}

CODE(read_dr, "mov %dr0, %rax\n int3")

static void check_general_detect(void)
{
    clear();
    struct frame frame = code_frame(&read_dr, 0);
    struct trap trap;
    write_dr7(DR7_FIXED | DR7_GD);
    run(&frame, &trap);
    u64 status = read_dr6();
    const char *why = "TCG has none";
    check_trap_not_tcg("general detect", &trap, 1, 0, why);
    check_equal_not_tcg("it faults before the move", trap.frame.rip, KCODE, why);
    check_equal_not_tcg("DR6.BD", BITS(status), DR6_BD, why);
    check_equal_not_tcg("DR7.GD is off again", read_dr7() & DR7_GD, 0, why);
    clear();
    write_dr3(0x123456789abc);
    check_equal("DR3 keeps 64 bits", read_dr3(), 0x123456789abc);
    write_dr3(0);
    write_dr6(0);
    check_equal("DR6 with all clear", read_dr6(), 0xffff0ff0);
    check_equal("DR7 with all clear", read_dr7(), DR7_FIXED);
}

CODE(in_port, "mov $0x80, %edx\n in %dx, %al\n nop\n int3")

static void check_io_breakpoint(void)
{
    clear();
    write_cr4(read_cr4() | 8);
    write_dr0(0x80);
    write_dr7(DR7_FIXED | DR7_BREAK(0, 2, 1));
    struct frame frame = code_frame(&in_port, 0);
    struct trap trap;
    run(&frame, &trap);
    check_trap("I/O breakpoint", &trap, 1, 0);
    check_equal("after the instruction", trap.frame.rip - KCODE, 6);
    clear();
    write_cr4(read_cr4() & ~8ull);
}

void kernel_main(void)
{
    check_steps();
    check_step_syscall();
    check_breakpoints();
    check_general_detect();
    check_io_breakpoint();
}
