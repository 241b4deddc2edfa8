/* fs.h - the virtio file system device (virtio 1.2, 5.11): a folder of the host in the guest.
 *
 * The device carries FUSE messages between its queues and a server (share/share.h), which runs on the device's I/O thread; so
 * that has to be the device's own: it gives up privileges. Operations that may wait for a disk for long run on
 * a second thread, so that others of the same share go on. */
#ifndef VENEER_DEVICE_VIRTIO_FS_H
#define VENEER_DEVICE_VIRTIO_FS_H

#include "device/virtio/virtio.h"
#include "share/share.h"

#define VIRTIO_FS_TAG_MAX 36u /* bytes */

struct virtio_fs_config {
    const char *tag; /* what the guest mounts; see virtio_fs_check_tag */
    struct share_config share;
};

/* 0, or -EINVAL with the reason: not 1 to 36 bytes, or with characters that no mount command takes (spaces, control). */
int virtio_fs_check_tag(const char *tag, struct error *error);

/* Opens the folder. env->loop: of a thread that serves this device alone. Returns 0 or a negative errno with a
 * sentence that names the tag. Saved and loaded as share_save says. */
int virtio_fs_new(const struct virtio_env *env, const struct virtio_fs_config *config, struct virtio_device **ret_device,
                  struct error *error);

#endif
