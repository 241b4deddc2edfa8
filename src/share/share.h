/* share.h - a folder of the host, served in the FUSE protocol.
 *
 * The server knows requests and replies as bytes in iovecs and nothing of how they travel. It keeps the guest within
 * the folder whatever the guest asks and whatever others rename meanwhile; docs/share.md says how, and what is kept from the
 * guest on purpose (device nodes, set-user-ID bits, extended attributes but user.*).
 *
 * Threads: share_handle may run on several threads at once, each of which called share_thread_enter first.
 * share_reset: any thread. share_close: when none is in share_handle any more. */
#ifndef VENEER_SHARE_SHARE_H
#define VENEER_SHARE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/stream.h"

struct share;

/* The largest READ and WRITE that is negotiated, in bytes. */
#define SHARE_IO_MAX (UINT32_C(1) << 20)

struct share_config {
    const char *folder;   /* path; symbolic links in it are followed, once, now */
    bool read_only;       /* every modification is refused with EROFS */
    unsigned descriptors; /* at most so many open descriptors; 0: what the process may have */
    unsigned inodes;      /* at most so many files known to the guest at once; 0: the default, a million */
};

/* One request: what the guest wrote, and where the reply goes. The bytes may change while they are looked at. */
struct share_message {
    const struct iovec *request;
    unsigned requests;
    const struct iovec *reply;
    unsigned replies;
};

/* Opens the folder; raises the process's limit of open files as far as it may. Returns 0 or a negative errno with a
 * sentence that names the folder (-ENOENT, -ENOTDIR, -EACCES ...). */
int share_open(const struct share_config *config, struct share **ret_share, struct error *error);
/* NULL is allowed. */
void share_close(struct share *share);

/* Prepares the calling thread for share_handle, for good: a umask of its own (0: the guest applied its own already) and, for
 * root, only those capabilities that serving needs. Returns 0 or a negative errno. */
int share_thread_enter(const struct share *share, struct error *error);

/* Serves one request. Returns the length of the reply in bytes, header included; 0 when there is none (FORGET) or not even a header
 * fits. What was wrong with the request is told in the reply, as a FUSE error. */
size_t share_handle(struct share *share, const struct share_message *message);

/* True when the request may wait long for a disk, so that whoever serves a queue hands it to another thread. */
bool share_may_take_long(const struct share_message *message);

/* As at share_open: the guest knows nothing any more but the root. */
void share_reset(struct share *share);

/* Saves what the guest knows and has open, as one section: numbers, and paths within the folder. Fails (stream_status) when
 * the guest has a file open that has no name any more. No request is being served. */
void share_save(struct share *share, struct stream *stream);
/* Takes that over in a share that was just opened or reset, of the same folder and as read-only as that. Files that are not at their paths any
 * more are stale for the guest. The stream may be hostile; after a failure the share is as after share_reset. */
void share_load(struct share *share, struct stream *stream);

/* True when the guest has a session: INIT came and no DESTROY since. Any thread. */
bool share_in_use(const struct share *share);

#endif
