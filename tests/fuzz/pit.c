/* pit.c - fuzzes the 8254 and port 0x61. */
#include "device/platform/pit.h"

#include "device_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_region regions[] = {{PIT_REGION_COUNTERS, 4}, {PIT_REGION_SPEAKER, 1}};
    struct fake_clock fake;
    int level = 0;
    fake_clock_open(&fake, 1000, 0);
    struct pit_config config = {.clock = &fake.clock, .irq = {fuzz_line_set, &level, 0}};
    struct device *pit = pit_new(&config);
    struct fuzz_target target = {.device = pit, .regions = regions, .count = 2, .fake = &fake};
    fuzz_device(&target, data, size);
    pit->ops->destroy(pit);
    return 0;
}
