/* The virtio file system device, against a driver of the tests' own and a folder in /tmp. */
#include "device/virtio/fs.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "device_check.h"
#include "share_client.h"
#include "support/virtio_driver.h"

#define MEMORY (UINT64_C(8) << 20)
#define RINGS 0x100000u
#define REQUEST 0x200000u
#define REPLY 0x300000u
#define VERSION_1 VIRTIO_BIT(VIRTIO_F_VERSION_1)

static char folder[] = "/tmp/veneer-fs-XXXXXX";
static struct driver_board board;
static struct driver_queue queues[2]; /* high priority, requests */
static struct virtio_device *device;

static void *resume_thread(void *context)
{
    virtio_resume(context);
    return NULL;
}

static void start_driver(void)
{
    uint64_t features = driver_offered(&board);
    CHECK(driver_negotiate(&board, features));
    for (unsigned i = 0; i < 2; i++) {
        driver_queue_init(&queues[i], &board.ram, RINGS + i * 0x40000, i, 128, features);
        driver_queue_setup(&board, &queues[i]);
    }
    driver_ok(&board);
    driver_board_settle(&board);
    CHECK_EQ(driver_status(&board), 15);
}

static void begin(void)
{
    struct error error = {""};
    pthread_t thread;
    driver_board_init(&board, MEMORY);
    struct virtio_env env = driver_board_env(&board, true);
    struct virtio_fs_config config = {.tag = "data", .share = {.folder = folder}};
    CHECK_EQ(virtio_fs_new(&env, &config, &device, &error), 0);
    driver_board_add(&board, device);
    pthread_create(&thread, NULL, resume_thread, device);
    while (pthread_tryjoin_np(thread, NULL) != 0)
        driver_board_settle(&board);
    start_driver();
}

static uint8_t *ram_at(uint64_t gpa)
{
    return ram_host(&board.ram, gpa, 1);
}

/* Queues a request; its header is one piece and its body another. Returns its bytes' place in turn. */
static void submit(unsigned queue, uint32_t opcode, uint64_t node, const void *body, uint32_t length, uint32_t room)
{
    static uint64_t unique;
    struct fuse_in_header header = {.len = (uint32_t)sizeof header + length, .opcode = opcode, .unique = ++unique, .nodeid = node};
    struct driver_piece pieces[4] = {{REQUEST, sizeof header}};
    unsigned readable = 1, writable = 0;
    memcpy(ram_at(REQUEST), &header, sizeof header);
    if (length) {
        memcpy(ram_at(REQUEST + 0x1000), body, length);
        pieces[readable++] = (struct driver_piece){REQUEST + 0x1000, length};
    }
    if (room) {
        pieces[readable + writable++] = (struct driver_piece){REPLY, sizeof(struct fuse_out_header)};
        pieces[readable + writable++] = (struct driver_piece){REPLY + 0x1000, room};
    }
    CHECK(driver_add(&queues[queue], pieces, readable, writable, false) >= 0);
    if (driver_publish(&queues[queue]))
        driver_notify(&board, &queues[queue]);
}

/* Serves until a request of the queue is done, by whichever thread; returns what was written. */
static uint32_t complete(unsigned queue)
{
    unsigned id;
    uint32_t written = 0;
    while (!driver_take(&queues[queue], &id, &written)) {
        driver_board_settle(&board);
        sched_yield();
    }
    return written;
}

static int request(uint32_t opcode, uint64_t node, const void *body, uint32_t length, uint32_t room)
{
    submit(1, opcode, node, body, length, room);
    uint32_t written = complete(1);
    const struct fuse_out_header *header = (const void *)ram_at(REPLY);
    CHECK_EQ(header->len, written);
    return header->error;
}

static const void *body(void)
{
    return ram_at(REPLY + 0x1000);
}

static uint64_t look_up(const char *name)
{
    if (request(FUSE_LOOKUP, FUSE_ROOT_ID, name, (uint32_t)strlen(name) + 1, sizeof(struct fuse_entry_out)) < 0)
        return 0;
    return ((const struct fuse_entry_out *)body())->nodeid;
}

static void start_session(void)
{
    struct fuse_init_in in = {.major = 7, .minor = 36, .max_readahead = 65536};
    CHECK_EQ(request(FUSE_INIT, 0, &in, sizeof in, sizeof(struct fuse_init_out)), 0);
}

static void test_making(void)
{
    static const char *const bad[] = {"", "1234567890123456789012345678901234567", "a b", "a/b", "a:b", "\n"};
    struct virtio_fs_config config = {.tag = "x", .share = {.folder = "/tmp/veneer-no-such-folder"}};
    struct error error = {""};
    struct virtio_device *none;
    driver_board_init(&board, MEMORY);
    struct virtio_env env = driver_board_env(&board, false);
    CHECK_EQ(virtio_fs_new(&env, &config, &none, &error), -ENOENT);
    CHECK_STR(error.text, "share 'x': folder '/tmp/veneer-no-such-folder': No such file or directory");
    config.share.folder = folder;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        config.tag = bad[i];
        CHECK_EQ(virtio_fs_new(&env, &config, &none, &error), -EINVAL);
    }
    CHECK_EQ(virtio_fs_check_tag("123456789012345678901234567890123456", NULL), 0);
    driver_board_destroy(&board);
}

static void test_session(void)
{
    begin();
    CHECK_EQ(driver_config_read(&board, 0, 4), 0x105a1af4u); /* 0x1040 + 26 */
    CHECK(memcmp((char[]){(char)driver_read(&board, board.config, 1), (char)driver_read(&board, board.config + 3, 1),
                          (char)driver_read(&board, board.config + 4, 1)}, "da", 3) == 0);
    CHECK_EQ(driver_read(&board, board.config + VIRTIO_FS_TAG_MAX, 4), 1);
    CHECK_EQ(look_up("file"), 0);
    start_session();
    uint64_t node = look_up("file");
    CHECK(node != 0);

    struct fuse_open_in open_in = {.flags = O_RDWR};
    CHECK_EQ(request(FUSE_OPEN, node, &open_in, sizeof open_in, sizeof(struct fuse_open_out)), 0);
    uint64_t fh = ((const struct fuse_open_out *)body())->fh;
    struct fuse_read_in read_in = {.fh = fh, .size = 4096};
    CHECK_EQ(request(FUSE_READ, node, &read_in, sizeof read_in, 4096), 0);
    CHECK_EQ(((const struct fuse_out_header *)ram_at(REPLY))->len, sizeof(struct fuse_out_header) + 7);
    CHECK(memcmp(body(), "content", 7) == 0);
    struct fuse_fsync_in sync_in = {.fh = fh}; /* on the other thread */
    CHECK_EQ(request(FUSE_FSYNC, node, &sync_in, sizeof sync_in, 16), 0);
    sync_in.fh++;
    CHECK_EQ(request(FUSE_FSYNC, node, &sync_in, sizeof sync_in, 16), -EBADF);

    /* The queue of high priority: nothing is written, and it is done. */
    struct fuse_forget_in forget = {1};
    submit(0, FUSE_FORGET, node, &forget, sizeof forget, 0);
    CHECK_EQ(complete(0), 0);
    CHECK_EQ(request(FUSE_OPEN, node, &open_in, sizeof open_in, sizeof(struct fuse_open_out)), -ESTALE);
    /* A request without room for a reply, and one without a request. */
    submit(1, FUSE_LOOKUP, FUSE_ROOT_ID, "file", 5, 0);
    CHECK_EQ(complete(1), 0);
    struct driver_piece reply = {REPLY, 64};
    CHECK(driver_add(&queues[1], &reply, 0, 1, false) >= 0);
    driver_publish(&queues[1]);
    driver_notify(&board, &queues[1]);
    CHECK_EQ(complete(1), sizeof(struct fuse_out_header));
    CHECK_EQ(((const struct fuse_out_header *)ram_at(REPLY))->error, -EINVAL);
    driver_board_destroy(&board);
}

/* A reset ends the session, with requests of both threads under way. */
static void test_reset(void)
{
    begin();
    for (unsigned round = 0; round < 20; round++) {
        start_session();
        uint64_t node = look_up("file");
        struct fuse_open_in open_in = {.flags = O_RDWR};
        CHECK_EQ(request(FUSE_OPEN, node, &open_in, sizeof open_in, sizeof(struct fuse_open_out)), 0);
        struct fuse_fsync_in sync_in = {.fh = ((const struct fuse_open_out *)body())->fh};
        for (unsigned i = 0; i < 5; i++) {
            submit(1, FUSE_FSYNC, node, &sync_in, sizeof sync_in, 16);
            submit(1, FUSE_STATFS, node, NULL, 0, sizeof(struct fuse_statfs_out));
        }
        for (unsigned i = 0; i < round % 3; i++)
            driver_board_settle(&board);
        driver_reset(&board, false);
        while (driver_status(&board) != 0)
            driver_board_settle(&board);
        start_driver();
        CHECK_EQ(look_up("file"), 0);
        CHECK_EQ(((const struct fuse_out_header *)ram_at(REPLY))->error, -EIO);
    }
    driver_board_destroy(&board);
}

/* Saved while mounted and loaded into another device, the guest goes on with what it had. */
static void test_save(void)
{
    struct error error = {""};
    struct fuse_open_in open_in = {.flags = O_RDWR};
    begin();
    start_session();
    uint64_t node = look_up("file");
    CHECK_EQ(request(FUSE_OPEN, node, &open_in, sizeof open_in, sizeof(struct fuse_open_out)), 0);
    struct fuse_read_in read_in = {.fh = ((const struct fuse_open_out *)body())->fh, .size = 4096};
    struct stream *stream = stream_new();
    device->ops->save(device, stream);
    CHECK_EQ(stream_status(stream, &error), 0);
    size_t length;
    const void *bytes = stream_bytes(stream, &length);
    driver_board_destroy(&board);

    begin();
    struct stream *saved = stream_open(bytes, length);
    device->ops->load(device, saved);
    CHECK_EQ(stream_status(saved, &error), 0);
    CHECK_EQ(request(FUSE_READ, node, &read_in, sizeof read_in, 4096), 0);
    CHECK(memcmp(body(), "content", 7) == 0);
    stream_free(saved);
    stream_free(stream);
    driver_board_destroy(&board);
}

int main(void)
{
    client_make_folder(folder);
    client_put_file(folder, "file", "content");
    test_making();
    test_session();
    test_reset();
    test_save();
    client_remove_tree(folder);
    CHECK_DONE();
}
