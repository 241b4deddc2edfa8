/* run_image.h - what `veneer run IMAGE` runs: an instance's disk, and the kernel in it. */
#ifndef VENEER_CLI_RUN_IMAGE_H
#define VENEER_CLI_RUN_IMAGE_H

#include "base/error.h"
#include "host/bootfiles.h"
#include "host/store.h"
#include "machine/machine.h"

#define RUN_IMAGE_CMDLINE 4096
#define RUN_IMAGE_MEMORY (UINT64_C(1) << 30) /* of a machine from an image, when nothing is said */
/* Of such a machine: a whole distribution's start translates 110 MiB of code, and would do so several times in 64. */
#define RUN_IMAGE_CODE_CACHE (UINT64_C(512) << 20)

struct run_image {
    struct store_instance instance; /* fd -1: none is held */
    struct bootfiles files;
    char kernel[32], initrd[32]; /* paths of the files in memory */
    char cmdline[RUN_IMAGE_CMDLINE];
};

/* Takes or makes the instance `name` of the image (temporary: it goes at run_image_release), reads its kernel, and fills
 * the machine's kernel, initrd, append and code_cache, where the caller has not, and *ret_disk. run must outlive the machine's
 * creation. Returns 0 or a negative errno with a sentence; nothing is held then. */
int run_image_take(struct run_image *run, const char *image, const char *name, bool temporary,
                   struct machine_config *machine, struct machine_disk *ret_disk, struct error *error);
/* In the process that ran the machine, when it has ended: frees, and removes what is temporary. Once; a struct whose
 * instance.fd is -1 is allowed. */
void run_image_release(struct run_image *run);
/* In a process whose child goes on to run the machine: frees, removes nothing. */
void run_image_hand_over(struct run_image *run);

#endif
