/* bus.c - fuzzes the bus against the simplest model of it: an array that says who owns each address. */
#include "device/bus/bus.h"

#include "device_fuzz.h"

#define LIMIT 512u
#define DEVICES 4u

struct echo {
    struct device device;
    unsigned number;
};

struct owned {
    unsigned device; /* 0: nobody */
    uint64_t base, size;
};

static uint8_t content(unsigned device, uint64_t offset)
{
    return (uint8_t)(device * 64 + offset);
}

static uint64_t echo_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    const struct echo *echo = (const struct echo *)device;
    uint64_t value = 0;
    FUZZ_ASSERT(region == echo->number);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)content(echo->number, offset + i) << (8 * i);
    return value;
}

static void echo_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    const struct echo *echo = (const struct echo *)device;
    FUZZ_ASSERT(region == echo->number);
    for (unsigned i = 0; i < size; i++) /* the fuzzer writes what it would read */
        FUZZ_ASSERT((uint8_t)(value >> (8 * i)) == content(echo->number, offset + i));
}

static const struct device_ops echo_ops = {.name = "echo", .read = echo_read, .write = echo_write};

static void map(struct bus *bus, struct echo *echo, struct owned *owned, uint64_t base, uint64_t size)
{
    bool fits = size > 0 && base < LIMIT && size <= LIMIT - base;
    for (uint64_t a = base; fits && a < base + size; a++)
        fits = owned[a].device == 0;
    FUZZ_ASSERT((bus_map(bus, base, size, &echo->device, echo->number) == 0) == fits);
    for (uint64_t a = base; fits && a < base + size; a++)
        owned[a] = (struct owned){echo->number, base, size};
}

static void unmap(struct bus *bus, struct echo *echo, struct owned *owned, uint64_t base)
{
    struct owned was = base < LIMIT ? owned[base] : (struct owned){0};
    bus_unmap(bus, base, &echo->device);
    if (was.device == echo->number && was.base == base)
        memset(&owned[base], 0, was.size * sizeof *owned);
}

static void access(struct bus *bus, const struct owned *owned, uint64_t address, unsigned size)
{
    uint64_t want = 0;
    for (unsigned i = 0; i < size; i++) {
        const struct owned *o = address + i < LIMIT ? &owned[address + i] : NULL;
        uint8_t byte = o && o->device ? content(o->device, address + i - o->base) : 0xFF;
        want |= (uint64_t)byte << (8 * i);
    }
    FUZZ_ASSERT(bus_read(bus, address, size) == want);
    bus_write(bus, address, size, want);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct owned owned[LIMIT] = {0};
    struct echo echo[DEVICES];
    struct bus *bus = bus_new(LIMIT);
    for (unsigned i = 0; i < DEVICES; i++)
        echo[i] = (struct echo){{&echo_ops}, i + 1};
    while (input.left) {
        unsigned choice = (unsigned)fuzz_take(&input, 1);
        struct echo *one = &echo[choice >> 2 & 3];
        uint64_t base = fuzz_take(&input, 2) % (LIMIT + 16);
        if ((choice & 3) == 0)
            map(bus, one, owned, base, choice & 0x80 ? fuzz_take(&input, 8) : fuzz_take(&input, 1) % 32);
        else if ((choice & 3) == 1)
            unmap(bus, one, owned, base);
        else
            access(bus, owned, base, 1u << (choice >> 4 & 3));
    }
    bus_free(bus);
    return 0;
}
