#include "device/virtio/reclaim.h"

#define MIB (UINT64_C(1) << 20)
#define MILLISECOND UINT64_C(1000000)
#define WATCH_EVERY (1000 * MILLISECOND)
#define CONFIRM_AFTER (250 * MILLISECOND) /* what was freed for a moment only is left alone */
#define SQUEEZE_EVERY (25 * MILLISECOND)
#define STUCK_AFTER (200 * MILLISECOND) /* a balloon that does not grow for so long will not */
#define REST_FIRST (2000 * MILLISECOND)
#define REST_MAX (60000 * MILLISECOND)
#define SOON (10000 * MILLISECOND) /* memory that is in use again so soon after a squeeze was not worth it */

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* So many idle bytes are no matter. */
static uint64_t tolerance(const struct reclaim_view *view)
{
    return larger(32 * MIB, view->size / 32);
}

/* What the host holds that nobody uses; 0 when it is too little to bother the guest. */
static uint64_t surplus_of(const struct reclaim_view *view)
{
    uint64_t idle = view->free + view->actual; /* what is in the balloon is not resident either */
    uint64_t used = idle < view->size ? view->size - idle : 0;
    uint64_t surplus = view->resident > used ? view->resident - used : 0;
    return surplus >= tolerance(view) ? surplus : 0;
}

static struct reclaim_plan watch(struct reclaim *reclaim, const struct reclaim_view *view, bool ask)
{
    reclaim->state = RECLAIM_WATCH;
    reclaim->extra = 0;
    return (struct reclaim_plan){.ask = ask, .at = view->now + WATCH_EVERY};
}

/* The balloon may take all that is free but a reserve: which of the free pages the host has behind it nobody knows. It stops when
 * enough came back. */
static struct reclaim_plan squeeze(struct reclaim *reclaim, const struct reclaim_view *view, uint64_t surplus)
{
    uint64_t reserve = larger(32 * MIB, view->size / 16);
    if (view->free <= reserve)
        return watch(reclaim, view, false);
    bool again = reclaim->squeezes > 0 && view->now - reclaim->ended < reclaim->rest + SOON;
    reclaim->rest = again ? reclaim->rest * 2 : REST_FIRST;
    if (reclaim->rest > REST_MAX)
        reclaim->rest = REST_MAX;
    reclaim->state = RECLAIM_SQUEEZE;
    reclaim->extra = view->free - reserve;
    reclaim->goal = view->resident - surplus + tolerance(view) / 2;
    reclaim->actual = view->actual;
    reclaim->moved = view->now;
    reclaim->squeezes++;
    return (struct reclaim_plan){.extra = reclaim->extra, .at = view->now + SQUEEZE_EVERY};
}

static struct reclaim_plan go_on(struct reclaim *reclaim, const struct reclaim_view *view)
{
    bool shrank = view->actual < reclaim->actual; /* the guest was short of memory and took some back */
    if (view->actual != reclaim->actual) {
        reclaim->actual = view->actual;
        reclaim->moved = view->now;
    }
    if (shrank || view->actual >= view->target + reclaim->extra || view->resident <= reclaim->goal ||
        view->now - reclaim->moved >= STUCK_AFTER) {
        reclaim->ended = view->now;
        return watch(reclaim, view, false);
    }
    return (struct reclaim_plan){.extra = reclaim->extra, .at = view->now + SQUEEZE_EVERY};
}

struct reclaim_plan reclaim_look(struct reclaim *reclaim, const struct reclaim_view *view)
{
    if (reclaim->state == RECLAIM_SQUEEZE)
        return go_on(reclaim, view);
    if (!view->fresh)
        return (struct reclaim_plan){.ask = true, .at = view->now + WATCH_EVERY};
    uint64_t surplus = surplus_of(view);
    bool resting = reclaim->squeezes > 0 && view->now - reclaim->ended < reclaim->rest;
    /* A balloon that has not reached its own target yet is at work already; one that holds more is giving back. */
    if (surplus == 0 || resting || view->actual != view->target)
        return watch(reclaim, view, false);
    if (reclaim->state == RECLAIM_WATCH) {
        reclaim->state = RECLAIM_CONFIRM;
        reclaim->surplus = surplus;
        return (struct reclaim_plan){.at = view->now + CONFIRM_AFTER};
    }
    return squeeze(reclaim, view, surplus < reclaim->surplus ? surplus : reclaim->surplus);
}
