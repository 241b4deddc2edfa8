/* Software engines as a whole, on the flat machine: code that is written while it is cached, in every way it can
 * be written, and what ends a run. Argument: the engine; interpret without one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine/soft/vcpu.h"
#include "support/flat.h"

#define CODE_AT 0x20000u
#define TABLE_AT 0x9000u

static enum engine_exit_reason run_code(struct flat *flat, const uint8_t *code, const uint8_t *end, struct x86_cpu *ret_cpu)
{
    flat_put(flat, CODE_AT, code, (size_t)(end - code));
    flat_state(flat, 0, CODE_AT, ret_cpu);
    return flat_run(flat, 0, ret_cpu, ret_cpu);
}

CODE(loop, "xor %eax, %eax; mov $1000, %ecx; 1: add %rcx, %rax; dec %ecx; jnz 1b; hlt");

static void test_loop(struct flat *flat)
{
    struct x86_cpu cpu;
    CHECK_EQ(run_code(flat, loop, loop_end, &cpu), ENGINE_EXIT_HALT);
    CHECK_EQ(cpu.reg[X86_RAX], 500500);
    CHECK_EQ(cpu.reg[X86_RIP], CODE_AT + (unsigned)(loop_end - loop));
    CHECK_EQ(cpu.activity, X86_HALTED);
}

/* The store changes the immediate of the very next instruction, in its own block. */
CODE(next_insn, "movb $7, 1f+1(%rip); 1: mov $1, %eax; hlt");

/* A loop that increments the immediate of its own addition, 256 times round. */
CODE(own_loop, "xor %eax, %eax; xor %edx, %edx; mov $1000, %ecx;"
               "1: .byte 0x81, 0xc0; 2: .long 0; incb 2b(%rip); dec %ecx; jnz 1b; hlt");

static void test_own_code(struct flat *flat)
{
    struct x86_cpu cpu;
    CHECK_EQ(run_code(flat, next_insn, next_insn_end, &cpu), ENGINE_EXIT_HALT);
    CHECK_EQ(cpu.reg[X86_RAX], 7);
    CHECK_EQ(run_code(flat, own_loop, own_loop_end, &cpu), ENGINE_EXIT_HALT);
    uint64_t sum = 0;
    for (unsigned i = 0; i < 1000; i++)
        sum += i & 255;
    CHECK_EQ(cpu.reg[X86_RAX], sum);
}

/* Calls a function at RDI, patches its immediate through RSI, another linear address of it, and calls again. */
CODE(alias, "call *%rdi; mov %eax, %ebx; movb $9, 1(%rsi); call *%rdi; hlt");
CODE(alias_function, "mov $4, %eax; ret");

static void test_alias(struct flat *flat)
{
    struct x86_cpu cpu;
    flat_split(flat, 0x200000, TABLE_AT);
    flat_map(flat, TABLE_AT, 0x201000, 0x40000);
    flat_map(flat, TABLE_AT, 0x202000, 0x40000);
    flat_put(flat, 0x40100, alias_function, (size_t)(alias_function_end - alias_function));
    flat_put(flat, CODE_AT, alias, (size_t)(alias_end - alias));
    flat_state(flat, 0, CODE_AT, &cpu);
    cpu.reg[X86_RDI] = 0x201100;
    cpu.reg[X86_RSI] = 0x202100;
    CHECK_EQ(flat_run(flat, 0, &cpu, &cpu), ENGINE_EXIT_HALT);
    CHECK_EQ(cpu.reg[X86_RBX], 4);
    CHECK_EQ(cpu.reg[X86_RAX], 9);
}

/* One linear page leads to another physical one: INVLPG must be all that is needed. */
CODE(remap, "call *%rdi; mov %eax, %ebx; mov %rdx, (%rsi); invlpg (%rdi); call *%rdi; hlt");

static void test_remap(struct flat *flat)
{
    struct x86_cpu cpu;
    const uint8_t one[] = {0xb8, 1, 0, 0, 0, 0xc3}, two[] = {0xb8, 2, 0, 0, 0, 0xc3};
    flat_split(flat, 0x200000, TABLE_AT);
    flat_map(flat, TABLE_AT, 0x203000, 0x41000);
    flat_put(flat, 0x41000, one, sizeof(one));
    flat_put(flat, 0x42000, two, sizeof(two));
    flat_put(flat, CODE_AT, remap, (size_t)(remap_end - remap));
    flat_state(flat, 0, CODE_AT, &cpu);
    cpu.reg[X86_RDI] = 0x203000;
    cpu.reg[X86_RSI] = TABLE_AT + 8 * 3;
    cpu.reg[X86_RDX] = 0x42007;
    CHECK_EQ(flat_run(flat, 0, &cpu, &cpu), ENGINE_EXIT_HALT);
    CHECK_EQ(cpu.reg[X86_RBX], 1);
    CHECK_EQ(cpu.reg[X86_RAX], 2);
}

/* mov $imm32, %eax; ret with the immediate across two pages, whose second page is then (1) patched and (2) replaced. */
CODE(crossing, "call *%rdi; mov %eax, %ebx; movb $0x55, (%r8); call *%rdi; mov %eax, %ebp;"
               "mov %rdx, (%rsi); invlpg (%r9); call *%rdi; hlt");

static void test_crossing(struct flat *flat)
{
    struct x86_cpu cpu;
    const uint8_t head[] = {0xb8, 0x11, 0x22}, tail[] = {0x33, 0x44, 0xc3}, other[] = {0x66, 0x77, 0xc3};
    flat_split(flat, 0x200000, TABLE_AT);
    flat_map(flat, TABLE_AT, 0x204000, 0x43000);
    flat_map(flat, TABLE_AT, 0x205000, 0x47000);
    flat_put(flat, 0x43ffd, head, sizeof(head));
    flat_put(flat, 0x47000, tail, sizeof(tail));
    flat_put(flat, 0x49000, other, sizeof(other));
    flat_put(flat, CODE_AT, crossing, (size_t)(crossing_end - crossing));
    flat_state(flat, 0, CODE_AT, &cpu);
    cpu.reg[X86_RDI] = 0x204ffd;
    cpu.reg[X86_R8] = 0x47000;
    cpu.reg[X86_R9] = 0x205000;
    cpu.reg[X86_RSI] = TABLE_AT + 8 * 5;
    cpu.reg[X86_RDX] = 0x49007;
    CHECK_EQ(flat_run(flat, 0, &cpu, &cpu), ENGINE_EXIT_HALT);
    CHECK_EQ(cpu.reg[X86_RBX], 0x44332211);
    CHECK_EQ(cpu.reg[X86_RBP], 0x44552211);
    CHECK_EQ(cpu.reg[X86_RAX], 0x77662211);
}

static void test_device_writes_code(struct flat *flat)
{
    struct x86_cpu cpu;
    const uint8_t one[] = {0xb8, 1, 0, 0, 0, 0xf4};
    CHECK_EQ(run_code(flat, one, one + sizeof(one), &cpu), ENGINE_EXIT_HALT);
    CHECK_EQ(cpu.reg[X86_RAX], 1);
    flat_put(flat, CODE_AT + 1, "\x05", 1);
    flat_state(flat, 0, CODE_AT, &cpu);
    CHECK_EQ(flat_run(flat, 0, &cpu, &cpu), ENGINE_EXIT_HALT);
    CHECK_EQ(cpu.reg[X86_RAX], 5);
}

/* Calls RCX functions, a page apart from RDI on, and adds up what they return. */
CODE(call_pages, "xor %ebx, %ebx; 1: call *%rdi; add %rax, %rbx; add $4096, %rdi; dec %ecx; jnz 1b; hlt");

static uint64_t call_functions(struct flat *flat, unsigned count)
{
    struct x86_cpu cpu;
    flat_state(flat, 0, CODE_AT, &cpu);
    cpu.reg[X86_RDI] = 0x80000;
    cpu.reg[X86_RCX] = count;
    CHECK_EQ(flat_run(flat, 0, &cpu, &cpu), ENGINE_EXIT_HALT);
    return cpu.reg[X86_RBX];
}

static bool has_flushed(struct flat *flat)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    flat->engine->stats(flat->vm, out);
    fclose(out);
    bool none = strstr(text, "vcpu0.cache_flushes 0\n") != NULL;
    free(text);
    return !none;
}

/* While a vCPU does not run, all of a page that it has code of is written, byte by byte, and then a little of more pages than it can
 * remember. Only the latter may cost it all that it has decoded. */
static void test_written_meanwhile(struct flat *flat)
{
    enum { LENGTH = 300, PAGES = 600 };
    uint8_t function[LENGTH];
    memset(function, 0x90, sizeof function);
    memcpy(function + LENGTH - 6, "\xb8\x01\0\0\0\xc3", 6); /* mov $1, %eax; ret */
    flat_put(flat, CODE_AT, call_pages, (size_t)(call_pages_end - call_pages));
    for (unsigned page = 0; page < PAGES; page++)
        flat_put(flat, 0x80000 + page * 4096, function, LENGTH);
    CHECK_EQ(call_functions(flat, PAGES), PAGES);
    function[LENGTH - 5] = 2;
    for (unsigned i = 0; i < LENGTH; i++)
        flat_put(flat, 0x80000 + 3 * 4096 + i, function + i, 1);
    CHECK_EQ(call_functions(flat, PAGES), PAGES + 1);
    CHECK(!has_flushed(flat));
    for (unsigned page = 0; page < PAGES; page++)
        flat_put(flat, 0x80000 + page * 4096 + LENGTH - 5, "\x03", 1);
    CHECK_EQ(call_functions(flat, PAGES), PAGES * 3);
    CHECK(has_flushed(flat));
}

/* Each vCPU has code of its own, so that what there is without a choice grows with them. */
static void test_share(struct flat *flat)
{
    static struct engine_vm vm;
    (void)flat;
    vm.config.vcpus = 4;
    vm.config.code_cache = 0;
    CHECK_EQ(soft_code_share(&vm), ENGINE_CODE_CACHE);
    vm.config.code_cache = 64 << 20;
    CHECK_EQ(soft_code_share(&vm), 16 << 20);
    vm.config.code_cache = 1 << 20;
    CHECK_EQ(soft_code_share(&vm), ENGINE_CODE_CACHE_MIN);
}

CODE(jump_away, "jmp *%rdi");

static void test_nowhere(struct flat *flat)
{
    struct x86_cpu cpu;
    /* No RAM behind it, no page table entry, not canonical: each a fault that has no handler. */
    const uint64_t target[] = {0x3ff00000, UINT64_C(0x7000000000), UINT64_C(0x8000000000000000)};
    for (unsigned i = 0; i < sizeof(target) / sizeof(target[0]); i++) {
        flat_put(flat, CODE_AT, jump_away, (size_t)(jump_away_end - jump_away));
        flat_state(flat, 0, CODE_AT, &cpu);
        cpu.reg[X86_RDI] = target[i];
        CHECK_EQ(flat_run(flat, 0, &cpu, &cpu), ENGINE_EXIT_SHUTDOWN);
    }
}

/* ---- what other threads do ---- */

struct runner {
    struct flat *flat;
    unsigned index;
    struct x86_cpu cpu;
    enum engine_exit_reason reason;
};

static void *run_thread(void *context)
{
    struct runner *runner = context;
    runner->reason = flat_run(runner->flat, runner->index, &runner->cpu, &runner->cpu);
    return NULL;
}

static void run_two(struct runner *first, struct runner *second)
{
    pthread_t thread;
    pthread_create(&thread, NULL, run_thread, second);
    run_thread(first);
    pthread_join(thread, NULL);
    CHECK_EQ(first->reason, ENGINE_EXIT_HALT);
    CHECK_EQ(second->reason, ENGINE_EXIT_HALT);
}

static struct runner make_runner(struct flat *flat, unsigned index, uint64_t rip)
{
    struct runner runner = {.flat = flat, .index = index};
    flat_state(flat, index, rip, &runner.cpu);
    return runner;
}

CODE(spin, "1: jmp 1b");

static void test_kick(struct flat *flat)
{
    flat_put(flat, CODE_AT, spin, (size_t)(spin_end - spin));
    struct runner runner = make_runner(flat, 0, CODE_AT);
    pthread_t thread;
    pthread_create(&thread, NULL, run_thread, &runner);
    flat->engine->kick(flat->vcpu[0]);
    pthread_join(thread, NULL);
    CHECK_EQ(runner.reason, ENGINE_EXIT_KICK);
    CHECK_EQ(runner.cpu.reg[X86_RIP], CODE_AT);
}

/* STI takes effect after the next instruction: the interrupt finds RIP past HLT, or past the INC before it. */
CODE(wait_interrupt, "sti; hlt; cli; hlt");
CODE(handler, "inc %ebx; mov (%rsp), %rdx; iretq");

static void test_interrupt(struct flat *flat)
{
    struct x86_cpu cpu;
    flat_put(flat, 0x30000, handler, (size_t)(handler_end - handler));
    flat_gate(flat, 0x41, 0x30000);
    flat->vector = 0x41;
    CHECK_EQ(run_code(flat, wait_interrupt, wait_interrupt_end, &cpu), ENGINE_EXIT_HALT);
    CHECK_EQ(cpu.reg[X86_RBX], 1);
    CHECK_EQ(cpu.reg[X86_RDX], CODE_AT + 2);
    CHECK_EQ(cpu.reg[X86_RIP], CODE_AT + 4);
    CHECK_EQ(flat->vector, (uint64_t)-1);
}

/* Two vCPUs add to one counter with LOCK; RDI says where: within a page, and across two. */
CODE(count, "mov $3000, %ecx; 1: lock incq (%rdi); dec %ecx; jnz 1b; hlt");

static void test_lock(struct flat *flat)
{
    const uint64_t where[] = {0x50008, 0x50ffc};
    for (unsigned i = 0; i < 2; i++) {
        flat_put(flat, CODE_AT, count, (size_t)(count_end - count));
        flat_put(flat, where[i], "\0\0\0\0\0\0\0", 8);
        struct runner a = make_runner(flat, 0, CODE_AT), b = make_runner(flat, 1, CODE_AT);
        a.cpu.reg[X86_RDI] = b.cpu.reg[X86_RDI] = where[i];
        run_two(&a, &b);
        CHECK_EQ(flat_get64(flat, where[i]), 6000);
    }
}

/* Cross-modifying code. The writer patches the function, publishes a number, and waits until the other has
 * passed a serialising instruction, called it and published what it got. */
CODE(patcher, "mov $1, %ecx; 1: mov %ecx, 1(%rdi); mov %ecx, (%rsi);"
              "2: pause; cmp %ecx, 8(%rsi); jb 2b; inc %ecx; cmp $200, %ecx; jb 1b; hlt");
CODE(caller, "mov $1, %ebp; 1: pause; cmp %ebp, (%rsi); jb 1b; xor %eax, %eax; cpuid; call *%rdi; cmp %ebp, %eax; jne 3f;"
             "mov %ebp, 8(%rsi); inc %ebp; cmp $200, %ebp; jb 1b; 3: movl $200, 8(%rsi); hlt");

static void test_cross_modifying(struct flat *flat)
{
    const uint8_t function[] = {0xb8, 0, 0, 0, 0, 0xc3};
    flat_put(flat, CODE_AT, patcher, (size_t)(patcher_end - patcher));
    flat_put(flat, CODE_AT + 0x1000, caller, (size_t)(caller_end - caller));
    flat_put(flat, 0x60000, function, sizeof(function));
    flat_put(flat, 0x61000, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    struct runner a = make_runner(flat, 0, CODE_AT), b = make_runner(flat, 1, CODE_AT + 0x1000);
    a.cpu.reg[X86_RDI] = b.cpu.reg[X86_RDI] = 0x60000;
    a.cpu.reg[X86_RSI] = b.cpu.reg[X86_RSI] = 0x61000;
    run_two(&a, &b);
    CHECK_EQ(b.cpu.reg[X86_RBP], 200);
}

/* Stores to a page, lets the dirty flags be fetched, and stores to it again: it must be dirty again. */
CODE(store_twice, "mov %eax, (%rdi); out %al, $0x80; mov %eax, 8(%rdi); hlt");

static uint64_t dirty[1024 / 64];

static void fetch_dirty(struct flat *flat)
{
    memset(dirty, 0, sizeof(dirty));
    ram_dirty_fetch(&flat->ram, 0, dirty);
}

static void test_dirty(struct flat *flat)
{
    struct x86_cpu cpu;
    flat->on_port = fetch_dirty;
    flat_put(flat, CODE_AT, store_twice, (size_t)(store_twice_end - store_twice));
    flat_state(flat, 0, CODE_AT, &cpu);
    cpu.reg[X86_RDI] = 0x47000;
    CHECK_EQ(flat_run(flat, 0, &cpu, &cpu), ENGINE_EXIT_HALT);
    CHECK(dirty[0x47 / 64] >> 0x47 % 64 & 1);
    fetch_dirty(flat);
    CHECK(dirty[0x47 / 64] >> 0x47 % 64 & 1);
    fetch_dirty(flat);
    CHECK(!(dirty[0x47 / 64] >> 0x47 % 64 & 1));
}

int main(int argc, char **argv)
{
    static void (*const test[])(struct flat *flat) = {
        test_loop, test_own_code, test_alias, test_remap, test_crossing, test_device_writes_code, test_written_meanwhile, test_share, test_nowhere,
        test_kick, test_interrupt, test_lock, test_cross_modifying, test_dirty,
    };
    for (size_t i = 0; i < sizeof(test) / sizeof(test[0]); i++) {
        struct flat flat;
        flat_open(&flat, argc > 1 ? engine_find(argv[1]) : &engine_interpret, 2, 4);
        test[i](&flat);
        flat_close(&flat);
    }
    CHECK_DONE();
}
