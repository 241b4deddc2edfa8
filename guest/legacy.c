/* legacy.c - what only exists outside long mode: segment limits, 32-bit gates, tasks, virtual-8086 mode, real
 * mode, 32-bit and PAE paging. Intel SDM 3A chapters 4, 5, 7 and 3B 20. */
#include "kernel32.h"

#define ASM(name, text) __asm__(".pushsection .text.code, \"ax\"\n.code32\n" #name ":\n" text "\n.popsection"); extern const u8 name[];

static u32 address(const void *at)
{
    return (u32)(unsigned long)at;
}

static struct frame32 run_flat(unsigned ring, const u8 *code)
{
    struct frame32 frame = frame32_flat(ring, code);
    run32(&frame);
    return frame;
}

/* ---- segments ---- */

ASM(load_by_fs, "mov %eax, %fs\n mov %fs:(%ebx), %ecx\n int3")
ASM(store_by_fs, "mov %eax, %fs\n mov %ecx, %fs:(%ebx)\n int3")
ASM(push_by_ss, "mov %eax, %ss\n mov %ebx, %esp\n push %ecx\n int3")
ASM(jump_far, "push %eax\n push %ebx\n lret")

static void expect_access(const char *name, const u8 *code, u32 selector, u32 offset, u32 vector, long error)
{
    struct frame32 frame = frame32_flat(3, code);
    frame.eax = selector;
    frame.ebx = offset;
    run32(&frame);
    check_trap32(name, &frame, vector, error);
}

static void check_segments(void)
{
    static u8 area[8192] __attribute__((aligned(4096)));
    const u32 base = address(area);
    gdt32[FREE / 8] = descriptor(base, 0xff, 0xf3, 4);       /* 256 bytes */
    gdt32[FREE / 8 + 1] = descriptor(base, 0xfff, 0xf7, 4);  /* grows down: above FFFh */
    gdt32[FREE / 8 + 2] = descriptor(base, 0xff, 0xf1, 4);   /* read-only */
    gdt32[FREE / 8 + 3] = descriptor(0, 0xfffff, 0xf9, 0xc); /* execute only */
    gdt32[FREE / 8 + 4] = descriptor(base, 0x10, 0xfb, 4);   /* 17 bytes of code */
    gdt32[FREE / 8 + 5] = descriptor(base, 0, 0xf3, 0xc);    /* one page */
    expect_access("load within the limit", load_by_fs, FREE_SLOT(0) | 3, 0xfc, 3, 0);
    expect_access("load across the limit", load_by_fs, FREE_SLOT(0) | 3, 0xfd, 13, 0);
    expect_access("load beyond the limit", load_by_fs, FREE_SLOT(0) | 3, 0x100, 13, 0);
    expect_access("an offset that wraps", load_by_fs, FREE_SLOT(0) | 3, 0xfffffffe, 13, 0);
    expect_access("expand-down, below", load_by_fs, FREE_SLOT(1) | 3, 0xfff, 13, 0);
    expect_access("expand-down, above", load_by_fs, FREE_SLOT(1) | 3, 0x1000, 3, 0);
    expect_access("page granularity, the last", load_by_fs, FREE_SLOT(5) | 3, 0xffc, 3, 0);
    expect_access("page granularity, beyond", load_by_fs, FREE_SLOT(5) | 3, 0x1000, 13, 0);
    expect_access("load from a read-only segment", load_by_fs, FREE_SLOT(2) | 3, 0, 3, 0);
    expect_access("store to a read-only segment", store_by_fs, FREE_SLOT(2) | 3, 0, 13, 0);
    expect_access("load of an execute-only segment", load_by_fs, FREE_SLOT(3) | 3, 0, 13, FREE_SLOT(3));
    expect_access("store to a code segment", store_by_fs, CODE3, base, 13, 0);
    expect_access("load by a null segment", load_by_fs, 0, 0, 13, 0);
    expect_access("PUSH within the limit", push_by_ss, FREE_SLOT(0) | 3, 0x100, 3, 0);
    expect_access("PUSH beyond the limit", push_by_ss, FREE_SLOT(0) | 3, 0x108, 12, 0);
    memset(area, 0x90, 64);
    expect_access("code up to the limit, and over", jump_far, FREE_SLOT(4) | 3, 0, 13, 0);
    area[16] = 0xcc;
    expect_access("the last byte of code", jump_far, FREE_SLOT(4) | 3, 0, 3, 0);
    expect_access("far RET beyond the limit", jump_far, FREE_SLOT(4) | 3, 0x11, 13, 0);
}

/* ---- call gates ---- */

ASM(call_gate, "push $0x1111\n push $0x2222\n lcall *gate_pointer\n mov %esp, %esi\n int3\n gate_pointer: .long 0, 0x30 + 3")
ASM(gate_target, "mov %cs, %eax\n mov 8(%esp), %ebx\n mov 12(%esp), %ecx\n mov 16(%esp), %edx\n mov 20(%esp), %edi\n lret $8")
extern u32 gate_pointer[];

static void check_gates(void)
{
    gdt32[FREE / 8] = gate32(CODE0, address(gate_target), 0xec, 2);
    struct frame32 frame = run_flat(3, call_gate);
    check_trap32("CALL through a gate, two parameters", &frame, 3, 0);
    check_equal("CS in the target", frame.eax, CODE0);
    check_equal("the last parameter", frame.ebx, 0x2222);
    check_equal("the first parameter", frame.ecx, 0x1111);
    check_equal("the caller's SS", frame.edi, DATA3);
    check_equal("the caller's ESP, before the parameters went", frame.edx + 8, frame.esi);
    gdt32[FREE / 8] = gate32(CODE0, address(gate_target), 0x8c, 2);
    frame = run_flat(3, call_gate);
    check_trap32("a gate of DPL 0", &frame, 13, FREE);
    gdt32[FREE / 8] = gate32(CODE0, address(gate_target), 0x6c, 2);
    frame = run_flat(3, call_gate);
    check_trap32("a gate not present", &frame, 11, FREE);
}

/* ---- tasks ---- */

static struct tss32 task;
static u8 task_stack[4096] __attribute__((aligned(16)));
#define TASK FREE_SLOT(6)
#define TASK_GATE FREE_SLOT(7)

ASM(call_task, "lcall $0x60, $0\n pushfl\n pop %ebx\n str %ecx\n int3")
ASM(call_task_gate, "lcall $0x68, $0\n pushfl\n pop %ebx\n str %ecx\n int3")
ASM(jump_task, "ljmp $0x60, $0\n int3")
ASM(int_task, "int $0x90\n str %ecx\n int3")
/* The task: leaves what it sees in its own registers, and goes back. */
ASM(task_code, "1: str %eax\n pushfl\n pop %edx\n mov %cr0, %esi\n iret\n inc %edi\n jmp 1b")
ASM(task_jump_code, "str %eax\n ljmp $0x28, $0\n jmp task_jump_code")

static void set_task_of(struct tss32 *to, u8 *stack, const u8 *code)
{
    memset(to, 0, sizeof *to);
    to->eip = address(code);
    to->eflags = 2;
    to->esp = address(stack) + sizeof task_stack;
    to->cs = CODE0;
    to->es = to->ss = to->ds = to->fs = to->gs = DATA0;
    to->io_map = sizeof *to;
    to->ebx = 0x1234;
}

static void set_task(const u8 *code)
{
    set_task_of(&task, task_stack, code);
    gdt32[TASK / 8] = descriptor(address(&task), sizeof task - 1, 0x89, 0);
    gdt32[TASK_GATE / 8] = gate32(TASK, 0, 0xe5, 0);
}

static u8 access_of(u32 selector)
{
    return (u8)(gdt32[selector / 8] >> 40);
}

static void check_tasks(void)
{
    set_task(task_code);
    struct frame32 frame = run_flat(0, call_task);
    check_trap32("CALL of a task and IRET", &frame, 3, 0);
    check_equal("TR in the task", task.eax, TASK);
    check_equal("NT in the task", task.edx & FLAG_NT, FLAG_NT);
    check_equal("CR0.TS is set", task.esi & 8, 8);
    check_equal("its link is the caller", task.link & 0xffff, TSS0);
    check_equal("its EBX stays", task.ebx, 0x1234);
    check_equal("NT of the caller is clear", frame.ebx & FLAG_NT, 0);
    check_equal("TR is the caller's again", frame.ecx, TSS0);
    check_equal("the task is not busy", access_of(TASK), 0x89);
    check_equal("the caller is busy", access_of(TSS0), 0x8b);
    check_equal("its EIP is after IRET", task.eip, address(task_code) + 9);
    __asm__ volatile("clts");
    frame = run_flat(0, call_task);
    check_trap32("a second CALL goes on after IRET", &frame, 3, 0);
    check_equal("once more", task.edi, 1);
    set_task(task_code);
    frame = run_flat(3, call_task_gate);
    check_trap32("CALL through a task gate from ring 3", &frame, 3, 0);
    check_equal("it ran", task.eax, TASK);
    frame = run_flat(3, call_task);
    check_trap32("CALL of a task of DPL 0 from ring 3", &frame, 13, TASK);
    set_task(task_jump_code);
    frame = run_flat(0, jump_task);
    check_trap32("JMP to a task and back", &frame, 3, 0);
    check_equal("no link", task.link, 0);
    set_task(task_code);
    idt32[0x90] = gate32(TASK, 0, 0xe5, 0);
    frame = run_flat(3, int_task);
    check_trap32("INT n through a task gate", &frame, 3, 0);
    check_equal("TR after it", frame.ecx, TSS0);
    __asm__ volatile("clts");
}

/* A fault after the switch is raised in the new task, which may have no stack: it goes to a task of its own. */
static struct tss32 fault_task;
static u8 fault_stack[4096] __attribute__((aligned(16)));
#define FAULT_TASK FREE_SLOT(8)
ASM(take_error, "pop %eax\n int3")

static void back_to_first_task(void)
{
    gdt32[TSS0 / 8] &= ~(2ull << 40);
    __asm__ volatile("ltr %w0" : : "r"(TSS0));
    __asm__ volatile("clts");
    set_task(task_code);
}

static void expect_before_switch(const char *name, u32 vector, u32 error)
{
    struct frame32 frame = run_flat(0, call_task);
    check_trap32(name, &frame, vector, (long)error);
    back_to_first_task();
}

static void expect_after_switch(const char *name, u32 vector, u32 error)
{
    const u64 saved = idt32[vector];
    set_task_of(&fault_task, fault_stack, take_error);
    gdt32[FAULT_TASK / 8] = descriptor(address(&fault_task), sizeof fault_task - 1, 0x89, 0);
    idt32[vector] = gate32(FAULT_TASK, 0, 0x85, 0);
    struct frame32 frame = run_flat(0, call_task);
    idt32[vector] = saved;
    check_trap32(name, &frame, 3, 0);
    check_equal("its error code", frame.eax, error);
    check_equal("it comes from the new task", fault_task.link & 0xffff, TASK);
    back_to_first_task();
}

static void check_task_faults(void)
{
    set_task(task_code);
    gdt32[TASK / 8] &= ~(1ull << 47);
    expect_before_switch("a task not present", 11, TASK);
    gdt32[TASK / 8] |= 2ull << 40;
    expect_before_switch("a busy task", 13, TASK);
    gdt32[TASK / 8] = descriptor(address(&task), 102, 0x89, 0);
    expect_before_switch("a TSS too small", 10, TASK);
    task.ss = CODE0;
    expect_after_switch("SS of the new task is code", 10, CODE0);
    task.cs = DATA0;
    expect_after_switch("CS of the new task is data", 10, DATA0);
    task.ldt = DATA0;
    expect_after_switch("LDT of the new task is data", 10, DATA0);
    gdt32[FREE / 8] = descriptor(0, 0xfffff, 0x13, 0xc);
    task.ds = FREE;
    expect_after_switch("DS of the new task is not present", 11, FREE);
    task.ss = FREE;
    if (under_tcg())
        skip("SS of the new task is not present", "TCG never comes back");
    else
        expect_after_switch("SS of the new task is not present", 12, FREE);
}

/* #DF by a task gate gets a good stack whatever the old one was. */
ASM(double_fault, "mov $0x10, %eax\n mov %ax, %ss\n mov $0xfffff000, %esp\n ud2")
ASM(df_code, "pop %eax\n int3")

static void check_double_fault(void)
{
    u64 ud = idt32[6], np = idt32[11], df = idt32[8];
    set_task(df_code);
    idt32[6] = 0;
    idt32[11] = 0;
    idt32[13] = 0;
    idt32[8] = gate32(TASK, 0, 0x85, 0);
    struct frame32 frame = run_flat(3, double_fault);
    idt32[6] = ud, idt32[8] = df, idt32[11] = np;
    idt32[13] = gate32(CODE0, address(trap_entries32) + 16 * 13, 0x8e, 0);
    check_trap32("#DF through a task gate", &frame, 3, 0);
    check_equal("its error code", frame.eax, 0);
    check_equal("the task's link", task.link & 0xffff, TSS0);
    back_to_first_task();
}

/* ---- virtual-8086 mode ---- */

CODE16(v86_plain, "mov $0x1234, %ax\n mov %ax, %ds:(0x10)\n mov %cs, %bx\n mov %ds, %cx\n int3")
CODE16(v86_hlt, "hlt")
CODE16(v86_cli, "cli\n int3")
CODE16(v86_pushf, "pushf\n pop %ax\n int3")
CODE16(v86_popf, "push $0x3202\n popf\n pushf\n pop %ax\n int3")
CODE16(v86_int, "int $0x80")
CODE16(v86_in, "in $0x80, %al\n int3")
CODE16(v86_limit, "mov $0xffff, %bx\n mov (%bx), %ax\n int3")
CODE16(v86_far, "ljmp $0x901, $8\n .fill 19, 1, 0x90\n int3")
CODE16(v86_cr0, "mov %cr0, %eax\n int3")

static struct frame32 run_v86(const struct code *code, u32 iopl)
{
    copy_low(code);
    struct frame32 frame = frame32_flat(3, NULL);
    frame.cs = LOW_CODE >> 4;
    frame.eip = 0;
    frame.ss = 0x700;
    frame.esp = 0xf00;
    frame.eflags = FLAG_FIXED | FLAG_VM | iopl << 12 | FLAG_IF;
    frame.v86_ds = 0x600;
    frame.v86_es = 0x601;
    run32(&frame);
    return frame;
}

static void check_v86(void)
{
    struct frame32 frame = run_v86(&v86_plain, 3);
    check_trap32("virtual-8086 code", &frame, 3, 0);
    check_equal("VM is pushed", frame.eflags & FLAG_VM, FLAG_VM);
    check_equal("DS is base 16 * selector", *(volatile u16 *)0x6010, 0x1234);
    check_equal("CS", frame.ebx & 0xffff, LOW_CODE >> 4);
    check_equal("DS", frame.ecx & 0xffff, 0x600);
    check_equal("DS is pushed", frame.v86_ds, 0x600);
    check_equal("ES is pushed", frame.v86_es, 0x601);
    check_equal("DS is null in the handler", frame.ds, 0);
    frame = run_v86(&v86_hlt, 3);
    check_trap32("HLT", &frame, 13, 0);
    frame = run_v86(&v86_cr0, 3);
    check_trap32("MOV from CR0", &frame, 13, 0);
    frame = run_v86(&v86_cli, 0);
    check_trap32("CLI, IOPL 0", &frame, 13, 0);
    frame = run_v86(&v86_cli, 3);
    check_trap32("CLI, IOPL 3", &frame, 3, 0);
    check_equal("IF", frame.eflags & FLAG_IF, 0);
    frame = run_v86(&v86_pushf, 0);
    check_trap32("PUSHF, IOPL 0", &frame, 13, 0);
    frame = run_v86(&v86_popf, 3);
    check_trap32("POPF, IOPL 3", &frame, 3, 0);
    check_equal("its flags", frame.eax & 0x7fff, 0x3202);
    frame = run_v86(&v86_int, 0);
    check_trap32("INT n, IOPL 0", &frame, 13, 0);
    frame = run_v86(&v86_int, 3);
    check_trap32("INT n, IOPL 3", &frame, 0x80, 0);
    frame = run_v86(&v86_in, 3);
    check_trap32("IN, by the bitmap alone", &frame, 13, 0);
    tss32.io_map = offsetof(struct tss32, bitmap);
    memset(tss32.bitmap, 0, sizeof tss32.bitmap);
    tss32.bitmap[32] = 0xff;
    frame = run_v86(&v86_in, 0);
    check_trap32("IN, allowed", &frame, 3, 0);
    tss32.io_map = sizeof tss32;
    frame = run_v86(&v86_limit, 3);
    if (under_tcg())
        skip("an access over 64 KiB", "TCG does not look at limits");
    else
        check_trap32("an access over 64 KiB", &frame, 13, 0);
    frame = run_v86(&v86_far, 3);
    check_trap32("far JMP", &frame, 3, 0);
    check_equal("CS after it", frame.cs, 0x901);
    idt32[0x80] = gate32(CODE0, address(trap_entries32) + 16 * 0x80, 0x8e, 0);
    frame = run_v86(&v86_int, 3);
    check_trap32("INT n, gate DPL 0", &frame, 13, 0x80 * 8 + 2);
    idt32[0x80] = gate32(CODE0, address(trap_entries32) + 16 * 0x80, 0xee, 0);
}

/* ---- real mode ---- */

CODE16(real_plain, "xor %bx, %bx\n mov %bx, %ds\n mov $0x2000, %bx\n mov %bx, %es\n mov %ax, %es:(0x123)\n smsw %bx\n"
                   " mov %bx, %ds:(0x6100)\n inc %eax\n lret")
CODE16(real_int, "int $0x60\n lret")
CODE16(real_handler, "mov %sp, %bp\n mov 4(%bp), %bx\n mov %bx, %ds:(0x6104)\n pushf\n pop %ds:(0x6106)\n add $5, %ax\n iret")
CODE16(real_fault, "xor %cx, %cx\n mov %cx, %ds\n sti\n div %cx\n add $0x100, %eax\n lret")
CODE16(real_skip, "add $0x10, %eax\n push %bp\n mov %sp, %bp\n addw $2, 2(%bp)\n pop %bp\n iret")
CODE16(real_limit, "xor %bx, %bx\n mov %bx, %ds\n mov $0x10000, %ebx\n addr32 mov (%ebx), %cl\n lret")
CODE16(real_limit_skip, "add $0x20, %eax\n push %bp\n mov %sp, %bp\n addw $3, 2(%bp)\n pop %bp\n iret")

static void real_vector(unsigned vector, const struct code *handler)
{
    memcpy((void *)0x9800, handler->start, (size_t)(handler->end - handler->start));
    ((volatile u32 *)0)[vector] = 0x0980u << 16;
}

static void check_real(void)
{
    u32 eax = 0x12345;
    copy_low(&real_plain);
    run_real(&eax);
    check_equal("real mode and back", eax, 0x12346);
    check_equal("a store by ES", *(volatile u16 *)0x20123, 0x2345);
    check_equal("CR0.PE", *(volatile u16 *)0x6100 & 1, 0);
    eax = 1;
    copy_low(&real_int);
    real_vector(0x60, &real_handler);
    run_real(&eax);
    check_equal("INT n through the vector table", eax, 6);
    eax = 0;
    copy_low(&real_fault);
    real_vector(0, &real_skip);
    run_real(&eax);
    check_equal("#DE through the vector table", eax, 0x110);
    eax = 0;
    copy_low(&real_limit);
    real_vector(13, &real_limit_skip);
    run_real(&eax);
    check_equal_not_tcg("#GP over 64 KiB", eax, 0x20, "TCG does not look at limits");
}

/* ---- 32-bit and PAE paging ---- */

static u32 directory[1024] __attribute__((aligned(4096))), table[1024] __attribute__((aligned(4096)));
static u64 pae_pointers[4] __attribute__((aligned(32))), pae_directory[512] __attribute__((aligned(4096)));
static u64 pae_table[512] __attribute__((aligned(4096)));
static u8 test_page[4096] __attribute__((aligned(4096)));
#define VA 0x40000000u

ASM(load_va, "mov 0x40000000, %eax\n int3")
ASM(store_va, "mov %eax, 0x40000000\n int3")
ASM(load_high, "mov 0x40400010, %eax\n int3")

static void paging_on(u32 cr3, u32 cr4)
{
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4));
    __asm__ volatile("mov %0, %%cr3" : : "r"(cr3) : "memory");
    __asm__ volatile("mov %%cr0, %%eax; or $0x80010000, %%eax; mov %%eax, %%cr0" : : : "eax", "memory");
}

static void paging_off(void)
{
    __asm__ volatile("mov %%cr0, %%eax; and $0x7ffeffff, %%eax; mov %%eax, %%cr0" : : : "eax", "memory");
}

static u32 cr2(void)
{
    u32 value;
    __asm__ volatile("mov %%cr2, %0" : "=r"(value));
    return value;
}

static void check_paging32(void)
{
    for (unsigned i = 0; i < 16; i++)
        directory[i] = i << 22 | 0x87; /* 4 MiB, user: the kernel itself */
    directory[VA >> 22] = address(table) | 7;
    directory[(VA >> 22) + 1] = 0x187; /* 4 MiB at 0, global */
    table[0] = address(test_page) | 7;
    *(u32 *)(void *)test_page = 0xabcd;
    paging_on(address(directory), 0x90);
    struct frame32 frame = run_flat(3, load_va);
    check_trap32("32-bit paging", &frame, 3, 0);
    check_equal("the value", frame.eax, 0xabcd);
    check_equal("accessed", table[0] & 0x60, 0x20);
    check_equal("accessed, in the directory", directory[VA >> 22] & 0x20, 0x20);
    frame = run_flat(3, store_va);
    check_equal("dirty", table[0] & 0x60, 0x60);
    table[0] &= ~2u;
    __asm__ volatile("invlpg (%0)" : : "r"(VA) : "memory");
    frame = run_flat(3, store_va);
    check_trap32("store to a read-only page", &frame, 14, 7);
    check_equal("CR2", cr2(), VA);
    frame = run_flat(0, store_va);
    check_trap32("the same in ring 0 with CR0.WP", &frame, 14, 3);
    table[0] = 0;
    __asm__ volatile("invlpg (%0)" : : "r"(VA) : "memory");
    frame = run_flat(3, load_va);
    check_trap32("a missing page", &frame, 14, 4);
    *(volatile u32 *)0x10 = 0x5678;
    frame = run_flat(3, load_high);
    check_equal("a 4-MiB page", frame.eax, 0x5678);
    directory[(VA >> 22) + 1] |= 1u << 21; /* reserved: beyond PSE-36's bits */
    __asm__ volatile("invlpg (%0)" : : "r"(VA + 0x400000) : "memory");
    frame = run_flat(3, load_high);
    check(frame.vector == 14 && (frame.error & 8), "bit 21 of a 4-MiB entry", "vector %lu error %lx",
          (unsigned long)frame.vector, (unsigned long)frame.error);
    paging_off();
}

ASM(set_cr3, "mov %eax, %cr3\n int3")

static void check_pae(void)
{
    for (unsigned i = 0; i < 16; i++)
        pae_directory[i] = (u64)i << 21 | 0x87;
    pae_pointers[0] = address(pae_directory) | 1;
    static u64 second[512] __attribute__((aligned(4096)));
    pae_pointers[1] = address(second) | 1;
    second[0] = address(pae_table) | 7;
    pae_table[0] = address(test_page) | 7;
    paging_on(address(pae_pointers), 0x20);
    struct frame32 frame = run_flat(3, load_va);
    check_trap32("PAE paging", &frame, 3, 0);
    check_equal("accessed", pae_table[0] & 0x60, 0x20);
    pae_pointers[2] = 0x1e7; /* reserved bits */
    frame = frame32_flat(0, set_cr3);
    frame.eax = address(pae_pointers);
    run32(&frame);
    if (under_tcg())
        skip("reserved bits of a pointer", "TCG does not look at them");
    else
        check_trap32("reserved bits of a pointer", &frame, 13, 0);
    paging_off();
}

void kernel_main(void)
{
    if (under_tcg())
        skip("segment limits and types", "TCG does not look at them");
    else
        check_segments();
    check_gates();
    check_tasks();
    check_task_faults();
    check_double_fault();
    check_v86();
    check_real();
    check_paging32();
    check_pae();
}
