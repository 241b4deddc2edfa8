#include "host/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/descriptors.h"

/* mke2fs and its like lie where a user's PATH does not look. */
static void set_path(void)
{
    const char *path = getenv("PATH");
    char *longer = NULL;
    if (asprintf(&longer, "%s:/usr/local/sbin:/usr/sbin:/sbin", path && *path ? path : "/usr/bin:/bin") >= 0)
        setenv("PATH", longer, 1);
    free(longer);
}

/* The descriptors of a program, in the order of the numbers that they get; -1: none. */
#define CHILD_FILES 4

static void run_child(char *const argv[], const int files[CHILD_FILES], int report, pid_t parent)
{
    sigset_t none;
    int high[CHILD_FILES];
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    bool right = getppid() == parent; /* it may have died before that */
    /* First out of the way of the numbers that are wanted. */
    report = fcntl(report, F_DUPFD_CLOEXEC, 10);
    for (int i = 0; i < CHILD_FILES; i++) {
        bool none_given = files[i] < 0;
        int from = none_given && i == 0 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : files[i];
        high[i] = from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, 10);
        right &= high[i] >= 0 || (none_given && i > 0);
    }
    for (int i = 0; i < CHILD_FILES && right; i++)
        right = high[i] < 0 || dup2(high[i], i) >= 0;
    if (right) {
        descriptors_restore();
        set_path();
        setenv("LC_ALL", "C.UTF-8", 1);
        execvp(argv[0], argv);
    }
    int code = errno;
    if (write(report, &code, sizeof code) < 0)
        _exit(126);
    _exit(127);
}

int spawn_start(char *const argv[], struct spawn *ret_spawn, struct error *error)
{
    return spawn_start_with(argv, -1, -1, ret_spawn, error);
}

int spawn_start_with(char *const argv[], int in, int extra, struct spawn *ret_spawn, struct error *error)
{
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, code = 0;
    pid_t pid = -1, parent = getpid();
    for (int i = 0; i < 3 && !code; i++)
        code = pipe2(pipes[i], O_CLOEXEC) < 0 ? errno : 0;
    if (!code && (pid = fork()) < 0)
        code = errno;
    if (pid == 0)
        run_child(argv, (const int[CHILD_FILES]){in, pipes[0][1], pipes[1][1], extra}, pipes[2][1], parent);
    for (int i = 0; i < 3; i++)
        if (pipes[i][1] >= 0)
            close(pipes[i][1]);
    /* The report's pipe closes by itself when the program starts. */
    if (pid > 0 && read(pipes[2][0], &code, sizeof code) == sizeof code)
        waitpid(pid, NULL, 0);
    if (pipes[2][0] >= 0)
        close(pipes[2][0]);
    if (!code) {
        *ret_spawn = (struct spawn){pid, pipes[0][0], pipes[1][0]};
        return 0;
    }
    for (int i = 0; i < 2; i++)
        if (pipes[i][0] >= 0)
            close(pipes[i][0]);
    if (code == ENOENT)
        return error_set(error, code, "the program %s is not installed", argv[0]);
    return error_set(error, code, "starting %s: %s", argv[0], strerror(code));
}

int spawn_end(struct spawn *spawn, const char *name, struct error *error)
{
    int status;
    if (spawn->out >= 0)
        close(spawn->out);
    if (spawn->err >= 0)
        close(spawn->err);
    spawn->out = spawn->err = -1;
    while (waitpid(spawn->pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_set(error, errno, "waiting for %s: %s", name, strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFSIGNALED(status))
        return error_set(error, ECHILD, "%s was ended by signal %d", name, WTERMSIG(status));
    return error_set(error, ECHILD, "%s failed with status %d", name, WEXITSTATUS(status));
}

void spawn_kill(struct spawn *spawn)
{
    kill(spawn->pid, SIGTERM);
    spawn_end(spawn, "", NULL);
}

/* Keeps the end of what a program says. */
static void keep_last(char *last, size_t *length, const char *bytes, size_t count)
{
    if (count >= SPAWN_ERRORS - 1) {
        bytes += count - (SPAWN_ERRORS - 1);
        count = SPAWN_ERRORS - 1;
    }
    if (*length + count > SPAWN_ERRORS - 1) {
        size_t drop = *length + count - (SPAWN_ERRORS - 1);
        memmove(last, last + drop, *length - drop);
        *length -= drop;
    }
    memcpy(last + *length, bytes, count);
    *length += count;
    last[*length] = 0;
}

/* Output beyond the limit is dropped; the limit is then exceeded, which the caller sees by the length. */
static void collect(struct spawn *spawn, char *output, size_t limit, size_t *ret_length, char *last)
{
    struct pollfd polls[2] = {{spawn->out, POLLIN, 0}, {spawn->err, POLLIN, 0}};
    size_t last_length = 0;
    char bytes[4096];
    while (polls[0].fd >= 0 || polls[1].fd >= 0) {
        if (poll(polls, 2, -1) < 0 && errno != EINTR)
            return;
        for (int i = 0; i < 2; i++) {
            if (polls[i].fd < 0 || !polls[i].revents)
                continue;
            ssize_t n = read(polls[i].fd, bytes, sizeof bytes);
            if (n <= 0)
                polls[i].fd = -1;
            else if (i == 1)
                keep_last(last, &last_length, bytes, (size_t)n);
            else if (output && (size_t)n <= limit - *ret_length)
                memcpy(output + *ret_length, bytes, (size_t)n), *ret_length += (size_t)n;
            else if (output)
                return;
        }
    }
}

/* Puts the last line of what a program said behind the sentence that tells how it ended. */
static void add_last_line(struct error *error, char *last)
{
    for (size_t end = strlen(last); end > 0 && last[end - 1] == '\n';)
        last[--end] = 0;
    if (!last[0] || !error)
        return;
    struct error said;
    const char *line = strrchr(last, '\n');
    snprintf(said.text, sizeof said.text, "%.200s: %.300s", error->text, line ? line + 1 : last);
    *error = said;
}

int spawn_end_said(struct spawn *spawn, const char *name, struct error *error)
{
    char last[SPAWN_ERRORS] = "";
    size_t length = 0;
    collect(spawn, NULL, 0, &length, last);
    int r = spawn_end(spawn, name, error);
    if (r < 0)
        add_last_line(error, last);
    return r;
}

static int run(char *const argv[], char *output, size_t limit, struct error *error)
{
    struct spawn spawn;
    char last[SPAWN_ERRORS] = "";
    size_t length = 0;
    int r = spawn_start(argv, &spawn, error);
    if (r < 0)
        return r;
    collect(&spawn, output, limit, &length, last);
    if (output)
        output[length] = 0;
    r = spawn_end(&spawn, argv[0], error);
    if (r < 0)
        add_last_line(error, last);
    return r;
}

int spawn_wait(char *const argv[], struct error *error)
{
    return run(argv, NULL, 0, error);
}

int spawn_read(char *const argv[], size_t limit, char **ret_output, struct error *error)
{
    char *output = malloc(limit + 1);
    if (!output)
        return error_set(error, ENOMEM, "no memory for what %s says", argv[0]);
    int r = run(argv, output, limit, error);
    if (r < 0)
        free(output);
    else
        *ret_output = output;
    return r;
}
