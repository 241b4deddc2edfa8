/* agent.c - any bytes as what a client sends to the agent inside a guest. What it would start is not started: the session is
 * linked with a stand-in for spawn.c that hands out pipes nobody reads, and now and then says no. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session.h"
#include "spawn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct session *current;
static int unread = -1;

/* No process has this number: signals to its group go nowhere. */
#define NOBODY 0x3ffffff

int spawn_command(const struct agent_exec *exec, struct spawned *ret_spawned, int *ret_status, char *ret_why, size_t why_size)
{
    for (uint32_t i = 0; i < exec->argc; i++)
        if (strlen(exec->argv[i]) > AGENT_EXEC_MAX)
            abort();
    for (uint32_t i = 0; i < exec->envc; i++)
        if (!strchr(exec->env[i], '='))
            abort();
    if (exec->argv[exec->argc] || exec->env[exec->envc])
        abort();
    *ret_status = 127;
    memset(ret_why, 0, why_size);
    if (exec->argv[0][0] == 'n')
        return -1;
    int out[2], in[2] = {-1, -1};
    if (pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0 || ((exec->flags & AGENT_EXEC_STDIN) && pipe2(in, O_CLOEXEC | O_NONBLOCK) < 0))
        abort();
    if (in[0] >= 0 && exec->argv[0][0] == 'c') {
        close(in[0]); /* a command that closed its input */
    } else if (in[0] >= 0) { /* one that never reads, behind a small pipe */
        fcntl(in[1], F_SETPIPE_SZ, 4096);
        unread = in[0];
    }
    if (write(out[1], "output", 6) != 6)
        abort();
    close(out[1]);
    *ret_spawned = (struct spawned){NOBODY, {in[1], out[0], -1}};
    return 0;
}

static void ended(void *context, struct session *session)
{
    (void)context;
    if (session != current)
        abort();
    current = NULL;
}

static void power_off(void *context)
{
    (void)context;
}

static void stop(void *context)
{
    loop_stop(context);
}

/* Runs the loop over what is there now. */
static void turn(struct loop *loop)
{
    if (loop_post(loop, stop, loop) < 0 || loop_run(loop) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct loop *loop;
    struct error error;
    int ends[2];
    signal(SIGPIPE, SIG_IGN); /* as the agent's main does */
    if (loop_new(&loop, &error) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        abort();
    struct session_owner owner = {loop, NULL, ended, power_off};
    if (session_new(&owner, ends[1], &current) < 0)
        abort();
    size_t at = 0;
    while (current && at < size) {
        size_t piece = 1 + data[at] % 64u * 16u;
        at++;
        if (piece > size - at)
            piece = size - at;
        if (piece && send(ends[0], data + at, piece, MSG_NOSIGNAL) < 0)
            break;
        at += piece;
        turn(loop);
        uint8_t answer[65536];
        if (current && piece % 2)
            while (recv(ends[0], answer, sizeof answer, 0) > 0)
                ;
    }
    if (current && size % 3 == 0 && session_pid(current)) {
        session_reaped(current, (int)(size % 256) << 8);
        turn(loop);
    }
    close(ends[0]);
    turn(loop);
    if (current && !session_pid(current))
        turn(loop);
    if (current)
        session_free(current);
    current = NULL;
    if (unread >= 0)
        close(unread);
    unread = -1;
    loop_free(loop);
    return 0;
}
