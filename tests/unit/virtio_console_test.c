/* virtio_console_test.c - the console device with a driver of the test's own: terminal, named ports, control messages,
 * sizes, what is saved. */
#include "device/virtio/console.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/unix.h"
#include "device_check.h"
#include "support/virtio_talk.h"

enum { SIZE = 1, MULTIPORT = 2, EMERGENCY = 4 };
enum { RX0, TX0, CONTROL_RX, CONTROL_TX, RX1, TX1 };
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };

static char folder[] = "/tmp/veneer-console-XXXXXX", path[64];
static struct talk talk;
static struct virtio_device *device;

/* The terminal. */
static char shown[200000];
static size_t shown_used, room = SIZE_MAX;
static unsigned rooms;

static size_t show(void *owner, const void *bytes, size_t length)
{
    (void)owner;
    size_t n = length < room ? length : room;
    n = n < sizeof shown - 1 - shown_used ? n : sizeof shown - 1 - shown_used;
    memcpy(shown + shown_used, bytes, n);
    shown_used += n;
    shown[shown_used] = '\0';
    room -= n;
    return n;
}

static void has_room(void *owner)
{
    (void)owner;
    rooms++;
}

static void begin(bool terminal, bool port)
{
    struct virtio_console_port named = {"org.test.one", path};
    struct virtio_console_config config = {.port = &named, .ports = port, .write = terminal ? show : NULL, .room = has_room};
    struct error error = {.text = ""};
    driver_board_init(&talk.board, TALK_MEMORY);
    struct virtio_env env = driver_board_env(&talk.board, true);
    device = virtio_console_new(&env, &config, &error);
    CHECK_STR(error.text, "");
    talk_put(&talk, device);
    shown_used = 0;
    room = SIZE_MAX;
    rooms = 0;
}

static void finish(void)
{
    driver_board_destroy(&talk.board);
}

struct control {
    uint32_t id;
    uint16_t event, value;
    uint8_t more[64];
};

static void tell(uint32_t id, uint16_t event, uint16_t value)
{
    struct control message = {.id = id, .event = event, .value = value};
    talk_say(&talk, CONTROL_TX, &message, 8);
    CHECK(talk_hear(&talk, CONTROL_TX, NULL, 0) == 0);
}

/* The next control message, which must be this one. */
static struct control expect(uint32_t id, uint16_t event, uint16_t value)
{
    struct control message = {0};
    int length = talk_hear(&talk, CONTROL_RX, &message, sizeof message);
    CHECK(length >= 8);
    CHECK_EQ(message.id, id);
    CHECK_EQ(message.event, event);
    CHECK_EQ(message.value, value);
    talk_offer(&talk, CONTROL_RX, 128);
    return message;
}

static void test_terminal(void)
{
    char bytes[64] = "";
    begin(true, false);
    CHECK(!(driver_offered(&talk.board) & MULTIPORT));
    virtio_console_resize(device, 97, 31);
    talk_start(&talk, SIZE, 4);
    CHECK_EQ(talk_config(&talk, 0, 2), 97);
    CHECK_EQ(talk_config(&talk, 2, 2), 31);
    talk_say(&talk, TX0, "hello", 5);
    CHECK_EQ(talk_hear(&talk, TX0, NULL, 0), 0);
    CHECK_STR(shown, "hello");
    CHECK_EQ(virtio_console_input(device, "typed", 5), 5);
    driver_board_settle(&talk.board);
    talk_offer(&talk, RX0, 3);
    talk_offer(&talk, RX0, 100);
    CHECK_EQ(talk_hear(&talk, RX0, bytes, sizeof bytes), 3);
    CHECK(memcmp(bytes, "typ", 3) == 0);
    CHECK_EQ(talk_hear(&talk, RX0, bytes, sizeof bytes), 2);
    CHECK(memcmp(bytes, "ed", 2) == 0);
    /* More than it holds: the rest is refused, and asked for again. */
    static char many[10000];
    size_t taken = virtio_console_input(device, many, sizeof many);
    CHECK(taken > 0 && taken < sizeof many);
    CHECK_EQ(virtio_console_input(device, many, 1), 0);
    talk_offer(&talk, RX0, 8192);
    CHECK_EQ(talk_hear(&talk, RX0, NULL, 0), (int)taken);
    CHECK_EQ(rooms, 1);
    finish();
}

/* A terminal that takes nothing holds the guest up, and gets all of it later. */
static void test_slow_terminal(void)
{
    static char text[8000];
    unsigned given = 0, used = 0;
    begin(true, false);
    talk_start(&talk, 0, 4);
    memset(text, 'x', sizeof text);
    room = 10;
    while (given < 14) {
        uint64_t place = talk_place(&talk, TX0);
        CHECK_EQ(ram_write(&talk.board.ram, place, text, sizeof text), 0);
        talk_add(&talk, TX0, place, sizeof text, false);
        driver_board_settle(&talk.board);
        given++;
    }
    while (talk_hear(&talk, TX0, NULL, 0) >= 0)
        used++;
    CHECK(used > 0 && used < given);
    CHECK_EQ(shown_used, 10);
    room = SIZE_MAX;
    virtio_console_room(device);
    driver_board_settle(&talk.board);
    while (talk_hear(&talk, TX0, NULL, 0) >= 0)
        used++;
    CHECK_EQ(used, given);
    CHECK_EQ(shown_used, given * sizeof text);
    finish();
}

static void start_ports(void)
{
    talk_start(&talk, SIZE | MULTIPORT, 6);
    for (unsigned i = 0; i < 8; i++)
        talk_offer(&talk, CONTROL_RX, 128);
    CHECK_EQ(talk_hear(&talk, CONTROL_RX, NULL, 0), -1); /* nothing before the guest is ready */
    tell(0, READY, 1);
}

static int dial(void)
{
    int fd = -1;
    CHECK_EQ(unix_connect(path, &fd), 0);
    driver_board_settle(&talk.board);
    return fd;
}

static void test_ports(void)
{
    char bytes[64] = "";
    begin(true, true);
    CHECK_EQ(talk_config(&talk, 4, 4), 2);
    virtio_console_resize(device, 80, 25);
    start_ports();
    expect(0, ADD, 1);
    expect(1, ADD, 1);
    tell(0, PORT_READY, 1);
    expect(0, CONSOLE, 1);
    struct control size = expect(0, RESIZE, 0);
    CHECK_EQ(size.more[0], 80);
    CHECK_EQ(size.more[2], 25);
    expect(0, OPEN, 1);
    tell(1, PORT_READY, 1);
    struct control name = expect(1, NAME, 0);
    CHECK(memcmp(name.more, "org.test.one", 12) == 0);
    expect(1, OPEN, 0);
    virtio_console_resize(device, 132, 43);
    driver_board_settle(&talk.board);
    CHECK_EQ(expect(0, RESIZE, 0).more[0], 132);
    /* What is written while nobody listens is dropped. */
    talk_say(&talk, TX1, "lost", 4);
    CHECK_EQ(talk_hear(&talk, TX1, NULL, 0), 0);
    int fd = dial();
    expect(1, OPEN, 1);
    talk_offer(&talk, RX1, 100);
    CHECK_EQ(write(fd, "early", 5), 5);
    driver_board_settle(&talk.board);
    CHECK_EQ(talk_hear(&talk, RX1, bytes, sizeof bytes), -1); /* the guest has not opened it */
    tell(1, OPEN, 1);
    CHECK_EQ(talk_hear(&talk, RX1, bytes, sizeof bytes), 5);
    CHECK(memcmp(bytes, "early", 5) == 0);
    talk_say(&talk, TX1, "answer", 6);
    CHECK_EQ(read(fd, bytes, sizeof bytes), 6);
    CHECK(memcmp(bytes, "answer", 6) == 0);
    /* A second client waits for the first to go. */
    int second = -1;
    CHECK_EQ(unix_connect(path, &second), 0);
    CHECK_EQ(write(fd, "last", 4), 4);
    CHECK_EQ(write(second, "next", 4), 4);
    close(fd);
    driver_board_settle(&talk.board);
    talk_offer(&talk, RX1, 100);
    CHECK_EQ(talk_hear(&talk, RX1, bytes, sizeof bytes), 4);
    CHECK(memcmp(bytes, "last", 4) == 0);
    expect(1, OPEN, 0);
    driver_board_settle(&talk.board);
    expect(1, OPEN, 1);
    talk_offer(&talk, RX1, 100);
    CHECK_EQ(talk_hear(&talk, RX1, bytes, sizeof bytes), 4);
    CHECK(memcmp(bytes, "next", 4) == 0);
    close(second);
    finish();
}

/* What makes no sense is ignored, or breaks the queue; none of it breaks the device's other users. */
static void test_hostile(void)
{
    begin(false, true);
    start_ports();
    expect(1, ADD, 1); /* there is no terminal */
    tell(77, PORT_READY, 1);
    tell(0xffffffff, OPEN, 1);
    tell(1, OPEN, 1); /* not ready yet */
    tell(1, 99, 1);
    talk_say(&talk, CONTROL_TX, "abc", 3);
    CHECK_EQ(driver_status(&talk.board), 15);
    tell(1, PORT_READY, 1);
    expect(1, NAME, 0);
    expect(1, OPEN, 0);
    struct driver_piece large[2] = {{TALK_BUFFERS, 1 << 20}, {TALK_BUFFERS, 1}};
    CHECK(driver_add(&talk.queue[TX1], large, 2, 0, false) >= 0);
    driver_publish(&talk.queue[TX1]);
    driver_notify(&talk.board, &talk.queue[TX1]);
    driver_board_settle(&talk.board);
    CHECK_EQ(driver_status(&talk.board), 15 | 64);
    driver_reset(&talk.board, true);
    start_ports();
    expect(1, ADD, 1);
    finish();
}

static void test_emergency(void)
{
    begin(true, false);
    for (const char *at = "help"; *at; at++) /* before any driver */
        talk_configure(&talk, 8, 4, (uint8_t)*at);
    driver_board_settle(&talk.board);
    CHECK_STR(shown, "help");
    CHECK_EQ(talk_config(&talk, 0, 2), 0);
    talk_configure(&talk, 0, 4, 0xffffffff); /* the size is not the driver's */
    CHECK_EQ(talk_config(&talk, 0, 4), 0);
    finish();
}

/* What was typed and what the terminal did not take yet are there where it is loaded; the port's client is not, and the guest is told. */
static void test_save(void)
{
    static struct talk other;
    char bytes[64] = "", other_path[80];
    snprintf(other_path, sizeof other_path, "%s-2", path);
    begin(true, true);
    start_ports();
    expect(0, ADD, 1);
    expect(1, ADD, 1);
    tell(0, PORT_READY, 1);
    expect(0, CONSOLE, 1);
    expect(0, OPEN, 1);
    tell(1, PORT_READY, 1);
    expect(1, NAME, 0);
    expect(1, OPEN, 0);
    int fd = dial();
    expect(1, OPEN, 1);
    room = 0;
    talk_say(&talk, TX0, "shown later", 11);
    CHECK_EQ(virtio_console_input(device, "typed", 5), 5);
    driver_board_settle(&talk.board);
    talk_beside(&talk, device, talk_pause_thread);

    struct virtio_console_port named = {"org.test.one", other_path};
    struct virtio_console_config config = {.port = &named, .ports = 1, .write = show};
    driver_board_init(&other.board, TALK_MEMORY);
    struct virtio_env env = driver_board_env(&other.board, true);
    struct virtio_device *loaded = virtio_console_new(&env, &config, NULL);
    driver_board_add(&other.board, loaded);
    talk_move(&talk, &other);
    room = SIZE_MAX;
    talk_beside(&other, loaded, talk_resume_thread);
    driver_board_settle(&other.board);
    CHECK_STR(shown, "shown later");
    struct control message = {0};
    CHECK_EQ(talk_hear(&other, CONTROL_RX, &message, sizeof message), 8);
    CHECK(message.id == 1 && message.event == OPEN && message.value == 0);
    talk_offer(&other, RX0, 100);
    CHECK_EQ(talk_hear(&other, RX0, bytes, sizeof bytes), 5);
    CHECK(memcmp(bytes, "typed", 5) == 0);
    driver_board_destroy(&other.board);
    close(fd);
    talk_beside(&talk, device, talk_resume_thread);
    finish();
}

int main(void)
{
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/port", folder);
    test_terminal();
    test_slow_terminal();
    test_ports();
    test_hostile();
    test_emergency();
    test_save();
    CHECK_EQ(rmdir(folder), 0);
    struct error error;
    CHECK_EQ(virtio_console_check_name("", &error), -EINVAL);
    CHECK_EQ(virtio_console_check_name("a/b", &error), -EINVAL);
    CHECK_EQ(virtio_console_check_name("a", &error), 0);
    CHECK_DONE();
}
