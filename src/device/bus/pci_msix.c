/* pci_msix.c - MSI-X; PCI local bus 3.0, 6.8.2.
 *
 * The BAR holds the table from its start and the pending bits from PENDING on. A vector that is raised
 * while it, or the whole function, is masked is remembered and sent when the mask goes. */
#include "device/bus/pci.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "device/bus/pci_private.h"

#define CAPABILITY_ID 0x11u
#define BAR_SIZE 0x1000u
#define PENDING 0x800u
#define ENTRY_SIZE 16u
#define ENTRY_CONTROL 12u /* of which only bit 0, the mask, exists */
#define CONTROL_ENABLE 0x8000u
#define CONTROL_MASK_ALL 0x4000u

_Static_assert(PCI_MSIX_VECTORS <= 64 && PCI_MSIX_VECTORS * ENTRY_SIZE <= PENDING, "the table fits below PENDING");

static struct pci_function *function_of(struct device *device)
{
    return (struct pci_function *)((char *)device - offsetof(struct pci_function, msix.device));
}

static uint16_t control(const struct pci_function *function)
{
    return pci_get16(function, function->msix.capability + 2);
}

bool pci_msix_enabled(const struct pci_function *function)
{
    return function->msix.vectors && (control(function) & CONTROL_ENABLE);
}

static uint32_t table32(const struct pci_msix *msix, unsigned offset)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++)
        value |= (uint32_t)msix->table[offset + i] << (8 * i);
    return value;
}

static bool masked(const struct pci_function *function, unsigned vector)
{
    return (control(function) & CONTROL_MASK_ALL) || (function->msix.table[vector * ENTRY_SIZE + ENTRY_CONTROL] & 1);
}

/* Sends what is pending and not masked. */
static void flush(struct pci_function *function) /* cheap when nothing is pending, which is nearly always */
{
    struct pci_msix *msix = &function->msix;
    struct msi_sink *sink = pci_msi(function);
    for (unsigned v = 0; v < msix->vectors && msix->pending && pci_msix_enabled(function) && sink; v++) {
        if (!(msix->pending >> v & 1) || masked(function, v))
            continue;
        msix->pending &= ~(UINT64_C(1) << v);
        const unsigned entry = v * ENTRY_SIZE;
        sink->send(sink->owner, table32(msix, entry) | (uint64_t)table32(msix, entry + 4) << 32,
                   table32(msix, entry + 8));
    }
}

/* Through the pending bits in every case, so that one place decides whether a vector is masked. */
void pci_msix_notify(struct pci_function *function, unsigned vector)
{
    if (vector >= function->msix.vectors || !pci_msix_enabled(function))
        return;
    function->msix.pending |= UINT64_C(1) << vector;
    flush(function);
}

void pci_msix_changed(struct pci_function *function)
{
    pci_update_intx(function);
    flush(function);
}

static uint64_t table_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    const struct pci_msix *msix = &function_of(device)->msix;
    uint64_t value = 0;
    (void)region;
    for (unsigned i = 0; i < size; i++) {
        uint64_t at = offset + i, byte = 0;
        if (at < msix->vectors * ENTRY_SIZE)
            byte = msix->table[at];
        else if (at >= PENDING && at < PENDING + 8)
            byte = msix->pending >> (8 * (at - PENDING)) & 0xFF;
        value |= byte << (8 * i);
    }
    return value;
}

static void table_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_function *function = function_of(device);
    struct pci_msix *msix = &function->msix;
    (void)region;
    for (unsigned i = 0; i < size; i++) {
        uint64_t at = offset + i;
        uint8_t byte = (uint8_t)(value >> (8 * i));
        if (at >= msix->vectors * ENTRY_SIZE)
            break; /* the pending bits are read-only */
        if (at % ENTRY_SIZE == ENTRY_CONTROL)
            msix->table[at] = byte & 1;
        else if (at % ENTRY_SIZE < ENTRY_CONTROL)
            msix->table[at] = byte;
    }
    flush(function);
}

/* Only read and write: the function is reset, saved and loaded with its device. */
static const struct device_ops table_ops = {.name = "msix", .read = table_read, .write = table_write};

/* "Mask bits are set after reset": no vector goes out with a zero address. */
void pci_msix_reset(struct pci_function *function)
{
    struct pci_msix *msix = &function->msix;
    msix->pending = 0;
    memset(msix->table, 0, sizeof msix->table);
    if (!msix->vectors)
        return;
    for (unsigned v = 0; v < msix->vectors; v++)
        msix->table[v * ENTRY_SIZE + ENTRY_CONTROL] = 1;
    pci_put16(function, msix->capability + 2, (uint16_t)(msix->vectors - 1));
}

int pci_msix_add(struct pci_function *function, unsigned n, unsigned vectors)
{
    struct pci_msix *msix = &function->msix;
    if (vectors < 1 || vectors > PCI_MSIX_VECTORS || msix->vectors)
        return -EINVAL;
    int status = pci_bar_memory(function, n, BAR_SIZE, false, false, &msix->device, 0);
    if (status)
        return status;
    int capability = pci_capability(function, CAPABILITY_ID, 12);
    if (capability < 0)
        return capability;
    msix->device.ops = &table_ops;
    msix->vectors = vectors;
    msix->capability = (unsigned)capability;
    function->writable[capability + 3] = (CONTROL_ENABLE | CONTROL_MASK_ALL) >> 8;
    pci_put32(function, msix->capability + 4, n);
    pci_put32(function, msix->capability + 8, PENDING | n);
    pci_msix_reset(function);
    return 0;
}

void pci_msix_save(const struct pci_function *function, struct stream *stream)
{
    const struct pci_msix *msix = &function->msix;
    stream_put_u32(stream, msix->vectors);
    stream_put_bytes(stream, msix->table, msix->vectors * ENTRY_SIZE);
    stream_put_u64(stream, msix->pending);
}

void pci_msix_load(struct pci_function *function, struct stream *stream)
{
    struct pci_msix *msix = &function->msix;
    uint32_t vectors = stream_get_u32(stream);
    if (vectors != msix->vectors) {
        stream_fail(stream, "PCI slot %u: %u MSI-X vectors were saved, this one has %u", function->slot, vectors,
                    msix->vectors);
        return;
    }
    stream_get_bytes(stream, msix->table, vectors * ENTRY_SIZE);
    msix->pending = stream_get_u64(stream);
    for (unsigned v = 0; v < vectors; v++)
        if (msix->table[v * ENTRY_SIZE + ENTRY_CONTROL] > 1)
            stream_fail(stream, "PCI slot %u: MSI-X vector %u has an impossible control word", function->slot, v);
    if (vectors < 64 && msix->pending >> vectors)
        stream_fail(stream, "PCI slot %u: an MSI-X vector that does not exist is pending", function->slot);
}

