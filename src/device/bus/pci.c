/* pci.c - see pci.h. Configuration space, BARs and INTx; pci_msix.c has MSI-X.
 *
 * A function's configuration space is an array of bytes beside an equal array of write masks: what can be
 * written is data, set when the function is described, and a write is one merge. Only the command register, the
 * BARs and the MSI-X control word have effects, which are looked for after the merge by the range written.
 *
 * Guests size a BAR by writing ones to it with decoding on, and so move it for a moment to the top of the
 * address space, or onto another device. That must do no harm and be undone by the next write: hence a BAR
 * that cannot be mapped is left undecoded, and tried again at every later change.
 *
 * Invariant: bar.mapped tells what is on the buses. settle() brings that to what the command registers
 * and BARs ask for, and is called after each change of them: first everything that moved is taken off, then
 * what can be put on is put on. */
#include "device/bus/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "device/bus/pci_private.h"

#define SAVED_VERSION 1
#define UNMAPPED UINT64_MAX
#define ADDRESS_ENABLE 0x80000000u

enum { CFG_VENDOR = 0x00, CFG_DEVICE = 0x02, CFG_COMMAND = 0x04, CFG_STATUS = 0x06, CFG_REVISION = 0x08,
       CFG_INTERFACE = 0x09, CFG_BAR = 0x10, CFG_BAR_END = 0x28, CFG_SUBSYSTEM_VENDOR = 0x2C, CFG_SUBSYSTEM = 0x2E,
       CFG_CAPABILITIES = 0x34, CFG_LINE = 0x3C, CFG_PIN = 0x3D, CFG_FIRST_CAPABILITY = 0x40, CFG_LAST = 0x100 };
enum { COMMAND_IO = 1, COMMAND_MEMORY = 2, COMMAND_MASTER = 4, COMMAND_NO_INTX = 0x400, COMMAND_WRITABLE = 0x547 };
enum { STATUS_INTX = 0x08, STATUS_CAPABILITIES = 0x10 };
enum { BAR_IO = 1, BAR_WIDE = 4, BAR_PREFETCHABLE = 8 };

struct pci_host {
    struct device device;
    struct pci_host_config config;
    uint32_t address; /* port 0xCF8 */
    struct pci_function *slot[PCI_SLOTS];
    struct pci_function bridge;
};

/* ---- fields of configuration space ---- */

uint16_t pci_get16(const struct pci_function *function, unsigned offset)
{
    return (uint16_t)(function->config[offset] | function->config[offset + 1] << 8);
}

void pci_put16(struct pci_function *function, unsigned offset, uint16_t value)
{
    function->config[offset] = (uint8_t)value;
    function->config[offset + 1] = (uint8_t)(value >> 8);
}

static uint32_t get32(const struct pci_function *function, unsigned offset)
{
    return pci_get16(function, offset) | (uint32_t)pci_get16(function, offset + 2) << 16;
}

void pci_put32(struct pci_function *function, unsigned offset, uint32_t value)
{
    pci_put16(function, offset, (uint16_t)value);
    pci_put16(function, offset + 2, (uint16_t)(value >> 16));
}

static void allow32(struct pci_function *function, unsigned offset, uint32_t mask)
{
    for (unsigned i = 0; i < 4; i++)
        function->writable[offset + i] = (uint8_t)(mask >> (8 * i));
}

static uint16_t command(const struct pci_function *function)
{
    return pci_get16(function, CFG_COMMAND);
}

bool pci_bus_master(const struct pci_function *function)
{
    return command(function) & COMMAND_MASTER;
}

/* ---- BARs ---- */

static uint64_t bar_address(const struct pci_function *function, unsigned n)
{
    const struct pci_bar *bar = &function->bar[n];
    uint64_t low = get32(function, CFG_BAR + 4 * n);
    if (bar->io)
        return low & ~UINT64_C(3);
    uint64_t high = bar->wide ? (uint64_t)get32(function, CFG_BAR + 4 * n + 4) << 32 : 0;
    return (low & ~UINT64_C(15)) | high;
}

static void put_bar(struct pci_function *function, unsigned n, uint64_t address)
{
    const struct pci_bar *bar = &function->bar[n];
    uint32_t type = bar->io ? BAR_IO : (bar->wide ? BAR_WIDE : 0u) | (bar->prefetchable ? BAR_PREFETCHABLE : 0u);
    pci_put32(function, CFG_BAR + 4 * n, (uint32_t)address | type);
    if (bar->wide)
        pci_put32(function, CFG_BAR + 4 * n + 4, (uint32_t)(address >> 32));
}

/* Where the guest wants the BAR; UNMAPPED while decoding is off. Nothing is ever decoded at 0. */
static uint64_t wanted(const struct pci_function *function, unsigned n)
{
    const struct pci_bar *bar = &function->bar[n];
    if (!bar->size || !(command(function) & (bar->io ? COMMAND_IO : COMMAND_MEMORY)))
        return UNMAPPED;
    uint64_t address = bar_address(function, n);
    return address ? address : UNMAPPED;
}

static struct bus *bus_of(const struct pci_host *host, const struct pci_bar *bar)
{
    return bar->io ? host->config.ports : host->config.mmio;
}

static void unmap(struct pci_host *host, struct pci_bar *bar)
{
    if (bar->mapped != UNMAPPED)
        bus_unmap(bus_of(host, bar), bar->mapped, bar->device);
    bar->mapped = UNMAPPED;
}

/* Two passes, since two BARs may change places. */
static void settle(struct pci_host *host)
{
    for (unsigned s = 0; s < PCI_SLOTS; s++)
        for (unsigned n = 0; host->slot[s] && n < PCI_BARS; n++)
            if (host->slot[s]->bar[n].mapped != wanted(host->slot[s], n))
                unmap(host, &host->slot[s]->bar[n]);
    for (unsigned s = 0; s < PCI_SLOTS; s++) {
        for (unsigned n = 0; host->slot[s] && n < PCI_BARS; n++) {
            struct pci_bar *bar = &host->slot[s]->bar[n];
            uint64_t address = wanted(host->slot[s], n);
            if (bar->mapped == address)
                continue;
            /* A refusal (something else is there) leaves the BAR undecoded: see pci.h. */
            if (bus_map(bus_of(host, bar), address, bar->size, bar->device, bar->region) == 0)
                bar->mapped = address;
        }
    }
}

static bool power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

/* A BAR's size is told by which of its bits can be written: those above the size. */
static int describe(struct pci_function *function, unsigned n, const struct pci_bar *bar)
{
    bool taken = n >= PCI_BARS || function->bar[n].size || (n > 0 && function->bar[n - 1].wide);
    if (taken || !power_of_two(bar->size) || (bar->wide && (n + 1 >= PCI_BARS || function->bar[n + 1].size)))
        return -EINVAL;
    if (bar->size < (bar->io ? 4u : 16u) || (!bar->wide && bar->size > 0x80000000u))
        return -EINVAL;
    function->bar[n] = *bar;
    function->bar[n].mapped = UNMAPPED;
    uint64_t mask = ~(bar->size - 1);
    allow32(function, CFG_BAR + 4 * n, (uint32_t)mask);
    if (bar->wide)
        allow32(function, CFG_BAR + 4 * n + 4, (uint32_t)(mask >> 32));
    put_bar(function, n, 0);
    return 0;
}

int pci_bar_memory(struct pci_function *function, unsigned n, uint64_t size, bool wide, bool prefetchable,
                   struct device *device, unsigned region)
{
    return describe(function, n, &(struct pci_bar){.size = size, .wide = wide, .prefetchable = prefetchable,
                                                   .device = device, .region = region});
}

int pci_bar_io(struct pci_function *function, unsigned n, uint32_t size, struct device *device, unsigned region)
{
    return describe(function, n, &(struct pci_bar){.size = size, .io = true, .device = device, .region = region});
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a - b < b_size || b - a < a_size;
}

/* The end of a BAR that overlaps [address, address + size), or 0. A BAR takes both where pci_add put it, which it
 * returns to at a reset, and where the guest put it since. */
static uint64_t conflict(const struct pci_host *host, bool io, uint64_t address, uint64_t size)
{
    for (unsigned s = 0; s < PCI_SLOTS; s++) {
        for (unsigned n = 0; host->slot[s] && n < PCI_BARS; n++) {
            const struct pci_bar *bar = &host->slot[s]->bar[n];
            if (!bar->size || bar->io != io)
                continue;
            const uint64_t place[] = {bar->assigned, bar_address(host->slot[s], n)};
            for (unsigned i = 0; i < 2; i++)
                if (overlap(place[i], bar->size, address, size))
                    return place[i] + bar->size;
        }
    }
    return 0;
}

/* First fit in a window; 0 when there is no room. */
static uint64_t find_room(const struct pci_host *host, bool io, uint64_t size, uint64_t base, uint64_t window)
{
    uint64_t address = (base + size - 1) & ~(size - 1), end;
    while (address >= base && range_within(address - base, size, window)) {
        end = conflict(host, io, address, size);
        if (!end)
            return address;
        address = (end + size - 1) & ~(size - 1);
    }
    return 0;
}

/* Gives each BAR a place: wide ones in the 64-bit window while there is room, so that the other stays free
 * for those that need it. Nothing is mapped yet. */
static int assign(struct pci_host *host, struct pci_function *function)
{
    const struct pci_host_config *config = &host->config;
    for (unsigned n = 0; n < PCI_BARS; n++) {
        struct pci_bar *bar = &function->bar[n];
        if (!bar->size)
            continue;
        uint64_t address = 0;
        if (bar->io)
            address = find_room(host, true, bar->size, config->io_base, config->io_size);
        else if (bar->wide)
            address = find_room(host, false, bar->size, config->window64_base, config->window64_size);
        if (!address && !bar->io)
            address = find_room(host, false, bar->size, config->window32_base, config->window32_size);
        if (!address)
            return -ENOSPC;
        bar->assigned = address;
    }
    return 0;
}

/* ---- INTx ---- */

static bool asserts(const struct pci_function *function)
{
    return function->intx_level && function->interrupt_pin && !(command(function) & COMMAND_NO_INTX) &&
           !pci_msix_enabled(function);
}

static unsigned wire(const struct pci_function *function)
{
    return (function->slot + function->interrupt_pin - 1u) % 4;
}

/* The four wires are shared: each is high while any function asserts it. */
void pci_update_intx(struct pci_function *function)
{
    bool level = false;
    if (!function->host || !function->interrupt_pin)
        return;
    for (unsigned s = 0; s < PCI_SLOTS; s++) {
        const struct pci_function *other = function->host->slot[s];
        if (other && other->interrupt_pin && wire(other) == wire(function))
            level = level || asserts(other);
    }
    irq_set(&function->host->config.intx[wire(function)], level);
}

void pci_intx(struct pci_function *function, int level)
{
    function->intx_level = level != 0;
    pci_put16(function, CFG_STATUS, (uint16_t)((pci_get16(function, CFG_STATUS) & ~STATUS_INTX) |
                                               (level ? STATUS_INTX : 0)));
    pci_update_intx(function);
}

struct msi_sink *pci_msi(struct pci_function *function)
{
    return function->host ? &function->host->config.msi : NULL;
}

/* ---- configuration access ---- */

static uint64_t config_read(struct pci_function *function, unsigned offset, unsigned size)
{
    uint64_t value = 0;
    if (!function || offset + size > PCI_CONFIG_SIZE)
        return UINT64_MAX;
    if (function->config_read)
        function->config_read(function, offset, size);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)function->config[offset + i] << (8 * i);
    return value;
}

static bool touches(unsigned offset, unsigned size, unsigned from, unsigned to)
{
    return offset < to && offset + size > from;
}

static void config_write(struct pci_function *function, unsigned offset, unsigned size, uint64_t value)
{
    if (!function || offset + size > PCI_CONFIG_SIZE)
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = function->writable[offset + i], byte = (uint8_t)(value >> (8 * i));
        function->config[offset + i] = (uint8_t)((function->config[offset + i] & ~mask) | (byte & mask));
    }
    if (touches(offset, size, CFG_COMMAND, CFG_COMMAND + 2) || touches(offset, size, CFG_BAR, CFG_BAR_END))
        settle(function->host);
    if (touches(offset, size, CFG_COMMAND, CFG_COMMAND + 2))
        pci_update_intx(function);
    if (function->msix.vectors && touches(offset, size, function->msix.capability, function->msix.capability + 4))
        pci_msix_changed(function);
    if (function->config_written)
        function->config_written(function, offset, size);
}

/* The function that ECAM address bits 27:12, or the address port's bits 23:8, name: bus, device, function. */
static struct pci_function *select_function(struct pci_host *host, uint32_t number)
{
    return number >> 8 == 0 && (number & 7) == 0 ? host->slot[number >> 3 & 31] : NULL;
}

/* Absent functions read as all ones; so does what is past the 4 KiB of one. */
static uint64_t host_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    struct pci_host *host = (struct pci_host *)device;
    const struct pci_host_config *config = &host->config;
    if (region == PCI_REGION_ECAM)
        return config_read(select_function(host, (uint32_t)(offset >> 12)), offset & 0xFFF, size);
    if (offset == 0 && size == 4)
        return host->address;
    if (offset == 1 && size == 1 && config->reset_control)
        return config->reset_control->ops->read(config->reset_control, config->reset_region, 0, 1);
    if (offset < 4 || size > 4 || !(host->address & ADDRESS_ENABLE))
        return UINT64_MAX;
    return config_read(select_function(host, host->address >> 8 & 0xFFFF),
                       (host->address & 0xFC) + (unsigned)(offset - 4), size);
}

static void host_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_host *host = (struct pci_host *)device;
    const struct pci_host_config *config = &host->config;
    if (region == PCI_REGION_ECAM)
        config_write(select_function(host, (uint32_t)(offset >> 12)), offset & 0xFFF, size, value);
    else if (offset == 0 && size == 4)
        host->address = (uint32_t)value;
    else if (offset == 1 && size == 1 && config->reset_control)
        config->reset_control->ops->write(config->reset_control, config->reset_region, 0, 1, value);
    else if (offset >= 4 && size <= 4 && (host->address & ADDRESS_ENABLE))
        config_write(select_function(host, host->address >> 8 & 0xFFFF),
                     (host->address & 0xFC) + (unsigned)(offset - 4), size, value);
}

/* ---- functions ---- */

void pci_function_init(struct pci_function *function)
{
    pci_put16(function, CFG_VENDOR, function->vendor);
    pci_put16(function, CFG_DEVICE, function->id);
    function->config[CFG_REVISION] = function->revision;
    function->config[CFG_INTERFACE] = (uint8_t)function->class_code;
    pci_put16(function, CFG_INTERFACE + 1, (uint16_t)(function->class_code >> 8));
    pci_put16(function, CFG_SUBSYSTEM_VENDOR, function->subsystem_vendor);
    pci_put16(function, CFG_SUBSYSTEM, function->subsystem);
    function->config[CFG_PIN] = function->interrupt_pin;
    function->writable[CFG_LINE] = function->interrupt_pin ? 0xFF : 0;
    function->writable[CFG_COMMAND] = (uint8_t)COMMAND_WRITABLE;
    function->writable[CFG_COMMAND + 1] = (uint8_t)(COMMAND_WRITABLE >> 8);
    for (unsigned n = 0; n < PCI_BARS; n++)
        function->bar[n].mapped = UNMAPPED;
    function->capability_end = CFG_FIRST_CAPABILITY;
}

int pci_capability(struct pci_function *function, uint8_t id, unsigned length)
{
    unsigned at = function->capability_end, end = (at + length + 3) & ~3u;
    if (length < 2 || length > CFG_LAST || end > CFG_LAST)
        return -ENOSPC;
    function->config[at] = id;
    function->config[function->capability_last ? function->capability_last + 1 : CFG_CAPABILITIES] = (uint8_t)at;
    function->capability_last = at;
    function->capability_end = end;
    pci_put16(function, CFG_STATUS, pci_get16(function, CFG_STATUS) | STATUS_CAPABILITIES);
    return (int)at;
}

/* Where pci_add put them, decoded: what firmware would have left. */
static void restore_bars(struct pci_function *function)
{
    uint16_t decode = 0;
    for (unsigned n = 0; n < PCI_BARS; n++) {
        if (!function->bar[n].size)
            continue;
        put_bar(function, n, function->bar[n].assigned);
        decode |= function->bar[n].io ? COMMAND_IO : COMMAND_MEMORY;
    }
    pci_put16(function, CFG_COMMAND, decode);
}

void pci_function_reset(struct pci_function *function)
{
    restore_bars(function);
    function->config[CFG_LINE] = 0;
    pci_msix_reset(function);
    pci_intx(function, 0);
    if (function->host)
        settle(function->host);
}

int pci_add(struct pci_host *host, struct pci_function *function, unsigned slot)
{
    if (slot == 0)
        for (slot = 1; slot < PCI_SLOTS && host->slot[slot]; slot++)
            ;
    if (slot >= PCI_SLOTS)
        return -ENOSPC;
    if (host->slot[slot] || function->host)
        return -EBUSY;
    /* In its slot while BARs are assigned, so that they see each other; they are first out of the way. */
    for (unsigned n = 0; n < PCI_BARS; n++) {
        function->bar[n].assigned = UNMAPPED - function->bar[n].size;
        if (function->bar[n].size)
            put_bar(function, n, 0);
    }
    host->slot[slot] = function;
    int status = assign(host, function);
    if (status) {
        host->slot[slot] = NULL;
        return status;
    }
    function->host = host;
    function->slot = slot;
    restore_bars(function);
    settle(host);
    for (unsigned n = 0; n < PCI_BARS; n++) {
        if (function->bar[n].size && function->bar[n].mapped == UNMAPPED) {
            pci_remove(function);
            return -EEXIST;
        }
    }
    return 0;
}

void pci_remove(struct pci_function *function)
{
    struct pci_host *host = function->host;
    if (!host)
        return;
    pci_intx(function, 0);
    for (unsigned n = 0; n < PCI_BARS; n++)
        unmap(host, &function->bar[n]);
    host->slot[function->slot] = NULL;
    function->host = NULL;
    settle(host);
}

void pci_function_save(const struct pci_function *function, struct stream *stream)
{
    stream_begin(stream, "pci", SAVED_VERSION);
    stream_put_bytes(stream, function->config, sizeof function->config);
    pci_msix_save(function, stream);
    stream_put_u8(stream, (uint8_t)function->intx_level);
    stream_end(stream);
}

/* Only what the guest can write is taken from the stream: the rest describes this function, not the saved one,
 * and must not be a way to change it. */
int pci_function_load(struct pci_function *function, struct stream *stream, struct error *error)
{
    uint8_t config[PCI_CONFIG_SIZE];
    stream_enter(stream, "pci", SAVED_VERSION);
    stream_get_bytes(stream, config, sizeof config);
    if (memcmp(config, function->config, 4) != 0)
        stream_fail(stream, "PCI slot %u: the saved function is %02x%02x:%02x%02x, this one %04x:%04x", function->slot,
                    config[1], config[0], config[3], config[2], function->vendor, function->id);
    pci_msix_load(function, stream);
    int level = stream_get_u8(stream);
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status) {
        pci_function_reset(function);
        return status;
    }
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        uint8_t mask = function->writable[i];
        function->config[i] = (uint8_t)((function->config[i] & ~mask) | (config[i] & mask));
    }
    if (function->host)
        settle(function->host);
    pci_intx(function, level);
    return 0;
}

/* ---- the host ---- */

static void host_reset(struct device *device)
{
    struct pci_host *host = (struct pci_host *)device;
    host->address = 0;
    pci_function_reset(&host->bridge);
}

static void host_save(const struct device *device, struct stream *stream)
{
    const struct pci_host *host = (const struct pci_host *)device;
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_put_u32(stream, host->address);
    pci_function_save(&host->bridge, stream);
    stream_end(stream);
}

static int host_load(struct device *device, struct stream *stream, struct error *error)
{
    struct pci_host *host = (struct pci_host *)device;
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    host->address = stream_get_u32(stream);
    pci_function_load(&host->bridge, stream, NULL);
    stream_leave(stream);
    int status = stream_status(stream, error);
    if (status)
        host_reset(device);
    return status;
}

static void host_destroy(struct device *device)
{
    struct pci_host *host = (struct pci_host *)device;
    for (unsigned s = 0; s < PCI_SLOTS; s++)
        if (host->slot[s])
            pci_remove(host->slot[s]);
    free(host);
}

static const struct device_ops host_ops = {
    .name = "pci-host",
    .reset = host_reset,
    .read = host_read,
    .write = host_write,
    .save = host_save,
    .load = host_load,
    .destroy = host_destroy,
};

struct device *pci_host_device(struct pci_host *host)
{
    return &host->device;
}

struct pci_host *pci_host_new(const struct pci_host_config *config)
{
    struct pci_host *host = calloc(1, sizeof *host);
    if (!host)
        return NULL;
    host->device.ops = &host_ops;
    host->config = *config;
    /* An identity that guests take for a plain PCI Express host bridge. */
    host->bridge.vendor = 0x1B36;
    host->bridge.id = 0x0008;
    host->bridge.class_code = 0x060000;
    pci_function_init(&host->bridge);
    host->bridge.host = host;
    host->slot[0] = &host->bridge;
    return host;
}
