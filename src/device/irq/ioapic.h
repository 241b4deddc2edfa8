/* ioapic.h - the I/O APIC: 24 pins that become interrupt messages.
 *
 * Intel 82093AA data sheet, with the EOI register of version 0x20. Pin polarity is the wiring's matter: a line's
 * level 1 means asserted. The board's lock is held in every call. */
#ifndef VENEER_DEVICE_IRQ_IOAPIC_H
#define VENEER_DEVICE_IRQ_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/stream.h"
#include "device/irq/lapic.h"

#define IOAPIC_PINS 24u

struct ioapic {
    void *owner;
    /* True when some local APIC took it. */
    bool (*deliver)(void *owner, const struct apic_message *message);
    uint32_t id;     /* as in its register, bits 27:24 */
    uint8_t select;
    uint64_t pin[IOAPIC_PINS]; /* redirection entries */
    uint32_t level;            /* a bit per line, as it is now */
};

void ioapic_reset(struct ioapic *ioapic); /* the lines keep their levels */
void ioapic_line(struct ioapic *ioapic, unsigned pin, bool level);
/* A local APIC ended a level-triggered interrupt. */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);
uint64_t ioapic_read(struct ioapic *ioapic, uint64_t offset, unsigned size);
void ioapic_write(struct ioapic *ioapic, uint64_t offset, uint64_t value);
/* Fields in an open section. */
void ioapic_save(const struct ioapic *ioapic, struct stream *stream);
void ioapic_load(struct ioapic *ioapic, struct stream *stream);

#endif
