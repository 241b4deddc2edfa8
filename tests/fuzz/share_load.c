/* share_load.c - the saved form of a share with any changes, loaded over its folder, which has another file beside it; then a few
 * requests. */
#include "share_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64], inside[80];
static uint64_t outside_ino;

static void leave(void)
{
    client_remove_tree(folder);
}

static void make_folder(void)
{
    char path[128];
    struct stat about;
    snprintf(folder, sizeof folder, "%s/veneer-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    client_make_folder(folder);
    atexit(leave);
    snprintf(inside, sizeof inside, "%s/in", folder);
    mkdir(inside, 0755);
    client_put_file(folder, "b", "outside");
    client_put_file(inside, "a", "inside");
    snprintf(path, sizeof path, "%s/d", inside);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/l", inside);
    if (symlink("../b", path) < 0)
        abort();
    snprintf(path, sizeof path, "%s/b", folder);
    outside_ino = stat(path, &about) == 0 ? about.st_ino : 0;
}

/* The saved form of a session with three files known and two open. */
static struct stream *save_session(void)
{
    struct share_config config = {.folder = inside};
    struct client client;
    struct share *share;
    uint64_t node, fh;
    if (share_open(&config, &share, NULL) < 0)
        abort();
    client_init(&client, share);
    client_start(&client);
    node = client_lookup(&client, FUSE_ROOT_ID, "a");
    client_open(&client, node, O_RDWR, &fh);
    client_lookup(&client, FUSE_ROOT_ID, "l");
    client_open(&client, client_lookup(&client, FUSE_ROOT_ID, "d"), O_DIRECTORY, &fh);
    struct stream *stream = stream_new();
    if (!stream)
        abort();
    share_save(share, stream);
    client_free(&client);
    share_close(share);
    return stream;
}

/* Changes a valid saved form: each three bytes of the input are a place and its new value; 0xffff and n: shorter by n. */
static size_t change(uint8_t *bytes, size_t length, const uint8_t *data, size_t size)
{
    for (; size >= 3; data += 3, size -= 3) {
        size_t place = (size_t)data[0] << 8 | data[1];
        if (place == 0xffff)
            length -= data[2] < length ? data[2] : length;
        else if (place < length)
            bytes[place] = data[2];
    }
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct share_config config = {.descriptors = 16};
    struct client client;
    struct share *share;
    struct fuse_attr attr;
    size_t length;
    if (!folder[0])
        make_folder();
    config.folder = inside;
    struct stream *saved = save_session();
    const void *bytes = stream_bytes(saved, &length);
    uint8_t *copy = malloc(length);
    if (!copy || share_open(&config, &share, NULL) < 0)
        abort();
    memcpy(copy, bytes, length);
    struct stream *stream = stream_open(copy, change(copy, length, data, size));
    if (!stream)
        abort();
    share_load(share, stream);
    if (stream_status(stream, NULL) < 0 && share_in_use(share))
        abort();
    if (size < 3 && stream_status(stream, NULL) < 0)
        abort(); /* unchanged, it loads */
    stream_free(stream);
    stream_free(saved);
    free(copy);
    client_init(&client, share);
    for (uint64_t node = 1; node < 8; node++) {
        if (client_getattr(&client, node, &attr) == 0 && attr.ino == outside_ino)
            abort();
        client_read(&client, node, UINT64_C(0x100000000) + node - 2, 0, 16);
        client_lookup(&client, node, "a");
    }
    client_free(&client);
    share_close(share);
    return 0;
}
