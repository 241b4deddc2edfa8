/* random.c - rings, registers and messages at random. */
#include "abuse.h"

static u64 random_address(struct abuse *abuse)
{
    switch (random64() % 16) {
    case 0: return NOWHERE;
    case 1: return random64();
    case 2: return (u64)abuse->virtio->common;
    case 3: return RAM_END - random64() % 4096;
    case 4: return ~0ull - random64() % 65536;
    default: return scratch_at((u32)(random64() % (SCRATCH_BYTES - 64 * 1024)));
    }
}

/* Never past the scratch memory's end when it starts inside. */
static u32 random_length(void)
{
    switch (random64() % 16) {
    case 0: return 0;
    case 1: return 0xffffffffu;
    case 2: return 65536u;
    default: return (u32)(random64() % 4096);
    }
}

/* Lengths that would leave the scratch memory but stay in RAM are cut. */
static void random_piece(struct abuse *abuse, u64 *ret_address, u32 *ret_length)
{
    u64 address = random_address(abuse), end = scratch_at(SCRATCH_BYTES);
    u32 length = random_length();
    if (address < RAM_END && (address < scratch_at(0) || address >= end))
        address = scratch_at(0);
    if (address < end && address >= scratch_at(0) && length != 0xffffffffu && length > end - address)
        length = (u32)(end - address);
    *ret_address = address;
    *ret_length = length;
}

static u16 random_flags(void)
{
    u16 flags = (u16)(random64() % 8);
    return random64() % 32 == 0 ? (u16)random64() : flags;
}

static void random_chains(struct abuse *abuse)
{
    unsigned size = abuse->queue->size;
    for (unsigned i = 0; i < 16; i++) {
        u64 address;
        u32 length;
        random_piece(abuse, &address, &length);
        u16 flags = random_flags();
        if (flags & DESC_INDIRECT && random64() % 4) {
            address = table_at();
            length = 16 * (u32)(random64() % 12);
        }
        unsigned n = (unsigned)(random64() % size);
        chain_item(abuse, n, address, length, flags, (u16)(random64() % (size + 2)));
        random_piece(abuse, &address, &length);
        table_item(abuse, i, address, length, random_flags() & 7, (u16)(random64() % 14));
        if (random64() % 4 == 0)
            offer(abuse, (u16)n, 1 + (unsigned)(random64() % 4));
    }
    if (random64() % 8 == 0)
        abuse->queue->avail->index = (u16)random64();
}

/* What a device with messages understands, or nearly. */
static void random_message(struct abuse *abuse)
{
    if (abuse->virtio->type != VIRTIO_CONSOLE)
        return;
    u32 at = 4096 * (u32)(random64() % 8), length = console_random_message(at);
    offer_piece(abuse, scratch_at(at), length, abuse->index & 1 ? 0 : DESC_WRITE);
}

static void random_register(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    unsigned size = 1u << (random64() % 3);
    u32 at = (u32)(random64() % COMMON_QUEUE_DESC) & ~(size - 1);
    switch (random64() % 8) {
    case 0: common_write(virtio, COMMON_STATUS, 1, (u32)random64()); break;
    case 1: common_write(virtio, at, size, (u32)random64()); break;
    case 2: common_read(virtio, at, size); break;
    case 3: common_write64(virtio, COMMON_QUEUE_DESC + 8 * (u32)(random64() % 3), random64() % 2 ? NOWHERE : scratch_at(0)); break;
    case 4: pci_write(virtio->slot, PCI_COMMAND, 2, (u32)random64() & 0x406); break;
    case 5:
        if (virtio->config)
            reg_write(virtio->config + random64() % 64, size, (u32)random64());
        break;
    default: reg_write(virtio->notify + (random64() % 16) * virtio->notify_multiplier, 2, (u32)random64() & 3); break;
    }
}

/* A queue that works is set up again now and then, so that not all the time is spent on a broken one. */
void abuse_at_random(struct abuse *abuse, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        if (i % 8 == 0) {
            pci_write(abuse->virtio->slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
            abuse_set_up(abuse->virtio, abuse->features);
            abuse->next = 0;
            abuse->wrap = true;
        }
        if (random64() % 4 == 0)
            random_message(abuse);
        else
            random_chains(abuse);
        if (random64() % 2)
            random_register(abuse);
        if (random64() % 4 == 0)
            delay(random64() % 20000);
    }
    restore_function(abuse);
}
