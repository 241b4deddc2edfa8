/* Saved streams: what is put is got back, and no prefix or damage of it is read out of bounds. */
#include "base/stream.h"

#include <stdlib.h>

#include "check.h"

static struct stream *sample(void)
{
    struct stream *s = stream_new();
    stream_begin(s, "outer", 2);
    stream_put_u8(s, 0x12);
    stream_put_u16(s, 0x3456);
    stream_begin(s, "inner", 1);
    stream_put_u32(s, 0xdeadbeef);
    stream_put_u64(s, UINT64_C(0x0123456789abcdef));
    stream_end(s);
    stream_put_bytes(s, "tail", 4);
    stream_end(s);
    return s;
}

static int read_sample(const void *bytes, size_t length, struct error *error)
{
    struct stream *s = stream_open(bytes, length);
    uint32_t version = stream_enter(s, "outer", 2);
    uint8_t a = stream_get_u8(s);
    uint16_t b = stream_get_u16(s);
    stream_enter(s, "inner", 1);
    uint32_t c = stream_get_u32(s);
    uint64_t d = stream_get_u64(s);
    stream_leave(s);
    char tail[4];
    stream_get_bytes(s, tail, 4);
    stream_leave(s);
    int r = stream_status(s, error);
    if (r == 0 && (version != 2 || a != 0x12 || b != 0x3456 || c != 0xdeadbeef ||
                   d != UINT64_C(0x0123456789abcdef) || memcmp(tail, "tail", 4) != 0))
        r = 1;
    stream_free(s);
    return r;
}

int main(void)
{
    struct stream *s = sample();
    size_t length;
    const uint8_t *bytes = stream_bytes(s, &length);
    struct error error;
    CHECK_EQ(read_sample(bytes, length, &error), 0);

    for (size_t cut = 0; cut < length; cut++) { /* a copy of the exact size, so that the sanitizer sees overreads */
        uint8_t *copy = malloc(cut ? cut : 1);
        memcpy(copy, bytes, cut);
        CHECK(read_sample(copy, cut, &error) < 0);
        free(copy);
    }
    for (size_t at = 0; at < length; at++) {
        uint8_t *copy = malloc(length);
        memcpy(copy, bytes, length);
        copy[at] ^= 0xff;
        CHECK(read_sample(copy, length, &error) != 0);
        free(copy);
    }
    stream_free(s);

    s = stream_open("", 0);
    CHECK_EQ(stream_enter(s, "outer", 1), 0);
    CHECK_EQ(stream_get_u64(s), 0);
    CHECK(stream_status(s, &error) < 0);
    stream_free(s);

    s = stream_new();
    for (int i = 0; i < 9; i++)
        stream_begin(s, "deep", 1);
    CHECK(stream_status(s, NULL) < 0);
    stream_free(s);
    CHECK_DONE();
}
