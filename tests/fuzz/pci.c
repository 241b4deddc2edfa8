/* pci.c - fuzzes the PCI host with two functions: configuration space by both ways, BARs wherever the
 * input moves them, MSI-X tables, INTx. */
#include "device/bus/pci.h"

#include "device_fuzz.h"

#define ECAM UINT64_C(0xE0000000)
#define WINDOW UINT64_C(0xC0000000)

struct card {
    struct device device;
    struct pci_function function;
};

static uint64_t card_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    const struct card *card = (const struct card *)device;
    FUZZ_ASSERT(region < PCI_BARS && offset + size <= card->function.bar[region].size);
    return offset;
}

static void card_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct card *card = (struct card *)device;
    FUZZ_ASSERT(region < PCI_BARS && offset + size <= card->function.bar[region].size);
    pci_msix_notify(&card->function, value & 0xFF);
    pci_intx(&card->function, (int)(value >> 8 & 1));
}

static void card_reset(struct device *device)
{
    pci_function_reset(&((struct card *)device)->function);
}

static void card_save(const struct device *device, struct stream *stream)
{
    pci_function_save(&((const struct card *)device)->function, stream);
}

static int card_load(struct device *device, struct stream *stream, struct error *error)
{
    return pci_function_load(&((struct card *)device)->function, stream, error);
}

static const struct device_ops card_ops = {.name = "card", .reset = card_reset, .read = card_read, .write = card_write,
                                           .save = card_save, .load = card_load};

struct context {
    struct bus *mmio, *ports;
    struct pci_host *host;
    struct card card[2];
};

static void send(void *owner, uint64_t address, uint32_t data)
{
    (void)owner, (void)address, (void)data;
}

/* Reads or writes an address of the buses: configuration space, or near a BAR's home. */
static void other(struct fuzz_input *input, void *opaque)
{
    struct context *context = opaque;
    unsigned choice = (unsigned)fuzz_take(input, 1), size = 1u << (choice >> 4 & 3);
    uint64_t address = 0;
    struct bus *bus = context->mmio;
    switch (choice & 7) {
    case 0: case 1: address = ECAM + (1 + (choice >> 3 & 1)) * 0x8000u + fuzz_take(input, 1); break;
    case 2: /* MSI-X: its control word, or its table and pending bits */
        address = fuzz_take(input, 1);
        address = address & 0x80 ? ECAM + (1 + (choice >> 3 & 1)) * 0x8000u + 0x42
                                 : context->card[choice >> 3 & 1].function.bar[1].mapped + 4 * address;
        break;
    case 3: address = WINDOW + fuzz_take(input, 2); break;
    case 4: address = ECAM + (fuzz_take(input, 3) & 0xFFFFF); break;
    case 5: address = fuzz_take(input, 6); break;
    default:
        bus = context->ports;
        address = choice & 1 ? 0xCF8 + (fuzz_take(input, 1) & 7) : 0xC000 + fuzz_take(input, 1);
        break;
    }
    if (choice & 0x80)
        bus_write(bus, address, size, fuzz_take(input, size));
    else
        bus_read(bus, address, size);
    if (choice == 0x7F) { /* one card comes off and goes on again */
        pci_remove(&context->card[1].function);
        FUZZ_ASSERT(!context->card[1].function.host);
        pci_add(context->host, &context->card[1].function, 0);
    }
}

static void make_card(struct card *card)
{
    card->device.ops = &card_ops;
    card->function.vendor = 0x1AF4;
    card->function.interrupt_pin = 1;
    pci_function_init(&card->function);
    FUZZ_ASSERT(pci_bar_memory(&card->function, 0, 0x1000, false, false, &card->device, 0) == 0);
    FUZZ_ASSERT(pci_msix_add(&card->function, 1, 3) == 0);
    FUZZ_ASSERT(pci_bar_memory(&card->function, 2, 0x4000, true, true, &card->device, 2) == 0);
    FUZZ_ASSERT(pci_bar_io(&card->function, 4, 16, &card->device, 4) == 0);
}

/* The first byte says whether the host or a card is reset, saved and loaded. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_region regions[] = {{PCI_REGION_ECAM, PCI_ECAM_SIZE}, {PCI_REGION_PORTS, 8}};
    static const struct fuzz_region bar[] = {{0, 0x1000}};
    struct context *context = calloc(1, sizeof *context);
    context->mmio = bus_new(UINT64_C(1) << 46);
    context->ports = bus_new(65536);
    struct pci_host_config config = {.mmio = context->mmio, .ports = context->ports, .window32_base = WINDOW,
                                     .window32_size = 0x1000000, .window64_base = UINT64_C(1) << 40,
                                     .window64_size = 0x1000000, .io_base = 0xC000, .io_size = 0x100,
                                     .msi = {.send = send}};
    context->host = pci_host_new(&config);
    struct device *host = pci_host_device(context->host);
    FUZZ_ASSERT(bus_map(context->mmio, ECAM, PCI_ECAM_SIZE, host, PCI_REGION_ECAM) == 0);
    FUZZ_ASSERT(bus_map(context->ports, 0xCF8, 8, host, PCI_REGION_PORTS) == 0);
    for (unsigned i = 0; i < 2; i++) {
        make_card(&context->card[i]);
        FUZZ_ASSERT(pci_add(context->host, &context->card[i].function, 0) == 0);
    }
    bool on_card = size && data[0] & 1;
    struct fuzz_target target = {.device = on_card ? &context->card[0].device : host, .regions = on_card ? bar : regions,
                                 .count = on_card ? 1 : 2, .other = other, .context = context};
    fuzz_device(&target, data + (size > 0), size - (size > 0));
    host->ops->destroy(host);
    bus_free(context->mmio);
    bus_free(context->ports);
    free(context);
    return 0;
}
