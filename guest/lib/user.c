/* user.c - a test's work in ring 3.
 *
 * A KVM in software (docs/kvm.md) emulates ring 0 one instruction at a time and runs ring 3 natively: what has much to do there
 * does it in ring 3. I/O privilege level 3 lets it reach every port and close interrupts out; such a KVM does not know of that
 * level and raises #GP, upon which the instruction is carried out here. The little else that only ring 0 may do is asked for by
 * HLT, which raises #GP everywhere (such a KVM refuses INT n). */
#include "kernel.h"

#define VECTOR_UD 6 /* has no handler, so it ends the run */
#define VECTOR_GP 13
#define STACK_PAGES 8u

static unsigned ring(void)
{
    u16 selector;
    __asm__ volatile("mov %%cs, %0" : "=r"(selector));
    return selector & 3;
}

void privileged(void (*function)(void *context), void *context)
{
    if (ring() == 0)
        function(context);
    else
        __asm__ volatile("hlt" : : "D"(function), "S"(context) : "memory");
}

static void port(struct frame *frame, u8 opcode, u16 number, bool word)
{
    u32 value = (u32)frame->rax;
    switch (opcode & 3) {
    case 0: frame->rax = (frame->rax & ~0xffull) | inb(number); break;
    case 1: frame->rax = word ? (frame->rax & ~0xffffull) | inw(number) : inl(number); break;
    case 2: outb(number, (u8)value); break;
    default: word ? outw(number, (u16)value) : outl(number, value); break;
    }
}

static void serve(const struct frame *frame)
{
    void (*function)(void *) = (void (*)(void *))frame->rdi;
    function((void *)frame->rsi);
}

/* IN, OUT, CLI and STI, which the kernel's C code is compiled to; no other prefix than the operand's size. */
static void stand_in(struct frame *frame)
{
    const u8 *code = (const u8 *)frame->rip;
    bool word = *code == 0x66;
    u8 opcode = code[word];
    unsigned length = 1u + word;
    if ((frame->cs & 3) != 3 || frame->error != 0)
        panic("#GP error %lx at %lx", (unsigned long)frame->error, (unsigned long)frame->rip);
    if (opcode >= 0xe4 && opcode <= 0xe7)
        port(frame, opcode, code[length++], word);
    else if (opcode >= 0xec && opcode <= 0xef)
        port(frame, opcode, (u16)frame->rdx, word);
    else if (opcode == 0xf4)
        serve(frame);
    else if (opcode == 0xfa)
        frame->rflags &= ~(u64)FLAG_IF;
    else if (opcode == 0xfb)
        frame->rflags |= FLAG_IF;
    else
        panic("ring 3: #GP at %lx, opcode %x", (unsigned long)frame->rip, opcode);
    frame->rip += length;
}

/* Everything below 4 GiB, which boot.S mapped for the supervisor. */
static void open_memory(void)
{
    for (u64 va = 0; va < 1ull << 32; va += 1ull << 21) {
        *entry_of(va, 4) |= PTE_U;
        *entry_of(va, 3) |= PTE_U;
        u64 *entry = entry_of(va, 2);
        *entry |= PTE_U;
        for (u64 page = va; !(*entry & PTE_PS) && page < va + (1ull << 21); page += 4096)
            *entry_of(page, 1) |= PTE_U;
    }
    write_cr3(read_cr3());
}

void in_ring3(void (*work)(void))
{
    static struct trap trap;
    struct frame frame;
    u64 *stack = pages_new(STACK_PAGES);
    open_memory();
    trap_set_handler(VECTOR_GP, stand_in);
    /* Where `work` returns to: a page that begins with UD2. */
    u8 *end = page_new();
    end[0] = 0x0f;
    end[1] = 0x0b;
    memset(&frame, 0, sizeof frame);
    stack += STACK_PAGES * 4096 / sizeof *stack - 1;
    *stack = (u64)end;
    frame.rip = (u64)work;
    frame.rsp = (u64)stack;
    frame.cs = SEL_UCODE64;
    frame.ss = SEL_UDATA;
    frame.rflags = FLAG_FIXED | FLAG_IOPL;
    run(&frame, &trap);
    if (trap.frame.vector != VECTOR_UD || trap.frame.rip != (u64)end)
        panic("ring 3 ended with vector %lu error %lx at %lx, cr2 %lx", (unsigned long)trap.frame.vector,
              (unsigned long)trap.frame.error, (unsigned long)trap.frame.rip, (unsigned long)trap.cr2);
}
