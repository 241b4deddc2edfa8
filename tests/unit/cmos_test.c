/* cmos_test.c - the battery clock: the calendar, its encodings, alarms and interrupts, memory sizes. */
#include "device/platform/cmos.h"

#include "device_check.h"
#include "fake_clock.h"

static struct fake_clock fake;
static struct test_line line;

static struct device *make(void)
{
    struct cmos_config config = {.clock = &fake.clock, .irq = test_line(&line, 0), .ram_low = UINT64_C(3) << 30,
                                 .ram_high = UINT64_C(5) << 30};
    return cmos_new(&config);
}

static uint8_t in(struct device *cmos, uint8_t reg)
{
    device_put(cmos, 0, 0, 1, reg);
    return (uint8_t)device_get(cmos, 0, 1, 1);
}

static void out(struct device *cmos, uint8_t reg, uint8_t value)
{
    device_put(cmos, 0, 0, 2, (uint16_t)(value << 8 | reg));
}

static void check_date(struct device *cmos, unsigned century, unsigned year, unsigned month, unsigned day, unsigned hour,
                       unsigned minute, unsigned second)
{
    CHECK_EQ(in(cmos, 0x32), century);
    CHECK_EQ(in(cmos, 9), year);
    CHECK_EQ(in(cmos, 8), month);
    CHECK_EQ(in(cmos, 7), day);
    CHECK_EQ(in(cmos, 4), hour);
    CHECK_EQ(in(cmos, 2), minute);
    CHECK_EQ(in(cmos, 0), second);
}

static void test_calendar(struct device *cmos)
{
    check_date(cmos, 0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x58);
    CHECK_EQ(in(cmos, 6), 4); /* a Wednesday; Sunday is 1 */
    fake_clock_advance(&fake, UINT64_C(2000000000));
    check_date(cmos, 0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00);
    fake_clock_advance(&fake, UINT64_C(86400000000000));
    check_date(cmos, 0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00);
    out(cmos, 0x0B, 0x06); /* binary */
    out(cmos, 9, 99);
    out(cmos, 8, 12);
    out(cmos, 7, 31);
    out(cmos, 4, 13);
    CHECK_EQ(in(cmos, 9), 99);
    CHECK_EQ(in(cmos, 4), 13);
    out(cmos, 0x0B, 0x00); /* BCD, 12 hours */
    CHECK_EQ(in(cmos, 4), 0x81);
    out(cmos, 4, 0x12);
    CHECK_EQ(in(cmos, 4), 0x12); /* midnight */
    out(cmos, 4, 0x92);
    out(cmos, 0x0B, 0x02);
    CHECK_EQ(in(cmos, 4), 0x12); /* noon */
    out(cmos, 7, 0x99); /* nonsense carries over */
    CHECK(in(cmos, 7) != 0);
}

static void test_set(struct device *cmos)
{
    out(cmos, 0x0B, 0x82); /* SET: the clock stands */
    out(cmos, 0, 0x30);
    fake_clock_advance(&fake, UINT64_C(5000000000));
    CHECK_EQ(in(cmos, 0), 0x30);
    out(cmos, 0x0B, 0x02);
    fake_clock_advance(&fake, UINT64_C(5000000000));
    CHECK_EQ(in(cmos, 0), 0x35);
    /* Just before each second the clock says that it updates. */
    CHECK_EQ(in(cmos, 0x0A), 0x26);
    fake_clock_advance(&fake, 998000000);
    CHECK_EQ(in(cmos, 0x0A), 0xA6);
    fake_clock_advance(&fake, 2000000);
    CHECK_EQ(in(cmos, 0x0A), 0x26);
    CHECK_EQ(in(cmos, 0x0D), 0x80);
}

static void test_interrupts(struct device *cmos)
{
    in(cmos, 0x0C);
    CHECK_EQ(in(cmos, 0x0C), 0);
    out(cmos, 0x0B, 0x42); /* periodic, 1024 Hz */
    unsigned rises = line.rises;
    fake_clock_advance(&fake, 1000000);
    CHECK_EQ(line.rises, rises + 1);
    fake_clock_advance(&fake, 100000000);
    CHECK_EQ(line.rises, rises + 1); /* it waits for register C */
    CHECK_EQ(in(cmos, 0x0C) & 0xC0, 0xC0);
    CHECK_EQ(line.level, 0);
    for (unsigned i = 0; i < 1024; i++) {
        fake_clock_advance(&fake, 976600);
        in(cmos, 0x0C);
    }
    CHECK(line.rises >= rises + 1024 && line.rises <= rises + 1026);

    out(cmos, 0x0B, 0x22); /* alarm, at any hour and minute, second 10 */
    out(cmos, 5, 0xFF);
    out(cmos, 3, 0xC0);
    out(cmos, 1, 0x10);
    out(cmos, 0, 0x05);
    in(cmos, 0x0C);
    fake_clock_advance(&fake, UINT64_C(4000000000));
    CHECK_EQ(line.level, 0);
    fake_clock_advance(&fake, UINT64_C(1000000000));
    CHECK_EQ(line.level, 1);
    CHECK_EQ(in(cmos, 0x0C) & 0xB0, 0xB0);
    fake_clock_advance(&fake, UINT64_C(60000000000));
    CHECK_EQ(in(cmos, 0x0C) & 0xA0, 0xA0);
    out(cmos, 0x0B, 0x02);
    fake_clock_advance(&fake, UINT64_C(1000000000));
    CHECK_EQ(line.level, 0);
    CHECK_EQ(in(cmos, 0x0C), 0x50); /* flags are set even where they do not interrupt */
}

static void test_sizes(struct device *cmos)
{
    CHECK_EQ(in(cmos, 0x15) | in(cmos, 0x16) << 8, 640);
    CHECK_EQ(in(cmos, 0x30) | in(cmos, 0x31) << 8, 0xFFFF);
    CHECK_EQ(in(cmos, 0x34) | in(cmos, 0x35) << 8, ((UINT64_C(3) << 30) - (16 << 20)) >> 16);
    CHECK_EQ(in(cmos, 0x5B) | in(cmos, 0x5C) << 8 | in(cmos, 0x5D) << 16, (UINT64_C(5) << 30) >> 16);
    out(cmos, 0x0F, 0x0A);
    CHECK_EQ(in(cmos, 0x0F), 0x0A);
}

int main(void)
{
    fake_clock_open(&fake, 0, 1709164798); /* 2024-02-28 23:59:58 UTC */
    struct device *cmos = make(), *other = make();
    test_calendar(cmos);
    test_set(cmos);
    test_sizes(cmos);
    test_interrupts(cmos);
    out(cmos, 0, 0x42);
    out(cmos, 0x0B, 0x62);
    fake_clock_advance(&fake, 1234567890);
    check_round_trip(cmos, other);
    CHECK_EQ(in(other, 0), 0x43);
    out(cmos, 0x0B, 0x82);
    check_round_trip(cmos, other);

    struct saved good = device_saved(cmos);
    for (size_t length = 0; length < good.length; length++)
        CHECK(device_loaded(other, good.bytes, length) != 0);
    for (size_t at = 0; at < good.length; at++) {
        uint8_t kept = good.bytes[at];
        for (unsigned byte = 0; byte < 256; byte++) {
            good.bytes[at] = (uint8_t)byte;
            device_loaded(other, good.bytes, good.length);
            in(other, 9);
            in(other, 0x0C);
        }
        good.bytes[at] = kept;
    }
    free(good.bytes);
    cmos->ops->destroy(cmos);
    other->ops->destroy(other);
    CHECK(!fake.timers);
    CHECK_DONE();
}
