/* acpi.h - the ACPI tables by which a guest learns what the board has. */
#ifndef VENEER_MACHINE_ACPI_H
#define VENEER_MACHINE_ACPI_H

#include <stdint.h>

#include "base/error.h"
#include "memory/ram.h"

/* Where the tables lie; the memory map must reserve it. The root pointer is at its start. */
#define ACPI_BASE 0xe0000u
#define ACPI_END 0x100000u

struct acpi_config {
    unsigned vcpus; /* APIC IDs 0.. */
    uint32_t lapic_base, ioapic_base;
    uint8_t ioapic_id;
    uint16_t pm_base; /* ports of device/platform/power.h */
    uint16_t hotplug_port; /* of device/platform/hotplug.h */
    uint32_t ecam_base, ecam_size;
    uint32_t window32_base, window32_size;
    uint64_t window64_base, window64_size;
    uint16_t com1_port;
    uint8_t com1_irq;
    uint16_t pvpanic_port; /* 0: none */
};

/* Writes RSDP, XSDT, FADT, FACS, MADT, MCFG and DSDT into guest RAM at ACPI_BASE. The root pointer's
 * address is ACPI_BASE. Returns 0, or -ENOMEM when RAM ends below ACPI_END. */
int acpi_build(struct ram *ram, const struct acpi_config *config, struct error *error);

#endif
