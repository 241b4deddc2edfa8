/* bus_test.c - ranges, their borders, and devices that change the bus while it is in use. */
#include "device/bus/bus.h"

#include <errno.h>

#include "device_check.h"

struct echo {
    struct device device;
    uint64_t last_offset, last_value;
    unsigned last_region, last_size, reads, writes;
    struct bus *remap; /* move itself away on a write */
};

static uint64_t echo_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    struct echo *echo = (struct echo *)device;
    echo->reads++;
    echo->last_region = region;
    echo->last_offset = offset;
    echo->last_size = size;
    return UINT64_C(0x8877665544332211) >> (8 * (offset & 7));
}

static void echo_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct echo *echo = (struct echo *)device;
    echo->writes++;
    echo->last_region = region;
    echo->last_offset = offset;
    echo->last_size = size;
    echo->last_value = value;
    if (echo->remap) {
        bus_unmap(echo->remap, 0x100, device);
        bus_map(echo->remap, 0x300, 16, device, 7);
    }
}

static const struct device_ops echo_ops = {.name = "echo", .read = echo_read, .write = echo_write};

int main(void)
{
    struct bus *bus = bus_new(0x10000);
    struct echo a = {.device = {&echo_ops}}, b = {.device = {&echo_ops}};

    CHECK_EQ(bus_read(bus, 0x100, 1), 0xFF);
    CHECK_EQ(bus_read(bus, 0x100, 8), UINT64_MAX);
    CHECK_EQ(bus_map(bus, 0x100, 16, &a.device, 3), 0);
    CHECK_EQ(bus_map(bus, 0x110, 16, &b.device, 4), 0);
    CHECK_EQ(bus_map(bus, 0x10F, 1, &b.device, 0), -EEXIST);
    CHECK_EQ(bus_map(bus, 0xF0, 17, &b.device, 0), -EEXIST);
    CHECK_EQ(bus_map(bus, 0x104, 4, &b.device, 0), -EEXIST);
    CHECK_EQ(bus_map(bus, 0, 0x10000, &b.device, 0), -EEXIST);
    CHECK_EQ(bus_map(bus, 0x200, 0, &b.device, 0), -EINVAL);
    CHECK_EQ(bus_map(bus, 0xFFFF, 2, &b.device, 0), -EINVAL);
    CHECK_EQ(bus_map(bus, 0x200, UINT64_MAX, &b.device, 0), -EINVAL);

    CHECK_EQ(bus_read(bus, 0x102, 2), 0x4433);
    CHECK_EQ(a.last_region, 3);
    CHECK_EQ(a.last_offset, 2);
    CHECK_EQ(a.last_size, 2);
    bus_write(bus, 0x118, 4, UINT64_C(0xAABBCCDDEEFF0011));
    CHECK_EQ(b.last_region, 4);
    CHECK_EQ(b.last_offset, 8);
    CHECK_EQ(b.last_value, 0xEEFF0011);

    /* Across two devices, and across a device's end into nothing: by bytes. */
    CHECK_EQ(bus_read(bus, 0x10E, 4), 0x22118877);
    CHECK_EQ(bus_read(bus, 0x11F, 2), 0xFF88);
    CHECK_EQ(bus_read(bus, 0xFE, 4), 0x2211FFFF);
    bus_write(bus, 0x10F, 2, 0xBEEF);
    CHECK_EQ(a.last_value, 0xEF);
    CHECK_EQ(b.last_value, 0xBE);

    a.remap = bus;
    bus_write(bus, 0x101, 1, 1);
    CHECK_EQ(bus_read(bus, 0x101, 1), 0xFF);
    CHECK_EQ(bus_read(bus, 0x301, 1), 0x22);
    CHECK_EQ(a.last_region, 7);
    bus_unmap(bus, 0x300, &b.device); /* not its owner: no effect */
    CHECK_EQ(bus_read(bus, 0x301, 1), 0x22);
    for (unsigned i = 0; i < 200; i++) /* grows, and stays sorted whatever the order */
        CHECK_EQ(bus_map(bus, 0x1000 + 16 * ((i * 67) % 200), 8, &b.device, i), 0);
    for (unsigned i = 0; i < 200; i++) {
        bus_read(bus, 0x1000 + 16 * ((i * 67) % 200), 1);
        CHECK_EQ(b.last_region, i);
        CHECK_EQ(bus_read(bus, 0x1008 + 16 * i, 4), 0xFFFFFFFF);
    }
    bus_free(bus);
    bus_free(NULL);
    CHECK_DONE();
}
