/* request.c - see request.h. What one operation needs of a request stands in one table; the request is checked against it before
 * anything is done. */
#include "share/request.h"

#include <errno.h>
#include <string.h>

#include "share/private.h"

enum {
    OP_NODE = 1,     /* works on header.nodeid */
    OP_MODIFIES = 2, /* refused when read-only (opening to write is refused by the operation) */
    OP_SILENT = 4,   /* gets no reply */
    OP_EARLY = 8,    /* allowed without a session */
    OP_LONG = 16     /* may wait for a disk for seconds */
};

struct operation {
    uint32_t opcode;
    int (*run)(struct share *share, struct request *request);
    size_t argument; /* bytes of the fixed part */
    size_t reply;    /* room that the reply's body needs */
    unsigned flags;
};

#define ENTRY sizeof(struct fuse_entry_out)
#define ATTR sizeof(struct fuse_attr_out)
#define OPENED sizeof(struct fuse_open_out)

static const struct operation operations[] = {
    {FUSE_INIT, op_init, 4 * sizeof(uint32_t), sizeof(struct fuse_init_out), OP_EARLY},
    {FUSE_DESTROY, op_destroy, 0, 0, OP_EARLY},
    {FUSE_LOOKUP, op_lookup, 0, ENTRY, OP_NODE},
    {FUSE_FORGET, op_forget, sizeof(struct fuse_forget_in), 0, OP_SILENT},
    {FUSE_BATCH_FORGET, op_batch_forget, sizeof(struct fuse_batch_forget_in), 0, OP_SILENT},
    {FUSE_GETATTR, op_getattr, sizeof(struct fuse_getattr_in), ATTR, OP_NODE},
    {FUSE_SETATTR, op_setattr, sizeof(struct fuse_setattr_in), ATTR, OP_NODE | OP_MODIFIES},
    {FUSE_READLINK, op_readlink, 0, 0, OP_NODE},
    {FUSE_SYMLINK, op_symlink, 0, ENTRY, OP_NODE | OP_MODIFIES},
    {FUSE_MKNOD, op_mknod, sizeof(struct fuse_mknod_in), ENTRY, OP_NODE | OP_MODIFIES},
    {FUSE_MKDIR, op_mkdir, sizeof(struct fuse_mkdir_in), ENTRY, OP_NODE | OP_MODIFIES},
    {FUSE_UNLINK, op_unlink, 0, 0, OP_NODE | OP_MODIFIES},
    {FUSE_RMDIR, op_rmdir, 0, 0, OP_NODE | OP_MODIFIES},
    {FUSE_RENAME, op_rename, sizeof(struct fuse_rename_in), 0, OP_NODE | OP_MODIFIES},
    {FUSE_RENAME2, op_rename2, sizeof(struct fuse_rename2_in), 0, OP_NODE | OP_MODIFIES},
    {FUSE_LINK, op_link, sizeof(struct fuse_link_in), ENTRY, OP_NODE | OP_MODIFIES},
    {FUSE_OPEN, op_open, sizeof(struct fuse_open_in), OPENED, OP_NODE},
    {FUSE_READ, op_read, sizeof(struct fuse_read_in), 0, OP_NODE},
    {FUSE_WRITE, op_write, sizeof(struct fuse_write_in), sizeof(struct fuse_write_out), OP_NODE | OP_MODIFIES},
    {FUSE_STATFS, op_statfs, 0, sizeof(struct fuse_statfs_out), OP_NODE},
    {FUSE_RELEASE, op_release, sizeof(struct fuse_release_in), 0, OP_NODE},
    {FUSE_FSYNC, op_fsync, sizeof(struct fuse_fsync_in), 0, OP_NODE | OP_LONG},
    {FUSE_SETXATTR, op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE, 0, OP_NODE | OP_MODIFIES},
    {FUSE_GETXATTR, op_getxattr, sizeof(struct fuse_getxattr_in), sizeof(struct fuse_getxattr_out), OP_NODE},
    {FUSE_LISTXATTR, op_listxattr, sizeof(struct fuse_getxattr_in), sizeof(struct fuse_getxattr_out), OP_NODE},
    {FUSE_REMOVEXATTR, op_removexattr, 0, 0, OP_NODE | OP_MODIFIES},
    {FUSE_FLUSH, op_flush, sizeof(struct fuse_flush_in), 0, OP_NODE},
    {FUSE_OPENDIR, op_opendir, sizeof(struct fuse_open_in), OPENED, OP_NODE},
    {FUSE_READDIR, op_readdir, sizeof(struct fuse_read_in), 0, OP_NODE},
    {FUSE_READDIRPLUS, op_readdirplus, sizeof(struct fuse_read_in), 0, OP_NODE},
    {FUSE_RELEASEDIR, op_release, sizeof(struct fuse_release_in), 0, OP_NODE},
    {FUSE_FSYNCDIR, op_fsync, sizeof(struct fuse_fsync_in), 0, OP_NODE | OP_LONG},
    {FUSE_ACCESS, op_access, sizeof(struct fuse_access_in), 0, OP_NODE},
    {FUSE_CREATE, op_create, sizeof(struct fuse_create_in), ENTRY + OPENED, OP_NODE | OP_MODIFIES},
    {FUSE_TMPFILE, op_tmpfile, sizeof(struct fuse_create_in), ENTRY + OPENED, OP_NODE | OP_MODIFIES},
    {FUSE_FALLOCATE, op_fallocate, sizeof(struct fuse_fallocate_in), 0, OP_NODE | OP_MODIFIES | OP_LONG},
    {FUSE_LSEEK, op_lseek, sizeof(struct fuse_lseek_in), sizeof(struct fuse_lseek_out), OP_NODE},
    {FUSE_COPY_FILE_RANGE, op_copy_file_range, sizeof(struct fuse_copy_file_range_in), sizeof(struct fuse_write_out),
     OP_NODE | OP_MODIFIES | OP_LONG},
    {FUSE_SYNCFS, op_syncfs, 0, 0, OP_NODE | OP_LONG},
};

static const struct operation *find_operation(uint32_t opcode)
{
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (operations[i].opcode == opcode)
            return &operations[i];
    return NULL;
}

/* The bytes in iovecs, saturating: they are host pointers, but their number is the guest's. */
static size_t iov_bytes(const struct iovec *iov, unsigned count)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        if (__builtin_add_overflow(bytes, iov[i].iov_len, &bytes))
            return SIZE_MAX;
    return bytes;
}

void cursor_advance(struct cursor *cursor, size_t length)
{
    while (length > 0 && cursor->count > 0) {
        size_t here = cursor->iov->iov_len - cursor->skip;
        if (length < here) {
            cursor->skip += length;
            return;
        }
        length -= here;
        cursor->iov++;
        cursor->count--;
        cursor->skip = 0;
    }
}

unsigned cursor_slice(const struct cursor *cursor, size_t length, struct iovec *ret_iov, unsigned max, size_t *ret_bytes)
{
    size_t skip = cursor->skip;
    unsigned used = 0;
    *ret_bytes = 0;
    for (unsigned i = 0; i < cursor->count && length > 0 && used < max; i++, skip = 0) {
        size_t here = cursor->iov[i].iov_len - skip;
        if (here > length)
            here = length;
        if (here == 0)
            continue;
        ret_iov[used++] = (struct iovec){(uint8_t *)cursor->iov[i].iov_base + skip, here};
        *ret_bytes += here;
        length -= here;
    }
    return used;
}

/* Copies from where the cursor is, without moving it; the caller knows that there is as much. */
static void cursor_peek(const struct cursor *cursor, uint8_t *ret_bytes, size_t length)
{
    size_t skip = cursor->skip;
    for (unsigned i = 0; i < cursor->count && length > 0; i++, skip = 0) {
        size_t here = cursor->iov[i].iov_len - skip;
        if (here > length)
            here = length;
        if (here > 0)
            memcpy(ret_bytes, (const uint8_t *)cursor->iov[i].iov_base + skip, here);
        ret_bytes += here;
        length -= here;
    }
    __asm__ volatile("" ::: "memory"); /* the guest may change it now: the compiler must not read it again */
}

/* Copies to where the cursor is and moves it on. */
static void cursor_put(struct cursor *cursor, const uint8_t *bytes, size_t length)
{
    while (length > 0 && cursor->count > 0) {
        size_t here = cursor->iov->iov_len - cursor->skip;
        if (here > length)
            here = length;
        if (here > 0)
            memcpy((uint8_t *)cursor->iov->iov_base + cursor->skip, bytes, here);
        cursor_advance(cursor, here);
        if (here == 0) { /* an empty iovec */
            cursor->iov++;
            cursor->count--;
            cursor->skip = 0;
        }
        bytes += here;
        length -= here;
    }
}

int request_take(struct request *request, void *ret_bytes, size_t length)
{
    if (length > request->in_left)
        return -EINVAL;
    cursor_peek(&request->in, ret_bytes, length);
    cursor_advance(&request->in, length);
    request->in_left -= length;
    return 0;
}

int request_take_string(struct request *request, char *ret_text, size_t size)
{
    size_t length = request->in_left < size ? request->in_left : size;
    cursor_peek(&request->in, (uint8_t *)ret_text, length);
    const char *end = memchr(ret_text, '\0', length);
    if (!end)
        return request->in_left > size ? -ENAMETOOLONG : -EINVAL;
    size_t taken = (size_t)(end - ret_text) + 1;
    cursor_advance(&request->in, taken);
    request->in_left -= taken;
    return 0;
}

int request_take_name(struct request *request, char ret_name[NAME_MAX + 1])
{
    int r = request_take_string(request, ret_name, NAME_MAX + 1);
    if (r < 0)
        return r;
    if (ret_name[0] == '\0' || strchr(ret_name, '/') || strcmp(ret_name, ".") == 0 || strcmp(ret_name, "..") == 0)
        return -EINVAL;
    return 0;
}

int request_reply(struct request *request, const void *bytes, size_t length)
{
    if (length > request->out_left)
        return -EINVAL;
    cursor_put(&request->out, bytes, length);
    request->out_left -= length;
    request->out_used += length;
    return 0;
}

/* Reads the header. Returns 0, or -EINVAL for a request that is not as long as it says. */
static int request_begin(struct request *request, const struct share_message *message)
{
    size_t there = iov_bytes(message->request, message->requests);
    size_t room = iov_bytes(message->reply, message->replies);
    memset(request, 0, sizeof *request);
    request->in = (struct cursor){message->request, message->requests, 0};
    request->in_left = there;
    request->out = (struct cursor){message->reply, message->replies, 0};
    if (room >= sizeof(struct fuse_out_header)) {
        cursor_advance(&request->out, sizeof(struct fuse_out_header));
        request->out_left = room - sizeof(struct fuse_out_header);
    }
    if (request_take(request, &request->header, sizeof request->header) < 0)
        return -EINVAL;
    if (request->header.len < sizeof request->header || request->header.len > there || request->header.total_extlen)
        return -EINVAL; /* extensions were not negotiated */
    request->in_left = request->header.len - sizeof request->header;
    return 0;
}

/* Checks the request against its operation, then runs it. */
static int run_operation(struct share *share, const struct operation *operation, struct request *request)
{
    if (!(operation->flags & OP_EARLY) && !atomic_load(&share->session))
        return -EIO;
    if (request->out_left < operation->reply)
        return -EINVAL;
    int r = request_take(request, request->argument, operation->argument);
    if (r < 0)
        return r;
    if ((operation->flags & OP_MODIFIES) && share->read_only)
        return -EROFS;
    if (operation->flags & OP_NODE)
        r = inode_pin(share, request->header.nodeid, &request->inode);
    if (r == 0)
        r = operation->run(share, request);
    if (request->inode)
        inode_unpin(share, request->inode);
    return r;
}

/* Writes the header of the reply; an error has no body. Returns its length. */
static size_t request_end(const struct request *request, const struct share_message *message, int result)
{
    struct cursor start = {message->reply, message->replies, 0};
    size_t length = sizeof(struct fuse_out_header) + (result < 0 ? 0 : request->out_used);
    struct fuse_out_header header = {.len = (uint32_t)length, .error = result < 0 ? result : 0,
                                     .unique = request->header.unique};
    cursor_put(&start, (const uint8_t *)&header, sizeof header);
    return length;
}

size_t share_handle(struct share *share, const struct share_message *message)
{
    struct request request;
    bool has_room = iov_bytes(message->reply, message->replies) >= sizeof(struct fuse_out_header);
    int r = request_begin(&request, message);
    const struct operation *operation = r == 0 ? find_operation(request.header.opcode) : NULL;
    bool silent = request.header.opcode == FUSE_INTERRUPT || (operation && operation->flags & OP_SILENT);
    if (!silent && !has_room)
        return 0; /* nothing is done that could not be told */
    if (r == 0)
        r = operation ? run_operation(share, operation, &request) : -ENOSYS;
    return silent ? 0 : request_end(&request, message, r);
}

bool share_may_take_long(const struct share_message *message)
{
    struct cursor start = {message->request, message->requests, 0};
    struct fuse_in_header header;
    if (iov_bytes(message->request, message->requests) < sizeof header)
        return false;
    cursor_peek(&start, (uint8_t *)&header, sizeof header);
    const struct operation *operation = find_operation(header.opcode);
    return operation && operation->flags & OP_LONG;
}
