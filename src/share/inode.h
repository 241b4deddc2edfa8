/* inode.h - what the guest knows of the folder.
 *
 * An inode is a file that the guest looked up and has not forgotten: a number that is never used twice (the FUSE node ID)
 * and an O_PATH descriptor, which stands for that very file whatever is renamed around it. Two names of one file are one inode.
 *
 * When descriptors run short, those of idle inodes are put away: closed, to be opened again by parent and name, and only if what
 * is found there is the same file (device, number, mount, time of birth). Else the guest is told ESTALE.
 *
 * Invariants (share->lock): an inode is freed when lookups, pins and children are all 0; one with pins or children has a descriptor;
 * the idle list holds exactly the inodes that may be put away. */
#ifndef VENEER_SHARE_INODE_H
#define VENEER_SHARE_INODE_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/stat.h>

struct share;

/* What makes a file the same file. The time of birth tells a number that was used again. */
struct inode_key {
    uint64_t device, number, mount;
    int64_t birth_s;
    uint64_t birth_ns;
};

struct inode {
    uint64_t id;
    struct inode_key key;
    uint32_t type;    /* S_IFMT bits; those of a file never change */
    int fd;           /* O_PATH, or -1: put away */
    uint64_t lookups; /* what the guest has to forget; the root's never ends */
    unsigned pins;    /* requests and handles that use it */
    unsigned children; /* inodes whose parent it is */
    struct inode *parent; /* where it was seen last, or NULL */
    char *name;
    bool idle;
    LIST_ENTRY(inode) by_id, by_key;
    TAILQ_ENTRY(inode) in_idle;
};

LIST_HEAD(inode_list, inode);

struct inode_table {
    struct inode_list *by_id, *by_key; /* `buckets` each, a power of two */
    unsigned buckets, used, limit, put_away;
    uint64_t last_id;
    TAILQ_HEAD(inode_queue, inode) idle; /* longest idle first */
    struct inode *root;
};

/* root: an O_PATH descriptor, which the table owns from now on, failure included. Returns 0 or a negative errno. */
int inode_table_open(struct share *share, int root, unsigned limit);
/* Frees all; nobody uses any. */
void inode_table_close(struct share *share);
/* Forgets all but the root, as far as nobody uses them now; those go when their last pin does. Any thread. */
void inode_table_reset(struct share *share);

/* Finds an inode by the guest's number and keeps it, with its descriptor, until inode_unpin. Returns 0, -ESTALE (no such
 * number, or the file went away while its descriptor was put away) or -ENFILE. Any thread. */
int inode_pin(struct share *share, uint64_t id, struct inode **ret_inode);
void inode_unpin(struct share *share, struct inode *inode);
/* One more pin of an inode that is pinned. */
void inode_pin_again(struct share *share, struct inode *inode);
/* The guest forgets `count` look-ups; more than it has counts as all. Unknown numbers are ignored. */
void inode_forget(struct share *share, uint64_t id, uint64_t count);

/* Looks a valid name up in a pinned folder and counts a look-up. Fills the reply. Returns 0 or a negative errno. */
int inode_lookup(struct share *share, struct inode *parent, const char *name, struct fuse_entry_out *ret_entry);
/* The same for a file that the caller has open (it stays the caller's): no name can come in between. name may be NULL. On
 * success *ret_inode, when not NULL, is pinned. */
int inode_adopt(struct share *share, struct inode *parent, const char *name, int fd, struct fuse_entry_out *ret_entry,
                struct inode **ret_inode);

/* Before a name goes away: if the file there has its descriptor put away, opens it again for good, since no
 * name may be left to find it by. */
void inode_before_unlink(struct share *share, struct inode *parent, const char *name);

/* True for what is never served: file systems whose regular files are the host's kernel (/proc, /sys ...), this process's memory
 * among them. */
bool inode_is_forbidden(int fd);

/* Puts one idle inode's descriptor away; false when there is none. The lock is held. */
bool inode_put_one_away(struct share *share);

/* For a saved state. True when the path, relative to the root, leads to the inode's file. */
bool inode_is_at(struct share *share, const struct inode *inode, const char *path);
/* Makes an inode with the number, look-ups, type and key (but device and mount) of `saved`, if its file is at the path. Returns 0 or a
 * negative errno: -EEXIST when the number or the file is there already; others when it is not found or there is no room. */
int inode_restore(struct share *share, const struct inode *saved, const char *path);

/* The attributes of a pinned inode, in the protocol's form. Returns 0 or a negative errno. */
int inode_attributes(const struct inode *inode, struct fuse_attr *ret_attr);

#endif
