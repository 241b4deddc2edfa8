#include "cli/services.h"

#include <errno.h>
#include <string.h>

#include "cli/option.h"
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
