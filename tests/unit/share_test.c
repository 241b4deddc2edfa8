/* share_test.c - the FUSE server, driven by requests made by hand; each result is compared with what the host has. */
#include <sys/xattr.h>
#include <time.h>

#include "share_fixture.h"

static void test_opening(void)
{
    struct share_config config = {.folder = "/tmp/veneer-no-such-folder"};
    struct share *share;
    struct error error;
    CHECK_EQ(share_open(&config, &share, &error), -ENOENT);
    CHECK(strstr(error.text, config.folder) != NULL);
    client_put_file(inside, "file", "x");
    config.folder = in_path("file");
    CHECK_EQ(share_open(&config, &share, &error), -ENOTDIR);
    config.folder = "/proc";
    CHECK_EQ(share_open(&config, &share, &error), -EINVAL);
    config.folder = "/sys";
    CHECK_EQ(share_open(&config, &share, &error), -EINVAL);
    unlink(in_path("file"));
}

static void test_session(void)
{
    struct share_config config = {.folder = inside};
    struct fuse_attr attr;
    CHECK_EQ(share_open(&config, &client.share, NULL), 0);
    client_init(&client, client.share);
    CHECK(!share_in_use(client.share));
    CHECK_EQ(client_getattr(&client, FUSE_ROOT_ID, &attr), -EIO);
    struct fuse_init_in old = {.major = 7, .minor = 12}, newer = {.major = 8};
    CHECK_EQ(client_call(&client, FUSE_INIT, 0, &old, sizeof old, NULL, 0, sizeof(struct fuse_init_out)), -EPROTO);
    CHECK_EQ(client_call(&client, FUSE_INIT, 0, &newer, sizeof newer, NULL, 0, sizeof(struct fuse_init_out)), 0);
    CHECK_EQ(((struct fuse_init_out *)client_body(&client))->major, 7);
    CHECK(!share_in_use(client.share));
    CHECK_EQ(client_start(&client), 0);
    struct fuse_init_out *out = client_body(&client);
    CHECK_EQ(out->max_write, SHARE_IO_MAX);
    CHECK(!(out->flags & (FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_POSIX_ACL | FUSE_EXPORT_SUPPORT)));
    CHECK_EQ(client_start(&client), -EINVAL);
    CHECK_EQ(client_getattr(&client, FUSE_ROOT_ID, &attr), 0);
    CHECK(S_ISDIR(attr.mode));

    /* What was looked up and opened before an unmount is gone after it. */
    uint64_t node, fh;
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "f", O_RDWR | O_EXCL, 0644, &node, &fh), 0);
    CHECK_EQ(client_call(&client, FUSE_DESTROY, 0, NULL, 0, NULL, 0, 0), 0);
    CHECK_EQ(client_getattr(&client, FUSE_ROOT_ID, &attr), -EIO);
    CHECK_EQ(client_start(&client), 0);
    CHECK_EQ(client_getattr(&client, node, &attr), -ESTALE);
    CHECK_EQ(client_read(&client, FUSE_ROOT_ID, fh, 0, 16), -EBADF);
    CHECK_EQ(client_call(&client, 4242, FUSE_ROOT_ID, NULL, 0, NULL, 0, 64), -ENOSYS);
    CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "f"), 0);
    close_share();
}

static void test_names(void)
{
    char longest[NAME_MAX + 2];
    memset(longest, 'n', sizeof longest);
    longest[NAME_MAX] = '\0';
    client_put_file(outside, "canary", "secret");
    open_share(false, 0, 0);
    client_put_file(inside, longest, "long");
    CHECK(client_lookup(&client, FUSE_ROOT_ID, longest) != 0);
    unlink(in_path(longest));
    static const char *const bad[] = {"", ".", "..", "/", "../out", "a/b", "/etc/passwd", "..\0x", "x/../../out/canary"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fuse_mkdir_in dir = {.mode = 0755};
        CHECK_EQ(client_lookup(&client, FUSE_ROOT_ID, bad[i]), 0);
        CHECK_EQ(errno, EINVAL);
        CHECK_EQ(client_call(&client, FUSE_MKDIR, FUSE_ROOT_ID, &dir, sizeof dir, bad[i], strlen(bad[i]) + 1, 256), -EINVAL);
        CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, bad[i]), -EINVAL);
        CHECK_EQ(client_rename(&client, FUSE_ROOT_ID, "file", FUSE_ROOT_ID, bad[i], 0), -EINVAL);
        uint64_t node, fh;
        CHECK_EQ(client_create(&client, FUSE_ROOT_ID, bad[i], O_RDWR, 0600, &node, &fh), -EINVAL);
    }
    CHECK_EQ(client_call(&client, FUSE_LOOKUP, FUSE_ROOT_ID, "unterminated", 12, NULL, 0, 256), -EINVAL);
    char huge[5000];
    memset(huge, 'x', sizeof huge);
    huge[sizeof huge - 1] = '\0';
    CHECK_EQ(client_call(&client, FUSE_LOOKUP, FUSE_ROOT_ID, huge, sizeof huge, NULL, 0, 256), -ENAMETOOLONG);
    CHECK_EQ(client_lookup(&client, FUSE_ROOT_ID, "absent"), 0);
    CHECK_EQ(errno, ENOENT);
    close_share();
}

/* A file's life, and what the host sees of it. */
static void test_files(void)
{
    uint64_t node, fh, other;
    struct stat stat_now;
    struct fuse_attr attr;
    char text[64] = "";
    open_share(false, 0, 0);
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "a", O_RDWR | O_EXCL, 0640, &node, &fh), 0);
    CHECK_EQ(client_write(&client, node, fh, 0, "hello, host", 11), 0);
    CHECK_EQ(((struct fuse_write_out *)client_body(&client))->size, 11);
    int fd = open(in_path("a"), O_RDWR);
    CHECK_EQ(read(fd, text, sizeof text), 11);
    CHECK_STR(text, "hello, host");
    CHECK_EQ(pwrite(fd, "GUEST", 5, 7), 5);
    CHECK_EQ(client_read(&client, node, fh, 0, 100), 0);
    CHECK_EQ(client.length, 12);
    CHECK(memcmp(client_body(&client), "hello, GUEST", 12) == 0);
    CHECK_EQ(client_read(&client, node, fh, 12, 100), 0);
    CHECK_EQ(client.length, 0);
    CHECK_EQ(fstat(fd, &stat_now), 0);
    CHECK_EQ(client_getattr(&client, node, &attr), 0);
    CHECK_EQ(attr.ino, stat_now.st_ino);
    CHECK_EQ(attr.mode, S_IFREG | 0640);
    CHECK_EQ(attr.size, 12);
    CHECK_EQ(attr.mtime, stat_now.st_mtim.tv_sec);
    CHECK_EQ(attr.mtimensec, stat_now.st_mtim.tv_nsec);
    close(fd);

    /* The same file under two names is one node; renamed under the guest's feet it stays what it is. */
    struct fuse_link_in link_in = {node};
    CHECK_EQ(client_call(&client, FUSE_LINK, FUSE_ROOT_ID, &link_in, sizeof link_in, "b", 2, 256), 0);
    CHECK_EQ(((struct fuse_entry_out *)client_body(&client))->nodeid, node);
    CHECK_EQ(client_rename(&client, FUSE_ROOT_ID, "b", FUSE_ROOT_ID, "a", RENAME_NOREPLACE), -EEXIST);
    CHECK_EQ(client_rename(&client, FUSE_ROOT_ID, "a", FUSE_ROOT_ID, "c", 4 /* RENAME_WHITEOUT */), -EINVAL);
    CHECK_EQ(client_rename(&client, FUSE_ROOT_ID, "a", FUSE_ROOT_ID, "c", 0), 0);
    CHECK(access(in_path("a"), F_OK) < 0 && access(in_path("c"), F_OK) == 0);
    other = client_lookup(&client, FUSE_ROOT_ID, "c");
    CHECK_EQ(other, node);
    CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "b"), 0);
    CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "c"), 0);
    CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "c"), -ENOENT);
    CHECK_EQ(client_getattr(&client, node, &attr), 0);
    CHECK_EQ(attr.nlink, 0);
    CHECK_EQ(client_read(&client, node, fh, 0, 5), 0);
    CHECK_EQ(client_release(&client, node, fh), 0);
    CHECK_EQ(client_release(&client, node, fh), -EBADF);
    CHECK_EQ(client_read(&client, node, fh, 0, 5), -EBADF);
    client_forget(&client, node, 2);
    CHECK_EQ(client_getattr(&client, node, &attr), 0);
    client_forget(&client, node, 1000);
    CHECK_EQ(client_getattr(&client, node, &attr), -ESTALE);
    close_share();
}

static void test_setattr(void)
{
    uint64_t node, fh;
    struct stat now;
    open_share(false, 0, 0);
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "s", O_RDWR, 0644, &node, &fh), 0);
    struct fuse_setattr_in in = {.valid = FATTR_MODE | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME, .mode = 0601, .size = 5000,
                                 .atime = 1000000000, .mtime = 1100000000, .atimensec = 5, .mtimensec = 7};
    CHECK_EQ(client_call(&client, FUSE_SETATTR, node, &in, sizeof in, NULL, 0, 256), 0);
    CHECK_EQ(stat(in_path("s"), &now), 0);
    CHECK_EQ(now.st_mode, S_IFREG | 0601);
    CHECK_EQ(now.st_size, 5000);
    CHECK_EQ(now.st_atim.tv_sec, 1000000000);
    CHECK_EQ(now.st_mtim.tv_nsec, 7);
    in = (struct fuse_setattr_in){.valid = FATTR_SIZE | FATTR_FH, .size = 3, .fh = fh};
    CHECK_EQ(client_call(&client, FUSE_SETATTR, node, &in, sizeof in, NULL, 0, 256), 0);
    CHECK_EQ(((struct fuse_attr_out *)client_body(&client))->attr.size, 3);
    in.size = UINT64_MAX;
    CHECK_EQ(client_call(&client, FUSE_SETATTR, node, &in, sizeof in, NULL, 0, 256), -EFBIG);
    in = (struct fuse_setattr_in){.valid = FATTR_MTIME, .mtime = 1, .mtimensec = 2000000000};
    CHECK_EQ(client_call(&client, FUSE_SETATTR, node, &in, sizeof in, NULL, 0, 256), -EINVAL);
    /* No bit that lets one user of the host run a file as another. */
    static const uint32_t bits[] = {S_ISUID, S_ISGID, S_ISUID | S_ISGID};
    for (unsigned i = 0; i < 3; i++) {
        in = (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = bits[i] | 0755};
        CHECK_EQ(client_call(&client, FUSE_SETATTR, node, &in, sizeof in, NULL, 0, 256), -EPERM);
        uint64_t n, f;
        CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "suid", O_RDWR, bits[i] | 0755, &n, &f), -EPERM);
    }
    /* One that the host set may stay, but goes when the guest writes to the file. */
    CHECK_EQ(chmod(in_path("s"), S_ISUID | 0755), 0);
    in = (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = S_ISUID | 0700};
    CHECK_EQ(client_call(&client, FUSE_SETATTR, node, &in, sizeof in, NULL, 0, 256), 0);
    CHECK_EQ(client_write(&client, node, fh, 0, "x", 1), 0);
    CHECK_EQ(stat(in_path("s"), &now), 0);
    CHECK_EQ(now.st_mode, S_IFREG | 0700);
    /* On a folder S_ISGID only tells whose group its files get. */
    in = (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = S_ISGID | 0755};
    CHECK_EQ(client_call(&client, FUSE_SETATTR, FUSE_ROOT_ID, &in, sizeof in, NULL, 0, 256), 0);
    CHECK_EQ(stat(inside, &now), 0);
    CHECK_EQ(now.st_mode, S_IFDIR | S_ISGID | 0755);
    chmod(inside, 0755);
    CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "s"), 0);
    close_share();
}

/* Links lead the guest to text, never the server anywhere. */
static void test_links(void)
{
    struct fuse_attr attr;
    uint64_t fh, node;
    char target[128];
    snprintf(target, sizeof target, "%s/canary", outside);
    CHECK_EQ(symlink(target, in_path("file-link")), 0);
    CHECK_EQ(symlink(outside, in_path("folder-link")), 0);
    open_share(false, 0, 0);
    uint64_t file = client_lookup(&client, FUSE_ROOT_ID, "file-link");
    uint64_t dir = client_lookup(&client, FUSE_ROOT_ID, "folder-link");
    CHECK_EQ(client_getattr(&client, file, &attr), 0);
    CHECK(S_ISLNK(attr.mode));
    CHECK_EQ(client_call(&client, FUSE_READLINK, file, NULL, 0, NULL, 0, 4096), 0);
    CHECK_EQ(client.length, strlen(target));
    CHECK(memcmp(client_body(&client), target, client.length) == 0);
    CHECK_EQ(client_open(&client, file, O_RDONLY, &fh), -ELOOP);
    CHECK_EQ(client_open(&client, dir, O_DIRECTORY, &fh), -ENOTDIR);
    CHECK_EQ(client_lookup(&client, dir, "canary"), 0);
    CHECK_EQ(errno, ENOTDIR);
    CHECK(client_create(&client, dir, "made", O_RDWR, 0600, &node, &fh) == -ENOTDIR);
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "file-link", O_RDWR | O_TRUNC, 0600, &node, &fh), -ELOOP);
    struct fuse_setattr_in in = {.valid = FATTR_SIZE};
    CHECK_EQ(client_call(&client, FUSE_SETATTR, file, &in, sizeof in, NULL, 0, 256), -EINVAL);
    in = (struct fuse_setattr_in){.valid = FATTR_MODE, .mode = 0777};
    CHECK_EQ(client_call(&client, FUSE_SETATTR, file, &in, sizeof in, NULL, 0, 256), -EOPNOTSUPP);
    in = (struct fuse_setattr_in){.valid = FATTR_MTIME, .mtime = 99};
    CHECK_EQ(client_call(&client, FUSE_SETATTR, file, &in, sizeof in, NULL, 0, 256), 0);
    struct stat now;
    CHECK_EQ(lstat(in_path("file-link"), &now), 0);
    CHECK_EQ(now.st_mtim.tv_sec, 99);
    CHECK_EQ(stat(target, &now), 0);
    CHECK(now.st_mtim.tv_sec != 99 && now.st_size == 6);
    /* A hard link to a link is one to the link. */
    struct fuse_link_in link_in = {file};
    CHECK_EQ(client_call(&client, FUSE_LINK, FUSE_ROOT_ID, &link_in, sizeof link_in, "twin", 5, 256), 0);
    CHECK_EQ(lstat(in_path("twin"), &now), 0);
    CHECK(S_ISLNK(now.st_mode));
    CHECK_EQ(client_call(&client, FUSE_SYMLINK, FUSE_ROOT_ID, "made", 5, "../../etc", 10, 256), 0);
    CHECK_EQ(readlink(in_path("made"), target, sizeof target), 9);
    client_unlink(&client, FUSE_ROOT_ID, "twin");
    client_unlink(&client, FUSE_ROOT_ID, "made");
    client_unlink(&client, FUSE_ROOT_ID, "file-link");
    client_unlink(&client, FUSE_ROOT_ID, "folder-link");
    close_share();
}

/* Nothing but regular files and folders is opened, and no devices are made. */
static void test_special(void)
{
    uint64_t fh, node;
    CHECK_EQ(mkfifo(in_path("fifo"), 0600), 0);
    open_share(false, 0, 0);
    uint64_t fifo = client_lookup(&client, FUSE_ROOT_ID, "fifo");
    CHECK_EQ(client_open(&client, fifo, O_RDONLY, &fh), -ENXIO);
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "fifo", O_WRONLY, 0600, &node, &fh), -ENXIO);
    static const struct {
        uint32_t mode;
        int result;
    } kinds[] = {{S_IFCHR | 0600, -EPERM}, {S_IFBLK | 0600, -EPERM}, {S_IFDIR | 0700, -EPERM}, {S_IFLNK | 0700, -EPERM},
                 {S_IFREG | S_ISUID | 0700, -EPERM}, {0600, -EPERM}, {S_IFIFO | 0600, 0}, {S_IFSOCK | 0600, 0},
                 {S_IFREG | 0600, 0}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct fuse_mknod_in in = {.mode = kinds[i].mode, .rdev = 0x103};
        CHECK_EQ(client_call(&client, FUSE_MKNOD, FUSE_ROOT_ID, &in, sizeof in, "node", 5, 256), kinds[i].result);
        CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "node"), kinds[i].result ? -ENOENT : 0);
    }
    CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "fifo"), 0);
    close_share();
}

static void test_read_only(void)
{
    uint64_t node, fh, root = FUSE_ROOT_ID;
    uint8_t zero[128] = {0};
    client_put_file(inside, "r", "read me");
    open_share(true, 0, 0);
    node = client_lookup(&client, root, "r");
    CHECK_EQ(client_open(&client, node, O_RDONLY, &fh), 0);
    CHECK_EQ(client_read(&client, node, fh, 0, 100), 0);
    CHECK_EQ(client.length, 7);
    CHECK_EQ(client_write(&client, node, fh, 0, "x", 1), -EROFS);
    static const uint32_t ways[] = {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_RDWR | O_APPEND};
    for (size_t i = 0; i < 4; i++) {
        uint64_t other, made;
        CHECK_EQ(client_open(&client, node, ways[i], &other), -EROFS);
        CHECK_EQ(client_create(&client, root, "new", ways[i], 0600, &made, &other), -EROFS);
    }
    static const uint32_t opcodes[] = {FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR, FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME,
                                       FUSE_RENAME2, FUSE_LINK, FUSE_SETXATTR, FUSE_REMOVEXATTR, FUSE_FALLOCATE,
                                       FUSE_COPY_FILE_RANGE, FUSE_TMPFILE};
    for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0]; i++)
        CHECK_EQ(client_call(&client, opcodes[i], root, zero, sizeof zero, "r", 2, 256), -EROFS);
    struct fuse_access_in in = {.mask = W_OK};
    CHECK_EQ(client_call(&client, FUSE_ACCESS, node, &in, sizeof in, NULL, 0, 0), -EROFS);
    close_share();
    unlink(in_path("r"));
}

static int mark_seen(const struct fuse_dirent *entry, uint8_t *seen, unsigned count)
{
    char name[256];
    snprintf(name, sizeof name, "%.*s", (int)entry->namelen, entry->name);
    unsigned number;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return 0;
    if (sscanf(name, "entry-%u", &number) != 1 || number >= count || seen[number])
        return -1;
    seen[number] = 1;
    return 1;
}

/* Reads a folder in steps of `size`; returns how many of its entries came, each once. *ret_middle: an offset on the way. */
static unsigned read_all(uint64_t node, uint64_t fh, bool plus, uint32_t size, unsigned count, uint64_t start, uint64_t *ret_middle)
{
    uint8_t seen[1000] = {0};
    unsigned entries = 0;
    uint64_t offset = start;
    size_t extra = plus ? sizeof(struct fuse_entry_out) : 0;
    for (unsigned rounds = 0; rounds < 5000; rounds++) {
        struct fuse_read_in in = {.fh = fh, .offset = offset, .size = size};
        CHECK_EQ(client_call(&client, plus ? FUSE_READDIRPLUS : FUSE_READDIR, node, &in, sizeof in, NULL, 0, size), 0);
        if (client.length == 0)
            return entries;
        size_t length = client.length;
        for (size_t at = 0; at < length;) {
            const struct fuse_dirent *entry = (const void *)((uint8_t *)client_body(&client) + at + extra);
            const struct fuse_entry_out *looked = (const void *)((uint8_t *)client_body(&client) + at);
            int r = mark_seen(entry, seen, count);
            CHECK(r >= 0);
            entries += r == 1;
            CHECK(!plus || (looked->nodeid != 0) == (r == 1));
            at += extra + FUSE_DIRENT_SIZE(entry);
            offset = entry->off;
        }
        if (entries < count / 2)
            *ret_middle = offset;
    }
    return 0;
}

static void test_folders(void)
{
    const unsigned count = 700;
    uint64_t fh, middle = 0;
    CHECK_EQ(mkdir(in_path("many"), 0755), 0);
    for (unsigned i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "many/entry-%u", i);
        client_put_file(inside, name, "");
    }
    open_share(false, 0, 0);
    uint64_t node = client_lookup(&client, FUSE_ROOT_ID, "many");
    CHECK_EQ(client_open(&client, node, O_DIRECTORY, &fh), 0);
    CHECK_EQ(read_all(node, fh, false, 4096, count, 0, &middle), count);
    CHECK_EQ(read_all(node, fh, false, 100, count, 0, &middle), count);
    unsigned rest = read_all(node, fh, false, 1000, count, middle, &middle);
    CHECK(rest > 0 && rest < count);
    CHECK_EQ(read_all(node, fh, true, 4096, count, 0, &middle), count);
    CHECK_EQ(read_all(node, fh, true, 65536, count, 0, &middle), count);
    struct fuse_read_in in = {.fh = fh, .offset = 0, .size = 8};
    CHECK_EQ(client_call(&client, FUSE_READDIR, node, &in, sizeof in, NULL, 0, 4096), -EINVAL);
    in = (struct fuse_read_in){.fh = fh, .offset = UINT64_MAX, .size = 4096};
    int r = client_call(&client, FUSE_READDIR, node, &in, sizeof in, NULL, 0, 4096);
    CHECK(r == -EINVAL || (r == 0 && client.length == 0));
    CHECK_EQ(client_read(&client, node, fh, 0, 100), -EBADF); /* a folder's handle is none of a file */
    CHECK_EQ(client_call(&client, FUSE_RELEASEDIR, node, &(struct fuse_release_in){.fh = fh}, sizeof(struct fuse_release_in), NULL, 0, 0), 0);
    CHECK_EQ(client_call(&client, FUSE_RMDIR, FUSE_ROOT_ID, "many", 5, NULL, 0, 0), -ENOTEMPTY);
    close_share();
    client_remove_tree(in_path("many"));
}

static void test_xattr(void)
{
    uint64_t node, fh;
    char value[16];
    struct {
        struct fuse_getxattr_in in;
        char name[24];
    } get = {{.size = 0}, "user.veneer"};
    open_share(false, 0, 0);
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "x", O_RDWR, 0600, &node, &fh), 0);
    static const char set[] = "user.veneer\0value";
    uint32_t in[2] = {5, 0};
    int r = client_call(&client, FUSE_SETXATTR, node, in, sizeof in, set, sizeof set - 1, 0);
    if (r != -EOPNOTSUPP) { /* a file system without them says so */
        CHECK_EQ(r, 0);
        CHECK_EQ(getxattr(in_path("x"), "user.veneer", value, sizeof value), 5);
        CHECK_EQ(client_call(&client, FUSE_GETXATTR, node, &get, sizeof get.in + 12, NULL, 0, 8), 0);
        CHECK_EQ(*(uint32_t *)client_body(&client), 5);
        get.in.size = 100;
        CHECK_EQ(client_call(&client, FUSE_GETXATTR, node, &get, sizeof get.in + 12, NULL, 0, 100), 0);
        CHECK(client.length == 5 && memcmp(client_body(&client), "value", 5) == 0);
        get.in.size = 4;
        CHECK_EQ(client_call(&client, FUSE_GETXATTR, node, &get, sizeof get.in + 12, NULL, 0, 100), -ERANGE);
        get.in.size = 100;
        CHECK_EQ(client_call(&client, FUSE_LISTXATTR, node, &get, sizeof get.in, NULL, 0, 100), 0);
        CHECK(client.length == 12 && memcmp(client_body(&client), "user.veneer", 12) == 0);
        CHECK_EQ(client_call(&client, FUSE_REMOVEXATTR, node, "user.veneer", 12, NULL, 0, 0), 0);
        CHECK_EQ(client_call(&client, FUSE_REMOVEXATTR, node, "user.veneer", 12, NULL, 0, 0), -ENODATA);
        in[0] = 50; /* more than is there */
        CHECK_EQ(client_call(&client, FUSE_SETXATTR, node, in, sizeof in, set, sizeof set - 1, 0), -EINVAL);
    }
    static const char *const others[] = {"security.capability", "trusted.x", "system.posix_acl_access", "user", ""};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char text[64] = "";
        memcpy(text, others[i], strlen(others[i]) + 1);
        in[0] = 4;
        CHECK_EQ(client_call(&client, FUSE_SETXATTR, node, in, sizeof in, text, strlen(text) + 5, 0), -EOPNOTSUPP);
        CHECK_EQ(client_call(&client, FUSE_REMOVEXATTR, node, text, strlen(text) + 1, NULL, 0, 0), -EOPNOTSUPP);
    }
    CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "x"), 0);
    close_share();
}

static void test_nameless(void)
{
    struct fuse_create_in in = {.flags = O_RDWR, .mode = S_IFREG | 0600};
    open_share(false, 0, 0);
    int r = client_call(&client, FUSE_TMPFILE, FUSE_ROOT_ID, &in, sizeof in, "", 1, 256);
    if (r != -EOPNOTSUPP) {
        CHECK_EQ(r, 0);
        struct fuse_link_in link_in = {((struct fuse_entry_out *)client_body(&client))->nodeid};
        CHECK_EQ(client_call(&client, FUSE_LINK, FUSE_ROOT_ID, &link_in, sizeof link_in, "named", 6, 256), 0);
        CHECK_EQ(access(in_path("named"), F_OK), 0);
        CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "named"), 0);
    }
    close_share();
}

/* As root, files belong to the guest's users; as a user, to that user. */
static void test_owners(void)
{
    uint64_t node, fh;
    struct stat now;
    bool root = geteuid() == 0;
    open_share(false, 0, 0);
    client.uid = 4321;
    client.gid = 1234;
    int r = client_create(&client, FUSE_ROOT_ID, "owned", O_RDWR, 0600, &node, &fh);
    if (r != -EPERM) { /* a user namespace may have no such user */
        CHECK_EQ(r, 0);
        CHECK_EQ(stat(in_path("owned"), &now), 0);
        CHECK_EQ(now.st_uid, root ? 4321 : geteuid());
        CHECK_EQ(now.st_gid, root ? 1234 : getegid());
        CHECK_EQ(now.st_mode & 07777, 0600); /* no umask but the guest's own */
    }
    client.uid = UINT32_MAX;
    r = client_create(&client, FUSE_ROOT_ID, "nobody", O_RDWR, 0600, &node, &fh);
    CHECK_EQ(r, root ? -EPERM : 0);
    unlink(in_path("owned"));
    unlink(in_path("nobody"));
    close_share();
}

int main(void)
{
    static void (*const tests[])(void) = {
        test_opening, test_session, test_names, test_files, test_setattr, test_links, test_special, test_read_only,
        test_folders, test_xattr, test_nameless, test_owners};
    return share_run(tests, sizeof tests / sizeof tests[0]);
}
