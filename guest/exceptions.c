/* exceptions.c - which exception an instruction raises, with which error code, and where it points.
 * Intel SDM 3A chapters 5 and 6; AMD APM 2 chapter 8. */
#include "kernel.h"

#define NONCANONICAL "mov $0x800000000000, %rax\n"

struct row {
    const char *name;
    const struct code *code;
    unsigned ring;
    unsigned vector;
    long error;
    u64 offset; /* of the saved RIP from the start of the code */
    bool tcg;   /* TCG does as hardware does */
};

CODE(divide_zero, "xor %ecx, %ecx\n div %ecx")
CODE(divide_overflow, "mov $0x80000000, %eax\n cdq\n mov $-1, %ecx\n idiv %ecx")
CODE(breakpoint, "nop\n int3")
CODE(icebp, ".byte 0xf1")
CODE(undefined, "ud2")
CODE(into64, ".byte 0xce")
CODE(lock_register, ".byte 0xf0, 0x01, 0xc0")
CODE(lock_load, ".byte 0xf0, 0x8b, 0x07")
CODE(mov_to_cs, ".byte 0x8e, 0xc8")
CODE(too_long, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90")
CODE32(into32, "mov $0x7fffffff, %eax\n inc %eax\n into")
CODE32(bound32, "movl $1, 0x70020000\n movl $3, 0x70020004\n mov $4, %eax\n bound %eax, 0x70020000")
CODE(hlt3, "hlt")
CODE(cli3, "cli")
CODE(sti3, "sti")
CODE(read_cr0_3, "mov %cr0, %rax")
CODE(write_dr7_3, "mov %rax, %dr7")
CODE(rdmsr3, "mov $0xc0000080, %ecx\n rdmsr")
CODE(lgdt3, "lgdt (%rsp)")
CODE(invlpg3, "invlpg (%rsp)")
CODE(wbinvd3, "wbinvd")
CODE(clts3, "clts")
CODE(lmsw3, "lmsw %ax")
CODE(ltr3, "ltr %ax")
CODE(swapgs3, "swapgs")
CODE(sysret3, "sysretq")
CODE(in3, "in $0x70, %al")
CODE(unknown_msr, "mov $0x12345, %ecx\n rdmsr")
CODE(unknown_msr_write, "mov $0x12345, %ecx\n wrmsr")
CODE(int_dpl0, "int $0x81")
CODE(load_noncanonical, NONCANONICAL "mov (%rax), %eax")
CODE(store_noncanonical, NONCANONICAL "mov %eax, (%rax)")
CODE(load_stack_noncanonical, NONCANONICAL "mov %rax, %rbp\n mov (%rbp), %eax")
CODE(push_noncanonical, NONCANONICAL "lea 64(%rax), %rsp\n push %rax")
CODE(call_noncanonical, NONCANONICAL "call *%rax")
CODE(ret_noncanonical, NONCANONICAL "push %rax\n ret")
CODE(lstar_noncanonical, "mov $0xc0000082, %ecx\n mov $0x8000, %edx\n xor %eax, %eax\n wrmsr")
CODE(fsbase_noncanonical, "mov $0xc0000100, %ecx\n mov $0x8000, %edx\n xor %eax, %eax\n wrmsr")
CODE(movaps_misaligned, "movaps 1(%rsp), %xmm0")
CODE(cmpxchg16b_misaligned, "lea -24(%rsp), %rdi\n cmpxchg16b (%rdi)")
CODE(iret_noncanonical, NONCANONICAL "pushq $0x10\n push %rsp\n pushq $2\n pushq $8\n push %rax\n iretq")

static const struct row rows[] = {
    { "DIV by zero", &divide_zero, 0, 0, 0, 2, true },
    { "DIV by zero, ring 3", &divide_zero, 3, 0, 0, 2, true },
    { "IDIV overflow", &divide_overflow, 3, 0, 0, 11, true },
    { "INT3", &breakpoint, 3, 3, 0, 2, true },
    { "INT3, ring 0", &breakpoint, 0, 3, 0, 2, true },
    { "INT1", &icebp, 3, 1, 0, 1, false },
    { "UD2", &undefined, 3, 6, 0, 0, true },
    { "INTO in 64-bit code", &into64, 3, 6, 0, 0, true },
    { "LOCK on a register", &lock_register, 3, 6, 0, 0, true },
    { "LOCK MOV", &lock_load, 3, 6, 0, 0, false },
    { "MOV to CS", &mov_to_cs, 0, 6, 0, 0, true },
    { "16-byte instruction", &too_long, 3, 13, 0, 0, true },
    { "INTO", &into32, 32, 4, 0, 7, true },
    { "BOUND", &bound32, 32, 5, 0, 25, true },
    { "HLT, ring 3", &hlt3, 3, 13, 0, 0, true },
    { "CLI, ring 3", &cli3, 3, 13, 0, 0, true },
    { "STI, ring 3", &sti3, 3, 13, 0, 0, true },
    { "MOV from CR0, ring 3", &read_cr0_3, 3, 13, 0, 0, true },
    { "MOV to DR7, ring 3", &write_dr7_3, 3, 13, 0, 0, true },
    { "RDMSR, ring 3", &rdmsr3, 3, 13, 0, 5, true },
    { "LGDT, ring 3", &lgdt3, 3, 13, 0, 0, true },
    { "INVLPG, ring 3", &invlpg3, 3, 13, 0, 0, true },
    { "WBINVD, ring 3", &wbinvd3, 3, 13, 0, 0, true },
    { "CLTS, ring 3", &clts3, 3, 13, 0, 0, true },
    { "LMSW, ring 3", &lmsw3, 3, 13, 0, 0, true },
    { "LTR, ring 3", &ltr3, 3, 13, 0, 0, true },
    { "SWAPGS, ring 3", &swapgs3, 3, 13, 0, 0, true },
    { "SYSRET, ring 3", &sysret3, 3, 13, 0, 0, true },
    { "IN without permission", &in3, 3, 13, 0, 0, true },
    { "RDMSR of none", &unknown_msr, 0, 13, 0, 5, false },
    { "WRMSR of none", &unknown_msr_write, 0, 13, 0, 5, false },
    { "INT n, gate DPL 0", &int_dpl0, 3, 13, 0x81 * 8 + 2, 0, false },
    { "load, non-canonical", &load_noncanonical, 3, 13, 0, 10, true },
    { "store, non-canonical", &store_noncanonical, 3, 13, 0, 10, true },
    { "load by RBP, non-canonical", &load_stack_noncanonical, 3, 12, 0, 13, false },
    { "PUSH, non-canonical", &push_noncanonical, 3, 12, 0, 14, false },
    { "CALL, non-canonical", &call_noncanonical, 3, 13, 0, 10, false },
    { "RET, non-canonical", &ret_noncanonical, 3, 13, 0, 11, false },
    { "LSTAR, non-canonical", &lstar_noncanonical, 0, 13, 0, 12, false },
    { "FS base, non-canonical", &fsbase_noncanonical, 0, 13, 0, 12, false },
    { "MOVAPS misaligned", &movaps_misaligned, 3, 13, 0, 0, false },
    { "CMPXCHG16B misaligned", &cmpxchg16b_misaligned, 3, 13, 0, 5, true },
    { "IRETQ to non-canonical", &iret_noncanonical, 0, 13, 0, 18, false },
};

static void check_rows(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        if (!row->tcg && under_tcg()) {
            skip(row->name, "TCG does not raise it as hardware does");
            continue;
        }
        struct trap trap = run_code(row->code, row->ring);
        u64 start = row->ring == 0 ? KCODE : row->ring == 3 ? UCODE : UCODE32;
        bool passed = trap.frame.vector == row->vector && trap.frame.error == (u64)row->error &&
                      trap.frame.rip == start + row->offset;
        check(passed, row->name, "vector %lu error %lx at +%lx, want %u error %lx at +%lx", (unsigned long)trap.frame.vector,
              (unsigned long)trap.frame.error, (unsigned long)(trap.frame.rip - start), row->vector,
              (unsigned long)row->error, (unsigned long)row->offset);
    }
}

/* ---- gates: not present, of a wrong type, beyond the table; double faults ---- */

CODE(int_90, "int $0x90")
CODE(fault_gp, "mov $0x800000000000, %rax\n mov (%rax), %eax")
CODE(fault_pf, "mov $0x300000000000, %rax\n mov (%rax), %eax")

/* The error code that names a vector of the IDT. TCG in long mode multiplies by 16, not 8. */
static long idt_error(unsigned vector, unsigned bits)
{
    return under_tcg() ? vector * 16 + 2 : vector * 8 + bits;
}

static void check_gates(void)
{
    struct gate saved = idt[0x90];
    idt[0x90].attributes = 0x6e; /* DPL 3, not present */
    struct trap trap = run_code(&int_90, 3);
    check_trap("gate not present", &trap, 11, idt_error(0x90, 2));
    check_equal("rip of #NP by INT n", trap.frame.rip, UCODE);
    idt[0x90].attributes = 0xe5; /* a task gate */
    trap = run_code(&int_90, 3);
    check_trap("gate of a wrong type", &trap, 13, idt_error(0x90, 2));
    idt[0x90] = saved;
    idt[0x90].attributes = 0xee;
    idt[0x90].selector = SEL_DATA;
    trap = run_code(&int_90, 3);
    check_trap("gate to a data segment", &trap, 13, SEL_DATA);
    idt[0x90].selector = 0;
    trap = run_code(&int_90, 3);
    check_trap("gate to a null selector", &trap, 13, 0);
    idt[0x90].selector = SEL_CODE32;
    trap = run_code(&int_90, 3);
    check_trap("gate to 32-bit code", &trap, 13, SEL_CODE32);
    idt[0x90] = saved;

    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) pointer = { 0x90 * 16 - 1, (u64)idt };
    __asm__ volatile("lidt %0" : : "m"(pointer));
    trap = run_code(&int_90, 3);
    check_trap("vector beyond the IDT", &trap, 13, idt_error(0x90, 2));
    pointer.limit = sizeof idt - 1;
    __asm__ volatile("lidt %0" : : "m"(pointer));

    /* A contributory fault while delivering one is #DF; after a benign exception it is just itself. */
    saved = idt[13];
    idt[13].attributes = 0x0e;
    trap = run_code(&fault_gp, 3);
    check_trap("#GP then #NP is #DF", &trap, 8, 0);
    idt[13] = saved;
    saved = idt[14];
    idt[14].attributes = 0x0e;
    trap = run_code(&fault_pf, 3);
    check_trap("#PF then #NP is #DF", &trap, 8, 0);
    idt[14] = saved;
    saved = idt[6];
    idt[6].attributes = 0x0e;
    trap = run_code(&undefined, 3);
    check_trap("#UD then #NP is #NP", &trap, 11, idt_error(6, 3));
    idt[6] = saved;
}

/* ---- CR0.TS, EM; CR4.TSD, UMIP; RF ---- */

CODE(x87, "fnop")
CODE(x87_wait, "fwait")
CODE(sse, "xorps %xmm0, %xmm0")
CODE(read_tsc, "rdtsc")
CODE(store_gdt, "sub $16, %rsp\n sgdt (%rsp)\n int3")
CODE(store_idt, "sub $16, %rsp\n sidt (%rsp)\n int3")
CODE(store_ldt, "sldt %eax\n int3")
CODE(store_tr, "str %eax\n int3")
CODE(store_msw, "smsw %eax\n int3")

static void check_control_bits(void)
{
    u64 cr0 = read_cr0(), cr4 = read_cr4();
    write_cr0(cr0 | 8);
    struct trap trap = run_code(&x87, 3);
    check_trap("x87 with CR0.TS", &trap, 7, 0);
    trap = run_code(&sse, 3);
    check_trap("SSE with CR0.TS", &trap, 7, 0);
    trap = run_code(&x87_wait, 3);
    check_trap("FWAIT with CR0.TS, MP", &trap, 7, 0);
    write_cr0((cr0 & ~2ull) | 4);
    trap = run_code(&x87, 3);
    check_trap("x87 with CR0.EM", &trap, 7, 0);
    trap = run_code(&sse, 3);
    check_trap("SSE with CR0.EM", &trap, 6, 0);
    write_cr0(cr0);
    write_cr4(cr4 & ~0x200ull);
    trap = run_code(&sse, 3);
    check_trap("SSE without CR4.OSFXSR", &trap, 6, 0);
    write_cr4(cr4 | 4);
    trap = run_code(&read_tsc, 3);
    check_trap("RDTSC with CR4.TSD, ring 3", &trap, 13, 0);
    write_cr4(cr4);

    static const struct code *const stores[] = { &store_gdt, &store_idt, &store_ldt, &store_tr, &store_msw };
    static const char *const names[] = { "SGDT", "SIDT", "SLDT", "STR", "SMSW" };
    for (unsigned i = 0; i < 5; i++) {
        trap = run_code(stores[i], 3);
        check_trap(names[i], &trap, 3, 0);
    }
    if (!cpu_has(7, 2, 2)) {
        skip("UMIP", "CPUID has none");
    } else {
        write_cr4(cr4 | 0x800);
        for (unsigned i = 0; i < 5; i++) {
            trap = run_code(stores[i], 3);
            check_trap(names[i], &trap, 13, 0);
            trap = run_code(stores[i], 0);
            check_trap(names[i], &trap, 3, 0);
        }
        write_cr4(cr4);
    }

    trap = run_code(&undefined, 3);
    if (under_tcg())
        skip("RF in the flags of a fault", "TCG pushes 0");
    else
        check_equal("RF in the flags of a fault", trap.frame.rflags & FLAG_RF, FLAG_RF);
    trap = run_code(&breakpoint, 3);
    check_equal("RF in the flags of INT3", trap.frame.rflags & FLAG_RF, 0);
}

/* ---- what a control register refuses ---- */

#define WRITE_CR(name, cr) CODE(name, "mov %rbx, %cr" #cr "\n int3")
WRITE_CR(set_cr0, 0)
WRITE_CR(set_cr3, 3)
WRITE_CR(set_cr4, 4)
WRITE_CR(set_cr8, 8)
CODE(set_efer, "mov $0xc0000080, %ecx\n mov %rbx, %rax\n mov %rbx, %rdx\n shr $32, %rdx\n wrmsr\n int3")
CODE(set_xcr0, "xor %ecx, %ecx\n mov %ebx, %eax\n xor %edx, %edx\n xsetbv\n int3")
CODE(set_dr7, "mov %rbx, %dr7\n int3")
CODE(read_cr1, ".byte 0x0f, 0x20, 0xc8")
CODE(read_dr4, "mov %db4, %rax\n int3")

static void check_refused(const char *name, const struct code *code, u64 value, unsigned vector)
{
    struct trap trap;
    struct frame frame = code_frame(code, 0);
    frame.rbx = value;
    run(&frame, &trap);
    check_trap(name, &trap, vector, 0);
}

static void check_control_registers(void)
{
    u64 cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4(), efer = rdmsr(MSR_EFER);
    check_refused("CR0 as it is", &set_cr0, cr0, 3);
    check_refused("CR4 as it is", &set_cr4, cr4, 3);
    check_refused("EFER as it is", &set_efer, efer, 3);
    check_refused("CR8 of 15", &set_cr8, 15, 3);
    check_refused("CR8 of 0", &set_cr8, 0, 3);
    check_refused("MOV from CR1", &read_cr1, 0, 6);
    write_cr4(cr4 | 8);
    check_refused("DR4 with CR4.DE", &read_dr4, 0, 6);
    write_cr4(cr4);
    check_refused("DR4 is DR6 without", &read_dr4, 0, 3);
    if (under_tcg()) {
        skip("reserved bits of control registers", "TCG ignores most");
        return;
    }
    check_refused("EFER.LME off while paging", &set_efer, efer & ~0x100ull, 13);
    check_refused("CR0.PG without PE", &set_cr0, cr0 & ~1ull, 13);
    check_refused("CR0.NW without CD", &set_cr0, cr0 | 0x20000000, 13);
    check_refused("CR0 high bit", &set_cr0, cr0 | 1ull << 32, 13);
    check_refused("CR3 beyond the address width", &set_cr3, cr3 | 1ull << 60, 13);
    check_refused("CR4 reserved bit", &set_cr4, cr4 | 1ull << 30, 13);
    check_refused("CR4 high bit", &set_cr4, cr4 | 1ull << 40, 13);
    check_refused("CR4.PAE off in long mode", &set_cr4, cr4 & ~0x20ull, 13);
    check_refused("EFER reserved bit", &set_efer, efer | 1ull << 40, 13);
    check_refused("EFER reserved low bit", &set_efer, efer | 0x20, 13);
    check_refused("CR8 of 16", &set_cr8, 16, 13);
    check_refused("DR7 high bit", &set_dr7, 0x400 | 1ull << 32, 13);
    if (cpu_has(1, 2, 26)) {
        write_cr4(cr4 | 0x40000);
        check_refused("XCR0 x87 and SSE", &set_xcr0, 3, 3);
        check_refused("XCR0 without x87", &set_xcr0, 2, 13);
        check_refused("XCR0 AVX without SSE", &set_xcr0, 5, 13);
        check_refused("XCR0 reserved bit", &set_xcr0, 3 | 1u << 30, 13);
        write_cr4(cr4);
    }
}

/* ---- POPF and I/O permissions ---- */

CODE(pop_flags, "push %rbx\n popfq\n pushfq\n pop %rax\n int3")
CODE(cli_sti, "sti\n cli\n pushfq\n pop %rax\n int3")
CODE(in_byte, "mov %ebx, %edx\n in %dx, %al\n int3")
CODE(in_word, "mov %ebx, %edx\n in %dx, %ax\n int3")

static struct trap run_with(const struct code *code, unsigned ring, u64 rbx, u64 rflags)
{
    struct trap trap;
    struct frame frame = code_frame(code, ring);
    frame.rbx = rbx;
    frame.rflags = rflags;
    run(&frame, &trap);
    return trap;
}

static void check_flags_and_ports(void)
{
    struct trap trap = run_with(&pop_flags, 3, 0x3202 | FLAG_ID, 2);
    check_equal("POPF in ring 3 keeps IF and IOPL", trap.frame.rax, 2 | FLAG_ID);
    trap = run_with(&pop_flags, 3, 0x0002, 0x3002);
    check_equal("POPF in ring 3, IOPL 3, keeps IOPL", trap.frame.rax, 0x3002);
    trap = run_with(&pop_flags, 3, 0x3202, 0x3002);
    check_equal("POPF in ring 3, IOPL 3, sets IF", trap.frame.rax, 0x3202);
    trap = run_with(&pop_flags, 0, 0x3002 | FLAG_NT | FLAG_AC, 2);
    check_equal("POPF in ring 0 sets IOPL", trap.frame.rax, 0x3002 | FLAG_NT | FLAG_AC);
    trap = run_with(&pop_flags, 0, ~0x100ull & 0x3f7fd5 & ~FLAG_RF & ~0x20000ull & ~0x180000ull, 2);
    check_equal("POPF takes all others", trap.frame.rax, 0x247ed7 & ~0x180000ull);
    trap = run_with(&cli_sti, 3, 0, 0x3002);
    check_trap("CLI and STI at IOPL 3", &trap, 3, 0);

    struct tss64 *mine = &tss[0];
    trap = run_with(&in_byte, 3, 0x80, 2);
    check_trap("IN, no bitmap", &trap, 13, 0);
    mine->io_map = __builtin_offsetof(struct tss64, bitmap);
    memset(mine->bitmap, 0xff, sizeof mine->bitmap);
    mine->bitmap[0x80 / 8] = 0xfe;
    trap = run_with(&in_byte, 3, 0x80, 2);
    check_trap("IN, allowed by the bitmap", &trap, 3, 0);
    trap = run_with(&in_byte, 3, 0x81, 2);
    check_trap("IN, refused by the bitmap", &trap, 13, 0);
    trap = run_with(&in_word, 3, 0x80, 2);
    check_trap("word IN, one of two bits", &trap, 13, 0);
    mine->bitmap[0x80 / 8] = 0x7f;
    mine->bitmap[0x88 / 8] = 0xfe;
    trap = run_with(&in_word, 3, 0x87, 2);
    check_trap("word IN across bitmap bytes", &trap, 3, 0);
    trap = run_with(&in_byte, 3, 0x80, 0x3002);
    check_trap("IN at IOPL 3", &trap, 3, 0);
    mine->io_map = sizeof *mine;
}

/* ---- alignment ---- */

CODE(misaligned, "mov %rsp, %rdi\n sub $64, %rdi\n mov 1(%rdi), %eax\n int3")

static void check_alignment(void)
{
    struct trap trap = run_with(&misaligned, 3, 0, 2 | FLAG_AC);
    check_trap("misaligned load, AC without CR0.AM", &trap, 3, 0);
    if (under_tcg()) {
        skip("#AC", "TCG has none");
        return;
    }
    write_cr0(read_cr0() | 0x40000);
    trap = run_with(&misaligned, 3, 0, 2 | FLAG_AC);
    check_trap("misaligned load, AC and CR0.AM", &trap, 17, 0);
    trap = run_with(&misaligned, 3, 0, 2);
    check_trap("misaligned load, CR0.AM alone", &trap, 3, 0);
    trap = run_with(&misaligned, 0, 0, 2 | FLAG_AC);
    check_trap("misaligned load in ring 0", &trap, 3, 0);
    write_cr0(read_cr0() & ~0x40000ull);
}

void kernel_main(void)
{
    check_rows();
    check_gates();
    check_control_bits();
    check_control_registers();
    check_flags_and_ports();
    check_alignment();
}
