/* spawn.h - starts a command in the guest with its own session, user, directory, environment and streams. */
#ifndef VENEER_GUEST_AGENT_SPAWN_H
#define VENEER_GUEST_AGENT_SPAWN_H

#include <stddef.h>
#include <sys/types.h>

#include "host/agent_protocol.h"

struct spawned {
    pid_t pid; /* leader of a session and of a process group */
    /* This side of the streams, non-blocking: AGENT_STDIN is written, the others are read. With a terminal, AGENT_STDIN and
     * AGENT_STDOUT are two descriptors of its master and AGENT_STDERR is -1. AGENT_STDIN is -1 when the command has none. */
    int fd[AGENT_STREAMS];
};

/* Starts it. Returns 0, or -1 with the status that a shell gives (127: not found, 126: anything else) and a sentence. */
int spawn_command(const struct agent_exec *exec, struct spawned *ret_spawned, int *ret_status, char *ret_why, size_t why_size);

#endif
