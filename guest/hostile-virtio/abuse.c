/* abuse.c - see abuse.h. */
#include "abuse.h"

#include "other.h"

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

void offer_piece(struct abuse *abuse, u64 address, u32 length, u16 flags)
{
    chain_item(abuse, 0, address, length, flags, 0);
    offer(abuse, 0, 1);
}

void offer_all_the_same(struct abuse *abuse)
{
    unsigned size = abuse->queue->size;
    for (unsigned i = 0; i < size; i++) {
        chain_item(abuse, i, scratch_at(0), 64, DESC_WRITE, 0);
        offer(abuse, (u16)i, 1);
    }
}

void set_areas(struct abuse *abuse, u64 descriptors, u64 driver, u64 device, unsigned size)
{
    struct virtio *virtio = abuse->virtio;
    u64 features = virtio->features;
    virtio_negotiate(virtio, features);
    common_write(virtio, COMMON_QUEUE_SELECT, 2, abuse->queue->index);
    common_write(virtio, COMMON_QUEUE_SIZE, 2, size);
    common_write64(virtio, COMMON_QUEUE_DESC, descriptors);
    common_write64(virtio, COMMON_QUEUE_DRIVER, driver);
    common_write64(virtio, COMMON_QUEUE_DEVICE, device);
    common_write(virtio, COMMON_QUEUE_ENABLE, 2, 1);
    virtio_go(virtio);
    for (unsigned i = 0; i < 4; i++)
        queue_notify(abuse->queue);
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

unsigned abuse_set_up(struct virtio *virtio, u64 features)
{
    unsigned count = 0;
    u64 own = virtio->type == VIRTIO_BLK ? F_BLK_ALL : virtio->type == VIRTIO_CONSOLE ? F_CONSOLE_ALL : 0;
    if (!virtio_negotiate(virtio, features | own))
        return 0;
    while (count < QUEUES_MAX && virtio_queue(virtio, count, 64))
        count++;
    virtio_go(virtio);
    return count;
}

/* The same, done by the second CPU. */
struct set_up {
    struct virtio *virtio;
    u64 features;
    unsigned count;
};

static void set_up_there(void *context)
{
    struct set_up *set_up = context;
    set_up->count = abuse_set_up(set_up->virtio, set_up->features);
}

static unsigned set_up_by_another(struct virtio *virtio, u64 features)
{
    struct set_up set_up = { virtio, features, 0 };
    abuse_set_up(virtio, features); /* which takes pages */
    other_do(set_up_there, &set_up);
    other_wait();
    return set_up.count;
}

/* The device looks at what this queue offers at once, whatever else it is told. */
static bool reads_at_once(const struct virtio *virtio, unsigned index)
{
    switch (virtio->type) {
    case VIRTIO_RNG: case VIRTIO_BLK: case VIRTIO_FS: return true;
    case VIRTIO_CONSOLE: return index & 1 && virtio->features & F_CONSOLE_MULTIPORT;
    default: return false;
    }
}

bool abuse_begin(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    for (unsigned n = 0; n < 6; n++)
        abuse->bar[n] = pci_read(virtio->slot, 0x10 + 4 * n, 4);
    bool another = other_there() && abuse->cases++ & 1;
    if ((another ? set_up_by_another : abuse_set_up)(virtio, abuse->features) <= abuse->index) {
        check(false, "set-up", "type %u queue %u does not come up, status %x", virtio->type, abuse->index, virtio_status(virtio));
        return false;
    }
    abuse->queue = &virtio->queue[abuse->index];
    abuse->eager = reads_at_once(virtio, abuse->index);
    abuse->next = 0;
    abuse->wrap = true;
    memset((void *)scratch_at(0), 0, SCRATCH_BYTES);
    memset(pending, 0, sizeof pending);
    if (another)
        disturb_begin(virtio, false);
    return true;
}

/* The device does what it is for, or at least starts without complaint. */
static bool works(struct abuse *abuse, const char *name)
{
    struct virtio *virtio = abuse->virtio;
    unsigned queues = abuse_set_up(virtio, abuse->features);
    if (virtio->type == VIRTIO_RNG)
        return queues && rng_exercise(virtio, 2, false, name);
    if (virtio->type == VIRTIO_BLK)
        return queues && blk_exercise(virtio, queues, 12, true, name);
    if (virtio->type == VIRTIO_CONSOLE && virtio->features & F_CONSOLE_MULTIPORT)
        return queues > CONTROL_OUT && console_exercise(virtio);
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
    disturb_end();
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
