/* The guest agent and the host's client over a unix socket: output, input, status, users, terminals, signals, clients that
 * vanish, clients that do not keep to the protocol, many at once; and that the agent then holds nothing.
 * Usage: agent_test HOST_AGENT */
#include "host/agent_client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char folder[64], path[128], ready_path[128];
static pid_t agent_pid;

static int local_socket(const char *where, bool serve)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", where);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = serve ? bind(fd, (struct sockaddr *)&address, sizeof address) : connect(fd, (struct sockaddr *)&address, sizeof address);
    if (r < 0 || (serve && listen(fd, 8) < 0)) {
        perror(where);
        exit(1);
    }
    return fd;
}

/* Starts the agent and waits for its word that it listens. */
static void start_agent(const char *program)
{
    strcpy(folder, "/tmp/veneer-agent-XXXXXX");
    if (!mkdtemp(folder))
        exit(1);
    snprintf(path, sizeof path, "%s/agent", folder);
    snprintf(ready_path, sizeof ready_path, "%s/ready", folder);
    int listener = local_socket(ready_path, true);
    agent_pid = fork();
    if (agent_pid == 0) {
        execl(program, program, "--unix", path, "--ready-unix", ready_path, (char *)NULL);
        _exit(1);
    }
    int ready = accept(listener, NULL, NULL);
    uint8_t hello[AGENT_HEADER + 8];
    struct agent_frame frame;
    CHECK_EQ(recv(ready, hello, sizeof hello, MSG_WAITALL), sizeof hello);
    CHECK_EQ(agent_frame_parse(hello, sizeof hello, &frame), sizeof hello);
    CHECK_EQ(frame.type, AGENT_HELLO);
    CHECK_EQ(agent_frame_u32(&frame, 0), AGENT_MAGIC);
    CHECK_EQ(recv(ready, hello, sizeof hello, 0), 0); /* the agent has let go of it, so its descriptors can be counted */
    close(ready);
    close(listener);
}

/* One command's outcome. */
struct outcome {
    int result, status;
    char out[4096], err[4096];
    struct error error;
};

static int memory_file(const char *text, size_t length)
{
    int fd = memfd_create("text", MFD_CLOEXEC);
    if (write(fd, text, length) != (ssize_t)length)
        exit(1);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static void read_back(int fd, char *text, size_t size)
{
    ssize_t n = pread(fd, text, size - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    close(fd);
}

static struct outcome run_exec(struct agent_exec *exec, const char *input)
{
    struct outcome outcome = {.status = -1};
    int socket = local_socket(path, false);
    struct agent_call call = {.exec = exec, .in = memory_file(input ? input : "", input ? strlen(input) : 0),
                              .out = memory_file("", 0), .err = memory_file("", 0), .signals = -1};
    if (input)
        exec->flags |= AGENT_EXEC_STDIN;
    outcome.result = agent_run(socket, &call, &outcome.status, &outcome.error);
    read_back(call.out, outcome.out, sizeof outcome.out);
    read_back(call.err, outcome.err, sizeof outcome.err);
    close(call.in);
    close(socket);
    return outcome;
}

static struct agent_exec shell(const char *script)
{
    static const char *argv[4];
    static const char *env[] = {"GREETING=good day", "PATH=/usr/bin:/bin", NULL};
    argv[0] = "sh";
    argv[1] = "-c";
    argv[2] = script;
    return (struct agent_exec){.directory = "/", .user = "", .argc = 3, .envc = 2, .argv = argv, .env = env};
}

static struct outcome run(const char *script, const char *input)
{
    struct agent_exec exec = shell(script);
    return run_exec(&exec, input);
}

static void test_commands(void)
{
    struct outcome o = run("echo out; echo err >&2; pwd; echo $GREETING; exit 7", NULL);
    CHECK_EQ(o.result, 0);
    CHECK_EQ(o.status, 7);
    CHECK_STR(o.out, "out\n/\ngood day\n");
    CHECK_STR(o.err, "err\n");
    o = run("tr a-z A-Z", "some input\n");
    CHECK_EQ(o.status, 0);
    CHECK_STR(o.out, "SOME INPUT\n");
    CHECK_STR(run("wc -c", NULL).out, "0\n");                 /* without input it is empty, not missing */
    CHECK_EQ(run("kill -9 $$", NULL).status, 128 + 9);
    CHECK_STR(run("exec sh -c 'kill -13 $$; echo lives'", NULL).out, ""); /* SIGPIPE has its default again */
    o = run("sleep 1000 & echo $!", NULL);                    /* a child left behind holds nobody up */
    CHECK_EQ(o.status, 0);
    kill((pid_t)atoi(o.out), SIGKILL);
    CHECK_EQ(run("exec 1>&- 2>&-; exit 3", NULL).status, 3);
    CHECK_EQ(run("exec 0<&-; sleep 0.05; exit 4", "unread\n").status, 4);
}

static void test_failures(void)
{
    const char *argv[] = {"no-such-command-here", NULL};
    struct agent_exec exec = shell("");
    exec.argv = argv;
    exec.argc = 1;
    struct outcome o = run_exec(&exec, NULL);
    CHECK_EQ(o.result, 0);
    CHECK_EQ(o.status, 127);
    CHECK_STR(o.error.text, "'no-such-command-here': command not found");
    argv[0] = "/etc/passwd";
    CHECK_EQ(run_exec(&exec, NULL).status, 126);
    argv[0] = "/nowhere/at/all";
    CHECK_EQ(run_exec(&exec, NULL).status, 127);
    argv[0] = "";
    CHECK_EQ(run_exec(&exec, NULL).status, 127);
    exec = shell("true");
    exec.directory = "/no/such/folder";
    o = run_exec(&exec, NULL);
    CHECK_EQ(o.status, 126);
    CHECK_STR(o.error.text, "'sh': its working directory: No such file or directory");
    exec = shell("true");
    exec.user = "nobody-of-this-name";
    o = run_exec(&exec, NULL);
    CHECK_EQ(o.status, 126);
    CHECK_STR(o.error.text, "there is no user 'nobody-of-this-name'");
    exec.user = "0:no-such-group";
    CHECK_STR(run_exec(&exec, NULL).error.text, "there is no group 'no-such-group'");
    char script[200];
    snprintf(script, sizeof script, "%s/script", folder);     /* a script without "#!" runs in a shell, as from one */
    FILE *file = fopen(script, "w");
    fputs("echo script $1\n", file);
    fclose(file);
    chmod(script, 0755);
    const char *scripted[] = {script, "word", NULL};
    exec = shell("");
    exec.argv = scripted;
    exec.argc = 2;
    CHECK_STR(run_exec(&exec, NULL).out, "script word\n");
    unlink(script);
}

static void test_users(void)
{
    struct agent_exec exec = shell("id -u; id -g; echo $HOME; echo $USER");
    struct outcome o;
    if (geteuid() != 0) {
        exec.user = "0";
        CHECK_EQ(run_exec(&exec, NULL).status, getuid() == 0 ? 0 : 126);
        return;
    }
    exec.user = "nobody";
    o = run_exec(&exec, NULL);
    CHECK_STR(o.out, "65534\n65534\n/nonexistent\nnobody\n");
    exec.user = "12345:54321";
    CHECK_STR(run_exec(&exec, NULL).out, "12345\n54321\n/\n12345\n");
    exec.user = "daemon:0";
    CHECK_STR(run_exec(&exec, NULL).out, "1\n0\n/usr/sbin\ndaemon\n");
    exec = shell("id -G");
    exec.user = "54321";
    CHECK_STR(run_exec(&exec, NULL).out, "54321\n"); /* the agent's own groups are not handed on */
}

static void test_terminal(void)
{
    struct agent_exec exec = shell("test -t 0 && test -t 1 && test -t 2 && stty size && echo end >/dev/tty");
    exec.flags = AGENT_EXEC_TERMINAL;
    exec.rows = 33;
    exec.columns = 111;
    struct outcome o = run_exec(&exec, NULL);
    CHECK_EQ(o.status, 0);
    CHECK_STR(o.out, "33 111\r\nend\r\n");
    exec = shell("trap 'echo got; exit 9' INT; echo go; read word; echo not");
    exec.flags = AGENT_EXEC_TERMINAL;
    o = run_exec(&exec, "\003"); /* Ctrl-C, as typed */
    CHECK(o.status == 9 || o.status == 130); /* before or after the trap stands */
    exec = shell("cat; echo done");
    exec.flags = AGENT_EXEC_TERMINAL;
    o = run_exec(&exec, "line\n"); /* the input's end is typed as Ctrl-D */
    CHECK_EQ(o.status, 0);
    CHECK(strstr(o.out, "done\r\n") != NULL);
}

/* 8 MiB through cat and back, while this side only starts to read once all its input is gone or stuck. */
static void test_volume(void)
{
    enum { SIZE = 8 << 20 };
    char *bytes = malloc(SIZE), *back = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (char)(i * 2654435761u >> 13);
    const char *argv[] = {"cat", NULL};
    struct agent_exec exec = shell("");
    exec.argv = argv;
    exec.argc = 1;
    exec.flags = AGENT_EXEC_STDIN;
    int status = -1, pipes[2], socket = local_socket(path, false);
    if (pipe(pipes) < 0)
        exit(1);
    pid_t reader = fork();
    if (reader == 0) {
        close(pipes[1]);
        usleep(100000);
        size_t used = 0;
        for (ssize_t n; (n = read(pipes[0], back + used, SIZE - used)) > 0;)
            used += (size_t)n;
        _exit(used == SIZE && memcmp(bytes, back, SIZE) == 0 ? 0 : 1);
    }
    close(pipes[0]);
    struct error error;
    struct agent_call call = {.exec = &exec, .in = memory_file(bytes, SIZE), .out = pipes[1], .err = pipes[1], .signals = -1};
    CHECK_EQ(agent_run(socket, &call, &status, &error), 0);
    CHECK_EQ(status, 0);
    close(pipes[1]);
    close(call.in);
    close(socket);
    CHECK_EQ(waitpid(reader, &status, 0), reader);
    CHECK_EQ(status, 0);
    free(bytes);
    free(back);
}

static bool gone(pid_t pid)
{
    for (unsigned i = 0; i < 1000 && kill(pid, 0) == 0; i++)
        usleep(10000);
    return kill(pid, 0) < 0 && errno == ESRCH;
}

/* A client that goes away takes its command with it, also one that ignores SIGHUP. */
static void test_vanish(const char *script)
{
    struct agent_exec exec = shell(script);
    struct agent_client client;
    uint8_t bytes[4096];
    int socket = local_socket(path, false);
    agent_client_init(&client);
    CHECK_EQ(agent_buffer_exec(&client.to_agent, &exec), 0);
    CHECK_EQ(send(socket, client.to_agent.bytes, client.to_agent.used, 0), client.to_agent.used);
    while (!client.output[AGENT_STDOUT].used || !memchr(client.output[AGENT_STDOUT].bytes, '\n', client.output[AGENT_STDOUT].used)) {
        struct error error;
        ssize_t n = recv(socket, bytes, sizeof bytes, 0);
        if (n <= 0 || agent_client_take(&client, bytes, (size_t)n, &error) < 0)
            break;
    }
    pid_t pid = client.output[AGENT_STDOUT].used ? (pid_t)atoi((char *)client.output[AGENT_STDOUT].bytes) : 0;
    CHECK(pid > 1);
    close(socket);
    CHECK(pid > 1 && gone(pid));
    agent_client_free(&client);
}

/* What is no protocol gets a sentence and the end of the connection. */
static void test_bad(const void *bytes, size_t length, bool greeted)
{
    struct agent_client client;
    struct error error = {""};
    int socket = local_socket(path, false), r = 0;
    agent_client_init(&client);
    if (greeted)
        send(socket, client.to_agent.bytes, client.to_agent.used, MSG_NOSIGNAL);
    send(socket, bytes, length, MSG_NOSIGNAL);
    while (r == 0) {
        uint8_t answer[512];
        ssize_t n = recv(socket, answer, sizeof answer, 0);
        if (n <= 0)
            break;
        client.greeted = true; /* a fault may come instead of a greeting */
        if (answer[4] == AGENT_HELLO && n > AGENT_HEADER + 8)
            r = agent_client_take(&client, answer + AGENT_HEADER + 8, (size_t)n - AGENT_HEADER - 8, &error);
        else if (answer[4] != AGENT_HELLO)
            r = agent_client_take(&client, answer, (size_t)n, &error);
    }
    CHECK_EQ(r, -EPROTO);
    CHECK(strstr(error.text, "the guest's agent says: ") != NULL);
    close(socket);
    agent_client_free(&client);
}

static void test_protocol(void)
{
    static const uint8_t garbage[] = "GET / HTTP/1.0\r\n\r\n";
    static const uint8_t huge[] = {0xff, 0xff, 0xff, 0x7f, AGENT_DATA, 0, 0, 0};
    static const uint8_t early[] = {1, 0, 0, 0, AGENT_DATA, 0, 0, 0, 'x'};
    static const uint8_t empty[] = {0, 0, 0, 0, AGENT_EXEC, 0, 0, 0};
    static const uint8_t no_words[] = {19, 0, 0, 0, AGENT_EXEC, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t few[] = {19, 0, 0, 0, AGENT_EXEC, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    test_bad(garbage, sizeof garbage, false);
    test_bad(garbage, sizeof garbage, true);
    test_bad(huge, sizeof huge, true);
    test_bad(early, sizeof early, false);
    test_bad(early, sizeof early, true);
    test_bad(empty, sizeof empty, true);
    test_bad(no_words, sizeof no_words, true);
    test_bad(few, sizeof few, true);
}

static unsigned entries(const char *name)
{
    char where[64];
    unsigned count = 0;
    snprintf(where, sizeof where, "/proc/%d/%s", agent_pid, name);
    DIR *dir = opendir(where);
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

static bool has_children(void)
{
    char where[64], text[64];
    snprintf(where, sizeof where, "/proc/%d/task/%d/children", agent_pid, agent_pid);
    int fd = open(where, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text);
    close(fd);
    return n > 0;
}

/* `clients` processes with `each` commands one after the other. */
static void test_many(unsigned clients, unsigned each)
{
    for (unsigned i = 0; i < clients; i++)
        if (fork() == 0) {
            unsigned wrong = 0;
            for (unsigned j = 0; j < each; j++) {
                char script[64], due[64];
                unsigned number = i * each + j;
                snprintf(script, sizeof script, "echo %u; exit %u", number, number % 256);
                snprintf(due, sizeof due, "%u\n", number);
                struct outcome o = run(script, NULL);
                wrong += o.result != 0 || o.status != (int)(number % 256) || strcmp(o.out, due) != 0;
            }
            _exit(wrong != 0);
        }
    for (unsigned i = 0; i < clients; i++) {
        int status = -1;
        wait(&status);
        CHECK_EQ(status, 0);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    start_agent(argv[1]);
    unsigned before = entries("fd");
    test_commands();
    test_failures();
    test_users();
    test_terminal();
    test_volume();
    test_vanish("echo $$; exec sleep 1000");
    test_vanish("trap '' HUP; echo $$; while :; do sleep 1000; done");
    test_protocol();
    test_many(50, 4);
    for (unsigned i = 0; i < 500 && (entries("fd") != before || has_children()); i++)
        usleep(10000); /* the last clients' ends are still on their way */
    CHECK_EQ(entries("fd"), before);
    CHECK(!has_children());
    kill(agent_pid, SIGTERM);
    int status = -1;
    CHECK_EQ(waitpid(agent_pid, &status, 0), agent_pid);
    CHECK_EQ(status, 0); /* with sanitizers: no leak either */
    unlink(path);
    unlink(ready_path);
    rmdir(folder);
    CHECK_DONE();
}
