#include "cli/console.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "cli/terminal.h"

#define LEAVE_MS 100     /* how soon a write to a stuck standard output sees that it should end */
#define PATIENCE_MS 1000 /* how long a slow reader of a socket may hold the guest up */

struct console {
    const struct console_ops *ops;
    void *owner;
    struct loop *loop;
    pthread_t thread;
    bool started;
    int in;           /* typed bytes come from here, or -1 */
    _Atomic int out;  /* printed bytes go here, or -1 */
    int listener;     /* unix: waits for a client; else -1 */
    char *path;       /* of the socket, to unlink, or of the file */
    uint64_t keep, written; /* file: bytes after which it is begun anew, or 0, and how many are in it */
    int signals;
    struct loop_source *in_source, *listen_source, *signal_source;
    _Atomic bool leaving; /* a person asked to end: nothing is waited for any more */
    struct terminal_escape escape;
    char held[257]; /* bytes that the guest has not taken yet */
    size_t held_length;
};

int console_check(const char *spec, struct error *error)
{
    if (strcmp(spec, "stdio") == 0 || strcmp(spec, "none") == 0)
        return 0;
    bool socket = strncmp(spec, "unix:", 5) == 0;
    if (!socket && strncmp(spec, "file:", 5) != 0)
        return error_set(error, EINVAL, "is no console; give " CONSOLE_FORM);
    if (!spec[5])
        return error_set(error, EINVAL, "lacks the path; give " CONSOLE_FORM);
    if (socket && strlen(spec + 5) >= sizeof ((struct sockaddr_un *)0)->sun_path)
        return error_set(error, EINVAL, "has a path too long for a socket; at most %zu bytes",
                         sizeof ((struct sockaddr_un *)0)->sun_path - 1);
    return 0;
}

/* A socket file that nobody listens on is a leftover and is replaced; anything else stays. */
static int remove_leftover(const struct sockaddr_un *address, struct error *error)
{
    struct stat info;
    if (lstat(address->sun_path, &info) < 0)
        return 0;
    if (!S_ISSOCK(info.st_mode))
        return error_set(error, EEXIST, "console socket '%s': something that is no socket is there",
                         address->sun_path);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = connect(probe, (const struct sockaddr *)address, sizeof *address);
    close(probe);
    if (r == 0)
        return error_set(error, EADDRINUSE, "console socket '%s': another program listens there", address->sun_path);
    unlink(address->sun_path);
    return 0;
}

static int open_socket(struct console *console, const char *path, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1); /* console_check saw that it fits */
    int r = remove_leftover(&address, error);
    if (r < 0)
        return r;
    console->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (console->listener < 0 || bind(console->listener, (struct sockaddr *)&address, sizeof address) < 0)
        return error_set(error, errno, "console socket '%s': %s", path, strerror(errno));
    console->path = strdup(path);
    if (listen(console->listener, 1) < 0)
        return error_set(error, errno, "console socket '%s': %s", path, strerror(errno));
    return 0;
}

static int open_spec(struct console *console, const char *spec, struct error *error)
{
    if (strcmp(spec, "stdio") == 0) {
        console->in = STDIN_FILENO;
        console->out = STDOUT_FILENO;
        return terminal_raw(STDIN_FILENO, error);
    }
    if (strncmp(spec, "unix:", 5) == 0)
        return open_socket(console, spec + 5, error);
    if (strncmp(spec, "file:", 5) == 0) {
        console->out = open(spec + 5, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (console->out < 0)
            return error_set(error, errno, "console file '%s': %s", spec + 5, strerror(errno));
        console->path = strdup(spec + 5);
    }
    return 0;
}

int console_open(const char *spec, struct console **ret_console, struct error *error)
{
    struct console *console = calloc(1, sizeof *console);
    if (!console)
        return error_set(error, ENOMEM, "opening the console: no memory");
    console->in = console->listener = console->signals = -1;
    atomic_store(&console->out, -1);
    int r = console_check(spec, error);
    if (r == 0)
        r = loop_new(&console->loop, error);
    if (r == 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGHUP);
        sigaddset(&set, SIGWINCH);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        signal(SIGPIPE, SIG_IGN);
        console->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        r = open_spec(console, spec, error);
    }
    if (r < 0) {
        console_close(console);
        return r;
    }
    *ret_console = console;
    return 0;
}

/* Gives the guest what is held; pauses the input while something stays. */
static void feed(struct console *console)
{
    size_t taken = console->ops->input(console->owner, console->held, console->held_length);
    memmove(console->held, console->held + taken, console->held_length - taken);
    console->held_length -= taken;
    if (console->in_source)
        loop_set_events(console->in_source, console->held_length ? 0 : EPOLLIN);
}

static void drop_input(struct console *console)
{
    loop_remove(console->in_source);
    console->in_source = NULL;
    if (console->listener >= 0) { /* the client went; wait for the next */
        console->out = -1;
        close(console->in);
        console->in = -1;
        loop_set_events(console->listen_source, EPOLLIN);
    }
}

static void on_input(void *context, uint32_t events)
{
    struct console *console = context;
    (void)events;
    char typed[sizeof console->held - 1];
    ssize_t n = read(console->in, typed, sizeof typed);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        drop_input(console);
        return;
    }
    bool leave = false;
    if (console->listener < 0 && isatty(console->in)) {
        leave = terminal_filter(&console->escape, typed, (size_t)n, console->held, &console->held_length);
    } else {
        memcpy(console->held, typed, (size_t)n);
        console->held_length = (size_t)n;
    }
    feed(console);
    console->leaving = leave;
    if (leave)
        console->ops->leave(console->owner, "stopped from the keyboard");
}

static void on_client(void *context, uint32_t events)
{
    struct console *console = context;
    (void)events;
    int client = accept4(console->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0)
        return;
    if (loop_add_fd(console->loop, client, console->held_length ? 0 : EPOLLIN, on_input, console,
                    &console->in_source) < 0) {
        close(client);
        return;
    }
    loop_set_events(console->listen_source, 0); /* one at a time */
    console->in = client;
    console->out = client;
}

static void tell_size(struct console *console)
{
    struct winsize size;
    int fd = console->out; /* of a terminal; anything else refuses */
    if (console->ops->resize && fd >= 0 && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row)
        console->ops->resize(console->owner, size.ws_col, size.ws_row);
}

static void on_signal(void *context, uint32_t events)
{
    struct console *console = context;
    (void)events;
    struct signalfd_siginfo info;
    if (read(console->signals, &info, sizeof info) != sizeof info)
        return;
    if (info.ssi_signo == SIGWINCH) {
        tell_size(console);
        return;
    }
    char why[64];
    snprintf(why, sizeof why, "stopped by signal %u (%s)", info.ssi_signo, strsignal((int)info.ssi_signo));
    console->leaving = true;
    console->ops->leave(console->owner, why);
}

static void *serve(void *context)
{
    struct console *console = context;
    int r = loop_run(console->loop);
    if (r < 0)
        log_error("console: waiting for input: %s", strerror(-r));
    return NULL;
}

int console_start(struct console *console, const struct console_ops *ops, void *owner, struct error *error)
{
    console->ops = ops;
    console->owner = owner;
    int r = 0;
    if (console->signals >= 0)
        r = loop_add_fd(console->loop, console->signals, EPOLLIN, on_signal, console, &console->signal_source);
    if (r == 0 && console->listener >= 0)
        r = loop_add_fd(console->loop, console->listener, EPOLLIN, on_client, console, &console->listen_source);
    /* A plain file or /dev/null as standard input cannot be waited for (EPERM): it gives no console input. */
    if (r == 0 && console->in >= 0)
        r = loop_add_fd(console->loop, console->in, EPOLLIN, on_input, console, &console->in_source);
    if (r == -EPERM)
        r = 0;
    if (r == 0)
        tell_size(console);
    if (r == 0)
        r = -pthread_create(&console->thread, NULL, serve, console);
    if (r < 0)
        return error_set(error, -r, "starting the console: %s", strerror(-r));
    console->started = true;
    return 0;
}

void console_keep(struct console *console, uint64_t bytes)
{
    console->keep = bytes;
}

/* Begins the file anew when it has become too long. */
static void keep(struct console *console, size_t length)
{
    char old[PATH_MAX];
    console->written += length;
    if (!console->keep || console->written <= console->keep || !console->path)
        return;
    if (snprintf(old, sizeof old, "%s.1", console->path) >= (int)sizeof old || rename(console->path, old) < 0)
        return;
    int fd = open(console->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    close(console->out);
    console->out = fd;
    console->written = length;
}

void console_write(void *context, const void *bytes, size_t length)
{
    struct console *console = context;
    const char *at = bytes;
    if (console->keep)
        keep(console, length);
    while (length) {
        int fd = console->out;
        if (fd < 0)
            return; /* nobody reads: the bytes are lost, as on a serial line without a cable */
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        while (console->listener < 0 && poll(&room, 1, LEAVE_MS) <= 0)
            if (console->leaving)
                return;
        ssize_t n = write(fd, at, length < PIPE_BUF ? length : PIPE_BUF); /* a pipe with room takes as much at once */
        if (n > 0) {
            at += n;
            length -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            if (poll(&wait, 1, PATIENCE_MS) <= 0)
                return;
        } else if (n < 0 && errno != EINTR) {
            return;
        }
    }
}

static void on_ready(void *context)
{
    struct console *console = context;
    if (console->held_length)
        feed(console);
}

void console_ready(void *context)
{
    struct console *console = context;
    loop_post(console->loop, on_ready, console);
}

void console_close(struct console *console)
{
    if (!console)
        return;
    if (console->started) {
        loop_stop(console->loop);
        pthread_join(console->thread, NULL);
    }
    terminal_restore();
    if (console->path && console->listener >= 0)
        unlink(console->path);
    if (console->listener >= 0) {
        close(console->listener);
        if (console->in >= 0)
            close(console->in);
    } else if (console->out > STDERR_FILENO) {
        close(console->out);
    }
    free(console->path);
    if (console->signals >= 0)
        close(console->signals);
    loop_free(console->loop);
    free(console);
}
