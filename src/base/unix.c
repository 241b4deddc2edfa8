#include "base/unix.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

size_t unix_path_max(void)
{
    return sizeof ((struct sockaddr_un *)0)->sun_path - 1;
}

static int address_of(const char *path, struct sockaddr_un *ret_address)
{
    size_t length = strlen(path);
    if (length == 0 || length > unix_path_max())
        return -ENAMETOOLONG;
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret_address->sun_path, path, length + 1);
    return 0;
}

static int remove_leftover(const struct sockaddr_un *address, const char *what, struct error *error)
{
    struct stat info;
    if (lstat(address->sun_path, &info) < 0)
        return 0;
    if (!S_ISSOCK(info.st_mode))
        return error_set(error, EEXIST, "%s '%s': something that is no socket is there", what, address->sun_path);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return error_set(error, errno, "%s '%s': %s", what, address->sun_path, strerror(errno));
    int r = connect(probe, (const struct sockaddr *)address, sizeof *address);
    int code = errno;
    close(probe);
    if (r == 0 || code == EAGAIN) /* EAGAIN: somebody listens and has a full backlog */
        return error_set(error, EADDRINUSE, "%s '%s': another program listens there", what, address->sun_path);
    if (code == ECONNREFUSED)
        unlink(address->sun_path);
    return 0;
}

int unix_listen(const char *path, int backlog, const char *what, int *ret_fd, struct error *error)
{
    struct sockaddr_un address;
    if (address_of(path, &address) < 0)
        return error_set(error, ENAMETOOLONG, "%s '%s': the path of a socket has 1 to %zu bytes", what, path, unix_path_max());
    int r = remove_leftover(&address, what, error);
    if (r < 0)
        return r;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(error, errno, "%s '%s': %s", what, path, strerror(errno));
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        int code = errno;
        close(fd);
        return error_set(error, code, "%s '%s': %s", what, path, strerror(code));
    }
    /* Nobody can connect before it listens, so that the mode holds for every client. */
    if (chmod(path, 0600) < 0 || listen(fd, backlog) < 0) {
        int code = errno;
        close(fd);
        unlink(path);
        return error_set(error, code, "%s '%s': %s", what, path, strerror(code));
    }
    *ret_fd = fd;
    return 0;
}

int unix_connect(const char *path, int *ret_fd)
{
    struct sockaddr_un address;
    if (address_of(path, &address) < 0)
        return -ENAMETOOLONG;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        int code = errno;
        close(fd);
        return -code;
    }
    *ret_fd = fd;
    return 0;
}
