/* share_limits_test.c - the FUSE server at its limits: more files than descriptors, offsets and lengths of every kind,
 * requests that are no requests, and a folder that leaves. */
#include "share_fixture.h"

/* Ten times more files than descriptors: all stay what they are. */
static void test_descriptors(void)
{
    const unsigned count = 600;
    uint64_t node[600], fh;
    struct fuse_attr attr;
    struct stat now;
    char name[32];
    open_share(false, 60, 0);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "d%u", i);
        client_put_file(inside, name, name);
        node[i] = client_lookup(&client, FUSE_ROOT_ID, name);
        CHECK(node[i] != 0);
    }
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "d%u", i);
        CHECK_EQ(stat(in_path(name), &now), 0);
        CHECK_EQ(client_getattr(&client, node[i], &attr), 0);
        CHECK_EQ(attr.ino, now.st_ino);
    }
    /* Renamed by the host while put away, the file is not mistaken for another; looked up again it is known. */
    CHECK_EQ(rename(in_path("d0"), in_path("elsewhere")), 0);
    client_put_file(inside, "d0", "another");
    CHECK_EQ(client_getattr(&client, node[0], &attr), -ESTALE);
    CHECK(client_lookup(&client, FUSE_ROOT_ID, "d0") != node[0]);
    CHECK_EQ(client_lookup(&client, FUSE_ROOT_ID, "elsewhere"), node[0]);
    CHECK_EQ(client_getattr(&client, node[0], &attr), 0);
    /* Unlinked by the guest while put away, an open file goes on. */
    CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "d1"), 0);
    CHECK_EQ(client_getattr(&client, node[1], &attr), 0);
    CHECK_EQ(attr.nlink, 0);
    /* As many open as there may be: a clear error, and then all goes on. */
    uint64_t open_fh[60];
    unsigned opened = 0;
    int r = 0;
    while (opened < 60 && (r = client_open(&client, node[2 + opened], O_RDONLY, &open_fh[opened])) == 0)
        opened++;
    CHECK_EQ(r, -ENFILE);
    CHECK(opened >= 20);
    for (unsigned i = 0; i < opened; i++)
        CHECK_EQ(client_release(&client, node[2 + i], open_fh[i]), 0);
    CHECK_EQ(client_open(&client, node[500], O_RDONLY, &fh), 0);
    CHECK_EQ(client_read(&client, node[500], fh, 0, 10), 0);
    CHECK(memcmp(client_body(&client), "d500", 4) == 0);
    close_share();
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "d%u", i);
        unlink(in_path(name));
    }
    unlink(in_path("elsewhere"));

    open_share(false, 0, 3); /* the root and two more */
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "1", O_RDWR, 0600, &node[1], &fh), 0);
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "2", O_RDWR, 0600, &node[2], &fh), 0);
    client_put_file(inside, "3", "");
    CHECK_EQ(client_lookup(&client, FUSE_ROOT_ID, "3"), 0);
    CHECK_EQ(errno, ENFILE);
    CHECK_EQ(client_release(&client, node[2], fh), 0);
    client_forget(&client, node[2], 1);
    CHECK(client_lookup(&client, FUSE_ROOT_ID, "3") != 0);
    for (char digit[] = "1"; digit[0] <= '3'; digit[0]++)
        unlink(in_path(digit));
    close_share();
}

/* A folder that the host moves out of the share: the guest keeps what it holds, as with any descriptor, and gets no further. */
static void test_moved_out(void)
{
    char away[128];
    uint64_t fh;
    snprintf(away, sizeof away, "%s/away", outside);
    mkdir(in_path("moves"), 0755);
    client_put_file(inside, "moves/mine", "mine");
    open_share(false, 0, 0);
    uint64_t node = client_lookup(&client, FUSE_ROOT_ID, "moves");
    CHECK_EQ(rename(in_path("moves"), away), 0);
    CHECK_EQ(client_lookup(&client, FUSE_ROOT_ID, "moves"), 0);
    CHECK_EQ(client_lookup(&client, node, ".."), 0);
    CHECK_EQ(errno, EINVAL);
    CHECK_EQ(client_open(&client, node, O_DIRECTORY, &fh), 0);
    CHECK(client_lookup(&client, node, "mine") != 0);
    client_forget(&client, client_lookup(&client, node, "mine"), 2);
    CHECK_EQ(client_call(&client, FUSE_RELEASEDIR, node, &(struct fuse_release_in){.fh = fh}, sizeof(struct fuse_release_in), NULL, 0, 0), 0);
    client_forget(&client, node, 1);
    CHECK_EQ(client_lookup(&client, node, "mine"), 0);
    CHECK_EQ(errno, ESTALE);
    close_share();
    client_remove_tree(away);
}

static void test_ranges(void)
{
    uint64_t node, fh, node2, fh2;
    struct stat now;
    open_share(false, 0, 0);
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "p", O_RDWR, 0600, &node, &fh), 0);
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "q", O_RDWR, 0600, &node2, &fh2), 0);
    CHECK_EQ(client_write(&client, node, fh, UINT64_MAX - 3, "abcdefgh", 8), -EINVAL);
    CHECK_EQ(client_write(&client, node, fh, INT64_MAX, "a", 1), -EINVAL);
    CHECK_EQ(client_read(&client, node, fh, UINT64_MAX, 8), -EINVAL);
    CHECK_EQ(client_write(&client, node, fh2, 0, "a", 1), -EBADF); /* another file's handle */
    CHECK_EQ(client_write(&client, node, fh, 100000, "tail", 4), 0);
    struct fuse_write_in more = {.fh = fh, .size = 100};
    CHECK_EQ(client_call(&client, FUSE_WRITE, node, &more, sizeof more, "short", 5, 8), -EINVAL);
    struct fuse_lseek_in seek = {.fh = fh, .offset = 0, .whence = SEEK_DATA};
    CHECK_EQ(client_call(&client, FUSE_LSEEK, node, &seek, sizeof seek, NULL, 0, 8), 0);
    seek.whence = SEEK_END;
    CHECK_EQ(client_call(&client, FUSE_LSEEK, node, &seek, sizeof seek, NULL, 0, 8), -EINVAL);
    struct fuse_copy_file_range_in copy = {.fh_in = fh, .off_in = 100000, .nodeid_out = node2, .fh_out = fh2, .len = UINT64_MAX};
    CHECK_EQ(client_call(&client, FUSE_COPY_FILE_RANGE, node, &copy, sizeof copy, NULL, 0, 8), 0);
    CHECK_EQ(*(uint32_t *)client_body(&client), 4);
    CHECK_EQ(client_read(&client, node2, fh2, 0, 8), 0);
    CHECK(client.length == 4 && memcmp(client_body(&client), "tail", 4) == 0);
    struct fuse_fallocate_in fall = {.fh = fh, .offset = 0, .length = 8192};
    int r = client_call(&client, FUSE_FALLOCATE, node, &fall, sizeof fall, NULL, 0, 0);
    CHECK(r == 0 || r == -EOPNOTSUPP);
    fall.mode = 0x40000000;
    CHECK_EQ(client_call(&client, FUSE_FALLOCATE, node, &fall, sizeof fall, NULL, 0, 0), -EOPNOTSUPP);
    struct fuse_fsync_in sync = {.fh = fh};
    CHECK_EQ(client_call(&client, FUSE_FSYNC, node, &sync, sizeof sync, NULL, 0, 0), 0);
    CHECK_EQ(client_call(&client, FUSE_FSYNCDIR, node, &sync, sizeof sync, NULL, 0, 0), -EBADF);
    r = client_call(&client, FUSE_FLUSH, node, &(struct fuse_flush_in){.fh = fh}, sizeof(struct fuse_flush_in), NULL, 0, 0);
    CHECK(r == 0 || r == -ENOSYS);
    CHECK_EQ(client_call(&client, FUSE_STATFS, FUSE_ROOT_ID, NULL, 0, NULL, 0, sizeof(struct fuse_statfs_out)), 0);
    CHECK(((struct fuse_statfs_out *)client_body(&client))->st.blocks > 0);
    CHECK_EQ(stat(in_path("p"), &now), 0);
    CHECK_EQ(now.st_size, 100004);
    client_unlink(&client, FUSE_ROOT_ID, "p");
    client_unlink(&client, FUSE_ROOT_ID, "q");
    close_share();
}

/* Every operation with every length of request, in pieces of one byte, and with hardly any room for a reply. */
static void test_lengths(void)
{
    uint8_t request[256], reply[64];
    struct iovec in[256], out[64];
    open_share(false, 0, 0);
    for (uint32_t opcode = 0; opcode < 60; opcode++) {
        for (size_t length = 0; length <= 160; length += length < 48 ? 1 : 8) {
            memset(request, 0, sizeof request);
            struct fuse_in_header header = {.len = (uint32_t)length, .opcode = opcode, .unique = 7, .nodeid = FUSE_ROOT_ID};
            memcpy(request, &header, sizeof header);
            for (size_t i = 0; i < length; i++)
                in[i] = (struct iovec){&request[i], 1};
            for (size_t room = 0; room <= 64; room += 16) {
                for (size_t i = 0; i < room; i++)
                    out[i] = (struct iovec){&reply[i], 1};
                struct share_message message = {in, (unsigned)length, out, (unsigned)room};
                share_may_take_long(&message);
                size_t answer = share_handle(client.share, &message);
                CHECK(answer <= room);
                CHECK(answer == 0 || ((struct fuse_out_header *)reply)->len == answer);
            }
        }
    }
    struct fuse_in_header liar = {.len = UINT32_MAX, .opcode = FUSE_GETATTR, .nodeid = FUSE_ROOT_ID};
    struct iovec one = {&liar, sizeof liar}, answer = {reply, sizeof reply};
    struct share_message message = {&one, 1, &answer, 1};
    CHECK_EQ(share_handle(client.share, &message), sizeof(struct fuse_out_header));
    CHECK_EQ(((struct fuse_out_header *)reply)->error, -EINVAL);
    close_share();
}

int main(void)
{
    static void (*const tests[])(void) = {
        test_descriptors, test_moved_out, test_ranges, test_lengths};
    return share_run(tests, sizeof tests / sizeof tests[0]);
}
