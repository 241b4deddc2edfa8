/* engine - how many guest instructions a second an engine executes, over small loops.
 *
 * Usage: engine [ENGINE [LOOP]]. Prints one line a loop: its name, million instructions a second. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support/flat.h"

#define CODE_AT 0x20000u
#define ROUNDS 20000000u

/* Each loop runs ECX times. */
CODE(count, "1: dec %ecx; jnz 1b; hlt");
CODE(alu, "1: add %rcx, %rax; lea 3(%rax,%rcx,2), %rdx; xor %rdx, %rbx; shl $3, %rbx; mov %rbx, %rsi; and $0xff, %esi;"
          "dec %ecx; jnz 1b; hlt");
CODE(memory, "1: mov (%rdi), %rax; add %rcx, %rax; mov %rax, 8(%rdi); add %rax, 16(%rdi); movzbl 3(%rdi), %edx;"
             "push %rdx; pop %rbx; dec %ecx; jnz 1b; hlt");
CODE(branches, "1: test $1, %cl; jz 2f; inc %rax; 2: test $6, %cl; jnz 3f; inc %rbx; 3: test $8, %cl; jz 4f; inc %rdx; 4: dec %ecx; jnz 1b; hlt");
CODE(calls, "jmp 1f; 2: inc %eax; ret; 1: call 2b; call 2b; dec %ecx; jnz 1b; hlt");

static const struct {
    const char *name;
    const uint8_t *code, *end;
    unsigned insns; /* a round, about */
} loops[] = {
    {"count", count, count_end, 2},          {"alu", alu, alu_end, 8},       {"memory", memory, memory_end, 9},
    {"branches", branches, branches_end, 10}, {"calls", calls, calls_end, 8},
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
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
