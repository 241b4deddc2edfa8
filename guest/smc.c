/* smc.c - code that changes: by its own CPU, by another, through another address of its page, under its feet;
 * instructions across pages. Run with two CPUs. Intel SDM 3A 9.1.3 and 12.6. */
#include "kernel.h"

#define A 0x400000000000ull /* code */
#define B 0x410000000000ull /* the same page elsewhere */
#define ROUNDS 2000u
#define CROSS_ROUNDS 100u

static u8 *page;
typedef u64 function(u64 argument);

/* mov $value, %eax; ret */
static void put_constant(volatile u8 *at, u32 value)
{
    const u8 code[] = { 0xb8, (u8)value, (u8)(value >> 8), (u8)(value >> 16), (u8)(value >> 24), 0xc3 };
    for (unsigned i = 0; i < sizeof code; i++)
        at[i] = code[i];
}

static u64 call(u64 address, u64 argument)
{
    return ((function *)address)(argument);
}

static void check_plain(void)
{
    unsigned wrong = 0;
    for (u32 i = 0; i < ROUNDS; i++) {
        put_constant((u8 *)A + 64, i * 3);
        wrong += call(A + 64, 0) != i * 3;
    }
    check(wrong == 0, "code rewritten before each call", "%u of %u wrong", wrong, ROUNDS);
    wrong = 0;
    for (u32 i = 0; i < ROUNDS; i++) {
        put_constant((u8 *)B + 64, i * 5);
        wrong += call(A + 64, 0) != i * 5;
    }
    check(wrong == 0, "rewritten through another address", "%u of %u wrong", wrong, ROUNDS);
    wrong = 0;
    for (u32 i = 0; i < ROUNDS; i++) {
        *(volatile u32 *)(A + 65) = i;
        wrong += call(B + 64, 0) != i;
        __asm__ volatile("lock incl (%0)" : : "r"(A + 65) : "memory", "cc");
        wrong += call(B + 64, 0) != i + 1;
        u64 from = i + 7;
        void *to = (void *)(B + 65), *source = &from;
        u64 count = 4;
        __asm__ volatile("cld; rep movsb" : "+D"(to), "+S"(source), "+c"(count) : : "memory");
        wrong += call(A + 64, 0) != i + 7;
    }
    check(wrong == 0, "its immediate rewritten by MOV, LOCK INC and REP MOVSB", "%u wrong", wrong);
}

/* The store changes the very next instruction, in one straight run: mov $1 becomes mov $2. */
CODE(next_instruction, "movb $2, 1f+1(%rip)\n 1: mov $1, %eax\n int3")
/* Inside a loop, at each turn: the immediate counts up. */
CODE(own_loop, "mov $100, %ecx\n xor %edx, %edx\n 1: incl 2f+1(%rip)\n 2: mov $0, %eax\n add %eax, %edx\n dec %ecx\n"
               " jnz 1b\n int3")
/* A repeated store runs over the instructions that follow it: NOPs become INC EAX (FF C0). */
CODE(string_over, "lea 1f(%rip), %rdi\n mov $0xc0ff, %eax\n mov $4, %ecx\n cld\n rep stosw\n xor %eax, %eax\n"
                  " 1: .fill 8, 1, 0x90\n int3")
/* PUSH writes code on the stack that is run next. */
CODE(push_code, "movabs $0xcccccccccc40c0ff, %rax\n mov %rsp, %rbx\n push %rax\n xor %eax, %eax\n jmp *%rsp")

static void check_own(void)
{
    for (unsigned ring = 0; ring <= 3; ring += 3) {
        /* The snippets change themselves, so each run needs a fresh copy: code_frame makes one. */
        struct trap trap = run_code(&next_instruction, ring);
        check_equal("a store to the next instruction", trap.frame.rax, 2);
        trap = run_code(&own_loop, ring);
        check_equal("a store at each turn of a loop", trap.frame.rdx, 5050);
        trap = run_code(&string_over, ring);
        check_equal("REP STOSW over what follows", trap.frame.rax, 4);
    }
    struct trap trap = run_code(&push_code, 3);
    check_trap("code on the stack", &trap, 3, 0);
    check_equal("its result", trap.frame.rax, 1);
}

/* ---- across pages ---- */

static void check_crossing(void)
{
    u8 *two = pages_new(4);
    const u64 va = 0x420000000000ull;
    /* Neighbours in linear memory, not in physical memory. */
    map(va, (u64)two, PTE_P | PTE_W);
    map(va + 4096, (u64)two + 8192, PTE_P | PTE_W);
    unsigned wrong = 0;
    for (unsigned split = 1; split < 5; split++) {
        u32 value = 0x01010101 * split;
        put_constant((u8 *)va + 4096 - split, value);
        wrong += call(va + 4096 - split, 0) != value;
        *(volatile u8 *)(va + 4096) += 1; /* the first byte of the second page: one of the immediate's */
        wrong += call(va + 4096 - split, 0) != value + (1u << 8 * (split - 1));
    }
    check(wrong == 0, "an instruction across pages, changed in the second", "%u wrong", wrong);
    put_constant((u8 *)va + 4096 - 2, 0x55);
    check_equal("across pages", call(va + 4096 - 2, 0), 0x55);
    const u8 tail[] = { 0x66, 0, 0, 0xc3 }; /* after b8 55: the rest of the immediate, RET */
    memcpy(two + 12288, tail, sizeof tail);
    map(va + 4096, (u64)two + 12288, PTE_P | PTE_W);
    check_equal("the second page mapped elsewhere", call(va + 4096 - 2, 0), 0x6655);
}

static void check_remap(void)
{
    u8 *first = page_new(), *second = page_new();
    const u64 va = 0x430000000000ull;
    put_constant(first, 111);
    put_constant(second, 222);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 200; i++) {
        map(va, (u64)(i & 1 ? second : first), PTE_P | PTE_W);
        wrong += call(va, 0) != (i & 1 ? 222u : 111u);
    }
    check(wrong == 0, "another page of code at an address", "%u wrong", wrong);
}

/* ---- by another CPU ---- */

static volatile u32 seen, stop, running;

/* Calls the code over and over; tells what it last gave. */
static void caller(unsigned index)
{
    (void)index;
    running = 1;
    while (!stop) {
        u32 now = (u32)call(A + 131, 0);
        __atomic_store_n(&seen, now, __ATOMIC_SEQ_CST);
    }
    running = 0;
}

static void check_cross(void)
{
    unsigned late = 0;
    put_constant((u8 *)A + 131, 0); /* so that the immediate is aligned */
    if (!cpu_start(1, caller)) {
        check(false, "a second CPU", "it does not answer");
        return;
    }
    while (!running)
        pause();
    /* An aligned store of the immediate's 4 bytes is seen whole; the new code must be run before long. */
    for (u32 i = 1; i <= CROSS_ROUNDS; i++) {
        *(volatile u32 *)(B + 132) = i;
        u64 begin = rdtsc();
        while (__atomic_load_n(&seen, __ATOMIC_SEQ_CST) != i && rdtsc() - begin < 4000000000ull)
            pause();
        late += seen != i;
    }
    stop = 1;
    while (running)
        pause();
    if (under_tcg() && late) {
        skip("code changed by another CPU through another address", "TCG has lost changes under load");
        return;
    }
    check(late == 0, "code changed by another CPU through another address", "%u of %u never seen", late, CROSS_ROUNDS);
}

void kernel_main(void)
{
    apic_enable();
    page = page_new();
    map(A, (u64)page, PTE_P | PTE_W);
    map(B, (u64)page, PTE_P | PTE_W);
    check_plain();
    check_own();
    check_crossing();
    check_remap();
    check_cross();
}
