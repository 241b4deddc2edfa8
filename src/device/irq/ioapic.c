/* ioapic.c - see ioapic.h.
 *
 * An edge on a masked pin is lost, as in the 82093AA. A level is delivered once; Remote IRR then holds the
 * pin until the interrupt's end, when a line still asserted is delivered again. */
#include "device/irq/ioapic.h"

#include <string.h>

#define VERSION 0x20u
#define ENTRY_MASKED UINT64_C(0x10000)
#define ENTRY_LEVEL UINT64_C(0x8000)
#define ENTRY_REMOTE_IRR UINT64_C(0x4000)
#define ENTRY_WRITABLE UINT64_C(0xFF0000000001AFFF)

enum { OFFSET_SELECT = 0x00, OFFSET_WINDOW = 0x10, OFFSET_EOI = 0x40 };
enum { INDEX_ID = 0, INDEX_VERSION = 1, INDEX_ARBITRATION = 2, INDEX_PINS = 0x10 };

/* Sends the pin's message if its entry lets it. Remote IRR is set only when somebody took it: a level
 * sent to nobody must come again when the guest corrects the entry. */
static void service(struct ioapic *ioapic, unsigned pin)
{
    uint64_t entry = ioapic->pin[pin];
    bool level = entry & ENTRY_LEVEL;
    if ((entry & ENTRY_MASKED) || (level && (entry & ENTRY_REMOTE_IRR)))
        return;
    struct apic_message message = {
        .destination = (uint32_t)(entry >> 56),
        .logical = entry >> 11 & 1,
        .level = level,
        .vector = (uint8_t)entry,
        .mode = entry >> 8 & 7,
    };
    if (ioapic->deliver(ioapic->owner, &message) && level)
        ioapic->pin[pin] |= ENTRY_REMOTE_IRR;
}

static void service_level(struct ioapic *ioapic, unsigned pin)
{
    if ((ioapic->pin[pin] & ENTRY_LEVEL) && (ioapic->level >> pin & 1))
        service(ioapic, pin);
}

void ioapic_line(struct ioapic *ioapic, unsigned pin, bool level)
{
    uint32_t bit = 1u << pin;
    bool rises = level && !(ioapic->level & bit);
    ioapic->level = level ? ioapic->level | bit : ioapic->level & ~bit;
    if (rises)
        service(ioapic, pin);
}

/* Several pins may share a vector; each that waits for its end is released. */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = ioapic->pin[pin];
        if ((uint8_t)entry != vector || !(entry & ENTRY_REMOTE_IRR))
            continue;
        ioapic->pin[pin] &= ~ENTRY_REMOTE_IRR;
        service_level(ioapic, pin);
    }
}

static uint32_t read_window(const struct ioapic *ioapic)
{
    unsigned pin = (ioapic->select - INDEX_PINS) / 2u;
    switch (ioapic->select) {
    case INDEX_ID:
    case INDEX_ARBITRATION:
        return ioapic->id;
    case INDEX_VERSION:
        return VERSION | (IOAPIC_PINS - 1) << 16;
    default:
        if (ioapic->select < INDEX_PINS || pin >= IOAPIC_PINS)
            return 0;
        return (uint32_t)(ioapic->pin[pin] >> (ioapic->select & 1 ? 32 : 0));
    }
}

static void write_entry(struct ioapic *ioapic, unsigned pin, bool high, uint32_t value)
{
    uint64_t entry = ioapic->pin[pin];
    uint64_t merged = high ? (uint64_t)value << 32 | (uint32_t)entry : (entry & ~UINT64_C(0xFFFFFFFF)) | value;
    entry = (merged & ENTRY_WRITABLE) | (entry & ENTRY_REMOTE_IRR);
    if (!(entry & ENTRY_LEVEL)) /* guests clear a stuck Remote IRR by a turn through edge mode */
        entry &= ~ENTRY_REMOTE_IRR;
    ioapic->pin[pin] = entry;
    service_level(ioapic, pin);
}

static void write_window(struct ioapic *ioapic, uint32_t value)
{
    unsigned pin = (ioapic->select - INDEX_PINS) / 2u;
    if (ioapic->select == INDEX_ID)
        ioapic->id = value & 0x0F000000;
    else if (ioapic->select >= INDEX_PINS && pin < IOAPIC_PINS)
        write_entry(ioapic, pin, ioapic->select & 1, value);
}

/* Registers are 32 bits at 16-byte steps; narrower reads see their part. */
uint64_t ioapic_read(struct ioapic *ioapic, uint64_t offset, unsigned size)
{
    uint32_t value = 0;
    unsigned byte = offset & 3;
    switch (offset & ~UINT64_C(3)) {
    case OFFSET_SELECT: value = ioapic->select; break;
    case OFFSET_WINDOW: value = read_window(ioapic); break;
    default: break;
    }
    uint64_t shifted = value >> (8 * byte);
    return size >= 4 ? shifted : shifted & ((UINT64_C(1) << 8 * size) - 1);
}

void ioapic_write(struct ioapic *ioapic, uint64_t offset, uint64_t value)
{
    switch (offset) {
    case OFFSET_SELECT: ioapic->select = (uint8_t)value; break;
    case OFFSET_WINDOW: write_window(ioapic, (uint32_t)value); break;
    case OFFSET_EOI: ioapic_eoi(ioapic, (uint8_t)value); break;
    default: break;
    }
}

void ioapic_reset(struct ioapic *ioapic)
{
    ioapic->id = 0;
    ioapic->select = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->pin[pin] = ENTRY_MASKED;
}

void ioapic_save(const struct ioapic *ioapic, struct stream *stream)
{
    stream_put_u32(stream, ioapic->id);
    stream_put_u8(stream, ioapic->select);
    stream_put_u32(stream, ioapic->level);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        stream_put_u64(stream, ioapic->pin[pin]);
}

void ioapic_load(struct ioapic *ioapic, struct stream *stream)
{
    ioapic->id = stream_get_u32(stream) & 0x0F000000;
    ioapic->select = stream_get_u8(stream);
    ioapic->level = stream_get_u32(stream);
    bool sound = !(ioapic->level >> IOAPIC_PINS);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = stream_get_u64(stream);
        sound = sound && !(entry & ~(ENTRY_WRITABLE | ENTRY_REMOTE_IRR)) &&
                !((entry & ENTRY_REMOTE_IRR) && !(entry & ENTRY_LEVEL));
        ioapic->pin[pin] = entry;
    }
    if (!sound)
        stream_fail(stream, "I/O APIC: a redirection entry has an impossible value");
}
