/* virtio_vsock_test.c - the rings of the socket device, with a driver of the test's own and one client on the host. The protocol has
 * a test of its own: vsock_core_test.c. */
#include "device/virtio/vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/unix.h"
#include "support/virtio_talk.h"

enum { RX, TX, EVENT };
#define STREAM 1

static char folder[] = "/tmp/veneer-vsock-XXXXXX", path[64], other_path[64];
static struct talk talk;
static struct virtio_device *device;

static struct virtio_device *put(struct talk *to, const char *at)
{
    struct error error = {.text = ""};
    driver_board_init(&to->board, TALK_MEMORY);
    struct virtio_env env = driver_board_env(&to->board, true);
    struct virtio_device *made = virtio_vsock_new(&env, at, 42, &error);
    CHECK_STR(error.text, "");
    return made;
}

static void begin(void)
{
    device = put(&talk, path);
    talk_put(&talk, device);
    CHECK_EQ(talk_config(&talk, 0, 8), 42);
}

static void say(const struct vsock_header *header, const void *payload, uint32_t length)
{
    uint8_t bytes[512];
    memcpy(bytes, header, sizeof *header);
    if (length)
        memcpy(bytes + sizeof *header, payload, length);
    talk_say(&talk, TX, bytes, (uint32_t)sizeof *header + length);
    CHECK_EQ(talk_hear(&talk, TX, NULL, 0), 0);
}

/* The next packet, whose buffer is offered anew. */
static struct vsock_header hear(uint16_t op, char *ret_payload)
{
    uint8_t bytes[512] = {0};
    struct vsock_header header;
    int length = talk_hear(&talk, RX, bytes, sizeof bytes);
    memcpy(&header, bytes, sizeof header);
    CHECK(length >= (int)sizeof header);
    CHECK_EQ(header.op, op);
    CHECK_EQ(header.len, length - (int)sizeof header);
    if (ret_payload)
        memcpy(ret_payload, bytes + sizeof header, header.len);
    talk_offer(&talk, RX, 256);
    return header;
}

/* A client's connection to port 7; the guest has `buffers` buffers for packets. */
static int connect_client(unsigned buffers, uint32_t *ret_port)
{
    char text[64] = "";
    int fd = -1;
    CHECK_EQ(unix_connect(path, &fd), 0);
    CHECK_EQ(write(fd, "CONNECT 7\n", 10), 10);
    driver_board_settle(&talk.board);
    for (unsigned i = 0; i < buffers; i++)
        talk_offer(&talk, RX, 256);
    struct vsock_header request = hear(VSOCK_OP_REQUEST, NULL);
    CHECK_EQ(request.dst_cid, 42);
    CHECK_EQ(request.dst_port, 7);
    *ret_port = request.src_port;
    struct vsock_header response = {.src_cid = 42, .dst_cid = 2, .src_port = 7, .dst_port = request.src_port, .type = 1,
                                    .op = VSOCK_OP_RESPONSE, .buf_alloc = 100000};
    say(&response, NULL, 0);
    CHECK(read(fd, text, sizeof text) > 3 && memcmp(text, "OK ", 3) == 0);
    return fd;
}

static void test_data(void)
{
    uint32_t port;
    char text[512] = "";
    begin();
    talk_start(&talk, STREAM, 3);
    int fd = connect_client(4, &port);
    struct vsock_header data = {.src_cid = 42, .dst_cid = 2, .src_port = 7, .dst_port = port, .len = 5, .type = 1,
                                .op = VSOCK_OP_RW, .buf_alloc = 100000};
    say(&data, "hello", 5);
    CHECK_EQ(read(fd, text, sizeof text), 5);
    /* More than the guest's buffers hold, one after the other. */
    memset(text, 'y', sizeof text);
    CHECK_EQ(write(fd, text, 500), 500);
    driver_board_settle(&talk.board);
    unsigned heard = 0;
    while (heard < 500) {
        uint32_t length = hear(VSOCK_OP_RW, text).len;
        CHECK(length > 0 && length <= 256 - sizeof data);
        heard += length;
    }
    CHECK_EQ(heard, 500);
    /* The driver goes: so do the connections, and another comes. */
    driver_reset(&talk.board, true);
    CHECK_EQ(read(fd, text, sizeof text), 0);
    close(fd);
    talk_start(&talk, STREAM, 3);
    fd = connect_client(4, &port);
    close(fd);
    CHECK_EQ(virtio_vsock_counts(device).opened, 2);
    driver_board_destroy(&talk.board);
}

/* A packet that is no packet breaks its queue; a reset mends it. */
static void test_broken(void)
{
    static const struct vsock_header longer = {.src_cid = 42, .dst_cid = 2, .src_port = 7, .dst_port = 1, .len = 1000, .type = 1,
                                               .op = VSOCK_OP_RW};
    static const struct vsock_header huge = {.src_cid = 42, .dst_cid = 2, .src_port = 7, .dst_port = 1, .len = 0xffffffff,
                                             .type = 1, .op = VSOCK_OP_RW};
    for (unsigned i = 0; i < 3; i++) {
        begin();
        talk_start(&talk, STREAM, 3);
        if (i == 0)
            talk_say(&talk, TX, &longer, 43);
        else if (i == 1)
            talk_say(&talk, TX, &longer, sizeof longer);
        if (i == 2) { /* larger than any packet: reset, and a buffer without room for that */
            talk_say(&talk, TX, &huge, sizeof huge);
            CHECK_EQ(driver_status(&talk.board), 15);
            talk_offer(&talk, RX, sizeof huge);
        }
        CHECK_EQ(driver_status(&talk.board), 15 | 64);
        driver_reset(&talk.board, true);
        talk_start(&talk, STREAM, 3);
        uint32_t port;
        close(connect_client(4, &port));
        driver_board_destroy(&talk.board);
    }
}

/* Loaded elsewhere, the guest is told that its connections are gone; where it was saved they go on. */
static void test_save(void)
{
    static struct talk other;
    uint32_t port, event = 99;
    char text[64];
    begin();
    talk_start(&talk, STREAM, 3);
    talk_offer(&talk, EVENT, 4);
    int fd = connect_client(4, &port);
    talk_beside(&talk, device, talk_pause_thread);
    struct virtio_device *loaded = put(&other, other_path);
    driver_board_add(&other.board, loaded);
    talk_move(&talk, &other);
    talk_beside(&other, loaded, talk_resume_thread);
    driver_board_settle(&other.board);
    CHECK_EQ(talk_hear(&other, EVENT, &event, sizeof event), 4);
    CHECK_EQ(event, 0);
    driver_board_destroy(&other.board);
    talk_beside(&talk, device, talk_resume_thread);
    CHECK_EQ(talk_hear(&talk, EVENT, &event, sizeof event), -1);
    struct vsock_header data = {.src_cid = 42, .dst_cid = 2, .src_port = 7, .dst_port = port, .len = 4, .type = 1,
                                .op = VSOCK_OP_RW, .buf_alloc = 100000};
    say(&data, "more", 4);
    CHECK_EQ(read(fd, text, sizeof text), 4);
    close(fd);
    driver_board_destroy(&talk.board);
}

int main(void)
{
    struct error error;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/vsock", folder);
    snprintf(other_path, sizeof other_path, "%s/other", folder);
    test_data();
    test_broken();
    test_save();
    driver_board_init(&talk.board, TALK_MEMORY);
    struct virtio_env env = driver_board_env(&talk.board, true);
    CHECK(virtio_vsock_new(&env, path, 2, &error) == NULL);
    CHECK(strstr(error.text, "a guest's CID is 3 to 4294967294") != NULL);
    CHECK(virtio_vsock_new(&env, "/nowhere/x", 3, &error) == NULL);
    driver_board_destroy(&talk.board);
    CHECK_EQ(rmdir(folder), 0);
    CHECK_DONE();
}
