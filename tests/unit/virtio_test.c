/* The virtio core and its PCI transport, against a driver of the tests' own. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device_check.h"
#include "support/virtio_echo.h"

/* ---- rings ---- */

static struct chain {
    uint64_t gpa;
    unsigned readable, writable;
    uint8_t value;
} chains[DRIVER_QUEUE_MAX];

static void piece_out(struct driver_piece *pieces, unsigned *count, uint64_t *gpa, unsigned total, unsigned parts)
{
    for (unsigned i = 0; i < parts; i++) {
        unsigned length = i + 1 == parts ? total : total ? echo_random(total + 1) : 0;
        pieces[(*count)++] = (struct driver_piece){*gpa, length}; /* may be empty */
        *gpa += length;
        total -= length;
    }
}

/* Adds one chain of random shape; false when the ring has no room for it. */
static bool add_random(struct driver_board *board, struct driver_queue *queue, bool indirect, unsigned *ret_slots)
{
    struct driver_piece pieces[16];
    struct chain chain = {.readable = echo_random(200), .writable = echo_random(200)};
    unsigned most = queue->size < 8 ? queue->size : 8, count = 0, out = 1 + echo_random(most > 1 ? most / 2 : 1);
    unsigned in = most > 1 ? 1 + echo_random(most / 2) : 0;
    chain.gpa = ECHO_BUFFERS + (uint64_t)echo_random(0x8000) * 256;
    indirect = indirect && echo_random(4) != 0;
    /* Each chain in flight has its own memory: by a slot that its ID will name, once it is known; so write first to a scratch. */
    uint64_t at = chain.gpa;
    for (unsigned i = 0; i < queue->size; i++)
        if (chains[i].gpa && chains[i].gpa / 1024 == chain.gpa / 1024)
            return false;
    chain.gpa &= ~UINT64_C(1023);
    at = chain.gpa;
    piece_out(pieces, &count, &at, chain.readable, out);
    if (in == 0)
        chain.writable = 0;
    piece_out(pieces, &count, &at, chain.writable, in);
    uint8_t *host = ram_host(&board->ram, chain.gpa, 1024);
    for (unsigned i = 0; i < chain.readable; i++)
        host[i] = (uint8_t)echo_random(256);
    memset(host + chain.readable, 0xee, 512);
    chain.value = echo_digest(host, chain.readable);
    int id = driver_add(queue, pieces, out, in, indirect);
    if (id < 0)
        return false;
    CHECK_EQ(chains[id].gpa, 0);
    chains[id] = chain;
    *ret_slots = queue->packed ? queue->length[id] : 1;
    return true;
}

static void check_used(struct driver_board *board, unsigned id, uint32_t written)
{
    struct chain *chain = &chains[id];
    CHECK(chain->gpa != 0);
    CHECK_EQ(written, chain->writable);
    const uint8_t *host = ram_host(&board->ram, chain->gpa, 1024);
    bool right = true;
    for (unsigned i = 0; i < chain->writable; i++)
        right = right && host[chain->readable + i] == chain->value;
    CHECK(right);
    CHECK_EQ(host[chain->readable + chain->writable], 0xee); /* not a byte more */
    chain->gpa = 0;
}

/* Batches of random chains through one ring, until its indexes have wrapped around several times. */
static void test_ring(uint64_t features, unsigned size, unsigned total)
{
    static struct driver_board board;
    static struct driver_queue queue;
    struct echo *echo = echo_begin(&board, &queue, features, size);
    memset(chains, 0, sizeof chains);
    for (unsigned done = 0; done < total;) {
        unsigned slots = 0, one, ahead = echo_random(size), added = 0;
        bool wanted = echo_random(4) != 0, notify = false;
        driver_want_interrupt(&queue, wanted, ahead);
        for (unsigned batch = 1 + echo_random(size); batch && add_random(&board, &queue, features & INDIRECT, &one); batch--) {
            notify = driver_publish(&queue) || notify;
            slots += one;
            added++;
        }
        unsigned before = board.messages[1];
        if (notify)
            driver_notify(&board, &queue);
        driver_board_settle(&board);
        CHECK_EQ(echo->held_count, 0);
        bool due = added && wanted && (!(features & EVENT) || ahead < slots);
        if (board.messages[1] - before != due) {
            CHECK_EQ(board.messages[1] - before, due);
            fprintf(stderr, "features 0x%llx, size %u, after %u: %u chains of %u slots, %u ahead, wanted %d\n",
                    (unsigned long long)features, size, done, added, slots, ahead, wanted);
            break;
        }
        unsigned id, taken = 0;
        uint32_t written;
        for (; driver_take(&queue, &id, &written); taken++)
            check_used(&board, id, written);
        CHECK_EQ(taken, added);
        done += added ? added : 1;
    }
    CHECK_EQ(driver_status(&board), 15);
    driver_board_destroy(&board);
}

static void test_rings(void)
{
    static const uint64_t features[] = {0, EVENT, INDIRECT, EVENT | INDIRECT};
    for (unsigned f = 0; f < 4; f++) {
        static const unsigned split[] = {1, 2, 8, 256}, packed[] = {1, 2, 7, 100, 256};
        for (unsigned s = 0; s < 4; s++)
            test_ring(features[f], split[s], split[s] == 256 && f == 3 ? 140000 : 3000);
        for (unsigned s = 0; s < 5; s++)
            test_ring(features[f] | PACKED, packed[s], 3000);
    }
}

/* ---- notifications across threads ---- */

static void *serve_thread(void *context)
{
    loop_run(context);
    return NULL;
}

/* One request at a time, each waited for by its interrupt alone: a notification or an interrupt that is lost hangs it. */
static void test_wakeups(uint64_t features)
{
    static struct driver_board board;
    static struct driver_queue queue;
    struct echo *echo = echo_begin(&board, &queue, features, 8);
    pthread_t thread;
    unsigned id;
    uint32_t written;
    (void)echo;
    pthread_create(&thread, NULL, serve_thread, board.loop);
    struct driver_piece pieces[2] = {{ECHO_BUFFERS, 16}, {ECHO_BUFFERS + 16, 16}};
    bool hung = false;
    for (unsigned i = 0; i < 3000 && !hung; i++) {
        unsigned before = board.messages[1];
        driver_want_interrupt(&queue, true, 0);
        CHECK(driver_add(&queue, pieces, 1, 1, false) >= 0);
        if (driver_publish(&queue))
            driver_notify(&board, &queue);
        struct timespec start, now;
        clock_gettime(CLOCK_MONOTONIC, &start);
        do {
            sched_yield();
            clock_gettime(CLOCK_MONOTONIC, &now);
            hung = now.tv_sec - start.tv_sec > 20;
        } while (board.messages[1] == before && !hung);
        CHECK(driver_take(&queue, &id, &written));
        if (i % 50 == 0) /* long enough for the loop to sleep */
            nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
    }
    CHECK(!hung);
    loop_stop(board.loop);
    pthread_join(thread, NULL);
    driver_board_destroy(&board);
}

/* ---- rules that a driver may break ---- */

enum fault { OUTSIDE, MMIO, ORDER, LOOP, HEAD, JUMP, NESTED, EMPTY_TABLE, ODD_TABLE, TABLE_OUTSIDE, TABLE_NEXT, UNNEGOTIATED, WRAPS, HUGE_CHAIN,
             FAULTS };

static void put_split(struct driver_board *board, unsigned slot, uint64_t gpa, uint32_t length, uint16_t flags, uint16_t next)
{
    uint8_t *to = ram_host(&board->ram, ECHO_RINGS + slot * 16, 16);
    memcpy(to, &gpa, 8);
    memcpy(to + 8, &length, 4);
    memcpy(to + 12, &flags, 2);
    memcpy(to + 14, &next, 2);
}

/* Writes one bad thing into a split ring of 8. */
static void commit(struct driver_board *board, const struct driver_queue *queue, enum fault fault)
{
    uint16_t head = 0, index = 1;
    put_split(board, 0, ECHO_BUFFERS, 16, 0, 0);
    switch (fault) {
    case OUTSIDE: put_split(board, 0, ECHO_MEMORY - 8, 16, 0, 0); break;
    case MMIO: put_split(board, 0, 0xe0000000u, 16, 0, 0); break;
    case WRAPS: put_split(board, 0, UINT64_MAX - 4, 16, 0, 0); break;
    case ORDER:
        put_split(board, 0, ECHO_BUFFERS, 16, 2 | 1, 1);
        put_split(board, 1, ECHO_BUFFERS, 16, 0, 0);
        break;
    case LOOP:
        put_split(board, 0, ECHO_BUFFERS, 16, 1, 1);
        put_split(board, 1, ECHO_BUFFERS, 16, 1, 0);
        break;
    case HEAD: head = 8; break;
    case JUMP: index = 9; break;
    case NESTED:
        put_split(board, 0, ECHO_RINGS + 16, 16, 4, 0);
        put_split(board, 1, ECHO_BUFFERS, 16, 4, 0);
        break;
    case EMPTY_TABLE: put_split(board, 0, ECHO_BUFFERS, 0, 4, 0); break;
    case ODD_TABLE: put_split(board, 0, ECHO_BUFFERS, 17, 4, 0); break;
    case TABLE_OUTSIDE: put_split(board, 0, ECHO_MEMORY, 16, 4, 0); break;
    case TABLE_NEXT: put_split(board, 0, ECHO_BUFFERS, 16, 4 | 1, 1); break;
    case UNNEGOTIATED: put_split(board, 0, ECHO_RINGS + 16, 16, 4, 0); break;
    default:
        for (unsigned i = 0; i < 16; i++) { /* a table of more than 8 */
            uint64_t gpa = ECHO_BUFFERS + 4096 + i * 16;
            uint64_t entry[2] = {ECHO_BUFFERS, 16 | (uint64_t)1 << 32 | (uint64_t)(i + 1) << 48};
            memcpy(ram_host(&board->ram, gpa, 16), entry, 16);
        }
        put_split(board, 0, ECHO_BUFFERS + 4096, 256, 4, 0);
    }
    memcpy(ram_host(&board->ram, queue->driver + 4, 2), &head, 2);
    memcpy(ram_host(&board->ram, queue->driver + 2, 2), &index, 2);
}

static void test_faults(void)
{
    for (enum fault fault = 0; fault < FAULTS; fault++) {
        static struct driver_board board;
        static struct driver_queue queue;
        uint64_t features = fault == UNNEGOTIATED ? 0 : INDIRECT;
        struct echo *echo = echo_begin(&board, &queue, features, 8);
        unsigned before = board.messages[0];
        driver_write(&board, board.common + 0x10, 2, 0); /* configuration changes: vector 0 */
        commit(&board, &queue, fault);
        driver_notify(&board, &queue);
        driver_board_settle(&board);
        CHECK_EQ(driver_status(&board), 15 | 64);
        CHECK_EQ(board.messages[0] - before, 1);
        CHECK_EQ(echo->held_count, 0);
        driver_reset(&board, true); /* and all is well again */
        CHECK_EQ(driver_status(&board), 0);
        CHECK(driver_negotiate(&board, features | VERSION_1));
        driver_queue_init(&queue, &board.ram, ECHO_RINGS, 0, 8, features);
        driver_queue_setup(&board, &queue);
        driver_ok(&board);
        CHECK(driver_add(&queue, &(struct driver_piece){ECHO_BUFFERS, 16}, 0, 1, false) >= 0);
        driver_publish(&queue);
        driver_notify(&board, &queue);
        driver_board_settle(&board);
        unsigned id;
        uint32_t written;
        CHECK(driver_take(&queue, &id, &written));
        CHECK_EQ(written, 16);
        driver_board_destroy(&board);
    }
}

/* Rings that are not in memory, or not aligned. */
static void test_bad_setup(void)
{
    static const struct { uint64_t descriptors, driver, device; } bad[] = {
        {ECHO_MEMORY - 64, ECHO_RINGS, ECHO_RINGS}, {ECHO_RINGS, ECHO_MEMORY, ECHO_RINGS}, {ECHO_RINGS, ECHO_RINGS, UINT64_MAX - 3},
        {ECHO_RINGS + 8, ECHO_RINGS, ECHO_RINGS},
        {ECHO_RINGS, ECHO_RINGS + 1, ECHO_RINGS}, {ECHO_RINGS, ECHO_RINGS, ECHO_RINGS + 2}, {0xe0000000u, ECHO_RINGS, ECHO_RINGS}};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        static struct driver_board board;
        struct driver_queue queue;
        driver_board_init(&board, ECHO_MEMORY);
        struct echo *echo = echo_new(&board, false, 1, 8);
        driver_board_add(&board, &echo->virtio);
        echo_resume_beside(&board, echo);
        CHECK(driver_negotiate(&board, VERSION_1));
        driver_queue_init(&queue, &board.ram, ECHO_RINGS, 0, 8, 0);
        queue.descriptors = bad[i].descriptors;
        queue.driver = bad[i].driver;
        queue.device = bad[i].device;
        driver_queue_setup(&board, &queue);
        driver_ok(&board);
        driver_board_settle(&board);
        CHECK_EQ(driver_status(&board), 15 | 64);
        driver_board_destroy(&board);
    }
}

/* ---- the transport ---- */

static void test_negotiation(void)
{
    static struct driver_board board;
    driver_board_init(&board, ECHO_MEMORY);
    struct echo *echo = echo_new(&board, false, 2, 256);
    driver_board_add(&board, &echo->virtio);
    echo_resume_beside(&board, echo);
    CHECK_EQ(driver_config_read(&board, 0, 4), 0x106a1af4); /* 0x1040 + 42 */
    CHECK_EQ(driver_offered(&board), VIRTIO_BIT(3) | VERSION_1 | EVENT | INDIRECT);
    CHECK(!driver_negotiate(&board, EVENT));              /* without VERSION_1 */
    driver_reset(&board, false);
    CHECK(!driver_negotiate(&board, VERSION_1 | PACKED)); /* not offered */
    driver_write(&board, board.common + 0x14, 1, 15);
    CHECK_EQ(driver_status(&board) & 12, 0);              /* nor may it go on */
    driver_reset(&board, false);
    CHECK(driver_negotiate(&board, VERSION_1));
    driver_write(&board, board.common + 8, 4, 0);
    driver_write(&board, board.common + 12, 4, 8); /* too late */
    CHECK_EQ(driver_read(&board, board.common + 12, 4), 0);

    /* Sizes, vectors and queues that do not exist. */
    uint64_t c = board.common;
    CHECK_EQ(driver_read(&board, c + 0x12, 2), 2);
    CHECK_EQ(driver_read(&board, c + 0x18, 2), 256);
    driver_write(&board, c + 0x18, 2, 100);
    CHECK_EQ(driver_read(&board, c + 0x18, 2), 256);
    driver_write(&board, c + 0x18, 2, 512);
    CHECK_EQ(driver_read(&board, c + 0x18, 2), 256);
    driver_write(&board, c + 0x18, 2, 64);
    CHECK_EQ(driver_read(&board, c + 0x18, 2), 64);
    driver_write(&board, c + 0x1a, 2, 2);
    CHECK_EQ(driver_read(&board, c + 0x1a, 2), 2);
    driver_write(&board, c + 0x1a, 2, 3); /* it has 3 vectors */
    CHECK_EQ(driver_read(&board, c + 0x1a, 2), 0xffff);
    driver_write(&board, c + 0x16, 2, 2);
    CHECK_EQ(driver_read(&board, c + 0x18, 2), 0);
    driver_write(&board, c + 0x1c, 2, 1);
    CHECK_EQ(driver_read(&board, c + 0x1c, 2), 0);
    driver_write(&board, c + 0x20, 8, 0x1122334455667788);
    driver_write(&board, c + 0x16, 2, 1);
    driver_write(&board, c + 0x20, 8, 0x1122334455667788);
    CHECK_EQ(driver_read(&board, c + 0x20, 8), 0x1122334455667788);
    CHECK_EQ(driver_read(&board, c + 0x24, 4), 0x11223344);
    driver_write(&board, c + 0x1c, 2, 1);
    driver_write(&board, c + 0x20, 4, 0); /* it is enabled */
    CHECK_EQ(driver_read(&board, c + 0x20, 4), 0x55667788);
    driver_reset(&board, false);
    driver_write(&board, c + 0x16, 2, 1);
    CHECK_EQ(driver_read(&board, c + 0x20, 8), 0);
    CHECK_EQ(driver_read(&board, c + 0x18, 2), 256);
    driver_board_destroy(&board);
}

static void find_window(struct driver_board *board, unsigned *ret_at)
{
    *ret_at = 0;
    for (unsigned at = (unsigned)driver_config_read(board, 0x34, 1); at; at = (unsigned)driver_config_read(board, at + 1, 1))
        if (driver_config_read(board, at, 1) == 9 && driver_config_read(board, at + 3, 1) == 5)
            *ret_at = at;
    CHECK(*ret_at != 0);
}

static void test_configuration(void)
{
    static struct driver_board board;
    static struct driver_queue queue;
    struct echo *echo = echo_begin(&board, &queue, 0, 8);
    CHECK_EQ(driver_read(&board, board.config, 8), 0x0807060504030201);
    CHECK_EQ(driver_read(&board, board.config + 6, 4), 0x0807); /* nothing behind its end */
    driver_write(&board, board.config + 2, 4, 0xaabbccdd);       /* bytes 4 and 5 are the driver's */
    CHECK_EQ(driver_read(&board, board.config, 8), 0x0807aabb04030201);
    driver_board_settle(&board);
    CHECK_EQ(echo->configs, 1);
    uint8_t got[2];
    virtio_config_get(&echo->virtio, 4, got, 2);
    CHECK_EQ(got[0], 0xbb);

    driver_write(&board, board.common + 0x10, 2, 0);
    uint64_t generation = driver_read(&board, board.common + 0x15, 1);
    unsigned before = board.messages[0];
    virtio_config_set(&echo->virtio, 0, "\x55", 1);
    CHECK(driver_read(&board, board.common + 0x15, 1) != generation);
    CHECK_EQ(driver_read(&board, board.config, 1), 0x55);
    CHECK_EQ(board.messages[0] - before, 1);

    /* The same register through PCI configuration space, 4.1.4.9. */
    unsigned at;
    find_window(&board, &at);
    driver_config_write(&board, at + 4, 1, 4);
    driver_config_write(&board, at + 8, 4, (uint32_t)(board.config - board.common));
    driver_config_write(&board, at + 12, 4, 4);
    CHECK_EQ(driver_config_read(&board, at + 16, 4), 0x04030255);
    driver_config_write(&board, at + 8, 4, (uint32_t)(board.config - board.common) + 4);
    driver_config_write(&board, at + 12, 4, 2);
    driver_config_write(&board, at + 16, 4, 0xffff1234);
    CHECK_EQ(driver_read(&board, board.config + 4, 4), 0x08071234);
    driver_config_write(&board, at + 8, 4, 0xfffffffe); /* outside: nothing happens */
    driver_config_read(&board, at + 16, 4);
    driver_config_write(&board, at + 16, 4, 1);
    driver_board_destroy(&board);
}

/* Without MSI-X: INTA and the ISR. */
static void test_intx(void)
{
    static struct driver_board board;
    static struct driver_queue queue;
    struct echo *echo = echo_begin(&board, &queue, 0, 8);
    for (unsigned at = (unsigned)driver_config_read(&board, 0x34, 1); at; at = (unsigned)driver_config_read(&board, at + 1, 1))
        if (driver_config_read(&board, at, 1) == 0x11)
            driver_config_write(&board, at + 2, 2, 0);
    CHECK(driver_add(&queue, &(struct driver_piece){ECHO_BUFFERS, 16}, 0, 1, false) >= 0);
    driver_publish(&queue);
    driver_notify(&board, &queue);
    driver_board_settle(&board);
    CHECK_EQ(board.intx, 1);
    CHECK_EQ(driver_read(&board, board.isr, 1), 1);
    CHECK_EQ(board.intx, 0);
    CHECK_EQ(driver_read(&board, board.isr, 1), 0);
    virtio_config_set(&echo->virtio, 0, "\x55", 1);
    CHECK_EQ(board.intx, 1);
    CHECK_EQ(driver_read(&board, board.isr, 1), 2);
    CHECK_EQ(board.intx, 0);
    driver_board_destroy(&board);
}

int main(void)
{
    test_rings();
    test_wakeups(0);
    test_wakeups(EVENT);
    test_wakeups(PACKED);
    test_wakeups(PACKED | EVENT);
    test_faults();
    test_bad_setup();
    test_negotiation();
    test_configuration();
    test_intx();
    CHECK_DONE();
}
