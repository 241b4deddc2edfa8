/* share-init.c - the /init of share.py: mounts the share "data" and does its part of what the script's host does too; then tries what
 * programs expect of a file system. Prints "SHARE-INIT ok" when all was as due, and powers off. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define FOLDERS 16
#define COPIES 7

static int failures;

#define EXPECT(condition)                                                              \
    do {                                                                               \
        if (!(condition)) {                                                            \
            printf("share-init.c:%d: %s (errno %d)\n", __LINE__, #condition, errno);   \
            failures++;                                                                \
        }                                                                              \
    } while (0)

/* ---- The plan that both sides know; share.py has it too ---- */

static void name_of(char *path, size_t size, const char *tree, int i, int renamed)
{
    if (renamed && i % 2 == 0)
        snprintf(path, size, "%s/%d/renamed-%d", tree, (i + 1) % FOLDERS, i);
    else
        snprintf(path, size, "%s/%d/file-%d", tree, i % FOLDERS, i);
}

static size_t content_of(char *text, const char *tree, int i)
{
    size_t used = 0;
    for (int n = 0; n <= i % COPIES; n++)
        used += (size_t)sprintf(text + used, "%s %d\n", tree, i);
    return used;
}

static void make_tree(const char *tree, int count)
{
    char path[128], text[512];
    EXPECT(mkdir(tree, 0755) == 0);
    for (int i = 0; i < FOLDERS; i++) {
        snprintf(path, sizeof path, "%s/%d", tree, i);
        EXPECT(mkdir(path, 0755) == 0);
    }
    for (int i = 0; i < count; i++) {
        name_of(path, sizeof path, tree, i, 0);
        size_t length = content_of(text, tree, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        EXPECT(fd >= 0 && write(fd, text, length) == (ssize_t)length);
        close(fd);
    }
}

static void change_tree(const char *tree, int count)
{
    char path[128], to[128];
    for (int i = 0; i < count; i++) {
        name_of(path, sizeof path, tree, i, 0);
        name_of(to, sizeof to, tree, i, 1);
        if (i % 2 == 0)
            EXPECT(rename(path, to) == 0);
        if (i % 3 == 0)
            EXPECT(unlink(to) == 0);
    }
}

static int entries_in(const char *tree)
{
    char path[128];
    int entries = 0;
    for (int i = 0; i < FOLDERS; i++) {
        snprintf(path, sizeof path, "%s/%d", tree, i);
        DIR *folder = opendir(path);
        EXPECT(folder != NULL);
        while (folder && readdir(folder))
            entries++;
        if (folder)
            closedir(folder);
        entries -= 2;
    }
    return entries;
}

/* Every file that is due is there with its content, and nothing else. */
static void compare_tree(const char *tree, int count, int changed)
{
    char path[128], text[512], got[600];
    struct stat now;
    int due = 0;
    for (int i = 0; i < count; i++) {
        name_of(path, sizeof path, tree, i, changed);
        if (changed && i % 3 == 0) {
            EXPECT(stat(path, &now) < 0 && errno == ENOENT);
            continue;
        }
        due++;
        size_t length = content_of(text, tree, i);
        int fd = open(path, O_RDONLY);
        EXPECT(fd >= 0 && read(fd, got, sizeof got) == (ssize_t)length && memcmp(got, text, length) == 0);
        EXPECT(fstat(fd, &now) == 0 && now.st_size == (off_t)length);
        close(fd);
    }
    EXPECT(entries_in(tree) == due);
}

/* ---- Taking turns with the host ---- */

static void tell(const char *token)
{
    int fd = open(token, O_WRONLY | O_CREAT, 0644);
    EXPECT(fd >= 0);
    close(fd);
}

static void wait_for(const char *token)
{
    struct timespec pause = {0, 5000000};
    while (access(token, F_OK) < 0)
        nanosleep(&pause, NULL);
}

/* ---- What programs expect ---- */

static void test_mmap(void)
{
    int fd = open("p/mapped", O_RDWR | O_CREAT, 0600);
    EXPECT(ftruncate(fd, 3 * 4096) == 0);
    char *map = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT(map != MAP_FAILED);
    if (map == MAP_FAILED)
        return;
    strcpy(map + 4090, "across a page");
    EXPECT(msync(map, 3 * 4096, MS_SYNC) == 0);
    char text[16] = "";
    EXPECT(pread(fd, text, 13, 4090) == 13 && strcmp(text, "across a page") == 0);
    EXPECT(pwrite(fd, "written", 7, 8192) == 7 && strcmp(map + 8192, "written") == 0);
    munmap(map, 3 * 4096);
    close(fd);
}

static void test_files(void)
{
    char text[64] = "";
    struct stat a, b;
    int fd = open("p/open", O_RDWR | O_CREAT, 0640);
    EXPECT(write(fd, "0123456789", 10) == 10);
    EXPECT(unlink("p/open") == 0 && pread(fd, text, 10, 0) == 10 && strcmp(text, "0123456789") == 0);
    EXPECT(fstat(fd, &a) == 0 && a.st_nlink == 0);
    close(fd);
    fd = open("p/append", O_WRONLY | O_CREAT | O_APPEND, 0600);
    for (int i = 0; i < 10; i++)
        EXPECT(write(fd, "line\n", 5) == 5);
    EXPECT(fstat(fd, &a) == 0 && a.st_size == 50);
    close(fd);
    EXPECT(link("p/append", "p/hard") == 0 && stat("p/append", &a) == 0 && stat("p/hard", &b) == 0);
    EXPECT(a.st_ino == b.st_ino && a.st_nlink == 2);
    EXPECT(symlink("append", "p/soft") == 0 && stat("p/soft", &b) == 0 && a.st_ino == b.st_ino);
    EXPECT(symlink("/etc/hostname", "p/absolute") == 0 && open("p/absolute", O_RDONLY) < 0);
    EXPECT(readlink("p/soft", text, sizeof text) == 6);
    EXPECT(rename("p/hard", "p/append") == 0); /* the same file: nothing happens */
    EXPECT(unlink("p/hard") == 0);
    EXPECT(chmod("p/append", 0604) == 0 && stat("p/append", &a) == 0 && (a.st_mode & 07777) == 0604);
    EXPECT(truncate("p/append", 7) == 0 && stat("p/append", &a) == 0 && a.st_size == 7);
    struct timespec times[2] = {{1000000000, 1}, {1100000000, 2}};
    EXPECT(utimensat(AT_FDCWD, "p/append", times, 0) == 0 && stat("p/append", &a) == 0 && a.st_mtim.tv_nsec == 2);
    EXPECT(mkfifo("p/fifo", 0600) == 0 && mknod("p/null", S_IFCHR | 0666, 0x103) < 0 && errno == EPERM);
    EXPECT(chmod("p/append", 04755) < 0 && errno == EPERM);
    EXPECT(rmdir("p") < 0 && errno == ENOTEMPTY);
    EXPECT(open("p/append/x", O_RDONLY) < 0 && errno == ENOTDIR);
}

static void test_ranges(void)
{
    char block[4096];
    memset(block, 'b', sizeof block);
    int fd = open("p/ranges", O_RDWR | O_CREAT, 0600), to = open("p/copy", O_RDWR | O_CREAT, 0600);
    EXPECT(pwrite(fd, block, sizeof block, 1 << 20) == sizeof block);
    EXPECT(lseek(fd, 0, SEEK_DATA) <= 1 << 20);
    off_t from = 1 << 20;
    EXPECT(copy_file_range(fd, &from, to, NULL, sizeof block, 0) == sizeof block);
    EXPECT(lseek(to, 0, SEEK_END) == sizeof block);
    EXPECT(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096) == 0 || errno == EOPNOTSUPP);
    EXPECT(fsync(fd) == 0 && fdatasync(to) == 0 && syncfs(fd) == 0);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 100};
    EXPECT(fcntl(fd, F_SETLK, &lock) == 0 && flock(to, LOCK_EX) == 0);
    int direct = open("p/ranges", O_RDONLY | O_DIRECT);
    EXPECT(direct >= 0 && read(direct, block, 512) == 512);
    close(direct);
    close(fd);
    close(to);
    struct statvfs space;
    EXPECT(statvfs("p", &space) == 0 && space.f_blocks > 0);
    if (setxattr("p/copy", "user.x", "value", 5, 0) == 0)
        EXPECT(getxattr("p/copy", "user.x", block, sizeof block) == 5);
    EXPECT(setxattr("p/copy", "trusted.x", "v", 1, 0) < 0 && errno == EOPNOTSUPP);
}

/* Writes of several processes at once, each in its own file and its own part of one. */
static void test_processes(void)
{
    int shared = open("p/shared", O_RDWR | O_CREAT, 0600);
    for (int child = 0; child < 4; child++)
        if (fork() == 0) {
            char path[32], block[1000];
            memset(block, 'a' + child, sizeof block);
            snprintf(path, sizeof path, "p/own-%d", child);
            int own = open(path, O_WRONLY | O_CREAT, 0600), bad = own < 0;
            for (int i = 0; i < 50; i++)
                bad |= write(own, block, sizeof block) != sizeof block ||
                       pwrite(shared, block, sizeof block, (i * 4 + child) * (off_t)sizeof block) != sizeof block;
            _exit(bad);
        }
    for (int status; wait(&status) > 0;)
        EXPECT(status == 0);
    char block[1000];
    for (int i = 0; i < 200; i++)
        EXPECT(pread(shared, block, sizeof block, i * (off_t)sizeof block) == sizeof block && block[0] == 'a' + i % 4 &&
               block[999] == 'a' + i % 4);
    close(shared);
}

static void test_read_only(void)
{
    EXPECT(mkdir("/mnt/ro", 0700) == 0 || errno == EEXIST);
    EXPECT(mount("other", "/ro", "virtiofs", 0, NULL) == 0);
    EXPECT(access("/ro/readable", R_OK) == 0);
    EXPECT(open("/ro/readable", O_RDWR) < 0 && errno == EROFS);
    EXPECT(open("/ro/new", O_RDWR | O_CREAT, 0600) < 0 && errno == EROFS);
    EXPECT(unlink("/ro/readable") < 0 && errno == EROFS);
    EXPECT(chmod("/ro/readable", 0600) < 0 && errno == EROFS);
    EXPECT(rename("/ro/readable", "/ro/moved") < 0 && errno == EROFS);
    EXPECT(mkdir("/ro/folder", 0700) < 0 && errno == EROFS);
    EXPECT(umount("/ro") == 0);
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    EXPECT(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* Takes the driver away and gives it back, which resets the device, and mounts anew. */
static void test_driver(void)
{
    char device[64] = "";
    DIR *folder = opendir("/sys/bus/virtio/drivers/virtiofs");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (strncmp(entry->d_name, "virtio", 6) == 0)
            snprintf(device, sizeof device, "%.60s", entry->d_name);
    EXPECT(device[0] != 0);
    for (int i = 0; i < 20; i++) {
        put("/sys/bus/virtio/drivers/virtiofs/unbind", device);
        put("/sys/bus/virtio/drivers/virtiofs/bind", device);
        EXPECT(mount("data", "/mnt", "virtiofs", 0, NULL) == 0 && access("/mnt/p/append", F_OK) == 0);
        EXPECT(umount("/mnt") == 0);
        EXPECT(mount("other", "/ro", "virtiofs", 0, NULL) == 0 && access("/ro/readable", F_OK) == 0);
        EXPECT(umount("/ro") == 0);
    }
}

static void run(int count)
{
    EXPECT(mount("data", "/mnt", "virtiofs", 0, NULL) == 0 && chdir("/mnt") == 0);
    compare_tree("host", count, 0);
    change_tree("host", count);
    compare_tree("host", count, 1);
    make_tree("guest", count);
    compare_tree("guest", count, 0);
    tell("guest-done");
    wait_for("host-done");
    compare_tree("guest", count, 1);
    compare_tree("again", count, 0);
    EXPECT(mkdir("p", 0755) == 0);
    test_mmap();
    test_files();
    test_ranges();
    test_processes();
    test_read_only();
    EXPECT(chdir("/") == 0 && umount("/mnt") == 0);
    EXPECT(mount("data", "/mnt", "virtiofs", 0, NULL) == 0 && access("/mnt/p/append", F_OK) == 0);
    EXPECT(umount("/mnt") == 0);
    test_driver();
}

/* Appends lines to a file that the other guest appends to as well. */
static void append(const char *path, int flags, const char *own, int count)
{
    char line[32];
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | flags, 0644);
    for (int i = 0; i < count; i++) {
        int length = snprintf(line, sizeof line, "%s %d\n", own, i);
        EXPECT(write(fd, line, (size_t)length) == length);
    }
    close(fd);
}

/* One of two guests on one folder: each makes a tree, changes the other's, and both append to the same files. */
static void run_peer(int count, const char *own, const char *other)
{
    char token[32];
    EXPECT(mount("data", "/mnt", "virtiofs", 0, NULL) == 0 && chdir("/mnt") == 0);
    make_tree(own, count);
    snprintf(token, sizeof token, "%s-made", own);
    tell(token);
    snprintf(token, sizeof token, "%s-made", other);
    wait_for(token);
    compare_tree(other, count, 0);
    change_tree(other, count);
    snprintf(token, sizeof token, "%s-changed", other);
    tell(token);
    snprintf(token, sizeof token, "%s-changed", own);
    wait_for(token);
    compare_tree(own, count, 1);
    append("common", 0, own, count);
    append("common-direct", O_DIRECT, own, count);
    EXPECT(chdir("/") == 0 && umount("/mnt") == 0);
}

int main(void)
{
    char line[512] = "";
    mkdir("/mnt", 0755);
    mkdir("/ro", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    int fd = open("/proc/cmdline", O_RDONLY);
    EXPECT(read(fd, line, sizeof line - 1) > 0);
    const char *files = strstr(line, "files=");
    EXPECT(system("/bin/load-modules") == 0 && files);
    if (files && strstr(line, "peer=a"))
        run_peer(atoi(files + 6), "tree-a", "tree-b");
    else if (files && strstr(line, "peer=b"))
        run_peer(atoi(files + 6), "tree-b", "tree-a");
    else if (files)
        run(atoi(files + 6));
    printf("SHARE-INIT %s\n", failures ? "failed" : "ok");
    fflush(stdout);
    reboot(RB_POWER_OFF);
    return 1;
}
