/* ring_test.c - the byte queue against a plain count: what goes in comes out, in order, through any mix of sizes. */
#include "base/ring.h"

#include <stdio.h>

#include "check.h"

int main(void)
{
    struct ring ring = {0};
    struct iovec iov[2];
    uint8_t bytes[9000];
    size_t in = 0, out = 0;
    unsigned wrong = 0, random = 12345;
    CHECK_EQ(ring_pieces(&ring, iov), 0);
    CHECK_EQ(ring_get(&ring, bytes, 10), 0);
    CHECK_EQ(ring_put(&ring, bytes, 0), 0);
    CHECK(ring.bytes == NULL);
    for (unsigned turn = 0; turn < 5000; turn++) {
        random = random * 1103515245 + 12345;
        size_t length = (random >> 8) % (turn % 100 == 99 ? sizeof bytes : 700);
        if (random & 0x40000000) {
            for (size_t i = 0; i < length; i++)
                bytes[i] = (uint8_t)((in + i) * 41 >> 2);
            CHECK_EQ(ring_put(&ring, bytes, length), 0);
            in += length;
        } else if (random & 0x20000000) {
            size_t n = ring_get(&ring, bytes, length);
            CHECK_EQ(n, length < in - out ? length : in - out);
            for (size_t i = 0; i < n; i++)
                wrong += bytes[i] != (uint8_t)(out++ * 41 >> 2);
        } else {
            size_t n = 0;
            for (unsigned i = 0, pieces = ring_pieces(&ring, iov); i < pieces; n += iov[i++].iov_len)
                for (size_t k = 0; k < iov[i].iov_len; k++)
                    wrong += ((uint8_t *)iov[i].iov_base)[k] != (uint8_t)((out + n + k) * 41 >> 2);
            CHECK_EQ(n, in - out);
            ring_skip(&ring, length);
            out += length < n ? length : n;
        }
        CHECK_EQ(ring.used, in - out);
        CHECK(ring.used > 0 || ring.bytes == NULL);
    }
    CHECK_EQ(wrong, 0);
    CHECK(in > 500000);
    ring_clear(&ring);
    CHECK(ring.bytes == NULL && ring.used == 0);
    CHECK_DONE();
}
