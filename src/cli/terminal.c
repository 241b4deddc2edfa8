#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"

static struct termios saved;
static volatile sig_atomic_t raw_fd = -1; /* the descriptor to restore, or -1 */

void terminal_restore(void)
{
    int fd = raw_fd;
    if (fd < 0)
        return;
    raw_fd = -1;
    log_set_line_end("");
    while (tcsetattr(fd, TCSADRAIN, &saved) < 0 && errno == EINTR)
        ;
}

/* A crash must not leave the terminal raw: restore, then die of the same signal. SIGINT and SIGTERM are
 * the command's to handle. */
static void on_fatal(int number)
{
    int fd = raw_fd;
    if (fd >= 0)
        tcsetattr(fd, TCSANOW, &saved);
    signal(number, SIG_DFL);
    raise(number);
}

int terminal_raw(int fd, struct error *error)
{
    static const int fatal[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGQUIT, SIGHUP};
    if (!isatty(fd))
        return 0;
    if (tcgetattr(fd, &saved) < 0)
        return error_set(error, errno, "reading the terminal's settings: %s", strerror(errno));
    struct termios raw = saved;
    cfmakeraw(&raw);
    raw_fd = fd;
    atexit(terminal_restore);
    /* On the alternate stack: an engine may be using the stack pointer for the guest's. */
    struct sigaction action = {.sa_handler = on_fatal, .sa_flags = SA_ONSTACK};
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        sigaction(fatal[i], &action, NULL);
    if (tcsetattr(fd, TCSADRAIN, &raw) < 0) {
        int code = errno;
        raw_fd = -1;
        return error_set(error, code, "making the terminal raw: %s", strerror(code));
    }
    log_set_line_end("\r");
    return 0;
}

bool terminal_filter(struct terminal_escape *state, const char *typed, size_t length, char *ret_bytes,
                     size_t *ret_length)
{
    size_t used = 0;
    bool leave = false;
    for (size_t i = 0; i < length && !leave; i++) {
        if (!state->pending && typed[i] == TERMINAL_ESCAPE) {
            state->pending = true;
            continue;
        }
        if (state->pending && (typed[i] == 'q' || typed[i] == 'Q'))
            leave = true;
        else if (state->pending && typed[i] != TERMINAL_ESCAPE)
            ret_bytes[used++] = TERMINAL_ESCAPE; /* not a command of ours: the guest gets both */
        if (!leave)
            ret_bytes[used++] = typed[i];
        state->pending = false;
    }
    *ret_length = used;
    return leave;
}
