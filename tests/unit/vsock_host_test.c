/* vsock_host_test.c - the unix sockets of the socket device, with the guest played by the test. */
#include "device/virtio/vsock_host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/unix.h"
#include "check.h"

#define CID 3u

static char folder[] = "/tmp/veneer-vsock-XXXXXX", path[64];
static struct loop *loop;
static struct vsock_host *host;
static struct vsock_core *core;
static uint8_t bytes[VSOCK_PACKET_MAX];

static void changed(void *owner)
{
    (void)owner;
}

static void stop(void *context)
{
    loop_stop(context);
}

/* Serves what is ready now. */
static void serve(void)
{
    for (unsigned i = 0; i < 4; i++) {
        loop_post(loop, stop, loop);
        CHECK_EQ(loop_run(loop), 0);
    }
}

static int dial(void)
{
    int fd = -1;
    CHECK_EQ(unix_connect(path, &fd), 0);
    return fd;
}

static void tell(int fd, const char *text)
{
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
}

/* What the client got: bytes, 0 at the end, -1 when there is nothing. */
static ssize_t got(int fd, char *ret_text, size_t size)
{
    ssize_t n = read(fd, ret_text, size - 1);
    ret_text[n > 0 ? n : 0] = '\0';
    return n;
}

static bool next(struct vsock_header *ret_header)
{
    struct iovec iov = {bytes, sizeof bytes};
    return vsock_pending(core) && vsock_next(core, ret_header, &iov, 1, sizeof bytes);
}

static void say(uint32_t host_port, uint32_t guest_port, uint16_t op, uint32_t flags, uint32_t length)
{
    struct vsock_header header = {.src_cid = CID, .dst_cid = VSOCK_CID_HOST, .src_port = guest_port, .dst_port = host_port,
                                  .len = length, .type = VSOCK_TYPE_STREAM, .op = op, .flags = flags, .buf_alloc = 262144};
    struct iovec iov = {bytes, length};
    vsock_guest_packet(core, &header, &iov, 1);
}

/* A client's connection to the guest's port, up to its OK. */
static int connect_to_guest(const char *request, uint32_t guest_port, uint32_t *ret_port)
{
    struct vsock_header header = {0};
    char text[64], due[64];
    int fd = dial();
    tell(fd, request);
    serve();
    CHECK(next(&header));
    CHECK_EQ(header.op, VSOCK_OP_REQUEST);
    CHECK_EQ(header.dst_port, guest_port);
    CHECK_EQ(got(fd, text, sizeof text), -1); /* nothing before the guest accepted */
    say(header.src_port, guest_port, VSOCK_OP_RESPONSE, 0, 0);
    snprintf(due, sizeof due, "OK %u\n", header.src_port);
    got(fd, text, sizeof text);
    CHECK_STR(text, due);
    *ret_port = header.src_port;
    return fd;
}

static void test_client(void)
{
    struct vsock_header header;
    char text[64];
    uint32_t port;
    /* What follows the line in the same write is the stream's. */
    int fd = connect_to_guest("CONNECT 1024\nearly", 1024, &port);
    CHECK(next(&header));
    CHECK_EQ(header.op, VSOCK_OP_RW);
    CHECK_EQ(header.len, 5);
    CHECK(memcmp(bytes, "early", 5) == 0);
    memcpy(bytes, "reply", 5);
    say(port, 1024, VSOCK_OP_RW, 0, 5);
    CHECK_EQ(got(fd, text, sizeof text), 5);
    CHECK_STR(text, "reply");
    shutdown(fd, SHUT_WR); /* a half-close, both ways */
    serve();
    CHECK(next(&header));
    CHECK_EQ(header.op, VSOCK_OP_SHUTDOWN);
    CHECK_EQ(header.flags, VSOCK_SHUTDOWN_SEND);
    say(port, 1024, VSOCK_OP_RW, 0, 5);
    say(port, 1024, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_SEND, 0);
    CHECK_EQ(got(fd, text, sizeof text), 5);
    CHECK_EQ(got(fd, text, sizeof text), 0);
    close(fd);
    say(port, 1024, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH, 0);
    serve();
    CHECK_EQ(vsock_connections(core), 0);
    vsock_core_reset(core);
}

static void test_client_goes(void)
{
    struct vsock_header header;
    uint32_t port;
    int fd = connect_to_guest("CONNECT 4294967294\n", 4294967294u, &port);
    tell(fd, "last words");
    close(fd);
    serve();
    CHECK(next(&header));
    while (header.op == VSOCK_OP_SHUTDOWN) /* it may be told first that nobody listens */
        CHECK(next(&header));
    CHECK_EQ(header.op, VSOCK_OP_RW);
    CHECK_EQ(header.len, 10);
    CHECK(next(&header));
    CHECK_EQ(header.op, VSOCK_OP_SHUTDOWN);
    CHECK_EQ(header.flags, VSOCK_SHUTDOWN_BOTH);
    say(port, 4294967294u, VSOCK_OP_RST, 0, 0);
    CHECK_EQ(vsock_connections(core), 0);
}

static void test_bad_lines(void)
{
    static const char *const lines[] = {"CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT 1 \n", "CONNECT -1\n", "connect 1\n",
                                        "CONNECT 4294967295\n", "CONNECT 18446744073709551617\n", "\n",
                                        "CONNECT 0000000000000000000000000000000000000000001\n"};
    struct vsock_header header;
    char text[64];
    for (unsigned i = 0; i < sizeof lines / sizeof *lines; i++) {
        int fd = dial();
        tell(fd, lines[i]);
        serve();
        ssize_t n = got(fd, text, sizeof text);
        CHECK(n == 0 || (n < 0 && errno == ECONNRESET));
        CHECK(!next(&header));
        close(fd);
    }
    /* A line that comes in pieces is as good. */
    int fd = dial();
    tell(fd, "CONN");
    serve();
    CHECK(!next(&header));
    tell(fd, "ECT 7");
    serve();
    tell(fd, "7\n");
    serve();
    CHECK(next(&header));
    CHECK_EQ(header.dst_port, 77);
    close(fd);
    serve();
    CHECK(next(&header)); /* it did not wait for the answer */
    CHECK_EQ(header.op, VSOCK_OP_RST);
    CHECK(!next(&header));
}

static void test_silent_clients(void)
{
    enum { SILENT = 200 };
    int fd[SILENT];
    uint32_t port;
    for (unsigned i = 0; i < SILENT; i++) {
        fd[i] = dial();
        if (i % 50 == 49)
            serve();
    }
    int client = connect_to_guest("CONNECT 5\n", 5, &port);
    for (unsigned i = 0; i < SILENT; i++)
        close(fd[i]);
    close(client);
    vsock_core_reset(core);
    serve();
}

static void test_refused_by_guest(void)
{
    struct vsock_header header;
    char text[64];
    int fd = dial();
    tell(fd, "CONNECT 22\n");
    serve();
    CHECK(next(&header));
    say(header.src_port, 22, VSOCK_OP_RST, 0, 0);
    CHECK_EQ(got(fd, text, sizeof text), 0);
    close(fd);
}

static void test_guest_connects(void)
{
    struct vsock_header header;
    struct error error;
    char other[80], text[64];
    int listener;
    snprintf(other, sizeof other, "%s_5000", path);
    say(5000, 1, VSOCK_OP_REQUEST, 0, 0); /* nobody listens */
    CHECK(next(&header));
    CHECK_EQ(header.op, VSOCK_OP_RST);
    CHECK_EQ(unix_listen(other, 0, "test socket", &listener, &error), 0);
    say(5000, 1, VSOCK_OP_REQUEST, 0, 0);
    CHECK(next(&header));
    CHECK_EQ(header.op, VSOCK_OP_RESPONSE);
    /* A backlog of 0 holds one: the second waits until that is accepted. */
    say(5000, 2, VSOCK_OP_REQUEST, 0, 0);
    serve();
    CHECK(!next(&header));
    int first = accept(listener, NULL, NULL), second;
    CHECK(first >= 0);
    while ((second = accept(listener, NULL, NULL)) < 0 && errno == EAGAIN)
        serve();
    while (!next(&header))
        serve();
    CHECK_EQ(header.op, VSOCK_OP_RESPONSE);
    CHECK_EQ(header.dst_port, 2);
    memcpy(bytes, "hi", 2);
    say(5000, 2, VSOCK_OP_RW, 0, 2);
    CHECK_EQ(got(second, text, sizeof text), 2);
    /* One that waits when all is reset. */
    close(first);
    close(second);
    say(5000, 3, VSOCK_OP_REQUEST, 0, 0);
    say(5000, 4, VSOCK_OP_REQUEST, 0, 0);
    close(listener);
    unlink(other);
    vsock_core_reset(core);
    CHECK_EQ(vsock_connections(core), 0);
    serve();
}

/* A megabyte each way through sockets that hold less, in pieces as they come. */
static void test_bulk(void)
{
    enum { TOTAL = 1 << 20 };
    struct vsock_header header;
    uint32_t port, to_guest = 0, from_guest = 0;
    size_t written = 0, arrived = 0;
    uint8_t piece[5000];
    unsigned wrong = 0;
    int fd = connect_to_guest("CONNECT 6\n", 6, &port);
    uint32_t taken = 0, granted = 0;
    for (unsigned turn = 0; turn < 100000 && (to_guest < TOTAL || arrived < TOTAL); turn++) {
        for (size_t i = 0; i < sizeof piece; i++)
            piece[i] = (uint8_t)((written + i) * 31 >> 3);
        size_t left = TOTAL - written < sizeof piece ? TOTAL - written : sizeof piece;
        ssize_t n = left ? write(fd, piece, left) : 0;
        written += n > 0 ? (size_t)n : 0;
        if (turn % 16 == 0) /* a slow reader */
            while ((n = read(fd, piece, sizeof piece)) > 0)
                for (ssize_t i = 0; i < n; i++)
                    wrong += piece[i] != (uint8_t)(arrived++ * 31 >> 3);
        serve();
        while (next(&header)) {
            CHECK(header.op == VSOCK_OP_RW || header.op == VSOCK_OP_CREDIT_UPDATE);
            for (uint32_t i = 0; i < header.len; i++)
                wrong += bytes[i] != (uint8_t)(to_guest++ * 31 >> 3);
            granted = header.buf_alloc;
            taken = header.fwd_cnt;
            struct vsock_header update = {.src_cid = CID, .dst_cid = VSOCK_CID_HOST, .src_port = 6, .dst_port = port, .type = 1,
                                          .op = VSOCK_OP_CREDIT_UPDATE, .buf_alloc = 262144, .fwd_cnt = to_guest};
            vsock_guest_packet(core, &update, NULL, 0);
        }
        uint32_t credit = granted - (from_guest - taken);
        uint32_t length = credit < 30000 ? credit : 30000;
        length = length < TOTAL - from_guest ? length : TOTAL - from_guest;
        for (uint32_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)((from_guest + i) * 31 >> 3);
        struct vsock_header data = {.src_cid = CID, .dst_cid = VSOCK_CID_HOST, .src_port = 6, .dst_port = port, .len = length,
                                    .type = 1, .op = VSOCK_OP_RW, .buf_alloc = 262144, .fwd_cnt = to_guest};
        struct iovec iov[2] = {{bytes, length / 3}, {bytes + length / 3, length - length / 3}};
        if (length)
            vsock_guest_packet(core, &data, iov, 2);
        from_guest += length;
    }
    CHECK_EQ(to_guest, TOTAL);
    CHECK_EQ(arrived, TOTAL);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(vsock_core_counts(core).to_host >= TOTAL, 1);
    close(fd);
    serve();
    vsock_core_reset(core);
}

/* As many connections as the hard limit allows, not the soft one that a login shell gave. */
static void test_many(void)
{
    enum { MANY = 400, SOFT = 256 }; /* two descriptors each, for both ends are here */
    static int client[MANY];
    struct rlimit limit, now;
    struct vsock_header header;
    unsigned requests = 0;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK(limit.rlim_max >= 1024);
    limit.rlim_cur = SOFT;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    descriptors_raise();
    descriptors_raise(); /* does not forget what the first found */
    for (unsigned i = 0; i < MANY; i++) {
        client[i] = dial();
        tell(client[i], "CONNECT 7\n");
        serve();
        while (next(&header)) {
            requests += header.op == VSOCK_OP_REQUEST;
            say(header.src_port, 7, VSOCK_OP_RESPONSE, 0, 0);
        }
    }
    CHECK_EQ(requests, MANY);
    CHECK_EQ(vsock_connections(core), MANY);
    for (unsigned i = 0; i < MANY; i++)
        close(client[i]);
    serve();
    vsock_core_reset(core);
    descriptors_restore();
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &now), 0);
    CHECK_EQ(now.rlim_cur, SOFT);
    CHECK_EQ(now.rlim_max, limit.rlim_max);
}

static void test_paths(void)
{
    struct error error;
    struct vsock_host *other = NULL;
    struct stat info;
    char name[128];
    CHECK_EQ(vsock_host_new(loop, path, changed, NULL, &other, &error), -EADDRINUSE);
    CHECK(strstr(error.text, "another program listens there") != NULL);
    snprintf(name, sizeof name, "%s/%0*d", folder, 100, 0);
    CHECK_EQ(vsock_host_new(loop, name, changed, NULL, &other, &error), -ENAMETOOLONG);
    snprintf(name, sizeof name, "%s/none/x", folder);
    CHECK_EQ(vsock_host_new(loop, name, changed, NULL, &other, &error), -ENOENT);
    snprintf(name, sizeof name, "%s/file", folder);
    close(open(name, O_CREAT | O_WRONLY, 0600));
    CHECK_EQ(vsock_host_new(loop, name, changed, NULL, &other, &error), -EEXIST);
    CHECK_EQ(unlink(name), 0);
    /* A leftover is replaced. */
    int left = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, name, strlen(name) + 1);
    CHECK_EQ(bind(left, (struct sockaddr *)&address, sizeof address), 0);
    close(left);
    CHECK_EQ(vsock_host_new(loop, name, changed, NULL, &other, &error), 0);
    CHECK_EQ(stat(name, &info), 0);
    CHECK_EQ(info.st_mode & 0777, 0600);
    vsock_host_free(other);
    CHECK(stat(name, &info) < 0);
}

int main(void)
{
    struct error error;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/vsock", folder);
    CHECK_EQ(loop_new(&loop, &error), 0);
    CHECK_EQ(vsock_host_new(loop, path, changed, NULL, &host, &error), 0);
    core = vsock_core_new(CID, &vsock_unix_ops, host);
    int early = dial(); /* waits for the guest's driver */
    tell(early, "CONNECT 1\n");
    serve();
    CHECK(!vsock_pending(core));
    CHECK_EQ(vsock_host_start(host, core), 0);
    serve();
    CHECK(vsock_pending(core));
    vsock_core_reset(core);
    close(early);
    test_client();
    test_client_goes();
    test_bad_lines();
    test_silent_clients();
    test_refused_by_guest();
    test_guest_connects();
    test_bulk();
    test_many();
    test_paths();
    vsock_core_reset(core);
    vsock_host_stop(host);
    vsock_core_free(core);
    vsock_host_free(host);
    loop_free(loop);
    CHECK_EQ(rmdir(folder), 0); /* nothing is left behind */
    CHECK_DONE();
}
