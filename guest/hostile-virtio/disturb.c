/* disturb.c - a second CPU in the driver's affairs: it sets queues up that the first then uses, notifies at random, reads what it likes,
 * and, when it is rough, resets the device under the first one's hands. */
#include "abuse.h"

#include "other.h"

static struct {
    const struct virtio *virtio;
    bool rough;
    volatile bool stop;
    u64 state; /* random numbers of its own */
} disturbance = { .state = 1 };

static u64 pick(void)
{
    u64 x = disturbance.state;
    x ^= x << 13;
    x ^= x >> 7;
    return disturbance.state = x ^ x << 17;
}

static void rough_turn(const struct virtio *virtio)
{
    switch (pick() % 6) {
    case 0: common_write(virtio, COMMON_STATUS, 1, 0); break;
    case 1: common_write(virtio, COMMON_STATUS, 1, (u32)pick()); break;
    case 2: common_write(virtio, COMMON_STATUS, 1, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK); break;
    case 3: common_write(virtio, COMMON_QUEUE_SELECT, 2, (u32)pick() % 8); break;
    case 4: common_write(virtio, COMMON_QUEUE_ENABLE, 2, 1); break;
    default: common_write(virtio, COMMON_QUEUE_SIZE, 2, 1u << pick() % 8); break;
    }
}

static void disturb(void *context)
{
    (void)context;
    const struct virtio *virtio = disturbance.virtio;
    while (!disturbance.stop) {
        if (disturbance.rough && pick() % 4 == 0)
            rough_turn(virtio);
        switch (pick() % 8) {
        case 0: common_read(virtio, COMMON_STATUS, 1); break;
        case 1: reg_read(virtio->isr, 1); break;
        case 2:
            if (virtio->config)
                reg_read(virtio->config + (pick() & 60), 4);
            break;
        case 3: common_read(virtio, (u32)pick() % COMMON_END & ~3u, 4); break;
        default: reg_write(virtio->notify + pick() % 16 * virtio->notify_multiplier, 2, (u32)pick() & 15); break;
        }
        delay(pick() % 8192); /* the board's lock is for both */
    }
}

void disturb_begin(const struct virtio *virtio, bool rough)
{
    if (!other_there())
        return;
    disturb_end();
    disturbance.virtio = virtio;
    disturbance.rough = rough;
    disturbance.stop = false;
    other_do(disturb, NULL);
}

void disturb_end(void)
{
    disturbance.stop = true;
    other_wait();
}

/* Both at it: one fills queues and starts the device, the other resets it and writes its registers. */
static void reset_by_another(struct abuse *abuse)
{
    disturb_begin(abuse->virtio, true);
    for (unsigned i = 0; i < 40; i++) {
        offer_all_the_same(abuse);
        if (i % 4 == 0)
            virtio_go(abuse->virtio);
        if (i % 10 == 9 && abuse_set_up(abuse->virtio, abuse->features) <= abuse->index)
            break; /* the other was in between */
    }
    disturb_end();
}

/* The rings stay while a reset is under way, and buffers in them go elsewhere. */
static void changed_under_reset(struct abuse *abuse)
{
    disturb_begin(abuse->virtio, true);
    for (unsigned i = 0; i < 200; i++) {
        chain_item(abuse, i % 8, i & 1 ? NOWHERE : scratch_at(64 * (i % 64)), i & 2 ? 0xffffffffu : 4096, DESC_WRITE, (u16)random64());
        offer(abuse, (u16)(i % 8), 1);
        if (i % 32 == 0)
            common_write(abuse->virtio, COMMON_STATUS, 1, 0);
        if (i % 32 == 1)
            virtio_go(abuse->virtio);
    }
    disturb_end();
}

const struct abuse_case disturb_cases[] = {
    { "resets by another CPU", reset_by_another, EITHER },
    { "buffers changed under another's resets", changed_under_reset, EITHER },
};
const unsigned disturb_case_count = sizeof disturb_cases / sizeof disturb_cases[0];
