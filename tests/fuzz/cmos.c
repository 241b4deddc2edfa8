/* cmos.c - fuzzes the battery clock. */
#include "device/platform/cmos.h"

#include "device_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_region regions[] = {{0, 2}};
    struct fake_clock fake;
    int level = 0;
    fake_clock_open(&fake, 1000, 1700000000);
    struct cmos_config config = {.clock = &fake.clock, .irq = {fuzz_line_set, &level, 0}, .ram_low = 1u << 30};
    struct device *cmos = cmos_new(&config);
    struct fuzz_target target = {.device = cmos, .regions = regions, .count = 1, .fake = &fake};
    fuzz_device(&target, data, size);
    cmos->ops->destroy(cmos);
    return 0;
}
