#include "machine/aml.h"

#include <string.h>

#define OP_NAME 0x08u
#define OP_BYTE 0x0au
#define OP_WORD 0x0bu
#define OP_DWORD 0x0cu
#define OP_STRING 0x0du
#define OP_QWORD 0x0eu
#define OP_SCOPE 0x10u
#define OP_BUFFER 0x11u
#define OP_PACKAGE 0x12u
#define OP_METHOD 0x14u
#define OP_DUAL_NAME 0x2eu
#define OP_MULTI_NAME 0x2fu
#define OP_EXTENDED 0x5bu
#define OP_REGION 0x80u /* this and the next two after OP_EXTENDED */
#define OP_FIELD 0x81u
#define OP_DEVICE 0x82u
#define OP_LOCAL0 0x60u
#define OP_ARG0 0x68u
#define OP_IF 0xa0u

#define REGION_IO 1u
#define FIELD_DWORD_PRESERVE 0x03u
#define SEGMENT 4u

#define RANGE_MEMORY 0u
#define RANGE_IO 1u
#define RANGE_BUS 2u
#define RANGE_FIXED 0x0cu /* minimum and maximum are fixed */

static void put(struct aml *aml, const void *bytes, size_t length)
{
    if (length > aml->size - aml->used) {
        aml->overflow = true;
        return;
    }
    memcpy(aml->bytes + aml->used, bytes, length);
    aml->used += length;
}

static void put_int(struct aml *aml, uint64_t value, unsigned bytes)
{
    put(aml, &value, bytes); /* the host is little-endian, as AML is */
}

/* Segments after an optional root prefix (20.2.2): two or more are announced. */
static void put_path(struct aml *aml, const char *path)
{
    if (*path == '\\')
        put(aml, path++, 1);
    size_t segments = (strlen(path) + 1) / (SEGMENT + 1);
    if (segments == 2)
        put_int(aml, OP_DUAL_NAME, 1);
    else if (segments > 2)
        put_int(aml, OP_MULTI_NAME | segments << 8, 2);
    for (size_t i = 0; i < segments; i++)
        put(aml, path + i * (SEGMENT + 1), SEGMENT);
}

/* Package lengths are always written in their 3-byte form (20.2.4): lead byte with the low 4 bits, then 16 more. */
static size_t begin_length(struct aml *aml)
{
    size_t mark = aml->used;
    put_int(aml, 0, 3);
    return mark;
}

void aml_end(struct aml *aml, size_t mark)
{
    if (aml->overflow)
        return;
    size_t length = aml->used - mark;
    aml->bytes[mark] = (uint8_t)(0x80u | (length & 0xfu));
    aml->bytes[mark + 1] = (uint8_t)(length >> 4);
    aml->bytes[mark + 2] = (uint8_t)(length >> 12);
    aml->overflow |= length >> 20 != 0;
}

size_t aml_begin_scope(struct aml *aml, const char *path)
{
    put_int(aml, OP_SCOPE, 1);
    size_t mark = begin_length(aml);
    put_path(aml, path);
    return mark;
}

size_t aml_begin_device(struct aml *aml, const char *name)
{
    put_int(aml, OP_EXTENDED | OP_DEVICE << 8, 2);
    size_t mark = begin_length(aml);
    put_path(aml, name);
    return mark;
}

size_t aml_begin_package(struct aml *aml, uint8_t elements)
{
    put_int(aml, OP_PACKAGE, 1);
    size_t mark = begin_length(aml);
    put_int(aml, elements, 1);
    return mark;
}

size_t aml_begin_resources(struct aml *aml, size_t *ret_size_at)
{
    put_int(aml, OP_BUFFER, 1);
    size_t mark = begin_length(aml);
    put_int(aml, OP_WORD, 1);
    *ret_size_at = aml->used;
    put_int(aml, 0, 2);
    return mark;
}

void aml_end_resources(struct aml *aml, size_t mark, size_t size_at)
{
    put_int(aml, 0x0079, 2); /* end tag; a checksum of zero is always right */
    if (aml->overflow)
        return;
    uint16_t size = (uint16_t)(aml->used - size_at - 2);
    memcpy(aml->bytes + size_at, &size, sizeof size);
    aml_end(aml, mark);
}

size_t aml_begin_method(struct aml *aml, const char *name, unsigned arguments)
{
    put_int(aml, OP_METHOD, 1);
    size_t mark = begin_length(aml);
    put_path(aml, name);
    put_int(aml, arguments & 7u, 1); /* not serialized: no method here makes objects */
    return mark;
}

size_t aml_begin_if(struct aml *aml)
{
    put_int(aml, OP_IF, 1);
    return begin_length(aml);
}

size_t aml_begin_fields(struct aml *aml, const char *region)
{
    put_int(aml, OP_EXTENDED | OP_FIELD << 8, 2);
    size_t mark = begin_length(aml);
    put_path(aml, region);
    put_int(aml, FIELD_DWORD_PRESERVE, 1);
    return mark;
}

void aml_field(struct aml *aml, const char *name, uint8_t bits)
{
    put(aml, name, SEGMENT);
    put_int(aml, bits & 0x3fu, 1); /* a package length of one byte */
}

void aml_io_region(struct aml *aml, const char *name, uint16_t port, uint8_t length)
{
    put_int(aml, OP_EXTENDED | OP_REGION << 8, 2);
    put_path(aml, name);
    put_int(aml, REGION_IO, 1);
    aml_integer(aml, port);
    aml_integer(aml, length);
}

void aml_op(struct aml *aml, enum aml_op op)
{
    put_int(aml, (uint64_t)op, 1);
}

void aml_local(struct aml *aml, unsigned n)
{
    put_int(aml, OP_LOCAL0 + (n & 7u), 1);
}

void aml_argument(struct aml *aml, unsigned n)
{
    put_int(aml, OP_ARG0 + n % 7u, 1);
}

void aml_reference(struct aml *aml, const char *path)
{
    put_path(aml, path);
}

void aml_name(struct aml *aml, const char *name)
{
    put_int(aml, OP_NAME, 1);
    put_path(aml, name);
}

void aml_integer(struct aml *aml, uint64_t value)
{
    unsigned bytes = value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : value <= UINT32_MAX ? 4 : 8;
    static const uint8_t op[9] = {[1] = OP_BYTE, [2] = OP_WORD, [4] = OP_DWORD, [8] = OP_QWORD};
    if (value <= 1) { /* ZeroOp and OneOp are their values */
        put_int(aml, value, 1);
        return;
    }
    put_int(aml, op[bytes], 1);
    put_int(aml, value, bytes);
}

void aml_string(struct aml *aml, const char *text)
{
    put_int(aml, OP_STRING, 1);
    put(aml, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

void aml_eisa_id(struct aml *aml, const char *id)
{
    uint32_t vendor = (uint32_t)((id[0] - '@') << 10 | (id[1] - '@') << 5 | (id[2] - '@'));
    uint32_t product = hex_digit(id[3]) << 12 | hex_digit(id[4]) << 8 | hex_digit(id[5]) << 4 | hex_digit(id[6]);
    put_int(aml, OP_DWORD, 1);
    put_int(aml, __builtin_bswap32(vendor << 16 | product), 4);
}

void aml_io(struct aml *aml, uint16_t base, uint8_t length)
{
    put_int(aml, 0x0147, 2); /* small item 8, decodes 16 bits */
    put_int(aml, base, 2);
    put_int(aml, base, 2);
    put_int(aml, 1, 1);
    put_int(aml, length, 1);
}

void aml_irq(struct aml *aml, unsigned irq)
{
    put_int(aml, 0x22, 1); /* edge, active high, exclusive */
    put_int(aml, UINT64_C(1) << irq, 2);
}

void aml_memory32_fixed(struct aml *aml, uint32_t base, uint32_t length)
{
    put_int(aml, 0x000986, 3);
    put_int(aml, 1, 1); /* writable */
    put_int(aml, base, 4);
    put_int(aml, length, 4);
}

/* Word, double-word and quad-word address space descriptors (6.4.3.5) share their shape. */
static void put_range(struct aml *aml, unsigned width, uint8_t type, uint8_t type_flags, uint64_t first, uint64_t length)
{
    static const uint8_t tag[9] = {[2] = 0x88, [4] = 0x87, [8] = 0x8a};
    put_int(aml, tag[width], 1);
    put_int(aml, 3u + 5u * width, 2);
    put_int(aml, type, 1);
    put_int(aml, RANGE_FIXED, 1); /* the bridge produces it, decodes positively */
    put_int(aml, type_flags, 1);
    put_int(aml, 0, width); /* granularity */
    put_int(aml, first, width);
    put_int(aml, first + length - 1, width);
    put_int(aml, 0, width); /* translation */
    put_int(aml, length, width);
}

void aml_bus_range(struct aml *aml, uint16_t first, uint16_t last)
{
    put_range(aml, 2, RANGE_BUS, 0, first, last - first + 1u);
}

void aml_io_range(struct aml *aml, uint16_t first, uint16_t last)
{
    put_range(aml, 2, RANGE_IO, 0x03, first, last - first + 1u); /* the entire range */
}

void aml_memory32_range(struct aml *aml, uint32_t base, uint32_t length)
{
    put_range(aml, 4, RANGE_MEMORY, 0x01, base, length); /* not cacheable, read-write */
}

void aml_memory64_range(struct aml *aml, uint64_t base, uint64_t length)
{
    put_range(aml, 8, RANGE_MEMORY, 0x07, base, length); /* prefetchable, read-write */
}
