/* main.c - a driver that breaks the rules, one by one and then at random. Whatever it does, a device must say that it needs a reset, or
 * ignore it; after a reset it must work again; and nothing may be written but what it was given.
 *
 * Options: seed=N, rounds=N of the random part, only=N one case (by its number), every=N one case of N, others on the
 * next queue, queues=N at most N of each device. Each case is tried on every queue of every device, with split rings and, where they are offered, packed ones. With a
 * second CPU every other case runs on queues which that one has set up, and which it disturbs. */
#include "abuse.h"

#include "other.h"

static unsigned case_count(void)
{
    return ring_case_count + register_case_count + console_case_count + disturb_case_count;
}

static const struct abuse_case *case_at(unsigned n)
{
    if (n < ring_case_count)
        return &ring_cases[n];
    n -= ring_case_count;
    if (n < register_case_count)
        return &register_cases[n];
    n -= register_case_count;
    return n < console_case_count ? &console_cases[n] : &disturb_cases[n - console_case_count];
}

static void run_case(struct abuse *abuse, const struct abuse_case *one)
{
    bool packed = abuse->features & F_PACKED;
    if (!abuse_begin(abuse))
        return;
    one->run(abuse);
    bool must = abuse->eager && (one->expect == BREAKS || (one->expect == SPLIT_BREAKS && !packed));
    abuse_end(abuse, one->name, must);
}

static void abuse_queue(struct virtio *virtio, unsigned index, u64 features, unsigned rounds)
{
    struct abuse abuse = { .virtio = virtio, .index = index, .features = features };
    static unsigned turn;
    unsigned all = case_count(), only = (unsigned)option("only", all), every = (unsigned)option("every", 1);
    turn++;
    for (unsigned i = 0; i < all; i++)
        if (only >= all ? (i + turn) % (every ? every : 1) == 0 : only == i)
            run_case(&abuse, case_at(i));
    /* What the balloon's first queue gets are numbers of pages to take away: random ones may be anybody's. */
    bool takes_pages = virtio->type == VIRTIO_BALLOON && index == 0;
    if (only >= all && !takes_pages && abuse_begin(&abuse)) {
        abuse_at_random(&abuse, rounds);
        abuse_end(&abuse, "at random", false);
    }
}

void kernel_main(void)
{
    static struct virtio virtio;
    unsigned rounds = (unsigned)option("rounds", 300), found = 0;
    random_state = option("seed", 1) * 0x9e3779b97f4a7c15ull | 1;
    abuse_prepare();
    other_start();
    while (virtio_find(&virtio, 0, found)) {
        found++;
        virtio_negotiate(&virtio, 0);
        unsigned queues = (unsigned)option("queues", QUEUES_MAX);
        if (queues > virtio.queues)
            queues = virtio.queues;
        print("slot %u: type %u, %u queues, features %lx\n", virtio.slot, virtio.type, virtio.queues, (unsigned long)virtio.offered);
        for (unsigned i = 0; i < queues; i++) {
            abuse_queue(&virtio, i, F_INDIRECT, rounds);
            abuse_queue(&virtio, i, F_INDIRECT | F_EVENT_IDX, rounds / 4);
            if (virtio.offered & F_PACKED)
                abuse_queue(&virtio, i, F_INDIRECT | F_EVENT_IDX | F_PACKED, rounds);
        }
    }
    check(found > 0, "devices", "none was found");
}
