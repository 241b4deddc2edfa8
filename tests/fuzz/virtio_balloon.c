/* virtio_balloon.c - fuzzes the balloon from the driver's side: lists of pages, statistics, reported ranges. */
#include "device/virtio/balloon.h"

#define FUZZ_QUEUES 4u
#include "virtio_fuzz.h"

/* The owner looks, and changes its mind. */
static void finish(void *context)
{
    struct virtio_device *device = context;
    struct balloon_info info;
    virtio_balloon_info(device, &info);
    FUZZ_ASSERT(info.target <= FUZZ_MEMORY);
    virtio_balloon_set(device, info.actual % (2 * FUZZ_MEMORY));
    virtio_balloon_ask(device);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtio_fuzz fuzz;
    virtio_fuzz_begin(&fuzz);
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    struct virtio_device *device = virtio_balloon_new(&env, 0, NULL);
    virtio_fuzz_add_device(&fuzz, device);
    fuzz.finish = finish;
    fuzz.context = device;
    virtio_fuzz_run(&fuzz, data, size);
    return 0;
}
