/* i8042.c - fuzzes the keyboard controller. */
#include "device/platform/i8042.h"

#include "device_fuzz.h"

static void ignore(void *owner)
{
    (void)owner;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_region regions[] = {{I8042_REGION_DATA, 1}, {I8042_REGION_COMMAND, 1},
                                                 {I8042_REGION_PORT_A, 1}};
    int level = 0;
    struct irq_line line = {fuzz_line_set, &level, 0};
    struct i8042_config config = {.irq1 = line, .irq12 = line, .reset = ignore};
    struct device *i8042 = i8042_new(&config);
    struct fuzz_target target = {.device = i8042, .regions = regions, .count = 3};
    fuzz_device(&target, data, size);
    i8042->ops->destroy(i8042);
    return 0;
}
