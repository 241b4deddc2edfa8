/* engine - how many guest instructions a second an engine executes, over small loops.
 *
 * Usage: engine [ENGINE [LOOP]]. Prints one line a loop: its name, million instructions a second of CPU time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support/flat.h"

#define CODE_AT 0x20000u
#define ROUNDS 5000000u

/* Each loop runs ECX times. */
CODE(count, "1: dec %ecx; jnz 1b; hlt");
CODE(alu, "1: add %rcx, %rax; lea 3(%rax,%rcx,2), %rdx; xor %rdx, %rbx; shl $3, %rbx; mov %rbx, %rsi; and $0xff, %esi;"
          "dec %ecx; jnz 1b; hlt");
CODE(memory, "1: mov (%rdi), %rax; add %rcx, %rax; mov %rax, 8(%rdi); add %rax, 16(%rdi); movzbl 3(%rdi), %edx;"
             "push %rdx; pop %rbx; dec %ecx; jnz 1b; hlt");
CODE(branches, "1: test $1, %cl; jz 2f; inc %rax; 2: test $6, %cl; jnz 3f; inc %rbx; 3: test $8, %cl; jz 4f; inc %rdx; 4: dec %ecx; jnz 1b; hlt");
CODE(calls, "jmp 1f; 2: inc %eax; ret; 1: call 2b; call 2b; dec %ecx; jnz 1b; hlt");

/* Vector and x87 loops: the ten or so instructions that their names say, and the loop's two. */
CODE(sse_move, "1: movups (%rdi), %xmm0; movaps %xmm0, %xmm1; movups %xmm1, 16(%rdi); movq %xmm1, %rax; movq %rax, %xmm2;"
               "pxor %xmm3, %xmm3; movdqa 32(%rdi), %xmm4; movsd %xmm4, 48(%rdi); dec %ecx; jnz 1b; hlt");
CODE(sse_int, "1: paddd %xmm0, %xmm1; pcmpeqb %xmm2, %xmm3; por %xmm1, %xmm4; pmovmskb %xmm4, %eax; pshufd $27, %xmm1, %xmm5;"
              "pand (%rdi), %xmm5; psubb %xmm5, %xmm6; punpcklbw %xmm6, %xmm7; dec %ecx; jnz 1b; hlt");
CODE(sse_fp, "1: mulsd %xmm0, %xmm1; addsd %xmm2, %xmm3; mulpd %xmm1, %xmm4; addpd (%rdi), %xmm4; subsd %xmm5, %xmm6;"
             "cvtsi2sd %eax, %xmm7; ucomisd %xmm7, %xmm0; sqrtsd %xmm0, %xmm2; dec %ecx; jnz 1b; hlt");
CODE(avx_fma, "1: vfmadd231pd %ymm0, %ymm1, %ymm2; vfmadd231pd (%rdi), %ymm1, %ymm3; vaddpd %ymm2, %ymm3, %ymm4;"
              "vbroadcastsd (%rdi), %ymm5; vmovupd 32(%rdi), %ymm6; vfmadd231pd %ymm6, %ymm5, %ymm7; vmovupd %ymm7, 64(%rdi);"
              "vxorps %xmm0, %xmm0, %xmm0; dec %ecx; jnz 1b; hlt");
CODE(x87, "fninit; fld1; fldpi; 1: fadd %st(1), %st; fmul %st(1), %st; fld %st(0); fsqrt; fstp %st(0); fstpl (%rdi); fldl (%rdi);"
          "fchs; dec %ecx; jnz 1b; hlt");

static const struct {
    const char *name;
    const uint8_t *code, *end;
    unsigned insns; /* a round, about */
} loops[] = {
    {"count", count, count_end, 2},          {"alu", alu, alu_end, 8},       {"memory", memory, memory_end, 9},
    {"branches", branches, branches_end, 10}, {"calls", calls, calls_end, 8},
    {"sse_move", sse_move, sse_move_end, 10}, {"sse_int", sse_int, sse_int_end, 10},
    {"sse_fp", sse_fp, sse_fp_end, 10},       {"avx_fma", avx_fma, avx_fma_end, 10},
    {"x87", x87, x87_end, 10},
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int argc, char **argv)
{
    const struct engine_ops *engine = argc > 1 ? engine_find(argv[1]) : &engine_interpret;
    if (!engine) {
        fprintf(stderr, "there is no engine \"%s\"\n", argv[1]);
        return 2;
    }
    for (size_t i = 0; i < sizeof(loops) / sizeof(loops[0]); i++) {
        struct flat flat;
        struct x86_cpu cpu;
        if (argc > 2 && strcmp(argv[2], loops[i].name) != 0)
            continue;
        flat_open(&flat, engine, 1, 4);
        flat_put(&flat, CODE_AT, loops[i].code, (size_t)(loops[i].end - loops[i].code));
        flat_state(&flat, 0, CODE_AT, &cpu);
        cpu.reg[X86_RCX] = ROUNDS;
        cpu.reg[X86_RDI] = 0x30000;
        cpu.cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
        cpu.xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX;
        double start = now();
        enum engine_exit_reason reason = flat_run(&flat, 0, &cpu, &cpu);
        double seconds = now() - start;
        if (reason != ENGINE_EXIT_HALT)
            printf("%-10s did not halt (%d)\n", loops[i].name, (int)reason);
        else
            printf("%-10s %7.1f\n", loops[i].name, ROUNDS * (double)loops[i].insns / seconds / 1e6);
        flat_close(&flat);
    }
    return 0;
}
