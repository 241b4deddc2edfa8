#include "cli/run_image.h"

#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "block/open.h"
#include "engine/engine.h"

/* The first is there before hvc0's driver, and an init that finds no console at all may give up; but it has no login of its own. */
#define VIRTIO_CONSOLE "console=ttyS0 console=hvc0 systemd.getty_auto=0"

/* Reads the boot files of the disk as it is now: a guest may have replaced its kernel. */
static int read_boot(const char *path, struct bootfiles *ret_files, struct error *error)
{
    struct block *disk;
    struct block_options options = {.path = path, .format = "qcow2", .readonly = true};
    int r = block_open(&options, NULL, &disk, error);
    if (r < 0)
        return r;
    r = bootfiles_read(disk, ret_files, error);
    block_close(disk);
    return r;
}

/* Where the caller gave its own kernel, that and its initrd are taken; the disk's command line serves for both. */
static int fill(struct run_image *run, struct machine_config *machine, struct error *error)
{
    int r = bootfiles_cmdline(&run->files, machine->console_virtio ? VIRTIO_CONSOLE : "console=ttyS0", machine->append,
                              run->cmdline, sizeof run->cmdline, error);
    if (r < 0)
        return r;
    machine->append = run->cmdline;
    if (!machine->code_cache && machine->vcpus * ENGINE_CODE_CACHE < RUN_IMAGE_CODE_CACHE) /* which is the default */
        machine->code_cache = RUN_IMAGE_CODE_CACHE;
    if (machine->kernel)
        return 0;
    snprintf(run->kernel, sizeof run->kernel, "/proc/self/fd/%d", run->files.kernel);
    machine->kernel = run->kernel;
    if (!machine->initrd && run->files.initrd >= 0) {
        snprintf(run->initrd, sizeof run->initrd, "/proc/self/fd/%d", run->files.initrd);
        machine->initrd = run->initrd;
    }
    return 0;
}

int run_image_take(struct run_image *run, const char *image, const char *name, bool temporary,
                   struct machine_config *machine, struct machine_disk *ret_disk, struct error *error)
{
    struct store *store;
    *run = (struct run_image){.instance = {.fd = -1}, .files = {.kernel = -1, .initrd = -1}};
    int r = store_open(NULL, &store, error);
    if (r < 0)
        return r;
    r = store_instance_open(store, image, name, temporary, &run->instance, error);
    store_close(store); /* a database does not cross a fork */
    if (r < 0)
        return r;
    r = read_boot(run->instance.path, &run->files, error);
    if (r < 0)
        error_prefix(error, "the disk of '%s' cannot be started", name);
    if (r == 0)
        r = fill(run, machine, error);
    if (r == 0)
        *ret_disk = (struct machine_disk){.id = "root", .path = run->instance.path, .format = "qcow2", .serial = "root"};
    else
        run_image_release(run);
    return r;
}

void run_image_release(struct run_image *run)
{
    struct store *store = NULL;
    struct error error;
    bootfiles_close(&run->files);
    if (run->instance.fd < 0)
        return;
    if (!run->instance.temporary) {
        run_image_hand_over(run);
        return;
    }
    if (store_open(NULL, &store, &error) < 0 || store_instance_close(store, &run->instance, &error) < 0)
        log_warning("%s", error.text);
    store_close(store);
    run_image_hand_over(run);
}

void run_image_hand_over(struct run_image *run)
{
    bootfiles_close(&run->files);
    if (run->instance.fd >= 0)
        close(run->instance.fd);
    run->instance.fd = -1;
}
