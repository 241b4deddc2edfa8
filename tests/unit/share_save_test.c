/* share_save_test.c - a session that is saved and goes on in another server of the same folder. */
#include "check.h"
#include "share_client.h"

static char folder[] = "/tmp/veneer-save-XXXXXX";
static struct client client;

static void open_share(const char *path, bool read_only, unsigned descriptors)
{
    struct share_config config = {.folder = path, .read_only = read_only, .descriptors = descriptors};
    struct error error;
    struct share *share;
    if (share_open(&config, &share, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        exit(1);
    }
    client_init(&client, share);
}

static void close_share(void)
{
    share_close(client.share);
    client_free(&client);
}

/* The saved bytes, which the caller frees; NULL and the reason when it cannot be saved. */
static uint8_t *save(size_t *ret_length, struct error *error)
{
    struct stream *stream = stream_new();
    share_save(client.share, stream);
    uint8_t *copy = NULL;
    if (stream_status(stream, error) == 0) {
        const void *bytes = stream_bytes(stream, ret_length);
        copy = malloc(*ret_length);
        if (copy)
            memcpy(copy, bytes, *ret_length);
    }
    stream_free(stream);
    return copy;
}

static int load(const uint8_t *bytes, size_t length, struct error *error)
{
    struct stream *stream = stream_open(bytes, length);
    share_load(client.share, stream);
    int r = stream_status(stream, error);
    stream_free(stream);
    return r;
}

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void test_going_on(unsigned descriptors)
{
    enum { FILES = 100 };
    uint64_t node[FILES], fh, dir_fh, made;
    struct fuse_attr attr;
    struct error error;
    size_t length;
    char name[32];
    open_share(folder, false, descriptors);
    CHECK_EQ(client_start(&client), 0);
    mkdir(path_of("d"), 0755);
    uint64_t dir = client_lookup(&client, FUSE_ROOT_ID, "d");
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "d/f%u", i);
        client_put_file(folder, name, name);
        node[i] = client_lookup(&client, dir, name + 2);
        CHECK(node[i] != 0);
    }
    CHECK_EQ(client_create(&client, dir, "new", O_RDWR | O_TRUNC, 0600, &made, &fh), 0);
    CHECK_EQ(client_write(&client, made, fh, 0, "before", 6), 0);
    CHECK_EQ(client_rename(&client, dir, "new", FUSE_ROOT_ID, "renamed (deleted)", 0), 0);
    CHECK_EQ(client_open(&client, dir, O_DIRECTORY, &dir_fh), 0);
    uint8_t *saved = save(&length, &error);
    CHECK(saved != NULL);
    close_share();

    /* Meanwhile the host takes one away and puts another in its place. */
    CHECK_EQ(unlink(path_of("d/f7")), 0);
    client_put_file(folder, "d/f7", "another");
    open_share(folder, false, descriptors);
    CHECK_EQ(load(saved, length, &error), 0);
    CHECK(share_in_use(client.share));
    for (unsigned i = 0; i < FILES; i++) {
        int r = client_getattr(&client, node[i], &attr);
        if (i == 7)
            CHECK_EQ(r, -ESTALE);
        else
            CHECK(r == 0 || (descriptors && r == -ESTALE)); /* fewer places than before: some are stale */
    }
    if (!descriptors) {
        CHECK_EQ(client_write(&client, made, fh, 6, " and after", 10), 0);
        CHECK_EQ(client_read(&client, made, fh, 0, 100), 0);
        CHECK(client.length == 16 && memcmp(client_body(&client), "before and after", 16) == 0);
        struct fuse_read_in in = {.fh = dir_fh, .size = 4096};
        CHECK_EQ(client_call(&client, FUSE_READDIR, dir, &in, sizeof in, NULL, 0, 4096), 0);
        CHECK(client.length > 1000);
        CHECK_EQ(client_lookup(&client, dir, "f3"), node[3]);
        uint64_t fresh = client_lookup(&client, dir, "f7");
        CHECK(fresh > made); /* no number is used again */
        uint64_t other_fh;
        CHECK_EQ(client_open(&client, node[3], O_RDONLY, &other_fh), 0);
        CHECK(other_fh != fh && other_fh != dir_fh);
        CHECK_EQ(client_release(&client, made, fh), 0);
        CHECK_EQ(client_release(&client, made, fh), -EBADF);
    }
    close_share();

    open_share(folder, true, 0);
    CHECK(load(saved, length, &error) < 0);
    CHECK(strstr(error.text, "writable") != NULL);
    CHECK(!share_in_use(client.share));
    close_share();
    free(saved);
    client_remove_tree(path_of("d"));
    unlink(path_of("renamed (deleted)"));
}

/* An open file that has no name cannot be found again; one that is not open need not. */
static void test_nameless(void)
{
    uint64_t node, fh;
    struct error error;
    size_t length;
    open_share(folder, false, 0);
    CHECK_EQ(client_start(&client), 0);
    CHECK_EQ(client_create(&client, FUSE_ROOT_ID, "gone", O_RDWR, 0600, &node, &fh), 0);
    CHECK_EQ(client_unlink(&client, FUSE_ROOT_ID, "gone"), 0);
    CHECK(save(&length, &error) == NULL);
    CHECK(strstr(error.text, "no name") != NULL);
    CHECK_EQ(client_release(&client, node, fh), 0);
    uint8_t *saved = save(&length, &error);
    CHECK(saved != NULL);
    free(saved);
    close_share();
}

/* Every short and many wrong streams: an error or a state, never more; and nothing outside the folder. */
static void test_hostile(void)
{
    uint64_t node, fh;
    struct error error;
    struct fuse_attr attr;
    size_t length;
    char inside[128];
    snprintf(inside, sizeof inside, "%s/in", folder);
    mkdir(inside, 0755);
    client_put_file(folder, "aa", "outside");
    client_put_file(inside, "aaaaa", "inside");
    open_share(inside, false, 0);
    CHECK_EQ(client_start(&client), 0);
    node = client_lookup(&client, FUSE_ROOT_ID, "aaaaa");
    CHECK_EQ(client_open(&client, node, O_RDWR, &fh), 0);
    uint8_t *saved = save(&length, &error);
    close_share();
    if (!saved)
        exit(1);
    open_share(inside, false, 0);
    for (size_t i = 0; i < length; i++)
        CHECK(load(saved, i, &error) < 0);
    for (size_t i = 0; i < length; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            saved[i] ^= (uint8_t)(1u << bit);
            if (load(saved, length, &error) == 0)
                share_reset(client.share);
            saved[i] ^= (uint8_t)(1u << bit);
        }
    uint8_t *path = memmem(saved, length, "aaaaa", 5);
    CHECK(path != NULL);
    memcpy(path, "../aa", 5);
    CHECK_EQ(load(saved, length, &error), 0); /* as if it were gone */
    CHECK_EQ(client_getattr(&client, node, &attr), -ESTALE);
    CHECK_EQ(client_read(&client, node, fh, 0, 10), -ESTALE);
    close_share();
    free(saved);
}

int main(void)
{
    client_make_folder(folder);
    test_going_on(0);
    test_going_on(40);
    test_nameless();
    test_hostile();
    client_remove_tree(folder);
    CHECK_DONE();
}
