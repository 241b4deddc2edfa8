/* abuse.c - see abuse.h. */
#include "abuse.h"

#define SCRATCH_BYTES (256u * 1024)
#define CANARY_BYTES (64u * 1024) /* before and after the scratch memory */
#define CANARY 0x5ac35ac35ac35ac3ull
#define TABLE_OFFSET (SCRATCH_BYTES - 32u * 1024)
#define PATIENCE 2000000ull /* cycles that a device gets to do its worst */

static u8 *memory; /* canaries, scratch, canaries */
static struct packed_desc pending[QUEUE_SIZE_MAX]; /* chain items of a packed ring */

static void fill_canaries(u8 *from)
{
    for (unsigned i = 0; i < CANARY_BYTES / 8; i++)
        ((u64 *)from)[i] = CANARY + i;
}

static bool canaries_stand(const u8 *from)
{
    for (unsigned i = 0; i < CANARY_BYTES / 8; i++)
        if (((const u64 *)from)[i] != CANARY + i)
            return false;
    return true;
}

void abuse_prepare(void)
{
    memory = pages_new((2 * CANARY_BYTES + SCRATCH_BYTES) / 4096);
    fill_canaries(memory);
    fill_canaries(memory + CANARY_BYTES + SCRATCH_BYTES);
}

u64 scratch_at(u32 offset)
{
    return (u64)memory + CANARY_BYTES + offset;
}

u64 table_at(void)
{
    return scratch_at(TABLE_OFFSET);
}

u64 canary_address(void)
{
    return (u64)memory;
}

static bool packed(const struct abuse *abuse)
{
    return abuse->virtio->features & F_PACKED;
}

/* ---- chains ---- */

void chain_item(struct abuse *abuse, unsigned n, u64 address, u32 length, u16 flags, u16 next)
{
    if (packed(abuse)) {
        pending[n % QUEUE_SIZE_MAX] = (struct packed_desc){ address, length, (u16)n, flags };
        return;
    }
    volatile struct desc *desc = &abuse->queue->desc[n % abuse->queue->size];
    desc->address = address;
    desc->length = length;
    desc->flags = flags;
    desc->next = next;
}

void table_item(struct abuse *abuse, unsigned n, u64 address, u32 length, u16 flags, u16 next)
{
    volatile struct desc *desc = (volatile struct desc *)table_at() + n;
    desc->address = address;
    desc->length = length;
    /* The last two fields of a packed table's entry are ID and flags. */
    desc->flags = packed(abuse) ? next : flags;
    desc->next = packed(abuse) ? flags : next;
}

static void offer_packed(struct abuse *abuse, u16 head, unsigned count)
{
    struct queue *queue = abuse->queue;
    for (unsigned i = 0; i < count; i++) {
        const struct packed_desc *from = &pending[(head + i) % QUEUE_SIZE_MAX];
        volatile struct packed_desc *desc = &queue->ring[abuse->next];
        desc->address = from->address;
        desc->length = from->length;
        desc->id = from->id;
        desc->flags = (u16)((from->flags & ~(DESC_AVAIL | DESC_USED)) | (abuse->wrap ? DESC_AVAIL : DESC_USED));
        if (++abuse->next == queue->size) {
            abuse->next = 0;
            abuse->wrap = !abuse->wrap;
        }
    }
}

void offer(struct abuse *abuse, u16 head, unsigned count)
{
    struct queue *queue = abuse->queue;
    if (packed(abuse)) {
        offer_packed(abuse, head, count);
    } else {
        queue->avail->ring[queue->avail->index % queue->size] = head;
        __asm__ volatile("" : : : "memory");
        queue->avail->index++;
    }
    queue_notify(queue);
}

/* ---- a case's beginning and end ---- */

void restore_function(struct abuse *abuse)
{
    unsigned slot = abuse->virtio->slot;
    pci_write(slot, PCI_COMMAND, 2, 0);
    for (unsigned n = 0; n < 6; n++)
        pci_write(slot, 0x10 + 4 * n, 4, abuse->bar[n]);
    if (abuse->virtio->msix)
        pci_write(slot, abuse->virtio->msix + 2, 2, 0);
    pci_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static unsigned set_up(struct virtio *virtio, u64 features)
{
    unsigned count = 0;
    if (!virtio_negotiate(virtio, features | (virtio->type == VIRTIO_BLK ? F_BLK_ALL : 0)))
        return 0;
    while (count < ABUSED_QUEUES && virtio_queue(virtio, count, 64))
        count++;
    virtio_go(virtio);
    return count;
}

bool abuse_begin(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    for (unsigned n = 0; n < 6; n++)
        abuse->bar[n] = pci_read(virtio->slot, 0x10 + 4 * n, 4);
    if (set_up(virtio, abuse->features) <= abuse->index) {
        check(false, "set-up", "type %u queue %u does not come up, status %x", virtio->type, abuse->index, virtio_status(virtio));
        return false;
    }
    abuse->queue = &virtio->queue[abuse->index];
    abuse->eager = virtio->type == VIRTIO_RNG || virtio->type == VIRTIO_BLK;
    abuse->next = 0;
    abuse->wrap = true;
    memset((void *)scratch_at(0), 0, SCRATCH_BYTES);
    memset(pending, 0, sizeof pending);
    return true;
}

/* The device does what it is for, or at least starts without complaint. */
static bool works(struct abuse *abuse, const char *name)
{
    struct virtio *virtio = abuse->virtio;
    unsigned queues = set_up(virtio, abuse->features);
    if (virtio->type == VIRTIO_RNG)
        return queues && rng_exercise(virtio, 2, false, name);
    if (virtio->type == VIRTIO_BLK)
        return queues && blk_exercise(virtio, queues, 12, true, name);
    return queues > 0 && !(virtio_status(virtio) & STATUS_NEEDS_RESET);
}

void abuse_end(struct abuse *abuse, const char *name, bool must_break)
{
    struct virtio *virtio = abuse->virtio;
    u64 start = rdtsc();
    u32 status = 0;
    while (rdtsc() - start < (must_break ? 10000 * PATIENCE : PATIENCE) && !(status & STATUS_NEEDS_RESET)) {
        pause();
        status = virtio_status(virtio);
    }
    bool broke = status & STATUS_NEEDS_RESET;
    bool ended = virtio_reset(virtio);
    bool clean = canaries_stand(memory) && canaries_stand(memory + CANARY_BYTES + SCRATCH_BYTES);
    blk_forget(); /* random bytes may have been good requests */
    bool again = ended && works(abuse, name);
    if (!again && virtio_reset(virtio))
        blk_abandon();
    check((broke || !must_break) && ended && clean && again, name, "type %u queue %u features %lx: %s%s%s%s", virtio->type,
          abuse->index, (unsigned long)abuse->features, broke || !must_break ? "" : "is not noticed; ",
          ended ? "" : "no reset ends it; ", clean ? "" : "memory was written; ", again ? "" : "does not work again");
}

/* ---- at random ---- */

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
            set_up(abuse->virtio, abuse->features);
            abuse->next = 0;
            abuse->wrap = true;
        }
        random_chains(abuse);
        if (random64() % 2)
            random_register(abuse);
        if (random64() % 4 == 0)
            delay(random64() % 20000);
    }
    restore_function(abuse);
}
