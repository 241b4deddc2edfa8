/* hostile-virtio.c - a driver that breaks the rules, one by one and then at random. Whatever it does, a device must say that it
 * needs a reset, or ignore it; after a reset it must work again; and nothing may be written but what it was given.
 *
 * Options: seed=N, rounds=N of the random part, only=N one case (by its number), queues=N at most 3 of each
 * device. Each case is tried on every queue of every device, with split rings and, where they are offered, packed ones. */
#include "abuse.h"

struct abuse_case {
    const char *name;
    void (*run)(struct abuse *abuse);
    enum { EITHER, BREAKS, SPLIT_BREAKS } expect; /* of a queue that the device reads at once */
};

/* ---- descriptors ---- */

static void loop(struct abuse *abuse)
{
    chain_item(abuse, 0, scratch_at(0), 64, DESC_WRITE | DESC_NEXT, 1);
    chain_item(abuse, 1, scratch_at(64), 64, DESC_WRITE | DESC_NEXT, 0);
    offer(abuse, 0, 2);
}

static void loop_of_one(struct abuse *abuse)
{
    chain_item(abuse, 0, scratch_at(0), 64, DESC_WRITE | DESC_NEXT, 0);
    offer(abuse, 0, abuse->queue->size);
}

static void next_outside(struct abuse *abuse)
{
    chain_item(abuse, 0, scratch_at(0), 64, DESC_WRITE | DESC_NEXT, 0xffff);
    offer(abuse, 0, 1);
}

static void head_outside(struct abuse *abuse)
{
    chain_item(abuse, 0, scratch_at(0), 64, DESC_WRITE, 0);
    offer(abuse, 0xffff, 1);
}

static void one_piece(struct abuse *abuse, u64 address, u32 length, u16 flags)
{
    chain_item(abuse, 0, address, length, flags, 0);
    offer(abuse, 0, 1);
}

static void outside_ram(struct abuse *abuse) { one_piece(abuse, NOWHERE, 64, DESC_WRITE); }
static void far_outside(struct abuse *abuse) { one_piece(abuse, 1ull << 62, 64, DESC_WRITE); }
static void across_the_end(struct abuse *abuse) { one_piece(abuse, RAM_END - 32, 64, DESC_WRITE); }
static void wrapping(struct abuse *abuse) { one_piece(abuse, ~0ull - 15, 64, DESC_WRITE); }
static void huge(struct abuse *abuse) { one_piece(abuse, scratch_at(0), 0xffffffffu, DESC_WRITE); }
static void own_registers(struct abuse *abuse) { one_piece(abuse, (u64)abuse->virtio->common, 64, DESC_WRITE); }
static void own_registers_read(struct abuse *abuse) { one_piece(abuse, (u64)abuse->virtio->common, 64, 0); }
static void local_apic(struct abuse *abuse) { one_piece(abuse, 0xfee00000, 4096, DESC_WRITE); }
static void zero_length(struct abuse *abuse) { one_piece(abuse, scratch_at(0), 0, DESC_WRITE); }
static void zero_length_nowhere(struct abuse *abuse) { one_piece(abuse, NOWHERE, 0, 0); }
static void only_readable(struct abuse *abuse) { one_piece(abuse, scratch_at(0), 64, 0); }
static void only_writable(struct abuse *abuse) { one_piece(abuse, scratch_at(0), 64, DESC_WRITE); }
static void one_byte(struct abuse *abuse) { one_piece(abuse, scratch_at(0), 1, DESC_WRITE); }
static void all_flags(struct abuse *abuse) { one_piece(abuse, scratch_at(0), 64, 0x7f7f & ~DESC_NEXT); }

static void writable_first(struct abuse *abuse)
{
    chain_item(abuse, 0, scratch_at(0), 64, DESC_WRITE | DESC_NEXT, 1);
    chain_item(abuse, 1, scratch_at(64), 64, 0, 0);
    offer(abuse, 0, 2);
}

static void lengths_add_up(struct abuse *abuse)
{
    chain_item(abuse, 0, scratch_at(0), 0x80000000u, DESC_WRITE | DESC_NEXT, 1);
    chain_item(abuse, 1, scratch_at(0), 0x80000000u, DESC_WRITE | DESC_NEXT, 2);
    chain_item(abuse, 2, scratch_at(0), 0x80000000u, DESC_WRITE, 0);
    offer(abuse, 0, 3);
}

/* As long as the ring with the last one naming a further. */
static void too_long(struct abuse *abuse)
{
    unsigned size = abuse->queue->size;
    for (unsigned i = 0; i < size; i++)
        chain_item(abuse, i, scratch_at(i % 16), 1, DESC_WRITE | DESC_NEXT, (u16)((i + 1) % size));
    offer(abuse, 0, size);
}

/* The same buffer in every descriptor, all of them heads. */
static void all_the_same(struct abuse *abuse)
{
    unsigned size = abuse->queue->size;
    for (unsigned i = 0; i < size; i++) {
        chain_item(abuse, i, scratch_at(0), 64, DESC_WRITE, 0);
        offer(abuse, (u16)i, 1);
    }
}

/* ---- indirect tables ---- */

static void table_case(struct abuse *abuse, u64 table, u32 length, u16 flags)
{
    one_piece(abuse, table, length, DESC_INDIRECT | flags);
}

static void indirect_odd_length(struct abuse *abuse)
{
    table_item(abuse, 0, scratch_at(0), 64, DESC_WRITE, 0);
    table_case(abuse, table_at(), 17, 0);
}

static void indirect_empty(struct abuse *abuse) { table_case(abuse, table_at(), 0, 0); }
static void indirect_nowhere(struct abuse *abuse) { table_case(abuse, NOWHERE, 32, 0); }
static void indirect_registers(struct abuse *abuse) { table_case(abuse, (u64)abuse->virtio->common, 32, 0); }
static void indirect_across(struct abuse *abuse) { table_case(abuse, RAM_END - 16, 32, 0); }
static void indirect_huge(struct abuse *abuse) { table_case(abuse, table_at(), 0xfffffff0u, 0); }

static void indirect_in_indirect(struct abuse *abuse)
{
    table_item(abuse, 0, table_at(), 16, DESC_INDIRECT, 0);
    table_case(abuse, table_at(), 16, 0);
}

static void indirect_loop(struct abuse *abuse)
{
    table_item(abuse, 0, scratch_at(0), 16, DESC_WRITE | DESC_NEXT, 1);
    table_item(abuse, 1, scratch_at(16), 16, DESC_WRITE | DESC_NEXT, 0);
    table_case(abuse, table_at(), 32, 0);
}

static void indirect_next_outside(struct abuse *abuse)
{
    table_item(abuse, 0, scratch_at(0), 16, DESC_WRITE | DESC_NEXT, 9);
    table_case(abuse, table_at(), 32, 0);
}

static void indirect_and_next(struct abuse *abuse)
{
    table_item(abuse, 0, scratch_at(0), 64, DESC_WRITE, 0);
    chain_item(abuse, 0, table_at(), 16, DESC_INDIRECT | DESC_NEXT, 1);
    chain_item(abuse, 1, scratch_at(64), 64, DESC_WRITE, 0);
    offer(abuse, 0, 2);
}

/* More entries than the queue has descriptors. */
static void indirect_too_long(struct abuse *abuse)
{
    unsigned count = abuse->queue->size + 1;
    for (unsigned i = 0; i < count; i++)
        table_item(abuse, i, scratch_at(i % 64), 1, (u16)(DESC_WRITE | (i + 1 < count ? DESC_NEXT : 0)), (u16)(i + 1));
    table_case(abuse, table_at(), count * 16, 0);
}

/* Changed while the device may be reading it. */
static void changing_table(struct abuse *abuse)
{
    table_item(abuse, 0, scratch_at(0), 64, DESC_WRITE, 0);
    for (unsigned i = 0; i < 200; i++) {
        table_case(abuse, table_at(), 16, 0);
        for (unsigned j = 0; j < 20; j++) {
            table_item(abuse, 0, j & 1 ? NOWHERE : scratch_at(0), j & 2 ? 0xffffffffu : 64, DESC_WRITE, 0);
            chain_item(abuse, 0, j & 4 ? NOWHERE : table_at(), 16, DESC_INDIRECT, 0);
        }
    }
}

/* ---- indexes ---- */

static void index_jumps(struct abuse *abuse)
{
    chain_item(abuse, 0, scratch_at(0), 64, DESC_WRITE, 0);
    abuse->queue->avail->index = (u16)(abuse->queue->avail->index + abuse->queue->size + 1);
    queue_notify(abuse->queue);
}

static void index_back(struct abuse *abuse)
{
    abuse->queue->avail->index--;
    queue_notify(abuse->queue);
}

static void events_nonsense(struct abuse *abuse)
{
    struct queue *queue = abuse->queue;
    for (unsigned i = 0; i < 64; i++) {
        queue->driver_event->position = (u16)random64(); /* in a split ring: flags and index */
        queue->driver_event->flags = (u16)random64();
        queue_notify(queue);
    }
}

/* ---- the queue's addresses and size ---- */

/* Sets queue 0 of a device that is not yet running. */
static void set_areas(struct abuse *abuse, u64 descriptors, u64 driver, u64 device, unsigned size)
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

static void ring_nowhere(struct abuse *abuse) { set_areas(abuse, NOWHERE, NOWHERE, NOWHERE, 8); }
static void ring_at_the_end(struct abuse *abuse) { set_areas(abuse, RAM_END - 16, scratch_at(0), scratch_at(8192), 8); }
static void ring_wraps(struct abuse *abuse) { set_areas(abuse, ~0ull & ~15ull, ~0ull & ~15ull, ~0ull & ~15ull, 8); }
static void ring_in_registers(struct abuse *abuse)
{
    set_areas(abuse, scratch_at(0), scratch_at(4096), (u64)abuse->virtio->common, 8);
}
static void ring_misaligned(struct abuse *abuse)
{
    set_areas(abuse, scratch_at(1), scratch_at(4097), scratch_at(8193), 8);
}
static void device_area_misaligned(struct abuse *abuse)
{
    set_areas(abuse, scratch_at(0), scratch_at(4096), scratch_at(8194), 8);
}
static void size_zero(struct abuse *abuse) { set_areas(abuse, scratch_at(0), scratch_at(16384), scratch_at(32768), 0); }
static void size_odd(struct abuse *abuse) { set_areas(abuse, scratch_at(0), scratch_at(16384), scratch_at(32768), 7); }
static void size_huge(struct abuse *abuse) { set_areas(abuse, scratch_at(0), scratch_at(16384), scratch_at(32768), 0xffff); }

/* All areas at one place: the device reads what it writes. */
static void ring_on_itself(struct abuse *abuse)
{
    memset((void *)scratch_at(0), 0x41, 8192);
    set_areas(abuse, scratch_at(0), scratch_at(0), scratch_at(0), 8);
}

/* Another queue gets the same rings. */
static void two_queues_one_ring(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    struct queue *queue = abuse->queue;
    virtio_negotiate(virtio, virtio->features);
    for (unsigned i = 0; i < virtio->queues && i < 2; i++) {
        common_write(virtio, COMMON_QUEUE_SELECT, 2, i);
        common_write(virtio, COMMON_QUEUE_SIZE, 2, 8);
        common_write64(virtio, COMMON_QUEUE_DESC, (u64)queue->desc);
        common_write64(virtio, COMMON_QUEUE_DRIVER, (u64)queue->avail);
        common_write64(virtio, COMMON_QUEUE_DEVICE, (u64)queue->used);
        common_write(virtio, COMMON_QUEUE_ENABLE, 2, 1);
    }
    virtio_go(virtio);
    for (unsigned i = 0; i < 8; i++) {
        chain_item(abuse, i, scratch_at(64 * i), 64, DESC_WRITE, 0);
        offer(abuse, (u16)i, 1);
        for (unsigned q = 0; q < 2; q++)
            reg_write(virtio->notify + q * virtio->notify_multiplier, 2, q);
    }
}

/* ---- the order of things ---- */

static void enabled_too_early(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    virtio_reset(virtio);
    common_write(virtio, COMMON_QUEUE_ENABLE, 2, 1);
    common_write(virtio, COMMON_STATUS, 1, STATUS_DRIVER_OK);
    queue_notify(abuse->queue);
    common_write(virtio, COMMON_STATUS, 1, 0xff);
    queue_notify(abuse->queue);
}

static void unoffered_features(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    virtio_reset(virtio);
    common_write(virtio, COMMON_STATUS, 1, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    for (unsigned i = 0; i < 6; i++) {
        common_write(virtio, COMMON_DRIVER_FEATURE_SELECT, 4, i < 4 ? i : 0xffffffffu >> (i - 4));
        common_write(virtio, COMMON_DRIVER_FEATURE, 4, 0xffffffffu);
    }
    common_write(virtio, COMMON_STATUS, 1, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    check(!(virtio_status(virtio) & STATUS_FEATURES_OK), "features that were not offered", "were accepted");
    virtio_go(virtio);
    queue_notify(abuse->queue);
}

static void features_changed_late(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    for (unsigned i = 0; i < 2; i++) {
        common_write(virtio, COMMON_DRIVER_FEATURE_SELECT, 4, i);
        common_write(virtio, COMMON_DRIVER_FEATURE, 4, i ? (u32)(F_VERSION_1 >> 32 | F_PACKED >> 32) : 0);
    }
    one_byte(abuse);
}

static void ring_changed_late(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    common_write(virtio, COMMON_QUEUE_SELECT, 2, abuse->queue->index);
    common_write(virtio, COMMON_QUEUE_SIZE, 2, 2);
    common_write64(virtio, COMMON_QUEUE_DESC, NOWHERE);
    common_write64(virtio, COMMON_QUEUE_DEVICE, canary_address());
    common_write(virtio, COMMON_QUEUE_ENABLE, 2, 0);
    one_byte(abuse);
}

static void queues_that_are_not(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    for (unsigned i = 0; i < 0x10000; i += i < 80 ? 1 : 997) {
        common_write(virtio, COMMON_QUEUE_SELECT, 2, i);
        if (i < virtio->queues)
            continue;
        if (common_read(virtio, COMMON_QUEUE_SIZE, 2) != 0)
            check(false, "a queue that does not exist", "%u has a size", i);
        common_write(virtio, COMMON_QUEUE_SIZE, 2, 8);
        common_write64(virtio, COMMON_QUEUE_DEVICE, canary_address());
        common_write(virtio, COMMON_QUEUE_VECTOR, 2, 0);
        common_write(virtio, COMMON_QUEUE_ENABLE, 2, 1);
    }
    for (u32 at = 0; at + 4 <= 4096 && at < virtio->notify_length + 64; at++)
        reg_write(virtio->notify + at, at & 1 ? 1 : at & 2 ? 2 : 4, (u32)random64());
}

static void vectors_that_are_not(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    unsigned vectors = virtio->msix ? (pci_read(virtio->slot, virtio->msix + 2, 2) & 0x7ff) + 1 : 0;
    for (unsigned vector = vectors; vector < 0x10000; vector = vector * 2 + 1) {
        common_write(virtio, COMMON_CONFIG_VECTOR, 2, vector);
        common_write(virtio, COMMON_QUEUE_SELECT, 2, abuse->queue->index);
        common_write(virtio, COMMON_QUEUE_VECTOR, 2, vector);
        if (common_read(virtio, COMMON_CONFIG_VECTOR, 2) != NO_VECTOR || common_read(virtio, COMMON_QUEUE_VECTOR, 2) != NO_VECTOR)
            check(false, "a vector that does not exist", "%u is accepted", vector);
    }
    only_writable(abuse);
}

static void resets_in_a_row(struct abuse *abuse)
{
    for (unsigned i = 0; i < 32; i++) {
        only_writable(abuse);
        common_write(abuse->virtio, COMMON_STATUS, 1, 0);
        if (i & 1)
            virtio_go(abuse->virtio); /* without waiting for the end */
        queue_notify(abuse->queue);
    }
}

static void bad_status(struct abuse *abuse)
{
    for (unsigned i = 1; i < 256; i++) {
        common_write(abuse->virtio, COMMON_STATUS, 1, i);
        queue_notify(abuse->queue);
    }
}

/* ---- the bus ---- */

static void master_off(struct abuse *abuse)
{
    unsigned slot = abuse->virtio->slot;
    all_the_same(abuse);
    pci_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    delay(100000);
    all_the_same(abuse);
    pci_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void decoding_off(struct abuse *abuse)
{
    unsigned slot = abuse->virtio->slot;
    all_the_same(abuse);
    pci_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    check_equal("undecoded registers", common_read(abuse->virtio, COMMON_STATUS, 1), 0xff);
    queue_notify(abuse->queue);
    pci_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* Onto RAM, onto another device, nowhere, and back. */
static void bars_moved(struct abuse *abuse)
{
    static const u64 places[] = { 0, 0x100000, 0xfee00000, 0xfec00000, 0xe0000000, 0xfffff000, 0x8000000000, 0xffffffffffffc000 };
    unsigned slot = abuse->virtio->slot;
    all_the_same(abuse);
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        for (unsigned n = 0; n < 6; n++)
            pci_write(slot, 0x10 + 4 * n, 4, (u32)(n & 1 ? places[i] >> 32 : places[i]));
        reg_write(abuse->virtio->config ? abuse->virtio->config : abuse->virtio->isr, 1, 0);
    }
    restore_function(abuse);
}

static void every_config_byte(struct abuse *abuse)
{
    unsigned slot = abuse->virtio->slot;
    for (unsigned offset = 0; offset < 256; offset++)
        for (unsigned size = 1; size <= 4; size *= 2)
            if ((offset & 3) + size <= 4 && !(abuse->virtio->msix && (offset & ~3u) == abuse->virtio->msix))
                pci_write(slot, offset, size, (u32)random64());
    restore_function(abuse);
}

/* 4.1.4.9: the window in configuration space, pointed anywhere. */
static void config_window(struct abuse *abuse)
{
    unsigned slot = abuse->virtio->slot, window = 0;
    for (unsigned at = pci_capability(slot, 9, 0); at; at = pci_capability(slot, 9, at))
        if (pci_read(slot, at + 3, 1) == 5)
            window = at;
    for (unsigned i = 0; window && i < 4000; i++) {
        pci_write(slot, window + 4, 1, i & 1 ? abuse->virtio->common_bar : (u32)random64() & 0xff);
        /* Not the ring addresses, which could then be anywhere. */
        u32 offset = (u32)random64() >> (random64() % 32);
        u32 low = offset & 0x3ff;
        if (low >= COMMON_QUEUE_DESC - 4 && low < COMMON_END)
            offset ^= 0x40;
        pci_write(slot, window + 8, 4, offset);
        pci_write(slot, window + 12, 4, i & 2 ? 1u << (i >> 2 & 3) : (u32)random64());
        for (unsigned size = 1; size <= 4; size *= 2) {
            pci_write(slot, window + 16, size, (u32)random64());
            pci_read(slot, window + 16, size);
        }
    }
    restore_function(abuse);
}

static void every_register(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    volatile u8 *blocks[] = { virtio->common, virtio->isr, virtio->config, virtio->notify };
    for (unsigned b = 0; b < 4; b++) {
        for (u32 at = 0; blocks[b] && at < 512; at++) {
            bool address = b == 0 && at + 8 > COMMON_QUEUE_DESC && at < COMMON_END;
            for (unsigned size = 1; size <= 4; size *= 2) {
                if (!address)
                    reg_write(blocks[b] + at, size, (u32)random64());
                reg_read(blocks[b] + at, size);
            }
            (void)*(volatile u64 *)(blocks[b] + at);
            if (!address)
                *(volatile u64 *)(blocks[b] + at) = random64();
        }
    }
}

static const struct abuse_case cases[] = {
    { "a loop", loop, SPLIT_BREAKS },
    { "a loop of one", loop_of_one, SPLIT_BREAKS },
    { "next outside the queue", next_outside, SPLIT_BREAKS },
    { "a head outside the queue", head_outside, SPLIT_BREAKS },
    { "a buffer outside memory", outside_ram, BREAKS },
    { "a buffer far outside", far_outside, BREAKS },
    { "a buffer across memory's end", across_the_end, BREAKS },
    { "a buffer that wraps", wrapping, BREAKS },
    { "a buffer of 4 GiB", huge, BREAKS },
    { "a buffer in the device's registers", own_registers, BREAKS },
    { "reading the device's registers", own_registers_read, BREAKS },
    { "a buffer in the local APIC", local_apic, BREAKS },
    { "length 0", zero_length, EITHER },
    { "length 0 outside memory", zero_length_nowhere, EITHER },
    { "readable only", only_readable, EITHER },
    { "writable only", only_writable, EITHER },
    { "one byte", one_byte, EITHER },
    { "all flags", all_flags, EITHER },
    { "writable before readable", writable_first, BREAKS },
    { "lengths that add up to too much", lengths_add_up, BREAKS },
    { "a chain longer than the queue", too_long, BREAKS },
    { "one buffer for all", all_the_same, EITHER },
    { "an indirect table of 17 bytes", indirect_odd_length, BREAKS },
    { "an indirect table of none", indirect_empty, BREAKS },
    { "an indirect table outside memory", indirect_nowhere, BREAKS },
    { "an indirect table in registers", indirect_registers, BREAKS },
    { "an indirect table across memory's end", indirect_across, BREAKS },
    { "an indirect table of 4 GiB", indirect_huge, BREAKS },
    { "indirect in indirect", indirect_in_indirect, BREAKS },
    { "a loop in a table", indirect_loop, SPLIT_BREAKS },
    { "next outside a table", indirect_next_outside, SPLIT_BREAKS },
    { "indirect and next", indirect_and_next, BREAKS },
    { "a table longer than the queue", indirect_too_long, BREAKS },
    { "a table that changes", changing_table, EITHER },
    { "an index that jumps", index_jumps, SPLIT_BREAKS },
    { "an index that goes back", index_back, SPLIT_BREAKS },
    { "nonsense in event suppression", events_nonsense, EITHER },
    { "rings outside memory", ring_nowhere, BREAKS },
    { "a ring across memory's end", ring_at_the_end, BREAKS },
    { "rings that wrap", ring_wraps, BREAKS },
    { "a ring in registers", ring_in_registers, BREAKS },
    { "misaligned rings", ring_misaligned, BREAKS },
    { "a misaligned device area", device_area_misaligned, BREAKS },
    { "size 0", size_zero, EITHER },
    { "size 7", size_odd, EITHER },
    { "size 65535", size_huge, EITHER },
    { "rings on each other", ring_on_itself, EITHER },
    { "one ring for two queues", two_queues_one_ring, EITHER },
    { "enabled too early", enabled_too_early, EITHER },
    { "features not offered", unoffered_features, EITHER },
    { "features changed late", features_changed_late, EITHER },
    { "a ring changed late", ring_changed_late, EITHER },
    { "queues that do not exist", queues_that_are_not, EITHER },
    { "vectors that do not exist", vectors_that_are_not, EITHER },
    { "resets in a row", resets_in_a_row, EITHER },
    { "every status", bad_status, EITHER },
    { "bus mastering off", master_off, EITHER },
    { "decoding off", decoding_off, EITHER },
    { "BARs moved", bars_moved, EITHER },
    { "configuration space", every_config_byte, EITHER },
    { "the window in configuration space", config_window, EITHER },
    { "every register", every_register, EITHER },
};
#define CASES (sizeof cases / sizeof cases[0])

static void run_case(struct abuse *abuse, const struct abuse_case *one)
{
    bool packed = abuse->features & F_PACKED;
    if (!abuse_begin(abuse))
        return;
    one->run(abuse);
    bool must = abuse->eager && (one->expect == BREAKS || (one->expect == SPLIT_BREAKS && !packed));
    abuse_end(abuse, one->name, must);
}

static void abuse_queue(struct virtio *virtio, unsigned index, u64 features, unsigned rounds)
{
    struct abuse abuse = { .virtio = virtio, .index = index, .features = features };
    unsigned only = (unsigned)option("only", CASES);
    for (unsigned i = 0; i < CASES; i++)
        if (only >= CASES || only == i)
            run_case(&abuse, &cases[i]);
    /* What the balloon's first queue gets are numbers of pages to take away: random ones may be anybody's. */
    bool takes_pages = virtio->type == VIRTIO_BALLOON && index == 0;
    if (only >= CASES && !takes_pages && abuse_begin(&abuse)) {
        abuse_at_random(&abuse, rounds);
        abuse_end(&abuse, "at random", false);
    }
}

void kernel_main(void)
{
    static struct virtio virtio;
    unsigned rounds = (unsigned)option("rounds", 300), found = 0;
    random_state = option("seed", 1) * 0x9e3779b97f4a7c15ull | 1;
    abuse_prepare();
    while (virtio_find(&virtio, 0, found)) {
        found++;
        virtio_negotiate(&virtio, 0);
        unsigned queues = (unsigned)option("queues", ABUSED_QUEUES);
        if (queues > virtio.queues)
            queues = virtio.queues;
        print("slot %u: type %u, %u queues, features %lx\n", virtio.slot, virtio.type, virtio.queues, (unsigned long)virtio.offered);
        for (unsigned i = 0; i < queues; i++) {
            abuse_queue(&virtio, i, F_INDIRECT, rounds);
            abuse_queue(&virtio, i, F_INDIRECT | F_EVENT_IDX, rounds / 4);
            if (virtio.offered & F_PACKED)
                abuse_queue(&virtio, i, F_INDIRECT | F_EVENT_IDX | F_PACKED, rounds);
        }
    }
    check(found > 0, "devices", "none was found");
}
