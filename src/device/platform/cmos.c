/* cmos.c - see cmos.h.
 *
 * The time of day is `seconds` (since 1970, UTC, in the guest's reckoning) at clock time `base`, and runs
 * from there. While the guest holds the SET bit it stands, in `held`. What happened since `seen` is worked
 * out when the guest looks at register C, or by a timer when an interrupt is enabled. */
#include "device/platform/cmos.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SAVED_VERSION 1
#define NS_PER_SECOND 1000000000u
#define UPDATE_NS 2228000u /* 244 us of warning and 1984 us of update, before each second */
#define OSCILLATOR_HZ 32768u
#define DAY 86400

enum { REG_SECOND, REG_SECOND_ALARM, REG_MINUTE, REG_MINUTE_ALARM, REG_HOUR, REG_HOUR_ALARM, REG_WEEKDAY, REG_DAY,
       REG_MONTH, REG_YEAR, REG_A, REG_B, REG_C, REG_D, REG_CENTURY = 0x32 };
enum { A_UPDATING = 0x80, A_DEFAULT = 0x26 };
enum { B_SET = 0x80, B_PERIODIC = 0x40, B_ALARM = 0x20, B_UPDATE = 0x10, B_BINARY = 0x04, B_24_HOURS = 0x02 };
enum { C_IRQ = 0x80, C_PERIODIC = 0x40, C_ALARM = 0x20, C_UPDATE = 0x10 };
#define PM 0x80u

struct cmos {
    struct device device;
    struct cmos_config config;
    uint8_t index;
    uint8_t ram[128]; /* alarms, A to C and what is no clock register */
    int64_t seconds;
    uint64_t base;
    uint64_t seen; /* clock time up to which flags were worked out */
    struct clock_timer *timer;
};

struct date {
    int year; /* all of it */
    unsigned month, day, hour, minute, second;
};

static struct cmos *of(struct device *device)
{
    return (struct cmos *)device; /* embedded first */
}

/* ---- the calendar ---- */

/* Days from 1970-01-01 to the first day of a month (1-12), in the Gregorian calendar. Years are counted from
 * March, so that the leap day is a year's last. */
static int64_t days_to(int64_t year, unsigned month)
{
    int64_t shifted = month > 2 ? year : year - 1;
    unsigned from_march = (month + 9) % 12;
    return 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + (153 * from_march + 2) / 5 - 719468;
}

/* Fields out of range carry over, as in a clock that was set to nonsense. */
static int64_t date_to_seconds(const struct date *date)
{
    unsigned month = date->month ? (date->month - 1) % 12 + 1 : 1;
    int64_t days = days_to(date->year, month) + (int64_t)date->day - 1;
    return days * DAY + (int64_t)date->hour * 3600 + (int64_t)date->minute * 60 + date->second;
}

static struct date seconds_to_date(int64_t seconds)
{
    int64_t days = seconds >= 0 ? seconds / DAY : -((DAY - 1 - seconds) / DAY);
    unsigned rest = (unsigned)(seconds - days * DAY);
    struct date date = {.hour = rest / 3600, .minute = rest / 60 % 60, .second = rest % 60};
    int64_t year = 1970 + days / 365; /* at most a little late */
    while (days_to(year, 1) > days)
        year--;
    while (days_to(year + 1, 1) <= days)
        year++;
    date.year = (int)year;
    for (date.month = 12; days_to(year, date.month) > days; date.month--)
        ;
    date.day = (unsigned)(days - days_to(year, date.month)) + 1;
    return date;
}

/* ---- time and registers ---- */

static bool standing(const struct cmos *cmos)
{
    return cmos->ram[REG_B] & B_SET;
}

static int64_t time_at(const struct cmos *cmos, uint64_t now)
{
    return standing(cmos) ? cmos->seconds : cmos->seconds + (int64_t)((now - cmos->base) / NS_PER_SECOND);
}

/* Register B chooses how numbers look: binary or two decimal digits; hours to 12 with a flag, or to 24. */
static uint8_t encode(const struct cmos *cmos, unsigned number)
{
    return (uint8_t)(cmos->ram[REG_B] & B_BINARY ? number : number / 10 % 10 << 4 | number % 10);
}

static unsigned decode(const struct cmos *cmos, uint8_t value)
{
    return cmos->ram[REG_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static uint8_t encode_hour(const struct cmos *cmos, unsigned hour)
{
    if (cmos->ram[REG_B] & B_24_HOURS)
        return encode(cmos, hour);
    return (uint8_t)(encode(cmos, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? PM : 0));
}

static unsigned decode_hour(const struct cmos *cmos, uint8_t value)
{
    if (cmos->ram[REG_B] & B_24_HOURS)
        return decode(cmos, value);
    return decode(cmos, value & 0x7F) % 12 + (value & PM ? 12 : 0);
}

static bool is_time(unsigned reg)
{
    return reg == REG_SECOND || reg == REG_MINUTE || reg == REG_HOUR || (reg >= REG_WEEKDAY && reg <= REG_YEAR) ||
           reg == REG_CENTURY;
}

/* 1 for Sunday; 1970-01-01 was a Thursday. The remainder may be negative, before 1970. */
static unsigned weekday(const struct date *date)
{
    int64_t days = days_to(date->year, date->month) + (int64_t)date->day - 1;
    return (unsigned)((days + 4) % 7 + 7) % 7 + 1;
}

static uint8_t read_time(const struct cmos *cmos, unsigned reg)
{
    int64_t seconds = time_at(cmos, clock_now(cmos->config.clock));
    struct date date = seconds_to_date(seconds);
    switch (reg) {
    case REG_SECOND: return encode(cmos, date.second);
    case REG_MINUTE: return encode(cmos, date.minute);
    case REG_HOUR: return encode_hour(cmos, date.hour);
    case REG_WEEKDAY: return encode(cmos, weekday(&date));
    case REG_DAY: return encode(cmos, date.day);
    case REG_MONTH: return encode(cmos, date.month);
    case REG_YEAR: return encode(cmos, (unsigned)date.year % 100);
    default: return encode(cmos, (unsigned)date.year / 100);
    }
}

/* A written field changes the date that the clock shows, and the clock goes on from there. */
static void write_time(struct cmos *cmos, unsigned reg, uint8_t value)
{
    uint64_t now = clock_now(cmos->config.clock);
    struct date date = seconds_to_date(time_at(cmos, now));
    switch (reg) {
    case REG_SECOND: date.second = decode(cmos, value) % 60; break;
    case REG_MINUTE: date.minute = decode(cmos, value) % 60; break;
    case REG_HOUR: date.hour = decode_hour(cmos, value) % 24; break;
    case REG_DAY: date.day = decode(cmos, value); break;
    case REG_MONTH: date.month = decode(cmos, value); break;
    case REG_YEAR: date.year = date.year / 100 * 100 + (int)(decode(cmos, value) % 100); break;
    case REG_CENTURY: date.year = date.year % 100 + (int)(decode(cmos, value) % 100) * 100; break;
    default: return; /* the day of the week follows from the date */
    }
    cmos->seconds = date_to_seconds(&date);
    cmos->base = now;
    cmos->seen = now;
}

/* ---- events ---- */

/* Rates 3 to 15 divide the oscillator by 2^(rate - 1); 0 is off. */
static uint64_t period_ns(const struct cmos *cmos)
{
    unsigned rate = cmos->ram[REG_A] & 15;
    if (!rate)
        return 0;
    if (rate <= 2) /* 256 and 128 Hz, as rates 8 and 9 */
        rate += 7;
    return (uint64_t)NS_PER_SECOND / (OSCILLATOR_HZ >> (rate - 1));
}

static bool alarm_field(uint8_t alarm, uint8_t now)
{
    return alarm >= 0xC0 || alarm == now; /* the top two bits mean "any" */
}

/* Alarms are compared in the registers' own encoding, as the chip does: an alarm that was written in another
 * encoding never matches. */
static bool alarm_at(const struct cmos *cmos, int64_t seconds)
{
    unsigned rest = (unsigned)((seconds % DAY + DAY) % DAY);
    return alarm_field(cmos->ram[REG_SECOND_ALARM], encode(cmos, rest % 60)) &&
           alarm_field(cmos->ram[REG_MINUTE_ALARM], encode(cmos, rest / 60 % 60)) &&
           alarm_field(cmos->ram[REG_HOUR_ALARM], encode_hour(cmos, rest / 3600));
}

/* Sets the flags of what happened in (seen, now]. */
static void advance(struct cmos *cmos)
{
    uint64_t now = clock_now(cmos->config.clock), period = period_ns(cmos), since = cmos->seen - cmos->base;
    if (period && (now - cmos->base) / period != since / period)
        cmos->ram[REG_C] |= C_PERIODIC;
    int64_t before = time_at(cmos, cmos->seen), after = time_at(cmos, now);
    if (after != before)
        cmos->ram[REG_C] |= C_UPDATE;
    if (after - before > DAY)
        before = after - DAY; /* a day holds every time of day */
    while (before < after)
        if (alarm_at(cmos, ++before)) {
            cmos->ram[REG_C] |= C_ALARM;
            break;
        }
    cmos->seen = now;
}

/* Drives the line and arms the clock for the next event that the guest wants to hear of. */
static void update(struct cmos *cmos)
{
    uint8_t b = cmos->ram[REG_B];
    uint64_t passed = clock_now(cmos->config.clock) - cmos->base, period = period_ns(cmos), wait = CLOCK_NEVER;
    if ((b & B_PERIODIC) && period)
        wait = period - passed % period;
    if ((b & (B_ALARM | B_UPDATE)) && !(b & B_SET) && wait > NS_PER_SECOND - passed % NS_PER_SECOND)
        wait = NS_PER_SECOND - passed % NS_PER_SECOND;
    bool raised = cmos->ram[REG_C] & b & (C_PERIODIC | C_ALARM | C_UPDATE);
    cmos->ram[REG_C] = (uint8_t)((cmos->ram[REG_C] & ~C_IRQ) | (raised ? C_IRQ : 0));
    if (raised) /* nothing more can be told before the guest reads register C */
        wait = CLOCK_NEVER;
    clock_timer_arm(cmos->config.clock, cmos->timer,
                    wait == CLOCK_NEVER ? CLOCK_NEVER : clock_now(cmos->config.clock) + wait);
    irq_set(&cmos->config.irq, raised);
}

static void fired(void *context)
{
    struct cmos *cmos = context;
    advance(cmos);
    update(cmos);
}

/* ---- access ---- */

static uint8_t read_register(struct cmos *cmos, unsigned reg)
{
    uint8_t value = cmos->ram[reg];
    uint64_t now = clock_now(cmos->config.clock);
    if (is_time(reg))
        return read_time(cmos, reg);
    if (reg == REG_A) {
        bool updating = !standing(cmos) && (now - cmos->base) % NS_PER_SECOND >= NS_PER_SECOND - UPDATE_NS;
        return (uint8_t)(value | (updating ? A_UPDATING : 0));
    }
    if (reg == REG_C) { /* reading clears */
        advance(cmos);
        update(cmos);
        value = cmos->ram[REG_C];
        cmos->ram[REG_C] = 0;
        update(cmos);
    }
    return value;
}

static void write_b(struct cmos *cmos, uint8_t value)
{
    uint64_t now = clock_now(cmos->config.clock);
    bool stands = value & B_SET;
    if (stands != standing(cmos)) {
        cmos->seconds = time_at(cmos, now);
        cmos->base = cmos->seen = now;
    }
    if (stands)
        value &= (uint8_t)~B_UPDATE; /* SET clears UIE */
    cmos->ram[REG_B] = value;
}

static void write_register(struct cmos *cmos, unsigned reg, uint8_t value)
{
    if (is_time(reg)) {
        write_time(cmos, reg, value);
        return;
    }
    if (reg == REG_C || reg == REG_D)
        return;
    advance(cmos);
    if (reg == REG_A)
        cmos->ram[REG_A] = value & 0x7F;
    else if (reg == REG_B)
        write_b(cmos, value);
    else
        cmos->ram[reg] = value;
    update(cmos);
}

static uint64_t cmos_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    struct cmos *cmos = of(device);
    uint64_t value = 0;
    (void)region;
    for (unsigned i = 0; i < size; i++) {
        uint64_t byte = (offset + i) & 1 ? read_register(cmos, cmos->index) : 0xFF; /* the index is write-only */
        value |= byte << (8 * i);
    }
    return value;
}

static void cmos_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct cmos *cmos = of(device);
    (void)region;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> (8 * i));
        if ((offset + i) & 1)
            write_register(cmos, cmos->index, byte);
        else
            cmos->index = byte & 0x7F; /* bit 7 masks NMI on a PC; nothing raises one here */
    }
}

/* ---- the device ---- */

static void put16(struct cmos *cmos, unsigned reg, uint64_t value)
{
    value = value < 0xFFFF ? value : 0xFFFF;
    cmos->ram[reg] = (uint8_t)value;
    cmos->ram[reg + 1] = (uint8_t)(value >> 8);
}

/* Where firmware leaves the sizes of memory, in KiB and in 64 KiB units. */
static void put_sizes(struct cmos *cmos)
{
    uint64_t low = cmos->config.ram_low, high = cmos->config.ram_high >> 16;
    uint64_t above_1m = low > 0x100000 ? (low - 0x100000) >> 10 : 0;
    uint64_t above_16m = low > 0x1000000 ? (low - 0x1000000) >> 16 : 0;
    put16(cmos, 0x15, low < 640 * 1024 ? low >> 10 : 640);
    put16(cmos, 0x17, above_1m);
    put16(cmos, 0x30, above_1m);
    put16(cmos, 0x34, above_16m);
    cmos->ram[0x5B] = (uint8_t)high;
    cmos->ram[0x5C] = (uint8_t)(high >> 8);
    cmos->ram[0x5D] = (uint8_t)(high >> 16);
    cmos->ram[0x14] = 0x02; /* equipment: a coprocessor */
}

/* A battery clock keeps its time over a reset, and the time that the guest set. */
static void cmos_reset(struct device *device)
{
    struct cmos *cmos = of(device);
    cmos->index = 0;
    cmos->ram[REG_B] &= (uint8_t)~(B_PERIODIC | B_ALARM | B_UPDATE);
    cmos->ram[REG_C] = 0;
    cmos->ram[REG_D] = 0x80; /* the battery is good */
    cmos->seen = clock_now(cmos->config.clock);
    update(cmos);
}

/* The state of a new one. */
static void initialise(struct cmos *cmos)
{
    memset(cmos->ram, 0, sizeof cmos->ram);
    cmos->ram[REG_A] = A_DEFAULT;
    cmos->ram[REG_B] = B_24_HOURS;
    put_sizes(cmos);
    cmos->seconds = clock_wall(cmos->config.clock);
    cmos->base = clock_now(cmos->config.clock);
    cmos_reset(&cmos->device);
}

/* What is kept is how far the guest's time is from the wall's, or the time itself while it stands. */
static void cmos_save(const struct device *device, struct stream *stream)
{
    struct cmos cmos = *(const struct cmos *)device;
    uint64_t now = clock_now(cmos.config.clock);
    int64_t from = standing(&cmos) ? 0 : clock_wall(cmos.config.clock);
    advance(&cmos); /* of the copy, so that flags are saved up to now */
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_put_u8(stream, cmos.index);
    stream_put_bytes(stream, cmos.ram, sizeof cmos.ram);
    stream_put_u64(stream, (uint64_t)(time_at(&cmos, now) - from));
    stream_put_u32(stream, (uint32_t)((now - cmos.base) % NS_PER_SECOND));
    stream_end(stream);
}

static int cmos_load(struct device *device, struct stream *stream, struct error *error)
{
    struct cmos *cmos = of(device);
    uint64_t now = clock_now(cmos->config.clock);
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    cmos->index = stream_get_u8(stream) & 0x7F;
    stream_get_bytes(stream, cmos->ram, sizeof cmos->ram);
    cmos->ram[REG_A] &= 0x7F;
    cmos->ram[REG_D] = 0x80;
    int64_t offset = (int64_t)stream_get_u64(stream);
    uint32_t fraction = stream_get_u32(stream);
    stream_leave(stream);
    /* 10,000 years either way are what the registers can hold. */
    if (offset < -(int64_t)10000 * 366 * DAY || offset > (int64_t)10000 * 366 * DAY || fraction >= NS_PER_SECOND)
        stream_fail(stream, "battery clock: the saved time is out of range");
    cmos->seconds = offset + (standing(cmos) ? 0 : clock_wall(cmos->config.clock));
    cmos->base = now - fraction;
    cmos->seen = now;
    int status = stream_status(stream, error);
    if (status)
        initialise(cmos);
    update(cmos);
    return status;
}

static void cmos_destroy(struct device *device)
{
    struct cmos *cmos = of(device);
    clock_timer_free(cmos->config.clock, cmos->timer);
    free(cmos);
}

static const struct device_ops cmos_ops = {
    .name = "cmos",
    .reset = cmos_reset,
    .read = cmos_read,
    .write = cmos_write,
    .save = cmos_save,
    .load = cmos_load,
    .destroy = cmos_destroy,
};

struct device *cmos_new(const struct cmos_config *config)
{
    struct cmos *cmos = calloc(1, sizeof *cmos);
    if (!cmos)
        return NULL;
    cmos->device.ops = &cmos_ops;
    cmos->config = *config;
    cmos->timer = clock_timer_new(config->clock, fired, cmos);
    if (!cmos->timer) {
        free(cmos);
        return NULL;
    }
    initialise(cmos);
    return &cmos->device;
}
