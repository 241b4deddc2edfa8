/* main.c - the guest agent: runs commands for the host.
 *
 * It listens on a vsock port, or on a unix socket where there is no virtual machine (tests), and serves every
 * connection from one thread. As soon as it listens it connects to the host's AGENT_READY_PORT, so that nobody has to
 * ask again and again whether it is there. docs/agent.md tells the protocol and what "ready" means. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/loop.h"
#include "host/agent_protocol.h"
#include "session.h"

#define SESSIONS_MAX 200u
#define READY_RETRY_NS UINT64_C(50000000) /* between attempts while no vsock transport is there yet */
#define READY_ATTEMPTS 1200u
#define POWER_OFF_US 300000u /* from SIGTERM to power-off where no service manager does it */

/* linux/vm_sockets.h, which a C library's headers may come without. */
#define VSOCK_CID_ANY UINT32_MAX
#define VSOCK_CID_HOST 2u
struct sockaddr_vsock {
    sa_family_t family;
    uint16_t zero;
    uint32_t port, cid;
    uint8_t rest[4];
};
_Static_assert(sizeof(struct sockaddr_vsock) == sizeof(struct sockaddr), "as the kernel has it");

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_vsock vsock;
        struct sockaddr_un local;
    };
    socklen_t length; /* 0: none */
};

struct agent {
    struct loop *loop;
    struct clock clock;
    struct session_owner owner;
    struct session *session[SESSIONS_MAX];
    int listener, signals;
    struct address ready; /* of the host, to be told that this agent listens */
    int ready_socket;
    struct loop_source *ready_source;
    struct clock_timer *ready_timer;
    unsigned ready_attempts;
};

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("veneer-agent: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
}

static struct address vsock_address(uint32_t cid, uint32_t port)
{
    return (struct address){.vsock = {.family = AF_VSOCK, .port = port, .cid = cid}, .length = sizeof(struct sockaddr_vsock)};
}

static int unix_address(const char *path, struct address *ret_address)
{
    struct address address = {.local = {.sun_family = AF_UNIX}, .length = sizeof(struct sockaddr_un)};
    if (strlen(path) >= sizeof address.local.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.local.sun_path, path, strlen(path) + 1);
    *ret_address = address;
    return 0;
}

/* Tells the host. There is a moment in a guest's start when the socket family is there and its device is not. */
static void ready_connect(void *context);

static void ready_end(struct agent *agent, int code)
{
    loop_remove(agent->ready_source);
    agent->ready_source = NULL;
    close(agent->ready_socket);
    agent->ready_socket = -1;
    bool later = code == ENODEV || code == ENETUNREACH || code == EADDRNOTAVAIL;
    if (later && ++agent->ready_attempts < READY_ATTEMPTS)
        clock_timer_arm(&agent->clock, agent->ready_timer, clock_now(&agent->clock) + READY_RETRY_NS);
    else if (code)
        say("the host does not ask whether this agent is ready: %s", strerror(code));
}

static void ready_connected(void *context, uint32_t events)
{
    struct agent *agent = context;
    (void)events;
    int code = 0;
    socklen_t size = sizeof code;
    getsockopt(agent->ready_socket, SOL_SOCKET, SO_ERROR, &code, &size);
    uint8_t hello[AGENT_HEADER + 8];
    agent_header_put(hello, AGENT_HELLO, AGENT_STDIN, 8);
    agent_u32_put(hello + AGENT_HEADER, AGENT_MAGIC);
    agent_u32_put(hello + AGENT_HEADER + 4, AGENT_VERSION);
    if (!code && send(agent->ready_socket, hello, sizeof hello, MSG_NOSIGNAL) < 0)
        code = errno;
    ready_end(agent, code);
}

static void ready_connect(void *context)
{
    struct agent *agent = context;
    agent->ready_socket = socket(agent->ready.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (agent->ready_socket < 0)
        return;
    if (connect(agent->ready_socket, &agent->ready.any, agent->ready.length) < 0 && errno != EINPROGRESS) {
        ready_end(agent, errno);
        return;
    }
    if (loop_add_fd(agent->loop, agent->ready_socket, EPOLLOUT, ready_connected, agent, &agent->ready_source) < 0)
        ready_end(agent, ENOMEM);
}

static void on_client(void *context, uint32_t events)
{
    struct agent *agent = context;
    (void)events;
    int client = accept4(agent->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            usleep(10000); /* the client stays in the queue; others end meanwhile */
        return;
    }
    for (unsigned i = 0; i < SESSIONS_MAX; i++)
        if (!agent->session[i]) {
            if (session_new(&agent->owner, client, &agent->session[i]) < 0)
                say("a client was let go: no memory");
            return;
        }
    session_refuse(client, "the agent serves too many commands already");
}

static void on_ended(void *context, struct session *session)
{
    struct agent *agent = context;
    for (unsigned i = 0; i < SESSIONS_MAX; i++)
        if (agent->session[i] == session)
            agent->session[i] = NULL;
}

/* Reaps every child that ended, orphans too where the agent is the first process. */
static void reap(struct agent *agent)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (unsigned i = 0; i < SESSIONS_MAX; i++)
            if (agent->session[i] && session_pid(agent->session[i]) == pid) {
                session_reaped(agent->session[i], status);
                break;
            }
}

static void on_signal(void *context, uint32_t events)
{
    struct agent *agent = context;
    (void)events;
    struct signalfd_siginfo info;
    while (read(agent->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            reap(agent);
        else
            loop_stop(agent->loop);
    }
}

/* systemd shuts down in order when its first process gets SIGRTMIN+4. Without it there is no order to keep: processes are
 * asked to end, files are written, and the power goes. A child does it, so that the client still gets its answer. */
static void on_power_off(void *context)
{
    (void)context;
    if (access("/run/systemd/system", F_OK) == 0) {
        kill(1, SIGRTMIN + 4);
        return;
    }
    if (fork() != 0)
        return;
    usleep(10000);
    signal(SIGTERM, SIG_IGN);
    kill(-1, SIGTERM);
    usleep(POWER_OFF_US);
    sync();
    reboot(RB_POWER_OFF);
    _exit(1);
}

static int listen_on(struct agent *agent, const struct address *address)
{
    agent->listener = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (agent->listener < 0 || bind(agent->listener, &address->any, address->length) < 0 || listen(agent->listener, 128) < 0)
        return -errno;
    return 0;
}

static int serve(struct agent *agent, const struct address *address)
{
    struct loop_source *source;
    struct error error;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    agent->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int r = agent->signals < 0 ? -errno : loop_new(&agent->loop, &error);
    if (r < 0)
        return r;
    agent->clock = loop_clock(agent->loop);
    agent->owner = (struct session_owner){agent->loop, agent, on_ended, on_power_off};
    agent->ready_timer = clock_timer_new(&agent->clock, ready_connect, agent);
    r = listen_on(agent, address);
    if (r == 0)
        r = loop_add_fd(agent->loop, agent->listener, EPOLLIN, on_client, agent, &source);
    if (r == 0)
        r = loop_add_fd(agent->loop, agent->signals, EPOLLIN, on_signal, agent, &source);
    if (r == 0 && agent->ready.length)
        ready_connect(agent);
    return r < 0 ? r : loop_run(agent->loop);
}

static void finish(struct agent *agent)
{
    for (unsigned i = 0; i < SESSIONS_MAX; i++)
        if (agent->session[i])
            session_free(agent->session[i]);
    if (agent->loop)
        clock_timer_free(&agent->clock, agent->ready_timer);
    if (agent->ready_socket >= 0)
        close(agent->ready_socket);
    if (agent->listener >= 0)
        close(agent->listener);
    if (agent->signals >= 0)
        close(agent->signals);
    loop_free(agent->loop);
}

static void usage(FILE *out)
{
    fputs("usage: veneer-agent [--unix PATH] [--ready-unix PATH]\n\n"
          "Runs commands in a guest for veneer. Listens on vsock port 1024 and then connects to the host's vsock port\n"
          "1025; --unix listens on a unix socket instead, and --ready-unix then connects to another.\n", out);
}

static int parse(int argc, char **argv, struct address *address, struct address *ready)
{
    bool local = false, told = false;
    for (int i = 1; i < argc; i += 2) {
        local |= strcmp(argv[i], "--unix") == 0;
        bool is_ready = strcmp(argv[i], "--ready-unix") == 0;
        told |= is_ready;
        if ((strcmp(argv[i], "--unix") != 0 && !is_ready) || i + 1 == argc)
            return -EINVAL;
        int r = unix_address(argv[i + 1], is_ready ? ready : address);
        if (r < 0)
            return r;
    }
    if (local && !told)
        ready->length = 0;
    return 0;
}

int main(int argc, char **argv)
{
    static struct agent agent = {.listener = -1, .signals = -1, .ready_socket = -1};
    struct address address = vsock_address(VSOCK_CID_ANY, AGENT_PORT);
    agent.ready = vsock_address(VSOCK_CID_HOST, AGENT_READY_PORT);
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        usage(stdout);
        return 0;
    }
    if (parse(argc, argv, &address, &agent.ready) < 0) {
        usage(stderr);
        return 2;
    }
    /* The first three descriptors are a child's to set; none of ours may lie there. */
    for (int fd = open("/dev/null", O_RDWR); fd >= 0; fd = open("/dev/null", O_RDWR))
        if (fd > 2) {
            close(fd);
            break;
        }
    int r = serve(&agent, &address);
    finish(&agent);
    if (r < 0)
        say("cannot serve: %s", strerror(-r));
    return r < 0;
}
