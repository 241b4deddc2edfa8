/* apic.c - local APIC (xAPIC registers), I/O APIC, 8259s, and the start of other CPUs. */
#include "kernel.h"

#define APIC_ADDRESS 0xfee00000ull
#define IOAPIC_ADDRESS 0xfec00000ull
#define TRAMPOLINE 0x8000u

static volatile u32 *mmio(u64 address)
{
    return (volatile u32 *)address;
}

u32 apic_read(u32 reg)
{
    return *mmio(APIC_ADDRESS + reg);
}

void apic_write(u32 reg, u32 value)
{
    *mmio(APIC_ADDRESS + reg) = value;
}

void apic_enable(void)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0x800);
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_TPR, 0);
}

void apic_ipi(u32 apic_id, u32 command)
{
    apic_write(APIC_ICR_HIGH, apic_id << 24);
    apic_write(APIC_ICR, command);
    while (apic_read(APIC_ICR) & 0x1000)
        pause();
}

void apic_self(u8 vector)
{
    apic_ipi(0, 0x44000u | vector); /* shorthand: self */
}

void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

static void route(unsigned pin, u32 entry)
{
    volatile u32 *select = mmio(IOAPIC_ADDRESS), *window = mmio(IOAPIC_ADDRESS + 0x10);
    *select = 0x11 + 2 * pin;
    *window = 0;
    *select = 0x10 + 2 * pin;
    *window = entry;
}

void ioapic_route(unsigned pin, u8 vector)
{
    route(pin, vector ? vector : 0x10000u);
}

void ioapic_route_level(unsigned pin, u8 vector)
{
    route(pin, vector ? 0x8000u | vector : 0x10000u);
}

void pic_disable(void)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, 0x20);
    outb(0xa1, 0x28);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

void delay(u64 cycles)
{
    u64 start = rdtsc();
    while (rdtsc() - start < cycles)
        pause();
}

/* ---- other CPUs ---- */

extern u8 ap_trampoline[], ap_trampoline_end[];
u64 ap_stack;
static u8 ap_stacks[CPUS][16384] __attribute__((aligned(16)));
static void (*ap_entry)(unsigned index);
static unsigned ap_index;
static volatile u32 ap_running;
void ap_main(void);

void ap_main(void)
{
    unsigned index = ap_index;
    void (*entry)(unsigned) = ap_entry;
    cpu_load_tables(index);
    apic_enable();
    __atomic_store_n(&ap_running, index, __ATOMIC_SEQ_CST);
    entry(index);
}

bool cpu_start(u32 apic_id, void (*entry)(unsigned index))
{
    if (ap_index + 1 >= CPUS)
        return false;
    memcpy((void *)(u64)TRAMPOLINE, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    ap_index++;
    ap_entry = entry;
    ap_stack = (u64)ap_stacks[ap_index] + sizeof ap_stacks[ap_index];
    apic_ipi(apic_id, 0x4500);
    delay(10000000);
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        apic_ipi(apic_id, 0x4600 | TRAMPOLINE >> 12);
        for (unsigned i = 0; i < 100; i++) {
            delay(10000000);
            if (__atomic_load_n(&ap_running, __ATOMIC_SEQ_CST) == ap_index)
                return true;
        }
    }
    return false;
}
