/* Guest RAM: bounds of copies over both regions, dirty and code tracking. */
#include "memory/ram.h"

#include "check.h"

#define MIB (UINT64_C(1) << 20)
#define HIGH (UINT64_C(4) << 30)

static uint64_t hook_gpa, hook_length;
static int hook_calls;

static void hook(void *owner, uint64_t gpa, uint64_t length)
{
    hook_gpa = gpa;
    hook_length = length;
    *(int *)owner += 1;
}

int main(void)
{
    struct ram ram;
    struct error error;
    CHECK_EQ(ram_open(&ram, 3 * MIB, 2 * MIB, HIGH, &error), 0);
    CHECK_EQ(ram.regions, 2);
    CHECK_EQ(ram.region[1].gpa, HIGH);
    CHECK_EQ(ram.region[1].size, MIB);

    char bytes[8] = "1234567", back[8];
    CHECK_EQ(ram_write(&ram, 2 * MIB - 8, bytes, 8), 0);
    CHECK(ram_write(&ram, 2 * MIB - 7, bytes, 8) < 0);
    CHECK(ram_write(&ram, HIGH + MIB - 7, bytes, 8) < 0);
    CHECK(ram_write(&ram, UINT64_MAX - 3, bytes, 8) < 0);
    CHECK_EQ(ram_write(&ram, HIGH, bytes, 8), 0);
    CHECK_EQ(ram_read(&ram, HIGH, back, 8), 0);
    CHECK_STR(back, bytes);
    CHECK(ram_host(&ram, HIGH, MIB) != NULL);
    CHECK(ram_host(&ram, HIGH, MIB + 1) == NULL);
    CHECK(ram_host(&ram, HIGH, UINT64_MAX) == NULL);
    CHECK(ram_find(&ram, 3 * MIB) == NULL);

    uint64_t bitmap[(2 * MIB / RAM_PAGE_SIZE + 63) / 64] = {0};
    ram_dirty_fetch(&ram, 0, bitmap);
    for (unsigned i = 0; i < 512; i++)
        CHECK_EQ(bitmap[i / 64] >> (i % 64) & 1, i == 511);
    memset(bitmap, 0, sizeof bitmap);
    ram_dirty_fetch(&ram, 0, bitmap);
    CHECK_EQ(bitmap[7], 0);

    ram_set_code_hook(&ram, hook, &hook_calls);
    ram_code_mark(&ram, 0x3000);
    CHECK_EQ(ram_write(&ram, 0x2000, bytes, 8), 0);
    CHECK_EQ(hook_calls, 0);
    CHECK_EQ(ram_write(&ram, 0x2ffc, bytes, 8), 0);
    CHECK_EQ(hook_calls, 1);
    CHECK_EQ(hook_gpa, 0x2ffc);
    CHECK_EQ(hook_length, 8);
    ram_code_clear(&ram, 0x3000);
    CHECK_EQ(ram_write(&ram, 0x3000, bytes, 8), 0);
    CHECK_EQ(hook_calls, 1);
    ram_close(&ram);

    CHECK(ram_open(&ram, 1, 2 * MIB, HIGH, &error) < 0);
    CHECK(ram_open(&ram, UINT64_C(1) << 50, 2 * MIB, HIGH, &error) < 0);
    CHECK(strstr(error.text, "1073741824 MiB") != NULL);
    ram_close(&ram);
    CHECK_DONE();
}
