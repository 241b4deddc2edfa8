/* unix.h - stream sockets in the file system. */
#ifndef VENEER_BASE_UNIX_H
#define VENEER_BASE_UNIX_H

#include <stddef.h>

#include "base/error.h"

/* The longest path that a socket can have, in bytes without the terminating zero. */
size_t unix_path_max(void);

/* Listens at `path` for the same user only (mode 0600); the socket does not block and is closed on exec. A socket
 * file that nobody listens on is a leftover and is replaced; anything else that is there stays. `what` names the
 * socket in errors ("console socket"). Returns 0 or a negative errno with a sentence. The caller closes the
 * descriptor and removes the file. */
int unix_listen(const char *path, int backlog, const char *what, int *ret_fd, struct error *error);

/* Connects to `path` without blocking. Returns 0 or a negative errno: -EAGAIN when the listener's backlog is full,
 * -ENAMETOOLONG when the path is too long. The caller closes the descriptor. */
int unix_connect(const char *path, int *ret_fd);

#endif
