/* dma.c - devices that write where the processor executes and translates: code that was run and will be run again, page
 * tables in use, and rings on the pages of both. What is executed and translated afterwards must be the new. Run with two CPUs, so that one
 * executes what the other has the device write. Intel SDM 3A 4.10.4, 9.1.3.
 *
 * Option: rounds=N. */
#include "blk.h"
#include "other.h"

#define RAM_END (256ull << 20) /* the tests run with that much */
#define SECTOR 512u
#define FIRST_SECTOR 5000u /* two of the disk */
#define CODE_VA 0x420000000000ull
#define TABLE_VA 0x430000000000ull

static unsigned rounds;
static struct virtio disk, entropy;

/* ---- code, and sectors of it ---- */

static void serialize(void)
{
    u32 out[4];
    cpuid(0, 0, out);
}

typedef u32 function(void);

static u32 call(const volatile void *code)
{
    serialize();
    return ((function *)(u64)code)();
}

/* mov $value, %eax; ret */
static void put_function(volatile u8 *at, u32 value)
{
    const u8 code[] = { 0xb8, (u8)value, (u8)(value >> 8), (u8)(value >> 16), (u8)(value >> 24), 0xc3 };
    for (unsigned i = 0; i < sizeof code; i++)
        at[i] = code[i];
}

static bool store(unsigned n, const void *bytes)
{
    static u8 sector[SECTOR];
    memcpy(sector, bytes, SECTOR);
    return blk_do(&disk.queue[0], BLK_OUT, FIRST_SECTOR + n, sector, SECTOR, false) == BLK_OK;
}

/* By the device's hand. */
static bool load(unsigned n, volatile void *to)
{
    return blk_do(&disk.queue[0], BLK_IN, FIRST_SECTOR + n, (void *)(u64)to, SECTOR, false) == BLK_OK;
}

static bool store_functions(u32 first, u32 second)
{
    static u8 sector[SECTOR];
    put_function(sector, first);
    bool done = store(0, sector);
    put_function(sector, second);
    return store(1, sector) && done;
}

/* ---- code ---- */

/* Called often between, so that it is translated, and by two addresses. */
static void check_code(const char *name)
{
    u8 *page = page_new();
    unsigned wrong = 0, failed = 0;
    map(CODE_VA, (u64)page, PTE_P | PTE_W);
    failed += !store_functions(1111, 2222);
    for (unsigned i = 0; i < rounds; i++) {
        unsigned at = i & 2 ? 1024 : 0;
        failed += !load(i & 1, page + at);
        for (unsigned j = 0; j < 40; j++) {
            wrong += call(page + at) != (i & 1 ? 2222u : 1111u);
            wrong += call((u8 *)CODE_VA + at) != (i & 1 ? 2222u : 1111u);
        }
    }
    check(!wrong && !failed, name, "%u calls wrong, %u requests failed", wrong, failed);
}

/* Waits in the page that is overwritten, until 16 bits at RDI are no longer SI; then its last instruction has changed. */
CODE(waiting, "1: pause\n movzwl (%rdi), %eax\n cmp %si, %ax\n je 1b\n push %rbx\n xor %eax, %eax\n cpuid\n pop %rbx\n"
              " mov $0x11111111, %eax\n ret")

static void check_waiting(const char *name)
{
    static struct { u32 type, reserved; u64 sector; } header = { BLK_IN, 0, 0 };
    static u8 sector[SECTOR], status;
    struct queue *queue = &disk.queue[0];
    u8 *page = page_new();
    unsigned length = (unsigned)(waiting.end - waiting.start), wrong = 0, failed = 0;
    memcpy(sector, waiting.start, length);
    failed += !store(0, sector);
    *(u32 *)(sector + length - 5) = 0x22222222;
    failed += !store(1, sector) || !load(0, page);
    for (unsigned i = 1; i <= rounds && !failed; i++) {
        bool packed = disk.features & F_PACKED;
        volatile u16 *sign = packed ? (volatile u16 *)&queue->ring[queue->next].flags : (volatile u16 *)&queue->used->index;
        u16 old = packed ? (u16)(DESC_NEXT | (queue->wrap ? DESC_AVAIL : DESC_USED)) : *sign;
        const struct buffer buffers[] = { { (u64)&header, 16, false }, { (u64)page, SECTOR, true }, { (u64)&status, 1, true } };
        u32 written;
        header.sector = FIRST_SECTOR + (i & 1);
        status = BLK_PENDING;
        failed += !queue_add(queue, buffers, 3, &header, false);
        queue_kick(queue);
        wrong += ((u32 (*)(volatile u16 *, u16))(u64)page)(sign, old) != (i & 1 ? 0x22222222u : 0x11111111u);
        failed += queue_wait(queue, &written) != &header || status != BLK_OK;
    }
    check(!wrong && !failed, name, "%u calls wrong, %u requests failed", wrong, failed);
}

/* One byte of an instruction, by the entropy device. */
static void check_immediate(const char *name)
{
    u8 *page = page_new();
    unsigned wrong = 0, changed = 0;
    u32 written;
    put_function(page, 0x55555555);
    for (unsigned i = 0; i < rounds; i++) {
        const struct buffer buffer = { (u64)page + 1 + i % 4, 1, true };
        u32 before = call(page);
        if (!queue_add(&entropy.queue[0], &buffer, 1, page, false))
            break;
        queue_kick(&entropy.queue[0]);
        if (queue_wait(&entropy.queue[0], &written) != page || written != 1)
            break;
        u32 now = *(volatile u32 *)(page + 1);
        changed += now != before;
        for (unsigned j = 0; j < 20; j++)
            wrong += call(page) != now;
    }
    check(!wrong && changed > rounds / 2, name, "%u calls wrong, %u of %u writes seen", wrong, changed, rounds);
}

/* ---- another CPU ---- */

/* What the other CPU sees of a thing that has the values 1 and 2 in turn. */
struct watch {
    u32 (*look)(volatile void *at, bool known); /* known: the value stands, and what it came by is to be flushed */
    volatile void *at;
    volatile u32 expected; /* generation << 8 | value; 0: about to change */
    volatile bool stop;
    u64 looks, strange, wrong;
};

static void watch(void *context)
{
    struct watch *watch = context;
    while (!watch->stop) {
        u32 expected = __atomic_load_n(&watch->expected, __ATOMIC_ACQUIRE);
        u32 got = watch->look(watch->at, expected != 0);
        bool stood = expected && __atomic_load_n(&watch->expected, __ATOMIC_ACQUIRE) == expected;
        watch->strange += got != 1 && got != 2;
        watch->wrong += stood && got != (expected & 0xff);
        __atomic_store_n(&watch->looks, watch->looks + 1, __ATOMIC_RELEASE);
    }
}

static u32 look_call(volatile void *at, bool known)
{
    (void)known;
    return call(at);
}

static u32 look_through(volatile void *at, bool known)
{
    if (known)
        invlpg((u64)at);
    return *(volatile u32 *)at;
}

/* The device writes sector 0 or 1 to `to` in turn, while the other CPU looks. */
static void check_watched(const char *name, u32 (*look)(volatile void *, bool), volatile void *at, volatile void *to)
{
    static struct watch state;
    unsigned failed = 0;
    if (!other_there()) {
        skip(name, "there is one CPU");
        return;
    }
    state = (struct watch){ .look = look, .at = at };
    failed += !load(0, to);
    if (look == look_through)
        invlpg((u64)at);
    state.expected = 1;
    other_do(watch, &state);
    for (u32 i = 1; i <= rounds; i++) {
        __atomic_store_n(&state.expected, 0, __ATOMIC_SEQ_CST);
        failed += !load(i & 1, to);
        u64 before = __atomic_load_n(&state.looks, __ATOMIC_RELAXED);
        __atomic_store_n(&state.expected, i << 8 | (1 + (i & 1)), __ATOMIC_SEQ_CST);
        /* Two looks: one at least began after that. */
        for (u64 start = rdtsc(); __atomic_load_n(&state.looks, __ATOMIC_RELAXED) < before + 2 && rdtsc() - start < 20000000000ull;)
            pause();
    }
    state.stop = true;
    other_wait();
    check(!state.strange && !state.wrong && !failed && state.looks > rounds, name,
          "of %lu looks %lu wrong, %lu strange; %u requests failed", (unsigned long)state.looks, (unsigned long)state.wrong,
          (unsigned long)state.strange, failed);
}

static void check_watched_code(const char *name)
{
    u8 *page = page_new();
    store_functions(1, 2);
    check_watched(name, look_call, page + SECTOR, page + SECTOR);
}

/* ---- page tables ---- */

/* Two pages that differ: their first word, and a function behind it. */
static u8 *marked_page(u32 value)
{
    u8 *page = page_new();
    *(u32 *)page = value;
    put_function(page + 64, value * 100);
    return page;
}

/* Sectors 0 and 1 become an entry for either page and 63 that are not present. */
static bool store_entries(const u8 *first, const u8 *second)
{
    static u64 sector[SECTOR / 8];
    sector[0] = (u64)first | PTE_P | PTE_W | PTE_A | PTE_D;
    bool done = store(0, sector);
    sector[0] = (u64)second | PTE_P | PTE_W | PTE_A | PTE_D;
    return store(1, sector) && done;
}

/* TABLE_VA's entry of a level is what the device wrote last, once it was flushed; before, it is one or the other. */
static void check_entry(const char *name, volatile u64 *entry, u8 *const marked[2])
{
    volatile u32 *at = (volatile u32 *)TABLE_VA;
    unsigned wrong = 0, strange = 0, failed = 0;
    for (u32 i = 0; i < rounds; i++) {
        failed += !load(i & 1, entry);
        u32 unflushed = i % 4 ? *at : 1;
        strange += unflushed != 1 && unflushed != 2;
        if (i & 2)
            invlpg(TABLE_VA);
        else
            write_cr3(read_cr3());
        for (unsigned j = 0; j < 10; j++)
            wrong += at[0] != 1 + (i & 1) || call((const u8 *)TABLE_VA + 64) != (1 + (i & 1)) * 100;
        at[1] = i;
        wrong += *(volatile u32 *)(marked[i & 1] + 4) != i;
    }
    check(!wrong && !strange && !failed, name, "%u wrong, %u strange, %u requests failed", wrong, strange, failed);
}

static void check_tables(const char *entry_name, const char *directory_name, const char *watched_name)
{
    u8 *const marked[2] = { marked_page(1), marked_page(2) };
    map(TABLE_VA, (u64)marked[0], PTE_P | PTE_W);
    volatile u64 *entry = entry_of(TABLE_VA, 1), *directory = entry_of(TABLE_VA, 2);
    bool stored = store_entries(marked[0], marked[1]);
    check_entry(entry_name, entry, marked);
    check_watched(watched_name, look_through, (volatile void *)TABLE_VA, entry);
    u64 *tables[2] = { page_new(), page_new() };
    for (unsigned i = 0; i < 2; i++)
        tables[i][0] = (u64)marked[i] | PTE_P | PTE_W;
    stored = store_entries((u8 *)tables[0], (u8 *)tables[1]) && stored;
    check_entry(directory_name, directory, marked);
    check(stored, "entries on the disk", "cannot be written");
}

/* ---- rings ---- */

/* The disk's queue on memory whose pages hold functions as well, or page tables whose other entries are in use. */
static u8 *ring_memory;

static bool start_disk(u64 features, bool own_rings)
{
    if (!ring_memory)
        ring_memory = pages_new(RING_BYTES / 4096);
    if (!virtio_negotiate(&disk, features | F_BLK_FLUSH))
        return false;
    bool queue = own_rings ? virtio_queue_at(&disk, 0, 64, ring_memory) : virtio_queue(&disk, 0, 64);
    virtio_go(&disk);
    return queue;
}

static const u32 ring_page[] = { RING_DESCRIPTORS, RING_DRIVER, RING_DEVICE };

static void check_rings_on_code(const char *name, u64 features)
{
    static u8 sector[SECTOR];
    unsigned wrong = 0, failed = !start_disk(features, true);
    for (u32 i = 0; i < rounds && !failed; i++) {
        for (unsigned p = 0; p < 3; p++)
            put_function(ring_memory + ring_page[p] + 2048, i * 3 + p);
        failed += !load(0, sector);
        for (unsigned p = 0; p < 3; p++)
            wrong += call(ring_memory + ring_page[p] + 2048) != i * 3 + p;
    }
    check(!wrong && !failed, name, "%u calls wrong, %u requests failed", wrong, failed);
}

/* The entries in use are the second halves of the three pages. */
static void check_rings_on_tables(const char *name, u64 features)
{
    static u8 sector[SECTOR];
    u8 *const marked[2] = { marked_page(1), marked_page(2) };
    unsigned wrong = 0, failed = !start_disk(features, true);
    for (u32 i = 0; i < rounds && !failed; i++) {
        for (unsigned p = 0; p < 3; p++) {
            volatile u64 *table = (volatile u64 *)(ring_memory + ring_page[p]);
            table[300 + i % 200] = (u64)marked[(i + p) & 1] | PTE_P | PTE_W;
            *entry_of(TABLE_VA, 2) = (u64)table | PTE_P | PTE_W;
            volatile u32 *at = (volatile u32 *)(TABLE_VA + 4096 * (300 + i % 200));
            write_cr3(read_cr3());
            wrong += *at != 1 + ((i + p) & 1);
            failed += !load(0, sector);
            at[1] = i;
            wrong += *at != 1 + ((i + p) & 1) || *(volatile u32 *)(marked[(i + p) & 1] + 4) != i;
        }
    }
    check(!wrong && !failed, name, "%u wrong, %u requests failed", wrong, failed);
}

/* The ring of used chains is itself a function: "mov $imm32, %eax" begins before the area, whose flags and index are its operand, and
 * its first entry's chain, 195, is "ret". Bytes of code are no sign that they may be executed (SDM 3A 9.1.3 has one elsewhere): that is
 * the interrupt, which comes after the device's stores. */
#define RET_CHAIN 195u

static void check_used_is_code(const char *name)
{
    static struct { u32 type, reserved; u64 sector; } header = { BLK_IN, 0, FIRST_SECTOR };
    static u8 sector[SECTOR], status;
    struct queue *queue = &disk.queue[0];
    u8 *code = pages_new(2);
    unsigned wrong = 0, done = 0;
    virtio_negotiate(&disk, 0);
    virtio_queue(&disk, 0, 256);
    if (queue->size != 256) {
        check(false, name, "the queue has %u entries", queue->size);
        return;
    }
    /* It is enabled where virtio_queue put it: once more, elsewhere. */
    virtio_negotiate(&disk, 0);
    common_write(&disk, COMMON_QUEUE_SELECT, 2, 0);
    common_write(&disk, COMMON_QUEUE_SIZE, 2, 256);
    common_write64(&disk, COMMON_QUEUE_DESC, (u64)queue->desc);
    common_write64(&disk, COMMON_QUEUE_DRIVER, (u64)queue->avail);
    common_write64(&disk, COMMON_QUEUE_DEVICE, (u64)code + 2048);
    common_write(&disk, COMMON_QUEUE_ENABLE, 2, 1);
    queue->avail->flags = 0;
    reg_read(disk.isr, 1);
    virtio_go(&disk);
    code[2047] = 0xb8;
    queue->desc[RET_CHAIN] = (struct desc){ (u64)&header, 16, DESC_NEXT, 1 };
    queue->desc[1] = (struct desc){ (u64)sector, SECTOR, DESC_NEXT | DESC_WRITE, 2 };
    queue->desc[2] = (struct desc){ (u64)&status, 1, DESC_WRITE, 0 };
    volatile struct used *used = (volatile struct used *)(code + 2048);
    for (unsigned i = 0; i < rounds; i++) {
        queue->avail->ring[i % 256] = RET_CHAIN;
        __asm__ volatile("mfence" : : : "memory");
        queue->avail->index = (u16)(i + 1);
        queue_notify(queue);
        bool told = false;
        for (u64 start = rdtsc(); !told && rdtsc() - start < 20000000000ull;)
            told = reg_read(disk.isr, 1) & 1;
        if (!told || used->index != i + 1)
            break;
        done++;
        for (unsigned j = 0; j < 10; j++)
            wrong += call(code + 2047) >> 16 != i + 1;
    }
    check(!wrong && done == rounds, name, "%u calls wrong, %u of %u requests done", wrong, done, rounds);
}

/* ---- the end of memory ---- */

/* Its last sector, where there is nothing behind. */
static void check_last_page(const char *name)
{
    u8 *last = (u8 *)(RAM_END - 4096);
    static u8 kept[4096], sector[SECTOR];
    memcpy(kept, last, sizeof kept);
    for (unsigned i = 0; i < SECTOR; i++)
        sector[i] = (u8)(i * 7 + 1);
    bool done = store(0, sector) && load(0, last + 4096 - SECTOR);
    bool same = memcmp(last + 4096 - SECTOR, sector, SECTOR) == 0 && memcmp(last, kept, 4096 - SECTOR) == 0;
    memcpy(last, kept, sizeof kept);
    check(done && same, name, "%s", done ? "holds something else" : "the request failed");
}

static void check_disk(u64 features)
{
    bool packed = features & F_PACKED;
    if (!start_disk(features, false)) {
        check(false, "the disk", "does not start");
        return;
    }
    check_code(packed ? "code, packed rings" : "code");
    check_waiting(packed ? "the code that waits, packed rings" : "the code that waits");
    check_watched_code(packed ? "code that another CPU runs, packed rings" : "code that another CPU runs");
    check_tables(packed ? "page table entries, packed rings" : "page table entries",
                 packed ? "page directory entries, packed rings" : "page directory entries",
                 packed ? "page tables of another CPU, packed rings" : "page tables of another CPU");
    check_last_page(packed ? "the last page, packed rings" : "the last page");
    check_rings_on_code(packed ? "packed rings on pages of code" : "rings on pages of code", features);
    check_rings_on_tables(packed ? "packed rings on page tables" : "rings on page tables", features);
}

void kernel_main(void)
{
    rounds = (unsigned)option("rounds", 200);
    other_start();
    if (!virtio_find(&disk, VIRTIO_BLK, 0)) {
        check(false, "the disk", "was not found");
        return;
    }
    virtio_negotiate(&disk, 0);
    check_disk(F_EVENT_IDX);
    if (disk.offered & F_PACKED)
        check_disk(F_EVENT_IDX | F_PACKED);
    check_used_is_code("a ring that is code");
    bool found = virtio_find(&entropy, VIRTIO_RNG, 0);
    entropy.memory = 1;
    if (found && virtio_negotiate(&entropy, 0) && virtio_queue(&entropy, 0, 8)) {
        virtio_go(&entropy);
        check_immediate("an instruction's bytes from the entropy device");
    } else {
        check(false, "the entropy device", "does not start");
    }
    virtio_reset(&disk);
}
