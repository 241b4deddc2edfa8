/* virtio.c - drives every virtio device it knows (entropy, block) in each way that the device offers: split and packed
 * rings, with and without indirect tables and event indexes, small and large queues, and resets in the middle.
 *
 * Options on the command line: "split" or "packed" for that alone; way=N for one way alone; operations=N for each
 * way; resets=N, under load; depth=N requests at once in each queue of a disk; seed=N; "interrupts" to wait
 * for them rather than look all the time; "ring3" to do it there, which user.c says why. The disk is overwritten. Devices of
 * other types are only reset and negotiated with. */
#include "blk.h"

#define AFTER_RESET 64u /* verified operations after each reset */

static unsigned operations, resets;
static bool want_split, want_packed, want_interrupts;
static struct virtio device;

struct way {
    u64 features;
    unsigned size;
    bool indirect;
    const char *name;
};

static const struct way ways[] = {
    { 0, 0, false, "split" },
    { 0, 8, false, "split, 8 descriptors" },
    { F_INDIRECT, 8, true, "split, indirect, 8 descriptors" },
    { F_EVENT_IDX, 0, false, "split, events" },
    { F_INDIRECT | F_EVENT_IDX, 16, true, "split, indirect, events, 16 descriptors" },
    { F_NOTIFICATION_DATA | F_EVENT_IDX, 0, false, "split, events, notification data" },
    { F_PACKED, 0, false, "packed" },
    { F_PACKED, 7, false, "packed, 7 descriptors" },
    { F_PACKED | F_INDIRECT, 5, true, "packed, indirect, 5 descriptors" },
    { F_PACKED | F_EVENT_IDX, 0, false, "packed, events" },
    { F_PACKED | F_INDIRECT | F_EVENT_IDX, 16, true, "packed, indirect, events, 16 descriptors" },
    { F_PACKED | F_NOTIFICATION_DATA | F_EVENT_IDX, 9, false, "packed, events, notification data, 9 descriptors" },
};
#define WAYS (sizeof ways / sizeof ways[0])

static const char *type_name(unsigned type)
{
    switch (type) {
    case VIRTIO_NET: return "net";
    case VIRTIO_BLK: return "blk";
    case VIRTIO_CONSOLE: return "console";
    case VIRTIO_RNG: return "rng";
    case VIRTIO_BALLOON: return "balloon";
    case VIRTIO_VSOCK: return "vsock";
    case VIRTIO_FS: return "fs";
    default: return "?";
    }
}

/* True when the device offers all that makes up the way, and it was asked for. */
static bool possible(const struct way *way)
{
    bool is_packed = way->features & F_PACKED;
    return (device.offered & way->features) == way->features && (is_packed ? want_packed : want_split);
}

static unsigned set_up(const struct way *way)
{
    unsigned queues = 0, most = device.type == VIRTIO_BLK ? 4 : 1;
    if (!virtio_negotiate(&device, way->features | (device.type == VIRTIO_BLK ? F_BLK_ALL : 0)))
        return 0;
    while (queues < most && virtio_queue(&device, queues, way->size))
        queues++;
    device.by_interrupt = want_interrupts && virtio_interrupts(&device, true);
    if (device.by_interrupt)
        sti();
    virtio_go(&device);
    return queues;
}

static void check_interrupt(const struct way *way)
{
    static u8 data[512] __attribute__((aligned(16)));
    u32 before = virtio_interrupt_count, written;
    if (!virtio_interrupts(&device, true)) {
        check(false, way->name, "MSI-X vectors are not taken");
        return;
    }
    struct queue *queue = &device.queue[0];
    queue_want_interrupt(queue, true);
    struct buffer buffer = { (u64)data, 64, true };
    u8 status = BLK_OK;
    if (device.type == VIRTIO_RNG) {
        queue_add(queue, &buffer, 1, data, false);
        queue_kick(queue);
        queue_wait(queue, &written);
    } else {
        status = blk_do(queue, BLK_IN, 0, data, 512, way->indirect);
    }
    sti();
    for (u64 start = rdtsc(); virtio_interrupt_count == before && rdtsc() - start < 20000000000ull;)
        pause();
    cli();
    check(virtio_interrupt_count > before && status == BLK_OK, "an interrupt comes", "%u came, status %u",
          virtio_interrupt_count - before, status);
    device.by_interrupt = false;
    virtio_interrupts(&device, false);
    queue_want_interrupt(queue, false);
}

static void check_blk_answers(bool indirect)
{
    static u8 data[512] __attribute__((aligned(16)));
    struct queue *queue = &device.queue[0];
    u64 capacity = blk_capacity(&device);
    check(capacity >= BLK_AREA_MIN, "disk is large enough", "%lu sectors", (unsigned long)capacity);
    check_equal("last sector", blk_do(queue, BLK_IN, capacity - 1, data, 512, indirect), BLK_OK);
    check_equal("past the end", blk_do(queue, BLK_IN, capacity, data, 512, indirect), BLK_IOERR);
    check_equal("far past the end", blk_do(queue, BLK_IN, ~0ull >> 1, data, 512, indirect), BLK_IOERR);
    check_equal("wrapping", blk_do(queue, BLK_OUT, ~0ull, data, 512, indirect), BLK_IOERR);
    check_equal("half a sector", blk_do(queue, BLK_IN, 0, data, 256, indirect), BLK_IOERR);
    check_equal("unknown request", blk_do(queue, 0x7777, 0, data, 512, indirect), BLK_UNSUPPORTED);
    check_equal("identity", blk_do(queue, BLK_GET_ID, 0, data, 20, indirect), BLK_OK);
}

static void check_resets(const struct way *way)
{
    for (unsigned i = 0; i < resets; i++) {
        unsigned queues = set_up(way);
        blk_flood(&device, queues, way->indirect);
        delay(random64() % 200000);
        if (!virtio_reset(&device)) {
            check(false, way->name, "reset %u does not end", i);
            return;
        }
        blk_abandon();
        delay(200000);
        if (!blk_untouched()) {
            check(false, way->name, "memory was written after reset %u", i);
            return;
        }
        queues = set_up(way);
        if (!blk_exercise(&device, queues, AFTER_RESET, way->indirect, way->name)) {
            check(false, way->name, "after reset %u", i);
            return;
        }
    }
    unsigned queues = set_up(way);
    check(blk_exercise(&device, queues, operations / 4, way->indirect, way->name), way->name, "after %u resets", resets);
}

static void drive(const struct way *way)
{
    unsigned queues = set_up(way);
    print("%s: %s, %u queues of %u\n", type_name(device.type), way->name, queues, device.queue[0].size);
    check(queues > 0, "queues", "none was enabled, status %x", virtio_status(&device));
    if (!queues)
        return;
    if (device.type == VIRTIO_RNG) {
        /* More than once around the ring, whose size may be large. */
        unsigned rounds = operations / 8 + 2 * device.queue[0].size;
        check(rng_exercise(&device, rounds, way->indirect, way->name), "entropy", "%s", way->name);
        check_interrupt(way);
        return;
    }
    check_blk_answers(way->indirect);
    check(blk_exercise(&device, queues, operations, way->indirect, way->name), "block", "%s", way->name);
    print("%u operations, up to %u at once\n", operations, blk_most);
    check_interrupt(way);
    check_resets(way);
}

static void drive_all(void)
{
    unsigned found = 0;
    while (virtio_find(&device, 0, found)) {
        found++;
        bool agreed = virtio_negotiate(&device, 0);
        print("slot %u: virtio-%s, %u queues, features %lx\n", device.slot, type_name(device.type), device.queues,
              (unsigned long)device.offered);
        check(agreed, "negotiation", "status %x", virtio_status(&device));
        if (device.type == VIRTIO_RNG || device.type == VIRTIO_BLK)
            for (unsigned i = 0; i < WAYS; i++)
                if (possible(&ways[i]) && option("way", i) == i)
                    drive(&ways[i]);
        check(virtio_reset(&device), "reset", "status %x", virtio_status(&device));
    }
    check(found > 0, "devices", "none was found");
}

void kernel_main(void)
{
    operations = (unsigned)option("operations", 400);
    resets = (unsigned)option("resets", 5);
    want_packed = !option("split", 0);
    want_split = !option("packed", 0);
    want_interrupts = option("interrupts", 0);
    random_state = option("seed", random_state);
    blk_depth = (unsigned)option("depth", blk_depth);
    apic_enable();
    if (option("ring3", 0))
        in_ring3(drive_all);
    else
        drive_all();
}
