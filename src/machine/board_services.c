/* board_services.c - the virtio devices between a guest and its host: sockets, the memory balloon, the console. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "device/virtio/console.h"
#include "device/virtio/vsock.h"
#include "machine/balloon.h"
#include "machine/board_virtio.h"
#include "machine/machine_private.h"

static struct virtio_device *make_vsock(struct machine *machine, const struct virtio_env *env, const void *config,
                                        void **ret_owned, struct error *error)
{
    (void)config, (void)ret_owned;
    uint32_t cid = machine->config.vsock_cid ? machine->config.vsock_cid : VSOCK_CID_MIN;
    return virtio_vsock_new(env, machine->config.vsock, cid, error);
}

static struct virtio_device *make_balloon(struct machine *machine, const struct virtio_env *env, const void *config,
                                          void **ret_owned, struct error *error)
{
    (void)config, (void)ret_owned;
    return virtio_balloon_new(env, machine->config.balloon, error);
}

static void console_has_room(void *owner)
{
    struct machine *machine = owner;
    if (machine->config.console_ready)
        machine->config.console_ready(machine->config.console_owner);
}

static struct virtio_device *make_console(struct machine *machine, const struct virtio_env *env, const void *config,
                                          void **ret_owned, struct error *error)
{
    (void)config, (void)ret_owned;
    struct virtio_console_port port[VIRTIO_CONSOLE_PORTS_MAX];
    if (machine->config.ports >= VIRTIO_CONSOLE_PORTS_MAX) {
        error_set(error, EINVAL, "%u ports; at most %u are possible", machine->config.ports, VIRTIO_CONSOLE_PORTS_MAX - 1);
        return NULL;
    }
    for (unsigned i = 0; i < machine->config.ports; i++)
        port[i] = (struct virtio_console_port){machine->config.port[i].name, machine->config.port[i].path};
    struct virtio_console_config console = {.port = port, .ports = machine->config.ports, .room = console_has_room,
                                            .write = machine->config.console_virtio ? console_write_virtio : NULL,
                                            .owner = machine};
    return virtio_console_new(env, &console, error);
}

int board_services_create(struct machine *machine, struct error *error)
{
    /* Sockets have a thread of their own: their latency is that of every command run in the guest. */
    static const struct board_virtio_config vsock = {.id = "vsock", .own_thread = true, .make = make_vsock},
                                            balloon = {.id = "balloon", .make = make_balloon},
                                            console = {.id = "console", .make = make_console};
    int status = 0;
    if (machine->config.vsock)
        status = board_virtio_add(machine, &vsock, error);
    if (status == 0 && !machine->config.no_balloon)
        status = board_virtio_add(machine, &balloon, error);
    if (status == 0 && (machine->config.console_virtio || machine->config.ports))
        status = board_virtio_add(machine, &console, error);
    return status;
}

/* --- from any thread, while the device may be unplugged */

static void set_balloon(struct virtio_device *device, void *owned, void *context)
{
    (void)owned;
    virtio_balloon_set(device, *(uint64_t *)context);
}

int machine_balloon_set(struct machine *machine, uint64_t bytes, struct error *error)
{
    if (bytes > machine->ram.size)
        return error_set(error, ERANGE, "a balloon of %" PRIu64 " bytes: the guest has %" PRIu64, bytes, machine->ram.size);
    return board_virtio_call(machine, "balloon", make_balloon, set_balloon, &bytes, error);
}

static void tell_balloon(struct virtio_device *device, void *owned, void *context)
{
    (void)owned;
    virtio_balloon_info(device, context);
    virtio_balloon_ask(device);
}

void machine_memory(struct machine *machine, struct machine_memory *ret_memory)
{
    *ret_memory = (struct machine_memory){.size = machine->ram.size, .resident = ram_resident(&machine->ram)};
    int r = board_virtio_call(machine, "balloon", make_balloon, tell_balloon, &ret_memory->balloon, NULL);
    ret_memory->has_balloon = r == 0;
}

struct typed {
    const void *bytes;
    size_t length, taken;
};

static void type(struct virtio_device *device, void *owned, void *context)
{
    struct typed *typed = context;
    (void)owned;
    typed->taken = virtio_console_input(device, typed->bytes, typed->length);
}

size_t services_console_input(struct machine *machine, const void *bytes, size_t length)
{
    struct typed typed = {bytes, length, 0};
    board_virtio_call(machine, "console", make_console, type, &typed, NULL);
    return typed.taken;
}

static void room(struct virtio_device *device, void *owned, void *context)
{
    (void)owned, (void)context;
    virtio_console_room(device);
}

void services_console_room(struct machine *machine)
{
    board_virtio_call(machine, "console", make_console, room, NULL, NULL);
}

static void resize(struct virtio_device *device, void *owned, void *context)
{
    const unsigned *size = context;
    (void)owned;
    virtio_console_resize(device, size[0], size[1]);
}

void machine_console_resize(struct machine *machine, unsigned columns, unsigned rows)
{
    unsigned size[2] = {columns, rows};
    board_virtio_call(machine, "console", make_console, resize, size, NULL);
}
