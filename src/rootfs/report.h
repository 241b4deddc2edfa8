/* report.h - what veneer-rootfs, the program that writes an archive into a disk, and the process that runs it agree on.
 *
 * veneer-rootfs OFFSET: the archive is its standard input; descriptor ROOTFS_DISK_FD is the disk, open to be read and
 * written, with an empty ext4 OFFSET bytes into it; its standard output gets the reports below, one struct a write, the
 * last one with `done`. It exits with 0 when that could be written. */
#ifndef VENEER_ROOTFS_REPORT_H
#define VENEER_ROOTFS_REPORT_H

#include <stdint.h>

#include "base/error.h"

#define ROOTFS_PROGRAM "veneer-rootfs"
#define ROOTFS_DISK_FD 3

/* Shorter than PIPE_BUF, so that a pipe keeps it in one piece. */
struct rootfs_report {
    uint64_t bytes;     /* of content written */
    int32_t done;       /* the last report */
    int32_t status;     /* of the last report: 0 or a negative errno, with the sentence */
    struct error error;
};

#endif
