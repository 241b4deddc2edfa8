/* reclaim_test.c - the policy against a guest played by numbers. */
#include "device/virtio/reclaim.h"

#include "check.h"

#define MIB (UINT64_C(1) << 20)
#define MS UINT64_C(1000000)

/* A guest of 1 GiB in which `used` bytes are in use, of which the host holds `resident`. */
static struct reclaim reclaim;
static struct reclaim_view view;

static void begin(uint64_t used, uint64_t resident)
{
    reclaim = (struct reclaim){0};
    view = (struct reclaim_view){.now = 5000 * MS, .size = 1024 * MIB, .resident = resident, .free = 1024 * MIB - used};
}

/* Looks when the plan says, with statistics when it asks for them. */
static struct reclaim_plan look(void)
{
    view.fresh = false;
    struct reclaim_plan plan = reclaim_look(&reclaim, &view);
    if (plan.ask) {
        view.fresh = true;
        plan = reclaim_look(&reclaim, &view);
    }
    CHECK(plan.at > view.now);
    view.now = plan.at;
    return plan;
}

/* The balloon does what the plan asks, a quarter of what is missing at each look, and pages it takes leave the host. */
static uint64_t follow(struct reclaim_plan plan)
{
    uint64_t began = view.now;
    for (unsigned i = 0; i < 100 && plan.extra; i++) {
        CHECK(plan.extra <= view.free + view.actual);
        uint64_t step = (plan.extra - view.actual) / 4;
        view.actual += step;
        view.free -= step;
        view.resident -= step < view.resident ? step : view.resident;
        plan = look();
    }
    CHECK_EQ(plan.extra, 0);
    view.free += view.actual;
    view.actual = 0;
    return view.now - began;
}

static void test_nothing_to_do(void)
{
    begin(400 * MIB, 410 * MIB);
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQ(look().extra, 0);
    CHECK_EQ(reclaim.squeezes, 0);
    /* Freed for a moment only. */
    view.resident = 700 * MIB;
    CHECK_EQ(look().extra, 0);
    view.free -= 290 * MIB;
    for (unsigned i = 0; i < 5; i++)
        CHECK_EQ(look().extra, 0);
    CHECK_EQ(reclaim.squeezes, 0);
}

static void test_squeeze(void)
{
    begin(100 * MIB, 100 * MIB);
    look();
    uint64_t freed = view.now;
    view.resident = 800 * MIB;
    CHECK_EQ(look().extra, 0); /* seen */
    struct reclaim_plan plan = look(); /* and seen again */
    CHECK_EQ(reclaim.squeezes, 1);
    CHECK(plan.extra > 700 * MIB && plan.extra < view.free);
    CHECK(view.now - freed < 1500 * MS);
    follow(plan);
    CHECK(view.resident < 200 * MIB);
    for (unsigned i = 0; i < 10; i++)
        CHECK_EQ(look().extra, 0);
    CHECK_EQ(reclaim.squeezes, 1);
}

/* A guest that takes its memory again at once, for ever: it is asked less and less often. */
static void test_rest(void)
{
    begin(100 * MIB, 800 * MIB);
    uint64_t end = view.now + 600000 * MS;
    while (view.now < end) {
        struct reclaim_plan plan = look();
        if (plan.extra) {
            follow(plan);
            view.resident = 800 * MIB;
        }
    }
    CHECK(reclaim.squeezes >= 8 && reclaim.squeezes <= 20);
    /* After a quiet time it is as at the beginning. */
    view.resident = 100 * MIB;
    for (unsigned i = 0; i < 100; i++)
        look();
    view.resident = 800 * MIB;
    unsigned before = reclaim.squeezes;
    look();
    follow(look());
    CHECK_EQ(reclaim.squeezes, before + 1);
    CHECK_EQ(reclaim.rest, 2000 * MS);
}

static void test_ends(void)
{
    /* The guest does not give. */
    begin(100 * MIB, 800 * MIB);
    look();
    struct reclaim_plan plan = look();
    CHECK(plan.extra > 0);
    uint64_t began = view.now;
    while (plan.extra)
        plan = look();
    CHECK(view.now - began < 2000 * MS);
    /* It takes back in the middle: it is short of memory. */
    begin(100 * MIB, 800 * MIB);
    look();
    CHECK(look().extra > 0);
    view.actual = 100 * MIB;
    CHECK(look().extra > 0);
    view.actual = 90 * MIB;
    CHECK_EQ(look().extra, 0);
    /* There is hardly anything free. */
    begin(980 * MIB, 1024 * MIB);
    for (unsigned i = 0; i < 10; i++)
        CHECK_EQ(look().extra, 0);
}

/* A balloon that has a target of its own is left to reach it. */
static void test_target(void)
{
    begin(100 * MIB, 800 * MIB);
    view.target = 300 * MIB;
    for (unsigned i = 0; i < 10; i++)
        CHECK_EQ(look().extra, 0);
    view.actual = 300 * MIB;
    view.free -= 300 * MIB;
    look();
    struct reclaim_plan plan = look();
    CHECK(plan.extra > 0);
    CHECK(plan.extra < view.free);
}

/* No statistics ever come. */
static void test_silent(void)
{
    begin(100 * MIB, 800 * MIB);
    for (unsigned i = 0; i < 10; i++) {
        struct reclaim_plan plan = reclaim_look(&reclaim, &view);
        CHECK(plan.ask);
        CHECK_EQ(plan.extra, 0);
        view.now = plan.at;
    }
}

int main(void)
{
    test_nothing_to_do();
    test_squeeze();
    test_rest();
    test_ends();
    test_target();
    test_silent();
    CHECK_DONE();
}
