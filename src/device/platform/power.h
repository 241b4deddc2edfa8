/* power.h - ACPI fixed hardware: PM1a event and control, PM timer, one GPE block, and reset.
 *
 * ACPI 6.5, 4.8.3. SCI_EN is always set: there is no SMM and so no hand-over (FADT: SMI_CMD = 0). The DSDT's
 * _S5 package must give POWER_SLEEP_TYPE_S5. Reset is the PC's port 0xCF9: a write with bits 1 (hard) and
 * 2 (do it) set; FADT: RESET_REG = POWER_RESET_PORT, RESET_VALUE = POWER_RESET_VALUE. */
#ifndef VENEER_DEVICE_PLATFORM_POWER_H
#define VENEER_DEVICE_PLATFORM_POWER_H

#include <stdbool.h>

#include "base/clock.h"
#include "device/device.h"

#define POWER_TIMER_HZ 3579545u
#define POWER_SLEEP_TYPE_S5 5u
#define POWER_RESET_PORT 0xCF9u
#define POWER_RESET_VALUE 0x06u

/* Offsets in POWER_REGION_ACPI, for the FADT. */
#define POWER_PM1A_EVENT 0x00u /* 4 bytes: status, enable */
#define POWER_PM1A_CONTROL 0x04u /* 2 bytes */
#define POWER_TIMER 0x08u /* 4 bytes; 32 bits wide (FADT flag TMR_VAL_EXT) */
#define POWER_GPE0 0x0Cu /* POWER_GPE0_SIZE bytes: 16 status bits, 16 enable bits */
#define POWER_GPE0_SIZE 4u
#define POWER_ACPI_SIZE 0x10u
#define POWER_EVENT_HOTPLUG 1u /* the general-purpose event of hotplug.h; the DSDT's \_GPE._E01 */

enum { POWER_REGION_ACPI, POWER_REGION_RESET /* 1 byte; see pci_host_config.reset_control */ };

struct power_config {
    const struct clock *clock; /* outlives the device */
    struct irq_line sci;       /* ISA interrupt 9, level, active high */
    void *owner;
    void (*power_off)(void *owner); /* the guest entered S5 */
    void (*reset)(void *owner);
};

/* NULL when there is no memory. */
struct device *power_new(const struct power_config *config);
/* Presses the power button: the guest shuts itself down if it listens. */
void power_button(struct device *power);
/* Whether the guest took notice of the last press: it cleared the button's status while it had the button enabled. One that is
 * starting clears it too, with the button disabled: then the press is lost. */
bool power_button_heard(const struct device *power);
/* Raises general-purpose event 0-15. */
void power_gpe(struct device *power, unsigned event);

#endif
