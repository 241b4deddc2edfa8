#include "rootfs/entries.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <iconv.h>
#include <langinfo.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INPUT_BYTES (256u << 10)
#define MAJOR_MAX 0xfffu
#define MINOR_MAX 0xfffffu

struct entries {
    struct archive *archive;
    int fd;
    bool opened;  /* by libarchive, which looks for the format then */
    bool ended;   /* the descriptor has no more: libarchive wanted to read beyond what there is */
    iconv_t held; /* see entries_open */
    char path[ENTRY_PATH_MAX], target[ENTRY_PATH_MAX];
    uint8_t input[INPUT_BYTES];
};

static la_ssize_t read_input(struct archive *archive, void *owner, const void **ret_bytes)
{
    struct entries *entries = owner;
    ssize_t n;
    do {
        n = read(entries->fd, entries->input, sizeof entries->input);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        archive_set_error(archive, errno, "%s", strerror(errno));
    entries->ended |= n == 0;
    *ret_bytes = entries->input;
    return n;
}

/* What libarchive's failure is to a person. EINVAL, EILSEQ and -1 are its codes for what is wrong with an archive; any other
 * is read(2)'s. */
static int failed(struct entries *entries, int result, struct error *error)
{
    const char *text = archive_error_string(entries->archive);
    int code = archive_errno(entries->archive);
    if (entries->ended)
        return error_set(error, ENODATA, "the archive ends in the middle");
    if (code == ENOMEM)
        return error_set(error, ENOMEM, "no memory to read the archive");
    if (code > 0 && code != EINVAL && code != EILSEQ)
        return error_set(error, code, "reading the archive: %s", strerror(code));
    if (result == ARCHIVE_RETRY || archive_format(entries->archive) == 0)
        return error_set(error, EINVAL, "this is no tar archive, or it is damaged");
    return error_set(error, EINVAL, "the archive is damaged: %s", text ? text : "its reader does not say why");
}

/* Drops empty and "." parts; refuses "..". */
static int clean(const char *path, char ret_path[ENTRY_PATH_MAX], struct error *error)
{
    char *out = ret_path;
    if (strlen(path) >= ENTRY_PATH_MAX)
        return error_set(error, EINVAL, "the archive has a name that is too long: %.100s...", path);
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

/* Hard links have no other type in libarchive: what they are is what they link to. */
static int take_type(struct archive_entry *from, struct entry *entry)
{
    static const struct {
        unsigned mode;
        enum entry_type type;
    } types[] = {{AE_IFREG, ENTRY_FILE}, {AE_IFLNK, ENTRY_SYMLINK}, {AE_IFCHR, ENTRY_CHAR}, {AE_IFBLK, ENTRY_BLOCK},
                 {AE_IFDIR, ENTRY_FOLDER}, {AE_IFIFO, ENTRY_FIFO}};
    entry->type = ENTRY_LINK;
    if (archive_entry_hardlink(from))
        return 0;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        entry->type = types[i].type;
        if (archive_entry_filetype(from) == types[i].mode)
            return 0;
    }
    return -EINVAL;
}

static int take_numbers(struct archive_entry *from, struct entry *entry)
{
    la_int64_t uid = archive_entry_uid(from), gid = archive_entry_gid(from), size = archive_entry_size(from);
    if (uid < 0 || uid > UINT32_MAX || gid < 0 || gid > UINT32_MAX || size < 0)
        return -EINVAL;
    entry->mode = archive_entry_perm(from) & 07777;
    entry->uid = (uint32_t)uid;
    entry->gid = (uint32_t)gid;
    entry->mtime = archive_entry_mtime(from);
    if (entry->type == ENTRY_FILE)
        entry->size = (uint64_t)size;
    if (entry->type != ENTRY_CHAR && entry->type != ENTRY_BLOCK)
        return 0;
    dev_t major = archive_entry_rdevmajor(from), minor = archive_entry_rdevminor(from);
    if (major > MAJOR_MAX || minor > MINOR_MAX)
        return -EINVAL;
    entry->major = (uint32_t)major;
    entry->minor = (uint32_t)minor;
    return 0;
}

/* In the order of the archive, which libarchive's list has the other way round. */
static int take_xattrs(struct archive_entry *from, struct entry *entry)
{
    int count = archive_entry_xattr_reset(from);
    if (count < 0 || count > ENTRY_XATTRS_MAX)
        return -E2BIG;
    for (int i = count; i-- > 0;) {
        struct entry_xattr *xattr = &entry->xattr[i];
        if (archive_entry_xattr_next(from, &xattr->name, &xattr->value, &xattr->length) != ARCHIVE_OK || !xattr->name)
            return -EINVAL;
        size_t length = strlen(xattr->name);
        if (length == 0 || length > ENTRY_XATTR_NAME_MAX)
            return -EINVAL;
    }
    entry->xattrs = (unsigned)count;
    return 0;
}

static int take_entry(struct entries *entries, struct archive_entry *from, struct entry *entry, struct error *error)
{
    const char *path = archive_entry_pathname(from), *target = "";
    *entry = (struct entry){.path = entries->path, .target = ""};
    if (!path || !path[0])
        return error_set(error, EINVAL, "the archive has an entry without a name");
    if (take_type(from, entry) < 0)
        return error_set(error, EINVAL, "the archive has an entry of an unknown kind: %s", path);
    if (take_numbers(from, entry) < 0)
        return error_set(error, EINVAL, "the archive has an entry with a number that is out of range: %s", path);
    if (take_xattrs(from, entry) < 0)
        return error_set(error, EINVAL, "the archive has an entry with extended attributes that are too many or have no "
                         "proper names: %s", path);
    int r = clean(path, entries->path, error);
    if (r < 0 || (entry->type != ENTRY_LINK && entry->type != ENTRY_SYMLINK))
        return r;
    target = entry->type == ENTRY_LINK ? archive_entry_hardlink(from) : archive_entry_symlink(from);
    entry->target = entries->target;
    if (entry->type == ENTRY_LINK)
        return clean(target, entries->target, error);
    if (!target || strlen(target) >= ENTRY_PATH_MAX)
        return error_set(error, EINVAL, "the archive has a symbolic link with no target or too long a one: %s", path);
    memcpy(entries->target, target, strlen(target) + 1);
    return 0;
}

int entries_next(struct entries *entries, struct entry *ret_entry, struct error *error)
{
    struct archive_entry *from;
    int r = entries->opened ? ARCHIVE_OK : archive_read_open(entries->archive, entries, NULL, read_input, NULL);
    if (r != ARCHIVE_OK)
        return failed(entries, r, error);
    entries->opened = true;
    r = archive_read_next_header(entries->archive, &from);
    if (r == ARCHIVE_EOF) /* libarchive does without an end mark; but what has none may be cut between two entries */
        return entries->ended ? failed(entries, r, error) : 0;
    /* In the C locale libarchive warns of each name of pax that is not ASCII, and leaves it as it is, which is what is
     * wanted: in others it brings names into Unicode's normalization form C. Other warnings mean that it passes over a
     * part of the header. */
    const char *text = r == ARCHIVE_WARN ? archive_error_string(entries->archive) : NULL;
    if (r != ARCHIVE_OK && !(text && strstr(text, "can't be converted")))
        return failed(entries, r, error);
    r = take_entry(entries, from, ret_entry, error);
    return r < 0 ? r : 1;
}

int64_t entries_read(struct entries *entries, void *bytes, size_t length, struct error *error)
{
    la_ssize_t n = archive_read_data(entries->archive, bytes, length);
    return n < 0 ? failed(entries, (int)n, error) : n;
}

void entries_drain(struct entries *entries)
{
    while (!entries->ended) {
        ssize_t n = read(entries->fd, entries->input, sizeof entries->input);
        entries->ended = n == 0 || (n < 0 && errno != EINTR);
    }
}

int entries_open(int fd, struct entries **ret_entries, struct error *error)
{
    struct entries *entries = calloc(1, sizeof *entries);
    if (!entries)
        return error_set(error, ENOMEM, "no memory to read an archive");
    entries->fd = fd;
    /* The C library reads its tables of character sets when the first is asked for, which the process may not later. */
    entries->held = iconv_open(nl_langinfo(CODESET), "UTF-8");
    entries->archive = archive_read_new();
    if (entries->archive && archive_read_support_format_tar(entries->archive) == ARCHIVE_OK) {
        *ret_entries = entries;
        return 0;
    }
    entries_close(entries);
    return error_set(error, ENOMEM, "no memory to read an archive");
}

void entries_close(struct entries *entries)
{
    if (!entries)
        return;
    archive_read_free(entries->archive);
    if (entries->held != (iconv_t)-1)
        iconv_close(entries->held);
    free(entries);
}
