#include "device/virtio/rng.h"

#include "virtio_fuzz.h"

static size_t not_random(void *owner, void *bytes, size_t length)
{
    (void)owner;
    memset(bytes, 0x5a, length);
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtio_fuzz fuzz;
    virtio_fuzz_begin(&fuzz);
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    virtio_fuzz_add_device(&fuzz, virtio_rng_new(&env, not_random, NULL, NULL));
    virtio_fuzz_run(&fuzz, data, size);
    return 0;
}
