#include "host/gpt.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <zlib.h>

#include "base/checked.h"

#define SECTOR 512u
#define ENTRY_SIZE 128u
#define ENTRIES 128u
#define TABLE_BYTES (ENTRIES * ENTRY_SIZE)
#define TABLE_MAX (64u << 10)

const uint8_t gpt_type_root_x86_64[16] = {0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d,
                                          0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09};
const uint8_t gpt_type_linux[16] = {0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47,
                                    0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4};

/* The header's fields, by their offsets (table 5.5). */
enum {
    AT_SIGNATURE = 0, AT_REVISION = 8, AT_HEADER_SIZE = 12, AT_HEADER_CRC = 16, AT_MY_LBA = 24, AT_OTHER_LBA = 32,
    AT_FIRST_LBA = 40, AT_LAST_LBA = 48, AT_DISK_ID = 56, AT_TABLE_LBA = 72, AT_ENTRIES = 80, AT_ENTRY_SIZE = 84,
    AT_TABLE_CRC = 88, HEADER_SIZE = 92
};

static uint64_t get(const uint8_t *bytes, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = size; i-- > 0;)
        value = value << 8 | bytes[i];
    return value;
}

static void put(uint8_t *bytes, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t crc(const void *bytes, size_t length)
{
    return (uint32_t)crc32(0, bytes, (uInt)length);
}

void gpt_guid_text(const uint8_t g[16], char ret_text[GPT_GUID_TEXT])
{
    /* The first three groups are little-endian numbers, the rest bytes in order. */
    snprintf(ret_text, GPT_GUID_TEXT, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", (unsigned)get(g, 4),
             (unsigned)get(g + 4, 2), (unsigned)get(g + 6, 2), g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]);
}

/* The usable partitions of a table whose sums are right. */
static int take_entries(const uint8_t *table, uint32_t entries, uint32_t entry_size, uint64_t volume_size,
                        struct gpt_partition *ret_parts)
{
    static const uint8_t unused[16];
    int count = 0;
    for (uint32_t i = 0; i < entries && count < GPT_PARTITIONS_MAX; i++) {
        const uint8_t *entry = table + (size_t)i * entry_size;
        uint64_t first = get(entry + 32, 8), last = get(entry + 40, 8);
        if (memcmp(entry, unused, 16) == 0 || last < first || last >= volume_size / SECTOR)
            continue;
        struct gpt_partition *part = &ret_parts[count++];
        memcpy(part->type, entry, 16);
        memcpy(part->id, entry + 16, 16);
        part->offset = first * SECTOR;
        part->size = (last - first + 1) * SECTOR;
    }
    return count;
}

/* Reads the copy whose header is at `lba`. Returns a count, -ENOENT without a signature, or -EINVAL. */
static int read_copy(gpt_read_fn *read, void *owner, uint64_t volume_size, uint64_t lba,
                     struct gpt_partition *ret_parts, struct error *error)
{
    uint8_t header[SECTOR];
    int r = read(owner, lba * SECTOR, header, sizeof header);
    if (r < 0)
        return error_set(error, -r, "reading the partition table: %s", strerror(-r));
    if (memcmp(header, "EFI PART", 8) != 0)
        return error_set(error, ENOENT, "there is no GUID partition table");
    uint32_t size = (uint32_t)get(header + AT_HEADER_SIZE, 4), sum = (uint32_t)get(header + AT_HEADER_CRC, 4);
    put(header + AT_HEADER_CRC, 4, 0);
    if (size < HEADER_SIZE || size > SECTOR || crc(header, size) != sum || get(header + AT_MY_LBA, 8) != lba)
        return error_set(error, EINVAL, "the partition table's header is damaged");
    uint32_t entries = (uint32_t)get(header + AT_ENTRIES, 4), entry_size = (uint32_t)get(header + AT_ENTRY_SIZE, 4);
    uint64_t table_lba = get(header + AT_TABLE_LBA, 8);
    if (entry_size < ENTRY_SIZE || entry_size % 8 || entry_size > 4096 || entries == 0 ||
        entries > TABLE_MAX / entry_size)
        return error_set(error, EINVAL, "the partition table has %u entries of %u bytes, which is not usable", entries,
                         entry_size);
    size_t bytes = (size_t)entries * entry_size;
    if (table_lba > volume_size / SECTOR || !range_within(table_lba * SECTOR, bytes, volume_size))
        return error_set(error, EINVAL, "the partition table lies outside the disk");
    uint8_t *table = malloc(bytes);
    if (!table)
        return error_set(error, ENOMEM, "no memory for the partition table");
    r = read(owner, table_lba * SECTOR, table, bytes);
    if (r < 0)
        error_set(error, -r, "reading the partition table: %s", strerror(-r));
    else if (crc(table, bytes) != get(header + AT_TABLE_CRC, 4))
        r = error_set(error, EINVAL, "the partition table is damaged");
    else
        r = take_entries(table, entries, entry_size, volume_size, ret_parts);
    free(table);
    return r;
}

int gpt_read(gpt_read_fn *read, void *owner, uint64_t volume_size, struct gpt_partition ret_parts[GPT_PARTITIONS_MAX],
             struct error *error)
{
    if (volume_size < 3 * SECTOR)
        return error_set(error, ENOENT, "there is no GUID partition table");
    int r = read_copy(read, owner, volume_size, 1, ret_parts, error);
    if (r >= 0)
        return r;
    struct error backup_error;
    int backup = read_copy(read, owner, volume_size, volume_size / SECTOR - 1, ret_parts, &backup_error);
    return backup >= 0 ? backup : r; /* the first copy's reason is the telling one */
}

static int random_guid(uint8_t *guid, struct error *error)
{
    if (getrandom(guid, 16, 0) != 16)
        return error_set(error, EIO, "no random numbers: %s", strerror(errno));
    guid[7] = (uint8_t)((guid[7] & 0x0f) | 0x40); /* version 4: random; little-endian third group */
    guid[8] = (uint8_t)((guid[8] & 0x3f) | 0x80);
    return 0;
}

static int write_all(int fd, const void *bytes, size_t length, uint64_t offset, struct error *error)
{
    ssize_t n = pwrite(fd, bytes, length, (off_t)offset);
    if (n == (ssize_t)length)
        return 0;
    int code = n < 0 ? errno : ENOSPC;
    return error_set(error, code, "writing the partition table: %s", strerror(code));
}

/* One copy: the header at `lba`, its table at `table_lba`. */
static int write_copy(int fd, uint64_t sectors, uint64_t lba, uint64_t table_lba, const uint8_t *disk_id,
                      const uint8_t *table, struct error *error)
{
    uint8_t header[SECTOR] = {0};
    memcpy(header + AT_SIGNATURE, "EFI PART", 8);
    put(header + AT_REVISION, 4, 0x00010000);
    put(header + AT_HEADER_SIZE, 4, HEADER_SIZE);
    put(header + AT_MY_LBA, 8, lba);
    put(header + AT_OTHER_LBA, 8, sectors - lba);
    put(header + AT_FIRST_LBA, 8, 2 + TABLE_BYTES / SECTOR);
    put(header + AT_LAST_LBA, 8, sectors - 2 - TABLE_BYTES / SECTOR);
    memcpy(header + AT_DISK_ID, disk_id, 16);
    put(header + AT_TABLE_LBA, 8, table_lba);
    put(header + AT_ENTRIES, 4, ENTRIES);
    put(header + AT_ENTRY_SIZE, 4, ENTRY_SIZE);
    put(header + AT_TABLE_CRC, 4, crc(table, TABLE_BYTES));
    put(header + AT_HEADER_CRC, 4, crc(header, HEADER_SIZE));
    int r = write_all(fd, table, TABLE_BYTES, table_lba * SECTOR, error);
    return r < 0 ? r : write_all(fd, header, sizeof header, lba * SECTOR, error);
}

/* Old tools must see a disk that is full. */
static int write_protective_mbr(int fd, uint64_t sectors, struct error *error)
{
    uint8_t mbr[SECTOR] = {0};
    uint8_t *entry = mbr + 446;
    memcpy(entry + 1, "\x00\x02\x00", 3); /* the first CHS address */
    entry[4] = 0xee;
    memcpy(entry + 5, "\xff\xff\xff", 3);
    put(entry + 8, 4, 1);
    put(entry + 12, 4, sectors - 1 > UINT32_MAX ? UINT32_MAX : sectors - 1);
    put(mbr + 510, 2, 0xaa55);
    return write_all(fd, mbr, sizeof mbr, 0, error);
}

int gpt_write(int fd, uint64_t size, struct gpt_partition *ret_part, struct error *error)
{
    uint64_t sectors = size / SECTOR;
    uint8_t disk_id[16], *table = calloc(1, TABLE_BYTES);
    struct gpt_partition part = {.offset = GPT_ALIGN, .size = size - GPT_OVERHEAD};
    memcpy(part.type, gpt_type_root_x86_64, 16);
    int r = table ? random_guid(disk_id, error) : error_set(error, ENOMEM, "no memory for the partition table");
    if (r == 0)
        r = random_guid(part.id, error);
    if (r == 0) {
        memcpy(table, part.type, 16);
        memcpy(table + 16, part.id, 16);
        put(table + 32, 8, part.offset / SECTOR);
        put(table + 40, 8, (part.offset + part.size) / SECTOR - 1);
        for (unsigned i = 0; i < 4; i++)
            put(table + 56 + 2 * i, 2, (uint8_t)"root"[i]); /* its name, in UTF-16 */
        r = write_protective_mbr(fd, sectors, error);
    }
    if (r == 0)
        r = write_copy(fd, sectors, sectors - 1, sectors - 1 - TABLE_BYTES / SECTOR, disk_id, table, error);
    if (r == 0)
        r = write_copy(fd, sectors, 1, 2, disk_id, table, error);
    free(table);
    if (r == 0)
        *ret_part = part;
    return r;
}
