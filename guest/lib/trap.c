/* trap.c - descriptor tables, the dispatch of vectors, and `run`. */
#include "kernel.h"

struct gate idt[256];
struct tss64 tss[CPUS];
u64 gdt[64] __attribute__((aligned(16))) = {
    0,
    0x00209b0000000000, /* SEL_CODE64 */
    0x00cf93000000ffff, /* SEL_DATA */
    0x00cf9b000000ffff, /* SEL_CODE32 */
    0x00cffb000000ffff, /* SEL_UCODE32 */
    0x00cff3000000ffff, /* SEL_UDATA */
    0x0020fb0000000000, /* SEL_UCODE64 */
};

static void (*handlers[256])(struct frame *frame);
static struct run_state {
    bool active;
    u64 stack;
    struct trap *trap;
} runs[CPUS];
static u8 stacks[CPUS][3][8192] __attribute__((aligned(16)));
static u8 ring0_stacks[CPUS][4096] __attribute__((aligned(16)));

extern u8 trap_entries[];
void run_enter(const struct frame *frame, u64 *ret_stack);
_Noreturn void run_leave(u64 stack);
void trap_dispatch(struct frame *frame);
void kernel_start(void);

unsigned cpu_index(void)
{
    u16 selector;
    __asm__ volatile("str %0" : "=r"(selector));
    return (unsigned)(selector - SEL_TSS) / 16;
}

void cpu_load_tables(unsigned index)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) pointer = { sizeof gdt - 1, (u64)gdt };
    struct tss64 *mine = &tss[index];
    for (unsigned i = 0; i < 3; i++)
        mine->ist[i] = (u64)stacks[index][i] + sizeof stacks[index][i];
    mine->rsp[0] = (u64)ring0_stacks[index] + sizeof ring0_stacks[index];
    mine->io_map = sizeof *mine;
    u64 base = (u64)mine;
    u64 *descriptor = &gdt[SEL_TSS / 8 + 2 * index];
    descriptor[0] = (sizeof *mine - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    descriptor[1] = base >> 32;
    __asm__ volatile("lgdt %0" : : "m"(pointer));
    __asm__ volatile("pushq %0; lea 1f(%%rip), %%rax; pushq %%rax; lretq; 1:" : : "i"(SEL_CODE64) : "rax", "memory");
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs" : : "r"(SEL_UDATA));
    __asm__ volatile("mov %0, %%ss" : : "r"(SEL_DATA));
    pointer.limit = sizeof idt - 1;
    pointer.base = (u64)idt;
    __asm__ volatile("lidt %0" : : "m"(pointer));
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS + 16 * index));
}

void trap_init(void)
{
    for (unsigned i = 0; i < 256; i++) {
        u64 entry = (u64)trap_entries + 16 * i;
        u8 ist = i == 8 ? IST_DF : i == 2 ? IST_NMI : IST_TRAP;
        /* INT3, INTO and vector 80h may be called from ring 3. */
        u8 attributes = i == 3 || i == 4 || i == 0x80 ? 0xee : 0x8e;
        idt[i] = (struct gate){ (u16)entry, SEL_CODE64, ist, attributes, (u16)(entry >> 16), (u32)(entry >> 32), 0 };
    }
}

void trap_set_handler(unsigned vector, void (*handler)(struct frame *frame))
{
    handlers[vector] = handler;
}

void trap_dispatch(struct frame *frame)
{
    struct run_state *state = &runs[cpu_index()];
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    if (!state->active)
        panic("vector %lu error %lx at %lx:%lx, rsp %lx, cr2 %lx", (unsigned long)frame->vector,
              (unsigned long)frame->error, (unsigned long)frame->cs, (unsigned long)frame->rip,
              (unsigned long)frame->rsp, (unsigned long)read_cr2());
    state->active = false;
    state->trap->frame = *frame;
    state->trap->cr2 = read_cr2();
    state->trap->entry_rsp = (u64)&frame->rip;
    run_leave(state->stack);
}

void run(const struct frame *frame, struct trap *ret_trap)
{
    struct run_state *state = &runs[cpu_index()];
    state->active = true;
    state->trap = ret_trap;
    run_enter(frame, &state->stack);
}

static u8 *kernel_code, *user_code;

static void map_code_pages(void)
{
    kernel_code = page_new();
    user_code = page_new();
    map(KCODE, (u64)kernel_code, PTE_P | PTE_W);
    map(KCODE32, (u64)kernel_code, PTE_P | PTE_W);
    map(UCODE, (u64)user_code, PTE_P | PTE_W | PTE_U);
    map(UCODE32, (u64)user_code, PTE_P | PTE_W | PTE_U);
    map(KSTACK - 4096, (u64)page_new(), PTE_P | PTE_W);
    u64 stack = (u64)page_new();
    map(USTACK - 4096, stack, PTE_P | PTE_W | PTE_U);
    map(USTACK32 - 4096, stack, PTE_P | PTE_W | PTE_U);
    u8 *data = pages_new(4);
    for (unsigned i = 0; i < 4; i++) {
        map(UDATA + 4096 * i, (u64)data + 4096 * i, PTE_P | PTE_W | PTE_U);
        map(UDATA32 + 4096 * i, (u64)data + 4096 * i, PTE_P | PTE_W | PTE_U);
    }
}

struct frame code_frame(const struct code *code, unsigned ring)
{
    struct frame frame;
    memset(&frame, 0, sizeof frame);
    /* A store to code makes an engine drop what it knows of it: not for the same snippet again. */
    u8 *to = ring ? user_code : kernel_code;
    const size_t size = (size_t)(code->end - code->start);
    if (memcmp(to, code->start, size) != 0)
        memcpy(to, code->start, size);
    frame.rflags = FLAG_FIXED;
    frame.rip = ring == 0 ? KCODE : ring == 3 ? UCODE : UCODE32;
    frame.cs = ring == 0 ? SEL_CODE64 : ring == 3 ? SEL_UCODE64 : SEL_UCODE32;
    frame.ss = ring == 0 ? SEL_DATA : SEL_UDATA;
    frame.rsp = ring == 0 ? KSTACK : ring == 3 ? USTACK : USTACK32;
    return frame;
}

struct trap run_code(const struct code *code, unsigned ring)
{
    struct trap trap;
    struct frame frame = code_frame(code, ring);
    run(&frame, &trap);
    return trap;
}

void check_trap(const char *name, const struct trap *trap, unsigned vector, long error)
{
    bool passed = trap->frame.vector == vector && (error == -1 || trap->frame.error == (u64)error);
    check(passed, name, "vector %lu error %lx at %lx cr2 %lx, want %u error %lx", (unsigned long)trap->frame.vector,
          (unsigned long)trap->frame.error, (unsigned long)trap->frame.rip, (unsigned long)trap->cr2, vector,
          (unsigned long)error);
}

void check_trap_not_tcg(const char *name, const struct trap *trap, unsigned vector, long error, const char *why)
{
    if (under_tcg())
        skip(name, why);
    else
        check_trap(name, trap, vector, error);
}

void kernel_start(void)
{
    options_init();
    page_init();
    trap_init();
    cpu_load_tables(0);
    map_code_pages();
    pic_disable();
    kernel_main();
    finish();
}
