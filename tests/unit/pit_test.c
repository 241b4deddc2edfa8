/* pit_test.c - the 8254: modes, latches, the interrupt, and Linux's use of counter 2. */
#include "device/platform/pit.h"

#include "device_check.h"
#include "fake_clock.h"

static struct fake_clock fake;
static struct test_line line;

static struct device *make(void)
{
    struct pit_config config = {.clock = &fake.clock, .irq = test_line(&line, 0)};
    return pit_new(&config);
}

static void out(struct device *pit, unsigned port, uint8_t value)
{
    device_put(pit, PIT_REGION_COUNTERS, port, 1, value);
}

static uint8_t in(struct device *pit, unsigned port)
{
    return (uint8_t)device_get(pit, PIT_REGION_COUNTERS, port, 1);
}

static unsigned count16(struct device *pit, unsigned counter)
{
    unsigned low = in(pit, counter);
    return low | (unsigned)in(pit, counter) << 8;
}

static void load(struct device *pit, unsigned counter, unsigned mode, uint16_t count)
{
    out(pit, 3, (uint8_t)(counter << 6 | 0x30 | mode << 1));
    out(pit, counter, (uint8_t)count);
    out(pit, counter, (uint8_t)(count >> 8));
}

static uint64_t ns(uint64_t ticks)
{
    return (ticks * 1000000000u + PIT_HZ - 1) / PIT_HZ;
}

static void test_periodic(struct device *pit)
{
    load(pit, 0, 2, 11932); /* about 100 Hz */
    CHECK_EQ(line.level, 0);
    unsigned rises = line.rises;
    fake_clock_advance(&fake, ns(11932) - 1);
    CHECK_EQ(line.rises, rises);
    fake_clock_advance(&fake, 1);
    CHECK_EQ(line.rises, rises + 1);
    fake_clock_advance(&fake, UINT64_C(10000000000));
    CHECK(line.rises >= rises + 1000 && line.rises <= rises + 1001);
    load(pit, 0, 2, 10000);
    fake_clock_advance(&fake, ns(2500));
    CHECK_EQ(count16(pit, 0), 7500);
    out(pit, 3, 0x00); /* latch */
    fake_clock_advance(&fake, ns(1000));
    CHECK_EQ(count16(pit, 0), 7500);
    CHECK_EQ(count16(pit, 0), 6500);
    load(pit, 0, 3, 10000);
    fake_clock_advance(&fake, ns(1000));
    CHECK_EQ(count16(pit, 0), 8000); /* by twos */
}

static void test_one_shot(struct device *pit)
{
    load(pit, 0, 0, 1000);
    unsigned rises = line.rises;
    fake_clock_advance(&fake, ns(999));
    CHECK_EQ(line.level, 0);
    CHECK_EQ(count16(pit, 0), 1);
    fake_clock_advance(&fake, ns(2));
    CHECK_EQ(line.level, 1);
    fake_clock_advance(&fake, 1000000000);
    CHECK_EQ(line.rises, rises + 1); /* once */
    out(pit, 3, 0xE2); /* read back: status of counter 0 */
    CHECK_EQ(in(pit, 0), 0xB0); /* OUT high, both bytes, mode 0 */
    out(pit, 3, 0x30);
    CHECK_EQ(line.level, 0);
    out(pit, 3, 0xE2);
    CHECK_EQ(in(pit, 0), 0x70); /* OUT low, null count */
    load(pit, 0, 4, 500);
    fake_clock_advance(&fake, ns(501));
    CHECK_EQ(line.level, 1);
}

/* A guest that asks for an interrupt every 838 ns does not get the event loop for itself. */
static void test_bound(struct device *pit)
{
    load(pit, 0, 2, 1);
    CHECK(fake_clock_advance(&fake, 100000000) <= 1001);
}

static void test_calibration(struct device *pit)
{
    device_put(pit, PIT_REGION_SPEAKER, 0, 1, 0x00);
    device_put(pit, PIT_REGION_SPEAKER, 0, 1, 0x01);
    load(pit, 2, 0, 59659); /* 50 ms */
    CHECK_EQ(device_get(pit, PIT_REGION_SPEAKER, 0, 1) & 0x21, 0x01);
    fake_clock_advance(&fake, 49990000);
    CHECK_EQ(device_get(pit, PIT_REGION_SPEAKER, 0, 1) & 0x20, 0);
    fake_clock_advance(&fake, 11000);
    CHECK_EQ(device_get(pit, PIT_REGION_SPEAKER, 0, 1) & 0x20, 0x20);
    /* A low gate holds the count. */
    load(pit, 2, 0, 10000);
    fake_clock_advance(&fake, ns(4000));
    device_put(pit, PIT_REGION_SPEAKER, 0, 1, 0x00);
    fake_clock_advance(&fake, 1000000000);
    CHECK_EQ(count16(pit, 2), 6000);
    device_put(pit, PIT_REGION_SPEAKER, 0, 1, 0x01);
    fake_clock_advance(&fake, ns(1000));
    unsigned now = count16(pit, 2);
    CHECK(now == 5000 || now == 4999);
    /* Mode 1 waits for the gate to rise. */
    device_put(pit, PIT_REGION_SPEAKER, 0, 1, 0x00);
    load(pit, 2, 1, 100);
    CHECK_EQ(device_get(pit, PIT_REGION_SPEAKER, 0, 1) & 0x20, 0x20);
    device_put(pit, PIT_REGION_SPEAKER, 0, 1, 0x01);
    CHECK_EQ(device_get(pit, PIT_REGION_SPEAKER, 0, 1) & 0x20, 0);
    fake_clock_advance(&fake, ns(100));
    CHECK_EQ(device_get(pit, PIT_REGION_SPEAKER, 0, 1) & 0x20, 0x20);
}

static void test_widths(struct device *pit)
{
    out(pit, 3, 0x94); /* counter 2, low byte, mode 2 */
    out(pit, 2, 200);
    CHECK_EQ(in(pit, 2), 200);
    out(pit, 3, 0xA5); /* counter 2, high byte, mode 2, BCD */
    out(pit, 2, 0x12);
    CHECK_EQ(in(pit, 2), 0x12);
    fake_clock_advance(&fake, ns(201));
    CHECK_EQ(in(pit, 2), 0x09); /* 1200 - 201 = 999 */
    CHECK_EQ(in(pit, 3), 0xFF);
    load(pit, 2, 0, 0); /* 0 counts 65536 */
    fake_clock_advance(&fake, ns(1));
    CHECK_EQ(count16(pit, 2), 0xFFFF);
}

int main(void)
{
    fake_clock_open(&fake, 5000000, 0);
    struct device *pit = make(), *other = make();
    test_periodic(pit);
    test_one_shot(pit);
    test_bound(pit);
    test_calibration(pit);
    test_widths(pit);
    load(pit, 0, 2, 5000);
    load(pit, 2, 0, 777);
    fake_clock_advance(&fake, ns(333));
    check_round_trip(pit, other);
    pit->ops->reset(pit);
    unsigned rises = line.rises;
    fake_clock_advance(&fake, ns(5000 - 333)); /* the copy goes on where the first was */
    CHECK_EQ(line.rises, rises + 1);
    check_hostile(other);
    pit->ops->destroy(pit);
    other->ops->destroy(other);
    CHECK(!fake.timers);
    CHECK_DONE();
}
