/* postcode.h - ports that take a byte for show: 0x80 (power-on codes, I/O delay) and 0xED (delay).
 *
 * A one-byte region each; what was written reads back. */
#ifndef VENEER_DEVICE_PLATFORM_POSTCODE_H
#define VENEER_DEVICE_PLATFORM_POSTCODE_H

#include "device/device.h"

enum { POSTCODE_REGION_80, POSTCODE_REGION_ED };

/* NULL when there is no memory. */
struct device *postcode_new(void);

#endif
