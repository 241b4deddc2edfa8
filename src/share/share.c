/* share.c - opening and closing a share, its budget of descriptors, and the guest's session. */
#include "share/share.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "share/private.h"

#define INODES_DEFAULT (1u << 20)
#define DESCRIPTORS_KEPT 512u /* of the process's limit, for all else that it does */
#define DESCRIPTORS_MIN 64u

/* The protocol: 7.31 is what the first guests with virtio-fs speak; what is sent here is as of 7.36. */
#define MINOR_OLDEST 31
#define MINOR_OURS 36
#define BACKGROUND 64 /* requests that a guest may have under way beside those that someone waits for */

/* Of all shares of this process together. */
static _Atomic unsigned process_descriptors;

int descriptor_take(struct share *share)
{
    for (;;) {
        unsigned limit = share->descriptors_max;
        if (share->descriptors < limit) {
            struct rlimit files;
            getrlimit(RLIMIT_NOFILE, &files);
            uint64_t all = files.rlim_cur > DESCRIPTORS_KEPT ? files.rlim_cur - DESCRIPTORS_KEPT : DESCRIPTORS_MIN;
            if (atomic_fetch_add(&process_descriptors, 1) < all) {
                share->descriptors++;
                return 0;
            }
            atomic_fetch_sub(&process_descriptors, 1);
        }
        if (!inode_put_one_away(share))
            return -ENFILE;
    }
}

void descriptor_give(struct share *share)
{
    share->descriptors--;
    atomic_fetch_sub(&process_descriptors, 1);
}

const char *share_proc_path(int fd, char path[PROC_PATH_SIZE])
{
    snprintf(path, PROC_PATH_SIZE, "/proc/self/fd/%d", fd);
    return path;
}

int share_reopen(const struct share *share, int fd, int flags)
{
    char name[16];
    snprintf(name, sizeof name, "%d", fd);
    int opened = openat(share->proc, name, flags | O_CLOEXEC | O_NOCTTY);
    return opened < 0 ? -errno : opened;
}

/* True for file systems whose close writes nothing back, so that it cannot fail. */
static bool closes_silently(int fd)
{
    static const long types[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC};
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return false;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (fs.f_type == types[i])
            return true;
    return false;
}

/* Opens the folder and what the server needs of the host. */
static int open_parts(struct share *share, const struct share_config *config, struct error *error)
{
    share->proc = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (share->proc < 0)
        return error_set(error, errno, "/proc/self/fd, which sharing a folder needs: %s", strerror(errno));
    int root = open(config->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return error_set(error, errno, "folder '%s': %s", config->folder, strerror(errno));
    if (inode_is_forbidden(root)) {
        close(root);
        return error_set(error, EINVAL, "folder '%s' belongs to the host's kernel (/proc, /sys ...) and cannot be shared", config->folder);
    }
    share->flushes = !closes_silently(root);
    /* Reading it is the least that serving needs; better told now than by every request. */
    int readable = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (readable < 0) {
        int code = errno;
        close(root);
        return error_set(error, code, "folder '%s': %s", config->folder, strerror(code));
    }
    close(readable);
    int r = inode_table_open(share, root, config->inodes ? config->inodes : INODES_DEFAULT);
    return r < 0 ? error_set(error, -r, "folder '%s': %s", config->folder, strerror(-r)) : 0;
}

int share_open(const struct share_config *config, struct share **ret_share, struct error *error)
{
    struct share *share = calloc(1, sizeof *share);
    if (!share)
        return error_set(error, ENOMEM, "folder '%s': no memory", config->folder);
    share->read_only = config->read_only;
    share->as_root = credentials_are_roots();
    share->descriptors_max = config->descriptors ? config->descriptors : DESCRIPTORS_MAX;
    share->proc = -1;
    pthread_mutex_init(&share->lock, NULL);
    descriptors_raise();
    int r = open_parts(share, config, error);
    if (r < 0) {
        share_close(share);
        return r;
    }
    *ret_share = share;
    return 0;
}

void share_close(struct share *share)
{
    if (!share)
        return;
    handle_table_close(share);
    inode_table_close(share);
    if (share->proc >= 0)
        close(share->proc);
    pthread_mutex_destroy(&share->lock);
    free(share);
}

void share_reset(struct share *share)
{
    atomic_store(&share->session, false);
    handle_table_reset(share);
    inode_table_reset(share);
}

bool share_in_use(const struct share *share)
{
    return atomic_load(&share->session);
}

/* What is agreed on, of what the guest offers; docs/share.md has the reasons. */
static const uint32_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |
                               FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                               FUSE_MAX_PAGES | FUSE_SUBMOUNTS | FUSE_HANDLE_KILLPRIV_V2;

int op_init(struct share *share, struct request *request)
{
    struct {
        uint32_t major, minor, max_readahead, flags;
    } in;
    memcpy(&in, request->argument, sizeof in);
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = MINOR_OURS};
    if (in.major > FUSE_KERNEL_VERSION) /* it comes again with ours */
        return request_reply(request, &out, sizeof out);
    if (in.major < FUSE_KERNEL_VERSION || in.minor < MINOR_OLDEST)
        return -EPROTO;
    if (atomic_exchange(&share->session, true))
        return -EINVAL; /* a session ends by DESTROY or a reset of the device */
    out.max_readahead = in.max_readahead < SHARE_IO_MAX ? in.max_readahead : SHARE_IO_MAX;
    out.flags = in.flags & wanted;
    out.max_background = BACKGROUND;
    out.congestion_threshold = BACKGROUND * 3 / 4;
    out.max_write = SHARE_IO_MAX;
    out.max_pages = SHARE_IO_MAX / 4096;
    out.time_gran = 1;
    return request_reply(request, &out, sizeof out);
}

int op_destroy(struct share *share, struct request *request)
{
    (void)request;
    share_reset(share);
    return 0;
}
