/* rings.c - what a driver can get wrong in memory: descriptors, indirect tables, indexes, and where it says that the rings are. */
#include "abuse.h"

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

static void outside_ram(struct abuse *abuse) { offer_piece(abuse, NOWHERE, 64, DESC_WRITE); }
static void far_outside(struct abuse *abuse) { offer_piece(abuse, 1ull << 62, 64, DESC_WRITE); }
static void across_the_end(struct abuse *abuse) { offer_piece(abuse, RAM_END - 32, 64, DESC_WRITE); }
static void wrapping(struct abuse *abuse) { offer_piece(abuse, ~0ull - 15, 64, DESC_WRITE); }
static void huge(struct abuse *abuse) { offer_piece(abuse, scratch_at(0), 0xffffffffu, DESC_WRITE); }
static void own_registers(struct abuse *abuse) { offer_piece(abuse, (u64)abuse->virtio->common, 64, DESC_WRITE); }
static void own_registers_read(struct abuse *abuse) { offer_piece(abuse, (u64)abuse->virtio->common, 64, 0); }
static void local_apic(struct abuse *abuse) { offer_piece(abuse, 0xfee00000, 4096, DESC_WRITE); }
static void zero_length(struct abuse *abuse) { offer_piece(abuse, scratch_at(0), 0, DESC_WRITE); }
static void zero_length_nowhere(struct abuse *abuse) { offer_piece(abuse, NOWHERE, 0, 0); }
static void only_readable(struct abuse *abuse) { offer_piece(abuse, scratch_at(0), 64, 0); }
static void only_writable(struct abuse *abuse) { offer_piece(abuse, scratch_at(0), 64, DESC_WRITE); }
static void one_byte(struct abuse *abuse) { offer_piece(abuse, scratch_at(0), 1, DESC_WRITE); }
static void all_flags(struct abuse *abuse) { offer_piece(abuse, scratch_at(0), 64, 0x7f7f & ~DESC_NEXT); }

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

/* ---- indirect tables ---- */

static void table_case(struct abuse *abuse, u64 table, u32 length, u16 flags)
{
    offer_piece(abuse, table, length, DESC_INDIRECT | flags);
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

const struct abuse_case ring_cases[] = {
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
    { "one buffer for all", offer_all_the_same, EITHER },
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
};
const unsigned ring_case_count = sizeof ring_cases / sizeof ring_cases[0];
