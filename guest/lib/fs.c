/* fs.c - see fs.h. */
#include "fs.h"

enum { FUSE_LOOKUP = 1, FUSE_OPEN = 14, FUSE_READ = 15, FUSE_INIT = 26 };
#define FUSE_MAJOR 7u
#define FUSE_MINOR 31u
#define FUSE_ROOT 1u
#define REQUESTS 1u /* the index of the queue that takes them; queue 0 is for the urgent */
#define FILE_BYTES 64u

struct in_header {
    u32 length, opcode;
    u64 unique, node;
    u32 uid, gid, pid, padding;
};
struct out_header {
    u32 length;
    int32_t error;
    u64 unique;
};

static u64 node, handle;
static struct exchange {
    struct in_header in;
    u8 body[64]; /* of the request */
    struct out_header out;
    u8 reply[160];
} exchange, flood[16];

struct read_body {
    u64 handle, offset;
    u32 size, read_flags;
    u64 lock_owner;
    u32 flags, padding;
};

static bool submit(struct virtio *virtio, struct exchange *to, u32 opcode, u64 at, u32 body, u32 reply)
{
    static u64 unique;
    to->in = (struct in_header){ .length = (u32)sizeof to->in + body, .opcode = opcode, .unique = ++unique, .node = at };
    memset(&to->out, 0, sizeof to->out);
    struct buffer buffers[2] = { { (u64)&to->in, (u32)sizeof to->in + body, false },
                                 { (u64)&to->out, (u32)sizeof to->out + reply, true } };
    return queue_add(&virtio->queue[REQUESTS], buffers, 2, to, false);
}

/* The body is in exchange.body; the reply comes to exchange.reply. Returns its length, or -1. */
static int ask(struct virtio *virtio, u32 opcode, u64 at, u32 body, u32 reply)
{
    u32 written;
    if (!submit(virtio, &exchange, opcode, at, body, reply))
        return -1;
    queue_kick(&virtio->queue[REQUESTS]);
    if (queue_wait(&virtio->queue[REQUESTS], &written) != &exchange || exchange.out.error != 0 ||
        exchange.out.unique != exchange.in.unique || exchange.out.length != written || written < sizeof exchange.out)
        return -1;
    return (int)(written - sizeof exchange.out);
}

bool fs_open(struct virtio *virtio, const char *name)
{
    u32 *words = (u32 *)exchange.body, length = 0;
    memset(exchange.body, 0, sizeof exchange.body);
    words[0] = FUSE_MAJOR;
    words[1] = FUSE_MINOR;
    if (ask(virtio, FUSE_INIT, 0, 16, 64) < 24 || *(u32 *)exchange.reply != FUSE_MAJOR)
        return false;
    while (length + 1 < sizeof exchange.body && (exchange.body[length] = (u8)name[length]))
        length++;
    exchange.body[length] = 0;
    if (ask(virtio, FUSE_LOOKUP, FUSE_ROOT, length + 1, 128) != 128)
        return false;
    node = *(u64 *)exchange.reply;
    memset(exchange.body, 0, 8);
    if (ask(virtio, FUSE_OPEN, node, 8, 16) != 16)
        return false;
    handle = *(u64 *)exchange.reply;
    return true;
}

int fs_read(struct virtio *virtio, void *data, u32 length)
{
    struct read_body body = { .handle = handle, .size = length <= FILE_BYTES ? length : FILE_BYTES };
    memcpy(exchange.body, &body, sizeof body);
    int got = ask(virtio, FUSE_READ, node, sizeof body, body.size);
    if (got > 0)
        memcpy(data, exchange.reply, (size_t)got);
    return got;
}

void fs_flood(struct virtio *virtio, unsigned count)
{
    struct read_body body = { .handle = handle, .size = FILE_BYTES };
    for (unsigned i = 0; i < count && i < sizeof flood / sizeof flood[0]; i++) {
        memcpy(flood[i].body, &body, sizeof body);
        submit(virtio, &flood[i], FUSE_READ, node, sizeof body, body.size);
    }
    queue_notify(&virtio->queue[REQUESTS]);
}
