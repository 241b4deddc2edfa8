/* virtio_vsock.c - fuzzes the rings of the socket device, with clients of the host that connect and send. The protocol behind them has
 * a target of its own: vsock.c. */
#include "device/virtio/vsock.h"

#include <signal.h>
#include <unistd.h>

#include "base/unix.h"

#define FUZZ_QUEUES 3u
#include "virtio_fuzz.h"

struct host {
    char path[64];
    int client;
    unsigned turns;
};

static void finish(void *context)
{
    struct host *host = context;
    uint8_t bytes[256];
    if (host->client < 0 && unix_connect(host->path, &host->client) == 0 && write(host->client, "CONNECT 3\nsent", 14) < 0)
        host->turns |= 3;
    if (host->client >= 0 && read(host->client, bytes, sizeof bytes) == 0)
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
    virtio_fuzz_begin(&fuzz);
    struct virtio_env env = driver_board_env(&fuzz.board, true);
    virtio_fuzz_add_device(&fuzz, virtio_vsock_new(&env, host.path, 3, NULL));
    fuzz.finish = finish;
    fuzz.context = &host;
    virtio_fuzz_run(&fuzz, data, size);
    if (host.client >= 0)
        close(host.client);
    return 0;
}
