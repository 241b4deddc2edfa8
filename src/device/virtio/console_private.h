/* console_private.h - what console.c (the device and its control messages) and console_port.c (the bytes of a port) share. */
#ifndef VENEER_DEVICE_VIRTIO_CONSOLE_PRIVATE_H
#define VENEER_DEVICE_VIRTIO_CONSOLE_PRIVATE_H

#include <pthread.h>

#include "base/ring.h"
#include "device/virtio/console.h"

#define CONSOLE_IN_MAX 4096u           /* bytes that wait for a buffer of the guest */
#define CONSOLE_OUT_MAX (64u << 10)    /* from so many that wait for the host on, the guest waits */
#define CONSOLE_WRITE_MAX (1u << 20)   /* of one buffer: Linux makes them of 32 KiB at most */

/* Control messages that are due to the guest, in the order in which they go. */
#define DUE_ADD 0x01u
#define DUE_CONSOLE 0x02u
#define DUE_NAME 0x04u
#define DUE_RESIZE 0x08u
#define DUE_OPEN 0x10u
#define DUE_ALL 0x1fu

struct console;

struct console_port {
    struct console *console;
    struct virtqueue *rx, *tx;
    char name[VIRTIO_CONSOLE_NAME_MAX + 1]; /* empty: the terminal */
    bool added, guest_open;                 /* the guest has it, and a program there uses it */
    unsigned due;
    struct ring in, out; /* for the guest; for the host */

    /* A named port's. */
    char *path; /* NULL: the socket is not ours yet */
    int listener, client;
    struct loop_source *listen_source, *client_source;
    bool readable; /* the client may have sent something */
};

struct console {
    struct virtio_device device;
    struct console_port port[VIRTIO_CONSOLE_PORTS_MAX];
    unsigned ports; /* with the place of the terminal, which may be empty */
    size_t (*write)(void *owner, const void *bytes, size_t length);
    void (*room)(void *owner);
    void *owner;
    struct virtqueue *control_rx, *control_tx;
    struct loop_signal *work;
    bool active, paused;     /* between start and stop; nothing moves, as it may be saved */
    bool multiport, ready;   /* negotiated; the guest said DEVICE_READY */
    bool size_due;           /* the size is to be told by configuration space */

    pthread_mutex_t lock; /* of what follows and of port[0].in */
    bool refused;         /* typed bytes: room is due */
    bool resized;
    uint16_t columns, rows;
    struct ring emergency; /* what the guest wrote to emerg_wr */
};

/* Port 0 is the terminal, unless nobody wants its output. */
static inline bool console_is_terminal(const struct console_port *port)
{
    return port == &port->console->port[0];
}

/* Someone is at the host's end. */
static inline bool console_host_open(const struct console_port *port)
{
    return console_is_terminal(port) ? port->console->write != NULL : port->client >= 0;
}

/* Moves what can be moved, both ways; sets what is due. True when there is more to do at once. I/O thread, while active. */
bool console_port_serve(struct console_port *port);
/* Hands what is held to the host's end. */
void console_port_flush(struct console_port *port);
/* Begins and ends to wait for clients; the end closes the client. */
int console_port_start(struct console_port *port);
void console_port_stop(struct console_port *port);
/* Waits for the next client once the guest was told that the last one went. */
void console_port_told(struct console_port *port);

/* console.c: says that the terminal's size is in configuration space. Linux looks at it when it is told that it changed only; and
 * not before its console is set up, which its first output shows. */
void console_tell_size(struct console *console);
/* console.c: all ports and the control queues have a turn. */
void console_serve(struct console *console);

#endif
