/* platform_test.c - the small devices: i8042, ACPI power, debug-exit, post codes. */
#include "device/platform/debug_exit.h"
#include "device/platform/i8042.h"
#include "device/platform/postcode.h"
#include "device/platform/power.h"

#include "device_check.h"
#include "fake_clock.h"

static struct fake_clock fake;
static struct test_line lines[3];
static unsigned resets, power_offs;
static uint32_t exit_status;

static void on_reset(void *owner)
{
    (void)owner;
    resets++;
}

static void on_power_off(void *owner)
{
    (void)owner;
    power_offs++;
}

static void on_exit_port(void *owner, uint32_t status)
{
    (void)owner;
    exit_status = status;
}

static struct device *new_i8042(void)
{
    struct i8042_config config = {.irq1 = test_line(lines, 0), .irq12 = test_line(lines, 1), .reset = on_reset};
    return i8042_new(&config);
}

static void command(struct device *i8042, uint8_t value)
{
    device_put(i8042, I8042_REGION_COMMAND, 0, 1, value);
}

static void data(struct device *i8042, uint8_t value)
{
    device_put(i8042, I8042_REGION_DATA, 0, 1, value);
}

static unsigned status(struct device *i8042)
{
    return (unsigned)device_get(i8042, I8042_REGION_COMMAND, 0, 1);
}

static unsigned answer(struct device *i8042)
{
    return (unsigned)device_get(i8042, I8042_REGION_DATA, 0, 1);
}

static void test_i8042(void)
{
    struct device *i8042 = new_i8042(), *other = new_i8042();
    CHECK_EQ(status(i8042) & 0x03, 0);
    command(i8042, 0xAA);
    CHECK_EQ(status(i8042) & 0x01, 1);
    CHECK_EQ(answer(i8042), 0x55);
    CHECK_EQ(status(i8042) & 0x01, 0);
    command(i8042, 0x60);
    data(i8042, 0x47);
    command(i8042, 0x20);
    CHECK_EQ(lines[0].level, 1);
    CHECK_EQ(answer(i8042), 0x47);
    CHECK_EQ(lines[0].level, 0);
    command(i8042, 0xD3); /* Linux looks for a mouse port so */
    data(i8042, 0xA5);
    CHECK_EQ(status(i8042) & 0x21, 0x21);
    CHECK_EQ(lines[1].level, 1);
    CHECK_EQ(answer(i8042), 0xA5);
    data(i8042, 0xED); /* no keyboard */
    CHECK_EQ(status(i8042) & 0x61, 0x41);
    CHECK_EQ(answer(i8042), 0xFE);
    command(i8042, 0xD4); /* no mouse */
    data(i8042, 0xFF);
    CHECK_EQ(status(i8042) & 0x61, 0x61);
    check_round_trip(i8042, other);
    CHECK_EQ(answer(other), 0xFE);
    check_hostile(i8042);
    command(i8042, 0xD0);
    CHECK_EQ(answer(i8042) & 3, 3);
    CHECK_EQ(resets, 0);
    command(i8042, 0xFE);
    CHECK_EQ(resets, 1);
    command(i8042, 0xFF);
    CHECK_EQ(resets, 1);
    command(i8042, 0xD1);
    data(i8042, 0x02);
    CHECK_EQ(resets, 2);
    CHECK_EQ(device_get(i8042, I8042_REGION_PORT_A, 0, 1), 2);
    device_put(i8042, I8042_REGION_PORT_A, 0, 1, 0);
    command(i8042, 0xD0);
    CHECK_EQ(answer(i8042) & 2, 0);
    CHECK_EQ(resets, 2);
    device_put(i8042, I8042_REGION_PORT_A, 0, 1, 3);
    CHECK_EQ(resets, 3);
    i8042->ops->destroy(i8042);
    other->ops->destroy(other);
}

static struct device *new_power(void)
{
    struct power_config config = {.clock = &fake.clock, .sci = test_line(lines, 2), .power_off = on_power_off,
                                  .reset = on_reset};
    return power_new(&config);
}

static void test_timer(struct device *power)
{
    uint64_t before = device_get(power, 0, POWER_TIMER, 4);
    fake_clock_advance(&fake, 1000000000);
    CHECK_EQ(device_get(power, 0, POWER_TIMER, 4) - before, POWER_TIMER_HZ);
    device_put(power, 0, POWER_PM1A_EVENT + 2, 2, 1); /* TMR_EN */
    fake_clock_advance(&fake, UINT64_C(590000000000));
    CHECK_EQ(lines[2].level, 0);
    fake_clock_advance(&fake, UINT64_C(10000000000));
    CHECK_EQ(lines[2].level, 1);
    CHECK_EQ(device_get(power, 0, POWER_PM1A_EVENT, 4), 0x00010001);
    device_put(power, 0, POWER_PM1A_EVENT, 2, 1);
    CHECK_EQ(lines[2].level, 0);
}

static void test_power(void)
{
    struct device *power = new_power(), *other = new_power();
    resets = 0;
    test_timer(power);
    power_button(power);
    CHECK_EQ(lines[2].level, 0);
    device_put(power, 0, POWER_PM1A_EVENT, 2, 0xffff); /* a kernel that starts clears all: the press is lost */
    CHECK(!power_button_heard(power));
    power_button(power);
    device_put(power, 0, POWER_PM1A_EVENT + 3, 1, 0x01); /* PWRBTN_EN, by its byte */
    CHECK_EQ(lines[2].level, 1);
    device_put(power, 0, POWER_PM1A_EVENT, 1, 0x01); /* another's status */
    CHECK(!power_button_heard(power));
    device_put(power, 0, POWER_PM1A_EVENT + 1, 1, 0x01);
    CHECK_EQ(lines[2].level, 0);
    CHECK(power_button_heard(power));
    power_button(power);
    CHECK(!power_button_heard(power));
    device_put(power, 0, POWER_PM1A_EVENT, 2, 0x0100);
    CHECK(power_button_heard(power));
    device_put(power, 0, POWER_PM1A_EVENT, 2, 0x0100); /* nothing to clear */
    CHECK(power_button_heard(power));
    power_gpe(power, 3);
    device_put(power, 0, POWER_GPE0 + 2, 2, 0x08);
    CHECK_EQ(lines[2].level, 1);
    check_round_trip(power, other);
    check_hostile(other);
    device_put(power, 0, POWER_GPE0, 2, 0x08);
    CHECK_EQ(lines[2].level, 0);

    CHECK_EQ(device_get(power, 0, POWER_PM1A_CONTROL, 2), 0x0001); /* SCI_EN */
    device_put(power, 0, POWER_PM1A_CONTROL, 2, 0x2000 | 3 << 10);
    CHECK_EQ(power_offs, 0);
    device_put(power, 0, POWER_PM1A_CONTROL, 2, POWER_SLEEP_TYPE_S5 << 10);
    CHECK_EQ(power_offs, 0);
    device_put(power, 0, POWER_PM1A_CONTROL, 2, 0x2000 | POWER_SLEEP_TYPE_S5 << 10);
    CHECK_EQ(power_offs, 1);
    device_put(power, POWER_REGION_RESET, 0, 1, 0x02);
    CHECK_EQ(device_get(power, POWER_REGION_RESET, 0, 1), 0x02);
    CHECK_EQ(resets, 0);
    device_put(power, POWER_REGION_RESET, 0, 1, POWER_RESET_VALUE);
    CHECK_EQ(resets, 1);
    power->ops->destroy(power);
    other->ops->destroy(other);
    CHECK(!fake.timers);
}

static void test_small(void)
{
    struct debug_exit_config config = {.exit = on_exit_port};
    struct device *exit_port = debug_exit_new(&config), *post = postcode_new(), *other = postcode_new();
    CHECK_EQ(device_get(exit_port, 0, 0, 4), 0);
    device_put(exit_port, 0, 1, 1, 9);
    CHECK_EQ(exit_status, 0);
    device_put(exit_port, 0, 0, 4, 0x12345678);
    CHECK_EQ(exit_status, 0x12345678);
    check_round_trip(exit_port, exit_port);
    check_hostile(exit_port);
    device_put(post, POSTCODE_REGION_80, 0, 1, 0x55);
    device_put(post, POSTCODE_REGION_ED, 0, 1, 0x66);
    check_round_trip(post, other);
    CHECK_EQ(device_get(other, POSTCODE_REGION_80, 0, 1), 0x55);
    CHECK_EQ(device_get(other, POSTCODE_REGION_ED, 0, 1), 0x66);
    check_hostile(post);
    exit_port->ops->destroy(exit_port);
    post->ops->destroy(post);
    other->ops->destroy(other);
}

int main(void)
{
    fake_clock_open(&fake, 0, 0);
    test_i8042();
    test_power();
    test_small();
    CHECK_DONE();
}
