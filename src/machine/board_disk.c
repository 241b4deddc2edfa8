/* board_disk.c - the machine's disks: a volume, and a virtio block device over it, on a thread of their own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/open.h"
#include "device/virtio/blk.h"
#include "machine/board_virtio.h"
#include "machine/machine_private.h"

#define QUEUES_DEFAULT 4u

static unsigned queues(const struct machine *machine, const struct machine_disk *disk)
{
    if (disk->queues)
        return disk->queues;
    return machine->config.vcpus < QUEUES_DEFAULT ? machine->config.vcpus : QUEUES_DEFAULT;
}

/* A disk's volume, and what it is called in messages. */
struct volume {
    struct block *block;
    char *path;
};

static void free_volume(struct volume *volume)
{
    if (!volume)
        return;
    int status = block_close(volume->block);
    if (status < 0)
        log_error("closing the disk %s: %s; what the guest wrote last and did not flush may be lost", volume->path, strerror(-status));
    free(volume->path);
    free(volume);
}

static struct volume *open_volume(const struct block_options *options, struct loop *loop, struct error *error)
{
    struct volume *volume = calloc(1, sizeof *volume);
    if (!volume || !(volume->path = strdup(options->path)))
        error_set(error, ENOMEM, "no memory for the disk %s", options->path);
    else if (block_open(options, loop, &volume->block, error) == 0)
        return volume;
    free_volume(volume);
    return NULL;
}

static struct virtio_device *make_disk(struct machine *machine, const struct virtio_env *env, const void *config,
                                       void **ret_owned, struct error *error)
{
    const struct machine_disk *disk = config;
    struct block_options options = {.path = disk->path, .format = disk->format, .readonly = disk->readonly,
                                    .direct = disk->direct, .iops = disk->iops, .bps = disk->bps};
    struct volume *volume = open_volume(&options, env->loop, error);
    if (!volume)
        return NULL;
    struct virtio_blk_config blk = {.block = volume->block, .queues = queues(machine, disk), .serial = disk->serial};
    struct virtio_device *virtio = virtio_blk_new(env, &blk, error);
    if (!virtio) {
        error_prefix(error, "disk %s", disk->path);
        free_volume(volume);
        return NULL;
    }
    *ret_owned = volume;
    return virtio;
}

/* The thread has ended: the volume is this one's. What a guest did not flush is not lost with the process. */
static void release_disk(void *owned)
{
    free_volume(owned);
}

static int add_disk(struct machine *machine, const struct machine_disk *disk, unsigned instance, struct error *error)
{
    struct board_virtio_config config = {.id = disk->id, .kind = MACHINE_KIND_DISK, .instance = instance, .own_thread = true,
                                         .make = make_disk, .config = disk, .release = release_disk};
    return board_virtio_add(machine, &config, error);
}

int board_disks_create(struct machine *machine, struct error *error)
{
    int status = 0;
    for (unsigned i = 0; status == 0 && i < machine->config.disks; i++)
        status = add_disk(machine, &machine->config.disk[i], machine->next_disk++, error);
    return status;
}

int machine_disk_add(struct machine *machine, const struct machine_disk *disk, struct error *error)
{
    return add_disk(machine, disk, atomic_fetch_add(&machine->next_disk, 1), error);
}

struct resize {
    uint64_t size;
    int status;
    struct error *error;
};

static void resize_disk(struct virtio_device *virtio, void *owned, void *context)
{
    struct resize *resize = context;
    resize->status = block_resize(((struct volume *)owned)->block, resize->size, resize->error);
    if (resize->status == 0)
        virtio_blk_resized(virtio);
}

int machine_disk_resize(struct machine *machine, const char *id, uint64_t size, struct error *error)
{
    struct resize resize = {.size = size, .error = error};
    int status = board_virtio_call(machine, id, make_disk, resize_disk, &resize, error);
    return status < 0 ? status : resize.status;
}
