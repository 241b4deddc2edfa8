/* The virtio core and transport under a device that holds what it pops and answers it later, in another order. */
#include "virtio_fuzz.h"

struct holder {
    struct virtio_device virtio;
    struct virtqueue_element *held;
};

static void process(struct virtio_device *device, struct virtqueue *queue)
{
    struct holder *holder = (struct holder *)device;
    struct virtqueue_element *element;
    while ((element = virtqueue_pop(queue))) {
        FUZZ_ASSERT(element->readable + element->writable <= virtqueue_size(queue));
        element->next = holder->held;
        holder->held = element;
    }
}

static void finish(void *context)
{
    struct holder *holder = context;
    while (holder->held) {
        struct virtqueue_element *element = holder->held;
        struct virtqueue *queue = element->queue;
        struct virtio_cursor in = virtqueue_readable(element), out = virtqueue_writable(element);
        uint8_t bytes[64];
        holder->held = element->next;
        size_t got = virtio_cursor_get(&in, bytes, sizeof bytes);
        virtqueue_push(queue, element, virtio_cursor_put(&out, bytes, got) + virtio_cursor_zero(&out, 32));
        virtqueue_notify(queue);
    }
}

static void destroy(struct virtio_device *device)
{
    virtio_device_finish(device);
    free(device);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct virtio_ops ops = {.name = "virtio-holder", .id = 42, .process = process, .destroy = destroy};
    static const uint8_t config[16];
    static struct virtio_fuzz fuzz;
    virtio_fuzz_begin(&fuzz);
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    struct holder *holder = calloc(1, sizeof *holder);
    FUZZ_ASSERT(virtio_device_init(&holder->virtio, &ops, &env, 0xff, config, sizeof config, NULL) == 0);
    virtio_config_allow(&holder->virtio, 0, 8);
    for (unsigned i = 0; i < FUZZ_QUEUES; i++)
        FUZZ_ASSERT(virtio_queue_add(&holder->virtio, 16));
    virtio_fuzz_add_device(&fuzz, &holder->virtio);
    fuzz.finish = finish;
    fuzz.context = holder;
    virtio_fuzz_run(&fuzz, data, size);
    return 0;
}
