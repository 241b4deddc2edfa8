/* uart.c - fuzzes the 16550A, from the guest's side and from the host's. */
#include "device/platform/uart.h"

#include "device_fuzz.h"

static void transmit(void *owner, const uint8_t *bytes, size_t length)
{
    (void)owner, (void)bytes;
    FUZZ_ASSERT(length > 0);
}

static void receive(struct fuzz_input *input, void *context)
{
    uint8_t bytes[256];
    size_t length = fuzz_take(input, 1);
    if (length == 0)
        uart_break(context);
    memset(bytes, (int)length, sizeof bytes);
    FUZZ_ASSERT(uart_receive(context, bytes, length) <= length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_region regions[] = {{0, 8}};
    int level = 0;
    struct uart_config config = {.irq = {fuzz_line_set, &level, 0}, .transmit = transmit};
    struct device *uart = uart_new(&config);
    struct fuzz_target target = {.device = uart, .regions = regions, .count = 1, .other = receive, .context = uart};
    fuzz_device(&target, data, size);
    uart->ops->destroy(uart);
    return 0;
}
