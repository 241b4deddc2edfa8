/* uart_test.c - the 16550A: what the data sheet says, byte by byte. */
#include "device/platform/uart.h"

#include "device_check.h"

static uint8_t sent[64];
static size_t sent_length;
static unsigned rooms;

static void transmit(void *owner, const uint8_t *bytes, size_t length)
{
    (void)owner;
    for (size_t i = 0; i < length && sent_length < sizeof sent; i++)
        sent[sent_length++] = bytes[i];
}

static void room(void *owner)
{
    (void)owner;
    rooms++;
}

static struct test_line line;

static struct device *make(void)
{
    struct uart_config config = {.irq = test_line(&line, 0), .transmit = transmit, .room = room};
    return uart_new(&config);
}

static uint8_t in(struct device *uart, unsigned reg)
{
    return (uint8_t)device_get(uart, 0, reg, 1);
}

static void out(struct device *uart, unsigned reg, uint8_t value)
{
    device_put(uart, 0, reg, 1, value);
}

static void test_registers(struct device *uart)
{
    out(uart, 3, 0x83); /* DLAB */
    out(uart, 0, 0x34);
    out(uart, 1, 0x12);
    CHECK_EQ(in(uart, 0), 0x34);
    CHECK_EQ(in(uart, 1), 0x12);
    out(uart, 3, 0x03);
    CHECK_EQ(in(uart, 1), 0);
    out(uart, 7, 0xA5);
    CHECK_EQ(in(uart, 7), 0xA5);
    CHECK_EQ(in(uart, 5), 0x60);
    CHECK_EQ(in(uart, 6), 0xB0); /* CTS, DSR, DCD */
    CHECK_EQ(in(uart, 2), 0x01);
    out(uart, 2, 0x01);
    CHECK_EQ(in(uart, 2), 0xC1); /* what tells a 16550A */
    out(uart, 2, 0);
}

static void test_transmit(struct device *uart)
{
    out(uart, 0, 'h');
    out(uart, 0, 'i');
    CHECK_EQ(sent_length, 2);
    CHECK(memcmp(sent, "hi", 2) == 0);
    CHECK_EQ(line.level, 0);
    out(uart, 1, 2); /* enabling THRE while empty interrupts */
    CHECK_EQ(line.level, 1);
    CHECK_EQ(in(uart, 2), 0x02);
    CHECK_EQ(line.level, 0);
    CHECK_EQ(in(uart, 2), 0x01);
    unsigned rises = line.rises;
    out(uart, 0, '!');
    CHECK_EQ(line.rises, rises + 1);
    out(uart, 0, '!'); /* a new edge even though the first was not acknowledged */
    CHECK_EQ(line.rises, rises + 2);
    in(uart, 2);
    out(uart, 1, 0);
}

static void test_receive(struct device *uart)
{
    CHECK_EQ(uart_receive(uart, (const uint8_t *)"abcde", 5), 5);
    out(uart, 1, 1);
    CHECK_EQ(line.level, 1);
    CHECK_EQ(in(uart, 2), 0x04);
    for (const char *c = "abcde"; *c; c++) {
        CHECK_EQ(in(uart, 5) & 1, 1);
        CHECK_EQ(in(uart, 0), *c);
    }
    CHECK_EQ(in(uart, 5) & 1, 0);
    CHECK_EQ(line.level, 0);
    out(uart, 2, 0xC1); /* FIFO, trigger at 14 */
    uart_receive(uart, (const uint8_t *)"x", 1);
    CHECK_EQ(in(uart, 2), 0xCC); /* below the trigger: timeout */
    uart_receive(uart, (const uint8_t *)"0123456789abcdef", 16);
    CHECK_EQ(in(uart, 2), 0xC4);
    out(uart, 2, 0xC3); /* clears the FIFO; what waits behind it stays */
    CHECK_EQ(in(uart, 0), 'f');
    CHECK_EQ(in(uart, 5), 0x60);
    out(uart, 1, 0);
}

static void test_bound(struct device *uart)
{
    static uint8_t flood[UART_QUEUE + 100];
    size_t taken = uart_receive(uart, flood, sizeof flood);
    CHECK_EQ(taken, UART_QUEUE);
    CHECK_EQ(uart_receive(uart, flood, 100), 16); /* what moved to the FIFO */
    CHECK_EQ(rooms, 0);
    for (unsigned i = 0; i < UART_QUEUE / 2 + 16; i++)
        in(uart, 0);
    CHECK_EQ(rooms, 1);
    uart->ops->reset(uart);
    CHECK_EQ(in(uart, 5), 0x60);
}

static void test_loopback(struct device *uart)
{
    size_t before = sent_length;
    out(uart, 4, 0x1A); /* loop, OUT2, RTS */
    CHECK_EQ(in(uart, 6) & 0xF0, 0x90); /* DCD, CTS */
    CHECK_EQ(in(uart, 6) & 0x0F, 0);
    uart_receive(uart, (const uint8_t *)"w", 1);
    CHECK_EQ(in(uart, 5) & 1, 0);
    out(uart, 0, 'L');
    CHECK_EQ(in(uart, 0), 'L');
    out(uart, 0, 'M');
    out(uart, 0, 'N'); /* no FIFO: overrun */
    CHECK_EQ(in(uart, 5), 0x63);
    CHECK_EQ(in(uart, 5), 0x61);
    CHECK_EQ(in(uart, 0), 'M');
    CHECK_EQ(sent_length, before);
    out(uart, 4, 0x08);
    CHECK_EQ(in(uart, 0), 'w');
    out(uart, 1, 4);
    uart_break(uart);
    CHECK_EQ(in(uart, 2), 0x06);
    CHECK_EQ(in(uart, 5), 0x71);
    CHECK_EQ(in(uart, 0), 0);
    out(uart, 1, 0);
}

int main(void)
{
    struct device *uart = make(), *other = make();
    test_registers(uart);
    test_transmit(uart);
    test_receive(uart);
    test_bound(uart);
    test_loopback(uart);
    out(uart, 1, 5);
    out(uart, 2, 0x81);
    uart_receive(uart, (const uint8_t *)"the quick brown fox jumps", 25);
    check_round_trip(uart, other);
    CHECK_EQ(in(other, 0), 't');
    check_hostile(uart);
    uart->ops->destroy(uart);
    other->ops->destroy(other);
    CHECK_DONE();
}
