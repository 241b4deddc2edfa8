/* exec_options.c - see exec_options.h. */
#include "cli/exec_options.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/option.h"
#include "cli/terminal.h"
#include "host/agent_client.h"
#include "host/control.h"
#include "host/registry.h"

#define WAIT_SECONDS 180u

int exec_parse_terminal(void *config, const char *value, struct error *error)
{
    (void)value, (void)error;
    ((struct exec_options *)config)->terminal = true;
    return 0;
}

int exec_parse_input(void *config, const char *value, struct error *error)
{
    (void)value, (void)error;
    ((struct exec_options *)config)->input = true;
    return 0;
}

int exec_parse_env(void *config, const char *value, struct error *error)
{
    struct exec_options *options = config;
    if (value[0] == '=' || !strchr(value, '='))
        return error_set(error, EINVAL, "is no variable; give NAME=VALUE");
    if (options->envc == EXEC_ENV_MAX)
        return error_set(error, E2BIG, "is one variable too many; at most %d", EXEC_ENV_MAX);
    options->env[options->envc++] = value;
    return 0;
}

int exec_parse_directory(void *config, const char *value, struct error *error)
{
    if (value[0] != '/')
        return error_set(error, EINVAL, "is no absolute path; give one that starts with '/'");
    ((struct exec_options *)config)->directory = value;
    return 0;
}

int exec_parse_user(void *config, const char *value, struct error *error)
{
    if (!value[0])
        return error_set(error, EINVAL, "is no user; give a name or number, with :GROUP if wanted");
    ((struct exec_options *)config)->user = value;
    return 0;
}

int exec_parse_wait(void *config, const char *value, struct error *error)
{
    uint64_t seconds;
    int r = option_number(value, 1, 86400, &seconds, error);
    if (r == 0)
        ((struct exec_options *)config)->wait_seconds = (unsigned)seconds;
    return r;
}

/* Waits until the guest's agent is ready: the machine tells, nobody asks again and again. */
static int wait_ready(const char *name, unsigned seconds, struct error *error)
{
    char path[REGISTRY_PATH_MAX];
    int r = registry_find(name, "control.sock", path, error);
    if (r < 0)
        return r;
    struct json_object *request = json_object_new_object();
    json_object_object_add(request, "verb", json_object_new_string("wait"));
    r = control_request(path, request, (int)seconds * 1000, NULL, error);
    json_object_put(request);
    if (r == -ETIMEDOUT)
        return error_set(error, ETIMEDOUT, "the guest of '%s' did not get ready for commands within %u s; is veneer's agent in it?",
                         name, seconds);
    if (r == -ECONNRESET || r == -ECONNREFUSED)
        return error_set(error, -r, "machine '%s' ended before its guest was ready for commands", name);
    return r;
}

/* Connects to the agent; where it is not there yet, waits for it and tries once more. */
static int reach(const char *name, unsigned seconds, int *ret_socket, struct error *error)
{
    char path[REGISTRY_PATH_MAX];
    int r = registry_find(name, "vsock.sock", path, error);
    if (r < 0)
        return r;
    r = agent_connect(path, AGENT_PORT, ret_socket, error);
    if (r != -ECONNREFUSED && r != -ETIMEDOUT)
        return r;
    r = wait_ready(name, seconds ? seconds : WAIT_SECONDS, error);
    return r < 0 ? r : agent_connect(path, AGENT_PORT, ret_socket, error);
}

/* Signals that concern the command are read, not acted on. */
static int take_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool typed(void *owner, const char *bytes, size_t length, char *ret_bytes, size_t *ret_length)
{
    return terminal_filter(owner, bytes, length, ret_bytes, ret_length);
}

static struct agent_exec describe(struct exec_options *options, int argc, char **argv, char *term, size_t term_size)
{
    struct agent_exec exec = {.directory = options->directory ? options->directory : "", .user = options->user ? options->user : "",
                              .argc = (uint32_t)argc, .argv = (const char **)(uintptr_t)argv, .env = options->env};
    struct winsize size;
    const char *name = getenv("TERM");
    if (options->terminal && name) {
        snprintf(term, term_size, "TERM=%s", name);
        options->env[options->envc++] = term;
    }
    options->env[options->envc] = NULL;
    exec.envc = options->envc;
    exec.flags = (options->terminal ? AGENT_EXEC_TERMINAL : 0) | (options->input ? AGENT_EXEC_STDIN : 0);
    if (options->terminal && (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)) {
        exec.rows = size.ws_row;
        exec.columns = size.ws_col;
    }
    return exec;
}

static int finish(int r, int status, const struct error *error)
{
    if (r == -EPIPE)
        return AGENT_STATUS_SIGNAL + SIGPIPE; /* as if the command itself had written there */
    if (r < 0) {
        log_error("%s", error->text);
        return AGENT_STATUS_FAILED;
    }
    if (error->text[0])
        log_error("%s", error->text);
    return status;
}

int exec_command(const char *name, struct exec_options *options, int argc, char **argv, bool *ret_reached)
{
    struct error error = {""};
    char term[128];
    int socket, status = AGENT_STATUS_FAILED;
    int r = reach(name, options->wait_seconds, &socket, &error);
    if (ret_reached)
        *ret_reached = r == 0;
    if (r < 0)
        return finish(r, status, &error);
    struct agent_exec exec = describe(options, argc, argv, term, sizeof term);
    struct terminal_escape escape = {false};
    bool raw = options->terminal && options->input && isatty(STDIN_FILENO);
    struct agent_call call = {.exec = &exec, .in = STDIN_FILENO, .out = STDOUT_FILENO, .err = STDERR_FILENO,
                              .signals = take_signals(), .typed = raw ? typed : NULL, .owner = &escape};
    if (raw)
        r = terminal_raw(STDIN_FILENO, &error);
    if (r == 0)
        r = agent_run(socket, &call, &status, &error);
    terminal_restore();
    close(socket);
    if (call.signals >= 0)
        close(call.signals);
    return finish(r, status, &error);
}
