/* share_fuzz.h - what the fuzz targets of a share have in common: a small folder with a canary beside it, and requests that refer to
 * what earlier replies gave.
 *
 * A request in an input is [operation][node][handle][room][length][bytes]. "node" and "handle" choose among what earlier replies
 * gave, or wild numbers; "room" is that of the reply in units of 16 bytes; the bytes follow the header. */
#ifndef VENEER_TESTS_FUZZ_SHARE_FUZZ_H
#define VENEER_TESTS_FUZZ_SHARE_FUZZ_H

#include <sys/resource.h>

#include "share_client.h"

#define SHARE_FUZZ_KNOWN 16u
#define SHARE_FUZZ_SECRET "the canary's secret"
#define SHARE_FUZZ_RECORD 5u /* bytes before a request's own */
#define SHARE_FUZZ_REQUEST (sizeof(struct fuse_in_header) + 255)
#define SHARE_FUZZ_REPLY (16u * 255)

/* ---- the folder ---- */

struct share_folder {
    char path[64], inside[80];         /* `inside` is shared */
    uint64_t outside_ino, canary_ino;  /* no reply may name them: all access starts with an entry */
    uint32_t canary_mode;
};

static struct share_folder share_folder;

/* Once. */
static inline void share_fuzz_make(void)
{
    static const struct rlimit small = {4 << 20, 4 << 20};
    char path[128];
    if (share_folder.path[0])
        return;
    snprintf(share_folder.path, sizeof share_folder.path, "%s/veneer-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    client_make_folder(share_folder.path);
    snprintf(share_folder.inside, sizeof share_folder.inside, "%s/in", share_folder.path);
    snprintf(path, sizeof path, "%s/out", share_folder.path);
    mkdir(path, 0755);
    setrlimit(RLIMIT_FSIZE, &small); /* an FALLOCATE must not fill the disk */
}

static inline void share_fuzz_leave(void)
{
    client_remove_tree(share_folder.path);
}

/* The same few files every time. */
static inline void share_fuzz_fill(void)
{
    char path[128];
    struct stat now;
    client_put_file(share_folder.path, "out/canary", SHARE_FUZZ_SECRET);
    snprintf(path, sizeof path, "%s/out", share_folder.path);
    share_folder.outside_ino = stat(path, &now) == 0 ? now.st_ino : 0;
    snprintf(path, sizeof path, "%s/out/canary", share_folder.path);
    share_folder.canary_ino = stat(path, &now) == 0 ? now.st_ino : 0;
    share_folder.canary_mode = now.st_mode;
    mkdir(share_folder.inside, 0755);
    client_put_file(share_folder.inside, "a", "first file");
    snprintf(path, sizeof path, "%s/d", share_folder.inside);
    mkdir(path, 0755);
    client_put_file(share_folder.inside, "d/b", "second file");
    snprintf(path, sizeof path, "%s/l", share_folder.inside);
    if (symlink("../out/canary", path) < 0)
        abort();
    snprintf(path, sizeof path, "%s/m", share_folder.inside);
    if (symlink("../out", path) < 0)
        abort();
    snprintf(path, sizeof path, "%s/f", share_folder.inside);
    mkfifo(path, 0600);
}

/* The canary is as it was made, and alone. */
static inline void share_fuzz_check(void)
{
    char path[128], text[64] = "";
    struct stat now;
    snprintf(path, sizeof path, "%s/out/canary", share_folder.path);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0 || strcmp(text, SHARE_FUZZ_SECRET) != 0)
        abort();
    if (fstat(fd, &now) < 0 || now.st_ino != share_folder.canary_ino || now.st_nlink != 1 || now.st_mode != share_folder.canary_mode)
        abort();
    close(fd);
}

/* ---- requests ---- */

/* What earlier replies gave. */
struct share_fuzz {
    uint64_t nodes[SHARE_FUZZ_KNOWN], handles[SHARE_FUZZ_KNOWN];
    unsigned node, handle;
};

static inline void share_fuzz_begin(struct share_fuzz *fuzz)
{
    *fuzz = (struct share_fuzz){.nodes = {FUSE_ROOT_ID}};
}

/* Makes the request of a record with `length` bytes of its own; returns how long it is. */
static inline size_t share_fuzz_request(const struct share_fuzz *fuzz, const uint8_t *record, size_t length,
                                        uint8_t ret_request[static SHARE_FUZZ_REQUEST])
{
    struct fuse_in_header header = {.len = (uint32_t)(sizeof header + length), .opcode = record[0], .unique = 1};
    const unsigned known = SHARE_FUZZ_KNOWN;
    header.nodeid = record[1] < known ? fuzz->nodes[record[1]] : record[1] < 128 ? FUSE_ROOT_ID : record[1] * UINT64_C(0x10001);
    memcpy(ret_request + sizeof header, record + SHARE_FUZZ_RECORD, length);
    if (record[2] < known && length >= sizeof(uint64_t))
        memcpy(ret_request + sizeof header, &fuzz->handles[record[2]], sizeof(uint64_t));
    else if (record[2] < 2 * known && length >= sizeof(uint64_t))
        memcpy(ret_request + sizeof header, &fuzz->nodes[record[2] - known], sizeof(uint64_t));
    if (record[2] == 255) /* a request that is not as long as it says */
        header.len = record[1] * 3u;
    memcpy(ret_request, &header, sizeof header);
    return sizeof header + length;
}

/* Remembers the numbers that a reply of `length` bytes gave, which follow its header. Returns the inode that it names, or 0. */
static inline uint64_t share_fuzz_learn(struct share_fuzz *fuzz, uint32_t opcode, const uint8_t *reply, size_t length)
{
    const struct fuse_out_header *header = (const void *)reply;
    const uint8_t *body = reply + sizeof *header;
    bool entry = opcode == FUSE_LOOKUP || opcode == FUSE_CREATE || opcode == FUSE_MKDIR || opcode == FUSE_MKNOD ||
                 opcode == FUSE_SYMLINK || opcode == FUSE_LINK || opcode == FUSE_TMPFILE;
    bool opened = opcode == FUSE_OPEN || opcode == FUSE_OPENDIR;
    uint64_t inode = 0;
    if (length < sizeof *header || header->error)
        return 0;
    if (entry) {
        inode = ((const struct fuse_entry_out *)body)->attr.ino;
        memcpy(&fuzz->nodes[fuzz->node++ % SHARE_FUZZ_KNOWN], body, sizeof(uint64_t));
        body += sizeof(struct fuse_entry_out);
        opened = opcode == FUSE_CREATE || opcode == FUSE_TMPFILE;
    }
    if (opened)
        memcpy(&fuzz->handles[fuzz->handle++ % SHARE_FUZZ_KNOWN], body, sizeof(uint64_t));
    return inode;
}

#endif
