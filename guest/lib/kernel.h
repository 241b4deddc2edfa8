/* kernel.h - what every 64-bit test kernel stands on: printing, traps, paging, the APIC, other CPUs.
 *
 * A kernel is one .c file with `void kernel_main(void)`. It runs in long mode with the first 4 GiB mapped
 * one to one (supervisor only), interrupts off, SSE on. Each check prints a line; `finish` ends the VM
 * with status 0 only when all passed. */
#ifndef GUEST_KERNEL_H
#define GUEST_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

void kernel_main(void);

/* ---- report.c: serial output, checks, the end ---- */

/* %s, %c, %d (int), %u (unsigned), %x (unsigned), %lx (u64), %lu (u64), %%. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One check: "ok NAME" or "FAIL NAME: text". */
void check(bool passed, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
void check_equal(const char *name, u64 got, u64 want);
/* check_equal, but skipped under TCG, for the reason given. */
void check_equal_not_tcg(const char *name, u64 got, u64 want, const char *why);
/* A check that this machine cannot make: prints "skip NAME: why"; it counts neither way. */
void skip(const char *name, const char *why);
/* Ends the VM with status 0, or 1 when a check failed. */
_Noreturn void finish(void);
/* Ends the VM at once with a status. */
_Noreturn void debug_exit(u32 status);
_Noreturn void panic(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* True under QEMU's TCG, which differs from hardware in the checks that ask. */
bool under_tcg(void);

void *memset(void *to, int value, size_t length);
void *memcpy(void *to, const void *from, size_t length);
int memcmp(const void *a, const void *b, size_t length);

/* ---- options.c ---- */

void options_init(void);
/* At most 255 bytes; "" when there is none. */
const char *command_line(void);
/* The number after the word "name=" there, 1 for a bare "name", or `unless`. */
u64 option(const char *name, u64 unless);
/* Pseudo-random, the same in each run; random_state is the seed and never 0. */
u64 random64(void);
extern u64 random_state;

/* ---- processor ---- */

#define SEL_CODE64 0x08
#define SEL_DATA 0x10
#define SEL_CODE32 0x18  /* ring 0, compatibility */
#define SEL_UCODE32 0x23 /* ring 3; SYSRET's order: 32-bit code, data, 64-bit code */
#define SEL_UDATA 0x2b
#define SEL_UCODE64 0x33
#define SEL_SPARE 0x40 /* 8 slots for a test's own descriptors */
#define SEL_TSS 0x80   /* one for each CPU, 16 bytes apart */

#define FLAG_CF 0x1u
#define FLAG_ZF 0x40u
#define FLAG_TF 0x100u
#define FLAG_IF 0x200u
#define FLAG_DF 0x400u
#define FLAG_IOPL 0x3000u
#define FLAG_NT 0x4000u
#define FLAG_RF 0x10000u
#define FLAG_AC 0x40000u
#define FLAG_ID 0x200000u
#define FLAG_FIXED 0x2u

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outw(u16 port, u16 value) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outl(u16 port, u32 value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline u16 inw(u16 port)
{
    u16 value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline u32 inl(u16 port)
{
    u32 value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline u64 rdmsr(u32 msr)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (u64)high << 32 | low;
}
static inline void wrmsr(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}
static inline u64 rdtsc(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (u64)high << 32 | low;
}
static inline void cpuid(u32 leaf, u32 index, u32 ret[4])
{
    __asm__ volatile("cpuid" : "=a"(ret[0]), "=b"(ret[1]), "=c"(ret[2]), "=d"(ret[3]) : "a"(leaf), "c"(index));
}
#define READ_REGISTER(name)                                                                                  \
    static inline u64 read_##name(void)                                                                      \
    {                                                                                                        \
        u64 value;                                                                                           \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(value) : : "memory");                                  \
        return value;                                                                                        \
    }                                                                                                        \
    static inline void write_##name(u64 value) { __asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory"); }
READ_REGISTER(cr0)
READ_REGISTER(cr2)
READ_REGISTER(cr3)
READ_REGISTER(cr4)
READ_REGISTER(cr8)
READ_REGISTER(dr0)
READ_REGISTER(dr1)
READ_REGISTER(dr2)
READ_REGISTER(dr3)
READ_REGISTER(dr6)
READ_REGISTER(dr7)
static inline void cli(void) { __asm__ volatile("cli" : : : "memory"); }
static inline void sti(void) { __asm__ volatile("sti" : : : "memory"); }
static inline void sti_hlt_cli(void) { __asm__ volatile("sti; hlt; cli" : : : "memory"); }
static inline void pause(void) { __asm__ volatile("pause" : : : "memory"); }
static inline void invlpg(u64 address) { __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory"); }

#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_SYSENTER_CS 0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u

/* Bits of CPUID leaf 1 (ECX), 7 (EBX, ECX). */
bool cpu_has(u32 leaf, unsigned output, unsigned bit); /* output: 0 EAX, 1 EBX, 2 ECX, 3 EDX */

/* ---- trap.c: exceptions and interrupts ---- */

struct frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    u64 vector, error; /* error is 0 where the vector has none */
    u64 rip, cs, rflags, rsp, ss;
};

/* What ended a `run`. */
struct trap {
    struct frame frame;
    u64 cr2;
    u64 entry_rsp; /* RSP that the processor had pushed its frame to */
};

/* Called on a vector instead of ending the VM; returning resumes what was interrupted. NULL removes it. */
void trap_set_handler(unsigned vector, void (*handler)(struct frame *frame));

/* Starts executing at frame->rip with all its registers, by IRETQ, until a vector without a handler is
 * taken; that ends it. What was found goes to *ret_trap. */
void run(const struct frame *frame, struct trap *ret_trap);

/* Code for `run`, in assembly: CODE(name, "instructions") defines it, 64-bit; CODE32 and CODE16 otherwise. */
struct code {
    const u8 *start, *end;
};
#define CODE_OF(name, mode, text)                                                                            \
    __asm__(".pushsection .text.code, \"ax\"\n" mode "\n" #name "_start:\n" text "\n" #name "_end:\n.code64\n" \
            ".popsection");                                                                                  \
    extern const u8 name##_start[], name##_end[];                                                            \
    static const struct code name = { name##_start, name##_end };
#define CODE(name, text) CODE_OF(name, ".code64", text)
#define CODE32(name, text) CODE_OF(name, ".code32", text)
#define CODE16(name, text) CODE_OF(name, ".code16", text)

/* Pages that run_code uses: a code page and a stack for each ring, mapped at these addresses. */
#define KCODE 0x100000000000ull  /* supervisor, writable, executable */
#define UCODE 0x200000000000ull  /* user, writable, executable */
#define KSTACK 0x100000010000ull /* top of the stack; the page below is mapped */
#define USTACK 0x200000010000ull
#define UDATA 0x200000020000ull /* four user pages, writable, zeroed by nobody */
#define KCODE32 0x71000000ull   /* KCODE's page again, below 4 GiB */
#define UCODE32 0x70000000ull   /* UCODE's page again, and a stack, for 32-bit code */
#define USTACK32 0x70010000ull
#define UDATA32 0x70020000ull /* UDATA again */

/* A frame that starts `code`, copied to the code page of the ring, with RFLAGS 2 and a stack.
 * ring: 0 or 3 in 64-bit code, or 32 for ring 3 in compatibility mode. */
struct frame code_frame(const struct code *code, unsigned ring);
/* code_frame and run. */
struct trap run_code(const struct code *code, unsigned ring);
/* Checks the vector and error code that ended a run; error -1: do not look. */
void check_trap(const char *name, const struct trap *trap, unsigned vector, long error);
/* check_trap, but skipped under TCG, for the reason given. */
void check_trap_not_tcg(const char *name, const struct trap *trap, unsigned vector, long error, const char *why);

struct gate {
    u16 offset0, selector;
    u8 ist, attributes;
    u16 offset1;
    u32 offset2, zero;
} __attribute__((packed));
extern struct gate idt[256];
extern u64 gdt[];
struct tss64 {
    u32 reserved0;
    u64 rsp[3], reserved1, ist[7], reserved2;
    u16 reserved3, io_map;
    u8 bitmap[8193];
} __attribute__((packed));
#define CPUS 8
extern struct tss64 tss[CPUS];
/* Index of this CPU: the order of start, 0 is the one that booted. */
unsigned cpu_index(void);
void cpu_load_tables(unsigned index);
void trap_init(void);
/* The stack table slots of the exceptions: #DF and NMI have one of their own. */
#define IST_TRAP 1
#define IST_DF 2
#define IST_NMI 3

/* ---- user.c ---- */

/* Runs `work` in ring 3 to its end, with the first 4 GiB of memory and every port open to it, interrupts off (STI works). Once. */
void in_ring3(void (*work)(void));
/* Calls the function in ring 0, from either ring. */
void privileged(void (*function)(void *context), void *context);

/* ---- page.c ---- */

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_PWT 8ull
#define PTE_PCD 0x10ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull

void *page_new(void); /* a zeroed page */
void *pages_new(unsigned count);
/* Maps a page of 4 KiB with PTE flags; tables on the way allow everything. Flushes that address. */
void map(u64 va, u64 pa, u64 flags);
/* The same with one entry of 2 MiB (level 2) or 1 GiB (level 3). */
void map_large(u64 va, u64 pa, u64 flags, unsigned level);
/* The entry that maps va at a level: 1 PTE, 2 PDE, 3 PDPTE, 4 PML4E; NULL when a table is missing. */
u64 *entry_of(u64 va, unsigned level);
void page_init(void);

/* ---- apic.c, smp.c ---- */

u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 value);
#define APIC_ID 0x20
#define APIC_TPR 0x80
#define APIC_EOI 0xb0
#define APIC_SVR 0xf0
#define APIC_ISR 0x100
#define APIC_IRR 0x200
#define APIC_ICR 0x300
#define APIC_ICR_HIGH 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_TIMER_INITIAL 0x380
#define APIC_TIMER_CURRENT 0x390
#define APIC_TIMER_DIVIDE 0x3e0
void apic_enable(void);
/* Sends an ICR word (vector, mode, shorthand) to an APIC ID. */
void apic_ipi(u32 apic_id, u32 command);
void apic_self(u8 vector);
void apic_eoi(void);
/* IOAPIC: routes a pin to a vector on APIC ID 0, edge or level, active high; masked when vector is 0. */
void ioapic_route(unsigned pin, u8 vector);
void ioapic_route_level(unsigned pin, u8 vector);
/* Masks all lines of both 8259s, with vectors moved to 0x20 and 0x28. */
void pic_disable(void);
/* Busy wait by the TSC: iterations of a calibrated nothing would drift; this takes cycles. */
void delay(u64 cycles);

/* Starts the CPU with this APIC ID at entry(index); it gets the next index. False when it does not answer.
 * entry may return: the CPU then halts for good. */
bool cpu_start(u32 apic_id, void (*entry)(unsigned index));

#endif
