/* bootfiles_look.c - the child's part: the partition, the file system, and the files in it. All of it may be hostile. */
#include <errno.h>
#include <ext2fs/ext2_err.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "host/bootfiles_private.h"
#include "host/ext_io.h"
#include "host/gpt.h"

#define TEXT_MAX 8192u        /* bytes read of a small text file */
#define NAMES_MAX 100000u     /* names looked at in /boot */
#define COPY_BYTES (64u << 10)

static const char prefix[] = "vmlinuz-";

struct look {
    ext2_filsys fs;
    char version[200]; /* of the newest kernel so far */
    unsigned names;
};

static int take_name(struct ext2_dir_entry *entry, int offset, int block_size, char *buffer, void *owner)
{
    (void)offset, (void)block_size, (void)buffer;
    struct look *look = owner;
    size_t length = (size_t)ext2fs_dirent_name_len(entry), skip = sizeof prefix - 1;
    char version[sizeof look->version];
    if (++look->names > NAMES_MAX)
        return DIRENT_ABORT;
    if (length <= skip || length - skip >= sizeof version || memcmp(entry->name, prefix, skip) != 0)
        return 0;
    memcpy(version, entry->name + skip, length - skip);
    version[length - skip] = 0;
    /* strverscmp orders 6.1.0-9 before 6.1.0-10. A name with NUL or other odd bytes is no version. */
    for (const char *c = version; c < version + length - skip; c++)
        if (*c <= ' ' || *c > '~' || *c == '/')
            return 0;
    if (!look->version[0] || strverscmp(version, look->version) > 0)
        memcpy(look->version, version, length - skip + 1);
    return 0;
}

/* Opens a regular file, following links. Returns 0, -ENOENT when there is none, or -EIO. */
static int open_file(ext2_filsys fs, const char *path, ext2_file_t *ret_file, uint64_t *ret_size)
{
    ext2_ino_t number;
    struct ext2_inode inode;
    if (ext2fs_namei_follow(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &number))
        return -ENOENT;
    if (ext2fs_read_inode(fs, number, &inode) || !LINUX_S_ISREG(inode.i_mode))
        return -ENOENT;
    *ret_size = EXT2_I_SIZE(&inode);
    return ext2fs_file_open2(fs, number, &inode, 0, ret_file) ? -EIO : 0;
}

/* Copies a file to a descriptor. -ENOENT, or another negative errno with a sentence. */
static int copy_file(ext2_filsys fs, const char *path, int out, struct error *error)
{
    static char buffer[COPY_BYTES];
    ext2_file_t file;
    uint64_t size;
    int r = open_file(fs, path, &file, &size);
    if (r == -EIO)
        return error_set(error, EIO, "%s in the disk cannot be opened", path);
    if (r < 0)
        return r;
    if (size > BOOT_FILE_MAX)
        r = error_set(error, EFBIG, "%s in the disk is too large (%llu bytes)", path, (unsigned long long)size);
    for (uint64_t left = size; r == 0 && left;) {
        unsigned got = 0;
        errcode_t code = ext2fs_file_read(file, buffer, left < COPY_BYTES ? (unsigned)left : COPY_BYTES, &got);
        if (code || !got)
            r = error_set(error, EIO, "%s in the disk cannot be read: %s", path, code ? error_message(code) : "it ends early");
        else if (write(out, buffer, got) != (ssize_t)got)
            r = error_set(error, errno, "no memory for %s of the disk", path);
        left -= got;
    }
    ext2fs_file_close(file);
    return r;
}

/* A small text file's beginning; "" when there is none. */
static void read_text(ext2_filsys fs, const char *path, char ret_text[TEXT_MAX])
{
    ext2_file_t file;
    uint64_t size;
    unsigned got = 0;
    ret_text[0] = 0;
    if (open_file(fs, path, &file, &size) < 0)
        return;
    if (ext2fs_file_read(file, ret_text, TEXT_MAX - 1, &got))
        got = 0;
    ret_text[got] = 0;
    ext2fs_file_close(file);
}

/* The value of `key` in os-release(5), without quotes. */
static void take_release(const char *text, const char *key, char *ret_value, size_t size)
{
    size_t length = strlen(key);
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, key, length) != 0 || line[length] != '=')
            continue;
        const char *value = line + length + 1;
        size_t quote = *value == '"' || *value == '\'';
        size_t count = strcspn(value + quote, "\"'\n");
        snprintf(ret_value, size, "%.*s", (int)count, value + quote);
        return;
    }
}

static int take_initrd(ext2_filsys fs, const char *version, int out, struct bootfiles *files, struct error *error)
{
    static const char *const forms[] = {"/boot/initrd.img-%s", "/boot/initramfs-%s.img", "/boot/initramfs-%s",
                                        "/boot/initrd-%s"};
    for (unsigned i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        char path[256];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* one of the forms above */
        snprintf(path, sizeof path, forms[i], version);
#pragma GCC diagnostic pop
        int r = copy_file(fs, path, out, error);
        if (r == 0)
            memcpy(files->initrd_path, path, sizeof path);
        if (r != -ENOENT)
            return r;
    }
    return 0; /* a kernel may do without */
}

/* What one file system holds. -ENOENT with a sentence when it has no kernel. */
static int look_into(ext2_filsys fs, int kernel, int initrd, struct bootfiles *files, struct error *error)
{
    struct look look = {.fs = fs};
    ext2_ino_t boot;
    char text[TEXT_MAX];
    if (!ext2fs_namei_follow(fs, EXT2_ROOT_INO, EXT2_ROOT_INO, "/boot", &boot))
        ext2fs_dir_iterate(fs, boot, 0, NULL, take_name, &look);
    if (!look.version[0])
        return error_set(error, ENOENT, "its file system has no kernel (/boot/vmlinuz-VERSION)");
    snprintf(files->kernel_path, sizeof files->kernel_path, "/boot/%s%s", prefix, look.version);
    int r = copy_file(fs, files->kernel_path, kernel, error);
    if (r == -ENOENT)
        return error_set(error, ENOENT, "%s in the disk is no file", files->kernel_path);
    if (r == 0)
        r = take_initrd(fs, look.version, initrd, files, error);
    if (r < 0)
        return r;
    read_text(fs, "/etc/kernel/cmdline", text);
    text[strcspn(text, "\n")] = 0;
    snprintf(files->cmdline, sizeof files->cmdline, "%.*s", (int)sizeof files->cmdline - 1, text);
    read_text(fs, "/etc/os-release", text);
    take_release(text, "ID", files->os, sizeof files->os);
    take_release(text, "VERSION_CODENAME", files->suite, sizeof files->suite);
    return 0;
}

static int look_at(struct ext_io *io, uint64_t offset, uint64_t size, int kernel, int initrd, struct bootfiles *files,
                   struct error *error)
{
    ext2_filsys fs;
    memset(io->at, 0, sizeof io->at);
    io->offset = offset;
    io->size = size;
    errcode_t code = ext_io_open(io, &fs);
    if (code)
        return error_set(error, ENOENT, "it holds no ext4 file system that can be read: %s", error_message(code));
    int r = look_into(fs, kernel, initrd, files, error);
    ext2fs_close_free(&fs);
    return r;
}

/* The partitions of type root before the others; the first with a kernel is it. */
static int look_at_partitions(struct ext_io *io, const struct gpt_partition *parts, int count, int kernel, int initrd,
                              struct bootfiles *files, struct error *error)
{
    int r = error_set(error, ENOENT, "its partition table is empty");
    for (int other = 0; other < 2; other++) {
        for (int i = 0; i < count; i++) {
            bool root = memcmp(parts[i].type, gpt_type_root_x86_64, 16) == 0;
            char id[GPT_GUID_TEXT];
            if (root == (other != 0))
                continue;
            r = look_at(io, parts[i].offset, parts[i].size, kernel, initrd, files, error);
            gpt_guid_text(parts[i].id, id);
            snprintf(files->root, sizeof files->root, "PARTUUID=%s", id);
            if (r != -ENOENT)
                return r;
        }
    }
    return r;
}

int bootfiles_look(boot_read_fn *read, void *owner, uint64_t size, int kernel, int initrd, struct bootfiles *ret_files,
                   struct error *error)
{
    struct gpt_partition *parts = calloc(GPT_PARTITIONS_MAX, sizeof *parts);
    struct ext_io *io = calloc(1, sizeof *io);
    int r = -ENOMEM;
    if (parts && io) {
        initialize_ext2_error_table();
        io->read = read;
        io->owner = owner;
        *ret_files = (struct bootfiles){.kernel = -1, .initrd = -1};
        r = gpt_read(read, owner, size, parts, error);
        if (r == -ENOENT) {
            snprintf(ret_files->root, sizeof ret_files->root, "/dev/vda");
            r = look_at(io, 0, size, kernel, initrd, ret_files, error);
        } else if (r >= 0) {
            r = look_at_partitions(io, parts, r, kernel, initrd, ret_files, error);
        }
    } else {
        error_set(error, ENOMEM, "no memory to read the disk");
    }
    free(parts);
    free(io);
    return r;
}
