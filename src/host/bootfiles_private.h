/* bootfiles_private.h - what the process that runs a VM and the child that reads its disk say to each other.
 *
 * Over a SOCK_SEQPACKET pair, one struct a message. The child asks with BOOT_READ, the parent puts the bytes into the
 * shared window and answers with an int32_t, 0 or a negative errno; BOOT_DONE is the child's last. */
#ifndef VENEER_HOST_BOOTFILES_PRIVATE_H
#define VENEER_HOST_BOOTFILES_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include "host/bootfiles.h"

#define BOOT_WINDOW (256u << 10)
#define BOOT_FILE_MAX (UINT64_C(512) << 20) /* of a kernel or an initramfs */

enum boot_kind { BOOT_READ = 1, BOOT_DONE };

struct boot_message {
    uint32_t kind;
    int32_t status;          /* BOOT_DONE: 0 or a negative errno with the sentence */
    uint64_t offset, length; /* BOOT_READ: at most BOOT_WINDOW bytes */
    struct bootfiles files;  /* BOOT_DONE: the texts; its descriptors mean nothing */
    struct error error;
};

/* Reads [offset, offset + length) of the disk. Returns 0 or a negative errno. */
typedef int boot_read_fn(void *owner, uint64_t offset, void *bytes, size_t length);

/* Looks into a disk of `size` bytes: fills the texts of ret_files, and writes the kernel and the initramfs to the
 * descriptors given. Returns 0 or a negative errno with a sentence. In the child, or in a test. */
int bootfiles_look(boot_read_fn *read, void *owner, uint64_t size, int kernel, int initrd, struct bootfiles *ret_files,
                   struct error *error);

#endif
