/* uart.h - a 16550A serial port: 8 ports, region 0.
 *
 * What the guest sends is handed to `transmit` at once, so the transmitter is always empty. What the
 * host sends waits in a bounded queue that feeds the 16-byte receive FIFO. National Semiconductor
 * PC16550D data sheet. */
#ifndef VENEER_DEVICE_PLATFORM_UART_H
#define VENEER_DEVICE_PLATFORM_UART_H

#include <stddef.h>
#include <stdint.h>

#include "device/device.h"

#define UART_QUEUE 4096u /* bytes waiting for the guest, at most */

struct uart_config {
    struct irq_line irq;
    void *owner;
    void (*transmit)(void *owner, const uint8_t *bytes, size_t length); /* NULL: dropped */
    /* Optional: the guest read, and uart_receive has room again after it refused bytes. */
    void (*room)(void *owner);
};

/* NULL when there is no memory. */
struct device *uart_new(const struct uart_config *config);

/* Gives the guest bytes; returns how many were accepted (0 to length). In loopback mode the line is
 * disconnected and bytes wait. */
size_t uart_receive(struct device *uart, const uint8_t *bytes, size_t length);
/* The other end sends a break: the guest sees a zero byte with LSR.BI. */
void uart_break(struct device *uart);

#endif
