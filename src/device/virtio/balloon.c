/* balloon.c - see balloon.h.
 *
 * A page that is given back is punched out of the memory's file (ram_discard), before the guest is told that its request
 * is done: until then it does not touch the page (5.5.6.1, 5.5.6.7). So nothing that the guest stores is lost, and
 * no page needs to be kept in mind. Deflating is nothing but an acknowledgement: the mapping never went.
 *
 * Which queue has which role follows from the features that were accepted, as queues exist only with their feature. */
#include "device/virtio/balloon.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "device/virtio/reclaim.h"

enum { FEATURE_TELL_HOST, FEATURE_STATS, FEATURE_DEFLATE_ON_OOM, FEATURE_HINT, FEATURE_POISON, FEATURE_REPORTING };
enum role { INFLATE, DEFLATE, STATS, REPORTING, ROLES };

#define QUEUE_SIZE 128u
#define TURN 32u         /* requests of a queue, before other devices of the loop get their turn */
#define PAGES_MAX 65536u /* of one request to inflate: Linux asks for 256 */
#define PAGES_AT_ONCE 1024u
#define STATS_MAX 64u

/* struct virtio_balloon_config, 5.5.4. */
struct config {
    uint32_t pages, actual, hint_command, poison;
};

struct stat_entry {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));

struct balloon {
    struct virtio_device device;
    struct virtqueue *role[ROLES]; /* NULL: not negotiated */
    bool keep_reported;            /* the guest fills free pages with a pattern and expects it there later */
    struct virtqueue_element *question; /* the buffer that asks for statistics by being given back */
    struct loop_signal *ask, *more, *set;
    struct clock clock;
    struct clock_timer *timer;     /* for the next look of reclaim */
    struct reclaim reclaim;
    bool asked;                    /* for it */
    uint64_t extra;                /* what it has the balloon take */
    pthread_mutex_t lock;          /* of info */
    struct balloon_info info;
    uint32_t page[PAGES_AT_ONCE];
};

static struct balloon *of(struct virtio_device *device)
{
    return (struct balloon *)device;
}

static void count(struct balloon *balloon, uint64_t *counter, uint64_t bytes)
{
    pthread_mutex_lock(&balloon->lock);
    *counter += bytes;
    pthread_mutex_unlock(&balloon->lock);
}

static uint32_t to_pages(const struct virtio_env *env, uint64_t target)
{
    uint64_t pages = (target < env->ram->size ? target : env->ram->size) / RAM_PAGE_SIZE;
    return pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
}

/* --- inflating and deflating */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Gives the listed pages back, neighbours together. Those that are not the guest's RAM are ignored. Returns how many bytes went. */
static uint64_t discard_pages(struct balloon *balloon, unsigned n)
{
    uint64_t bytes = 0;
    qsort(balloon->page, n, sizeof *balloon->page, compare);
    for (unsigned first = 0, next; first < n; first = next) {
        for (next = first + 1; next < n && balloon->page[next] - balloon->page[next - 1] <= 1; next++)
            continue;
        uint64_t length = ((uint64_t)balloon->page[next - 1] - balloon->page[first] + 1) * RAM_PAGE_SIZE;
        if (ram_discard(balloon->device.env.ram, (uint64_t)balloon->page[first] * RAM_PAGE_SIZE, length) == 0)
            bytes += length;
    }
    return bytes;
}

/* False: the request is none. */
static bool inflate(struct balloon *balloon, struct virtqueue_element *element)
{
    struct virtio_cursor in = virtqueue_readable(element);
    if (in.left > PAGES_MAX * sizeof(uint32_t) || in.left % sizeof(uint32_t))
        return false;
    uint64_t bytes = 0;
    size_t n;
    while ((n = virtio_cursor_get(&in, balloon->page, sizeof balloon->page)) > 0)
        bytes += discard_pages(balloon, (unsigned)(n / sizeof(uint32_t)));
    count(balloon, &balloon->info.inflated, bytes);
    return true;
}

/* --- free page reporting: the pages themselves are the buffer's pieces */

static bool report(struct balloon *balloon, struct virtqueue_element *element)
{
    uint64_t bytes = 0;
    if (element->writable_bytes > balloon->device.env.ram->size)
        return false;
    for (unsigned i = element->readable; i < element->readable + element->writable && !balloon->keep_reported; i++) {
        uint64_t first = (element->gpa[i] + RAM_PAGE_SIZE - 1) & ~(uint64_t)(RAM_PAGE_SIZE - 1);
        uint64_t end = (element->gpa[i] + element->iov[i].iov_len) & ~(uint64_t)(RAM_PAGE_SIZE - 1);
        if (first < end && ram_discard(balloon->device.env.ram, first, end - first) == 0)
            bytes += end - first;
    }
    count(balloon, &balloon->info.reported, bytes);
    return true;
}

/* --- statistics: the device keeps the guest's buffer, and gives it back when it wants another */

static void read_stats(struct balloon *balloon, const struct virtqueue_element *element)
{
    struct virtio_cursor in = virtqueue_readable(element);
    struct stat_entry entry[STATS_MAX];
    size_t n = virtio_cursor_get(&in, entry, sizeof entry) / sizeof *entry;
    pthread_mutex_lock(&balloon->lock);
    balloon->info.known = 0;
    for (size_t i = 0; i < n; i++) {
        if (entry[i].tag >= BALLOON_STATS)
            continue;
        balloon->info.known |= 1u << entry[i].tag;
        balloon->info.stat[entry[i].tag] = entry[i].value;
    }
    balloon->info.told_ns = clock_now(&balloon->clock);
    pthread_mutex_unlock(&balloon->lock);
}

static void look(struct balloon *balloon, bool fresh);

static void serve_stats(struct balloon *balloon)
{
    struct virtqueue *queue = balloon->role[STATS];
    struct virtqueue_element *element;
    for (unsigned i = 0; i < TURN && (element = virtqueue_pop(queue)); i++) {
        if (balloon->question) { /* there should be one at a time (5.5.6.4.1) */
            virtqueue_push(queue, balloon->question, 0);
            virtqueue_notify(queue);
        }
        balloon->question = element;
        read_stats(balloon, element);
        if (balloon->asked)
            look(balloon, true);
    }
}

static void on_ask(void *context)
{
    struct balloon *balloon = context;
    if (!balloon->question)
        return;
    virtqueue_push(balloon->role[STATS], balloon->question, 0);
    balloon->question = NULL;
    virtqueue_notify(balloon->role[STATS]);
    serve_stats(balloon); /* which asks to be told of the next one */
}

/* --- the target, and what reclaim adds to it */

/* Tells the guest how many pages the balloon is to have, if that changed. */
static void set_pages(void *context)
{
    struct balloon *balloon = context;
    struct virtio_device *device = &balloon->device;
    uint32_t now;
    pthread_mutex_lock(&balloon->lock);
    uint64_t bytes = balloon->info.target + balloon->extra;
    pthread_mutex_unlock(&balloon->lock);
    uint32_t pages = to_pages(&device->env, bytes);
    virtio_config_get(device, offsetof(struct config, pages), &now, sizeof now);
    if (now != pages)
        virtio_config_set(device, offsetof(struct config, pages), &pages, sizeof pages);
}

/* fresh: the statistics have just come. */
static void look(struct balloon *balloon, bool fresh)
{
    pthread_mutex_lock(&balloon->lock);
    struct reclaim_view view = {.now = clock_now(&balloon->clock), .size = balloon->device.env.ram->size,
                                .resident = ram_resident(balloon->device.env.ram), .target = balloon->info.target,
                                .actual = balloon->info.actual, .fresh = fresh && balloon->info.known >> BALLOON_FREE & 1,
                                .free = balloon->info.stat[BALLOON_FREE]};
    pthread_mutex_unlock(&balloon->lock);
    balloon->asked = false;
    struct reclaim_plan plan = reclaim_look(&balloon->reclaim, &view);
    pthread_mutex_lock(&balloon->lock);
    balloon->extra = plan.extra;
    balloon->info.squeezes = balloon->reclaim.squeezes;
    pthread_mutex_unlock(&balloon->lock);
    set_pages(balloon);
    clock_timer_arm(&balloon->clock, balloon->timer, plan.at);
    if (plan.ask && !fresh) {
        balloon->asked = true;
        on_ask(balloon);
    }
}

static void on_timer(void *context)
{
    struct balloon *balloon = context;
    if (balloon->role[STATS])
        look(balloon, false);
}

/* --- a device */

static void serve_pages(struct balloon *balloon, enum role role)
{
    struct virtqueue *queue = balloon->role[role];
    struct virtqueue_element *element;
    unsigned done = 0;
    while (done < TURN && (element = virtqueue_pop(queue))) {
        bool good = role == INFLATE ? inflate(balloon, element) : role == REPORTING ? report(balloon, element) : true;
        virtqueue_push(queue, element, 0);
        done++;
        if (!good) {
            virtqueue_break(queue, "a request names more pages than there are, or parts of numbers");
            break;
        }
    }
    if (done)
        virtqueue_notify(queue);
    if (done == TURN)
        loop_signal_raise(balloon->more);
}

static void serve_all(void *context)
{
    struct balloon *balloon = context;
    serve_pages(balloon, INFLATE);
    serve_pages(balloon, DEFLATE);
    if (balloon->role[REPORTING])
        serve_pages(balloon, REPORTING);
    if (balloon->role[STATS])
        serve_stats(balloon);
}

/* After a turn that did not do all; the device may have been reset in between. */
static void on_more(void *context)
{
    struct balloon *balloon = context;
    if (balloon->role[INFLATE])
        serve_all(balloon);
}

static void balloon_process(struct virtio_device *device, struct virtqueue *queue)
{
    struct balloon *balloon = of(device);
    if (queue == balloon->role[STATS])
        serve_stats(balloon);
    else
        for (enum role role = INFLATE; role < ROLES; role++)
            if (queue == balloon->role[role] && role != STATS)
                serve_pages(balloon, role);
}

static void read_config(struct virtio_device *device)
{
    struct balloon *balloon = of(device);
    struct config config;
    virtio_config_get(device, 0, &config, sizeof config);
    balloon->keep_reported = virtio_has(device, FEATURE_POISON) && config.poison;
    pthread_mutex_lock(&balloon->lock);
    balloon->info.actual = (uint64_t)config.actual * RAM_PAGE_SIZE;
    pthread_mutex_unlock(&balloon->lock);
}

static void balloon_start(struct virtio_device *device)
{
    static const struct { enum role role; unsigned feature; } optional[] = {{STATS, FEATURE_STATS}, {REPORTING, FEATURE_REPORTING}};
    struct balloon *balloon = of(device);
    unsigned queue = 0;
    balloon->role[INFLATE] = device->queue[queue++];
    balloon->role[DEFLATE] = device->queue[queue++];
    for (unsigned i = 0; i < sizeof optional / sizeof *optional; i++)
        balloon->role[optional[i].role] = virtio_has(device, optional[i].feature) ? device->queue[queue++] : NULL;
    read_config(device);
    pthread_mutex_lock(&balloon->lock);
    balloon->info.present = true;
    pthread_mutex_unlock(&balloon->lock);
    set_pages(balloon); /* a saved state may have held what reclaim asked for */
    on_timer(balloon);
}

static void balloon_stop(struct virtio_device *device)
{
    struct balloon *balloon = of(device);
    if (balloon->question)
        virtqueue_drop(balloon->role[STATS], balloon->question);
    balloon->question = NULL;
    clock_timer_arm(&balloon->clock, balloon->timer, CLOCK_NEVER);
    balloon->reclaim = (struct reclaim){0};
    balloon->extra = 0;
    balloon->asked = false;
    memset(balloon->role, 0, sizeof balloon->role);
    pthread_mutex_lock(&balloon->lock);
    balloon->info.present = false;
    balloon->info.actual = 0; /* a driver that goes takes its pages back first */
    balloon->info.known = 0;
    pthread_mutex_unlock(&balloon->lock);
}

static void balloon_pause(struct virtio_device *device)
{
    struct balloon *balloon = of(device);
    if (balloon->question)
        virtqueue_unpop(balloon->role[STATS], balloon->question);
    balloon->question = NULL;
    clock_timer_arm(&balloon->clock, balloon->timer, CLOCK_NEVER);
}

static void balloon_resume(struct virtio_device *device)
{
    on_timer(device);
}

static void balloon_save(const struct virtio_device *device, struct stream *stream)
{
    stream_put_u64(stream, ((const struct balloon *)device)->info.target);
}

static void balloon_load(struct virtio_device *device, struct stream *stream)
{
    uint64_t target = stream_get_u64(stream);
    if (target > device->env.ram->size)
        stream_fail(stream, "the saved balloon is to take more memory than there is");
    else
        of(device)->info.target = target;
}

static void balloon_destroy(struct virtio_device *device)
{
    struct balloon *balloon = of(device);
    virtio_device_finish(device);
    loop_signal_free(balloon->ask);
    loop_signal_free(balloon->more);
    loop_signal_free(balloon->set);
    if (balloon->timer)
        clock_timer_free(&balloon->clock, balloon->timer);
    pthread_mutex_destroy(&balloon->lock);
    free(balloon);
}

static const struct virtio_ops balloon_ops = {
    .name = "virtio-balloon", .id = 5, .class_code = 0x050000, .start = balloon_start, .process = balloon_process,
    .stop = balloon_stop, .pause = balloon_pause, .resume = balloon_resume, .config_written = read_config,
    .save = balloon_save, .load = balloon_load, .destroy = balloon_destroy};

struct virtio_device *virtio_balloon_new(const struct virtio_env *env, uint64_t target, struct error *error)
{
    struct balloon *balloon = calloc(1, sizeof *balloon);
    if (!balloon) {
        error_set(error, ENOMEM, "virtio-balloon: no memory");
        return NULL;
    }
    struct virtio_device *device = &balloon->device;
    struct config config = {.pages = to_pages(env, target)};
    balloon->info.target = (uint64_t)config.pages * RAM_PAGE_SIZE;
    pthread_mutex_init(&balloon->lock, NULL);
    int status = virtio_device_init(device, &balloon_ops, env,
                                    VIRTIO_BIT(FEATURE_STATS) | VIRTIO_BIT(FEATURE_DEFLATE_ON_OOM) |
                                        VIRTIO_BIT(FEATURE_POISON) | VIRTIO_BIT(FEATURE_REPORTING),
                                    &config, sizeof config, error);
    for (unsigned i = 0; status == 0 && i < ROLES; i++)
        if (!virtio_queue_add(device, QUEUE_SIZE))
            status = error_set(error, ENOMEM, "virtio-balloon: no memory");
    if (status == 0) {
        virtio_config_allow(device, offsetof(struct config, actual), sizeof config.actual);
        virtio_config_allow(device, offsetof(struct config, poison), sizeof config.poison);
        balloon->clock = loop_clock(env->loop);
        balloon->ask = loop_signal_new(env->loop, on_ask, balloon);
        balloon->more = loop_signal_new(env->loop, on_more, balloon);
        balloon->set = loop_signal_new(env->loop, set_pages, balloon);
        balloon->timer = clock_timer_new(&balloon->clock, on_timer, balloon);
        if (!balloon->ask || !balloon->more || !balloon->set || !balloon->timer)
            status = error_set(error, ENOMEM, "virtio-balloon: no memory");
    }
    if (status < 0) {
        balloon_destroy(device);
        return NULL;
    }
    return device;
}

void virtio_balloon_set(struct virtio_device *device, uint64_t target)
{
    struct balloon *balloon = of(device);
    pthread_mutex_lock(&balloon->lock);
    balloon->info.target = (uint64_t)to_pages(&device->env, target) * RAM_PAGE_SIZE;
    pthread_mutex_unlock(&balloon->lock);
    loop_signal_raise(balloon->set);
}

void virtio_balloon_ask(struct virtio_device *device)
{
    loop_signal_raise(of(device)->ask);
}

void virtio_balloon_info(struct virtio_device *device, struct balloon_info *ret_info)
{
    struct balloon *balloon = of(device);
    pthread_mutex_lock(&balloon->lock);
    *ret_info = balloon->info;
    pthread_mutex_unlock(&balloon->lock);
}
