/* machine.h - one virtual machine: assemble it, boot it, run it until it ends.
 *
 * Threads: create, run and destroy from one thread; run blocks it. stop, power_button, power_button_heard, unplug, console_input and stats: any
 * thread while the machine exists. */
#ifndef VENEER_MACHINE_MACHINE_H
#define VENEER_MACHINE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/loop.h"
#include "base/stream.h"
#include "engine/engine.h"

struct machine;

#define MACHINE_VCPUS_MAX 16u
#define MACHINE_MEMORY_MIN (UINT64_C(1) << 20)
#define MACHINE_MEMORY_DEFAULT (UINT64_C(512) << 20)

/* How a machine ended; the value is the exit status of `veneer run`. */
enum machine_end {
    MACHINE_END_POWER_OFF = 0,
    MACHINE_END_FAILED = 1,       /* it could not be started */
    /* 2 is a usage error */
    MACHINE_END_RESET = 3,        /* the guest asked for a reset */
    MACHINE_END_TRIPLE_FAULT = 4,
    MACHINE_END_PANIC = 5,        /* the guest said that it panicked */
    MACHINE_END_ENGINE = 6,       /* the engine could not go on */
    MACHINE_END_STOPPED = 7,      /* machine_stop */
    MACHINE_END_DEBUG_EXIT = 256  /* the guest wrote the debug-exit port; the status is in machine_result */
};

/* A folder of the host that the guest may mount: virtio-fs. */
struct machine_share {
    const char *folder;
    const char *tag; /* what the guest mounts; see virtio_fs_check_tag */
    bool read_only;
};
#define MACHINE_SHARES_MAX 8u
#define MACHINE_SHARE_ID "share-" /* and the tag: the device's name for machine_unplug */
#define MACHINE_DISKS_MAX 26u /* /dev/vda to /dev/vdz */
#define MACHINE_DISK_QUEUES_MAX 16u
#define MACHINE_DISK_SERIAL 20u /* bytes at most */

/* A disk of the guest; the strings need not outlive the call they are given to. */
struct machine_disk {
    const char *id;     /* its name for machine_unplug and machine_disk_resize */
    const char *path, *format; /* the volume, and "raw", "qcow2" or NULL: see block/open.h */
    bool readonly;
    bool direct;        /* past the host's page cache */
    uint64_t iops, bps; /* at most so many requests, bytes a second; 0: no bound */
    const char *serial; /* what the guest sees as its serial number, or NULL */
    unsigned queues;    /* 1 to MACHINE_DISK_QUEUES_MAX, or 0: as many as vCPUs, up to 4 */
};

/* A named port of the guest (/dev/virtio-ports/NAME) that is a unix socket of the host; see device/virtio/console.h. */
struct machine_port {
    const char *name, *path;
};

struct machine_config {
    const char *kernel;      /* paths; kernel is required */
    const char *initrd;      /* or NULL */
    const char *append;      /* kernel command line, or NULL for the console's: "console=ttyS0" or "console=hvc0" */
    unsigned vcpus;          /* 1..MACHINE_VCPUS_MAX */
    uint64_t memory;         /* bytes; rounded down to whole pages */
    const struct engine_ops *engine;
    uint64_t code_cache;     /* bytes; 0: the engine's default; see engine.h */
    bool check;              /* the engine compares all it does with the interpreter; see engine.h */
    enum x86_cpu_model cpu_model;
    int debug_exit_port;     /* -1: none */
    bool virtio_packed;      /* virtio devices offer packed rings */
    struct machine_share share[MACHINE_SHARES_MAX];
    unsigned shares;
    const struct machine_disk *disk; /* disks of them; until machine_create returns */
    unsigned disks;
    const char *vsock;       /* path of the host's socket for the guest's sockets, or NULL: the guest has none */
    uint32_t vsock_cid;      /* the guest's address; 0: the default, 3 */
    bool console_virtio;     /* the console is hvc0 (virtio) rather than the first serial port */
    const struct machine_port *port; /* ports of them, besides; until machine_create returns */
    unsigned ports;
    bool no_balloon;         /* no memory balloon, and no memory given back */
    uint64_t balloon;        /* bytes that it takes from the guest at first */
    /* What the guest writes to its console; on a machine thread, with no lock held, and it may block: the
     * guest is held up when it prints much more. machine_run returns after the last call. May be NULL. */
    void (*console_write)(void *owner, const void *bytes, size_t length);
    /* The guest can take more console input; on a machine thread; may be NULL. */
    void (*console_ready)(void *owner);
    void *console_owner;
};

struct machine_result {
    enum machine_end end;
    int status;     /* what a program that ran this machine should exit with */
    char text[320]; /* one line that says why, for any end but a power-off */
};

/* Checks the config, reads kernel and initrd, and builds the board. Returns 0 or a negative errno with a sentence
 * that names the option's subject (file, size) and the reason. */
int machine_create(const struct machine_config *config, struct machine **ret_machine, struct error *error);
/* Runs until the guest ends or machine_stop. Once per machine. */
void machine_run(struct machine *machine, struct machine_result *ret_result);
/* Makes machine_run return soon with MACHINE_END_STOPPED. Async-signal-safe: no. */
void machine_stop(struct machine *machine);

/* What a device that can be unplugged is to whoever plugged it. */
enum machine_kind { MACHINE_KIND_OTHER, MACHINE_KIND_DISK, MACHINE_KIND_SHARE };

struct machine_unplug {
    enum machine_kind kind; /* what it must be; MACHINE_KIND_OTHER: anything */
    uint64_t timeout_ns; /* how long the guest may take */
    /* Called once when machine_unplug returned 0: 0; -EPERM (the guest refuses), -ETIMEDOUT or -ECANCELED (the machine
     * ended) with a sentence. On the thread in machine_run, or machine_destroy's; no lock is held. */
    void (*done)(void *owner, int status, const char *text);
    void *owner;
};
/* Asks the guest to let go of a device, by the name that it was plugged with. Returns 0, or -ENOENT, -EINVAL (it is of another
 * kind) or -EBUSY (asked for already). The device stays in use until the guest agrees; after a time-out or refusal it may be asked again, and
 * still goes if the guest agrees late. Any thread. */
int machine_unplug(struct machine *machine, const char *id, const struct machine_unplug *request, struct error *error);
/* Plugs a share in, under the name MACHINE_SHARE_ID and its tag. Any thread. Returns 0 or a negative errno (-EEXIST: there is one of
 * this tag) with a sentence. */
int machine_add_share(struct machine *machine, const struct machine_share *share, struct error *error);
/* Adds a disk while the machine runs, or before. Returns 0 or a negative errno. Any thread. */
int machine_disk_add(struct machine *machine, const struct machine_disk *disk, struct error *error);
/* Changes the size (bytes, whole sectors) of a disk's volume and tells the guest. Returns 0, or a negative errno: -ENOENT when there
 * is no such disk. Any thread but a disk's own; waits for the volume. */
int machine_disk_resize(struct machine *machine, const char *id, uint64_t size, struct error *error);
/* The event loop that machine_run serves, for what else concerns this machine. Valid while the machine is. */
struct loop *machine_loop(struct machine *machine);
/* Presses the ACPI power button: a guest that listens shuts itself down. Any thread. */
void machine_power_button(struct machine *machine);
/* Whether the guest's kernel took notice of the last press; what it makes of it is another matter. Any thread. */
bool machine_power_button_heard(struct machine *machine);
/* Offers typed bytes to the console; returns how many it took. */
size_t machine_console_input(struct machine *machine, const void *bytes, size_t length);
/* Tells the guest the size of the console's terminal; for a serial port there is no way to. Any thread. */
void machine_console_resize(struct machine *machine, unsigned columns, unsigned rows);
/* Prints what the engine and the board counted, "name value" a line. */
void machine_stats(struct machine *machine, FILE *out);

/* Writes the whole state of a machine that does not run: after machine_run ended with MACHINE_END_STOPPED, or before
 * it. Returns 0 or a negative errno. */
int machine_save(struct machine *machine, struct stream *stream, struct error *error);
/* Takes over a state saved from a machine with as many vCPUs and as much memory, before machine_run. The stream may
 * be hostile. After a failure the machine may only be destroyed. */
int machine_load(struct machine *machine, struct stream *stream, struct error *error);

/* NULL is allowed. */
void machine_destroy(struct machine *machine);

#endif
