/* fs.c - see fs.h. Queue 0 has the high priority (FORGET, INTERRUPT), queue 1 all other requests.
 *
 * Requests may be served in any order: a guest that needs one waits for the reply of another. The server counts a look-up before
 * its reply is pushed, so that the FORGET on the other queue always finds it. */
#include "device/virtio/fs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define HIPRIO_SIZE 256u
#define REQUEST_SIZE 1024u /* a request of SHARE_IO_MAX bytes has 256 pages and some */

/* 5.11.4 */
struct fs_space {
    uint8_t tag[VIRTIO_FS_TAG_MAX];
    uint32_t num_request_queues;
    uint32_t notify_buf_size; /* there is no VIRTIO_FS_F_NOTIFICATION */
};

/* Elements in the order they came. */
struct element_list {
    struct virtqueue_element *first, **last;
};

struct fs {
    struct virtio_device virtio;
    struct share *share;
    char tag[VIRTIO_FS_TAG_MAX + 1];
    bool entered, failed; /* whether the I/O thread is prepared to serve; that thread's */

    /* The thread for what takes long: it takes from `todo` and puts to `done`, for the I/O thread to push. */
    pthread_t helper;
    bool helper_runs;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct element_list todo, done; /* the rest is under the lock */
    bool leave, ready;
    int helper_status;
    struct error helper_error;
    struct loop_signal *signal;
};

static void list_init(struct element_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_add(struct element_list *list, struct virtqueue_element *element)
{
    element->next = NULL;
    *list->last = element;
    list->last = &element->next;
}

static struct virtqueue_element *list_take(struct element_list *list)
{
    struct virtqueue_element *element = list->first;
    if (element) {
        list->first = element->next;
        if (!list->first)
            list->last = &list->first;
    }
    return element;
}

static struct share_message message_of(const struct virtqueue_element *element)
{
    return (struct share_message){element->iov, element->readable, element->iov + element->readable, element->writable};
}

/* Serves a request; returns what to push. Any thread that entered the share. */
static size_t handle(struct fs *fs, struct virtqueue_element *element)
{
    struct share_message message = message_of(element);
    size_t written = share_handle(fs->share, &message);
    if (written <= sizeof(struct fuse_out_header))
        element->touched = element->writable_bytes; /* a read that failed may have come some way */
    return written;
}

/* ---- the helper thread ---- */

static void *help(void *context)
{
    struct fs *fs = context;
    struct error error;
    int status = share_thread_enter(fs->share, &error);
    pthread_mutex_lock(&fs->lock);
    fs->helper_status = status;
    if (status < 0)
        fs->helper_error = error;
    fs->ready = true;
    pthread_cond_broadcast(&fs->changed);
    while (status == 0 && !fs->leave) {
        struct virtqueue_element *element = list_take(&fs->todo);
        if (!element) {
            pthread_cond_wait(&fs->changed, &fs->lock);
            continue;
        }
        pthread_mutex_unlock(&fs->lock);
        size_t written = handle(fs, element);
        pthread_mutex_lock(&fs->lock);
        element->owner = (void *)(uintptr_t)written;
        bool first = !fs->done.first;
        list_add(&fs->done, element);
        if (first)
            loop_signal_raise(fs->signal);
    }
    pthread_mutex_unlock(&fs->lock);
    return NULL;
}

/* Starts the helper and waits until it may serve. */
static int start_helper(struct fs *fs, struct error *error)
{
    int code = pthread_create(&fs->helper, NULL, help, fs);
    if (code)
        return error_set(error, code, "starting a thread: %s", strerror(code));
    fs->helper_runs = true;
    pthread_mutex_lock(&fs->lock);
    while (!fs->ready)
        pthread_cond_wait(&fs->changed, &fs->lock);
    pthread_mutex_unlock(&fs->lock);
    if (fs->helper_status < 0 && error)
        *error = fs->helper_error;
    return fs->helper_status;
}

/* I/O thread: pushes what the helper has done. It takes the whole list at once, so that a raised signal always has something
 * in flight, and none is left when the device goes. */
static void push_done(void *context)
{
    struct fs *fs = context;
    pthread_mutex_lock(&fs->lock);
    struct virtqueue_element *element = fs->done.first, *next;
    list_init(&fs->done);
    pthread_mutex_unlock(&fs->lock);
    for (; element; element = next) {
        struct virtqueue *queue = element->queue;
        next = element->next;
        virtqueue_push(queue, element, (uintptr_t)element->owner);
        virtqueue_notify(queue);
    }
}

/* ---- the device ---- */

static void start(struct virtio_device *device)
{
    struct fs *fs = (struct fs *)device;
    struct error error;
    if (!fs->entered && !fs->failed) {
        fs->failed = share_thread_enter(fs->share, &error) < 0;
        fs->entered = !fs->failed;
        if (fs->failed)
            virtio_needs_reset(device, error.text);
    }
}

static void process(struct virtio_device *device, struct virtqueue *queue)
{
    struct fs *fs = (struct fs *)device;
    struct virtqueue_element *element;
    if (!fs->entered)
        return;
    while ((element = virtqueue_pop(queue))) {
        struct share_message message = message_of(element);
        if (share_may_take_long(&message)) {
            pthread_mutex_lock(&fs->lock);
            list_add(&fs->todo, element);
            pthread_cond_broadcast(&fs->changed);
            pthread_mutex_unlock(&fs->lock);
        } else {
            virtqueue_push(queue, element, handle(fs, element));
        }
    }
    virtqueue_notify(queue);
}

/* The driver is gone, and what it knew; what the helper still serves ends by itself. */
static void stop(struct virtio_device *device)
{
    share_reset(((struct fs *)device)->share);
}

/* Paused, so that no request is being served. */
static void save(const struct virtio_device *device, struct stream *stream)
{
    share_save(((const struct fs *)device)->share, stream);
}

static void load(struct virtio_device *device, struct stream *stream)
{
    share_load(((struct fs *)device)->share, stream);
}

static void destroy(struct virtio_device *device)
{
    struct fs *fs = (struct fs *)device;
    if (fs->helper_runs) {
        pthread_mutex_lock(&fs->lock);
        fs->leave = true;
        pthread_cond_broadcast(&fs->changed);
        pthread_mutex_unlock(&fs->lock);
        pthread_join(fs->helper, NULL);
    }
    loop_signal_free(fs->signal);
    virtio_device_finish(device);
    share_close(fs->share);
    pthread_mutex_destroy(&fs->lock);
    pthread_cond_destroy(&fs->changed);
    free(fs);
}

static const struct virtio_ops ops = {.name = "virtio-fs", .id = 26, .class_code = 0x018000, .start = start, .process = process,
                                      .stop = stop, .save = save, .load = load, .destroy = destroy};

int virtio_fs_check_tag(const char *tag, struct error *error)
{
    size_t length = strlen(tag);
    if (length == 0)
        return error_set(error, EINVAL, "the tag is empty");
    if (length > VIRTIO_FS_TAG_MAX)
        return error_set(error, EINVAL, "tag '%.60s' has %zu bytes; at most %u are possible", tag, length, VIRTIO_FS_TAG_MAX);
    for (const char *c = tag; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 127 || *c == '/' || *c == ':')
            return error_set(error, EINVAL, "a tag has neither spaces nor control characters, '/' or ':'");
    return 0;
}

/* Makes the device's parts; what there is on failure is destroyed by the caller. */
static int open_parts(struct fs *fs, const struct virtio_env *env, const struct virtio_fs_config *config, struct error *error)
{
    struct fs_space space = {.num_request_queues = 1};
    memcpy(space.tag, config->tag, strlen(config->tag)); /* padded with zeroes; 36 bytes have none */
    memcpy(fs->tag, config->tag, strlen(config->tag));
    int r = virtio_device_init(&fs->virtio, &ops, env, 0, &space, sizeof space, error);
    if (r < 0)
        return r;
    fs->signal = loop_signal_new(env->loop, push_done, fs);
    if (!fs->signal || !virtio_queue_add(&fs->virtio, HIPRIO_SIZE) || !virtio_queue_add(&fs->virtio, REQUEST_SIZE))
        return error_set(error, ENOMEM, "no memory");
    r = share_open(&config->share, &fs->share, error);
    return r < 0 ? r : start_helper(fs, error);
}

int virtio_fs_new(const struct virtio_env *env, const struct virtio_fs_config *config, struct virtio_device **ret_device,
                  struct error *error)
{
    int r = virtio_fs_check_tag(config->tag, error);
    struct fs *fs = r < 0 ? NULL : calloc(1, sizeof *fs);
    if (r == 0 && !fs)
        r = error_set(error, ENOMEM, "no memory");
    if (r == 0) {
        pthread_mutex_init(&fs->lock, NULL);
        pthread_cond_init(&fs->changed, NULL);
        list_init(&fs->todo);
        list_init(&fs->done);
        r = open_parts(fs, env, config, error);
        if (r < 0)
            destroy(&fs->virtio);
    }
    if (r < 0) {
        error_prefix(error, "share '%s'", config->tag);
        return r;
    }
    *ret_device = &fs->virtio;
    return 0;
}
