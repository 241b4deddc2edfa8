#include "cli/background.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAIL 4096

static int report = -1; /* in the child: where to say that it started */

static void child_streams(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return;
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    if (null > STDERR_FILENO)
        close(null);
}

static int wait_exit(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int open_log(const struct vm *vm, const char *file)
{
    char path[REGISTRY_PATH_MAX];
    vm_file(vm, file, path);
    return open(path, O_RDONLY | O_CLOEXEC);
}

int background_start(struct vm *vm, bool bound, struct background *ret_background, bool *ret_child, int *ret_status,
                     struct error *error)
{
    int ends[2];
    pid_t parent = getpid();
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(error, errno, "starting the machine's process: %s", strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        int code = errno;
        close(ends[0]);
        close(ends[1]);
        return error_set(error, code, "starting the machine's process: %s", strerror(code));
    }
    if (pid == 0) {
        close(ends[0]);
        report = ends[1];
        setsid();
        child_streams();
        if (bound && (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent))
            _exit(1);
        *ret_child = true;
        return 0;
    }
    close(ends[1]);
    char byte;
    ssize_t n;
    while ((n = read(ends[0], &byte, 1)) < 0 && errno == EINTR)
        ;
    close(ends[0]);
    *ret_child = false;
    if (n != 1) {
        *ret_status = wait_exit(pid);
        return -ECHILD;
    }
    *ret_background = (struct background){pid, open_log(vm, "console.log"), open_log(vm, "messages.log")};
    return 0;
}

void background_started(struct vm *vm)
{
    char path[REGISTRY_PATH_MAX];
    if (report < 0)
        return;
    vm_file(vm, "messages.log", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
        dup2(fd, STDERR_FILENO);
        close(fd);
    }
    if (write(report, "", 1) == 1) /* else the parent sees the pipe's end, and this process's status */
        close(report);
    report = -1;
}

/* Prints a file's last lines; what a guest wrote must not move a terminal's cursor. */
static void tell(int fd, const char *whose)
{
    char text[TAIL];
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t first = size > (off_t)sizeof text ? size - (off_t)sizeof text : 0;
    ssize_t n = size > 0 ? pread(fd, text, sizeof text, first) : 0;
    bool fresh = first == 0; /* a line's start; a cut line is left out */
    for (ssize_t i = 0; i < n; i++) {
        if (text[i] == '\n') {
            if (fresh && i > 0 && text[i - 1] != '\n')
                fputc('\n', stderr);
            fresh = true;
            if (i + 1 < n && text[i + 1] != '\n')
                fputs(whose, stderr);
        } else if (fresh && text[i] != '\r') {
            if (i == 0)
                fputs(whose, stderr);
            fputc(isprint((unsigned char)text[i]) ? text[i] : '?', stderr);
        }
    }
    if (n > 0 && text[n - 1] != '\n')
        fputc('\n', stderr);
}

void background_tell(const struct background *background)
{
    tell(background->console, "console: ");
    tell(background->messages, "");
}

int background_end(struct background *background)
{
    int status = wait_exit(background->pid);
    if (background->console >= 0)
        close(background->console);
    if (background->messages >= 0)
        close(background->messages);
    return status;
}
