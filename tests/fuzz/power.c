/* power.c - fuzzes ACPI fixed hardware and the reset port. */
#include "device/platform/power.h"

#include "device_fuzz.h"

static void ignore(void *owner)
{
    (void)owner;
}

static void press(struct fuzz_input *input, void *context)
{
    unsigned event = (unsigned)fuzz_take(input, 1);
    if (event & 0x80)
        power_button(context);
    else
        power_gpe(context, event & 15);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_region regions[] = {{POWER_REGION_ACPI, POWER_ACPI_SIZE}, {POWER_REGION_RESET, 1}};
    struct fake_clock fake;
    int level = 0;
    fake_clock_open(&fake, 1000, 0);
    struct power_config config = {.clock = &fake.clock, .sci = {fuzz_line_set, &level, 0}, .power_off = ignore,
                                  .reset = ignore};
    struct device *power = power_new(&config);
    struct fuzz_target target = {.device = power, .regions = regions, .count = 2, .fake = &fake, .other = press,
                                 .context = power};
    fuzz_device(&target, data, size);
    power->ops->destroy(power);
    return 0;
}
