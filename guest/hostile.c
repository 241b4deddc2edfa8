/* hostile.c - pseudo-random reads and writes of every size to every port and to the ranges where devices may be,
 * over and over. What ends the machine on purpose is left out (debug exit, ACPI control, resets, pvpanic), and so
 * is what stops this CPU (INIT and SMI through the APICs). The machine must still answer afterwards. */
#include "kernel.h"

#define PORT_WRITES 40000u
#define MMIO_WRITES 60000u

static u64 seed = 0x9e3779b97f4a7c15ull;

static u32 next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (u32)(seed >> 16);
}

static bool port_left_out(u32 port)
{
    /* An access of 4 bytes may start 3 below. */
    return (port >= 0xf1 && port <= 0xf4) || (port >= 0x600 - 3 && port < 0x610) || (port >= 0xcf9 - 3 && port <= 0xcf9) ||
           (port >= 0x61 && port <= 0x64) || (port >= 0x8f && port <= 0x92) || (port >= 0x502 && port <= 0x505);
}

/* Half of the accesses go to the ports where a PC has something. */
static u16 pick_port(void)
{
    static const u16 base[] = { 0x20, 0x40, 0x60, 0x70, 0xa0, 0x3f8, 0x4d0, 0xcf8, 0xcfc, 0x2f8, 0x1f0, 0x3c0, 0x80 };
    u32 random = next();
    u32 port = random & 1 ? base[(random >> 1) % (sizeof base / sizeof base[0])] + (random >> 8) % 8 : random >> 8 & 0xffff;
    return (u16)port;
}

static void port_access(void)
{
    u16 port = pick_port();
    u32 value = next(), kind = next() % 6;
    if (port_left_out(port))
        return;
    switch (kind) {
    case 0: inb(port); break;
    case 1: { u16 word; __asm__ volatile("inw %1, %0" : "=a"(word) : "d"(port)); break; }
    case 2: inl(port); break;
    case 3: outb(port, (u8)value); break;
    case 4: outw(port, (u16)value); break;
    default: outl(port, value); break;
    }
}

static const struct {
    u64 base;
    u32 size;
} ranges[] = {
    { 0xfee00000, 0x1000 }, { 0xfec00000, 0x1000 }, { 0xe0000000, 0x100000 }, { 0xfed00000, 0x1000 },
    { 0xc0000000, 0x10000 }, { 0xd0000000, 0x10000 }, { 0xb0000000, 0x1000 }, { 0xa0000, 0x20000 }, { 0xffff0000, 0xfff8 },
};

/* No delivery mode but fixed; no IPI. */
static bool mmio_left_out(u64 address, bool write)
{
    u64 offset = address & 0xfff;
    bool lapic = address >> 12 == 0xfee00, ioapic = address >> 12 == 0xfec00;
    return write && ((lapic && (offset >= 0x2e0 && offset < 0x380)) || ioapic);
}

static void mmio_access(void)
{
    unsigned range = next() % (sizeof ranges / sizeof ranges[0]);
    u64 address = ranges[range].base + next() % ranges[range].size;
    u32 kind = next() % 8;
    u64 value = (u64)next() << 32 | next();
    if (mmio_left_out(address, kind & 1) || mmio_left_out(address + 7, kind & 1))
        return;
    switch (kind) {
    case 0: (void)*(volatile u8 *)address; break;
    case 1: *(volatile u8 *)address = (u8)value; break;
    case 2: (void)*(volatile u16 *)address; break;
    case 3: *(volatile u16 *)address = (u16)value; break;
    case 4: (void)*(volatile u32 *)address; break;
    case 5: *(volatile u32 *)address = (u32)value; break;
    case 6: (void)*(volatile u64 *)address; break;
    default: *(volatile u64 *)address = value; break;
    }
}

/* Aligned words to the I/O APIC's registers, with fixed delivery. */
static void ioapic_access(void)
{
    volatile u32 *select = (volatile u32 *)0xfec00000ull, *window = (volatile u32 *)0xfec00010ull;
    *select = next() & 0x3f;
    u32 value = *window;
    if (next() & 1)
        *window = (value ^ next()) & ~0x700u;
}

/* The lines that an interrupt could come by are closed again before anyone listens. */
static void quiet(void)
{
    outb(0x3f8 + 1, 0);
    outb(0x3f8 + 3, 3);
    outb(0x3f8 + 4, 0);
}

void kernel_main(void)
{
    print("writing to ports\n");
    for (u32 i = 0; i < PORT_WRITES; i++)
        port_access();
    quiet();
    print("writing to memory-mapped registers\n");
    for (u32 i = 0; i < MMIO_WRITES; i++) {
        mmio_access();
        if (i % 8 == 0)
            ioapic_access();
    }
    quiet();
    check(true, "still alive", "%u", 0);
}
