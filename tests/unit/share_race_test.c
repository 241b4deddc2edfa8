/* share_race_test.c WALKS: guests walk and change a shared folder while the host swaps its folders with links that lead out.
 *
 * Outside there is a tree with the very names that the guests use. Wherever the server followed a link or got out
 * otherwise, something of that tree would change (its times tell, down to attributes) or its inode numbers would come up in a
 * reply. Neither may happen, whatever WALKS is; `make test` does some, tests/long/share-race.sh many. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/sysmacros.h>

#include "check.h"
#include "equivalence/random.h"
#include "share_client.h"

#define GUESTS 2
#define SWAPPERS 2
#define FEW_DESCRIPTORS 40 /* so that descriptors are put away and opened again all the time */
#define OUTSIDE_FILES 6

static char folder[] = "/tmp/veneer-race-XXXXXX";
static char inside[64], outside[64], away[64];
static unsigned walks;
static atomic_bool done;
static _Atomic unsigned long steps, swaps, entries, leaks;

/* What is outside: names relative to it, and how they were. */
static const char *const outside_names[OUTSIDE_FILES] = {"", "y", "y/z", "y/z/file", "y/file", "file"};
static struct statx outside_was[OUTSIDE_FILES];

static void in_folder(char *path, size_t size, const char *top, const char *name)
{
    snprintf(path, size, "%s/%s", top, name);
}

/* top/y/z/file, top/y/file, top/file */
static void make_tree(const char *top)
{
    char path[256];
    mkdir(top, 0755);
    in_folder(path, sizeof path, top, "y");
    mkdir(path, 0755);
    in_folder(path, sizeof path, top, "y/z");
    mkdir(path, 0755);
    client_put_file(top, "file", "outside or inside");
    client_put_file(top, "y/file", "outside or inside");
    client_put_file(top, "y/z/file", "outside or inside");
}

static void look_outside(struct statx state[OUTSIDE_FILES])
{
    char path[256];
    for (unsigned i = 0; i < OUTSIDE_FILES; i++) {
        in_folder(path, sizeof path, outside, outside_names[i]);
        if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &state[i]) < 0)
            memset(&state[i], 0, sizeof state[i]);
    }
}

static void make_all(void)
{
    char path[256];
    client_make_folder(folder);
    snprintf(inside, sizeof inside, "%s/in", folder);
    snprintf(outside, sizeof outside, "%s/out", folder);
    snprintf(away, sizeof away, "%s/away", folder);
    mkdir(away, 0755);
    mkdir(inside, 0755);
    make_tree(outside);
    in_folder(path, sizeof path, inside, "x");
    make_tree(path);
    in_folder(path, sizeof path, inside, "w");
    make_tree(path);
    /* What the swappers exchange with folders and files of the tree. */
    in_folder(path, sizeof path, inside, "link");
    (void)!symlink(outside, path);
    in_folder(path, sizeof path, inside, "link-y");
    (void)!symlink("../../out/y", path);
    in_folder(path, sizeof path, inside, "link-file");
    (void)!symlink("../../out/file", path);
    look_outside(outside_was);
}

/* Opens the folder that holds the last component of a path from the share on, following no link; the host must not do what the
 * server is tested for. */
static int open_parent(const char *path, const char **ret_name)
{
    char part[64];
    int fd = open(inside, O_PATH | O_DIRECTORY);
    for (const char *slash; fd >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        int next = strcmp(part, "..") == 0 ? open(away, O_PATH) : openat(fd, part, O_PATH | O_DIRECTORY | O_NOFOLLOW);
        close(fd);
        fd = next;
    }
    *ret_name = path;
    return fd;
}

static void swap(const char *a, const char *b, unsigned flags)
{
    int from = open_parent(a, &a), to = open_parent(b, &b);
    if (from >= 0 && to >= 0 && renameat2(from, a, to, b, flags) == 0)
        atomic_fetch_add(&swaps, 1);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
}

/* The host: exchanges names with links, moves folders between folders, out of the share and back. */
static void *swapper(void *seed)
{
    static const char *const pairs[][2] = {{"x", "link"}, {"x/y", "link-y"}, {"w/y", "link-y"}, {"x/file", "link-file"},
                                           {"w", "link"}, {"x/y/z", "w/y"}, {"x/y/file", "link-file"}};
    struct eq_random random = {(uint64_t)(uintptr_t)seed};
    while (!atomic_load(&done)) {
        unsigned n = eq_below(&random, 9);
        if (n < 7)
            swap(pairs[n][0], pairs[n][1], RENAME_EXCHANGE);
        else if (n == 7)
            swap("w/y", "../y", RENAME_NOREPLACE);
        else
            swap("../y", "w/y", RENAME_NOREPLACE);
    }
    return NULL;
}

/* Every file that a reply names must be from inside. */
static void check_entry(const struct fuse_attr *attr)
{
    atomic_fetch_add(&entries, 1);
    for (unsigned i = 0; i < OUTSIDE_FILES; i++)
        if (attr->ino == outside_was[i].stx_ino)
            atomic_fetch_add(&leaks, 1);
}

static uint64_t look_up(struct client *client, uint64_t node, const char *name)
{
    uint64_t found = client_lookup(client, node, name);
    if (found)
        check_entry(&((struct fuse_entry_out *)client_body(client))->attr);
    return found;
}

/* Something done to a file that was reached. */
static void use_file(struct client *client, struct eq_random *random, uint64_t node)
{
    struct fuse_setattr_in in = {.valid = FATTR_MODE, .mode = 0640};
    struct fuse_attr attr;
    uint64_t fh;
    switch (eq_below(random, 5)) {
    case 0:
        in = (struct fuse_setattr_in){.valid = FATTR_SIZE, .size = 5}; /* fall through */
    case 1:
        client_call(client, FUSE_SETATTR, node, &in, sizeof in, NULL, 0, 256);
        break;
    case 2:
        if (client_getattr(client, node, &attr) == 0)
            check_entry(&attr);
        break;
    default:
        if (client_open(client, node, eq_below(random, 2) ? O_RDWR : O_WRONLY | O_TRUNC, &fh) < 0)
            break;
        client_write(client, node, fh, 0, "guest", 5);
        client_read(client, node, fh, 0, 64);
        client_release(client, node, fh);
    }
}

static void read_folder(struct client *client, uint64_t node)
{
    uint64_t fh;
    if (client_open(client, node, O_DIRECTORY, &fh) < 0)
        return;
    struct fuse_read_in in = {.fh = fh, .size = 4096};
    if (client_call(client, FUSE_READDIRPLUS, node, &in, sizeof in, NULL, 0, 4096) == 0) {
        uint8_t reply[4096];
        size_t length = client->length;
        memcpy(reply, client_body(client), length);
        for (size_t at = 0; at < length;) {
            const struct fuse_direntplus *entry = (const void *)(reply + at);
            if (entry->entry_out.nodeid) {
                check_entry(&entry->entry_out.attr);
                client_forget(client, entry->entry_out.nodeid, 1);
            }
            at += FUSE_DIRENTPLUS_SIZE(entry);
        }
    }
    client_call(client, FUSE_RELEASEDIR, node, &(struct fuse_release_in){.fh = fh}, sizeof(struct fuse_release_in), NULL, 0, 0);
}

/* Something done to a folder that was reached, with names that are outside too. */
static void use_folder(struct client *client, struct eq_random *random, uint64_t node)
{
    struct fuse_mkdir_in dir = {.mode = 0700};
    uint64_t made, fh;
    switch (eq_below(random, 7)) {
    case 0:
        if (client_create(client, node, "file", O_RDWR, 0600, &made, &fh) == 0) {
            check_entry(&((struct fuse_entry_out *)client_body(client))->attr);
            client_write(client, made, fh, 0, "created", 7);
            client_release(client, made, fh);
            client_forget(client, made, 1);
        }
        break;
    case 1:
        client_unlink(client, node, "file");
        break;
    case 2:
        client_rename(client, node, "file", node, "new-file", 0);
        break;
    case 3:
        client_rename(client, node, "new-file", FUSE_ROOT_ID, "link-file", RENAME_EXCHANGE);
        break;
    case 4:
        if (client_call(client, FUSE_MKDIR, node, &dir, sizeof dir, "made", 5, 256) == 0)
            client_forget(client, ((struct fuse_entry_out *)client_body(client))->nodeid, 1);
        client_call(client, FUSE_RMDIR, node, "made", 5, NULL, 0, 0);
        break;
    default:
        read_folder(client, node);
    }
}

/* Walks down from the root by names, forgetting behind itself. */
static void walk(struct client *client, struct eq_random *random)
{
    static const char *const names[] = {"x", "w", "y", "z", "file", "link", "link-y", "link-file", "new-file"};
    uint64_t node = FUSE_ROOT_ID;
    for (unsigned depth = 0; depth < 5; depth++) {
        uint64_t next = look_up(client, node, names[eq_below(random, depth ? 9 : 2)]);
        if (next) {
            if (node != FUSE_ROOT_ID)
                client_forget(client, node, 1);
            node = next;
        }
        if (eq_below(random, 2))
            use_folder(client, random, node);
        else
            use_file(client, random, node);
        atomic_fetch_add(&steps, 1);
    }
    if (node != FUSE_ROOT_ID)
        client_forget(client, node, 1);
}

struct guest {
    struct share *share;
    uint64_t seed;
};

static void *guest(void *context)
{
    const struct guest *self = context;
    struct eq_random random = {self->seed};
    struct client client;
    if (share_thread_enter(self->share, NULL) < 0)
        abort();
    client_init(&client, self->share);
    for (unsigned i = 0; i < walks; i++)
        walk(&client, &random);
    client_free(&client);
    return NULL;
}

static void race(unsigned descriptors)
{
    struct share_config config = {.folder = inside, .descriptors = descriptors};
    pthread_t guests[GUESTS], swappers[SWAPPERS];
    struct guest self[GUESTS];
    struct share *share;
    struct client client;
    if (share_open(&config, &share, NULL) < 0)
        abort();
    client_init(&client, share);
    CHECK_EQ(client_start(&client), 0);
    atomic_store(&done, false);
    for (unsigned i = 0; i < SWAPPERS; i++)
        pthread_create(&swappers[i], NULL, swapper, (void *)(uintptr_t)(i + 77));
    for (unsigned i = 0; i < GUESTS; i++) {
        self[i] = (struct guest){share, i + descriptors + 1};
        pthread_create(&guests[i], NULL, guest, &self[i]);
    }
    for (unsigned i = 0; i < GUESTS; i++)
        pthread_join(guests[i], NULL);
    atomic_store(&done, true);
    for (unsigned i = 0; i < SWAPPERS; i++)
        pthread_join(swappers[i], NULL);
    client_free(&client);
    share_close(share);
}

int main(int argc, char **argv)
{
    struct statx now[OUTSIDE_FILES];
    walks = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000;
    make_all();
    race(0);
    race(FEW_DESCRIPTORS);
    look_outside(now);
    for (unsigned i = 0; i < OUTSIDE_FILES; i++) {
        now[i].stx_atime = outside_was[i].stx_atime; /* whoever reads may set it: the look at the end too */
        CHECK(memcmp(&now[i], &outside_was[i], sizeof now[i]) == 0);
    }
    CHECK_EQ(leaks, 0);
    CHECK(swaps > 0 && entries > 0);
    printf("%lu steps, %lu entries, %lu swaps\n", steps, entries, swaps);
    client_remove_tree(folder);
    CHECK_DONE();
}
