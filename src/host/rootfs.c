#include "host/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/beside.h"
#include "host/gpt.h"
#include "host/spawn.h"
#include "rootfs/report.h"

/* The empty file system in the partition. The file is all zeroes, so inode tables need no writing, now or by the
 * guest's first mount. */
static int make_empty(const char *path, const struct gpt_partition *part, struct error *error)
{
    char extended[128], blocks[32];
    snprintf(extended, sizeof extended, "offset=%" PRIu64 ",assume_storage_prezeroed=1,nodiscard,root_owner=0:0",
             part->offset);
    snprintf(blocks, sizeof blocks, "%" PRIu64 "k", part->size >> 10);
    char *const argv[] = {"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-L", "root", "-E", extended,
                          (char *)(uintptr_t)path, blocks, NULL};
    return spawn_wait(argv, error);
}

/* The next report. Returns 1, or 0 when there is none any more: the program ended. */
static int read_report(int fd, struct rootfs_report *ret_report)
{
    size_t done = 0;
    while (done < sizeof *ret_report) {
        ssize_t n = read(fd, (char *)ret_report + done, sizeof *ret_report - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        done += (size_t)n;
    }
    return 1;
}

/* The sentence quotes an archive, and the process that sent it read one. */
static void clean_sentence(struct error *error)
{
    error->text[sizeof error->text - 1] = 0;
    for (char *c = error->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

/* Listens to the program until its last report. Returns its status with its sentence, or -EPROTO when it sent none. */
static int follow(int fd, void (*progress)(void *owner, uint64_t bytes), void *owner, struct error *error)
{
    struct rootfs_report report;
    while (read_report(fd, &report)) {
        if (!report.done) {
            if (progress)
                progress(owner, report.bytes);
            continue;
        }
        clean_sentence(&report.error);
        if (report.status < 0 && report.status > -4096)
            return error_set(error, -report.status, "%s", report.error.text);
        return report.status == 0 ? 0 : -EPROTO;
    }
    return -EPROTO;
}

/* Runs veneer-rootfs, which fills the file system. */
static int fill(int disk, uint64_t offset, int tar_fd, void (*progress)(void *owner, uint64_t bytes), void *owner,
                struct error *error)
{
    char program[BESIDE_PATH_MAX], place[32];
    struct spawn spawn;
    struct error ended_error;
    snprintf(place, sizeof place, "%" PRIu64, offset);
    char *const argv[] = {program, place, NULL};
    int r = beside_find(ROOTFS_PROGRAM, program, error);
    if (r == 0)
        r = spawn_start_with(argv, tar_fd, disk, &spawn, error);
    if (r < 0)
        return r;
    r = follow(spawn.out, progress, owner, error);
    int ended = spawn_end_said(&spawn, ROOTFS_PROGRAM, &ended_error);
    if (r == -EPROTO || (r == 0 && ended < 0))
        r = error_set(error, EIO, "writing the disk: %s", ended < 0 ? ended_error.text : "its writer ended early");
    return r;
}

int rootfs_make(const char *path, uint64_t size, int tar_fd, void (*progress)(void *owner, uint64_t bytes),
                void *owner, struct error *error)
{
    struct gpt_partition part;
    int fd = open(path, O_RDWR | O_CLOEXEC), r = 0;
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        r = error_set(error, errno, "making the disk %s: %s", path, strerror(errno));
    if (r == 0)
        r = gpt_write(fd, size, &part, error);
    if (r == 0)
        r = make_empty(path, &part, error);
    if (r == 0)
        r = fill(fd, part.offset, tar_fd, progress, owner, error);
    if (r == 0 && fsync(fd) < 0)
        r = error_set(error, errno, "writing the disk %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return r;
}
