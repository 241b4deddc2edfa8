/* power.c - see power.h.
 *
 * Status and enable registers come in pairs, and the SCI is the level of "some enabled status bit is set", so
 * it falls only when the guest has cleared what it was told of. The PM timer is the clock, scaled. */
#include "device/platform/power.h"

#include <stdbool.h>
#include <stdlib.h>

#define SAVED_VERSION 1
#define NS_PER_SECOND 1000000000u
#define PM1_TIMER 0x0001u
#define PM1_BUTTON 0x0100u
#define PM1_STATUS_BITS 0x8731u /* TMR, BM, GBL, PWRBTN, SLPBTN, RTC, WAK */
#define PM1_ENABLE_BITS 0x0721u
#define CONTROL_SCI 0x0001u
#define CONTROL_KEPT 0x1C02u /* SLP_TYP, BM_RLD */
#define CONTROL_SLEEP 0x2000u
#define RESET_NOW 0x04u
#define RESET_KEPT 0x0Au
#define TIMER_HALF (UINT64_C(1) << 31) /* ticks from one change of the timer's top bit to the next */

struct power {
    struct device device;
    struct power_config config;
    uint16_t status, enable, control, gpe_status, gpe_enable;
    uint8_t reset_control;
    bool heard; /* power_button_heard; not saved: who pressed it is not there after a load */
    uint64_t epoch; /* clock time at which the PM timer was 0 */
    uint64_t halves; /* changes of its top bit that TMR_STS has told of */
    struct clock_timer *timer;
};

static struct power *of(struct device *device)
{
    return (struct power *)device; /* embedded first */
}

static uint64_t ticks(const struct power *power)
{
    uint64_t ns = clock_now(power->config.clock) - power->epoch;
    return (uint64_t)((unsigned __int128)ns * POWER_TIMER_HZ / NS_PER_SECOND);
}

/* Sets TMR_STS when the timer's top bit has changed. */
static void advance(struct power *power)
{
    uint64_t halves = ticks(power) / TIMER_HALF;
    if (halves != power->halves)
        power->status |= PM1_TIMER;
    power->halves = halves;
}

/* Drives the SCI, and wakes at the next change of the timer's top bit if the guest wants to know. */
static void update(struct power *power)
{
    bool sci = (power->status & power->enable) || (power->gpe_status & power->gpe_enable);
    uint64_t wake = CLOCK_NEVER;
    if ((power->enable & PM1_TIMER) && !(power->status & PM1_TIMER)) {
        unsigned __int128 ns = (unsigned __int128)(power->halves + 1) * TIMER_HALF * NS_PER_SECOND / POWER_TIMER_HZ;
        wake = power->epoch + (uint64_t)ns + 1;
    }
    clock_timer_arm(power->config.clock, power->timer, wake);
    irq_set(&power->config.sci, sci);
}

static void fired(void *context)
{
    struct power *power = context;
    advance(power);
    update(power);
}

void power_button(struct device *device)
{
    struct power *power = of(device);
    power->status |= PM1_BUTTON;
    power->heard = false;
    update(power);
}

bool power_button_heard(const struct device *device)
{
    return ((const struct power *)device)->heard;
}

void power_gpe(struct device *device, unsigned event)
{
    struct power *power = of(device);
    power->gpe_status |= (uint16_t)(1u << (event & 15));
    update(power);
}

/* The block as bytes, so that any width at any offset reads what lies there. */
static uint8_t read_byte(const struct power *power, unsigned offset)
{
    unsigned shift = 8 * (offset & 1);
    switch (offset & ~1u) {
    case POWER_PM1A_EVENT: return (uint8_t)(power->status >> shift);
    case POWER_PM1A_EVENT + 2: return (uint8_t)(power->enable >> shift);
    case POWER_PM1A_CONTROL: return (uint8_t)((power->control | CONTROL_SCI) >> shift);
    case POWER_TIMER:
    case POWER_TIMER + 2: return (uint8_t)(ticks(power) >> 8 * (offset & 3));
    case POWER_GPE0: return (uint8_t)(power->gpe_status >> shift);
    case POWER_GPE0 + 2: return (uint8_t)(power->gpe_enable >> shift);
    default: return 0;
    }
}

/* SLP_EN acts and does not stay; a sleep type other than S5's is not one that the DSDT offers. */
static void write_control(struct power *power, uint16_t value, uint16_t mask)
{
    power->control = (uint16_t)((power->control & ~mask) | (value & mask & CONTROL_KEPT));
    if ((value & mask & CONTROL_SLEEP) && (power->control >> 10 & 7) == POWER_SLEEP_TYPE_S5)
        power->config.power_off(power->config.owner);
}

/* offset is even; mask says which bits of the 16-bit register the access covers. */
static void write_word(struct power *power, unsigned offset, uint16_t value, uint16_t mask)
{
    switch (offset) {
    case POWER_PM1A_EVENT: /* status bits are cleared by ones */
        if (power->status & value & mask & PM1_BUTTON)
            power->heard = power->enable & PM1_BUTTON;
        power->status &= (uint16_t)~(value & mask & PM1_STATUS_BITS);
        break;
    case POWER_PM1A_EVENT + 2:
        power->enable = (uint16_t)(((power->enable & ~mask) | (value & mask)) & PM1_ENABLE_BITS);
        break;
    case POWER_PM1A_CONTROL: write_control(power, value, mask); break;
    case POWER_GPE0: power->gpe_status &= (uint16_t)~(value & mask); break;
    case POWER_GPE0 + 2: power->gpe_enable = (uint16_t)((power->gpe_enable & ~mask) | (value & mask)); break;
    default: break; /* the timer is read-only */
    }
}

static uint64_t power_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    struct power *power = of(device);
    uint64_t value = 0;
    if (region == POWER_REGION_RESET)
        return power->reset_control;
    advance(power);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(power, (unsigned)(offset + i) & (POWER_ACPI_SIZE - 1)) << (8 * i);
    update(power);
    return value;
}

static void power_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct power *power = of(device);
    if (region == POWER_REGION_RESET) {
        power->reset_control = value & RESET_KEPT;
        if (value & RESET_NOW)
            power->config.reset(power->config.owner);
        return;
    }
    advance(power);
    for (unsigned i = 0; i < size;) {
        unsigned at = (unsigned)(offset + i) & (POWER_ACPI_SIZE - 1);
        if (!(at & 1) && i + 1 < size) {
            write_word(power, at, (uint16_t)(value >> (8 * i)), 0xFFFF);
            i += 2;
        } else {
            unsigned shift = 8 * (at & 1);
            write_word(power, at & ~1u, (uint16_t)((value >> (8 * i) & 0xFF) << shift), (uint16_t)(0xFF << shift));
            i += 1;
        }
    }
    update(power);
}

static void power_reset(struct device *device)
{
    struct power *power = of(device);
    power->status = power->enable = power->control = power->gpe_status = power->gpe_enable = 0;
    power->reset_control = 0;
    power->heard = false;
    power->epoch = clock_now(power->config.clock);
    power->halves = 0;
    update(power);
}

static void power_save(const struct device *device, struct stream *stream)
{
    const struct power *power = (const struct power *)device;
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_put_u16(stream, power->status);
    stream_put_u16(stream, power->enable);
    stream_put_u16(stream, power->control);
    stream_put_u16(stream, power->gpe_status);
    stream_put_u16(stream, power->gpe_enable);
    stream_put_u8(stream, power->reset_control);
    stream_put_u64(stream, clock_now(power->config.clock) - power->epoch);
    stream_put_u64(stream, power->halves);
    stream_end(stream);
}

static int power_load(struct device *device, struct stream *stream, struct error *error)
{
    struct power *power = of(device);
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    power->status = stream_get_u16(stream) & PM1_STATUS_BITS;
    power->enable = stream_get_u16(stream) & PM1_ENABLE_BITS;
    power->control = stream_get_u16(stream) & CONTROL_KEPT;
    power->gpe_status = stream_get_u16(stream);
    power->gpe_enable = stream_get_u16(stream);
    power->reset_control = stream_get_u8(stream) & RESET_KEPT;
    power->epoch = clock_now(power->config.clock) - stream_get_u64(stream);
    power->halves = stream_get_u64(stream);
    stream_leave(stream);
    if (power->halves > ticks(power) / TIMER_HALF)
        stream_fail(stream, "power: the timer has counted less than it told of");
    int status = stream_status(stream, error);
    if (status)
        power_reset(device);
    advance(power);
    update(power);
    return status;
}

static void power_destroy(struct device *device)
{
    struct power *power = of(device);
    clock_timer_free(power->config.clock, power->timer);
    free(power);
}

static const struct device_ops power_ops = {
    .name = "power",
    .reset = power_reset,
    .read = power_read,
    .write = power_write,
    .save = power_save,
    .load = power_load,
    .destroy = power_destroy,
};

struct device *power_new(const struct power_config *config)
{
    struct power *power = calloc(1, sizeof *power);
    if (!power)
        return NULL;
    power->device.ops = &power_ops;
    power->config = *config;
    power->timer = clock_timer_new(config->clock, fired, power);
    if (!power->timer) {
        free(power);
        return NULL;
    }
    power_reset(&power->device);
    return &power->device;
}
