/* pit.c - see pit.h.
 *
 * A counter is never stepped: `start` says when its count was loaded, and its value and output follow
 * from the clock, in ticks of PIT_HZ. The interrupt line gets an edge at each end of a period (or of a count) rather
 * than the exact wave; it is low from the control word on. */
#include "device/platform/pit.h"

#include <stdbool.h>
#include <stdlib.h>

#define SAVED_VERSION 1
#define NS_PER_SECOND 1000000000u
/* A period shorter than this is served at this one, so that a guest cannot occupy the host's event loop. */
#define PERIOD_MIN_NS 100000u
#define REFRESH_NS 15085u /* DRAM refresh request, bit 4 of port 0x61 */

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct counter {
    uint8_t mode, access;
    bool bcd, loaded, gate;
    bool triggered;     /* modes 1 and 5: the gate rose after the count was loaded */
    bool done;          /* the interrupt of a count that happens once was given */
    uint16_t written;   /* the count register */
    uint8_t low;        /* first half of a two-byte write */
    bool write_high, read_high; /* which half comes next */
    bool latched, status_latched;
    uint16_t latch;
    uint8_t status;
    uint64_t start;  /* clock time when counting began */
    uint64_t paused; /* ns counted already, while a low gate holds modes 0 and 4 */
};

struct pit {
    struct device device;
    struct pit_config config;
    struct counter counter[3];
    uint8_t speaker; /* bits 3:0 of port 0x61 */
    struct clock_timer *timer;
};

static struct pit *of(struct device *device)
{
    return (struct pit *)device; /* embedded first */
}

static uint64_t ns_to_ticks(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_SECOND);
}

/* The first nanosecond at which that many ticks have passed. */
static uint64_t ticks_to_ns(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_SECOND + PIT_HZ - 1) / PIT_HZ);
}

/* ---- what a counter says ---- */

static uint32_t from_bcd(uint16_t value)
{
    return (value >> 12) * 1000u + (value >> 8 & 15) * 100u + (value >> 4 & 15) * 10u + (value & 15);
}

static uint16_t to_bcd(uint32_t value)
{
    return (uint16_t)(value / 1000 % 10 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10);
}

static uint32_t modulus(const struct counter *counter)
{
    return counter->bcd ? 10000 : 65536;
}

/* The initial count: 0 stands for the largest. */
static uint32_t initial(const struct counter *counter)
{
    uint32_t count = counter->bcd ? from_bcd(counter->written) % 10000 : counter->written;
    return count ? count : modulus(counter);
}

static bool periodic(const struct counter *counter)
{
    return counter->mode == 2 || counter->mode == 3;
}

/* Whether time moves the counter: modes 0 and 4 wait for the gate, 2 and 3 restart with it, 1 and 5 need
 * to have been triggered by it. */
static bool counting(const struct counter *counter)
{
    if (!counter->loaded)
        return false;
    return counter->mode == 1 || counter->mode == 5 ? counter->triggered : counter->gate;
}

static uint64_t elapsed_ticks(const struct pit *pit, const struct counter *counter)
{
    if (counting(counter))
        return ns_to_ticks(clock_now(pit->config.clock) - counter->start);
    return counter->mode == 0 || counter->mode == 4 ? ns_to_ticks(counter->paused) : 0;
}

/* OUT, by mode: 0 rises at the end of the count; 1 is low from the trigger to the end; 2 is low for the last
 * tick of a period, 3 for its second half; 4 and 5 are low for one tick at the end. */
static bool output(const struct pit *pit, const struct counter *counter)
{
    uint32_t count = initial(counter);
    if (!counter->loaded)
        return counter->mode != 0;
    uint64_t ticks = elapsed_ticks(pit, counter);
    switch (counter->mode) {
    case 0: return ticks >= count;
    case 1: return !counter->triggered || ticks >= count;
    case 2: return !counter->gate || ticks % count != count - 1;
    case 3: return !counter->gate || ticks % count < (count + 1) / 2;
    case 4: return ticks != count;
    default: return !counter->triggered || ticks != count;
    }
}

/* The counting element as the guest reads it. Modes 0, 1, 4 and 5 go on below zero from the top. */
static uint16_t value(const struct pit *pit, const struct counter *counter)
{
    if (!counter->loaded)
        return 0;
    uint32_t count = initial(counter), now;
    uint64_t ticks = elapsed_ticks(pit, counter);
    if (counter->mode == 3) /* counts down by two, twice a period */
        now = count - (uint32_t)(2 * (ticks % count) % count);
    else if (counter->mode == 2)
        now = count - (uint32_t)(ticks % count);
    else
        now = (uint32_t)((count + modulus(counter) - ticks % modulus(counter)) % modulus(counter));
    now %= modulus(counter);
    return counter->bcd ? to_bcd(now) : (uint16_t)now;
}

static uint8_t status_of(const struct pit *pit, const struct counter *counter)
{
    return (uint8_t)(output(pit, counter) << 7 | !counter->loaded << 6 | counter->access << 4 | counter->mode << 1 |
                     counter->bcd);
}

/* ---- the interrupt of counter 0 ---- */

/* Serves what is due and arms the clock for what comes next. */
static void service(struct pit *pit)
{
    struct counter *counter = &pit->counter[0];
    uint64_t now = clock_now(pit->config.clock), wake = CLOCK_NEVER;
    if (counting(counter) && !counter->done) {
        uint64_t elapsed = now - counter->start, period = ticks_to_ns(initial(counter));
        bool due = elapsed >= period;
        if (due) {
            irq_set(&pit->config.irq, 0);
            irq_set(&pit->config.irq, 1);
        }
        if (due && periodic(counter)) {
            /* Whole periods are left behind in ticks, so that rounding does not add up. */
            uint64_t ticks = ns_to_ticks(elapsed), whole = ticks - ticks % initial(counter);
            counter->start += ticks_to_ns(whole);
            elapsed = now - counter->start;
            wake = now + (elapsed < period ? period - elapsed : 1);
            if (period < PERIOD_MIN_NS && wake < now + PERIOD_MIN_NS)
                wake = now + PERIOD_MIN_NS;
        } else if (due) {
            counter->done = true;
        } else {
            wake = now + (period - elapsed);
        }
    }
    clock_timer_arm(pit->config.clock, pit->timer, wake);
}

static void fired(void *context)
{
    service(context);
}

/* ---- registers ---- */

/* Counting starts here and now. The chip waits for the next tick; that is below what a guest can see. */
static void begin(struct pit *pit, struct counter *counter)
{
    counter->start = clock_now(pit->config.clock);
    counter->paused = 0;
    counter->done = false;
    if (counter == &pit->counter[0])
        service(pit);
}

static void load_count(struct pit *pit, struct counter *counter, uint16_t count)
{
    counter->written = count;
    counter->loaded = true;
    if (counter->mode == 0 || counter->mode == 4 || periodic(counter))
        begin(pit, counter);
}

static void write_counter(struct pit *pit, struct counter *counter, uint8_t byte)
{
    if (counter->access == ACCESS_LOW) {
        load_count(pit, counter, byte);
    } else if (counter->access == ACCESS_HIGH) {
        load_count(pit, counter, (uint16_t)(byte << 8));
    } else if (!counter->write_high) {
        counter->low = byte;
        counter->write_high = true;
        if (counter->mode == 0) /* "writing the first byte disables counting" */
            counter->loaded = false;
    } else {
        counter->write_high = false;
        load_count(pit, counter, (uint16_t)(byte << 8 | counter->low));
    }
}

static void latch_count(const struct pit *pit, struct counter *counter)
{
    if (counter->latched)
        return; /* the first latch is kept until it is read */
    counter->latch = value(pit, counter);
    counter->latched = true;
}

static void read_back(struct pit *pit, uint8_t command)
{
    for (unsigned i = 0; i < 3; i++) {
        struct counter *counter = &pit->counter[i];
        if (!(command >> (i + 1) & 1))
            continue;
        if (!(command & 0x20))
            latch_count(pit, counter);
        if (!(command & 0x10) && !counter->status_latched) {
            counter->status = status_of(pit, counter);
            counter->status_latched = true;
        }
    }
}

static void write_control(struct pit *pit, uint8_t command)
{
    unsigned which = command >> 6;
    if (which == 3) {
        read_back(pit, command);
        return;
    }
    struct counter *counter = &pit->counter[which];
    unsigned access = command >> 4 & 3, mode = command >> 1 & 7;
    if (access == ACCESS_LATCH) {
        latch_count(pit, counter);
        return;
    }
    *counter = (struct counter){.mode = (uint8_t)(mode > 5 ? mode - 4 : mode), .access = (uint8_t)access,
                                .bcd = command & 1, .gate = counter->gate};
    if (which == 0) {
        irq_set(&pit->config.irq, 0);
        service(pit);
    }
}

/* A latched status comes first, then a latched count, then the live one; of two bytes, the low one first. */
static uint8_t read_counter(struct pit *pit, struct counter *counter)
{
    if (counter->status_latched) {
        counter->status_latched = false;
        return counter->status;
    }
    uint16_t now = counter->latched ? counter->latch : value(pit, counter);
    bool high = counter->access == ACCESS_HIGH || (counter->access == ACCESS_BOTH && counter->read_high);
    if (counter->access == ACCESS_BOTH)
        counter->read_high = !counter->read_high;
    if (counter->access != ACCESS_BOTH || high)
        counter->latched = false;
    return (uint8_t)(high ? now >> 8 : now);
}

/* Only counter 2 has a gate that moves; it matters since guests time themselves by it. */
static void set_gate(struct pit *pit, struct counter *counter, bool gate)
{
    uint64_t now = clock_now(pit->config.clock);
    bool rises = gate && !counter->gate, falls = !gate && counter->gate;
    bool holds = counter->mode == 0 || counter->mode == 4;
    if (falls && holds && counter->loaded)
        counter->paused = now - counter->start;
    counter->gate = gate;
    if (!rises)
        return;
    if (holds) {
        counter->start = now - counter->paused;
    } else {
        counter->triggered = counter->loaded;
        begin(pit, counter);
    }
}

static uint8_t read_speaker(const struct pit *pit)
{
    uint64_t refresh = clock_now(pit->config.clock) / REFRESH_NS & 1;
    return (uint8_t)(pit->speaker | refresh << 4 | output(pit, &pit->counter[2]) << 5);
}

static uint64_t pit_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    struct pit *pit = of(device);
    uint64_t result = 0;
    if (region == PIT_REGION_SPEAKER)
        return read_speaker(pit);
    for (unsigned i = 0; i < size; i++) {
        unsigned port = (unsigned)(offset + i) & 3;
        uint64_t byte = port < 3 ? read_counter(pit, &pit->counter[port]) : 0xFF;
        result |= byte << (8 * i);
    }
    return result;
}

static void pit_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t word)
{
    struct pit *pit = of(device);
    if (region == PIT_REGION_SPEAKER) {
        pit->speaker = word & 0x0F;
        set_gate(pit, &pit->counter[2], word & 1);
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        unsigned port = (unsigned)(offset + i) & 3;
        uint8_t byte = (uint8_t)(word >> (8 * i));
        if (port < 3)
            write_counter(pit, &pit->counter[port], byte);
        else
            write_control(pit, byte);
    }
}

/* ---- the device ---- */

static void pit_reset(struct device *device)
{
    struct pit *pit = of(device);
    for (unsigned i = 0; i < 3; i++)
        pit->counter[i] = (struct counter){.access = ACCESS_BOTH, .gate = i != 2};
    pit->speaker = 0;
    irq_set(&pit->config.irq, 0);
    service(pit);
}

static void pit_save(const struct device *device, struct stream *stream)
{
    const struct pit *pit = (const struct pit *)device;
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    for (unsigned i = 0; i < 3; i++) {
        const struct counter *c = &pit->counter[i];
        const uint8_t bytes[] = {c->mode, c->access, c->bcd, c->loaded, c->gate, c->triggered, c->done, c->low,
                                 c->write_high, c->read_high, c->latched, c->status_latched, c->status};
        stream_put_bytes(stream, bytes, sizeof bytes);
        stream_put_u16(stream, c->written);
        stream_put_u16(stream, c->latch);
        stream_put_u64(stream, clock_now(pit->config.clock) - c->start);
        stream_put_u64(stream, c->paused);
    }
    stream_put_u8(stream, pit->speaker);
    stream_end(stream);
}

static int pit_load(struct device *device, struct stream *stream, struct error *error)
{
    struct pit *pit = of(device);
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    for (unsigned i = 0; i < 3; i++) {
        uint8_t b[13];
        stream_get_bytes(stream, b, sizeof b);
        if (b[0] > 5 || b[1] > ACCESS_BOTH)
            stream_fail(stream, "8254: counter %u has mode %u and access %u", i, b[0], b[1]);
        pit->counter[i] = (struct counter){
            .mode = b[0], .access = b[1], .bcd = b[2] != 0, .loaded = b[3] != 0, .gate = b[4] != 0,
            .triggered = b[5] != 0, .done = b[6] != 0, .low = b[7], .write_high = b[8] != 0, .read_high = b[9] != 0,
            .latched = b[10] != 0, .status_latched = b[11] != 0, .status = b[12]};
        pit->counter[i].written = stream_get_u16(stream);
        pit->counter[i].latch = stream_get_u16(stream);
        pit->counter[i].start = clock_now(pit->config.clock) - stream_get_u64(stream);
        pit->counter[i].paused = stream_get_u64(stream);
    }
    pit->speaker = stream_get_u8(stream) & 0x0F;
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status)
        pit_reset(device);
    else
        service(pit);
    return status;
}

static void pit_destroy(struct device *device)
{
    struct pit *pit = of(device);
    clock_timer_free(pit->config.clock, pit->timer);
    free(pit);
}

static const struct device_ops pit_ops = {
    .name = "pit",
    .reset = pit_reset,
    .read = pit_read,
    .write = pit_write,
    .save = pit_save,
    .load = pit_load,
    .destroy = pit_destroy,
};

struct device *pit_new(const struct pit_config *config)
{
    struct pit *pit = calloc(1, sizeof *pit);
    if (!pit)
        return NULL;
    pit->device.ops = &pit_ops;
    pit->config = *config;
    pit->timer = clock_timer_new(config->clock, fired, pit);
    if (!pit->timer) {
        free(pit);
        return NULL;
    }
    pit_reset(&pit->device);
    return &pit->device;
}
