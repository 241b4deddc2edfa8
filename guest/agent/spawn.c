/* spawn.c - see spawn.h.
 *
 * All that allocates or searches is done before vfork; the child, which runs in this process's memory until execve,
 * only makes system calls. A plain fork would copy page tables, which is what a start costs most under a software
 * engine. IDs are set by bare system calls: the library's wrappers would speak to "other threads" first. */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "account.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define BASE_VARIABLES 6

struct plan {
    const struct agent_exec *exec;
    struct account account;
    char base[BASE_VARIABLES][300];
    const char **env;
    char **candidate;       /* paths to try, ended by NULL */
    const char **shell_argv; /* for a script without "#!": sh PATH ARGUMENT... */
    int child_fd[AGENT_STREAMS];
    /* What the child could not do; it writes here before it ends. */
    const char *volatile step;
    volatile int error;
};

static void close_all(int fd[AGENT_STREAMS])
{
    for (unsigned i = 0; i < AGENT_STREAMS; i++)
        if (fd[i] >= 0)
            close(fd[i]);
}

static bool sets(const char *entry, const char *other)
{
    size_t length = strcspn(entry, "=") + 1;
    return strncmp(entry, other, length) == 0;
}

/* What every command gets, then what the client adds, which wins. */
static int make_environment(struct plan *plan)
{
    const struct agent_exec *exec = plan->exec;
    const char *lang = getenv("LANG");
    unsigned count = 0;
    size_t size = sizeof plan->base[0];
    snprintf(plan->base[count++], size, "PATH=%s", DEFAULT_PATH);
    snprintf(plan->base[count++], size, "HOME=%s", plan->account.home);
    snprintf(plan->base[count++], size, "USER=%s", plan->account.name);
    snprintf(plan->base[count++], size, "LOGNAME=%s", plan->account.name);
    snprintf(plan->base[count++], size, "SHELL=%s", plan->account.shell);
    if (lang)
        snprintf(plan->base[count++], size, "LANG=%s", lang);
    plan->env = calloc(count + exec->envc + 1, sizeof *plan->env);
    if (!plan->env)
        return -ENOMEM;
    size_t used = 0;
    for (unsigned i = 0; i < count; i++) {
        bool replaced = false;
        for (uint32_t j = 0; j < exec->envc && !replaced; j++)
            replaced = sets(plan->base[i], exec->env[j]);
        if (!replaced)
            plan->env[used++] = plan->base[i];
    }
    for (uint32_t i = 0; i < exec->envc; i++)
        plan->env[used++] = exec->env[i];
    return 0;
}

static const char *search_path(const struct plan *plan)
{
    for (const char **entry = plan->env; *entry; entry++)
        if (strncmp(*entry, "PATH=", 5) == 0)
            return *entry + 5;
    return DEFAULT_PATH;
}

/* One candidate when the name has a slash, else one for each folder of PATH. */
static int make_candidates(struct plan *plan)
{
    const char *name = plan->exec->argv[0], *path = search_path(plan);
    size_t folders = 1;
    for (const char *at = path; *at; at++)
        folders += *at == ':';
    plan->candidate = calloc(folders + 1, sizeof *plan->candidate);
    plan->shell_argv = calloc((size_t)plan->exec->argc + 2, sizeof *plan->shell_argv);
    if (!plan->candidate || !plan->shell_argv)
        return -ENOMEM;
    plan->shell_argv[0] = "sh";
    for (uint32_t i = 1; i < plan->exec->argc; i++)
        plan->shell_argv[i + 1] = plan->exec->argv[i];
    if (strchr(name, '/') || !name[0]) {
        plan->candidate[0] = strdup(name);
        return plan->candidate[0] ? 0 : -ENOMEM;
    }
    for (size_t i = 0; i < folders; i++) {
        int length = (int)strcspn(path, ":");
        if (asprintf(&plan->candidate[i], "%.*s%s%s", length, path, length ? "/" : "./", name) < 0) {
            plan->candidate[i] = NULL;
            return -ENOMEM;
        }
        path += length + 1;
    }
    return 0;
}

static void plan_free(struct plan *plan)
{
    free(plan->env);
    for (char **at = plan->candidate; at && *at; at++)
        free(*at);
    free(plan->candidate);
    free(plan->shell_argv);
}

/* A pipe whose end on this side does not block. */
static int make_pipe(int *ret_ours, int *ret_theirs, bool they_read)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) < 0)
        return -errno;
    *ret_theirs = fd[they_read ? 0 : 1];
    *ret_ours = fd[they_read ? 1 : 0];
    fcntl(*ret_ours, F_SETFL, O_NONBLOCK);
    return 0;
}

static int make_pipes(const struct agent_exec *exec, int ours[AGENT_STREAMS], int theirs[AGENT_STREAMS])
{
    int r = 0;
    if (exec->flags & AGENT_EXEC_STDIN)
        r = make_pipe(&ours[AGENT_STDIN], &theirs[AGENT_STDIN], true);
    else if ((theirs[AGENT_STDIN] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
        r = -errno;
    for (unsigned i = AGENT_STDOUT; r == 0 && i < AGENT_STREAMS; i++)
        r = make_pipe(&ours[i], &theirs[i], false);
    return r;
}

static int make_terminal(const struct plan *plan, int ours[AGENT_STREAMS], int theirs[AGENT_STREAMS])
{
    char name[64];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0)
        return -errno;
    ours[AGENT_STDOUT] = master;
    ours[AGENT_STDIN] = fcntl(master, F_DUPFD_CLOEXEC, 0);
    if (ours[AGENT_STDIN] < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof name))
        return -errno;
    int slave = theirs[AGENT_STDIN] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    for (unsigned i = AGENT_STDOUT; i < AGENT_STREAMS; i++)
        theirs[i] = fcntl(slave, F_DUPFD_CLOEXEC, 0);
    if (slave < 0 || theirs[AGENT_STDOUT] < 0 || theirs[AGENT_STDERR] < 0)
        return -errno;
    struct winsize size = {.ws_row = plan->exec->rows, .ws_col = plan->exec->columns};
    struct termios settings;
    ioctl(slave, TIOCSWINSZ, &size);
    if (tcgetattr(slave, &settings) == 0) {
        settings.c_iflag |= IUTF8;
        tcsetattr(slave, TCSANOW, &settings);
    }
    /* So that the command can open its terminal by name; where that is not allowed it is the agent's own user. */
    if (plan->account.uid != getuid() && fchown(slave, plan->account.uid, (gid_t)-1) < 0)
        return -errno;
    return 0;
}

static _Noreturn void child_fails(struct plan *plan, const char *step)
{
    plan->error = errno;
    plan->step = step;
    _exit(127);
}

/* As a shell looks a command up: the first that can be executed; a file that is there but may not be executed is
 * what is told of when none can. */
static _Noreturn void child_execs(struct plan *plan)
{
    char *const *argv = (char *const *)(uintptr_t)plan->exec->argv;
    char *const *env = (char *const *)(uintptr_t)plan->env;
    int code = ENOENT;
    for (char **path = plan->candidate; *path; path++) {
        execve(*path, argv, env);
        if (errno == ENOEXEC) {
            plan->shell_argv[1] = *path;
            execve("/bin/sh", (char *const *)(uintptr_t)plan->shell_argv, env);
            errno = ENOEXEC;
        }
        if (errno == EACCES)
            code = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            child_fails(plan, NULL);
    }
    errno = code;
    child_fails(plan, NULL);
}

static _Noreturn void child(struct plan *plan)
{
    const struct account *account = &plan->account;
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    for (int i = 0; i < (int)AGENT_STREAMS; i++)
        if (dup2(plan->child_fd[i], i) < 0)
            child_fails(plan, "its streams");
    if ((plan->exec->flags & AGENT_EXEC_TERMINAL) && ioctl(0, TIOCSCTTY, 0) < 0)
        child_fails(plan, "its terminal");
    umask(022);
    if (geteuid() == 0) {
        if (syscall(SYS_setgroups, account->group_count, account->groups) < 0 || syscall(SYS_setgid, account->gid) < 0 ||
            syscall(SYS_setuid, account->uid) < 0)
            child_fails(plan, "its user");
    } else if (account->uid != getuid() || account->gid != getgid()) {
        errno = EPERM;
        child_fails(plan, "its user");
    }
    if (plan->exec->directory[0]) {
        if (chdir(plan->exec->directory) < 0)
            child_fails(plan, "its working directory");
    } else if (chdir(account->home) < 0 && chdir("/") < 0) {
        child_fails(plan, "its working directory");
    }
    child_execs(plan);
}

static pid_t start(struct plan *plan)
{
    pid_t pid = vfork();
    if (pid == 0)
        child(plan);
    return pid;
}

static int fails(int code, const char *what, const char *step, int *ret_status, char *ret_why, size_t size)
{
    *ret_status = code == ENOENT && !step ? 127 : 126;
    if (code == ENOENT && !step)
        snprintf(ret_why, size, "'%s': command not found", what);
    else
        snprintf(ret_why, size, "'%s': %s%s%s", what, step ? step : "", step ? ": " : "", strerror(code));
    return -1;
}

int spawn_command(const struct agent_exec *exec, struct spawned *ret_spawned, int *ret_status, char *ret_why, size_t why_size)
{
    struct plan plan = {.exec = exec, .child_fd = {-1, -1, -1}};
    struct spawned spawned = {.fd = {-1, -1, -1}};
    *ret_status = 126;
    if (account_find(exec->user, &plan.account, ret_why, why_size) < 0)
        return -1;
    const char *step = "making its streams";
    int r = make_environment(&plan);
    if (r == 0)
        r = make_candidates(&plan);
    if (r == 0)
        r = exec->flags & AGENT_EXEC_TERMINAL ? make_terminal(&plan, spawned.fd, plan.child_fd)
                                              : make_pipes(exec, spawned.fd, plan.child_fd);
    if (r == 0) {
        step = "starting a process";
        spawned.pid = start(&plan);
        if (spawned.pid < 0)
            r = -errno;
    }
    if (r == 0 && plan.error) {
        waitpid(spawned.pid, NULL, 0);
        r = -plan.error;
        step = plan.step;
    }
    close_all(plan.child_fd);
    plan_free(&plan);
    if (r < 0) {
        close_all(spawned.fd);
        return fails(-r, exec->argv[0], step, ret_status, ret_why, why_size);
    }
    *ret_spawned = spawned;
    return 0;
}
