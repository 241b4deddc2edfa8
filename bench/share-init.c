/* share-init.c - the /init of bench/share.py: times what programs do with files of a share, and prints "ROW name seconds" for each. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES 2000
#define FOLDERS 20
#define BIG (64u << 20)
#define STEP (1u << 20)
#define SMALL 4096u
#define READS 4000

static char *block;
static int bad;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void forget_caches(void)
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    sync();
    bad += write(fd, "3", 1) != 1;
    close(fd);
}

static void name_of(char *path, int i)
{
    sprintf(path, "t/%d/f%d", i % FOLDERS, i);
}

static void make(void)
{
    char path[64];
    for (int i = 0; i < FILES; i++) {
        name_of(path, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        bad += write(fd, block, 100) != 100;
        close(fd);
    }
}

static void list(void)
{
    char path[64];
    struct stat about;
    for (int i = 0; i < FOLDERS; i++) {
        sprintf(path, "t/%d", i);
        DIR *folder = opendir(path);
        for (struct dirent *entry; (entry = readdir(folder));)
            bad += fstatat(dirfd(folder), entry->d_name, &about, AT_SYMLINK_NOFOLLOW) < 0;
        closedir(folder);
    }
}

static void read_all(void)
{
    char path[64];
    for (int i = 0; i < FILES; i++) {
        name_of(path, i);
        int fd = open(path, O_RDONLY);
        bad += read(fd, block, STEP) != 100;
        close(fd);
    }
}

static void rename_all(void)
{
    char path[64], to[80];
    for (int i = 0; i < FILES; i++) {
        name_of(path, i);
        sprintf(to, "%s.new", path);
        bad += rename(path, to) < 0 || rename(to, path) < 0;
    }
}

static void remove_all(void)
{
    char path[64];
    for (int i = 0; i < FILES; i++) {
        name_of(path, i);
        bad += unlink(path) < 0;
    }
}

static void write_big(void)
{
    int fd = open("big", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    for (unsigned at = 0; at < BIG; at += STEP)
        bad += write(fd, block, STEP) != STEP;
    close(fd);
}

static void read_big(void)
{
    int fd = open("big", O_RDONLY);
    for (unsigned at = 0; at < BIG; at += STEP)
        bad += read(fd, block, STEP) != STEP;
    close(fd);
}

static void read_random(void)
{
    int fd = open("big", O_RDONLY | O_DIRECT);
    unsigned random = 1;
    for (int i = 0; i < READS; i++) {
        random = random * 1103515245 + 12345;
        bad += pread(fd, block, SMALL, (random >> 8) % (BIG / SMALL) * SMALL) != SMALL;
    }
    close(fd);
}

static const struct {
    const char *name;
    void (*run)(void);
    int cold;
} rows[] = {{"make", make, 0}, {"list+stat", list, 1}, {"list+stat again", list, 0}, {"open+read", read_all, 1},
            {"rename", rename_all, 0}, {"remove", remove_all, 0}, {"write 64M", write_big, 0}, {"read 64M", read_big, 1},
            {"4k direct reads", read_random, 0}};

int main(void)
{
    char path[64];
    mkdir("/mnt", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    bad += system("/bin/load-modules") != 0;
    bad += mount("data", "/mnt", "virtiofs", 0, NULL) < 0 || chdir("/mnt") < 0;
    block = aligned_alloc(SMALL, STEP);
    memset(block, 'x', STEP);
    mkdir("t", 0755);
    for (int i = 0; i < FOLDERS; i++) {
        sprintf(path, "t/%d", i);
        mkdir(path, 0755);
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !bad; i++) {
        if (rows[i].cold)
            forget_caches();
        double start = now();
        rows[i].run();
        printf("ROW %s: %.6f\n", rows[i].name, now() - start);
    }
    printf("BENCH %s\n", bad ? "failed" : "done");
    fflush(stdout);
    reboot(RB_POWER_OFF);
    return 1;
}
