/* ports.c - fuzzes the devices of one port: debug-exit, post codes, pvpanic. The first byte chooses. */
#include "device/platform/debug_exit.h"
#include "device/platform/postcode.h"
#include "device/platform/pvpanic.h"

#include "device_fuzz.h"

static void on_exit_port(void *owner, uint32_t status)
{
    (void)owner, (void)status;
}

static void on_panic(void *owner)
{
    (void)owner;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_region exit_regions[] = {{0, 4}};
    static const struct fuzz_region bytes[] = {{POSTCODE_REGION_80, 1}, {POSTCODE_REGION_ED, 1}};
    struct debug_exit_config exit_config = {.exit = on_exit_port};
    struct pvpanic_config panic_config = {.panicked = on_panic};
    struct fuzz_target target = {.regions = bytes, .count = 1};
    switch (size ? data[0] % 3 : 0) {
    case 0:
        target.device = debug_exit_new(&exit_config);
        target.regions = exit_regions;
        break;
    case 1:
        target.device = postcode_new();
        target.count = 2;
        break;
    default: target.device = pvpanic_new(&panic_config); break;
    }
    fuzz_device(&target, data, size);
    target.device->ops->destroy(target.device);
    return 0;
}
