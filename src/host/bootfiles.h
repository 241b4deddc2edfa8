/* bootfiles.h - takes the kernel, its initramfs and its command line out of a disk.
 *
 * The disk is the guest's to write, and libext2fs was not made for hostile file systems; so a child process looks
 * into it. The child has no file, no privilege and hardly a system call: it asks this process for bytes of the disk, one
 * bounded range at a time, and writes into two files in memory of bounded size. It is ended when it takes too
 * long. docs/images.md has more.
 *
 * Disks are a whole ext2, ext3 or ext4 file system, or a GPT with one (the first of type x86-64 root, else the first
 * that has a kernel in /boot). A journal that was not replayed is not looked at, as boot loaders do. */
#ifndef VENEER_HOST_BOOTFILES_H
#define VENEER_HOST_BOOTFILES_H

#include "base/error.h"
#include "block/block.h"

struct bootfiles {
    int kernel, initrd;            /* sealed files in memory; initrd is -1 when there is none */
    char kernel_path[256], initrd_path[256]; /* in the disk */
    char cmdline[1024];            /* of /etc/kernel/cmdline, "" when there is none; printable */
    char root[64];                 /* what root= must be: "PARTUUID=..." or "/dev/vda" */
    char os[64], suite[64];        /* ID and VERSION_CODENAME of its os-release, "" when there are none */
};

/* Reads the newest kernel by version and the initramfs of that version. The disk stays the caller's; no request is in
 * flight. Returns 0, -ENOENT when there is no such file system or no kernel, or another negative errno, each with
 * a sentence. */
int bootfiles_read(struct block *disk, struct bootfiles *ret_files, struct error *error);
/* Closes the files. */
void bootfiles_close(struct bootfiles *files);

/* The whole command line: what the disk wants, `append` (may be NULL), and where missing root= and `console` ("console=ttyS0"),
 * if neither names a console. Returns 0 or -E2BIG with a sentence. */
int bootfiles_cmdline(const struct bootfiles *files, const char *console, const char *append, char *ret_text, size_t size,
                      struct error *error);

#endif
