#include "host/beside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int beside_find(const char *name, char ret_path[BESIDE_PATH_MAX], struct error *error)
{
    static const char *const built[] = {"", "/guest/agent"}; /* below the running program's folder */
    const char *given = getenv("VENEER_LIB");
    char folder[4096];
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    folder[length > 0 ? length : 0] = 0;
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = 0;
    if (given && *given) {
        snprintf(ret_path, BESIDE_PATH_MAX, "%s/%s", given, name);
        if (access(ret_path, R_OK) == 0)
            return 0;
    }
    for (size_t i = 0; slash && i < sizeof built / sizeof built[0]; i++) {
        snprintf(ret_path, BESIDE_PATH_MAX, "%s%s/%s", folder, built[i], name);
        if (access(ret_path, R_OK) == 0)
            return 0;
    }
    snprintf(ret_path, BESIDE_PATH_MAX, "%s/%s", VENEER_AGENT_DIR, name); /* whatever goes with the agent */
    if (access(ret_path, R_OK) == 0)
        return 0;
    return error_set(error, ENOENT, "%s is not installed", ret_path);
}
