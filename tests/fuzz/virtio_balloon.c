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

/* Lists of pages to take and give, statistics, ranges that are free. Pages of rings among them count as damage. */
static void request(struct virtio_fuzz *fuzz, struct fuzz_input *input, unsigned choice)
{
    uint8_t *bytes;
    uint64_t gpa = virtio_fuzz_slot(fuzz, &bytes);
    unsigned queue = choice % FUZZ_QUEUES, count = (unsigned)fuzz_take(input, 1) % 24;
    struct driver_piece pieces[2] = {{gpa, 0}, {gpa + 4096, 0}};
    for (unsigned i = 0; i < count && queue < 2; i++) {
        uint32_t page = (uint32_t)fuzz_take(input, 1);
        page = choice > 22 ? page << 24 | page : page;
        fuzz->damaged |= page < FUZZ_BUFFERS >> 12;
        memcpy(bytes + i * sizeof page, &page, sizeof page);
        pieces[0].length += (uint32_t)sizeof page;
    }
    for (unsigned i = 0; i < count && queue == 2; i++) { /* tag and value, packed */
        uint64_t value = fuzz_take(input, 2) << (count * 2);
        uint16_t tag = (uint16_t)(i + (choice > 22 ? 100 : 0));
        memcpy(bytes + i * 10, &tag, sizeof tag);
        memcpy(bytes + i * 10 + 2, &value, sizeof value);
        pieces[0].length += 10;
    }
    if (queue == 3) {
        pieces[0] = (struct driver_piece){FUZZ_BUFFERS + 4096ull * (fuzz_take(input, 1) & 63), 4096u * count};
        pieces[1] = (struct driver_piece){FUZZ_BUFFERS + 512ull * fuzz_take(input, 1), 4096};
    }
    virtio_fuzz_offer(fuzz, queue, pieces, queue < 3 ? 1 : 0, queue < 3 ? 0 : 2, FUZZ_NOTIFY | (choice & 4 ? FUZZ_INDIRECT : 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtio_fuzz fuzz;
    virtio_fuzz_begin(&fuzz);
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    struct virtio_device *device = virtio_balloon_new(&env, 0, NULL);
    virtio_fuzz_add_device(&fuzz, device);
    fuzz.finish = finish;
    fuzz.request = request;
    fuzz.raw_damages = true;
    fuzz.context = device;
    virtio_fuzz_run(&fuzz, data, size);
    return 0;
}
