/* board_share.c - folders of the host in the guest, each a virtio-fs device with a thread of its own. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "device/virtio/fs.h"
#include "machine/board_virtio.h"
#include "machine/machine_private.h"

static struct virtio_device *make(struct machine *machine, const struct virtio_env *env, const void *config, void **ret_owned,
                                  struct error *error)
{
    const struct machine_share *share = config;
    struct virtio_fs_config fs = {.tag = share->tag, .share = {.folder = share->folder, .read_only = share->read_only}};
    struct virtio_device *device;
    (void)machine, (void)ret_owned;
    return virtio_fs_new(env, &fs, &device, error) < 0 ? NULL : device;
}

int machine_add_share(struct machine *machine, const struct machine_share *share, struct error *error)
{
    char id[sizeof MACHINE_SHARE_ID + VIRTIO_FS_TAG_MAX];
    int r = virtio_fs_check_tag(share->tag, error);
    if (r < 0)
        return r;
    snprintf(id, sizeof id, MACHINE_SHARE_ID "%s", share->tag);
    pthread_mutex_lock(&machine->lock);
    unsigned instance = machine->shares_made++;
    pthread_mutex_unlock(&machine->lock);
    struct board_virtio_config config = {.id = id, .kind = MACHINE_KIND_SHARE, .instance = instance, .own_thread = true,
                                         .make = make, .config = share};
    return board_virtio_add(machine, &config, error);
}

int board_share_create(struct machine *machine, struct error *error)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < machine->config.shares; i++)
        r = machine_add_share(machine, &machine->config.share[i], error);
    return r;
}
