/* veneer-rootfs: writes the root file system in a tar archive into a disk, for `veneer image`. A program of its own, so that
 * libarchive's libraries are loaded when an image is made and not at each start of veneer, and so that what reads the archive
 * can do nothing but that. report.h tells how it is run. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/confine.h"
#include "rootfs/entries.h"
#include "rootfs/report.h"
#include "rootfs/tree.h"

#define ADDRESS_SPACE (UINT64_C(4) << 30) /* 300 MB are used for a disk of 8 TiB */

static int send_report(const struct rootfs_report *report)
{
    return write(STDOUT_FILENO, report, sizeof *report) == sizeof *report ? 0 : -EPIPE;
}

static void tell_progress(uint64_t bytes)
{
    struct rootfs_report report = {.bytes = bytes};
    if (send_report(&report) < 0)
        _exit(1); /* nobody waits for the disk any more */
}

/* Besides what every confined process may: reading and writing at a place in the disk. */
static int confine_self(struct error *error)
{
    static const int calls[] = {__NR_pread64, __NR_pwrite64, __NR_lseek, __NR_fsync, __NR_fallocate, __NR_newfstatat,
                                __NR_fstat, __NR_close, -1};
    struct stat disk;
    int r = fstat(ROOTFS_DISK_FD, &disk) < 0 ? -errno : 0;
    struct confine to = {
        .address_space = ADDRESS_SPACE, .file_size = (uint64_t)disk.st_size, .files = ROOTFS_DISK_FD + 2, .calls = calls};
    if (r == 0)
        r = confine(&to);
    return r < 0 ? error_set(error, -r, "the reader of the archive cannot be confined: %s", strerror(-r)) : 0;
}

/* What is opened is opened before the process is confined; no byte of the archive is looked at before that. */
static int write_rootfs(uint64_t offset, struct error *error)
{
    char disk[32];
    struct entries *entries = NULL;
    struct tree *tree = NULL;
    snprintf(disk, sizeof disk, "/proc/self/fd/%d", ROOTFS_DISK_FD);
    int r = tree_open(disk, offset, &tree, error);
    if (r == 0)
        r = entries_open(STDIN_FILENO, &entries, error);
    if (r == 0)
        r = confine_self(error);
    if (r == 0)
        r = tree_fill(tree, entries, tell_progress, error);
    if (r == 0)
        entries_drain(entries);
    return r < 0 ? r : tree_close(tree, error); /* the rest goes with the process */
}

int main(int argc, char **argv)
{
    struct rootfs_report report = {.done = 1};
    char *end = NULL;
    errno = 0;
    unsigned long long offset = argc == 2 ? strtoull(argv[1], &end, 10) : 0;
    if (!end || *end || end == argv[1] || errno || fcntl(ROOTFS_DISK_FD, F_GETFD) < 0) {
        fprintf(stderr, ROOTFS_PROGRAM ": is run by 'veneer image' to write an archive into a disk\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    report.status = write_rootfs(offset, &report.error);
    _exit(send_report(&report) < 0 ? 1 : 0); /* no exit handlers, which might want more than is left */
}
