#include "device/virtio/blk.h"

#include "support/memory_block.h"
#include "virtio_fuzz.h"

static void finish(void *context)
{
    memory_block_finish(context);
}

/* A request of any type, at any sector or near the ends, with any length of data; ranges for the types that have them. */
static void request(struct virtio_fuzz *fuzz, struct fuzz_input *input, unsigned choice)
{
    static const uint8_t types[] = {0, 1, 1, 4, 8, 11, 13, 2};
    uint8_t *bytes;
    uint64_t gpa = virtio_fuzz_slot(fuzz, &bytes);
    uint32_t kind = (uint32_t)fuzz_take(input, 1), type = kind & 0xf8 ? types[kind & 7] : kind * 3;
    uint64_t sector = fuzz_take(input, 2), length = 32 * fuzz_take(input, 1);
    if (sector & 0x8000)
        sector = 512 - (sector & 15);
    else if (sector & 0x4000)
        sector <<= 49;
    bool ranges = type == 11 || type == 13;
    struct { uint32_t type, priority; uint64_t sector; } header = {type, 0, sector};
    memcpy(bytes, &header, sizeof header);
    for (unsigned i = 0; ranges && i < 4; i++) {
        struct { uint64_t sector; uint32_t count, flags; } range = {sector + 64 * i, (uint32_t)fuzz_take(input, 1), kind >> 6};
        memcpy(bytes + 32 + i * sizeof range, &range, sizeof range);
    }
    bool writes = type == 0 || type == 8;
    struct driver_piece pieces[4] = {{gpa, 16}, {gpa + 32, (uint32_t)length}, {gpa + 8176, 1}, {gpa + 8180, 3}};
    if (choice & 8) /* some of the data beside the header */
        pieces[0].length += 16;
    virtio_fuzz_offer(fuzz, choice & 1, pieces, writes ? 1 : 2, choice & 4 ? (writes ? 3 : 2) : (writes ? 2 : 1),
                      FUZZ_NOTIFY | (choice & 2 ? FUZZ_INDIRECT : 0));
}

/* The first byte says whether requests wait, fail, or may not write. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtio_fuzz fuzz;
    virtio_fuzz_begin(&fuzz);
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    struct memory_block *memory = memory_block_new(256 << 10);
    unsigned choice = size ? data[0] : 0;
    memory->slow = choice & 1;
    memory->fail = choice & 2 ? -EIO : 0;
    memory->block.limits.readonly = choice & 4;
    struct virtio_blk_config config = {.block = &memory->block, .queues = FUZZ_QUEUES, .serial = "serial"};
    virtio_fuzz_add_device(&fuzz, virtio_blk_new(&env, &config, NULL));
    fuzz.finish = finish;
    fuzz.request = request;
    fuzz.context = memory;
    virtio_fuzz_run(&fuzz, data + (size > 0), size - (size > 0));
    FUZZ_ASSERT(memory->block.in_flight == 0);
    block_close(&memory->block);
    return 0;
}
