/* services_test.c - sockets, the balloon and the console, before and after the machine is saved and loaded, with the
 * drivers of an unmodified Linux.
 *
 * services_test ENGINE KERNEL INITRD RINGS (split or packed): the initrd's /init is services-init.c. The machine runs in this process, whose unix
 * sockets are the host's end. Nothing here measures time: what should come is waited for, and the test's own time-out ends what hangs. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../check.h"
#include "base/unix.h"
#include "machine/balloon.h"
#include "support/session.h"

#define MIB (UINT64_C(1) << 20)
#define ECHO 1000u
#define SWALLOW 1001u
#define PRODUCE 1002u
#define COMMAND 1003u
#define MANY 50u

static const char *const bad[] = {"BUG:", "WARNING:", "Oops", "Kernel panic", "module ", "virtio_balloon: Out of puff", NULL};
static bool printed;

static void hear(const char *line)
{
    if (strcmp(line, "from the terminal") == 0)
        printed = true;
}

static struct session session = SESSION_INIT(hear, bad);
static char folder[] = "/tmp/veneer-services-XXXXXX", path[64];

/* --- the host's end of sockets, which block */

/* Asks for a port; returns the descriptor after its OK, or -1 when it was refused. */
static int dial(unsigned port)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char line[32];
    size_t used = 0;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        perror("connect");
    dprintf(fd, "CONNECT %u\n", port);
    while (used < sizeof line - 1 && read(fd, line + used, 1) == 1 && line[used] != '\n')
        used++;
    if (used > 3 && memcmp(line, "OK ", 3) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool send_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length) {
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

/* Up to the end; returns how many. */
static size_t read_all(int fd, uint8_t *ret_bytes, size_t size)
{
    size_t used = 0;
    ssize_t n;
    while (used < size && (n = read(fd, ret_bytes + used, size - used)) > 0)
        used += (size_t)n;
    return used;
}

/* The answer to a command, without its newline. */
static const char *tell(const char *text)
{
    static char answer[400];
    int fd = dial(COMMAND);
    CHECK(fd >= 0);
    dprintf(fd, "%s\n", text);
    answer[read_all(fd, (uint8_t *)answer, sizeof answer - 1)] = '\0';
    answer[strcspn(answer, "\n")] = '\0';
    close(fd);
    return answer;
}

static uint8_t pattern(uint64_t place)
{
    return (uint8_t)(place * 31 >> 3);
}

/* --- sockets */

static void *echo_one(void *context)
{
    size_t number = (size_t)(uintptr_t)context, length = 40000 + 17 * number;
    uint8_t *sent = malloc(length), *got = malloc(length + 1);
    bool good = false;
    int fd = dial(ECHO);
    for (size_t i = 0; i < length; i++)
        sent[i] = (uint8_t)(pattern(i) + number);
    /* What is sent fits into what sockets hold on the way, so that it may all be sent before any is read. */
    if (fd >= 0 && send_all(fd, sent, length) && shutdown(fd, SHUT_WR) == 0)
        good = read_all(fd, got, length + 1) == length && memcmp(sent, got, length) == 0;
    if (fd >= 0)
        close(fd);
    free(sent);
    free(got);
    return (void *)(uintptr_t)good;
}

static void test_many(void)
{
    pthread_t thread[MANY];
    unsigned good = 0;
    for (unsigned i = 0; i < MANY; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, echo_one, (void *)(uintptr_t)i), 0);
    for (unsigned i = 0; i < MANY; i++) {
        void *result = NULL;
        pthread_join(thread[i], &result);
        good += result != NULL;
    }
    CHECK_EQ(good, MANY);
}

/* More than any buffer on the way holds, each way. */
static void test_bulk(size_t length)
{
    uint8_t *bytes = malloc(length + 1);
    uint64_t sum = 0, wrong = 0;
    char due[64];
    for (size_t i = 0; i < length; i++) {
        bytes[i] = pattern(i);
        sum += (uint64_t)bytes[i] * (i % 251 + 1);
    }
    int fd = dial(SWALLOW);
    CHECK(send_all(fd, bytes, length));
    CHECK_EQ(shutdown(fd, SHUT_WR), 0);
    bytes[read_all(fd, bytes, length)] = '\0';
    snprintf(due, sizeof due, "%zu %llu\n", length, (unsigned long long)sum);
    CHECK_STR((char *)bytes, due);
    close(fd);
    fd = dial(PRODUCE);
    dprintf(fd, "%zu\n", length);
    usleep(1000); /* not a wait: it fills while nobody reads */
    CHECK_EQ(read_all(fd, bytes, length + 1), length);
    for (size_t i = 0; i < length; i++)
        wrong += bytes[i] != pattern(i);
    CHECK_EQ(wrong, 0);
    close(fd);
    free(bytes);
}

static void *answer_one(void *context)
{
    int listener = *(int *)context;
    char text[64] = "";
    int fd;
    while ((fd = accept(listener, NULL, NULL)) < 0 && errno == EAGAIN)
        usleep(1000);
    read_all(fd, (uint8_t *)text, sizeof text - 1);
    dprintf(fd, "you said %s", text);
    close(fd);
    return NULL;
}

static void test_from_guest(void)
{
    struct error error;
    char other[80];
    int listener = -1;
    pthread_t thread;
    CHECK_STR(tell("dial 5000 x"), "error Connection reset by peer");
    snprintf(other, sizeof other, "%s_5000", path);
    CHECK_EQ(unix_listen(other, 4, "test socket", &listener, &error), 0);
    CHECK_EQ(pthread_create(&thread, NULL, answer_one, &listener), 0);
    CHECK_STR(tell("dial 5000 good morning"), "got you said good morning");
    pthread_join(thread, NULL);
    close(listener);
    unlink(other);
}

static void test_ends(void)
{
    CHECK_EQ(dial(77), -1); /* nobody listens there */
    /* A client that goes in the middle of it: the guest's program ends, and all goes on. */
    int fd = dial(PRODUCE);
    dprintf(fd, "%u\n", 100u << 20);
    uint8_t bytes[1000];
    CHECK(read(fd, bytes, sizeof bytes) > 0);
    close(fd);
    CHECK_STR(tell("what"), "error what?");
}

/* --- the balloon */

static struct machine_memory memory(void)
{
    struct machine_memory now;
    machine_memory(session.machine, &now);
    return now;
}

#define AWAIT(condition)             \
    do {                             \
        while (!(condition))         \
            usleep(10000);           \
        CHECK(condition);            \
    } while (0)

/* A program of the guest has so many bytes, no more; it checks what it stored before. */
static void hold(uint64_t bytes)
{
    char text[64], due[64];
    snprintf(text, sizeof text, "hold %llu", (unsigned long long)bytes);
    snprintf(due, sizeof due, "held %llu, 0 wrong", (unsigned long long)bytes);
    CHECK_STR(tell(text), due);
}

static void test_reclaim(uint64_t bytes)
{
    AWAIT(memory().balloon.known >> BALLOON_FREE & 1);
    CHECK(memory().balloon.present);
    hold(bytes);
    uint64_t high = memory().resident;
    CHECK(high >= bytes);
    hold(0);
    AWAIT(memory().resident + bytes / 2 < high);
    /* And the guest has all of it again. */
    AWAIT(memory().balloon.actual == 0);
    hold(bytes);
    hold(4096); /* which checks what was stored */
}

static void test_target(void)
{
    struct error error;
    CHECK_EQ(machine_balloon_set(session.machine, 300 * MIB, &error), -ERANGE);
    CHECK_EQ(machine_balloon_set(session.machine, 64 * MIB, &error), 0);
    AWAIT(memory().balloon.actual == 64 * MIB);
    CHECK_EQ(memory().balloon.target, 64 * MIB);
    CHECK(memory().balloon.inflated >= 64 * MIB);
    CHECK(memory().resident <= 256 * MIB - 64 * MIB);
    CHECK_EQ(machine_balloon_set(session.machine, 0, &error), 0);
    AWAIT(memory().balloon.actual == 0);
}

/* A guest that needs what the balloon has gets it, rather than to kill a program. */
static void test_pressure(void)
{
    struct error error;
    CHECK_EQ(machine_balloon_set(session.machine, 100 * MIB, &error), 0);
    AWAIT(memory().balloon.actual == 100 * MIB);
    hold(140 * MIB);
    CHECK(memory().balloon.actual < 100 * MIB);
    hold(0);
    CHECK_EQ(machine_balloon_set(session.machine, 0, &error), 0);
    AWAIT(memory().balloon.actual == 0);
}

/* --- the console */

static void *port_command(void *context)
{
    CHECK_STR(tell("port test.one"), "got and to you");
    return context;
}

static void test_console(const char *port)
{
    uint8_t line[64] = "";
    pthread_t thread;
    int fd = -1;
    CHECK_EQ(unix_connect(port, &fd), 0);
    CHECK_EQ(pthread_create(&thread, NULL, port_command, NULL), 0);
    for (size_t used = 0; used < sizeof line - 1 && !strchr((char *)line, '\n');) {
        ssize_t n = read(fd, line + used, sizeof line - 1 - used);
        used += n > 0 ? (size_t)n : 0;
        if (n < 0)
            usleep(1000);
    }
    CHECK_STR((char *)line, "hello from test.one\n");
    CHECK(send_all(fd, (const uint8_t *)"and to you\n", 11));
    pthread_join(thread, NULL);
    close(fd);
    machine_console_resize(session.machine, 97, 31);
    CHECK_STR(tell("print /dev/hvc0 from the terminal"), "18");
    SESSION_AWAIT(&session, printed);
    while (strcmp(tell("size /dev/hvc0"), "97 31") != 0)
        usleep(10000);
}

/* The machine stops, is saved, and goes on as another one: the guest's drivers and programs notice nothing but that connections ended. */
static void move(struct machine_config *config)
{
    struct error error = {.text = ""};
    hold(20 * MIB);
    int fd = dial(ECHO);
    machine_stop(session.machine);
    session_join(&session);
    CHECK_EQ(session.end, MACHINE_END_STOPPED);
    struct stream *saved = stream_new();
    CHECK_EQ(machine_save(session.machine, saved, &error), 0);
    machine_destroy(session.machine);
    uint8_t byte;
    CHECK(read(fd, &byte, 1) <= 0);
    close(fd);
    size_t length;
    const void *bytes = stream_bytes(saved, &length);
    struct stream *stream = stream_open(bytes, length);
    if (session_create(&session, config) < 0)
        exit(1);
    CHECK_EQ(machine_load(session.machine, stream, &error), 0);
    CHECK_STR(error.text, "");
    stream_free(stream);
    stream_free(saved);
    printed = false;
    session_start(&session);
    hold(4096); /* which checks what was stored before */
}

int main(int argc, char **argv)
{
    const struct engine_ops *engine = argc == 5 ? engine_find(argv[1]) : NULL;
    if (!engine) {
        fprintf(stderr, "usage: services_test ENGINE KERNEL INITRD RINGS\n");
        return 2;
    }
    bool slow = strcmp(argv[1], "interpret") == 0;
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/vsock", folder);
    char port_path[80];
    snprintf(port_path, sizeof port_path, "%s/port", folder);
    struct machine_port port = {"test.one", port_path};
    struct machine_config config = {.kernel = argv[2], .initrd = argv[3], .append = "console=ttyS0 panic=-1 quiet", .vcpus = 2,
                                    .memory = 256 * MIB, .engine = engine, .debug_exit_port = -1, .vsock = path,
                                    .virtio_packed = strcmp(argv[4], "packed") == 0,
                                    .console_virtio = true, .port = &port, .ports = 1};
    if (session_create(&session, &config) < 0)
        return 1;
    session_start(&session);
    SESSION_AWAIT(&session, session.ready);
    if (!session.ended) {
        test_console(port_path);
        test_from_guest();
        test_ends();
        test_bulk(slow ? 1 * MIB : 8 * MIB);
        test_many();
        test_reclaim(slow ? 64 * MIB : 160 * MIB);
        test_target();
        if (!slow) /* what the guest does then is no matter of the engine */
            test_pressure();
        move(&config);
        test_console(port_path);
        test_from_guest();
        AWAIT(memory().balloon.known >> BALLOON_FREE & 1);
        test_target();
        int fd = dial(COMMAND);
        dprintf(fd, "off\n");
        SESSION_AWAIT(&session, session.ended);
        close(fd);
    }
    session_join(&session);
    CHECK_EQ(session.end, MACHINE_END_POWER_OFF);
    CHECK_EQ(session.complaints, 0);
    machine_destroy(session.machine);
    CHECK_EQ(rmdir(folder), 0); /* the socket is gone */
    CHECK_DONE();
}
