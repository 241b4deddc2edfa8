/* registers.c - what a driver can get wrong in registers: the order of things, queues, vectors and features that are not, and the PCI
 * function under it all. */
#include "abuse.h"

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
    offer_piece(abuse, scratch_at(0), 1, DESC_WRITE);
}

static void ring_changed_late(struct abuse *abuse)
{
    struct virtio *virtio = abuse->virtio;
    common_write(virtio, COMMON_QUEUE_SELECT, 2, abuse->queue->index);
    common_write(virtio, COMMON_QUEUE_SIZE, 2, 2);
    common_write64(virtio, COMMON_QUEUE_DESC, NOWHERE);
    common_write64(virtio, COMMON_QUEUE_DEVICE, canary_address());
    common_write(virtio, COMMON_QUEUE_ENABLE, 2, 0);
    offer_piece(abuse, scratch_at(0), 1, DESC_WRITE);
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
    offer_piece(abuse, scratch_at(0), 64, DESC_WRITE);
}

static void resets_in_a_row(struct abuse *abuse)
{
    for (unsigned i = 0; i < 32; i++) {
        offer_piece(abuse, scratch_at(0), 64, DESC_WRITE);
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
    offer_all_the_same(abuse);
    pci_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    delay(100000);
    offer_all_the_same(abuse);
    pci_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void decoding_off(struct abuse *abuse)
{
    unsigned slot = abuse->virtio->slot;
    offer_all_the_same(abuse);
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
    offer_all_the_same(abuse);
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

const struct abuse_case register_cases[] = {
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
const unsigned register_case_count = sizeof register_cases / sizeof register_cases[0];
