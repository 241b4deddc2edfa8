/* Disks: from an archive to a partition with ext4, judged by e2fsck and debugfs, and back to a kernel; and archives and
 * tables that are damaged. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/open.h"
#include "check.h"
#include "host/bootfiles.h"
#include "host/gpt.h"
#include "host/rootfs.h"

#define MIB (UINT64_C(1) << 20)

static char folder[] = "/tmp/veneer-disk-XXXXXX";
static char disk_path[64], part_path[64];

/* An archive in memory. */
static uint8_t archive[4 << 20];
static size_t archive_size;

static void put_block(const void *bytes, size_t length)
{
    memcpy(archive + archive_size, bytes, length);
    archive_size += (length + 511) / 512 * 512;
}

struct member {
    char type;
    const char *path, *target, *content;
    unsigned mode, uid, gid, major, minor;
    size_t size; /* of content; 0: its length */
};

static void put_member(const struct member *member)
{
    char header[512] = "";
    size_t size = member->size ? member->size : member->content ? strlen(member->content) : 0;
    snprintf(header, 100, "%s", member->path);
    snprintf(header + 100, 8, "%07o", member->mode);
    snprintf(header + 108, 8, "%07o", member->uid);
    snprintf(header + 116, 8, "%07o", member->gid);
    snprintf(header + 124, 12, "%011zo", size);
    snprintf(header + 136, 12, "%011o", 1234567890);
    header[156] = member->type;
    if (member->target)
        snprintf(header + 157, 100, "%s", member->target);
    memcpy(header + 257, "ustar\00000", 8);
    snprintf(header + 329, 8, "%07o", member->major);
    snprintf(header + 337, 8, "%07o", member->minor);
    unsigned sum = 8 * ' ';
    for (unsigned i = 0; i < 512; i++)
        sum += i >= 148 && i < 156 ? 0 : (uint8_t)header[i];
    snprintf(header + 148, 8, "%06o", sum);
    put_block(header, 512);
    if (size)
        put_block(member->content, size);
}

/* A pipe's reading end would need a thread; a file in memory reads the same. */
static int archive_fd(void)
{
    int fd = memfd_create("archive", MFD_CLOEXEC);
    CHECK_EQ(write(fd, archive, archive_size), archive_size);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void begin_archive(void)
{
    memset(archive, 0, sizeof archive);
    archive_size = 0;
}

static char kernel_bytes[3 << 20];

/* A sparse file as GNU tar's format 1.0 has it: a map of two pieces, which are 4 bytes at 8192 and none at the end. */
static void put_sparse(void)
{
    char content[516] = "2\n8192\n4\n20000\n0\n";
    memcpy(content + 512, "data", 4);
    put_member(&(struct member){.type = 'x', .path = "./pax", .content =
        "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n30 GNU.sparse.name=usr/sparse\n29 GNU.sparse.realsize=20000\n"});
    put_member(&(struct member){.type = '0', .path = "./GNUSparseFile.0/sparse", .mode = 0600, .content = content, .size = sizeof content});
}

static void make_archive(void)
{
    static const struct member members[] = {
        {.type = '5', .path = "./", .mode = 0755},
        {.type = '5', .path = "./boot", .mode = 0755},
        {.type = '0', .path = "./boot/vmlinuz-6.1.0-9-amd64", .mode = 0644, .content = "old kernel"},
        {.type = '0', .path = "./boot/vmlinuz-6.1.0-10-amd64", .mode = 0644, .content = kernel_bytes, .size = sizeof kernel_bytes},
        {.type = '0', .path = "./boot/initrd.img-6.1.0-10-amd64", .mode = 0644, .content = "the initramfs"},
        {.type = '5', .path = "./etc", .mode = 0755},
        {.type = '5', .path = "./etc/kernel", .mode = 0755},
        {.type = '0', .path = "./etc/kernel/cmdline", .mode = 0644, .content = "ro quiet\033x\nsecond line\n"},
        {.type = '5', .path = "./usr", .mode = 0755},
        {.type = '5', .path = "./usr/lib", .mode = 0755},
        {.type = '0', .path = "./usr/lib/os-release", .mode = 0644, .content = "NAME=\"X\"\nID=debian\nVERSION_CODENAME=\"bookworm\"\n"},
        {.type = '2', .path = "./etc/os-release", .target = "../usr/lib/os-release", .mode = 0777},
        {.type = '5', .path = "./dev", .mode = 0755},
        {.type = '3', .path = "./dev/null", .mode = 0666, .major = 1, .minor = 3},
        {.type = '4', .path = "./dev/big", .mode = 0660, .gid = 6, .major = 259, .minor = 70000},
        {.type = '6', .path = "./dev/pipe", .mode = 0600},
        {.type = '0', .path = "./usr/su", .mode = 04755, .uid = 70000, .gid = 80000, .content = "program"},
        {.type = '1', .path = "./usr/su2", .target = "./usr/su"},
        {.type = '0', .path = "./usr/empty", .mode = 0},
    };
    begin_archive();
    for (size_t i = 0; i < sizeof kernel_bytes; i++)
        kernel_bytes[i] = (char)(i * 31 + i / 4096);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        put_member(&members[i]);
    /* A name of 150 characters with an extended attribute, by a pax header; then many files in one folder. */
    char pax[512], name[151], path[100];
    memset(name, 'n', 150);
    name[150] = 0;
    int length = snprintf(pax, sizeof pax, "164 path=usr/%s\n", name);
    pax[length] = 0;
    snprintf(pax + length, sizeof pax - (size_t)length, "37 SCHILY.xattr.user.flavour=vanilla\n");
    put_member(&(struct member){.type = 'x', .path = "./pax", .content = pax});
    put_member(&(struct member){.type = '0', .path = "./short", .mode = 0640, .content = "long name"});
    /* Names are bytes, whatever a pax header's are taken for: not composed, and no UTF-8. */
    put_member(&(struct member){.type = 'x', .path = "./pax", .content = "20 path=usr/e\xcc\x81-nfd\n"});
    put_member(&(struct member){.type = '0', .path = "./short", .mode = 0640});
    put_member(&(struct member){.type = 'x', .path = "./pax", .content = "20 path=usr/latin-\xe9\n"});
    put_member(&(struct member){.type = '0', .path = "./short", .mode = 0640});
    put_sparse();
    put_member(&(struct member){.type = '5', .path = "./many", .mode = 01777});
    for (int i = 0; i < 500; i++) {
        snprintf(path, sizeof path, "./many/a-file-with-a-rather-long-name-%04d", i);
        put_member(&(struct member){.type = i % 2 ? '0' : '2', .path = path, .target = i % 2 ? NULL : "/elsewhere", .mode = 0600});
    }
    archive_size += 1024;
}

/* Runs a command and checks that its output holds `want`. */
static void check_command(const char *format, const char *argument, const char *want)
{
    char command[512], output[4096] = "";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(command, sizeof command, format, part_path, argument);
#pragma GCC diagnostic pop
    FILE *pipe = popen(command, "r");
    size_t got = pipe ? fread(output, 1, sizeof output - 1, pipe) : 0;
    output[got] = 0;
    CHECK_EQ(pipe ? pclose(pipe) : -1, 0);
    CHECK(strstr(output, want) != NULL);
    if (!strstr(output, want))
        fprintf(stderr, "%s: %s lacks %s\n", command, output, want);
}

static void stat_file(const char *path, const char *want)
{
    char request[300];
    snprintf(request, sizeof request, "stat %s", path);
    check_command("debugfs -R '%2$s' %1$s 2>&1", request, want);
}

/* The partition alone, for e2fsck. */
static void split_partition(void)
{
    char command[256];
    snprintf(command, sizeof command, "dd if=%s of=%s bs=1M skip=1 count=62 conv=sparse status=none", disk_path, part_path);
    CHECK_EQ(system(command), 0);
}

static void disk(void)
{
    struct error error = {""};
    make_archive();
    int fd = archive_fd();
    close(open(disk_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    CHECK_EQ(rootfs_make(disk_path, 64 * MIB, fd, NULL, NULL, &error), 0);
    CHECK_STR(error.text, "");
    close(fd);
    split_partition();
    check_command("e2fsck -fn %1$s 2>&1", "", "root:");
    stat_file("/usr/su", "Mode:  04755");
    stat_file("/usr/su", "User: 70000   Group: 80000");
    stat_file("/usr/su2", "Links: 2");
    stat_file("/usr/su", "mtime: 0x499602d2");
    stat_file("/dev/null", "(New-style) Device major/minor number: 01:03");
    stat_file("/dev/big", "(New-style) Device major/minor number: 259:70000");
    stat_file("/dev/big", "Type: block special");
    stat_file("/dev/pipe", "Type: FIFO");
    stat_file("/etc/os-release", "Fast link dest: \"../usr/lib/os-release\"");
    stat_file("/many", "Mode:  01777");
    stat_file("/many/a-file-with-a-rather-long-name-0499", "Type: regular");
    char name[160] = "usr/";
    memset(name + 4, 'n', 150);
    stat_file(name, "flavour (7)");
    stat_file("/usr/e\xcc\x81-nfd", "Type: regular");
    stat_file("/usr/latin-\xe9", "Type: regular");
    stat_file("/usr/sparse", "Size: 20000");
    check_command("debugfs -R 'cat /usr/sparse' %1$s 2>/dev/null | tr -d '\\0'", "", "data");
    check_command("debugfs -R 'cat /usr/sparse' %1$s 2>/dev/null | head -c 8196 | tail -c 4", "", "data");
    char command[256];
    snprintf(command, sizeof command, "sfdisk --verify %s >/dev/null", disk_path);
    CHECK_EQ(system(command), 0);
}

static int same_bytes(int fd, const char *bytes, size_t length)
{
    char *got = malloc(length + 1);
    ssize_t n = pread(fd, got, length + 1, 0);
    int same = n == (ssize_t)length && memcmp(got, bytes, length) == 0;
    free(got);
    return same;
}

static int read_boot(const char *path, struct bootfiles *ret_files, struct error *error)
{
    struct block *block;
    struct block_options options = {.path = path, .format = "raw", .readonly = true};
    int r = block_open(&options, NULL, &block, error);
    CHECK_EQ(r, 0);
    if (r == 0)
        r = bootfiles_read(block, ret_files, error);
    block_close(block);
    return r;
}

static void boot(void)
{
    struct bootfiles files;
    struct error error = {""};
    char cmdline[256];
    CHECK_EQ(read_boot(disk_path, &files, &error), 0);
    CHECK_STR(error.text, "");
    CHECK_STR(files.kernel_path, "/boot/vmlinuz-6.1.0-10-amd64");
    CHECK_STR(files.cmdline, "ro quiet?x");
    CHECK_STR(files.os, "debian");
    CHECK_STR(files.suite, "bookworm");
    CHECK(same_bytes(files.kernel, kernel_bytes, sizeof kernel_bytes));
    CHECK(same_bytes(files.initrd, "the initramfs", 13));
    CHECK_EQ(write(files.kernel, "x", 1), -1); /* sealed */
    CHECK_EQ(strlen(files.root), strlen("PARTUUID=") + 36);
    CHECK_EQ(bootfiles_cmdline(&files, "console=ttyS0", "debug", cmdline, sizeof cmdline, &error), 0);
    CHECK_STR(cmdline + strlen("root=") + strlen(files.root), " console=ttyS0 ro quiet?x debug");
    CHECK_EQ(bootfiles_cmdline(&files, "console=hvc0", NULL, cmdline, sizeof cmdline, &error), 0);
    CHECK_STR(cmdline + strlen("root=") + strlen(files.root), " console=hvc0 ro quiet?x");
    CHECK_EQ(bootfiles_cmdline(&files, "console=ttyS0", "root=/dev/x console=hvc0", cmdline, sizeof cmdline, &error), 0);
    CHECK_STR(cmdline, " ro quiet?x root=/dev/x console=hvc0");
    CHECK_EQ(bootfiles_cmdline(&files, "console=hvc0", NULL, cmdline, 20, &error), -E2BIG);
    bootfiles_close(&files);
    /* A file system without a partition table. */
    CHECK_EQ(read_boot(part_path, &files, &error), 0);
    CHECK_STR(files.root, "/dev/vda");
    bootfiles_close(&files);
}

static void overwrite(const char *path, uint64_t offset, const void *bytes, size_t length)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_EQ(pwrite(fd, bytes, length, (off_t)offset), length);
    close(fd);
}

static int read_file(void *owner, uint64_t offset, void *bytes, size_t length)
{
    return pread(*(int *)owner, bytes, length, (off_t)offset) == (ssize_t)length ? 0 : -EIO;
}

static void tables(void)
{
    static struct gpt_partition parts[GPT_PARTITIONS_MAX];
    static const uint8_t zeroes[16384];
    struct bootfiles files;
    struct error error;
    int fd = open(disk_path, O_RDONLY | O_CLOEXEC);
    CHECK_EQ(gpt_read(read_file, &fd, 64 * MIB, parts, &error), 1);
    CHECK_EQ(parts[0].offset, MIB);
    CHECK_EQ(parts[0].size, 62 * MIB);
    CHECK_EQ(memcmp(parts[0].type, gpt_type_root_x86_64, 16), 0);
    overwrite(disk_path, 1024, "damage", 6); /* the first table: the second serves */
    CHECK_EQ(gpt_read(read_file, &fd, 64 * MIB, parts, &error), 1);
    overwrite(disk_path, 64 * MIB - 512 + 16, "damage", 6); /* the second header */
    CHECK_EQ(gpt_read(read_file, &fd, 64 * MIB, parts, &error), -EINVAL);
    CHECK_STR(error.text, "the partition table is damaged");
    overwrite(disk_path, 512, zeroes, 512);
    overwrite(disk_path, 64 * MIB - 512, zeroes, 512);
    CHECK_EQ(gpt_read(read_file, &fd, 64 * MIB, parts, &error), -ENOENT);
    CHECK_EQ(read_boot(disk_path, &files, &error), -ENOENT);
    close(fd);
    /* A file system whose block groups are lost. */
    overwrite(part_path, 4096, zeroes, sizeof zeroes);
    CHECK(read_boot(part_path, &files, &error) < 0);
}

static int make_small(struct error *error)
{
    int fd = archive_fd();
    close(open(disk_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    int r = rootfs_make(disk_path, 64 * MIB, fd, NULL, NULL, error);
    close(fd);
    return r;
}

/* The program that reads archives ends with a sentence of its own, or of how it ended; or is not there. */
static void bad_programs(void)
{
    struct error error;
    char program[128], *given = strdup(getenv("VENEER_LIB"));
    begin_archive();
    snprintf(program, sizeof program, "%s/veneer-rootfs", folder);
    setenv("VENEER_LIB", folder, 1);
    CHECK_EQ(symlink("/bin/false", program), 0);
    CHECK_EQ(make_small(&error), -EIO);
    CHECK_STR(error.text, "writing the disk: veneer-rootfs failed with status 1");
    unlink(program);
    CHECK_EQ(symlink("/bin/true", program), 0);
    CHECK_EQ(make_small(&error), -EIO);
    CHECK_STR(error.text, "writing the disk: its writer ended early");
    unlink(program);
    CHECK_EQ(symlink("/bin/ls", program), 0); /* tells of the file that it does not find */
    CHECK_EQ(make_small(&error), -EIO);
    CHECK(strstr(error.text, "1048576") != NULL);
    unlink(program);
    setenv("VENEER_LIB", given, 1);
    free(given);
}

static void bad_archives(void)
{
    struct error error;
    begin_archive();
    put_member(&(struct member){.type = '0', .path = "../escape", .content = "x"});
    CHECK_EQ(make_small(&error), -EINVAL);
    CHECK(strstr(error.text, "'..'") != NULL);
    begin_archive();
    put_member(&(struct member){.type = '0', .path = "no/folder", .content = "x"});
    CHECK_EQ(make_small(&error), -EIO);
    begin_archive();
    put_member(&(struct member){.type = '1', .path = "link", .target = "nothing"});
    CHECK_EQ(make_small(&error), -EIO);
    begin_archive();
    put_member(&(struct member){.type = 'M', .path = "part-of-a-volume"});
    CHECK_EQ(make_small(&error), -EINVAL);
    CHECK_STR(error.text, "the archive has an entry of an unknown kind: part-of-a-volume");
    begin_archive();
    put_member(&(struct member){.type = 'x', .path = "pax", .content = "18 uid=4294967296\n"});
    put_member(&(struct member){.type = '0', .path = "owner"});
    CHECK_EQ(make_small(&error), -EINVAL);
    CHECK_STR(error.text, "the archive has an entry with a number that is out of range: owner");
    begin_archive();
    put_member(&(struct member){.type = '0', .path = "cut", .content = "content"});
    CHECK_EQ(make_small(&error), -ENODATA); /* no end mark */
    CHECK_STR(error.text, "the archive ends in the middle");
    archive_size = 700;
    CHECK_EQ(make_small(&error), -ENODATA);
    archive_size = 0;
    CHECK_EQ(make_small(&error), -ENODATA);
    archive_size = 1024;
    archive[0] ^= 1;
    CHECK_EQ(make_small(&error), -EINVAL); /* the sum is wrong */
    CHECK_STR(error.text, "this is no tar archive, or it is damaged");
    begin_archive();
    put_member(&(struct member){.type = '5', .path = "folder"});
    memset(archive + archive_size, 'x', 512);
    archive_size += 512;
    CHECK_EQ(make_small(&error), -EINVAL); /* later */
    CHECK_STR(error.text, "this is no tar archive, or it is damaged");
    begin_archive();
    put_member(&(struct member){.type = 'x', .path = "pax", .content = "9999 path=x\n"});
    put_member(&(struct member){.type = '0', .path = "x", .content = "x"});
    CHECK_EQ(make_small(&error), -EINVAL);
    CHECK(strstr(error.text, "the archive is damaged: ") == error.text);
    begin_archive();
    put_member(&(struct member){.type = '0', .path = "twice", .content = "x"});
    put_member(&(struct member){.type = '0', .path = "twice", .content = "x"});
    archive_size += 1024;
    make_small(&error);
    /* More than the disk holds. */
    begin_archive();
    put_member(&(struct member){.type = '0', .path = "large", .content = "x"});
    snprintf((char *)archive + 124, 12, "%011llo", 100ull << 20);
    unsigned sum = 8 * ' ';
    for (unsigned i = 0; i < 512; i++)
        sum += i >= 148 && i < 156 ? 0 : archive[i];
    snprintf((char *)archive + 148, 8, "%06o", sum);
    CHECK_EQ(make_small(&error), -ENOSPC);
}

int main(void)
{
    char command[64];
    CHECK(mkdtemp(folder) != NULL);
    setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1);
    snprintf(disk_path, sizeof disk_path, "%s/disk", folder);
    snprintf(part_path, sizeof part_path, "%s/part", folder);
    disk();
    boot();
    tables();
    bad_archives();
    bad_programs();
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK_EQ(system(command), 0);
    CHECK_DONE();
}
