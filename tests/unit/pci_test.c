/* pci_test.c - configuration access, BARs that move, capabilities, MSI-X and INTx. */
#include "device/bus/pci.h"

#include <errno.h>

#include "device_check.h"

#define ECAM UINT64_C(0xE0000000)
#define WINDOW32 UINT64_C(0xC0000000)
#define WINDOW64 UINT64_C(0x800000000000)

/* A function with a memory BAR, a wide one, an I/O one and MSI-X. */
struct card {
    struct device device;
    struct pci_function function;
    uint64_t last_value, last_offset;
    unsigned last_region, config_reads, config_writes;
};

static struct {
    uint64_t address;
    uint32_t data;
    unsigned count;
} msi;
static struct test_line intx[4];
static unsigned reset_writes;

static uint64_t card_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    (void)device, (void)size;
    return region << 8 | offset;
}

static void card_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct card *card = (struct card *)device;
    (void)size;
    card->last_region = region;
    card->last_offset = offset;
    card->last_value = value;
}

static void card_reset(struct device *device)
{
    pci_function_reset(&((struct card *)device)->function);
}

static void card_save(const struct device *device, struct stream *stream)
{
    stream_begin(stream, "card", 1);
    pci_function_save(&((const struct card *)device)->function, stream);
    stream_end(stream);
}

static int card_load(struct device *device, struct stream *stream, struct error *error)
{
    stream_enter(stream, "card", 1);
    pci_function_load(&((struct card *)device)->function, stream, NULL);
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status)
        card_reset(device);
    return status;
}

static const struct device_ops card_ops = {.name = "card", .reset = card_reset, .read = card_read, .write = card_write,
                                           .save = card_save, .load = card_load};

static void count_read(struct pci_function *function, unsigned offset, unsigned size)
{
    struct card *card = (struct card *)((char *)function - offsetof(struct card, function));
    (void)offset, (void)size;
    card->config_reads++;
}

static void count_write(struct pci_function *function, unsigned offset, unsigned size)
{
    struct card *card = (struct card *)((char *)function - offsetof(struct card, function));
    (void)offset, (void)size;
    card->config_writes++;
}

static void make_card(struct card *card, uint16_t id)
{
    memset(card, 0, sizeof *card);
    card->device.ops = &card_ops;
    card->function.vendor = 0x1AF4;
    card->function.id = id;
    card->function.class_code = 0x020000;
    card->function.interrupt_pin = 1;
    card->function.config_read = count_read;
    card->function.config_written = count_write;
    pci_function_init(&card->function);
    CHECK_EQ(pci_bar_memory(&card->function, 0, 0x4000, false, false, &card->device, 10), 0);
    CHECK_EQ(pci_bar_memory(&card->function, 1, 0x3000, false, false, &card->device, 0), -EINVAL);
    CHECK_EQ(pci_bar_memory(&card->function, 5, 0x1000, true, false, &card->device, 0), -EINVAL);
    CHECK_EQ(pci_msix_add(&card->function, 1, 4), 0);
    CHECK_EQ(pci_bar_memory(&card->function, 2, 0x100000, true, true, &card->device, 12), 0);
    CHECK_EQ(pci_bar_memory(&card->function, 3, 0x1000, false, false, &card->device, 0), -EINVAL);
    CHECK_EQ(pci_bar_io(&card->function, 4, 32, &card->device, 14), 0);
    int at = pci_capability(&card->function, 9, 20);
    CHECK_EQ(at, 0x4C);
    CHECK_EQ(pci_capability(&card->function, 9, 200), -ENOSPC);
}

static void on_msi(void *owner, uint64_t address, uint32_t data)
{
    (void)owner;
    msi.address = address;
    msi.data = data;
    msi.count++;
}

static uint64_t reset_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    (void)device, (void)region, (void)offset, (void)size;
    return 0x5A;
}

static void reset_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device, (void)region, (void)offset, (void)size, (void)value;
    reset_writes++;
}

static const struct device_ops reset_ops = {.name = "reset", .read = reset_read, .write = reset_write};
static struct device reset_port = {&reset_ops};
static struct bus *mmio, *ports;

static struct pci_host *make_host(void)
{
    struct pci_host_config config = {.mmio = mmio, .ports = ports, .window32_base = WINDOW32,
                                     .window32_size = 0x10000000, .window64_base = WINDOW64, .window64_size = 0x1000000,
                                     .io_base = 0xC000, .io_size = 0x1000, .msi = {.send = on_msi},
                                     .reset_control = &reset_port};
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = test_line(intx, i);
    struct pci_host *host = pci_host_new(&config);
    CHECK_EQ(bus_map(mmio, ECAM, PCI_ECAM_SIZE, pci_host_device(host), PCI_REGION_ECAM), 0);
    CHECK_EQ(bus_map(ports, 0xCF8, 8, pci_host_device(host), PCI_REGION_PORTS), 0);
    return host;
}

static uint64_t at(unsigned slot, unsigned reg)
{
    return ECAM + (slot << 15) + reg;
}

static void test_access(struct card *card)
{
    CHECK_EQ(bus_read(mmio, at(0, 0), 4), 0x00081B36);
    CHECK_EQ(bus_read(mmio, at(0, 8), 4), 0x06000000);
    CHECK_EQ(bus_read(mmio, at(1, 0), 4), 0x10411AF4);
    CHECK_EQ(bus_read(mmio, at(1, 2), 2), 0x1041);
    CHECK_EQ(bus_read(mmio, at(2, 0), 4), 0xFFFFFFFF);
    CHECK_EQ(bus_read(mmio, at(1, 0) | 1 << 12, 4), 0xFFFFFFFF); /* no second function */
    CHECK_EQ(bus_read(mmio, at(1, 0xFFE), 4), 0xFFFFFFFF); /* past the end of its space */
    bus_write(ports, 0xCF8, 4, 0x80000800);
    CHECK_EQ(bus_read(ports, 0xCF8, 4), 0x80000800);
    CHECK_EQ(bus_read(ports, 0xCFC, 4), 0x10411AF4);
    CHECK_EQ(bus_read(ports, 0xCFE, 2), 0x1041);
    bus_write(ports, 0xCF8, 4, 0x00000800);
    CHECK_EQ(bus_read(ports, 0xCFC, 4), 0xFFFFFFFF);
    bus_write(ports, 0xCF8, 4, 0x80010800); /* bus 1 */
    CHECK_EQ(bus_read(ports, 0xCFC, 4), 0xFFFFFFFF);
    CHECK_EQ(bus_read(ports, 0xCF9, 1), 0x5A);
    bus_write(ports, 0xCF9, 1, 6);
    CHECK_EQ(reset_writes, 1);
    unsigned writes = card->config_writes;
    bus_write(mmio, at(1, 0), 4, 0); /* read-only */
    CHECK_EQ(bus_read(mmio, at(1, 0), 4), 0x10411AF4);
    CHECK_EQ(card->config_writes, writes + 1);
    CHECK(card->config_reads > 0);
    CHECK_EQ(bus_read(mmio, at(1, 0x34), 1), 0x40);
    CHECK_EQ(bus_read(mmio, at(1, 0x40), 2), 0x4C11);
    CHECK_EQ(bus_read(mmio, at(1, 0x4C), 2), 0x0009);
    CHECK_EQ(bus_read(mmio, at(1, 6), 2), 0x0010);
}

static void test_bars(struct card *card)
{
    uint64_t bar0 = bus_read(mmio, at(1, 0x10), 4), bar2 = bus_read(mmio, at(1, 0x18), 8);
    uint64_t bar4 = bus_read(mmio, at(1, 0x20), 4);
    CHECK_EQ(bar0, WINDOW32);
    CHECK_EQ(bar2, WINDOW64 | 0xC);
    CHECK_EQ(bar4, 0xC001);
    CHECK_EQ(bus_read(mmio, at(1, 4), 2), 3);
    CHECK_EQ(bus_read(mmio, bar0 + 8, 4), 0xA08);
    CHECK_EQ(bus_read(mmio, WINDOW64 + 0xFF, 1), 0xFF);
    CHECK_EQ(bus_read(mmio, WINDOW64 + 0x10, 4), 0xC10);
    bus_write(ports, 0xC004, 4, 99);
    CHECK_EQ(card->last_region, 14);
    CHECK_EQ(card->last_value, 99);
    /* Sizing. */
    bus_write(mmio, at(1, 0x10), 4, 0xFFFFFFFF);
    CHECK_EQ(bus_read(mmio, at(1, 0x10), 4), 0xFFFFC000);
    bus_write(mmio, at(1, 0x18), 8, UINT64_MAX);
    CHECK_EQ(bus_read(mmio, at(1, 0x18), 8), UINT64_MAX - 0xFFFFF + 0xC);
    bus_write(mmio, at(1, 0x20), 4, 0xFFFFFFFF);
    CHECK_EQ(bus_read(mmio, at(1, 0x20), 4), 0xFFFFFFE1);
    CHECK_EQ(bus_read(mmio, WINDOW32 + 8, 4), 0xFFFFFFFF);
    bus_write(mmio, at(1, 0x18), 8, bar2);
    bus_write(mmio, at(1, 0x20), 4, bar4);
    /* It moves; onto something else it is not decoded, until that goes. */
    bus_write(mmio, at(1, 0x10), 4, 0xC8000000);
    CHECK_EQ(bus_read(mmio, 0xC8000004, 4), 0xA04);
    bus_write(mmio, at(1, 0x10), 4, ECAM);
    CHECK_EQ(bus_read(mmio, at(1, 0), 2), 0x1AF4);
    CHECK_EQ(bus_read(mmio, 0xC8000004, 4), 0xFFFFFFFF);
    bus_write(mmio, at(1, 0x10), 4, bar0);
    CHECK_EQ(bus_read(mmio, bar0 + 8, 4), 0xA08);
    /* Decoding off and on. */
    bus_write(mmio, at(1, 4), 2, 1);
    CHECK_EQ(bus_read(mmio, bar0 + 8, 4), 0xFFFFFFFF);
    CHECK_EQ(bus_read(ports, 0xC000, 1), 0x00);
    bus_write(mmio, at(1, 4), 2, 2);
    CHECK_EQ(bus_read(mmio, bar0 + 8, 4), 0xA08);
    CHECK_EQ(bus_read(ports, 0xC000, 1), 0xFF);
    CHECK(!pci_bus_master(&card->function));
    bus_write(mmio, at(1, 4), 2, 7);
    CHECK(pci_bus_master(&card->function));
}

static void test_msix(struct card *card)
{
    uint64_t table = bus_read(mmio, at(1, 0x14), 4);
    CHECK_EQ(table, WINDOW32 + 0x4000);
    CHECK_EQ(bus_read(mmio, at(1, 0x42), 2), 3);
    CHECK_EQ(bus_read(mmio, at(1, 0x44), 4), 1);
    CHECK_EQ(bus_read(mmio, at(1, 0x48), 4), 0x801);
    CHECK_EQ(bus_read(mmio, table + 12, 4), 1); /* masked after reset */
    pci_msix_notify(&card->function, 0);
    CHECK_EQ(msi.count, 0);
    bus_write(mmio, table + 0x10, 8, 0xFEE01000);
    bus_write(mmio, table + 0x18, 4, 0x4041);
    bus_write(mmio, table + 0x1C, 4, 0xFFFFFFFE);
    CHECK_EQ(bus_read(mmio, table + 0x1C, 4), 0);
    bus_write(mmio, at(1, 0x42), 2, 0xC000); /* on, all masked */
    CHECK(pci_msix_enabled(&card->function));
    pci_msix_notify(&card->function, 1);
    pci_msix_notify(&card->function, 4);
    CHECK_EQ(msi.count, 0);
    CHECK_EQ(bus_read(mmio, table + 0x800, 8), 2);
    bus_write(mmio, table + 0x800, 8, 0xFF);
    CHECK_EQ(bus_read(mmio, table + 0x800, 8), 2);
    bus_write(mmio, at(1, 0x42), 2, 0x8000);
    CHECK_EQ(msi.count, 1);
    CHECK_EQ(msi.address, 0xFEE01000);
    CHECK_EQ(msi.data, 0x4041);
    CHECK_EQ(bus_read(mmio, table + 0x800, 8), 0);
    pci_msix_notify(&card->function, 1);
    CHECK_EQ(msi.count, 2);
    bus_write(mmio, table + 0x1C, 4, 1);
    pci_msix_notify(&card->function, 1);
    CHECK_EQ(msi.count, 2);
    bus_write(mmio, table + 0x1C, 4, 0);
    CHECK_EQ(msi.count, 3);
}

static void test_intx(struct card *card, struct card *second)
{
    bus_write(mmio, at(1, 0x42), 2, 0); /* MSI-X off */
    pci_intx(&card->function, 1);
    CHECK_EQ(intx[1].level, 1); /* slot 1, pin A */
    CHECK_EQ(bus_read(mmio, at(1, 6), 2) & 8, 8);
    pci_intx(&second->function, 1);
    CHECK_EQ(intx[1].level, 1); /* slot 5 shares the wire */
    pci_intx(&card->function, 0);
    CHECK_EQ(intx[1].level, 1);
    bus_write(mmio, at(5, 4), 2, 0x403);
    CHECK_EQ(intx[1].level, 0);
    bus_write(mmio, at(5, 4), 2, 0x003);
    CHECK_EQ(intx[1].level, 1);
    bus_write(mmio, at(5, 0x42), 2, 0x8000);
    CHECK_EQ(intx[1].level, 0);
    bus_write(mmio, at(5, 0x42), 2, 0);
    pci_intx(&second->function, 0);
}

static void test_add(struct pci_host *host, struct card *card, struct card *second)
{
    static struct card many[40];
    CHECK_EQ(pci_add(host, &card->function, 2), -EBUSY);
    CHECK_EQ(pci_add(host, &second->function, 1), -EBUSY);
    CHECK_EQ(pci_add(host, &second->function, 32), -ENOSPC);
    CHECK_EQ(pci_add(host, &second->function, 5), 0);
    CHECK_EQ(bus_read(mmio, at(5, 0x10), 4), WINDOW32 + 0x8000); /* after the first's table, aligned */
    CHECK_EQ(bus_read(mmio, at(5, 0x20), 4), 0xC021);
    /* The 64-bit window has room for 16 in all; after that wide BARs go below 4 GiB. */
    unsigned added = 0;
    for (unsigned i = 0; i < 40; i++) {
        make_card(&many[i], 7);
        added += pci_add(host, &many[i].function, 0) == 0;
    }
    CHECK_EQ(added, 29); /* 31 slots */
    pci_remove(&many[3].function);
    CHECK_EQ(pci_add(host, &many[39].function, 0), 0);
    CHECK_EQ(many[39].function.slot, many[3].function.slot);
    CHECK_EQ(many[39].function.bar[0].assigned, many[3].function.bar[0].assigned);
    for (unsigned i = 0; i < 40; i++)
        pci_remove(&many[i].function);
    CHECK_EQ(bus_read(mmio, at(31, 0), 4), 0xFFFFFFFF);
}

/* A function that comes later is given no address that a guest has moved a BAR to, decoded or not. */
static void test_add_beside_moved(struct pci_host *host)
{
    static struct card first, second;
    make_card(&first, 7);
    make_card(&second, 8);
    CHECK_EQ(pci_add(host, &first.function, 20), 0);
    uint64_t place = first.function.bar[0].assigned;
    pci_remove(&first.function);
    CHECK_EQ(pci_add(host, &first.function, 20), 0);
    CHECK_EQ(first.function.bar[0].assigned, place);
    bus_write(mmio, at(20, 0x10), 4, place + 0x4000);
    for (unsigned command = 0; command <= 2; command += 2) {
        bus_write(mmio, at(20, 4), 2, command);
        CHECK_EQ(pci_add(host, &second.function, 21), 0);
        CHECK(second.function.bar[0].assigned >= place + 0x8000);
        CHECK_EQ(bus_read(mmio, second.function.bar[0].assigned + 4, 4), 0xA04);
        pci_remove(&second.function);
    }
    pci_remove(&first.function);
}

int main(void)
{
    mmio = bus_new(UINT64_C(1) << 48);
    ports = bus_new(0x10000);
    static struct card card, second, third;
    struct pci_host *host = make_host();
    make_card(&card, 0x1041);
    make_card(&second, 0x1041);
    CHECK_EQ(pci_add(host, &card.function, 0), 0);
    test_access(&card);
    test_bars(&card);
    test_msix(&card);
    test_add(host, &card, &second);
    test_add_beside_moved(host);
    test_intx(&card, &second);

    bus_write(mmio, at(1, 0x10), 4, 0xC8000000);
    bus_write(mmio, at(1, 0x42), 2, 0xC000);
    pci_msix_notify(&card.function, 1);
    make_card(&third, 0x1041);
    pci_remove(&second.function);
    CHECK_EQ(pci_add(host, &third.function, 9), 0);
    pci_remove(&card.function); /* the copy takes its place on the bus */
    check_round_trip(&card.device, &third.device);
    CHECK_EQ(bus_read(mmio, 0xC8000004, 4), 0xA04);
    bus_write(mmio, at(9, 0x42), 2, 0x8000);
    CHECK_EQ(msi.count, 4);
    bus_write(mmio, at(9, 4), 2, 0x403);
    check_hostile(&third.device);
    check_round_trip(pci_host_device(host), pci_host_device(host));
    check_hostile(pci_host_device(host));
    third.device.ops->reset(&third.device);
    CHECK_EQ(bus_read(mmio, third.function.bar[0].assigned + 4, 4), 0xA04);
    pci_host_device(host)->ops->destroy(pci_host_device(host));
    CHECK(!third.function.host);
    bus_free(mmio);
    bus_free(ports);
    CHECK_DONE();
}
