/* vsock_core_test.c - the socket protocol between a guest played here and ends of sockets in memory. */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "device/virtio/vsock_core.h"
#include "support/vsock_peer.h"

#define CID 3u
#define GUEST_BUFFER (256u << 10)

static struct peers peers;
static struct vsock_core *core;
static uint8_t bytes[VSOCK_PACKET_MAX + 1];

static void begin(unsigned count)
{
    peers = (struct peers){calloc(count, sizeof(struct peer)), count, 0, 0};
    core = vsock_core_new(CID, &peer_ops, &peers);
}

static void finish(void)
{
    vsock_core_free(core);
    for (unsigned i = 0; i < peers.count; i++)
        CHECK(!peers.peer[i].open);
    free(peers.peer);
}

/* The guest says something; `fields` without the addresses' CIDs, type and credit. */
static void say(struct vsock_header fields, size_t length)
{
    struct iovec iov = {bytes, length};
    fields.src_cid = CID;
    fields.dst_cid = VSOCK_CID_HOST;
    fields.type = VSOCK_TYPE_STREAM;
    fields.len = (uint32_t)length;
    if (!fields.buf_alloc)
        fields.buf_alloc = GUEST_BUFFER;
    vsock_guest_packet(core, &fields, &iov, 1);
}

static void say_op(uint32_t host_port, uint32_t guest_port, uint16_t op)
{
    say((struct vsock_header){.src_port = guest_port, .dst_port = host_port, .op = op}, 0);
}

/* The next packet for the guest, which must be an `op`; its payload goes to bytes. */
static struct vsock_header expect(uint16_t op)
{
    struct vsock_header header = {0};
    struct iovec iov = {bytes, VSOCK_PACKET_MAX};
    CHECK(vsock_pending(core));
    CHECK(vsock_next(core, &header, &iov, 1, VSOCK_PACKET_MAX));
    CHECK_EQ(header.op, op);
    CHECK_EQ(header.dst_cid, CID);
    CHECK(header.len == 0 || op == VSOCK_OP_RW);
    return header;
}

static void expect_nothing(void)
{
    struct vsock_header header;
    struct iovec iov = {bytes, VSOCK_PACKET_MAX};
    CHECK(!vsock_next(core, &header, &iov, 1, VSOCK_PACKET_MAX));
    CHECK(!vsock_pending(core));
}

/* A connection that the host asked for; returns its host port. */
static uint32_t open_from_host(struct peer **ret_peer, uint32_t guest_port)
{
    struct peer *peer = peer_free(&peers);
    CHECK_EQ(vsock_open(core, guest_port, peer, &peer->connection), 0);
    struct vsock_header request = expect(VSOCK_OP_REQUEST);
    CHECK_EQ(request.dst_port, guest_port);
    CHECK_EQ(request.src_cid, VSOCK_CID_HOST);
    CHECK(request.buf_alloc >= VSOCK_CREDIT_LEAST);
    CHECK(!peer->accepted);
    say_op(request.src_port, guest_port, VSOCK_OP_RESPONSE);
    CHECK(peer->accepted);
    CHECK_EQ(peer->host_port, request.src_port);
    *ret_peer = peer;
    return request.src_port;
}

static struct peer *open_from_guest(uint32_t host_port, uint32_t guest_port)
{
    say_op(host_port, guest_port, VSOCK_OP_REQUEST);
    CHECK_EQ(peers.asked_port, host_port);
    struct vsock_header response = expect(VSOCK_OP_RESPONSE);
    CHECK_EQ(response.src_port, host_port);
    CHECK_EQ(response.dst_port, guest_port);
    for (unsigned i = peers.count; i-- > 0;)
        if (peers.peer[i].open)
            return &peers.peer[i];
    return NULL;
}

static void give(struct peer *peer, const char *text)
{
    memcpy(peer->due + peer->have, text, strlen(text));
    peer->have += strlen(text);
    vsock_event(peer->connection, true, false, false);
}

static void test_from_host(void)
{
    begin(4);
    struct peer *peer;
    uint32_t port = open_from_host(&peer, 1024);
    expect_nothing();
    give(peer, "hello");
    struct vsock_header data = expect(VSOCK_OP_RW);
    CHECK_EQ(data.len, 5);
    CHECK(memcmp(bytes, "hello", 5) == 0);
    memcpy(bytes, "world", 5);
    say((struct vsock_header){.src_port = 1024, .dst_port = port, .op = VSOCK_OP_RW, .fwd_cnt = 5}, 5);
    CHECK_EQ(peer->taken, 5);
    CHECK(memcmp(peer->arrived, "world", 5) == 0);
    /* The guest shuts both ways: the answer is RST and the end is closed. */
    say((struct vsock_header){.src_port = 1024, .dst_port = port, .op = VSOCK_OP_SHUTDOWN, .flags = VSOCK_SHUTDOWN_BOTH}, 0);
    CHECK(!peer->open);
    data = expect(VSOCK_OP_RST);
    CHECK_EQ(data.src_port, port);
    CHECK_EQ(vsock_connections(core), 0);
    expect_nothing();
    finish();
}

static void test_refused(void)
{
    begin(2);
    struct peer *peer = peer_free(&peers);
    CHECK_EQ(vsock_open(core, 9, peer, &peer->connection), 0);
    struct vsock_header request = expect(VSOCK_OP_REQUEST);
    say_op(request.src_port, 9, VSOCK_OP_RST);
    CHECK(!peer->open && !peer->accepted);
    expect_nothing(); /* RST is never answered */
    peers.connect_status = -ECONNREFUSED;
    say_op(80, 5000, VSOCK_OP_REQUEST);
    request = expect(VSOCK_OP_RST);
    CHECK_EQ(request.src_port, 80);
    CHECK_EQ(request.dst_port, 5000);
    CHECK_EQ(vsock_core_counts(core).refused, 2);
    expect_nothing();
    finish();
}

static void test_connect_in_progress(void)
{
    begin(2);
    peers.connect_status = -EINPROGRESS;
    say_op(80, 5000, VSOCK_OP_REQUEST);
    expect_nothing();
    vsock_connected(peers.peer[0].connection, 0);
    expect(VSOCK_OP_RESPONSE);
    say_op(80, 5001, VSOCK_OP_REQUEST);
    vsock_connected(peers.peer[1].connection, -ECONNREFUSED);
    CHECK(!peers.peer[1].open);
    CHECK_EQ(expect(VSOCK_OP_RST).dst_port, 5001);
    finish();
}

static void test_unknown(void)
{
    begin(2);
    static const uint16_t ops[] = {VSOCK_OP_RESPONSE, VSOCK_OP_SHUTDOWN, VSOCK_OP_RW, VSOCK_OP_CREDIT_UPDATE,
                                   VSOCK_OP_CREDIT_REQUEST, 0, 8, 0xffff};
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++) {
        say_op(7, 8, ops[i]);
        CHECK_EQ(expect(VSOCK_OP_RST).src_port, 7);
    }
    say_op(7, 8, VSOCK_OP_RST);
    expect_nothing();
    /* Another host, another type: reset under the name that was meant. */
    struct vsock_header header = {.src_cid = CID, .dst_cid = 77, .src_port = 1, .dst_port = 2, .type = 1, .op = VSOCK_OP_REQUEST};
    vsock_guest_packet(core, &header, NULL, 0);
    CHECK_EQ(expect(VSOCK_OP_RST).src_cid, 77);
    header.dst_cid = VSOCK_CID_HOST;
    header.type = 9;
    vsock_guest_packet(core, &header, NULL, 0);
    CHECK_EQ(expect(VSOCK_OP_RST).type, 9);
    /* In another's name: there is nobody to answer. */
    header.src_cid = 99;
    vsock_guest_packet(core, &header, NULL, 0);
    expect_nothing();
    CHECK_EQ(vsock_connections(core), 0);
    finish();
}

static void test_out_of_turn(void)
{
    begin(2);
    struct peer *peer = open_from_guest(80, 5000);
    say_op(80, 5000, VSOCK_OP_REQUEST); /* it is open already */
    CHECK(!peer->open);
    expect(VSOCK_OP_RST);
    peer = open_from_guest(80, 5000);
    say_op(80, 5000, VSOCK_OP_RESPONSE); /* it did not ask */
    CHECK(!peer->open);
    expect(VSOCK_OP_RST);
    peer = peer_free(&peers);
    CHECK_EQ(vsock_open(core, 9, peer, &peer->connection), 0);
    uint32_t port = expect(VSOCK_OP_REQUEST).src_port;
    say((struct vsock_header){.src_port = 9, .dst_port = port, .op = VSOCK_OP_RW}, 10); /* before it accepted */
    CHECK(!peer->open && peer->taken == 0);
    expect(VSOCK_OP_RST);
    CHECK_EQ(vsock_connections(core), 0);
    finish();
}

static void test_violation(void)
{
    begin(1);
    struct peer *peer = open_from_guest(80, 5000);
    peer->room = 0;
    struct vsock_header data = {.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_RW};
    for (unsigned i = 0; i < VSOCK_CREDIT_EACH / VSOCK_PACKET_MAX; i++)
        say(data, VSOCK_PACKET_MAX);
    expect_nothing(); /* all that was granted: no more credit comes */
    CHECK_EQ(vsock_connections(core), 1);
    say(data, 1);
    expect(VSOCK_OP_RST);
    /* What was covered is still passed on. */
    CHECK(peer->open);
    peer->room = VSOCK_CREDIT_EACH;
    vsock_event(peer->connection, false, true, false);
    CHECK_EQ(peer->taken, VSOCK_CREDIT_EACH);
    CHECK(!peer->open);
    peer = open_from_guest(80, 5000);
    say(data, VSOCK_PACKET_MAX + 1); /* larger than any packet */
    expect(VSOCK_OP_RST);
    CHECK(!peer->open);
    finish();
}

static void test_slow_host(void)
{
    begin(1);
    struct peer *peer = open_from_guest(80, 5000);
    peer->room = 100;
    struct vsock_header data = {.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_RW};
    for (unsigned i = 0; i < VSOCK_PACKET_MAX; i++)
        bytes[i] = (uint8_t)(i * 7);
    say(data, 1000);
    say(data, VSOCK_PACKET_MAX);
    CHECK_EQ(peer->taken, 100);
    /* A request of credit is answered with what was taken. */
    say_op(80, 5000, VSOCK_OP_CREDIT_REQUEST);
    CHECK_EQ(expect(VSOCK_OP_CREDIT_UPDATE).fwd_cnt, 100);
    for (unsigned i = 0; i < 2; i++)
        say(data, VSOCK_PACKET_MAX);
    expect_nothing();
    peer->room = 1000;
    vsock_event(peer->connection, false, true, false);
    for (unsigned i = 0; i < 1000; i++)
        CHECK_EQ(peer->arrived[i], (uint8_t)(i * 7));
    for (unsigned i = 0; i < 100; i++)
        CHECK_EQ(peer->arrived[1000 + i], (uint8_t)(i * 7));
    /* The guest knew of less than half: it is told. */
    CHECK_EQ(expect(VSOCK_OP_CREDIT_UPDATE).fwd_cnt, 1100);
    expect_nothing();
    /* Shut both ways: the answer waits until the host took all. */
    say((struct vsock_header){.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_SHUTDOWN, .flags = VSOCK_SHUTDOWN_BOTH}, 0);
    CHECK(peer->open);
    expect_nothing();
    peer->room = SIZE_MAX / 2;
    vsock_event(peer->connection, false, true, false);
    CHECK_EQ(peer->taken, 1000 + 3 * VSOCK_PACKET_MAX);
    CHECK(!peer->open);
    expect(VSOCK_OP_RST);
    finish();
}

static void test_guest_credit(void)
{
    begin(1);
    struct vsock_header request = {.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_REQUEST, .buf_alloc = 10};
    say(request, 0);
    expect(VSOCK_OP_RESPONSE);
    struct peer *peer = &peers.peer[0];
    give(peer, "0123456789abcdef");
    CHECK_EQ(expect(VSOCK_OP_RW).len, 10);
    expect(VSOCK_OP_CREDIT_REQUEST); /* once */
    expect_nothing();
    struct vsock_header update = {.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_CREDIT_UPDATE, .buf_alloc = 10, .fwd_cnt = 4};
    say(update, 0);
    CHECK_EQ(expect(VSOCK_OP_RW).len, 4);
    CHECK(memcmp(bytes, "abcd", 4) == 0);
    expect(VSOCK_OP_CREDIT_REQUEST);
    /* Counts that make no sense give nothing. */
    update.fwd_cnt = 5000;
    say(update, 0);
    expect_nothing();
    update.fwd_cnt = 14;
    say(update, 0);
    CHECK_EQ(expect(VSOCK_OP_RW).len, 2);
    expect_nothing();
    finish();
}

static void test_half_close(void)
{
    begin(2);
    struct peer *peer = open_from_guest(80, 5000);
    give(peer, "last");
    peer->end = true;
    CHECK_EQ(expect(VSOCK_OP_RW).len, 4);
    struct vsock_header shut = expect(VSOCK_OP_SHUTDOWN);
    CHECK_EQ(shut.flags, VSOCK_SHUTDOWN_SEND);
    expect_nothing();
    say((struct vsock_header){.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_RW}, 3); /* the other way still works */
    CHECK_EQ(peer->taken, 3);
    say((struct vsock_header){.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_SHUTDOWN, .flags = VSOCK_SHUTDOWN_SEND}, 0);
    CHECK_EQ(peer->shut, VSOCK_SHUTDOWN_SEND);
    CHECK(peer->open);
    say((struct vsock_header){.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_RW}, 3); /* after its end: a violation */
    CHECK(!peer->open);
    expect(VSOCK_OP_RST);

    /* The guest stops to listen: nothing is sent any more, and the host's end knows. */
    peer = open_from_guest(80, 5001);
    say((struct vsock_header){.src_port = 5001, .dst_port = 80, .op = VSOCK_OP_SHUTDOWN, .flags = VSOCK_SHUTDOWN_RECEIVE}, 0);
    CHECK_EQ(peer->shut, VSOCK_SHUTDOWN_RECEIVE);
    give(peer, "unheard");
    expect_nothing();
    CHECK(peer->open);
    finish();
}

static void test_host_goes(void)
{
    begin(2);
    struct peer *peer = open_from_guest(80, 5000);
    memcpy(peer->due, "bye", 3);
    peer->have = 3;
    peer->end = true;
    vsock_event(peer->connection, true, true, true);
    CHECK_EQ(expect(VSOCK_OP_RW).len, 3);
    CHECK_EQ(expect(VSOCK_OP_SHUTDOWN).flags, VSOCK_SHUTDOWN_BOTH);
    CHECK(!peer->open);
    expect_nothing();
    /* What still comes is swallowed, and its credit given back, until the guest has noticed. */
    for (unsigned i = 0; i < 16; i++)
        say((struct vsock_header){.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_RW}, VSOCK_PACKET_MAX);
    CHECK_EQ(expect(VSOCK_OP_CREDIT_UPDATE).fwd_cnt, 16 * VSOCK_PACKET_MAX);
    say_op(80, 5000, VSOCK_OP_RST);
    CHECK_EQ(vsock_connections(core), 0);
    expect_nothing();
    /* Gone before the guest answered. */
    peer = peer_free(&peers);
    CHECK_EQ(vsock_open(core, 9, peer, &peer->connection), 0);
    vsock_event(peer->connection, true, true, true);
    CHECK(!peer->open);
    expect(VSOCK_OP_RST);
    expect_nothing();
    finish();
}

/* A guest that gives up while a slow host has not taken all: nothing that was sent is lost. */
static void test_drain(void)
{
    begin(2);
    struct peer *peer = open_from_guest(80, 5000);
    peer->room = 0;
    say((struct vsock_header){.src_port = 5000, .dst_port = 80, .op = VSOCK_OP_RW}, 5000);
    say_op(80, 5000, VSOCK_OP_RST);
    CHECK(peer->open);
    CHECK_EQ(vsock_connections(core), 1);
    struct peer *second = open_from_guest(80, 5000); /* the name is free again */
    CHECK(second != peer);
    peer->room = 5000;
    vsock_event(peer->connection, true, true, false);
    CHECK_EQ(peer->taken, 5000);
    CHECK(!peer->open);
    CHECK_EQ(vsock_connections(core), 1);
    finish();
}

static void test_turns(void)
{
    enum { MANY = 50 };
    begin(MANY);
    uint32_t port[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        struct peer *peer;
        port[i] = open_from_host(&peer, 1000 + i);
        expect_nothing();
    }
    for (unsigned i = 0; i < MANY; i++) {
        peers.peer[i].have = 1000;
        vsock_event(peers.peer[i].connection, true, false, false);
    }
    struct iovec iov = {bytes, 100};
    for (unsigned round = 0; round < 10; round++) { /* in the order in which they asked, a packet each */
        for (unsigned i = 0; i < MANY; i++) {
            struct vsock_header header;
            CHECK(vsock_next(core, &header, &iov, 1, 100));
            CHECK_EQ(header.src_port, port[i]);
            CHECK_EQ(header.len, 100);
        }
    }
    expect_nothing();
    finish();
}

static void test_bounds(void)
{
    begin(VSOCK_CONNECTIONS);
    uint64_t granted = 0;
    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
        say_op(80, 5000 + i, VSOCK_OP_REQUEST);
        granted += expect(VSOCK_OP_RESPONSE).buf_alloc;
    }
    CHECK_EQ(vsock_connections(core), VSOCK_CONNECTIONS);
    CHECK(granted <= VSOCK_CREDIT_TOTAL + (uint64_t)VSOCK_CONNECTIONS * VSOCK_CREDIT_LEAST);
    say_op(80, 1, VSOCK_OP_REQUEST);
    expect(VSOCK_OP_RST);
    struct vsock_connection *connection;
    CHECK_EQ(vsock_open(core, 1, NULL, &connection), -EMFILE);
    /* A guest that takes nothing is not listened to when many answers are owed, and all its connections may still end. */
    unsigned said = 0;
    for (; vsock_ready(core); said++)
        say_op(7, said, VSOCK_OP_RW);
    CHECK_EQ(said, VSOCK_REPLIES);
    CHECK_EQ(vsock_open(core, 1, NULL, &connection), -EBUSY);
    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
        peers.peer[i].broken = true;
        vsock_event(peers.peer[i].connection, true, true, true);
    }
    for (unsigned i = 0; i < VSOCK_REPLIES; i++)
        expect(VSOCK_OP_RST);
    CHECK(vsock_ready(core));
    finish();
}

int main(void)
{
    test_from_host();
    test_refused();
    test_connect_in_progress();
    test_unknown();
    test_out_of_turn();
    test_violation();
    test_slow_host();
    test_guest_credit();
    test_half_close();
    test_host_goes();
    test_drain();
    test_turns();
    test_bounds();
    CHECK_DONE();
}
