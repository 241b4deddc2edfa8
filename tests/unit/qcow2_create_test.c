/* qcow2_create_test.c - new images, judged by qemu-img; and what is refused. */
#include "block/qcow2.h"

#include "check.h"
#include "support/qemu_img.h"
#include "support/volume.h"

static void each_size(const char *path)
{
    static const uint64_t sizes[] = {0, 512, 1 << 20, 3ull << 30, (1ull << 40) + 512};
    static const unsigned bits[] = {9, 12, 16, 21};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t j = 0; j < sizeof bits / sizeof bits[0]; j++)
            for (unsigned version = 2; version <= 3; version++) {
                struct qcow2_create create = {.path = path, .size = sizes[i], .cluster_bits = bits[j], .version = version};
                struct error error = {""};
                int status = qcow2_create(&create, &error);
                if (sizes[i] > 1ull << 36 && bits[j] == 9) {
                    CHECK_EQ(status, -EFBIG); /* such an L1 table would be refused by every reader */
                    CHECK(access(path, F_OK) < 0);
                    continue;
                }
                CHECK_EQ(status, 0);
                CHECK_EQ(qemu_img_check(path, 0), 0);
                CHECK_EQ(shell(0, "qemu-img info '%s' | grep -q '(%llu bytes)'", path, (unsigned long long)sizes[i]), 0);
                unlink(path);
            }
}

static void on_backing(const char *path)
{
    char backing[64];
    volume_file(backing, 5 << 20);
    struct error error = {""};
    struct qcow2_create create = {.path = path, .backing = backing};
    CHECK_EQ(qcow2_create(&create, &error), -EINVAL); /* no format */
    create.backing_format = "raw";
    CHECK_EQ(qcow2_create(&create, &error), 0);
    CHECK_EQ(qcow2_create(&create, &error), -EEXIST);
    CHECK_EQ(qemu_img_check(path, 0), 0);
    CHECK_EQ(shell(0, "qemu-img info '%s' | grep -q 'backing file: %s'", path, backing), 0);
    CHECK_EQ(shell(0, "qemu-img info '%s' | grep -q 'backing file format: raw'", path), 0);
    CHECK_EQ(shell(0, "qemu-img compare -f qcow2 -F raw '%s' '%s'", path, backing), 0);
    unlink(path);
    create.backing = strrchr(backing, '/') + 1; /* relative to the image */
    CHECK_EQ(qcow2_create(&create, &error), 0);
    CHECK_EQ(shell(0, "qemu-img compare -f qcow2 -F raw '%s' '%s'", path, backing), 0);
    unlink(path);
    unlink(backing);
    CHECK_EQ(qcow2_create(&create, &error), -ENOENT);
    CHECK(strstr(error.text, path) && strstr(error.text, create.backing));
    CHECK(access(path, F_OK) < 0);
}

int main(void)
{
    volume_in_memory();
    char path[64];
    volume_file(path, 0);
    unlink(path);
    each_size(path);
    on_backing(path);
    struct error error;
    struct qcow2_create create = {.path = path, .size = 1000};
    CHECK_EQ(qcow2_create(&create, &error), -EINVAL);
    create = (struct qcow2_create){.path = path, .size = 512, .cluster_bits = 22};
    CHECK_EQ(qcow2_create(&create, &error), -EINVAL);
    create = (struct qcow2_create){.path = path, .size = 512, .version = 4};
    CHECK_EQ(qcow2_create(&create, &error), -EINVAL);
    CHECK_DONE();
}
