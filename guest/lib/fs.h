/* fs.h - reads a file of a shared folder: just enough FUSE (protocol 7.27 and later) over virtio.h. One device at a time. */
#ifndef GUEST_FS_H
#define GUEST_FS_H

#include "virtio.h"

/* After virtio_go: starts the protocol and opens a file of the folder; false when the device does not answer as it should. */
bool fs_open(struct virtio *virtio, const char *name);
/* Reads up to `length` (at most 64) bytes from the start of the file; returns how many, or -1. */
int fs_read(struct virtio *virtio, void *data, u32 length);
/* Sends so many reads of the file and does not wait for them. */
void fs_flood(struct virtio *virtio, unsigned count);

#endif
