/* share_client.h - a guest's side of the FUSE protocol for tests: requests by hand, as one buffer each way. */
#ifndef VENEER_TESTS_SHARE_CLIENT_H
#define VENEER_TESTS_SHARE_CLIENT_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "share/share.h"

#define CLIENT_BUFFER (SHARE_IO_MAX + 4096u)

struct client {
    struct share *share;
    uint64_t unique;
    uint32_t uid, gid;
    size_t length;   /* of the last reply */
    uint8_t *request, *reply;
};

static inline void client_init(struct client *client, struct share *share)
{
    *client = (struct client){.share = share, .request = malloc(CLIENT_BUFFER), .reply = malloc(CLIENT_BUFFER)};
    if (!client->request || !client->reply)
        abort();
}

static inline void client_free(struct client *client)
{
    free(client->request);
    free(client->reply);
}

/* Sends a request of up to three parts; room: for the reply's body. Returns its error (0 or negative). */
static inline int client_call(struct client *client, uint32_t opcode, uint64_t node, const void *a, size_t a_size,
                              const void *b, size_t b_size, size_t room)
{
    struct fuse_in_header header = {.len = (uint32_t)(sizeof header + a_size + b_size), .opcode = opcode,
                                    .unique = ++client->unique, .nodeid = node, .uid = client->uid, .gid = client->gid};
    memcpy(client->request, &header, sizeof header);
    if (a_size)
        memcpy(client->request + sizeof header, a, a_size);
    if (b_size)
        memcpy(client->request + sizeof header + a_size, b, b_size);
    struct iovec in = {client->request, header.len}, out = {client->reply, sizeof(struct fuse_out_header) + room};
    struct share_message message = {&in, 1, &out, 1};
    client->length = share_handle(client->share, &message);
    struct fuse_out_header *answer = (void *)client->reply;
    if (client->length < sizeof *answer)
        return 0;
    if (answer->len != client->length || answer->unique != header.unique)
        return -EBADMSG;
    client->length -= sizeof *answer;
    return answer->error;
}

/* The last reply's body. */
static inline void *client_body(const struct client *client)
{
    return client->reply + sizeof(struct fuse_out_header);
}

static inline int client_start(struct client *client)
{
    struct fuse_init_in in = {.major = 7, .minor = 36, .max_readahead = 1 << 20, .flags = 0x7fffffff};
    return client_call(client, FUSE_INIT, 0, &in, sizeof in, NULL, 0, sizeof(struct fuse_init_out));
}

/* Looks a name up; 0 when that fails, and errno tells why. */
static inline uint64_t client_lookup(struct client *client, uint64_t folder, const char *name)
{
    int r = client_call(client, FUSE_LOOKUP, folder, name, strlen(name) + 1, NULL, 0, sizeof(struct fuse_entry_out));
    errno = -r;
    return r < 0 ? 0 : ((struct fuse_entry_out *)client_body(client))->nodeid;
}

static inline void client_forget(struct client *client, uint64_t node, uint64_t count)
{
    struct fuse_forget_in in = {count};
    client_call(client, FUSE_FORGET, node, &in, sizeof in, NULL, 0, 0);
}

static inline int client_open(struct client *client, uint64_t node, uint32_t flags, uint64_t *ret_fh)
{
    struct fuse_open_in in = {.flags = flags};
    uint32_t opcode = flags & O_DIRECTORY ? FUSE_OPENDIR : FUSE_OPEN;
    *ret_fh = 0;
    int r = client_call(client, opcode, node, &in, sizeof in, NULL, 0, sizeof(struct fuse_open_out));
    if (r == 0)
        *ret_fh = ((struct fuse_open_out *)client_body(client))->fh;
    return r;
}

static inline int client_create(struct client *client, uint64_t folder, const char *name, uint32_t flags, uint32_t mode,
                                uint64_t *ret_node, uint64_t *ret_fh)
{
    struct fuse_create_in in = {.flags = flags, .mode = S_IFREG | mode};
    *ret_node = *ret_fh = 0;
    int r = client_call(client, FUSE_CREATE, folder, &in, sizeof in, name, strlen(name) + 1,
                        sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out));
    if (r == 0) {
        *ret_node = ((struct fuse_entry_out *)client_body(client))->nodeid;
        *ret_fh = ((struct fuse_open_out *)((struct fuse_entry_out *)client_body(client) + 1))->fh;
    }
    return r;
}

static inline int client_read(struct client *client, uint64_t node, uint64_t fh, uint64_t offset, uint32_t size)
{
    struct fuse_read_in in = {.fh = fh, .offset = offset, .size = size};
    return client_call(client, FUSE_READ, node, &in, sizeof in, NULL, 0, size);
}

static inline int client_write(struct client *client, uint64_t node, uint64_t fh, uint64_t offset, const void *bytes, uint32_t size)
{
    struct fuse_write_in in = {.fh = fh, .offset = offset, .size = size};
    return client_call(client, FUSE_WRITE, node, &in, sizeof in, bytes, size, sizeof(struct fuse_write_out));
}

static inline int client_release(struct client *client, uint64_t node, uint64_t fh)
{
    struct fuse_release_in in = {.fh = fh};
    return client_call(client, FUSE_RELEASE, node, &in, sizeof in, NULL, 0, 0);
}

static inline int client_unlink(struct client *client, uint64_t folder, const char *name)
{
    return client_call(client, FUSE_UNLINK, folder, name, strlen(name) + 1, NULL, 0, 0);
}

static inline int client_rename(struct client *client, uint64_t from, const char *name, uint64_t to, const char *new_name,
                                uint32_t flags)
{
    char names[600];
    struct fuse_rename2_in in = {.newdir = to, .flags = flags};
    size_t length = strlen(name) + 1;
    if (length + strlen(new_name) + 1 > sizeof names)
        abort();
    memcpy(names, name, length);
    memcpy(names + length, new_name, strlen(new_name) + 1);
    return client_call(client, FUSE_RENAME2, from, &in, sizeof in, names, length + strlen(new_name) + 1, 0);
}

static inline int client_getattr(struct client *client, uint64_t node, struct fuse_attr *ret_attr)
{
    struct fuse_getattr_in in = {0};
    memset(ret_attr, 0, sizeof *ret_attr);
    int r = client_call(client, FUSE_GETATTR, node, &in, sizeof in, NULL, 0, sizeof(struct fuse_attr_out));
    if (r == 0)
        *ret_attr = ((struct fuse_attr_out *)client_body(client))->attr;
    return r;
}

/* ---- A folder of the host for a test ---- */

static inline int client_remove_one(const char *path, const struct stat *stat, int type, struct FTW *where)
{
    (void)where;
    if (type == FTW_DNR || (stat && S_ISDIR(stat->st_mode)))
        (void)!chmod(path, 0700);
    return remove(path), 0;
}

static inline void client_remove_tree(const char *path)
{
    nftw(path, client_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Makes a new folder; `path` holds a template that ends with XXXXXX. */
static inline void client_make_folder(char *path)
{
    if (!mkdtemp(path)) {
        perror(path);
        abort();
    }
}

static inline void client_put_file(const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0) {
        perror(path);
        abort();
    }
}

#endif
