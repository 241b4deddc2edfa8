/* inode.c - see inode.h. */
#include "share/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "share/private.h"

#define BUCKETS_FIRST 256u
#define PUT_AWAY_TRIES 64 /* idle inodes to look at, of which some may have lost their name */
#define STATX_NEEDED (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)

/* ---- The host's side: one component at a time, never through a link ---- */

/* Opens one valid name in a folder as it is, links included. Returns an O_PATH descriptor or a negative errno. The kernel is told the
 * confinement as well, though a valid name cannot leave its folder. */
static int open_name(int folder, const char *name)
{
    struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    long fd = syscall(SYS_openat2, folder, name, &how, sizeof how);
    return fd < 0 ? -errno : (int)fd;
}

/* name "": the descriptor itself. */
static int look(int fd, const char *name, struct statx *ret_stat)
{
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (name[0] ? 0 : AT_EMPTY_PATH);
    return statx(fd, name, flags, STATX_NEEDED, ret_stat) < 0 ? -errno : 0;
}

static struct inode_key key_of(const struct statx *stat)
{
    return (struct inode_key){
        .device = makedev(stat->stx_dev_major, stat->stx_dev_minor),
        .number = stat->stx_ino,
        .mount = stat->stx_mask & STATX_MNT_ID ? stat->stx_mnt_id : 0,
        .birth_s = stat->stx_mask & STATX_BTIME ? stat->stx_btime.tv_sec : 0,
        .birth_ns = stat->stx_mask & STATX_BTIME ? stat->stx_btime.tv_nsec : 0,
    };
}

static bool same_key(const struct inode_key *a, const struct inode_key *b)
{
    return a->device == b->device && a->number == b->number && a->mount == b->mount && a->birth_s == b->birth_s &&
           a->birth_ns == b->birth_ns;
}

static bool same_mount(const struct statx *stat, const struct inode *inode)
{
    struct inode_key key = key_of(stat);
    return key.mount == inode->key.mount && key.device == inode->key.device;
}

bool inode_is_forbidden(int fd)
{
    static const long types[] = {PROC_SUPER_MAGIC, SYSFS_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
                                 SECURITYFS_MAGIC, SELINUX_MAGIC, BPF_FS_MAGIC, EFIVARFS_MAGIC, BINFMTFS_MAGIC, PSTOREFS_MAGIC,
                                 NSFS_MAGIC};
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return true;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (fs.f_type == types[i])
            return true;
    return false;
}

static void fill_attributes(const struct statx *stat, bool submount, struct fuse_attr *ret_attr)
{
    *ret_attr = (struct fuse_attr){
        .ino = stat->stx_ino,
        .size = stat->stx_size,
        .blocks = stat->stx_blocks,
        .atime = (uint64_t)stat->stx_atime.tv_sec,
        .mtime = (uint64_t)stat->stx_mtime.tv_sec,
        .ctime = (uint64_t)stat->stx_ctime.tv_sec,
        .atimensec = stat->stx_atime.tv_nsec,
        .mtimensec = stat->stx_mtime.tv_nsec,
        .ctimensec = stat->stx_ctime.tv_nsec,
        .mode = stat->stx_mode,
        .nlink = stat->stx_nlink,
        .uid = stat->stx_uid,
        .gid = stat->stx_gid,
        /* In the form of the protocol, which is the kernel's own 32-bit one. */
        .rdev = stat->stx_rdev_minor % 256 | stat->stx_rdev_major << 8 | (stat->stx_rdev_minor & ~255u) << 12,
        .blksize = stat->stx_blksize,
        .flags = submount ? FUSE_ATTR_SUBMOUNT : 0,
    };
}

/* ---- The table. From here to the next line, the lock is held ---- */

static struct inode_list *id_bucket(struct inode_table *table, uint64_t id)
{
    return &table->by_id[id & (table->buckets - 1)];
}

static struct inode_list *key_bucket(struct inode_table *table, const struct inode_key *key)
{
    uint64_t hash = (key->number ^ key->device << 40 ^ key->mount << 52) * UINT64_C(0x9e3779b97f4a7c15);
    return &table->by_key[hash >> 32 & (table->buckets - 1)];
}

static struct inode *find_id(struct inode_table *table, uint64_t id)
{
    struct inode *inode;
    LIST_FOREACH(inode, id_bucket(table, id), by_id)
        if (inode->id == id)
            return inode;
    return NULL;
}

static struct inode *find_key(struct inode_table *table, const struct inode_key *key, uint32_t type)
{
    struct inode *inode;
    LIST_FOREACH(inode, key_bucket(table, key), by_key)
        if (same_key(&inode->key, key) && inode->type == type)
            return inode;
    return NULL;
}

/* Doubles the buckets; when there is no memory the lists just get longer. */
static void grow(struct inode_table *table)
{
    struct inode_table old = *table;
    unsigned buckets = old.buckets * 2;
    struct inode_list *by_id = calloc(buckets, sizeof *by_id), *by_key = calloc(buckets, sizeof *by_key);
    if (!by_id || !by_key) {
        free(by_id);
        free(by_key);
        return;
    }
    table->by_id = by_id;
    table->by_key = by_key;
    table->buckets = buckets;
    for (unsigned i = 0; i < old.buckets; i++) {
        struct inode *inode;
        while ((inode = LIST_FIRST(&old.by_id[i]))) {
            LIST_REMOVE(inode, by_id);
            LIST_REMOVE(inode, by_key);
            LIST_INSERT_HEAD(id_bucket(table, inode->id), inode, by_id);
            LIST_INSERT_HEAD(key_bucket(table, &inode->key), inode, by_key);
        }
    }
    free(old.by_id);
    free(old.by_key);
}

/* Keeps the idle list what it says; called whenever a part of the condition changed. */
static void settle(struct inode_table *table, struct inode *inode)
{
    bool idle = inode->fd >= 0 && inode->pins == 0 && inode->children == 0 && inode->name && inode != table->root;
    if (inode->idle)
        TAILQ_REMOVE(&table->idle, inode, in_idle);
    if (idle)
        TAILQ_INSERT_TAIL(&table->idle, inode, in_idle);
    inode->idle = idle;
}

static void release_if_unused(struct share *share, struct inode *inode);

static void drop_name(struct share *share, struct inode *inode)
{
    struct inode *parent = inode->parent;
    free(inode->name);
    inode->name = NULL;
    inode->parent = NULL;
    if (!parent)
        return;
    parent->children--;
    settle(&share->inodes, parent);
    release_if_unused(share, parent);
}

static void release(struct share *share, struct inode *inode)
{
    if (inode->idle)
        TAILQ_REMOVE(&share->inodes.idle, inode, in_idle);
    LIST_REMOVE(inode, by_id);
    LIST_REMOVE(inode, by_key);
    share->inodes.used--;
    if (inode->fd >= 0) {
        close(inode->fd); /* O_PATH: nothing to write back, so it does not wait */
        descriptor_give(share);
    } else {
        share->inodes.put_away--;
    }
    free(inode->name);
    free(inode);
}

/* What the guest forgot needs no name any more, and its parent no child; this may free the parent, and so on up. */
static void release_if_unused(struct share *share, struct inode *inode)
{
    while (inode && inode->lookups == 0 && inode->pins == 0 && inode != share->inodes.root) {
        struct inode *parent = inode->parent;
        if (parent) {
            parent->children--;
            free(inode->name);
            inode->name = NULL;
            inode->parent = NULL;
            settle(&share->inodes, parent);
        }
        if (inode->children == 0)
            release(share, inode);
        else
            settle(&share->inodes, inode);
        inode = parent;
    }
}

/* Remembers where a file was seen last. Without memory it keeps what it knew: the name is checked before it is relied on. */
static void learn_name(struct share *share, struct inode *inode, struct inode *parent, const char *name)
{
    if (!name || inode == parent || (inode->parent == parent && inode->name && strcmp(inode->name, name) == 0))
        return;
    char *copy = strdup(name);
    if (!copy)
        return;
    parent->children++;
    settle(&share->inodes, parent);
    drop_name(share, inode);
    inode->parent = parent;
    inode->name = copy;
    settle(&share->inodes, inode);
}

bool inode_put_one_away(struct share *share)
{
    struct inode_table *table = &share->inodes;
    for (int i = 0; i < PUT_AWAY_TRIES && !TAILQ_EMPTY(&table->idle); i++) {
        struct inode *inode = TAILQ_FIRST(&table->idle);
        struct statx stat;
        struct inode_key key;
        bool found = look(inode->parent->fd, inode->name, &stat) == 0;
        if (found)
            key = key_of(&stat);
        if (!found || !same_key(&key, &inode->key)) {
            drop_name(share, inode); /* not to be found again, so it stays */
            settle(table, inode);
            continue;
        }
        close(inode->fd);
        inode->fd = -1;
        table->put_away++;
        descriptor_give(share);
        settle(table, inode);
        return true;
    }
    return false;
}

/* Opens a descriptor that was put away. */
static int take_out(struct share *share, struct inode *inode)
{
    if (!inode->parent)
        return -ESTALE;
    int r = descriptor_take(share); /* may put others away, but no parent */
    if (r < 0)
        return r;
    struct statx stat;
    int fd = open_name(inode->parent->fd, inode->name);
    r = fd < 0 ? -ESTALE : look(fd, "", &stat);
    if (r == 0) {
        struct inode_key key = key_of(&stat);
        r = same_key(&key, &inode->key) ? 0 : -ESTALE;
    }
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        descriptor_give(share);
        return r;
    }
    inode->fd = fd;
    share->inodes.put_away--;
    settle(&share->inodes, inode);
    return 0;
}

static int pin(struct share *share, struct inode *inode)
{
    int r = inode->fd >= 0 ? 0 : take_out(share, inode);
    if (r == 0) {
        inode->pins++;
        settle(&share->inodes, inode);
    }
    return r;
}

/* A new inode for a descriptor, which it owns on success. id: not used yet. */
static int insert(struct share *share, uint64_t id, int fd, const struct statx *stat, struct inode **ret_inode)
{
    struct inode_table *table = &share->inodes;
    if (table->used >= table->limit)
        return -ENFILE;
    struct inode *inode = calloc(1, sizeof *inode);
    if (!inode)
        return -ENOMEM;
    *inode = (struct inode){.id = id, .key = key_of(stat), .type = stat->stx_mode & S_IFMT, .fd = fd};
    if (table->used >= table->buckets)
        grow(table);
    LIST_INSERT_HEAD(id_bucket(table, inode->id), inode, by_id);
    LIST_INSERT_HEAD(key_bucket(table, &inode->key), inode, by_key);
    table->used++;
    *ret_inode = inode;
    return 0;
}

/* ---- Called without the lock ---- */

int inode_table_open(struct share *share, int root, unsigned limit)
{
    struct inode_table *table = &share->inodes;
    struct statx stat;
    *table = (struct inode_table){.buckets = BUCKETS_FIRST, .limit = limit};
    TAILQ_INIT(&table->idle);
    table->by_id = calloc(BUCKETS_FIRST, sizeof *table->by_id);
    table->by_key = calloc(BUCKETS_FIRST, sizeof *table->by_key);
    int r = table->by_id && table->by_key ? look(root, "", &stat) : -ENOMEM;
    if (r == 0)
        r = descriptor_take(share);
    if (r < 0) {
        close(root);
        return r;
    }
    r = insert(share, table->last_id = FUSE_ROOT_ID, root, &stat, &table->root);
    if (r < 0) {
        descriptor_give(share);
        close(root);
        return r;
    }
    table->root->lookups = 1;
    return 0;
}

void inode_table_reset(struct share *share)
{
    struct inode_table *table = &share->inodes;
    pthread_mutex_lock(&share->lock);
    for (unsigned i = 0; i < table->buckets; i++) {
        struct inode *inode = LIST_FIRST(&table->by_id[i]);
        while (inode) {
            if (inode->lookups == 0 || inode == table->root) {
                inode = LIST_NEXT(inode, by_id);
                continue;
            }
            inode->lookups = 0;
            release_if_unused(share, inode);      /* others may go with it, of any bucket, */
            inode = LIST_FIRST(&table->by_id[i]); /* so look again */
        }
    }
    pthread_mutex_unlock(&share->lock);
}

void inode_table_close(struct share *share)
{
    struct inode_table *table = &share->inodes;
    for (unsigned i = 0; table->by_id && i < table->buckets; i++)
        while (!LIST_EMPTY(&table->by_id[i]))
            release(share, LIST_FIRST(&table->by_id[i]));
    free(table->by_id);
    free(table->by_key);
    *table = (struct inode_table){0};
}

int inode_pin(struct share *share, uint64_t id, struct inode **ret_inode)
{
    pthread_mutex_lock(&share->lock);
    struct inode *inode = find_id(&share->inodes, id);
    int r = inode && inode->lookups ? pin(share, inode) : -ESTALE;
    pthread_mutex_unlock(&share->lock);
    if (r == 0)
        *ret_inode = inode;
    return r;
}

void inode_pin_again(struct share *share, struct inode *inode)
{
    pthread_mutex_lock(&share->lock);
    inode->pins++;
    pthread_mutex_unlock(&share->lock);
}

void inode_unpin(struct share *share, struct inode *inode)
{
    pthread_mutex_lock(&share->lock);
    inode->pins--;
    settle(&share->inodes, inode);
    release_if_unused(share, inode);
    pthread_mutex_unlock(&share->lock);
}

void inode_forget(struct share *share, uint64_t id, uint64_t count)
{
    pthread_mutex_lock(&share->lock);
    struct inode *inode = find_id(&share->inodes, id);
    if (inode && inode != share->inodes.root) {
        inode->lookups -= count < inode->lookups ? count : inode->lookups;
        release_if_unused(share, inode);
    }
    pthread_mutex_unlock(&share->lock);
}

/* Counts a look-up of a file that the guest may know already; else takes over fd (-1: cannot). Returns 1 when it is known,
 * and fd was not needed unless its own was put away; 0 when it is new; -ENOENT when it is not known and there is no fd. */
static int note(struct share *share, struct inode *parent, const char *name, int fd, const struct statx *stat,
                struct inode **ret_inode)
{
    struct inode_key key = key_of(stat);
    struct inode *inode = find_key(&share->inodes, &key, stat->stx_mode & S_IFMT);
    int known = inode != NULL;
    if (!known) {
        int r = fd < 0 ? -ENOENT : insert(share, share->inodes.last_id + 1, fd, stat, &inode);
        if (r < 0)
            return r;
        share->inodes.last_id++;
    }
    if (inode != share->inodes.root)
        inode->lookups++;
    learn_name(share, inode, parent, name);
    settle(&share->inodes, inode);
    *ret_inode = inode;
    return known;
}

static void fill_entry(const struct inode *inode, const struct inode *parent, const struct statx *stat,
                       struct fuse_entry_out *ret_entry)
{
    memset(ret_entry, 0, sizeof *ret_entry);
    ret_entry->nodeid = inode->id;
    ret_entry->entry_valid_nsec = ret_entry->attr_valid_nsec = SHARE_VALID_NS;
    fill_attributes(stat, inode->type == S_IFDIR && !same_mount(stat, parent), &ret_entry->attr);
}

int inode_lookup(struct share *share, struct inode *parent, const char *name, struct fuse_entry_out *ret_entry)
{
    struct statx stat;
    struct inode *inode = NULL;
    int r = look(parent->fd, name, &stat);
    if (r < 0)
        return r;
    /* Mostly the guest knows the file already, and nothing has to be opened. */
    pthread_mutex_lock(&share->lock);
    r = note(share, parent, name, -1, &stat, &inode);
    if (r >= 0)
        fill_entry(inode, parent, &stat, ret_entry);
    int taken = r >= 0 ? 0 : descriptor_take(share);
    pthread_mutex_unlock(&share->lock);
    if (r >= 0 || taken < 0)
        return r >= 0 ? 0 : taken;

    /* The name may have become another file's since; what is opened now counts. */
    int fd = open_name(parent->fd, name);
    r = fd < 0 ? fd : look(fd, "", &stat);
    if (r == 0 && !same_mount(&stat, parent) && inode_is_forbidden(fd))
        r = -EACCES;
    pthread_mutex_lock(&share->lock);
    if (r == 0)
        r = note(share, parent, name, fd, &stat, &inode);
    if (r >= 0)
        fill_entry(inode, parent, &stat, ret_entry);
    if (r != 0) /* not taken over */
        descriptor_give(share);
    pthread_mutex_unlock(&share->lock);
    if (r != 0 && fd >= 0)
        close(fd);
    return r < 0 ? r : 0;
}

int inode_adopt(struct share *share, struct inode *parent, const char *name, int fd, struct fuse_entry_out *ret_entry,
                struct inode **ret_inode)
{
    struct statx stat;
    struct inode *inode = NULL;
    pthread_mutex_lock(&share->lock);
    int r = descriptor_take(share);
    pthread_mutex_unlock(&share->lock);
    if (r < 0)
        return r;
    int path = share_reopen(share, fd, O_PATH);
    r = path < 0 ? path : look(path, "", &stat);
    pthread_mutex_lock(&share->lock);
    if (r == 0)
        r = note(share, parent, name, path, &stat, &inode);
    if (r >= 0)
        fill_entry(inode, parent, &stat, ret_entry);
    if (r != 0)
        descriptor_give(share);
    int pinned = r >= 0 && ret_inode ? pin(share, inode) : 0;
    if (pinned < 0) {
        inode->lookups--;
        release_if_unused(share, inode);
    }
    pthread_mutex_unlock(&share->lock);
    if (r != 0 && path >= 0)
        close(path);
    if (r >= 0 && pinned == 0 && ret_inode)
        *ret_inode = inode;
    return r < 0 ? r : pinned;
}

void inode_before_unlink(struct share *share, struct inode *parent, const char *name)
{
    struct statx stat;
    pthread_mutex_lock(&share->lock);
    if (share->inodes.put_away > 0 && look(parent->fd, name, &stat) == 0) {
        struct inode_key key = key_of(&stat);
        struct inode *inode = find_key(&share->inodes, &key, stat.stx_mode & S_IFMT);
        if (inode && inode->fd < 0 && take_out(share, inode) == 0) {
            drop_name(share, inode); /* so that it is not put away again before the name goes */
            settle(&share->inodes, inode);
        }
    }
    pthread_mutex_unlock(&share->lock);
}

int inode_attributes(const struct inode *inode, struct fuse_attr *ret_attr)
{
    struct statx stat;
    int r = look(inode->fd, "", &stat);
    if (r == 0)
        fill_attributes(&stat, false, ret_attr);
    return r;
}

/* Opens a path from the root on, and only as the same file; mounts and devices have other numbers after a restart. */
static int open_path(struct share *share, const char *path, const struct inode_key *key, uint32_t type, struct statx *ret_stat)
{
    int fd = open_name(share->inodes.root->fd, path); /* the kernel keeps it below the root, whatever the path */
    if (fd < 0)
        return fd;
    int r = look(fd, "", ret_stat);
    struct inode_key now = key_of(ret_stat);
    if (r == 0 && (now.number != key->number || now.birth_s != key->birth_s || now.birth_ns != key->birth_ns ||
                   (ret_stat->stx_mode & S_IFMT) != type || inode_is_forbidden(fd)))
        r = -ESTALE;
    if (r < 0)
        close(fd);
    return r < 0 ? r : fd;
}

bool inode_is_at(struct share *share, const struct inode *inode, const char *path)
{
    struct statx stat;
    int fd = open_path(share, path, &inode->key, inode->type, &stat);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int inode_restore(struct share *share, const struct inode *saved, const char *path)
{
    struct inode *inode;
    struct statx stat;
    pthread_mutex_lock(&share->lock);
    int r = find_id(&share->inodes, saved->id) ? -EEXIST : descriptor_take(share);
    if (r == 0) {
        int fd = open_path(share, path, &saved->key, saved->type, &stat);
        struct inode_key key = key_of(&stat);
        r = fd < 0 ? fd : 0;
        if (r == 0 && find_key(&share->inodes, &key, saved->type))
            r = -EEXIST;
        if (r == 0)
            r = insert(share, saved->id, fd, &stat, &inode);
        if (r == 0)
            inode->lookups = saved->lookups;
        else if (fd >= 0)
            close(fd);
        if (r < 0)
            descriptor_give(share);
    }
    pthread_mutex_unlock(&share->lock);
    return r;
}
