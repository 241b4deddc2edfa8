/* edges.c - loops that walk over an edge of the address space: where canonical addresses end, where they wrap, and where
 * the next page is not there. What was done before the fault, and the registers at it, must be exact, however many
 * rounds an engine does at once. Each walk runs several times, so that all of its code becomes hot. */
#include "kernel.h"

#define LOW_END 0x0000800000000000ull   /* the first address that is not canonical */
#define HIGH_START 0xffff800000000000ull /* the first that is again */
#define LOW_PAGE (LOW_END - 4096)
#define TOP_PAGE 0xfffffffffffff000ull
#define HOLE 0x400000001000ull /* not mapped; the page before it is */
#define ONES 0x0101010101010101ull
#define ROUNDS 1000ull
#define RUNS 8

CODE(load, "xor %eax, %eax\n1: add (%rdi), %rax\n add $8, %rdi\n dec %rcx\n jnz 1b\n int3")
CODE(store, "1: mov %rax, (%rdi)\n add $8, %rdi\n dec %rcx\n jnz 1b\n int3")
CODE(update, "1: lock incq (%rdi)\n add $8, %rdi\n dec %rcx\n jnz 1b\n int3")
CODE(pair, "xor %eax, %eax\n1: add (%rdi), %rax\n add 8(%rdi), %rax\n add $16, %rdi\n dec %rcx\n jnz 1b\n int3")
CODE(indexed, "xor %eax, %eax\n1: add (%rdi,%rsi,4), %rax\n inc %rsi\n dec %rcx\n jnz 1b\n int3")
CODE(flags_live, "xor %eax, %eax\n1: sub $1, %rcx\n mov (%rdi), %rdx\n lea 8(%rdi), %rdi\n jnz 1b\n int3")
CODE(push, "1: push %rax\n dec %rcx\n jnz 1b\n int3")
CODE(pop, "1: pop %rax\n dec %rcx\n jnz 1b\n int3")
CODE(stosb, "1: mov %rdx, %rcx\n rep stosb\n dec %ebx\n jnz 1b\n int3")
CODE(stosq, "1: mov %rdx, %rcx\n rep stosq\n dec %ebx\n jnz 1b\n int3")
CODE(movsb, "1: mov %rdx, %rcx\n rep movsb\n dec %ebx\n jnz 1b\n int3")

static u8 *page;

/* A walk: what it starts with, and how it ends. Registers that are 0 in both are not looked at. */
struct walk {
    const char *name;
    const struct code *code;
    struct frame start, end;
    unsigned at; /* the faulting instruction's offset */
    unsigned stored, bytes; /* the bytes of `page` that it stores to: the others stay */
};

#define LOAD_AT 2
static const struct walk walks[] = {
    { "load, mid-access", &load, { .rdi = LOW_PAGE + 4, .rcx = ROUNDS },
      { .vector = 13, .rdi = LOW_END - 4, .rcx = ROUNDS - 511, .rax = 511 * ONES }, LOAD_AT, 0, 0 },
    { "load, at the edge", &load, { .rdi = LOW_PAGE, .rcx = ROUNDS },
      { .vector = 13, .rdi = LOW_END, .rcx = ROUNDS - 512, .rax = 512 * ONES }, LOAD_AT, 0, 0 },
    { "load, into a hole, mid-access", &load, { .rdi = HOLE - 4092, .rcx = ROUNDS },
      { .vector = 14, .error = 4, .rdi = HOLE - 4, .rcx = ROUNDS - 511, .rax = 511 * ONES }, LOAD_AT, 0, 0 },
    { "store, mid-access", &store, { .rdi = LOW_PAGE + 4, .rcx = ROUNDS },
      { .vector = 13, .rdi = LOW_END - 4, .rcx = ROUNDS - 511 }, 0, 4, 4088 },
    { "store, at the edge", &store, { .rdi = LOW_PAGE, .rcx = ROUNDS },
      { .vector = 13, .rdi = LOW_END, .rcx = ROUNDS - 512 }, 0, 0, 4096 },
    { "store, into a hole, mid-access", &store, { .rdi = HOLE - 4092, .rcx = ROUNDS },
      { .vector = 14, .error = 6, .rdi = HOLE - 4, .rcx = ROUNDS - 511 }, 0, 4, 4088 },
    { "locked update, at the edge", &update, { .rdi = LOW_PAGE, .rcx = ROUNDS },
      { .vector = 13, .rdi = LOW_END, .rcx = ROUNDS - 512 }, 0, 0, 4096 },
    { "locked update, into a hole", &update, { .rdi = HOLE - 4096, .rcx = ROUNDS },
      { .vector = 14, .error = 6, .rdi = HOLE, .rcx = ROUNDS - 512 }, 0, 0, 4096 },
    { "two loads, the second mid-access", &pair, { .rdi = LOW_PAGE + 4, .rcx = ROUNDS },
      { .vector = 13, .rdi = LOW_END - 12, .rcx = ROUNDS - 255, .rax = 511 * ONES }, LOAD_AT + 3, 0, 0 },
    { "two loads, the second into a hole", &pair, { .rdi = HOLE - 4088, .rcx = ROUNDS },
      { .vector = 14, .error = 4, .rdi = HOLE - 8, .rcx = ROUNDS - 255, .rax = 511 * ONES }, LOAD_AT + 3, 0, 0 },
    { "load by an index, mid-access", &indexed, { .rdi = LOW_PAGE + 2, .rcx = 2 * ROUNDS },
      { .vector = 13, .rdi = LOW_PAGE + 2, .rsi = 1022, .rcx = 2 * ROUNDS - 1022, .rax = 1022 * ONES }, LOAD_AT, 0, 0 },
    { "load with live flags, mid-access", &flags_live, { .rdi = LOW_PAGE + 4, .rcx = ROUNDS },
      { .vector = 13, .rdi = LOW_END - 4, .rcx = ROUNDS - 512, .rdx = ONES }, LOAD_AT + 4, 0, 0 },
    { "load with live flags, into a hole", &flags_live, { .rdi = HOLE - 4096, .rcx = ROUNDS },
      { .vector = 14, .error = 4, .rdi = HOLE, .rcx = ROUNDS - 513, .rdx = ONES }, LOAD_AT + 4, 0, 0 },
    { "PUSH, mid-access", &push, { .rsp = HIGH_START + 0x804, .rcx = ROUNDS },
      { .vector = 12, .rsp = HIGH_START + 4, .rcx = ROUNDS - 256 }, 0, 4, 0x800 },
    { "POP, mid-access", &pop, { .rsp = LOW_PAGE + 4, .rcx = ROUNDS },
      { .vector = 12, .rsp = LOW_END - 4, .rcx = ROUNDS - 511, .rax = ONES }, 0, 0, 0 },
    { "REP STOSB", &stosb, { .rdi = LOW_PAGE, .rdx = 0x180, .rbx = ROUNDS },
      { .vector = 13, .rdi = LOW_END, .rcx = 0x80, .rbx = ROUNDS - 10 }, 3, 0, 4096 },
    { "REP STOSB into a hole", &stosb, { .rdi = HOLE - 4096, .rdx = 0x180, .rbx = ROUNDS },
      { .vector = 14, .error = 6, .rdi = HOLE, .rcx = 0x80, .rbx = ROUNDS - 10 }, 3, 0, 4096 },
    { "REP STOSQ, mid-access", &stosq, { .rdi = LOW_PAGE + 4, .rdx = 0x30, .rbx = ROUNDS },
      { .vector = 13, .rdi = LOW_END - 4, .rcx = 17, .rbx = ROUNDS - 10 }, 3, 4, 4088 },
    { "REP STOSQ into a hole, mid-access", &stosq, { .rdi = HOLE - 4092, .rdx = 0x30, .rbx = ROUNDS },
      { .vector = 14, .error = 6, .rdi = HOLE - 4, .rcx = 17, .rbx = ROUNDS - 10 }, 3, 4, 4088 },
    { "REP MOVSB from the edge", &movsb, { .rsi = LOW_PAGE, .rdi = UDATA, .rdx = 0x180, .rbx = ROUNDS },
      { .vector = 13, .rsi = LOW_END, .rdi = UDATA + 4096, .rcx = 0x80, .rbx = ROUNDS - 10 }, 3, 0, 0 },
    { "REP MOVSB from a hole", &movsb, { .rsi = HOLE - 4096, .rdi = UDATA, .rdx = 0x180, .rbx = ROUNDS },
      { .vector = 14, .error = 4, .rsi = HOLE, .rdi = UDATA + 4096, .rcx = 0x80, .rbx = ROUNDS - 10 }, 3, 0, 0 },
};

static struct frame frame_for(const struct walk *walk)
{
    struct frame frame = code_frame(walk->code, 3);
    frame.rax = 2 * ONES;
    frame.rbx = walk->start.rbx;
    frame.rcx = walk->start.rcx;
    frame.rdx = walk->start.rdx;
    frame.rsi = walk->start.rsi;
    frame.rdi = walk->start.rdi;
    if (walk->start.rsp)
        frame.rsp = walk->start.rsp;
    return frame;
}

static bool memory_is(const struct walk *walk)
{
    for (unsigned i = 0; i < 4096; i++) {
        bool stored = i - walk->stored < walk->bytes;
        bool counted = walk->code == &update && i % 8 == 0;
        if (page[i] != (!stored ? 1 : counted || walk->code != &update ? 2 : 1))
            return false;
    }
    return true;
}

static bool ends_as_due(const struct walk *walk, const struct trap *trap)
{
    const struct frame *got = &trap->frame, *want = &walk->end;
    return got->vector == want->vector && got->error == want->error && got->rip == UCODE + walk->at &&
           got->rdi == (want->rdi ? want->rdi : got->rdi) && got->rsi == (want->rsi ? want->rsi : got->rsi) &&
           got->rcx == (want->rcx ? want->rcx : got->rcx) && got->rax == (want->rax ? want->rax : got->rax) &&
           got->rdx == (want->rdx ? want->rdx : got->rdx) && got->rbx == (want->rbx ? want->rbx : got->rbx) &&
           got->rsp == (want->rsp ? want->rsp : got->rsp) && (got->vector != 14 || trap->cr2 == HOLE);
}

static void check_walk(const struct walk *walk)
{
    for (unsigned run_number = 0; run_number < RUNS; run_number++) {
        struct frame frame = frame_for(walk);
        struct trap trap;
        memset(page, 1, 4096);
        run(&frame, &trap);
        if (ends_as_due(walk, &trap) && memory_is(walk))
            continue;
        check(false, walk->name, "run %u: vector %lu error %lx rip +%lx rdi %lx rsi %lx rcx %lx rax %lx rbx %lx rsp %lx cr2 %lx%s",
              run_number, trap.frame.vector, trap.frame.error, (u64)(trap.frame.rip - UCODE), trap.frame.rdi, trap.frame.rsi,
              trap.frame.rcx, trap.frame.rax, trap.frame.rbx, trap.frame.rsp, trap.cr2,
              memory_is(walk) ? "" : ", other memory");
        return;
    }
    check(true, walk->name, "%s", "");
}

/* TCG knows no canonical addresses but for code, and an update's fault is that of its load. */
static bool tcg_differs(const struct walk *walk)
{
    return walk->end.vector != 14 || walk->code == &update;
}

/* ---- over the top ---- */

static void check_wrap(void)
{
    volatile u64 *zero = (volatile u64 *)0;
    struct trap trap;
    zero[0] = zero[1] = ONES;
    for (unsigned i = 0; i < RUNS; i++) {
        struct frame frame = code_frame(&load, 0);
        frame.rdi = TOP_PAGE + 4;
        frame.rcx = 513; /* 511 in the top page, one around the corner, one at 4 */
        memset(page, 1, 4096);
        run(&frame, &trap);
    }
    check_trap("loads around the top of the address space", &trap, 3, -1);
    check_equal("their sum", trap.frame.rax, 513 * ONES);
    check_equal("where they end", trap.frame.rdi, 12);
    for (unsigned i = 0; i < RUNS; i++) {
        struct frame frame = code_frame(&store, 0);
        frame.rdi = TOP_PAGE + 4;
        frame.rcx = 512;
        frame.rax = 2 * ONES;
        zero[0] = ONES;
        memset(page, 1, 4096);
        run(&frame, &trap);
    }
    check_trap("stores around the top of the address space", &trap, 3, -1);
    check_equal("what they leave at 0", zero[0], (ONES & ~0xffffffffull) | (2 * ONES & 0xffffffffull));
    check_equal("and at the top", *(volatile u64 *)(TOP_PAGE + 4088), 2 * ONES);
}

/* ---- code ---- */

static void check_code(void)
{
    struct trap trap;
    for (unsigned i = 0; i < RUNS; i++) {
        struct frame frame = code_frame(&load, 3);
        memset(page, 0x90, 4096);
        frame.rip = LOW_END - 64;
        run(&frame, &trap);
    }
    check_trap("code that runs off the edge", &trap, 13, 0);
    check_equal("its RIP", trap.frame.rip, LOW_END);
    for (unsigned i = 0; i < RUNS; i++) {
        struct frame frame = code_frame(&load, 3);
        page[4095] = 0x48;
        frame.rip = LOW_END - 64;
        run(&frame, &trap);
    }
    if (under_tcg()) {
        skip("an instruction over the edge", "TCG does not raise it as hardware does");
        return;
    }
    check_trap("an instruction over the edge", &trap, 13, 0);
    check_equal("the RIP of that", trap.frame.rip, LOW_END - 1);
}

void kernel_main(void)
{
    page = page_new();
    map(LOW_PAGE, (u64)page, PTE_P | PTE_W | PTE_U);
    map(HIGH_START, (u64)page, PTE_P | PTE_W | PTE_U);
    map(HOLE - 4096, (u64)page, PTE_P | PTE_W | PTE_U);
    map(TOP_PAGE, (u64)page, PTE_P | PTE_W);
    for (size_t i = 0; i < sizeof walks / sizeof walks[0]; i++) {
        if (under_tcg() && tcg_differs(&walks[i]))
            skip(walks[i].name, "TCG does not raise it as hardware does");
        else
            check_walk(&walks[i]);
    }
    check_wrap();
    check_code();
    finish();
}
