#include "device/virtio/blk.h"

#include "support/memory_block.h"
#include "virtio_fuzz.h"

static void finish(void *context)
{
    memory_block_finish(context);
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
    fuzz.context = memory;
    virtio_fuzz_run(&fuzz, data + (size > 0), size - (size > 0));
    FUZZ_ASSERT(memory->block.in_flight == 0);
    block_close(&memory->block);
    return 0;
}
