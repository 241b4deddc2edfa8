/* share.c - any bytes as a guest's requests to the FUSE server, over a small folder with a canary beside it.
 *
 * Input: requests one after the other, each [operation][node][handle][room][length][bytes]. "node" and "handle" choose among what
 * earlier replies gave, or wild numbers; "room" is that of the reply in units of 16 bytes; the bytes follow the header. */
#include <sys/resource.h>

#include "share_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KNOWN 16u
#define SECRET "the canary's secret"

struct fuzz {
    struct share *share;
    uint64_t nodes[KNOWN], handles[KNOWN];
    unsigned node, handle;
    uint8_t request[512], reply[16 * 256];
};

static char folder[64], inside[80];
static uint64_t outside_ino, canary_ino; /* no reply may name them: all access starts with an entry */
static uint32_t canary_mode;

static void make_folder(void)
{
    static const struct rlimit small = {4 << 20, 4 << 20};
    char path[128];
    if (folder[0])
        return;
    snprintf(folder, sizeof folder, "%s/veneer-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    client_make_folder(folder);
    snprintf(inside, sizeof inside, "%s/in", folder);
    snprintf(path, sizeof path, "%s/out", folder);
    mkdir(path, 0755);
    setrlimit(RLIMIT_FSIZE, &small); /* an FALLOCATE must not fill the disk */
}

static void leave(void)
{
    client_remove_tree(folder);
}

/* The same few files every time. */
static void fill_folder(void)
{
    char path[128];
    struct stat now;
    client_put_file(folder, "out/canary", SECRET);
    snprintf(path, sizeof path, "%s/out", folder);
    outside_ino = stat(path, &now) == 0 ? now.st_ino : 0;
    snprintf(path, sizeof path, "%s/out/canary", folder);
    canary_ino = stat(path, &now) == 0 ? now.st_ino : 0;
    canary_mode = now.st_mode;
    mkdir(inside, 0755);
    client_put_file(inside, "a", "first file");
    snprintf(path, sizeof path, "%s/d", inside);
    mkdir(path, 0755);
    client_put_file(inside, "d/b", "second file");
    snprintf(path, sizeof path, "%s/l", inside);
    if (symlink("../out/canary", path) < 0)
        abort();
    snprintf(path, sizeof path, "%s/m", inside);
    if (symlink("../out", path) < 0)
        abort();
    snprintf(path, sizeof path, "%s/f", inside);
    mkfifo(path, 0600);
}

/* The canary is as it was made, and alone. */
static void check_canary(void)
{
    char path[128], text[64] = "";
    struct stat now;
    snprintf(path, sizeof path, "%s/out/canary", folder);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0 || strcmp(text, SECRET) != 0)
        abort();
    if (fstat(fd, &now) < 0 || now.st_ino != canary_ino || now.st_nlink != 1 || now.st_mode != canary_mode)
        abort();
    close(fd);
}

/* Remembers the numbers that a reply gave. */
static void learn(struct fuzz *fuzz, uint32_t opcode, size_t length)
{
    const struct fuse_out_header *header = (const void *)fuzz->reply;
    const uint8_t *body = fuzz->reply + sizeof *header;
    bool entry = opcode == FUSE_LOOKUP || opcode == FUSE_CREATE || opcode == FUSE_MKDIR || opcode == FUSE_MKNOD ||
                 opcode == FUSE_SYMLINK || opcode == FUSE_LINK || opcode == FUSE_TMPFILE;
    bool opened = opcode == FUSE_OPEN || opcode == FUSE_OPENDIR;
    if (length > sizeof fuzz->reply || (length && header->len != length) || (length && header->error > 0))
        abort();
    if (length < sizeof *header || header->error)
        return;
    if (entry) {
        const struct fuse_entry_out *out = (const void *)body;
        if (out->attr.ino == outside_ino || out->attr.ino == canary_ino)
            abort();
        memcpy(&fuzz->nodes[fuzz->node++ % KNOWN], body, sizeof(uint64_t));
        body += sizeof(struct fuse_entry_out);
        opened = opcode == FUSE_CREATE || opcode == FUSE_TMPFILE;
    }
    if (opened)
        memcpy(&fuzz->handles[fuzz->handle++ % KNOWN], body, sizeof(uint64_t));
}

static void send_request(struct fuzz *fuzz, const uint8_t *record, size_t length)
{
    struct fuse_in_header header = {.len = (uint32_t)(sizeof header + length), .opcode = record[0], .unique = 1};
    header.nodeid = record[1] < KNOWN ? fuzz->nodes[record[1]] : record[1] < 128 ? FUSE_ROOT_ID : record[1] * UINT64_C(0x10001);
    memcpy(fuzz->request + sizeof header, record + 5, length);
    if (record[2] < KNOWN && length >= sizeof(uint64_t))
        memcpy(fuzz->request + sizeof header, &fuzz->handles[record[2]], sizeof(uint64_t));
    else if (record[2] < 2 * KNOWN && length >= sizeof(uint64_t))
        memcpy(fuzz->request + sizeof header, &fuzz->nodes[record[2] - KNOWN], sizeof(uint64_t));
    if (record[2] == 255) /* a request that is not as long as it says */
        header.len = record[1] * 3u;
    memcpy(fuzz->request, &header, sizeof header);
    size_t all = sizeof header + length, half = record[3] % (all + 1);
    struct iovec in[2] = {{fuzz->request, half}, {fuzz->request + half, all - half}};
    struct iovec out[2] = {{fuzz->reply, record[3] * 4u}, {fuzz->reply + record[3] * 4u, record[3] * 12u}};
    struct share_message message = {in, 2, out, 2};
    share_may_take_long(&message);
    learn(fuzz, header.opcode, share_handle(fuzz->share, &message));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool entered;
    struct fuzz fuzz = {.nodes = {FUSE_ROOT_ID}};
    struct error error;
    make_folder();
    fill_folder();
    struct share_config config = {.folder = inside, .read_only = size % 4 == 3, .descriptors = 24};
    if (share_open(&config, &fuzz.share, &error) < 0 || (!entered && share_thread_enter(fuzz.share, &error) < 0))
        abort();
    if (!entered)
        atexit(leave);
    entered = true;
    struct client client;
    client_init(&client, fuzz.share);
    client_start(&client);
    client_free(&client);
    while (size >= 5) {
        size_t length = data[4];
        if (length > size - 5)
            length = size - 5;
        send_request(&fuzz, data, length);
        data += 5 + length;
        size -= 5 + length;
    }
    share_close(fuzz.share);
    check_canary();
    client_remove_tree(inside);
    return 0;
}
