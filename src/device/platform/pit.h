/* pit.h - the 8254 interval timer and the system control port (speaker gate) at 0x61.
 *
 * Counter 0 drives ISA interrupt 0; counter 2's gate and output are in port 0x61, which Linux uses to
 * calibrate its TSC. Counts follow the clock; no register access costs time. Intel 8254 data sheet
 * (231164). */
#ifndef VENEER_DEVICE_PLATFORM_PIT_H
#define VENEER_DEVICE_PLATFORM_PIT_H

#include "base/clock.h"
#include "device/device.h"

#define PIT_HZ 1193182u

enum { PIT_REGION_COUNTERS /* ports 0x40-0x43 */, PIT_REGION_SPEAKER /* port 0x61 */ };

struct pit_config {
    const struct clock *clock; /* outlives the device */
    struct irq_line irq;       /* counter 0's output */
};

/* NULL when there is no memory. */
struct device *pit_new(const struct pit_config *config);

#endif
