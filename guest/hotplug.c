/* hotplug.c - takes PCI functions in and lets them go as tests/integration/hotplug_test.c asks, by the board's own registers
 * (docs/machine.md, "Hot-plug") rather than by ACPI's methods, so that hot-plug can be tested where no Linux runs.
 *
 * It prints what hotplug-init.c prints: READY; HERE and AWAY for the test's cards; DISK, SIZE and NODISK; SHARE. Disks are
 * written to and verified until they are asked back, and go with requests under way: every other time after a reset, and every
 * other time with none, as a device that is pulled. It runs until the machine is stopped, or something is wrong. */
#include "blk.h"
#include "fs.h"

#define SCI_PIN 9
#define SCI_VECTOR 0x50
#define GPE0_STATUS 0x60c
#define GPE0_ENABLE 0x60e
#define GPE_HOTPLUG 2u /* the bit of event 1 */
#define ARRIVED 0x610
#define WANTED 0x614
#define PRESENT 0x618
#define OUTCOME 0x61c
#define NOTIFY_EJECT 3u

#define CARD_ID 0x00fe1b36u
#define ALL_AT_ONCE 64u /* operations between two looks at what else there is */

enum kind { NOTHING, CARD, DISK, SHARE };

static struct slot {
    enum kind kind;
    volatile u32 *card;
    u32 number; /* the card's */
} slots[PCI_SLOTS];
static struct virtio disk, share; /* at most one of each */
static unsigned disk_queues, disk_round;
static u64 disk_sectors;
static volatile u32 events;

static void on_sci(struct frame *frame)
{
    (void)frame;
    outw(GPE0_STATUS, GPE_HOTPLUG);
    events++;
    apic_eoi();
}

static void must(bool good, const char *what, unsigned slot)
{
    if (good)
        return;
    check(false, what, "slot %u", slot);
    finish();
}

/* ---- disks ---- */

static bool indirect(void)
{
    return disk.features & F_INDIRECT;
}

static void say_size(void)
{
    u64 now = blk_capacity(&disk);
    if (now == disk_sectors)
        return;
    disk_sectors = now;
    print("SIZE slot%u %lu\n", disk.slot, (unsigned long)now);
}

/* What was left under way by a disk that was pulled ended before the host plugs the next one. */
static void take_disk(unsigned slot)
{
    static const u64 ways[] = { 0, F_EVENT_IDX, F_INDIRECT, F_INDIRECT | F_EVENT_IDX };
    static u32 data[128] __attribute__((aligned(16)));
    u32 before = virtio_interrupt_count;
    blk_abandon();
    blk_forget();
    must(virtio_at(&disk, slot) && virtio_negotiate(&disk, F_BLK_ALL | F_PACKED | ways[disk_round % 4]), "disk", slot);
    for (disk_queues = 0; disk_queues < 4 && virtio_queue(&disk, disk_queues, 0);)
        disk_queues++;
    must(disk_queues > 0 && virtio_interrupts(&disk, true), "queues and vectors", slot);
    virtio_go(&disk);
    queue_want_interrupt(&disk.queue[0], true);
    must(blk_do(&disk.queue[0], BLK_IN, 0, data, sizeof data, indirect()) == BLK_OK, "first sector", slot);
    for (u64 start = rdtsc(); virtio_interrupt_count == before && rdtsc() - start < 20000000000ull;)
        pause();
    must(virtio_interrupt_count != before, "an interrupt of the disk", slot);
    disk.by_interrupt = true;
    print("DISK slot%u %x\n", slot, data[0]);
    disk_sectors = 0;
    say_size();
}

static void use_disk(void)
{
    must(blk_exercise(&disk, disk_queues, ALL_AT_ONCE, indirect(), "disk"), "verified writes", disk.slot);
    say_size();
}

static void release_disk(void)
{
    blk_flood(&disk, disk_queues, indirect());
    if (disk_round++ % 2)
        return;
    must(virtio_reset(&disk), "reset", disk.slot);
    blk_abandon();
    delay(100000);
    must(blk_untouched(), "memory after the reset", disk.slot);
}

/* ---- shares ---- */

static void take_share(unsigned slot)
{
    char text[17];
    must(virtio_at(&share, slot), "share", slot);
    share.memory = 1;
    must(virtio_negotiate(&share, F_PACKED | F_EVENT_IDX) && virtio_queue(&share, 0, 0) && virtio_queue(&share, 1, 0),
         "share's queues", slot);
    virtio_go(&share);
    must(fs_open(&share, "number"), "file of the share", slot);
    int length = fs_read(&share, text, sizeof text - 1);
    must(length > 1 && text[length - 1] == '\n', "text of the share", slot);
    text[length] = 0;
    print("SHARE %s", text);
}

static void use_share(void)
{
    char text[16];
    must(fs_read(&share, text, sizeof text) > 1, "text of the share", share.slot);
}

static void release_share(void)
{
    fs_flood(&share, 8);
    if (disk_round % 4 < 2)
        must(virtio_reset(&share), "reset", share.slot);
}

/* ---- slots ---- */

static void take_card(struct slot *slot, unsigned number)
{
    pci_write(number, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    slot->card = (volatile u32 *)pci_map(number, 0, 0, 4096);
    must(slot->card != NULL, "registers of the card", number);
    slot->number = slot->card[0];
    print("HERE %u %x\n", number, slot->number);
}

static void arrive(unsigned number)
{
    struct slot *slot = &slots[number];
    u32 id = pci_read(number, 0, 4);
    must(slot->kind == NOTHING && (inl(PRESENT) >> number & 1), "arrival", number);
    slot->kind = id == CARD_ID ? CARD : id >> 16 == 0x1040 + VIRTIO_BLK ? DISK : id >> 16 == 0x1040 + VIRTIO_FS ? SHARE : NOTHING;
    switch (slot->kind) {
    case CARD: take_card(slot, number); break;
    case DISK: take_disk(number); break;
    case SHARE: take_share(number); break;
    default: must(false, "known device", number);
    }
}

/* Using it is over with the write to PRESENT, after which nothing answers. */
static void leave(unsigned number)
{
    struct slot *slot = &slots[number];
    enum kind kind = slot->kind;
    must(kind != NOTHING, "wanted slot", number);
    slot->kind = NOTHING;
    if (kind == DISK)
        release_disk();
    else if (kind == SHARE)
        release_share();
    outl(PRESENT, 1u << number);
    must(!(inl(PRESENT) >> number & 1) && pci_read(number, 0, 4) == ~0u, "empty slot", number);
    outl(OUTCOME, number | NOTIFY_EJECT << 8);
    if (kind == CARD)
        print("AWAY %u\n", number);
    else if (kind == DISK)
        print("NODISK slot%u\n", number);
}

static void look(void)
{
    u32 arrived = inl(ARRIVED);
    outl(ARRIVED, arrived);
    for (unsigned i = 0; i < PCI_SLOTS; i++)
        if (arrived >> i & 1)
            arrive(i);
    u32 wanted = inl(WANTED);
    outl(WANTED, wanted);
    for (unsigned i = 0; i < PCI_SLOTS; i++)
        if (wanted >> i & 1)
            leave(i);
}

static void use(unsigned number)
{
    struct slot *slot = &slots[number];
    switch (slot->kind) {
    case CARD:
        slot->card[1] = slot->card[0];
        must(slot->card[0] == slot->number, "the card's number", number);
        break;
    case DISK: use_disk(); break;
    case SHARE: use_share(); break;
    default: break;
    }
}

static void serve(void)
{
    u32 seen = 0;
    sti();
    print("READY\n");
    for (;;) {
        while (seen != events) {
            seen = events;
            look();
        }
        for (unsigned i = 0; i < PCI_SLOTS; i++)
            use(i);
        pause();
    }
}

void kernel_main(void)
{
    apic_enable();
    trap_set_handler(SCI_VECTOR, on_sci);
    ioapic_route_level(SCI_PIN, SCI_VECTOR);
    outw(GPE0_STATUS, GPE_HOTPLUG);
    outw(GPE0_ENABLE, GPE_HOTPLUG);
    in_ring3(serve);
}
