/* transfer.c - control transfers between segments and rings: far JMP, CALL and RET, call gates, IRET,
 * SYSCALL and SYSRET, SYSENTER and SYSEXIT, and segment loads with what they check.
 * Intel SDM 3A chapter 5; AMD APM 2 chapters 4 and 6. */
#include "kernel.h"

#define SPARE(n) (SEL_SPARE + 8 * (n)) /* gdt[8 + n] */
#define DESCRIPTOR(n) gdt[SEL_SPARE / 8 + (n)]

/* Access rights as they stand in a descriptor, with the limit's bits set. */
#define CODE64(bits) (0x0020000000000000ull | (u64)(bits) << 40)
#define FLAT(bits) (0x00cf00000000ffffull | (u64)(bits) << 40)
#define NOT_PRESENT(descriptor) ((descriptor) & ~(1ull << 47))

static struct trap run_with(const struct code *code, unsigned ring, u64 rax, u64 rbx)
{
    struct trap trap;
    struct frame frame = code_frame(code, ring);
    frame.rax = rax;
    frame.rbx = rbx;
    run(&frame, &trap);
    return trap;
}

/* ---- loading data segments ---- */

CODE(load_ds, "mov %eax, %ds\n mov %ds, %ebx\n int3")
CODE(load_ss, "mov %eax, %ss\n mov %ss, %ebx\n int3")
CODE(load_fs, "mov %eax, %fs\n mov %fs, %ebx\n int3")

static void expect_load(const char *name, const struct code *code, unsigned ring, u64 selector, unsigned vector, long error)
{
    struct trap trap = run_with(code, ring, selector, 0);
    check_trap(name, &trap, vector, error);
    if (vector == 3)
        check_equal(name, trap.frame.rbx, selector);
}

static void check_segments(void)
{
    DESCRIPTOR(0) = NOT_PRESENT(FLAT(0xf3));
    DESCRIPTOR(1) = FLAT(0x93);                 /* data, DPL 0 */
    DESCRIPTOR(2) = FLAT(0xf1);                 /* data, DPL 3, read-only */
    DESCRIPTOR(3) = CODE64(0x99);               /* code, execute only */
    DESCRIPTOR(4) = FLAT(0x9e);                 /* code, conforming, readable */
    DESCRIPTOR(5) = 0x0000820000000000ull;      /* an LDT */
    expect_load("DS, a data segment", &load_ds, 3, SEL_UDATA, 3, 0);
    expect_load("DS, null", &load_ds, 3, 3, 3, 0);
    expect_load("DS beyond the GDT", &load_ds, 3, sizeof(u64) * 64 + 3, 13, sizeof(u64) * 64);
    expect_load("DS in an LDT that is not there", &load_ds, 3, SEL_UDATA | 4, 13, (SEL_UDATA & ~3) | 4);
    expect_load("DS not present", &load_ds, 3, SPARE(0) | 3, 11, SPARE(0));
    expect_load("DS, DPL 0 from ring 3", &load_ds, 3, SPARE(1) | 3, 13, SPARE(1));
    expect_load("DS, DPL 0, RPL 3 in ring 0", &load_ds, 0, SPARE(1) | 3, 13, SPARE(1));
    expect_load("DS, read-only", &load_ds, 3, SPARE(2) | 3, 3, 0);
    expect_load("DS, execute-only code", &load_ds, 0, SPARE(3), 13, SPARE(3));
    expect_load("FS, conforming code from ring 3", &load_fs, 3, SPARE(4) | 3, 3, 0);
    expect_load("FS, a system segment", &load_fs, 0, SPARE(5), 13, SPARE(5));
    expect_load("SS, null in ring 3", &load_ss, 3, 3, 13, 0);
    expect_load("SS, null in ring 0", &load_ss, 0, 0, 3, 0);
    expect_load("SS, RPL 3 in ring 0", &load_ss, 0, SEL_UDATA, 13, SEL_UDATA & ~3);
    expect_load("SS, read-only", &load_ss, 3, SPARE(2) | 3, 13, SPARE(2));
    expect_load("SS, code", &load_ss, 3, SEL_UCODE64, 13, SEL_UCODE64 & ~3);
    expect_load("SS not present", &load_ss, 3, SPARE(0) | 3, 12, SPARE(0));
    check_equal("the accessed bit is set by a load", DESCRIPTOR(4) >> 40 & 1, 1);
    __asm__ volatile("mov %0, %%ds; mov %0, %%fs" : : "r"(SEL_UDATA));
}

/* LAR, LSL, VERR, VERW report without faulting. */
CODE(query, "lar %eax, %ecx\n setz %dl\n movzx %dl, %edx\n lsl %eax, %esi\n verr %ax\n setz %dil\n verw %ax\n setz %r8b\n"
            " movzx %dil, %edi\n movzx %r8b, %r8d\n int3")

static void check_queries(void)
{
    struct trap trap = run_with(&query, 3, SEL_UDATA, 0);
    check_equal("LAR of data", trap.frame.rcx & 0xf0ff00, 0xc0f300);
    check_equal("LSL of data", trap.frame.rsi, 0xffffffff);
    check_equal("VERR of data", trap.frame.rdi, 1);
    check_equal("VERW of data", trap.frame.r8, 1);
    trap = run_with(&query, 3, SPARE(1) | 3, 0);
    check_equal("LAR of DPL 0 from ring 3", trap.frame.rdx, 0);
    trap = run_with(&query, 3, SEL_UCODE64, 0);
    check_equal("VERR of readable code", trap.frame.rdi, 1);
    check_equal("VERW of code", trap.frame.r8, 0);
    trap = run_with(&query, 3, 0x3ff8 | 3, 0);
    check_equal("LAR beyond the GDT", trap.frame.rdx, 0);
    trap = run_with(&query, 0, SEL_TSS, 0);
    check_equal("LAR of the TSS", trap.frame.rcx & 0xf0ff00, 0x008b00);
}

/* ---- far JMP, CALL, RET in one ring ---- */

/* To compatibility mode and back: 32-bit code leaves its mark, then jumps to 64-bit code again. */
CODE(far_compat, "lea 1f(%rip), %rcx\n and $0xfff, %ecx\n add %esi, %ecx\n push %rbx\n push %rcx\n lretq\n"
                 ".code32\n1: inc %eax\n .byte 0x48\n dec %eax\n mov $0x1234, %edx\n int3\n.code64")
CODE(jmp_mem, "push %rbx\n sub $8, %rsp\n lea 1f(%rip), %rcx\n mov %rcx, (%rsp)\n rex.W ljmp *(%rsp)\n 1: mov %cs, %ecx\n int3")
CODE(call_mem, "push %rbx\n sub $8, %rsp\n lea 1f(%rip), %rcx\n mov %rcx, (%rsp)\n mov %rsp, %rsi\n rex.W lcall *(%rsp)\n"
               " 1: mov (%rsp), %rdx\n mov 8(%rsp), %rdi\n sub %rsp, %rsi\n int3")
CODE(ret_far, "push %rbx\n lea 1f(%rip), %rcx\n push %rcx\n lretq $32\n 1: int3")

static void check_far(void)
{
    struct trap trap;
    struct frame frame = code_frame(&far_compat, 0);
    frame.rax = 5, frame.rbx = SEL_CODE32, frame.rsi = KCODE32;
    run(&frame, &trap);
    check_trap("far RET to compatibility mode", &trap, 3, 0);
    /* 48h is DEC EAX there, not a prefix: 5 + 1 - 1 - 1. */
    check_equal("it decodes as 32-bit code", trap.frame.rax, 4);
    check_equal("CS", trap.frame.cs, SEL_CODE32);
    frame = code_frame(&far_compat, 3);
    frame.rax = 5, frame.rbx = SEL_UCODE32, frame.rsi = UCODE32;
    run(&frame, &trap);
    check_trap("far RET to compatibility mode, ring 3", &trap, 3, 0);
    check_equal("CS", trap.frame.cs, SEL_UCODE32);
    trap = run_with(&jmp_mem, 3, 0, SEL_UCODE64);
    check_trap("far JMP through memory", &trap, 3, 0);
    check_equal("CS", trap.frame.rcx, SEL_UCODE64);
    trap = run_with(&call_mem, 0, 0, SEL_CODE64);
    check_trap("far CALL through memory", &trap, 3, 0);
    check_equal("it pushes CS", trap.frame.rdi & 0xffff, SEL_CODE64);
    check_equal("it pushes 16 bytes", trap.frame.rsi, 16);
    trap = run_with(&ret_far, 3, 0, SEL_UCODE64);
    check_trap("far RET with an immediate", &trap, 3, 0);
    check_equal("RSP after it", trap.frame.rsp, USTACK + 32);

    DESCRIPTOR(0) = NOT_PRESENT(CODE64(0x9b));
    DESCRIPTOR(1) = 0x00609b0000000000ull; /* L and D both */
    trap = run_with(&jmp_mem, 0, 0, SPARE(0));
    check_trap("far JMP to a segment not present", &trap, 11, SPARE(0));
    trap = run_with(&jmp_mem, 0, 0, SPARE(1));
    check_trap_not_tcg("far JMP to a segment with L and D", &trap, 13, SPARE(1), "TCG does not look at D");
    trap = run_with(&jmp_mem, 0, 0, SEL_DATA);
    check_trap("far JMP to data", &trap, 13, SEL_DATA);
    trap = run_with(&jmp_mem, 0, 0, 0);
    check_trap("far JMP to null", &trap, 13, 0);
    trap = run_with(&jmp_mem, 3, 0, SEL_CODE64 | 3);
    check_trap("far JMP to a more privileged segment", &trap, 13, SEL_CODE64);
    trap = run_with(&jmp_mem, 0, 0, SEL_UCODE64);
    check_trap("far JMP to a less privileged segment", &trap, 13, SEL_UCODE64 & ~3);
    trap = run_with(&ret_far, 3, 0, SEL_CODE64);
    check_trap("far RET to an inner ring", &trap, 13, SEL_CODE64);
}

/* ---- call gates and far RET between rings ---- */

CODE(through_gate, "push %rbx\n pushq $0\n mov %rsp, %rsi\n rex.W lcall *(%rsp)\n mov %cs, %ecx\n int3")
CODE(gate_target, "mov %cs, %edi\n mov %rsp, %rbp\n mov 24(%rsp), %r9\n mov (%rsp), %r10\n lretq")

static u64 kernel_gate_code;

static void set_gate(unsigned n, u64 offset, u16 selector, u8 attributes)
{
    DESCRIPTOR(n) = (offset & 0xffff) | (u64)selector << 16 | (u64)attributes << 40 | (offset >> 16 & 0xffff) << 48;
    DESCRIPTOR(n + 1) = offset >> 32;
}

static void check_gates(void)
{
    u8 *target = page_new();
    kernel_gate_code = 0x100000020000ull;
    map(kernel_gate_code, (u64)target, PTE_P | PTE_W);
    memcpy(target, gate_target.start, (size_t)(gate_target.end - gate_target.start));
    set_gate(0, kernel_gate_code, SEL_CODE64, 0xec);
    struct trap trap = run_with(&through_gate, 3, 0, SPARE(0) | 3);
    check_trap("far CALL through a gate and back", &trap, 3, 0);
    check_equal("CS in the target", trap.frame.rdi, SEL_CODE64);
    check_equal("the target's stack is the TSS's", trap.frame.rbp, tss[0].rsp[0] - 32);
    check_equal("it holds the caller's SS", trap.frame.r9 & 0xffff, SEL_UDATA);
    check_equal("CS after the return", trap.frame.rcx, SEL_UCODE64);
    check_equal("RSP after the return", trap.frame.rsp, trap.frame.rsi);
    set_gate(0, kernel_gate_code, SEL_CODE64, 0x8c);
    trap = run_with(&through_gate, 3, 0, SPARE(0) | 3);
    check_trap("a gate of DPL 0", &trap, 13, SPARE(0));
    set_gate(0, kernel_gate_code, SEL_CODE64, 0x6c);
    trap = run_with(&through_gate, 3, 0, SPARE(0) | 3);
    check_trap("a gate not present", &trap, 11, SPARE(0));
    set_gate(0, kernel_gate_code, SEL_CODE32, 0xec);
    trap = run_with(&through_gate, 3, 0, SPARE(0) | 3);
    check_trap("a gate to 32-bit code", &trap, 13, SEL_CODE32);
    set_gate(0, kernel_gate_code, SEL_CODE64, 0x8c);
    trap = run_with(&through_gate, 0, 0, SPARE(0));
    check_trap_not_tcg("a gate within ring 0", &trap, 3, 0, "TCG pushes by a 32-bit RSP");
    DESCRIPTOR(0) = DESCRIPTOR(1) = 0;
}

/* ---- IRETQ ---- */

#define IRET_FRAME "push %r8\n push %r9\n push %r10\n push %r11\n push %r12\n iretq\n"
CODE(iret_code, IRET_FRAME)

struct iret {
    const char *name;
    u64 ss, rsp, rflags, cs, rip;
    unsigned vector;
    long error;
};

static void check_iret(void)
{
    const struct iret rows[] = {
        { "IRETQ to ring 3", SEL_UDATA, USTACK, 2, SEL_UCODE64, UDATA, 3, 0 },
        { "IRETQ to ring 0 with a null SS", 0, KSTACK, 2, SEL_CODE64, KCODE + 0x800, 3, 0 },
        { "IRETQ to a null CS", SEL_DATA, KSTACK, 2, 0, KCODE, 13, 0 },
        { "IRETQ to data as CS", SEL_DATA, KSTACK, 2, SEL_DATA, KCODE, 13, SEL_DATA },
        { "IRETQ to ring 3 with a null SS", 3, USTACK, 2, SEL_UCODE64, UDATA, 13, 0 },
        { "IRETQ to ring 3 with SS of DPL 0", SEL_DATA | 3, USTACK, 2, SEL_UCODE64, UDATA, 13, SEL_DATA },
        { "IRETQ, RPL of CS 3, DPL 0", SEL_UDATA, USTACK, 2, SEL_CODE64 | 3, UDATA, 13, SEL_CODE64 },
        { "IRETQ to a CS beyond the GDT", SEL_DATA, KSTACK, 2, 0x3000, KCODE, 13, 0x3000 },
        { "IRETQ to a CS not present", SEL_UDATA, USTACK, 2, SPARE(0) | 3, UDATA, 11, SPARE(0) },
        { "IRETQ to an SS not present", SPARE(1) | 3, USTACK, 2, SEL_UCODE64, UDATA, 12, SPARE(1) },
        { "IRETQ to compatibility mode", SEL_UDATA, USTACK32, 2, SEL_UCODE32, UDATA32, 3, 0 },
    };
    *(u8 *)(entry_of(UDATA, 1)[0] & PTE_ADDRESS) = 0xcc;
    DESCRIPTOR(0) = NOT_PRESENT(CODE64(0xfb));
    DESCRIPTOR(1) = NOT_PRESENT(FLAT(0xf3));
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct trap trap;
        struct frame frame = code_frame(&iret_code, 0);
        *(volatile u8 *)(KCODE + 0x800) = 0xcc;
        frame.r8 = rows[i].ss, frame.r9 = rows[i].rsp, frame.r10 = rows[i].rflags;
        frame.r11 = rows[i].cs, frame.r12 = rows[i].rip;
        run(&frame, &trap);
        if (rows[i].vector == 12)
            check_trap_not_tcg(rows[i].name, &trap, 12, rows[i].error, "TCG raises #NP");
        else
            check_trap(rows[i].name, &trap, rows[i].vector, rows[i].error);
        if (rows[i].vector == 3) {
            check_equal("its CS", trap.frame.cs, rows[i].cs);
            check_equal("its RSP", trap.frame.rsp, rows[i].rsp);
        }
    }
    struct trap trap;
    struct frame frame = code_frame(&iret_code, 0);
    frame.r10 = 2 | FLAG_NT;
    frame.rflags = 2 | FLAG_NT;
    run(&frame, &trap);
    check_trap("IRETQ with NT set", &trap, 13, 0);
    /* In ring 3 an IRETQ to ring 3 works, without changing IOPL or IF. */
    frame = code_frame(&iret_code, 3);
    frame.r8 = SEL_UDATA, frame.r9 = USTACK, frame.r10 = 0x3202 | FLAG_AC, frame.r11 = SEL_UCODE64, frame.r12 = UDATA;
    run(&frame, &trap);
    check_trap("IRETQ within ring 3", &trap, 3, 0);
    check_equal("it keeps IOPL and IF", trap.frame.rflags & 0x47fff, 2 | FLAG_AC);
}

/* A data segment that ring 3 may not have becomes null on the way out. */
CODE(iret_null, "mov %ebx, %ds\n mov %ecx, %es\n" IRET_FRAME)

static void check_iret_segments(void)
{
    static const u8 read_them[] = { 0x8c, 0xd8, 0x8c, 0xc3, 0xcc }; /* mov eax, ds; mov ebx, es; int3 */
    struct trap trap;
    memcpy((u8 *)(*entry_of(UDATA, 1) & PTE_ADDRESS), read_them, sizeof read_them);
    struct frame frame = code_frame(&iret_null, 0);
    frame.rbx = SEL_DATA, frame.rcx = SEL_UDATA;
    frame.r8 = SEL_UDATA, frame.r9 = USTACK, frame.r10 = 2, frame.r11 = SEL_UCODE64, frame.r12 = UDATA;
    run(&frame, &trap);
    check_trap("IRETQ with DS of ring 0", &trap, 3, 0);
    check_equal("DS is null then", trap.frame.rax, 0);
    check_equal("ES of ring 3 stays", trap.frame.rbx, SEL_UDATA);
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(SEL_UDATA));
}

/* ---- SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS ---- */

CODE(do_syscall, "mov $0x77, %eax\n syscall\n mov %rcx, %rsi\n mov %cs, %edi\n mov %ss, %ebx\n pushfq\n pop %rdx\n int3")
CODE(on_syscall, "mov %cs, %r8d\n mov %ss, %r9d\n mov %rsp, %r10\n pushfq\n pop %r12\n mov %r11, %r13\n sysretq")
CODE(on_syscall_trap, "int3")
CODE(do_sysret, "mov %rbx, %rcx\n mov %rax, %r11\n sysretq")
CODE(do_sysret32, "mov %rbx, %rcx\n mov %rax, %r11\n sysretl")
CODE(do_sysenter, "sysenter")
CODE(do_sysexit, "mov %rbx, %rdx\n mov %rax, %rcx\n rex.W sysexit")

static void check_syscall(void)
{
    u8 *target = page_new();
    const u64 entry = 0x100000022000ull;
    map(entry, (u64)target, PTE_P | PTE_W);
    memcpy(target, on_syscall.start, (size_t)(on_syscall.end - on_syscall.start));
    wrmsr(MSR_STAR, (u64)SEL_UCODE32 << 48 | (u64)SEL_CODE64 << 32);
    wrmsr(MSR_LSTAR, entry);
    wrmsr(MSR_SFMASK, FLAG_DF | FLAG_CF | FLAG_AC);
    /* The target runs on the user's stack, in ring 0. */
    struct trap trap;
    struct frame frame = code_frame(&do_syscall, 3);
    frame.rflags = 2 | FLAG_DF | FLAG_CF | FLAG_ZF;
    run(&frame, &trap);
    check_trap("SYSCALL and SYSRET", &trap, 3, 0);
    check_equal("CS in the target", trap.frame.r8, SEL_CODE64);
    check_equal("SS in the target", trap.frame.r9, SEL_CODE64 + 8);
    check_equal("RSP in the target", trap.frame.r10, USTACK);
    check_equal_not_tcg("flags in the target, masked", trap.frame.r12, 2 | FLAG_ZF, "TCG loses arithmetic flags");
    check_equal("R11 is the flags before", trap.frame.r13, 2 | FLAG_DF | FLAG_CF | FLAG_ZF);
    check_equal("RCX is the address after", trap.frame.rsi, UCODE + 7);
    check_equal("CS after SYSRET", trap.frame.rdi, SEL_UCODE64);
    check_equal("SS after SYSRET", trap.frame.rbx, SEL_UDATA);
    check_equal("flags after SYSRET", trap.frame.rdx, 2 | FLAG_DF | FLAG_CF | FLAG_ZF);

    memcpy(target, on_syscall_trap.start, 1);
    trap = run_code(&do_syscall, 3);
    check_trap("SYSCALL", &trap, 3, 0);
    check_equal("RIP of the target", trap.frame.rip, entry + 1);
    frame = code_frame(&do_sysret, 0);
    frame.rbx = UDATA;
    frame.rax = 0x3202 | FLAG_NT | FLAG_RF | 0x20000;
    *(u8 *)(*entry_of(UDATA, 1) & PTE_ADDRESS) = 0xcc;
    run(&frame, &trap);
    check_trap("SYSRET with odd flags", &trap, 3, 0);
    check_equal_not_tcg("it drops RF and VM", trap.frame.rflags & 0x3ffff, 0x3202 | FLAG_NT, "TCG keeps them");
    frame = code_frame(&do_sysret32, 0);
    frame.rbx = UDATA32;
    frame.rax = 2;
    run(&frame, &trap);
    check_trap("SYSRET to compatibility mode", &trap, 3, 0);
    check_equal("its CS", trap.frame.cs, SEL_UCODE32);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ull);
    trap = run_code(&do_syscall, 3);
    check_trap("SYSCALL without EFER.SCE", &trap, 6, 0);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
}

static bool vendor_is_amd(void)
{
    u32 out[4];
    cpuid(0, 0, out);
    return out[2] == 0x444d4163; /* "cAMD" */
}

/* AMD's processors have these in legacy mode only. */
static void check_sysenter(void)
{
    struct trap trap;
    const u64 entry = 0x100000022000ull; /* INT3, from above */
    wrmsr(MSR_SYSENTER_CS, SEL_CODE64);
    wrmsr(MSR_SYSENTER_ESP, KSTACK);
    wrmsr(MSR_SYSENTER_EIP, entry);
    trap = run_code(&do_sysenter, 3);
    if (vendor_is_amd()) {
        check_trap_not_tcg("SYSENTER in long mode", &trap, 6, 0, "TCG has it for every vendor");
        return;
    }
    check_trap("SYSENTER", &trap, 3, 0);
    check_equal("its RIP", trap.frame.rip, entry + 1);
    check_equal("its RSP", trap.frame.rsp, KSTACK);
    wrmsr(MSR_SYSENTER_CS, 0);
    trap = run_code(&do_sysenter, 3);
    check_trap("SYSENTER with a null CS", &trap, 13, 0);
    trap = run_code(&do_sysexit, 3);
    check_trap("SYSEXIT, ring 3", &trap, 13, 0);
}

CODE(swap_gs, "swapgs\n mov %gs:0, %rax\n swapgs\n mov %gs:0, %rbx\n int3")
CODE(write_gs_base, "wrgsbase %rbx\n rdgsbase %rcx\n mov %gs:0, %rax\n int3")

static void check_bases(void)
{
    static u64 one = 0x1111, two = 0x2222;
    wrmsr(MSR_GS_BASE, (u64)&one);
    wrmsr(MSR_KERNEL_GS_BASE, (u64)&two);
    struct trap trap = run_code(&swap_gs, 0);
    check_equal("SWAPGS", trap.frame.rax, 0x2222);
    check_equal("SWAPGS again", trap.frame.rbx, 0x1111);
    if (!cpu_has(7, 1, 0)) {
        skip("WRGSBASE", "CPUID has none");
        return;
    }
    trap = run_with(&write_gs_base, 3, 0, UDATA);
    check_trap("WRGSBASE without CR4.FSGSBASE", &trap, 6, 0);
    write_cr4(read_cr4() | 0x10000);
    *(u64 *)(*entry_of(UDATA, 1) & PTE_ADDRESS) = 0x3333;
    trap = run_with(&write_gs_base, 3, 0, UDATA);
    check_trap("WRGSBASE", &trap, 3, 0);
    check_equal("RDGSBASE", trap.frame.rcx, UDATA);
    check_equal("a load by GS", trap.frame.rax, 0x3333);
    trap = run_with(&write_gs_base, 3, 0, 0x800000000000ull);
    check_trap_not_tcg("WRGSBASE, non-canonical", &trap, 13, 0, "TCG takes it");
    write_cr4(read_cr4() & ~0x10000ull);
}

/* ---- interrupts: which stack, what is pushed ---- */

CODE(int_91, "int $0x91")

static void check_stacks(void)
{
    idt[0x91].attributes = 0xee;
    idt[0x91].ist = 0;
    struct trap trap = run_code(&int_91, 3);
    check_trap("INT n from ring 3", &trap, 0x91, 0);
    check_equal("it uses RSP0", trap.entry_rsp, tss[0].rsp[0] - 40);
    struct frame frame = code_frame(&int_91, 0);
    frame.rsp -= 3;
    run(&frame, &trap);
    check_equal("in ring 0 it aligns the stack", trap.entry_rsp, ((KSTACK - 3) & ~15ull) - 40);
    check_equal("and saves the unaligned one", trap.frame.rsp, KSTACK - 3);
    idt[0x91].ist = IST_TRAP;
    frame = code_frame(&int_91, 3);
    frame.rflags = 2 | FLAG_DF | FLAG_AC | FLAG_NT;
    run(&frame, &trap);
    check_equal("the pushed flags", trap.frame.rflags, 2 | FLAG_DF | FLAG_AC | FLAG_NT);
    u64 saved = tss[0].rsp[0];
    tss[0].rsp[0] = 0x800000001000ull;
    idt[0x91].ist = 0;
    trap = run_code(&int_91, 3);
    check_trap_not_tcg("RSP0 not canonical", &trap, 12, 0, "TCG raises another");
    tss[0].rsp[0] = saved;
    idt[0x91].ist = IST_TRAP;
}

void kernel_main(void)
{
    check_segments();
    check_queries();
    check_far();
    check_gates();
    check_iret();
    check_iret_segments();
    check_syscall();
    check_sysenter();
    check_bases();
    check_stacks();
}
