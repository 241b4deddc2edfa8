/* uart.c - see uart.h.
 *
 * Bytes from the host wait in `queue` and move to the receive FIFO as it has room, so that nothing is
 * overrun unless the guest overruns itself in loopback. The character timeout is taken to have passed at once: a
 * FIFO below its trigger level interrupts as "timeout". Interrupts do not depend on MCR.OUT2, which a PC's
 * wiring wants and not every small kernel sets. */
#include "device/platform/uart.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SAVED_VERSION 1
#define FIFO 16u

enum { REG_DATA, REG_IER, REG_IIR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };
enum { IER_RECEIVE = 1, IER_TRANSMIT = 2, IER_LINE = 4, IER_MODEM = 8 };
enum { IIR_NONE = 1, IIR_MODEM = 0, IIR_TRANSMIT = 2, IIR_RECEIVE = 4, IIR_LINE = 6, IIR_TIMEOUT = 12 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16 };
enum { LSR_READY = 1, LSR_OVERRUN = 2, LSR_BREAK = 16, LSR_EMPTY = 0x60, LSR_ERRORS = 0x1E };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RECEIVE = 2 };

struct uart {
    struct device device;
    struct uart_config config;
    uint8_t ier, fcr, lcr, mcr, msr, scratch;
    uint8_t errors;    /* the sticky part of LSR */
    bool transmitted;  /* a THRE interrupt is pending */
    uint16_t divisor;
    uint8_t fifo[FIFO];
    unsigned fifo_used;
    uint8_t queue[UART_QUEUE]; /* ring */
    unsigned queue_head, queue_used;
    bool refused; /* uart_receive did not take all; room() is owed */
};

static struct uart *of(struct device *device)
{
    return (struct uart *)device; /* embedded first */
}

static unsigned depth(const struct uart *uart)
{
    return uart->fcr & FCR_ENABLE ? FIFO : 1;
}

static unsigned trigger(const struct uart *uart)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return uart->fcr & FCR_ENABLE ? levels[uart->fcr >> 6] : 1;
}

/* The pending interrupt of highest priority, as IIR names it. */
static uint8_t pending(const struct uart *uart)
{
    if ((uart->ier & IER_LINE) && uart->errors)
        return IIR_LINE;
    if ((uart->ier & IER_RECEIVE) && uart->fifo_used)
        return uart->fifo_used >= trigger(uart) ? IIR_RECEIVE : IIR_TIMEOUT;
    if ((uart->ier & IER_TRANSMIT) && uart->transmitted)
        return IIR_TRANSMIT;
    if ((uart->ier & IER_MODEM) && (uart->msr & 0x0F))
        return IIR_MODEM;
    return IIR_NONE;
}

/* The line is a level here; for an edge-triggered input what counts is that it falls when IIR says "none". */
static void update(struct uart *uart)
{
    irq_set(&uart->config.irq, pending(uart) != IIR_NONE);
}

/* The newest byte is lost on overrun, as with the FIFO on. */
static void fifo_push(struct uart *uart, uint8_t byte)
{
    if (uart->fifo_used < depth(uart))
        uart->fifo[uart->fifo_used++] = byte;
    else
        uart->errors |= LSR_OVERRUN;
}

/* Moves waiting bytes into the FIFO; the line is off in loopback. */
static void feed(struct uart *uart)
{
    while (!(uart->mcr & MCR_LOOP) && uart->queue_used && uart->fifo_used < depth(uart)) {
        fifo_push(uart, uart->queue[uart->queue_head]);
        uart->queue_head = (uart->queue_head + 1) % UART_QUEUE;
        uart->queue_used--;
    }
}

size_t uart_receive(struct device *device, const uint8_t *bytes, size_t length)
{
    struct uart *uart = of(device);
    size_t taken = 0;
    while (taken < length && uart->queue_used < UART_QUEUE) {
        uart->queue[(uart->queue_head + uart->queue_used) % UART_QUEUE] = bytes[taken++];
        uart->queue_used++;
    }
    if (taken < length)
        uart->refused = true;
    feed(uart);
    update(uart);
    return taken;
}

void uart_break(struct device *device)
{
    struct uart *uart = of(device);
    if (uart->fifo_used < depth(uart))
        fifo_push(uart, 0);
    uart->errors |= LSR_BREAK;
    update(uart);
}

static uint8_t read_data(struct uart *uart)
{
    if (!uart->fifo_used)
        return 0;
    uint8_t byte = uart->fifo[0];
    memmove(uart->fifo, uart->fifo + 1, --uart->fifo_used);
    feed(uart);
    /* Half empty before more is asked for: a sender is not woken for each byte. */
    if (uart->refused && uart->queue_used <= UART_QUEUE / 2) {
        uart->refused = false;
        if (uart->config.room)
            uart->config.room(uart->config.owner);
    }
    return byte;
}

static uint8_t read_iir(struct uart *uart)
{
    uint8_t id = pending(uart);
    if (id == IIR_TRANSMIT)
        uart->transmitted = false; /* reading IIR is the acknowledgement */
    return id | (uart->fcr & FCR_ENABLE ? 0xC0 : 0);
}

static uint8_t read_register(struct uart *uart, unsigned reg)
{
    uint8_t value;
    switch (reg) {
    case REG_DATA: return uart->lcr & LCR_DLAB ? (uint8_t)uart->divisor : read_data(uart);
    case REG_IER: return uart->lcr & LCR_DLAB ? (uint8_t)(uart->divisor >> 8) : uart->ier;
    case REG_IIR: return read_iir(uart);
    case REG_LCR: return uart->lcr;
    case REG_MCR: return uart->mcr;
    case REG_LSR:
        value = (uint8_t)(uart->errors | LSR_EMPTY | (uart->fifo_used ? LSR_READY : 0));
        uart->errors = 0;
        return value;
    case REG_MSR:
        value = uart->msr;
        uart->msr &= 0xF0;
        return value;
    default: return uart->scratch;
    }
}

/* The modem lines: in loopback they are the UART's own outputs, else those of a peer that is there. */
static void update_modem(struct uart *uart)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD, mcr = uart->mcr;
    if (mcr & MCR_LOOP)
        lines = (uint8_t)((mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
                          (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0));
    uint8_t changed = (uart->msr ^ lines) & 0xF0;
    if (changed & lines & MSR_RI) /* TERI tells of the trailing edge only */
        changed &= (uint8_t)~MSR_RI;
    uart->msr = lines | (uart->msr & 0x0F) | changed >> 4;
}

static void write_data(struct uart *uart, uint8_t byte)
{
    if (uart->mcr & MCR_LOOP)
        fifo_push(uart, byte);
    else if (uart->config.transmit)
        uart->config.transmit(uart->config.owner, &byte, 1);
    /* The holding register was full for a moment: an edge-triggered input must see that. */
    uart->transmitted = false;
    update(uart);
    uart->transmitted = true;
}

/* Turning the FIFO on or off empties it. Bits 7:6 are the trigger level; DMA mode (bit 3) is kept and means nothing. */
static void write_fcr(struct uart *uart, uint8_t value)
{
    bool toggles = (value ^ uart->fcr) & FCR_ENABLE;
    if (toggles || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RECEIVE)))
        uart->fifo_used = 0;
    uart->fcr = value & FCR_ENABLE ? value & 0xC9 : 0;
    feed(uart);
}

static void write_register(struct uart *uart, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_DATA:
        if (uart->lcr & LCR_DLAB)
            uart->divisor = (uart->divisor & 0xFF00) | value;
        else
            write_data(uart, value);
        break;
    case REG_IER:
        if (uart->lcr & LCR_DLAB) {
            uart->divisor = (uint16_t)((uart->divisor & 0x00FF) | value << 8);
            break;
        }
        if (!(uart->ier & IER_TRANSMIT) && (value & IER_TRANSMIT))
            uart->transmitted = true; /* enabling it while the register is empty interrupts */
        uart->ier = value & 0x0F;
        break;
    case REG_IIR: write_fcr(uart, value); break;
    case REG_LCR: uart->lcr = value; break;
    case REG_MCR:
        uart->mcr = value & 0x1F;
        update_modem(uart);
        feed(uart);
        break;
    case REG_SCRATCH: uart->scratch = value; break;
    default: break; /* LSR and MSR are read-only */
    }
}

/* Byte registers: the bytes of a wider access go to the ports that follow. */
static uint64_t uart_read(struct device *device, unsigned region, uint64_t offset, unsigned size)
{
    struct uart *uart = of(device);
    uint64_t value = 0;
    (void)region;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_register(uart, (unsigned)(offset + i) & 7) << (8 * i);
    update(uart);
    return value;
}

static void uart_write(struct device *device, unsigned region, uint64_t offset, unsigned size, uint64_t value)
{
    struct uart *uart = of(device);
    (void)region;
    for (unsigned i = 0; i < size; i++)
        write_register(uart, (unsigned)(offset + i) & 7, (uint8_t)(value >> (8 * i)));
    update(uart);
}

static void uart_reset(struct device *device)
{
    struct uart *uart = of(device);
    struct device kept = uart->device;
    struct uart_config config = uart->config;
    *uart = (struct uart){.device = kept, .config = config, .divisor = 12 /* 9600 baud */,
                          .msr = MSR_CTS | MSR_DSR | MSR_DCD, .mcr = MCR_OUT2};
    update(uart);
}

static void uart_save(const struct device *device, struct stream *stream)
{
    const struct uart *uart = (const struct uart *)device;
    const uint8_t registers[] = {uart->ier, uart->fcr, uart->lcr, uart->mcr, uart->msr, uart->scratch, uart->errors,
                                 uart->transmitted};
    stream_begin(stream, device->ops->name, SAVED_VERSION);
    stream_put_bytes(stream, registers, sizeof registers);
    stream_put_u16(stream, uart->divisor);
    stream_put_u8(stream, (uint8_t)uart->fifo_used);
    stream_put_bytes(stream, uart->fifo, uart->fifo_used);
    stream_put_u16(stream, (uint16_t)uart->queue_used);
    for (unsigned i = 0; i < uart->queue_used; i++)
        stream_put_u8(stream, uart->queue[(uart->queue_head + i) % UART_QUEUE]);
    stream_end(stream);
}

static int uart_load(struct device *device, struct stream *stream, struct error *error)
{
    struct uart *uart = of(device);
    uint8_t r[8];
    stream_enter(stream, device->ops->name, SAVED_VERSION);
    stream_get_bytes(stream, r, sizeof r);
    uart->ier = r[0] & 0x0F;
    uart->fcr = r[1] & 0xC9;
    uart->lcr = r[2];
    uart->mcr = r[3] & 0x1F;
    uart->msr = r[4];
    uart->scratch = r[5];
    uart->errors = r[6] & LSR_ERRORS;
    uart->transmitted = r[7] != 0;
    uart->divisor = stream_get_u16(stream);
    uart->fifo_used = stream_get_u8(stream);
    if (uart->fifo_used > depth(uart)) {
        stream_fail(stream, "UART: %u bytes in a FIFO of %u", uart->fifo_used, depth(uart));
        uart->fifo_used = 0;
    }
    stream_get_bytes(stream, uart->fifo, uart->fifo_used);
    uart->queue_head = 0;
    uart->queue_used = stream_get_u16(stream);
    if (uart->queue_used > UART_QUEUE) {
        stream_fail(stream, "UART: %u bytes in a queue of %u", uart->queue_used, UART_QUEUE);
        uart->queue_used = 0;
    }
    stream_get_bytes(stream, uart->queue, uart->queue_used);
    stream_leave(stream);
    uart->refused = false;
    int status = stream_status(stream, error);
    if (status)
        uart_reset(device);
    feed(uart);
    update(uart);
    return status;
}

static void uart_destroy(struct device *device)
{
    free(of(device));
}

static const struct device_ops uart_ops = {
    .name = "uart",
    .reset = uart_reset,
    .read = uart_read,
    .write = uart_write,
    .save = uart_save,
    .load = uart_load,
    .destroy = uart_destroy,
};

struct device *uart_new(const struct uart_config *config)
{
    struct uart *uart = calloc(1, sizeof *uart);
    if (!uart)
        return NULL;
    uart->device.ops = &uart_ops;
    uart->config = *config;
    uart_reset(&uart->device);
    return &uart->device;
}
