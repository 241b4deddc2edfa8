/* cmos.h - the MC146818 battery clock with 128 bytes of CMOS RAM, at ports 0x70-0x71 (region 0).
 *
 * Time is the clock's wall time plus what the guest set. Memory sizes stand where PC firmware puts them
 * (0x15-0x18, 0x30-0x31, 0x34-0x35, 0x5B-0x5D). Motorola MC146818A data sheet. */
#ifndef VENEER_DEVICE_PLATFORM_CMOS_H
#define VENEER_DEVICE_PLATFORM_CMOS_H

#include "base/clock.h"
#include "device/device.h"

struct cmos_config {
    const struct clock *clock; /* outlives the device */
    struct irq_line irq;       /* ISA interrupt 8 */
    uint64_t ram_low;          /* bytes of RAM below 4 GiB */
    uint64_t ram_high;         /* bytes of RAM above */
};

/* NULL when there is no memory. */
struct device *cmos_new(const struct cmos_config *config);

#endif
