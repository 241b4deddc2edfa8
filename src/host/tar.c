#include "host/tar.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 512u
#define EXTENDED_MAX (1u << 20) /* bytes of one extended header */

struct tar {
    int fd;
    uint64_t left;    /* bytes of the current entry's content */
    uint64_t padding; /* and after it */
    /* What extended headers said about the next entry. */
    uint8_t *extended; /* the last pax header; xattr values point into it */
    char path[TAR_PATH_MAX], target[TAR_PATH_MAX];
    bool has_path, has_target, has_size, has_uid, has_gid, has_mtime;
    uint64_t size, uid, gid;
    int64_t mtime;
    unsigned xattrs;
    struct tar_xattr xattr[TAR_XATTRS_MAX];
    char clean_path[TAR_PATH_MAX], clean_target[TAR_PATH_MAX];
};

/* Fills the whole buffer. Returns 0, or a negative errno; a stream that ends early is -ENODATA. */
static int read_all(struct tar *tar, void *bytes, size_t length, struct error *error)
{
    uint8_t *at = bytes;
    while (length) {
        ssize_t n = read(tar->fd, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(error, errno, "reading the archive: %s", strerror(errno));
        if (n == 0)
            return error_set(error, ENODATA, "the archive ends in the middle");
        at += n, length -= (size_t)n;
    }
    return 0;
}

static int skip(struct tar *tar, uint64_t length, struct error *error)
{
    uint8_t waste[4096];
    while (length) {
        size_t part = length < sizeof waste ? (size_t)length : sizeof waste;
        int r = read_all(tar, waste, part, error);
        if (r < 0)
            return r;
        length -= part;
    }
    return 0;
}

/* A header's number: octal text, or GNU's base 256 when the first bit is set. Returns 0 or -EINVAL. */
static int header_number(const uint8_t *field, size_t length, uint64_t *ret_number)
{
    uint64_t number = 0;
    size_t i = 0;
    if (field[0] & 0x80) {
        for (i = 0; i < length; i++) {
            if (number >> 56)
                return -EINVAL;
            number = number << 8 | (i ? field[i] : field[i] & 0x7fu);
        }
        *ret_number = number;
        return 0;
    }
    while (i < length && field[i] == ' ')
        i++;
    for (; i < length && field[i] >= '0' && field[i] <= '7'; i++) {
        if (number >> 61)
            return -EINVAL;
        number = number << 3 | (field[i] - '0');
    }
    if (i < length && field[i] != ' ' && field[i] != 0)
        return -EINVAL;
    *ret_number = number;
    return 0;
}

/* Decimal text of a pax record, whose fraction is dropped. Returns 0 or -EINVAL. */
static int pax_number(const char *text, int64_t *ret_number)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || (*end && *end != '.'))
        return -EINVAL;
    *ret_number = number;
    return 0;
}

static int pax_unsigned(const char *text, uint64_t *ret_number, bool *ret_has)
{
    int64_t number;
    if (pax_number(text, &number) < 0 || number < 0)
        return -EINVAL;
    *ret_number = (uint64_t)number;
    *ret_has = true;
    return 0;
}

static int pax_text(const char *value, size_t length, char *ret_text, bool *ret_has)
{
    if (length >= TAR_PATH_MAX || memchr(value, 0, length))
        return -EINVAL;
    memcpy(ret_text, value, length + 1); /* the record's newline has become NUL */
    *ret_has = true;
    return 0;
}

/* One record; key and value end in NUL. Keys that say nothing here are passed over. */
static int pax_record(struct tar *tar, const char *key, const char *value, size_t length)
{
    static const char xattr[] = "SCHILY.xattr.";
    if (strcmp(key, "path") == 0)
        return pax_text(value, length, tar->path, &tar->has_path);
    if (strcmp(key, "linkpath") == 0)
        return pax_text(value, length, tar->target, &tar->has_target);
    if (strcmp(key, "size") == 0)
        return pax_unsigned(value, &tar->size, &tar->has_size);
    if (strcmp(key, "uid") == 0)
        return pax_unsigned(value, &tar->uid, &tar->has_uid);
    if (strcmp(key, "gid") == 0)
        return pax_unsigned(value, &tar->gid, &tar->has_gid);
    if (strcmp(key, "mtime") == 0) {
        tar->has_mtime = true;
        return pax_number(value, &tar->mtime);
    }
    if (strncmp(key, "GNU.sparse.", 11) == 0)
        return -EINVAL;
    if (strncmp(key, xattr, sizeof xattr - 1) == 0) {
        if (tar->xattrs == TAR_XATTRS_MAX || !key[sizeof xattr - 1])
            return -EINVAL;
        tar->xattr[tar->xattrs++] = (struct tar_xattr){key + sizeof xattr - 1, value, length};
    }
    return 0;
}

/* Records are "LENGTH KEY=VALUE\n", where LENGTH counts all of it. */
static int pax_records(struct tar *tar, char *bytes, size_t size)
{
    while (size) {
        char *end;
        if (bytes[0] < '0' || bytes[0] > '9')
            return -EINVAL;
        errno = 0;
        unsigned long length = strtoul(bytes, &end, 10); /* the buffer ends in NUL */
        size_t head = (size_t)(end - bytes) + 1;
        if (errno || length > size || head >= length || *end != ' ' || bytes[length - 1] != '\n')
            return -EINVAL;
        bytes[length - 1] = 0;
        char *key = bytes + head, *equals = memchr(key, '=', length - head);
        if (!equals)
            return -EINVAL;
        *equals = 0;
        char *value = equals + 1;
        int r = pax_record(tar, key, value, (size_t)(bytes + length - 1 - value));
        if (r < 0)
            return r;
        bytes += length, size -= length;
    }
    return 0;
}

/* Reads an extended header's content of `size` bytes. */
static int take_extended(struct tar *tar, char kind, uint64_t size, struct error *error)
{
    if (size > EXTENDED_MAX)
        return error_set(error, EINVAL, "the archive has an extended header of %llu bytes", (unsigned long long)size);
    char *bytes = calloc(1, size + 1);
    if (!bytes)
        return error_set(error, ENOMEM, "no memory for an extended header of the archive");
    int r = read_all(tar, bytes, size, error);
    if (r == 0)
        r = skip(tar, -size % BLOCK, error);
    if (r == 0 && kind == 'x') {
        free(tar->extended);
        tar->extended = (uint8_t *)bytes;
        tar->xattrs = 0;
        if (pax_records(tar, bytes, size) < 0)
            r = error_set(error, EINVAL, "the archive has an extended header that is damaged or of an unknown kind");
        return r;
    }
    size_t length = strlen(bytes);
    if (r == 0 && kind == 'L')
        r = pax_text(bytes, length, tar->path, &tar->has_path);
    else if (r == 0 && kind == 'K')
        r = pax_text(bytes, length, tar->target, &tar->has_target);
    if (r == -EINVAL)
        error_set(error, EINVAL, "the archive has a name that is too long");
    free(bytes);
    return r;
}

/* Drops empty and "." parts; refuses "..". */
static int clean(const char *path, char *ret_path, struct error *error)
{
    char *out = ret_path;
    for (const char *at = path; *at;) {
        size_t length = strcspn(at, "/");
        if (length == 2 && memcmp(at, "..", 2) == 0)
            return error_set(error, EINVAL, "the archive has a path with '..': %s", path);
        if (length && !(length == 1 && at[0] == '.')) {
            if (out != ret_path)
                *out++ = '/';
            memcpy(out, at, length);
            out += length;
        }
        at += length + (at[length] == '/');
    }
    *out = 0;
    return 0;
}

/* The fixed header's texts need not end in NUL; `prefix` stands before the name in ustar. */
static void header_texts(struct tar *tar, const uint8_t *header)
{
    if (!tar->has_path) {
        size_t length = memcmp(header + 257, "ustar\0", 6) == 0 ? strnlen((const char *)header + 345, 155) : 0;
        memcpy(tar->path, header + 345, length);
        if (length)
            tar->path[length++] = '/';
        size_t name = strnlen((const char *)header, 100);
        memcpy(tar->path + length, header, name);
        tar->path[length + name] = 0;
    }
    if (!tar->has_target) {
        size_t length = strnlen((const char *)header + 157, 100);
        memcpy(tar->target, header + 157, length);
        tar->target[length] = 0;
    }
}

static int header_numbers(struct tar *tar, const uint8_t *header, struct tar_entry *entry)
{
    static const struct {
        uint16_t at, length;
    } fields[] = {{100, 8}, {108, 8}, {116, 8}, {124, 12}, {136, 12}, {329, 8}, {337, 8}};
    uint64_t number[7];
    for (unsigned i = 0; i < 7; i++) {
        bool device = i >= 5;
        bool has = device && entry->type != TAR_CHAR && entry->type != TAR_BLOCK; /* may be blank then */
        number[i] = 0;
        if (!has && header_number(header + fields[i].at, fields[i].length, &number[i]) < 0)
            return -EINVAL;
    }
    uint64_t uid = tar->has_uid ? tar->uid : number[1], gid = tar->has_gid ? tar->gid : number[2];
    if (uid > UINT32_MAX || gid > UINT32_MAX || number[5] > 0xfff || number[6] > 0xfffff)
        return -EINVAL;
    entry->mode = number[0] & 07777;
    entry->uid = (uint32_t)uid;
    entry->gid = (uint32_t)gid;
    entry->size = tar->has_size ? tar->size : number[3];
    entry->mtime = tar->has_mtime ? tar->mtime : (int64_t)(number[4] & INT64_MAX);
    entry->major = (uint32_t)number[5];
    entry->minor = (uint32_t)number[6];
    return entry->size > INT64_MAX ? -EINVAL : 0;
}

/* Turns a header and what extended headers said into an entry. */
static int take_entry(struct tar *tar, const uint8_t *header, struct tar_entry *entry, struct error *error)
{
    static const char kinds[] = "0123456"; /* in the order of enum tar_type */
    char kind = header[156] == 0 || header[156] == '7' ? '0' : (char)header[156];
    const char *found = strchr(kinds, kind);
    header_texts(tar, header);
    *entry = (struct tar_entry){.path = tar->clean_path, .target = "", .xattrs = tar->xattrs};
    if (!found)
        return error_set(error, EINVAL, "the archive has an entry of the unknown kind '%c': %s", kind, tar->path);
    entry->type = (enum tar_type)(found - kinds);
    if (header_numbers(tar, header, entry) < 0)
        return error_set(error, EINVAL, "the archive has an entry with a number that is out of range: %s", tar->path);
    int r = clean(tar->path, tar->clean_path, error);
    if (r == 0 && entry->type == TAR_LINK) {
        r = clean(tar->target, tar->clean_target, error);
        entry->target = tar->clean_target;
    } else if (entry->type == TAR_SYMLINK) {
        entry->target = tar->target;
    }
    memcpy(entry->xattr, tar->xattr, sizeof entry->xattr);
    tar->left = entry->type == TAR_FILE ? entry->size : 0;
    tar->padding = -tar->left % BLOCK;
    tar->has_path = tar->has_target = tar->has_size = tar->has_uid = tar->has_gid = tar->has_mtime = false;
    tar->xattrs = 0;
    return r;
}

/* The sum of the header's bytes, with its own field taken as spaces. */
static bool sum_right(const uint8_t *header)
{
    uint64_t want, sum = 0;
    for (unsigned i = 0; i < BLOCK; i++)
        sum += i >= 148 && i < 156 ? ' ' : header[i];
    return header_number(header + 148, 8, &want) == 0 && want == sum;
}

int tar_next(struct tar *tar, struct tar_entry *ret_entry, struct error *error)
{
    static const uint8_t zeroes[BLOCK];
    uint8_t header[BLOCK];
    int r = skip(tar, tar->left + tar->padding, error);
    tar->left = tar->padding = 0;
    while (r == 0) {
        r = read_all(tar, header, sizeof header, error);
        if (r < 0)
            return r;
        if (memcmp(header, zeroes, sizeof header) == 0)
            return 0;
        if (!sum_right(header))
            return error_set(error, EINVAL, "this is no tar archive, or it is damaged");
        char kind = (char)header[156];
        uint64_t size;
        if (kind != 'x' && kind != 'g' && kind != 'L' && kind != 'K') {
            r = take_entry(tar, header, ret_entry, error);
            return r < 0 ? r : 1;
        }
        if (header_number(header + 124, 12, &size) < 0)
            return error_set(error, EINVAL, "the archive has an extended header of no size");
        r = take_extended(tar, kind, size, error);
    }
    return r;
}

int64_t tar_read(struct tar *tar, void *bytes, size_t length, struct error *error)
{
    if (length > tar->left)
        length = (size_t)tar->left;
    int r = read_all(tar, bytes, length, error);
    if (r < 0)
        return r;
    tar->left -= length;
    return (int64_t)length;
}

int tar_open(int fd, struct tar **ret_tar, struct error *error)
{
    struct tar *tar = calloc(1, sizeof *tar);
    if (!tar)
        return error_set(error, ENOMEM, "no memory to read an archive");
    tar->fd = fd;
    *ret_tar = tar;
    return 0;
}

void tar_close(struct tar *tar)
{
    if (tar)
        free(tar->extended);
    free(tar);
}
