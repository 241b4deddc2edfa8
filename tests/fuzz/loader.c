/* loader.c - any bytes as a kernel, as a payload and as an initrd. */
#include <stdlib.h>
#include <string.h>

#include "machine/load.h"
#include "machine/unpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ram ram;
    static const struct load_file initrd = {"initrd", (const uint8_t *)"070701", 6};
    struct error error;
    if (ram.size == 0 && ram_open(&ram, 8 << 20, UINT64_C(3) << 30, UINT64_C(4) << 30, &error) < 0)
        abort();
    struct load_config config = {.append = "quiet", .ranges = 1, .range = {{0, 0x9fc00, LOAD_RAM}}};
    struct load_file kernel = {"kernel", data, size};
    struct load_entry entry;
    struct x86_cpu cpu;
    if (load_image(&ram, &config, &kernel, size % 2 ? &initrd : NULL, &entry, &error) == 0) {
        x86_cpu_reset(&cpu, true);
        if (load_entry_state(&ram, &entry, &cpu, &error) < 0)
            abort();
    } else if (error.text[0] == '\0') {
        abort();
    }
    uint8_t *bytes;
    size_t length;
    if (unpack_payload(data, size, 1 << 20, &bytes, &length, &error) == 0)
        unpack_free(bytes, length);
    return 0;
}
