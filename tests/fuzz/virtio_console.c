/* virtio_console.c - fuzzes the console from the driver's side, with a terminal that takes little at a time and a client at
 * the socket of its named port that comes and goes. */
#include "device/virtio/console.h"

#include <signal.h>
#include <unistd.h>

#include "base/unix.h"

#define FUZZ_QUEUES 6u
#include "virtio_fuzz.h"

struct host {
    struct virtio_device *device;
    char path[64];
    int client;
    unsigned turns;
};

static size_t show(void *owner, const void *bytes, size_t length)
{
    (void)owner, (void)bytes;
    return length < 5 ? length : 5;
}

static void finish(void *context)
{
    struct host *host = context;
    uint8_t bytes[256];
    virtio_console_input(host->device, "typed", 5);
    virtio_console_room(host->device);
    virtio_console_resize(host->device, host->turns, 25);
    if (host->client < 0 && unix_connect(host->path, &host->client) < 0)
        host->client = -1;
    if (host->client >= 0 && write(host->client, "sent", 4) == 4 && read(host->client, bytes, sizeof bytes) == 0)
        host->turns |= 3;
    if (host->client >= 0 && (++host->turns & 3) == 0) {
        close(host->client);
        host->client = -1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct virtio_fuzz fuzz;
    struct host host = {.client = -1};
    signal(SIGPIPE, SIG_IGN);
    snprintf(host.path, sizeof host.path, "/tmp/veneer-fuzz-%d", getpid());
    struct virtio_console_port port = {"port", host.path};
    struct virtio_console_config config = {.port = &port, .ports = 1, .write = show};
    virtio_fuzz_begin(&fuzz);
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    host.device = virtio_console_new(&env, &config, NULL);
    virtio_fuzz_add_device(&fuzz, host.device);
    fuzz.finish = finish;
    fuzz.context = &host;
    virtio_fuzz_run(&fuzz, data, size);
    if (host.client >= 0)
        close(host.client);
    return 0;
}
