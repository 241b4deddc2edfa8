/* console.c - what a driver can get wrong in a console's control messages (5.3.6.2): sizes, ports, events and order; and whether
 * the device still tells of its ports. */
#include "abuse.h"

enum { DEVICE_READY, DEVICE_ADD, DEVICE_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME, EVENTS };

#define MESSAGE 8u /* bytes without a name */
#define BUFFER 64u

struct message {
    u32 port;
    u16 event, value;
};

static const u32 ports[] = { 0, 1, 2, 3, 15, 16, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff };
static const u16 values[] = { 0, 1, 2, 0xffff };
#define PORTS (sizeof ports / sizeof ports[0])
#define VALUES (sizeof values / sizeof values[0])

static bool takes_control(const struct abuse *abuse)
{
    return abuse->virtio->type == VIRTIO_CONSOLE && abuse->virtio->features & F_CONSOLE_MULTIPORT && abuse->index == CONTROL_OUT;
}

static void put_message(u32 at, u32 port, u16 event, u16 value)
{
    *(volatile struct message *)scratch_at(at) = (struct message){ port, event, value };
}

/* Sends it, and waits until there is room for the next. */
static void say(struct abuse *abuse, u32 port, u16 event, u16 value, u32 length)
{
    static unsigned turn;
    u32 at = 64 * (turn++ % 64);
    put_message(at, port, event, value);
    offer_piece(abuse, scratch_at(at), length, 0);
    if (turn % 16 == 0)
        delay(200000);
}

/* ---- cases ---- */

/* Every event with ports and values that are and are not, before READY and after. */
static void every_event(struct abuse *abuse)
{
    if (!takes_control(abuse))
        return;
    for (unsigned ready = 0; ready < 2; ready++) {
        for (unsigned i = 0; i < PORTS * (EVENTS + 2) * VALUES; i++) {
            u16 event = (u16)(i / PORTS % (EVENTS + 2));
            say(abuse, ports[i % PORTS], event == EVENTS + 1 ? 0xffff : event, values[i / PORTS / (EVENTS + 2)], MESSAGE);
        }
        say(abuse, 0, DEVICE_READY, 1, MESSAGE);
    }
}

/* Shorter than a message, and longer than any. */
static void every_size(struct abuse *abuse)
{
    for (u32 length = 0; takes_control(abuse) && length < 40; length++)
        say(abuse, 1, (u16)(length % EVENTS), 1, length);
    if (takes_control(abuse))
        say(abuse, 1, PORT_NAME, 1, 100000);
}

static void in_pieces(struct abuse *abuse)
{
    if (!takes_control(abuse))
        return;
    put_message(0, 0, DEVICE_READY, 1);
    for (u32 i = 0; i < MESSAGE; i++)
        chain_item(abuse, i, scratch_at(i), 1, i + 1 < MESSAGE ? DESC_NEXT : 0, (u16)(i + 1));
    offer(abuse, 0, MESSAGE);
}

/* The guest gives a buffer to write to where it should say something. */
static void writable_message(struct abuse *abuse)
{
    if (takes_control(abuse))
        offer_piece(abuse, scratch_at(0), MESSAGE, DESC_WRITE);
}

/* READY over and over, and ports that come and go, while nobody takes what the device has to say. */
static void ready_storm(struct abuse *abuse)
{
    for (unsigned i = 0; takes_control(abuse) && i < 2000; i++)
        say(abuse, i % 3, i % 3 == 0 ? DEVICE_READY : i & 4 ? PORT_OPEN : PORT_READY, (u16)(i >> 1 & 1), MESSAGE);
}

/* Buffers that are too small for what the device has to say, on the queue that it says it on. */
static void no_room(struct abuse *abuse)
{
    if (!takes_control(abuse))
        return;
    struct queue *answers = &abuse->virtio->queue[CONTROL_IN];
    for (u32 length = 0; length < 8; length++) {
        const struct buffer buffer = { scratch_at(8192), length, true };
        queue_add(answers, &buffer, 1, abuse, false);
        queue_notify(answers);
        say(abuse, 0, DEVICE_READY, 1, MESSAGE);
        say(abuse, 1, PORT_READY, 1, MESSAGE);
    }
}

/* The same for what comes in, and a reader's buffer where the device should read. */
static void open_and_shut(struct abuse *abuse)
{
    if (!takes_control(abuse))
        return;
    say(abuse, 0, DEVICE_READY, 1, MESSAGE);
    for (unsigned i = 0; i < 64; i++) {
        say(abuse, 1 + i % 2, PORT_READY, 1, MESSAGE);
        say(abuse, 1 + i % 2, PORT_OPEN, 1, MESSAGE);
        for (unsigned index = 4; index < abuse->virtio->queues && index < QUEUES_MAX; index++) {
            const struct buffer buffer = { scratch_at(16384), (i & 7) * 600, !(index & 1) };
            queue_add(&abuse->virtio->queue[index], &buffer, 1, abuse, i & 8);
            queue_notify(&abuse->virtio->queue[index]);
        }
        say(abuse, 1 + i % 2, i & 1 ? PORT_OPEN : PORT_READY, 0, MESSAGE);
    }
}

/* Characters by configuration space (5.3.5), many more than the host takes at once. */
static void emergency(struct abuse *abuse)
{
    for (unsigned i = 0; abuse->virtio->type == VIRTIO_CONSOLE && i < 10000; i++)
        reg_write(abuse->virtio->config + 8 + (i & 1 ? 0 : i % 8), 1u << (i % 3), (u32)random64());
}

const struct abuse_case console_cases[] = {
    { "every control message", every_event, EITHER },
    { "control messages of every size", every_size, EITHER },
    { "a control message in pieces", in_pieces, EITHER },
    { "a control message to write to", writable_message, EITHER },
    { "a storm of control messages", ready_storm, EITHER },
    { "no room for control messages", no_room, EITHER },
    { "ports opened and shut", open_and_shut, EITHER },
    { "a storm of emergency writes", emergency, EITHER },
};
const unsigned console_case_count = sizeof console_cases / sizeof console_cases[0];

u32 console_random_message(u32 offset)
{
    u64 dice = random64();
    put_message(offset, dice % 8 ? ports[dice / 8 % 4] : (u32)random64(), dice % 7 ? (u16)(dice / 64 % (EVENTS + 1)) : (u16)random64(),
                dice % 5 ? (u16)(dice / 512 & 1) : (u16)random64());
    return dice % 9 ? MESSAGE : (u32)(dice / 4096 % 32);
}

/* ---- as it should be ---- */

static bool tell(struct queue *queue, u32 port, u16 event)
{
    static struct message message;
    u32 length;
    message = (struct message){ port, event, 1 };
    const struct buffer buffer = { (u64)&message, MESSAGE, false };
    if (!queue_add(queue, &buffer, 1, &message, false))
        return false;
    queue_kick(queue);
    return queue_wait(queue, &length) == &message;
}

/* The next message; false when none comes, or not this event. */
static bool hear(struct queue *queue, u16 event, struct message *ret_message, u32 *ret_length)
{
    volatile struct message *message = queue_wait(queue, ret_length);
    if (!message)
        return false;
    *ret_message = *message;
    return *ret_length >= MESSAGE && message->event == event;
}

bool console_exercise(struct virtio *virtio)
{
    static u8 buffers[8][BUFFER];
    struct queue *in = &virtio->queue[CONTROL_IN], *out = &virtio->queue[CONTROL_OUT];
    struct message message;
    u32 length;
    for (unsigned i = 0; i < 8; i++) {
        const struct buffer buffer = { (u64)buffers[i], BUFFER, true };
        queue_add(in, &buffer, 1, buffers[i], false);
    }
    queue_kick(in);
    if (!tell(out, 0, DEVICE_READY))
        return false;
    for (u32 port = 1; port <= (virtio->queues - 4) / 2; port++)
        if (!hear(in, DEVICE_ADD, &message, &length) || message.port != port)
            return false;
    if (!tell(out, 1, PORT_READY) || !hear(in, PORT_NAME, &message, &length))
        return false;
    return message.port == 1 && length > MESSAGE && hear(in, PORT_OPEN, &message, &length) && message.value == 0;
}
