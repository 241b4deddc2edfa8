/* trap32.c - descriptor tables of the 32-bit kernels, the dispatch of vectors, `run32`. */
#include "kernel32.h"

/* 100h and 108h, beyond the free slots, are run_real's 16-bit segments. */
u64 gdt32[34] __attribute__((aligned(16))) = {
    [CODE0 / 8] = 0x00cf9b000000ffff,
    [DATA0 / 8] = 0x00cf93000000ffff,
    [CODE3 / 8] = 0x00cffb000000ffff,
    [DATA3 / 8] = 0x00cff3000000ffff,
    [0x100 / 8] = 0x00009b000000ffff,
    [0x108 / 8] = 0x000093000000ffff,
};
u64 idt32[256] __attribute__((aligned(16)));
struct tss32 tss32;
static u8 ring0_stack[8192] __attribute__((aligned(16)));
static u8 stack0[4096] __attribute__((aligned(16))), stack3[4096] __attribute__((aligned(16)));

static struct frame32 *running;
static u32 saved_stack;

void run_enter32(struct frame32 *frame, u32 *ret_stack, u32 bytes);
_Noreturn void run_leave32(u32 stack);
void trap_dispatch32(struct frame32 *frame);
void kernel_start32(void);
extern u8 idt_pointer[];

u64 descriptor(u32 base, u32 limit, u8 access, u8 flags)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 | (u64)(limit >> 16 & 15) << 48 |
           (u64)flags << 52 | (u64)(base >> 24) << 56;
}

u64 gate32(u16 selector, u32 offset, u8 access, u8 parameters)
{
    return (offset & 0xffff) | (u64)selector << 16 | (u64)parameters << 32 | (u64)access << 40 | (u64)(offset >> 16) << 48;
}

void trap_dispatch32(struct frame32 *frame)
{
    if (!running)
        panic("vector %lu error %lx at %lx:%lx", (unsigned long)frame->vector, (unsigned long)frame->error,
              (unsigned long)frame->cs, (unsigned long)frame->eip);
    struct frame32 *to = running;
    running = NULL;
    const bool v86 = frame->eflags & FLAG_VM, outer = v86 || (frame->cs & 3);
    const u32 stack = (u32)(unsigned long)&frame->esp;
    memcpy(to, frame, v86 ? sizeof *frame : outer ? offsetof(struct frame32, v86_es) : offsetof(struct frame32, esp));
    if (!outer) {
        to->esp = stack;
        to->ss = DATA0;
    }
    run_leave32(saved_stack);
}

/* In ring 0 an IRET does not change the stack: the code runs on ours, below. */
void run32(struct frame32 *frame)
{
    const bool v86 = frame->eflags & FLAG_VM, outer = v86 || (frame->cs & 3);
    running = frame;
    run_enter32(frame, &saved_stack, v86 ? sizeof *frame : outer ? offsetof(struct frame32, v86_es) : offsetof(struct frame32, esp));
}

struct frame32 frame32_flat(unsigned ring, const void *code)
{
    struct frame32 frame;
    memset(&frame, 0, sizeof frame);
    frame.gs = frame.fs = frame.es = frame.ds = ring ? DATA3 : DATA0;
    frame.eip = (u32)(unsigned long)code;
    frame.cs = ring ? CODE3 : CODE0;
    frame.eflags = FLAG_FIXED;
    frame.ss = ring ? DATA3 : DATA0;
    frame.esp = (u32)(unsigned long)(ring ? stack3 : stack0) + sizeof stack3;
    return frame;
}

void check_trap32(const char *name, const struct frame32 *frame, u32 vector, long error)
{
    check(frame->vector == vector && (error == -1 || frame->error == (u32)error), name,
          "vector %lu error %lx at %lx:%lx, want %lu error %lx", (unsigned long)frame->vector, (unsigned long)frame->error,
          (unsigned long)frame->cs, (unsigned long)frame->eip, (unsigned long)vector, (unsigned long)error);
}

void copy_low(const struct code *code)
{
    memcpy((void *)LOW_CODE, code->start, (size_t)(code->end - code->start));
}

static void load_tables(void)
{
    tss32.ss0 = DATA0;
    tss32.esp0 = (u32)(unsigned long)ring0_stack + sizeof ring0_stack;
    tss32.io_map = sizeof tss32;
    gdt32[TSS0 / 8] = descriptor((u32)(unsigned long)&tss32, sizeof tss32 - 1, 0x89, 0);
    for (unsigned i = 0; i < 256; i++)
        idt32[i] = gate32(CODE0, (u32)(unsigned long)trap_entries32 + 16 * i, i == 3 || i == 4 || i == 0x80 ? 0xee : 0x8e, 0);
    __asm__ volatile("lidt (%0)" : : "r"(idt_pointer));
    __asm__ volatile("ltr %w0" : : "r"(TSS0));
}

void kernel_start32(void)
{
    load_tables();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    kernel_main();
    finish();
}
