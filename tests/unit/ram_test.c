/* Guest RAM: bounds of copies over both regions, dirty and code tracking. */
#include "memory/ram.h"

#include <errno.h>

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

/* Pages that are given back: gone from the host, zero for the guest, told to engines. */
static void test_discard(void)
{
    struct ram ram;
    struct error error;
    uint8_t bytes[64];
    uint64_t bitmap[16] = {0};
    CHECK_EQ(ram_open(&ram, 4 * MIB, 2 * MIB, HIGH, &error), 0);
    CHECK_EQ(ram_resident(&ram), 0);
    memset(ram_host(&ram, 0, 2 * MIB), 0x5A, 2 * MIB);
    memset(ram_host(&ram, HIGH, 2 * MIB), 0xA5, 2 * MIB);
    CHECK_EQ(ram_resident(&ram), 4 * MIB);
    hook_calls = 0;
    ram_set_code_hook(&ram, hook, &hook_calls);
    ram_code_mark(&ram, 0x105000);
    CHECK_EQ(ram_discard(&ram, 0x101000, 0x3000), 0);
    CHECK_EQ(hook_calls, 0);
    CHECK_EQ(ram_discard(&ram, 0x104000, 0x2000), 0);
    CHECK_EQ(hook_calls, 1);
    CHECK_EQ(hook_gpa, 0x104000);
    CHECK_EQ(hook_length, 0x2000);
    CHECK_EQ(ram_resident(&ram), 4 * MIB - 0x5000);
    for (uint64_t gpa = 0x100000; gpa < 0x107000; gpa += 64) {
        CHECK_EQ(ram_read(&ram, gpa, bytes, sizeof bytes), 0);
        CHECK_EQ(bytes[0], gpa < 0x101000 || gpa >= 0x106000 ? 0x5A : 0);
        CHECK_EQ(bytes[63], bytes[0]);
    }
    ram_dirty_fetch(&ram, 0, bitmap);
    CHECK_EQ(bitmap[4], 0x3E);
    CHECK_EQ(ram_discard(&ram, HIGH, 2 * MIB), 0);
    CHECK_EQ(ram_discard(&ram, HIGH, 2 * MIB), 0); /* again: nothing to give */
    CHECK_EQ(ram_resident(&ram), 2 * MIB); /* looking at the pages took them again */
    CHECK_EQ(*(uint8_t *)ram_host(&ram, HIGH, 1), 0); /* which takes a page again */
    CHECK_EQ(ram_discard(&ram, 0x1001, 0x1000), -EINVAL);
    CHECK_EQ(ram_discard(&ram, 0x1000, 0x1001), -EINVAL);
    CHECK_EQ(ram_discard(&ram, 2 * MIB - 0x1000, 0x2000), -EFAULT);
    CHECK_EQ(ram_discard(&ram, UINT64_MAX & ~(uint64_t)0xFFF, 0x2000), -EFAULT);
    CHECK_EQ(ram_discard(&ram, 0x1000, UINT64_MAX & ~(uint64_t)0xFFF), -EFAULT);
    CHECK_EQ(ram_discard(&ram, 0x1000, 0), 0);
    ram_close(&ram);
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

    test_discard();

    CHECK(ram_open(&ram, 1, 2 * MIB, HIGH, &error) < 0);
    CHECK(ram_open(&ram, UINT64_C(1) << 50, 2 * MIB, HIGH, &error) < 0);
    CHECK(strstr(error.text, "1073741824 MiB") != NULL);
    ram_close(&ram);
    CHECK_DONE();
}
