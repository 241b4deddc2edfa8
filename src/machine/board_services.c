/* board_services.c - the virtio devices between a guest and its host: sockets and the memory balloon. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

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
    return machine->balloon = virtio_balloon_new(env, machine->config.balloon, error);
}

int board_services_create(struct machine *machine, struct error *error)
{
    /* Sockets have a thread of their own: their latency is that of every command run in the guest. */
    static const struct board_virtio_config vsock = {.id = "vsock", .own_thread = true, .make = make_vsock},
                                            balloon = {.id = "balloon", .make = make_balloon};
    int status = 0;
    if (machine->config.vsock)
        status = board_virtio_add(machine, &vsock, error);
    if (status == 0 && !machine->config.no_balloon)
        status = board_virtio_add(machine, &balloon, error);
    return status;
}

int machine_balloon_set(struct machine *machine, uint64_t bytes, struct error *error)
{
    if (!machine->balloon)
        return error_set(error, ENODEV, "the machine has no balloon");
    if (bytes > machine->ram.size)
        return error_set(error, ERANGE, "a balloon of %" PRIu64 " bytes: the guest has %" PRIu64, bytes, machine->ram.size);
    virtio_balloon_set(machine->balloon, bytes);
    return 0;
}

void machine_memory(struct machine *machine, struct machine_memory *ret_memory)
{
    *ret_memory = (struct machine_memory){.size = machine->ram.size, .resident = ram_resident(&machine->ram)};
    if (!machine->balloon)
        return;
    virtio_balloon_info(machine->balloon, &ret_memory->balloon);
    virtio_balloon_ask(machine->balloon);
}
