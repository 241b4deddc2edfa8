#include "cli/services.h"

#include <errno.h>
#include <string.h>

#include "cli/option.h"
#include "device/virtio/console.h"
#include "device/virtio/vsock.h"

_Static_assert(SERVICES_PATH == VSOCK_PATH_MAX + 1, "a path of --vsock is as long as the device takes");

int vsock_parse(const char *value, char path[SERVICES_PATH], struct machine_config *config, struct error *error)
{
    const char *comma = strrchr(value, ',');
    size_t length = comma ? (size_t)(comma - value) : strlen(value);
    uint64_t cid = 0;
    if (length == 0 || length >= SERVICES_PATH)
        return error_set(error, EINVAL, "has no path of 1 to %u bytes; give PATH or PATH,cid=N", SERVICES_PATH - 1);
    if (comma && strncmp(comma, ",cid=", 5) != 0)
        return error_set(error, EINVAL, "has an unknown addition; give PATH or PATH,cid=N");
    int r = comma ? option_number(comma + 5, VSOCK_CID_MIN, VSOCK_CID_MAX, &cid, error) : 0;
    if (r < 0)
        return r;
    memcpy(path, value, length);
    path[length] = '\0';
    config->vsock = path;
    config->vsock_cid = (uint32_t)cid;
    return 0;
}

int balloon_parse(const char *value, struct machine_config *config, struct error *error)
{
    config->no_balloon = strcmp(value, "off") == 0;
    config->balloon = 0;
    return config->no_balloon ? 0 : option_size(value, &config->balloon, error);
}

int console_device_parse(const char *value, struct machine_config *config, struct error *error)
{
    config->console_virtio = strcmp(value, "virtio") == 0;
    if (config->console_virtio || strcmp(value, "serial") == 0)
        return 0;
    return error_set(error, EINVAL, "is no device for the console; give serial or virtio");
}

int port_parse(const char *value, struct machine_config *config, struct error *error)
{
    static struct machine_port port[VIRTIO_CONSOLE_PORTS_MAX - 1];
    static char stored[VIRTIO_CONSOLE_PORTS_MAX - 1][VIRTIO_CONSOLE_NAME_MAX + 1];
    const char *equals = strchr(value, '=');
    size_t length = equals ? (size_t)(equals - value) : 0;
    struct error reason;
    if (!equals || !equals[1])
        return error_set(error, EINVAL, "lacks the socket's path; give NAME=PATH");
    if (config->ports == VIRTIO_CONSOLE_PORTS_MAX - 1)
        return error_set(error, EINVAL, "is one too many; at most %u ports can be had", VIRTIO_CONSOLE_PORTS_MAX - 1);
    char *name = stored[config->ports];
    memcpy(name, value, length <= VIRTIO_CONSOLE_NAME_MAX ? length : 0);
    name[length <= VIRTIO_CONSOLE_NAME_MAX ? length : 0] = '\0';
    if (virtio_console_check_name(name, &reason) < 0)
        return error_set(error, EINVAL, "has a bad name: %s; give NAME=PATH", reason.text);
    for (unsigned i = 0; i < config->ports; i++)
        if (strcmp(port[i].name, name) == 0)
            return error_set(error, EINVAL, "has the name of another port");
    port[config->ports++] = (struct machine_port){name, equals + 1};
    config->port = port;
    return 0;
}
