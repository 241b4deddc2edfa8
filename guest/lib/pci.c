/* pci.c - configuration space of bus 0. */
#include "virtio.h"

#define STATUS_CAPABILITIES 0x10u

static u16 select(unsigned slot, unsigned offset)
{
    outl(0xcf8, 0x80000000u | slot << 11 | (offset & 0xfc));
    return (u16)(0xcfc + (offset & 3));
}

u32 pci_read(unsigned slot, unsigned offset, unsigned size)
{
    u16 port = select(slot, offset);
    return size == 1 ? inb(port) : size == 2 ? inw(port) : inl(port);
}

void pci_write(unsigned slot, unsigned offset, unsigned size, u32 value)
{
    u16 port = select(slot, offset);
    if (size == 1)
        outb(port, (u8)value);
    else if (size == 2)
        outw(port, (u16)value);
    else
        outl(port, value);
}

unsigned pci_capability(unsigned slot, unsigned id, unsigned from)
{
    if (!(pci_read(slot, 6, 2) & STATUS_CAPABILITIES))
        return 0;
    unsigned at = pci_read(slot, from ? from + 1 : 0x34, 1);
    for (unsigned limit = 48; at >= 0x40 && limit; limit--) {
        if (pci_read(slot, at, 1) == id)
            return at;
        at = pci_read(slot, at + 1, 1);
    }
    return 0;
}

u64 pci_bar(unsigned slot, unsigned n)
{
    u32 low = pci_read(slot, 0x10 + 4 * n, 4);
    if (low & 1)
        return 0;
    u64 high = (low & 6) == 4 ? (u64)pci_read(slot, 0x14 + 4 * n, 4) << 32 : 0;
    return (low & ~15u) | high;
}

volatile u8 *pci_map(unsigned slot, unsigned bar, u32 offset, u32 length)
{
    u64 start = pci_bar(slot, bar) + offset, base = pci_bar(slot, bar);
    if (!base)
        return NULL;
    /* The first 4 GiB are mapped already. */
    for (u64 page = start & ~4095ull; page < start + length; page += 4096)
        if (page >> 32)
            map(page, page, PTE_P | PTE_W | PTE_U | PTE_PCD);
    return (volatile u8 *)start;
}
