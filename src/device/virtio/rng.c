/* rng.c - see rng.h. One queue of buffers that the device fills.
 *
 * A driver asks for a few bytes at a time. What it asks in one buffer is bounded here, so that a guest that asks
 * for megabytes does not hold up the devices that share the thread: it gets fewer, which 5.4.6.2 allows ("one or more bytes"). */
#include "device/virtio/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define QUEUE_SIZE 64u
#define AT_ONCE 4096u

struct rng {
    struct virtio_device virtio;
    size_t (*random)(void *owner, void *bytes, size_t length);
    void *owner;
};

static size_t host_random(void *owner, void *bytes, size_t length)
{
    (void)owner;
    ssize_t got = getrandom(bytes, length, 0);
    return got > 0 ? (size_t)got : 0;
}

static void process(struct virtio_device *device, struct virtqueue *queue)
{
    struct rng *rng = (struct rng *)device;
    struct virtqueue_element *element;
    while ((element = virtqueue_pop(queue))) {
        uint8_t bytes[AT_ONCE];
        struct virtio_cursor out = virtqueue_writable(element);
        size_t got = rng->random(rng->owner, bytes, out.left < AT_ONCE ? (size_t)out.left : AT_ONCE);
        virtqueue_push(queue, element, virtio_cursor_put(&out, bytes, got));
    }
    virtqueue_notify(queue);
}

static void destroy(struct virtio_device *device)
{
    virtio_device_finish(device);
    free(device);
}

static const struct virtio_ops ops = {
    .name = "virtio-rng", .id = 4, .class_code = 0xff0000, .process = process, .destroy = destroy};

struct virtio_device *virtio_rng_new(const struct virtio_env *env, size_t (*random)(void *owner, void *bytes, size_t length),
                                     void *owner, struct error *error)
{
    struct rng *rng = calloc(1, sizeof *rng);
    if (!rng) {
        error_set(error, ENOMEM, "virtio-rng: no memory");
        return NULL;
    }
    rng->random = random ? random : host_random;
    rng->owner = owner;
    int status = virtio_device_init(&rng->virtio, &ops, env, 0, NULL, 0, error);
    if (status == 0 && !virtio_queue_add(&rng->virtio, QUEUE_SIZE))
        status = error_set(error, ENOMEM, "virtio-rng: no memory");
    if (status < 0) {
        destroy(&rng->virtio);
        return NULL;
    }
    return &rng->virtio;
}
