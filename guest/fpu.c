/* fpu.c - when x87, SSE and AVX instructions trap, and how their state is saved: #MF at the next waiting
 * instruction, #XM, #NM by CR0.TS, #UD by the enable bits, FXSAVE, XSAVE and XRSTOR with what they refuse.
 * Intel SDM 1 chapters 8, 11 and 13. */
#include "kernel.h"

#define CR0_TS 8ull
#define CR4_OSXMMEXCPT 0x400ull
#define CR4_OSXSAVE 0x40000ull

static struct trap run_with(const struct code *code, unsigned ring, u64 rdi)
{
    struct trap trap;
    struct frame frame = code_frame(code, ring);
    frame.rdi = rdi;
    run(&frame, &trap);
    return trap;
}

/* The physical page of UDATA, as the kernel sees it. */
static u8 *data_page(void)
{
    return (u8 *)(*entry_of(UDATA, 1) & PTE_ADDRESS);
}

/* ---- x87 exceptions ---- */

/* Unmasks zero-divide, divides 1 by 0, goes on: the next waiting instruction takes it. */
CODE(divide_then_load, "fninit\n movw $0x37b, (%rdi)\n fldcw (%rdi)\n fld1\n fldz\n fdivrp\n nop\n fld1\n int3")
CODE(divide_then_wait, "fninit\n movw $0x37b, (%rdi)\n fldcw (%rdi)\n fld1\n fldz\n fdivrp\n nop\n fwait\n int3")
CODE(divide_then_status, "fninit\n movw $0x37b, (%rdi)\n fldcw (%rdi)\n fld1\n fldz\n fdivrp\n fnstsw %ax\n mov %eax, %ebx\n fnclex\n"
                         " fnstsw %ax\n fld1\n int3")
CODE(masked, "fninit\n fld1\n fldz\n fdivrp\n fnstsw %ax\n fld1\n fwait\n int3")
CODE(overflow, "fninit\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fnstsw %ax\n int3")
CODE(underflow, "fninit\n fstp %st(0)\n fnstsw %ax\n int3")

static void check_x87(void)
{
    struct trap trap = run_with(&divide_then_load, 3, UDATA);
    check_trap_not_tcg("#MF at the next x87 instruction", &trap, 16, 0, "TCG raises it at FWAIT only");
    check_equal_not_tcg("RIP is that instruction", trap.frame.rip - UCODE, 16, "TCG raises it at FWAIT only");
    trap = run_with(&divide_then_wait, 3, UDATA);
    check_trap("#MF at FWAIT", &trap, 16, 0);
    check_equal("RIP is that instruction", trap.frame.rip - UCODE, 16);
    /* #MF stays pending until the state is cleared: clear it for the kernel. */
    __asm__ volatile("fnclex");
    trap = run_with(&divide_then_status, 3, UDATA);
    check_trap("FNSTSW and FNCLEX do not wait", &trap, 3, 0);
    check_equal("ES, B and ZE", trap.frame.rbx & 0x80ff, 0x8084);
    check_equal("after FNCLEX", trap.frame.rax & 0x80ff, 0);
    trap = run_with(&masked, 3, UDATA);
    check_trap("masked", &trap, 3, 0);
    check_equal("ZE alone", trap.frame.rax & 0x80ff, 4);
    trap = run_with(&overflow, 3, UDATA);
    check_trap("a ninth value", &trap, 3, 0);
    check_equal_not_tcg("IE, SF and C1", trap.frame.rax & 0x2ff, 0x241, "TCG's stack has no overflow");
    trap = run_with(&underflow, 3, UDATA);
    check_equal_not_tcg("an empty register: IE, SF, not C1", trap.frame.rax & 0x2ff, 0x41, "TCG's stack has no underflow");
    __asm__ volatile("fninit");
}

/* ---- SSE exceptions ---- */

CODE(sse_divide, "movl $0x1d80, (%rdi)\n ldmxcsr (%rdi)\n mov $0x3f800000, %eax\n movd %eax, %xmm1\n xorps %xmm2, %xmm2\n"
                 " divss %xmm2, %xmm1\n int3")
CODE(sse_masked, "movl $0x1f80, (%rdi)\n ldmxcsr (%rdi)\n mov $0x3f800000, %eax\n movd %eax, %xmm1\n xorps %xmm2, %xmm2\n"
                 " divss %xmm2, %xmm1\n stmxcsr (%rdi)\n mov (%rdi), %eax\n movd %xmm1, %ebx\n int3")
CODE(mxcsr_reserved, "movl $0x80001f80, (%rdi)\n ldmxcsr (%rdi)\n int3")
CODE(movaps_memory, "movaps (%rdi), %xmm0\n int3")

static void check_sse(void)
{
    struct trap trap = run_with(&sse_divide, 3, UDATA);
    check_trap_not_tcg("#XM", &trap, 19, 0, "TCG never raises it");
    check_equal_not_tcg("RIP is the instruction", trap.frame.rip - UCODE, 21, "TCG never raises it");
    write_cr4(read_cr4() & ~CR4_OSXMMEXCPT);
    trap = run_with(&sse_divide, 3, UDATA);
    check_trap_not_tcg("without CR4.OSXMMEXCPT it is #UD", &trap, 6, 0, "TCG never raises it");
    write_cr4(read_cr4() | CR4_OSXMMEXCPT);
    trap = run_with(&sse_masked, 3, UDATA);
    check_trap("masked", &trap, 3, 0);
    check_equal("ZE", trap.frame.rax & 0x3f, 4);
    check_equal("the result is infinity", trap.frame.rbx & 0xffffffff, 0x7f800000);
    trap = run_with(&mxcsr_reserved, 3, UDATA);
    check_trap_not_tcg("LDMXCSR of a reserved bit", &trap, 13, 0, "TCG takes it");
    trap = run_with(&movaps_memory, 3, UDATA + 8);
    check_trap_not_tcg("MOVAPS not aligned", &trap, 13, 0, "TCG does not check");
    trap = run_with(&movaps_memory, 3, UDATA + 16);
    check_trap("MOVAPS aligned", &trap, 3, 0);
    trap = run_with(&movaps_memory, 3, 0x300000000000ull);
    check_trap("MOVAPS from a missing page", &trap, 14, 4);
}

/* ---- FXSAVE ---- */

CODE(fx_save, "fninit\n fld1\n pcmpeqd %xmm5, %xmm5\n fxsave64 (%rdi)\n pxor %xmm5, %xmm5\n fxrstor64 (%rdi)\n movq %xmm5, %rax\n"
              " fistpl (%rdi)\n mov (%rdi), %ebx\n int3")
CODE(fx_load, "fxrstor64 (%rdi)\n int3")

static void check_fxsave(void)
{
    u8 *data = data_page();
    memset(data, 0, 512);
    struct trap trap = run_with(&fx_save, 3, UDATA);
    check_trap("FXSAVE and FXRSTOR", &trap, 3, 0);
    check_equal("an XMM register", trap.frame.rax, ~0ull);
    check_equal("an x87 register", trap.frame.rbx, 1);
    check_equal("the tag word", data[4], 0x80);
    check_equal("MXCSR_MASK", *(volatile u32 *)(data + 28) & 0xffc0, 0xffc0);
    trap = run_with(&fx_save, 3, UDATA + 8);
    check_trap_not_tcg("FXSAVE not aligned", &trap, 13, 0, "TCG raises another or none");
    data[27] = 0x80;
    trap = run_with(&fx_load, 3, UDATA);
    check_trap_not_tcg("FXRSTOR of a reserved bit of MXCSR", &trap, 13, 0, "TCG takes it");
    data[27] = 0;
}

/* ---- XSAVE ---- */

CODE(get_xcr0, "xor %ecx, %ecx\n xgetbv\n int3")
CODE(get_xcr9, "mov $9, %ecx\n xgetbv\n int3")
CODE(set_xcr0, "xor %ecx, %ecx\n xor %edx, %edx\n mov %edi, %eax\n xsetbv\n int3")
CODE(x_save, "vpcmpeqd %ymm3, %ymm3, %ymm3\n mov $7, %eax\n xor %edx, %edx\n xsave64 (%rdi)\n vzeroall\n mov $7, %eax\n"
             " xor %edx, %edx\n xrstor64 (%rdi)\n vextracti128 $1, %ymm3, %xmm4\n vmovq %xmm4, %rbx\n int3")
CODE(x_load, "mov $7, %eax\n xor %edx, %edx\n xrstor64 (%rdi)\n int3")
CODE(avx, "vxorps %ymm0, %ymm0, %ymm0\n int3")

static void check_load(const char *name, u8 *data, unsigned offset, unsigned vector)
{
    u8 saved = data[offset];
    data[offset] = 0x80;
    struct trap trap = run_with(&x_load, 3, UDATA);
    check_trap(name, &trap, vector, 0);
    data[offset] = saved;
}

static void check_xsave(void)
{
    u8 *data = data_page();
    if (!cpu_has(1, 2, 26) || !cpu_has(1, 2, 28)) {
        skip("XSAVE", "CPUID has no AVX");
        return;
    }
    struct trap trap = run_code(&get_xcr0, 3);
    check_trap("XGETBV without CR4.OSXSAVE", &trap, 6, 0);
    check(!cpu_has(1, 2, 27), "CPUID.OSXSAVE is CR4's", "set");
    write_cr4(read_cr4() | CR4_OSXSAVE);
    check(cpu_has(1, 2, 27), "CPUID.OSXSAVE is CR4's", "clear");
    trap = run_code(&get_xcr0, 3);
    check_trap("XGETBV", &trap, 3, 0);
    check_equal("XCR0 after reset", trap.frame.rax, 1);
    trap = run_code(&get_xcr9, 3);
    check_trap("XGETBV of another", &trap, 13, 0);
    trap = run_with(&set_xcr0, 3, 7);
    check_trap("XSETBV, ring 3", &trap, 13, 0);
    trap = run_code(&avx, 3);
    check_trap("AVX without XCR0", &trap, 6, 0);
    trap = run_with(&set_xcr0, 0, 7);
    check_trap("XSETBV", &trap, 3, 0);
    trap = run_code(&avx, 3);
    check_trap("AVX", &trap, 3, 0);
    write_cr0(read_cr0() | CR0_TS);
    trap = run_code(&avx, 3);
    check_trap("AVX with CR0.TS", &trap, 7, 0);
    trap = run_with(&x_load, 3, UDATA);
    check_trap_not_tcg("XRSTOR with CR0.TS", &trap, 7, 0, "TCG does not look at it");
    write_cr0(read_cr0() & ~CR0_TS);

    memset(data, 0, 4096);
    trap = run_with(&x_save, 3, UDATA);
    check_trap("XSAVE and XRSTOR", &trap, 3, 0);
    check_equal("the high half of a YMM register", trap.frame.rbx, ~0ull);
    check_equal("XSTATE_BV has AVX", *(volatile u64 *)(data + 512) & 4, 4);
    check_equal("it lies at the offset of CPUID", *(volatile u64 *)(data + 576 + 48), ~0ull);
    trap = run_with(&x_save, 3, UDATA + 32);
    check_trap_not_tcg("XSAVE not aligned", &trap, 13, 0, "TCG looks at 16 bytes only");
    check_load("XRSTOR, XSTATE_BV beyond XCR0", data, 512 + 7, 13);
    check_load("XRSTOR, XCOMP_BV", data, 520, 13);
    check_load("XRSTOR, reserved header bytes", data, 528, 13);
    check_load("XRSTOR, as it was saved", data, 4000, 3);
    write_cr4(read_cr4() & ~CR4_OSXSAVE);
}

/* ---- the same in loops, which a translator runs as host code ---- */

/* Each goes round 100 times and traps in the last, at the label that RBX holds. */
CODE(loop_sse_divide, "mov $100, %ecx\n lea 2f(%rip), %rbx\n 1: mov $0x1f80, %eax\n mov $0x1d80, %edx\n cmp $1, %ecx\n cmove %edx, %eax\n"
                      " mov %eax, (%rdi)\n ldmxcsr (%rdi)\n mov $0x3f800000, %eax\n movd %eax, %xmm1\n xorps %xmm2, %xmm2\n"
                      " 2: divss %xmm2, %xmm1\n dec %ecx\n jnz 1b\n int3")
CODE(loop_misaligned, "mov $100, %ecx\n lea 2f(%rip), %rbx\n xor %edx, %edx\n 1: mov $8, %eax\n cmp $1, %ecx\n cmovne %edx, %eax\n"
                      " 2: movaps (%rdi,%rax), %xmm0\n dec %ecx\n jnz 1b\n int3")
CODE(loop_x87_divide, "fninit\n mov $100, %ecx\n lea 2f(%rip), %rbx\n 1: mov $0x37f, %eax\n mov $0x37b, %edx\n cmp $1, %ecx\n cmove %edx, %eax\n"
                      " mov %eax, (%rdi)\n fnclex\n fldcw (%rdi)\n fld1\n fldz\n fdivrp\n nop\n"
                      " 2: fstp %st(0)\n dec %ecx\n jnz 1b\n int3")

/* Sums of 1 to 100: in an x87 register while it is stored and changed to integer under another rounding, and in an MMX
 * register; with MXCSR and an upper half that must outlive it. */
CODE(loop_x87_mmx, "fninit\n mov $100, %ecx\n movl $0x3f80, (%rdi)\n ldmxcsr (%rdi)\n vpcmpeqd %ymm3, %ymm3, %ymm3\n"
                   " movw $0xf7f, (%rdi)\n movw $0x37f, 2(%rdi)\n fldz\n"
                   " 1: mov %ecx, 4(%rdi)\n fildl 4(%rdi)\n faddp\n fldcw (%rdi)\n fistl 8(%rdi)\n fldcw 2(%rdi)\n dec %ecx\n jnz 1b\n"
                   " fstpt 16(%rdi)\n mov 16(%rdi), %rsi\n mov 8(%rdi), %eax\n"
                   " mov $100, %ecx\n pxor %mm1, %mm1\n 1: movd %ecx, %mm0\n paddd %mm0, %mm1\n dec %ecx\n jnz 1b\n movd %mm1, %edx\n emms\n"
                   " stmxcsr (%rdi)\n mov (%rdi), %r8d\n vextracti128 $1, %ymm3, %xmm4\n vmovq %xmm4, %rbx\n fnstcw (%rdi)\n int3")

static void check_loops(void)
{
    if (!cpu_has(1, 2, 26) || !cpu_has(1, 2, 28)) {
        skip("loops", "CPUID has no AVX");
        return;
    }
    write_cr4(read_cr4() | CR4_OSXSAVE);
    run_with(&set_xcr0, 0, 7);
    struct trap trap = run_with(&loop_sse_divide, 3, UDATA);
    check_trap_not_tcg("#XM in a loop", &trap, 19, 0, "TCG never raises it");
    check_equal_not_tcg("RIP is the instruction", trap.frame.rip, trap.frame.rbx, "TCG never raises it");
    check_equal_not_tcg("in the last round", trap.frame.rcx, 1, "TCG never raises it");
    trap = run_with(&loop_misaligned, 3, UDATA);
    check_trap_not_tcg("MOVAPS not aligned in a loop", &trap, 13, 0, "TCG does not check");
    check_equal_not_tcg("RIP is the instruction", trap.frame.rip, trap.frame.rbx, "TCG does not check");
    check_equal_not_tcg("in the last round", trap.frame.rcx, 1, "TCG does not check");
    trap = run_with(&loop_x87_divide, 3, UDATA);
    check_trap_not_tcg("#MF in a loop", &trap, 16, 0, "TCG raises it at FWAIT only");
    check_equal_not_tcg("RIP is the next that waits", trap.frame.rip, trap.frame.rbx, "TCG raises it at FWAIT only");
    check_equal_not_tcg("in the last round", trap.frame.rcx, 1, "TCG raises it at FWAIT only");
    __asm__ volatile("fninit");
    trap = run_with(&loop_x87_mmx, 3, UDATA);
    check_trap("x87 and MMX in loops", &trap, 3, 0);
    check_equal("the integer", trap.frame.rax, 5050);
    check_equal("the significand", trap.frame.rsi, 5050ull << 51);
    check_equal("the MMX sum", trap.frame.rdx, 5050);
    check_equal("MXCSR", trap.frame.r8 & 0xffc0, 0x3f80);
    check_equal("the high half of a YMM register", trap.frame.rbx, ~0ull);
    __asm__ volatile("fninit");
    write_cr4(read_cr4() & ~CR4_OSXSAVE);
}

void kernel_main(void)
{
    check_x87();
    check_sse();
    check_fxsave();
    check_xsave();
    check_loops();
}
