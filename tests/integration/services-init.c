/* services-init.c - the guest's side of the tests of sockets, balloon and console, as /init.
 *
 * Loads the modules of /modules in the order of their names, prints "READY", and serves four ports of the guest's sockets, each
 * connection in a process of its own:
 *   1000  echoes what comes, until its end
 *   1001  swallows what comes; at its end answers "<bytes> <sum>\n"
 *   1002  reads a count, a line, and sends as many bytes of the pattern
 *   1003  reads one command, a line, and answers with a line; see `command`
 *
 * The memory that commands take is that of one process, which lives as long as the guest. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define PAGE 4096u

/* The byte at a place of a stream; the host's tests know it too. */
static uint8_t pattern(uint64_t place)
{
    return (uint8_t)(place * 31 >> 3);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_modules(void)
{
    struct dirent **entry;
    int n = scandir("/modules", &entry, NULL, by_name);
    for (int i = 0; i < n; i++) {
        char path[300];
        snprintf(path, sizeof path, "/modules/%s", entry[i]->d_name);
        int fd = open(path, O_RDONLY);
        if (entry[i]->d_name[0] != '.' && (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0))
            printf("module %s: %s\n", entry[i]->d_name, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
}

static bool send_all(int fd, const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    while (length) {
        ssize_t n = write(fd, at, length);
        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

/* A line without its newline, at most size - 1 bytes. */
static void read_line(int fd, char *ret_line, size_t size)
{
    size_t used = 0;
    while (used < size - 1 && read(fd, ret_line + used, 1) == 1 && ret_line[used] != '\n')
        used++;
    ret_line[used] = '\0';
}

static void echo(int fd)
{
    static uint8_t bytes[65536];
    ssize_t n;
    while ((n = read(fd, bytes, sizeof bytes)) > 0 && send_all(fd, bytes, (size_t)n))
        continue;
}

static void swallow(int fd)
{
    static uint8_t bytes[65536];
    uint64_t total = 0, sum = 0;
    ssize_t n;
    while ((n = read(fd, bytes, sizeof bytes)) > 0)
        for (ssize_t i = 0; i < n; i++, total++)
            sum += (uint64_t)bytes[i] * (total % 251 + 1);
    dprintf(fd, "%llu %llu\n", (unsigned long long)total, (unsigned long long)sum);
}

static void produce(int fd)
{
    static uint8_t bytes[65536];
    char line[32];
    read_line(fd, line, sizeof line);
    for (uint64_t total = strtoull(line, NULL, 10), done = 0; done < total;) {
        size_t length = total - done < sizeof bytes ? (size_t)(total - done) : sizeof bytes;
        for (size_t i = 0; i < length; i++)
            bytes[i] = pattern(done + i);
        if (!send_all(fd, bytes, length))
            return;
        done += length;
    }
}

/* --- commands */

/* A process that holds memory: told how much by a pipe, it answers when it has touched, or let go, so much. */
static int keeper_in = -1, keeper_out = -1;

static void keep(int in, int out)
{
    uint8_t *memory = NULL;
    uint64_t size = 0, wanted;
    while (read(in, &wanted, sizeof wanted) == sizeof wanted) {
        uint64_t wrong = 0;
        for (uint64_t at = 0; at < size; at += PAGE) /* what was stored is still there */
            wrong += *(uint64_t *)(memory + at) != (at ^ 0x5a5a5a5a5a5a5a5aull);
        if (memory && wanted < size)
            munmap(memory + wanted, size - wanted);
        if (memory && wanted > size)
            memory = mremap(memory, size, wanted, MREMAP_MAYMOVE);
        else if (!memory)
            memory = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (uint64_t at = size; at < wanted; at += PAGE)
            *(uint64_t *)(memory + at) = at ^ 0x5a5a5a5a5a5a5a5aull;
        size = wanted;
        if (size == 0)
            memory = NULL;
        if (write(out, &wrong, sizeof wrong) < 0)
            return;
    }
}

static void start_keeper(void)
{
    int to[2], from[2];
    if (pipe(to) < 0 || pipe(from) < 0)
        return;
    if (fork() == 0) {
        keep(to[0], from[1]);
        _exit(0);
    }
    keeper_in = to[1];
    keeper_out = from[0];
}

static uint64_t memory_line(const char *name)
{
    char line[128];
    unsigned long long value = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    size_t length = strlen(name);
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            sscanf(line + length + 1, "%llu", &value);
    if (file)
        fclose(file);
    return value;
}

/* Connects to the host's port, sends the text, closes that direction, and tells what came back. */
static void dial(int fd, unsigned port, const char *text)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
    int to = socket(AF_VSOCK, SOCK_STREAM, 0);
    char answer[200];
    if (connect(to, (struct sockaddr *)&address, sizeof address) < 0) {
        dprintf(fd, "error %s\n", strerror(errno));
        return;
    }
    send_all(to, text, strlen(text));
    shutdown(to, SHUT_WR);
    size_t used = 0;
    ssize_t n;
    while (used < sizeof answer - 1 && (n = read(to, answer + used, sizeof answer - 1 - used)) > 0)
        used += (size_t)n;
    answer[used] = '\0';
    dprintf(fd, "got %s\n", answer);
    close(to);
}

/* Writes to a port of the console device, and echoes one line of it. */
static void port(int fd, const char *name)
{
    char path[100], line[200];
    for (unsigned i = 0; i < 256; i++) { /* device and port; devices are numbered across all kinds */
        snprintf(path, sizeof path, "/sys/class/virtio-ports/vport%up%u/name", i / 16, i % 16);
        FILE *file = fopen(path, "r");
        line[0] = '\0';
        if (file && fgets(line, sizeof line, file))
            line[strcspn(line, "\n")] = '\0';
        if (file)
            fclose(file);
        if (strcmp(line, name) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/vport%up%u", i / 16, i % 16);
        int to = open(path, O_RDWR);
        if (to < 0) {
            dprintf(fd, "error %s\n", strerror(errno));
            return;
        }
        dprintf(to, "hello from %s\n", name);
        read_line(to, line, sizeof line);
        dprintf(fd, "got %s\n", line);
        close(to);
        return;
    }
    dprintf(fd, "error no port\n");
}

static void size_of(int fd, const char *terminal)
{
    struct winsize size = {0};
    int to = open(terminal, O_RDWR | O_NOCTTY);
    if (to < 0 || ioctl(to, TIOCGWINSZ, &size) < 0)
        dprintf(fd, "error %s\n", strerror(errno));
    else
        dprintf(fd, "%u %u\n", size.ws_col, size.ws_row);
    if (to >= 0)
        close(to);
}

static void command(int fd)
{
    char line[300];
    unsigned number;
    unsigned long long bytes;
    int text = 0;
    read_line(fd, line, sizeof line);
    if (sscanf(line, "hold %llu", &bytes) == 1) { /* bytes that a process has touched from now on */
        uint64_t wanted = bytes / PAGE * PAGE, wrong = 1;
        if (write(keeper_in, &wanted, sizeof wanted) < 0 || read(keeper_out, &wrong, sizeof wrong) < 0)
            wrong = 1;
        dprintf(fd, "held %llu, %llu wrong\n", bytes, (unsigned long long)wrong);
    } else if (strcmp(line, "memory") == 0) {
        dprintf(fd, "%llu %llu\n", (unsigned long long)memory_line("MemTotal"), (unsigned long long)memory_line("MemFree"));
    } else if (sscanf(line, "dial %u %n", &number, &text) == 1) {
        dial(fd, number, line + text);
    } else if (strncmp(line, "port ", 5) == 0) {
        port(fd, line + 5);
    } else if (sscanf(line, "print %*s %n", &text) == 0 && text > 0) { /* a line on a terminal */
        line[text - 1] = '\0';
        int to = open(line + 6, O_WRONLY | O_NOCTTY);
        dprintf(fd, "%d\n", to < 0 ? -errno : dprintf(to, "%s\n", line + text));
        close(to);
    } else if (strncmp(line, "size ", 5) == 0) {
        size_of(fd, line + 5);
    } else if (strcmp(line, "off") == 0) {
        reboot(RB_POWER_OFF);
    } else {
        dprintf(fd, "error what?\n");
    }
}

/* --- sockets */

static void serve(unsigned port_number, void (*work)(int fd))
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port_number};
    int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 128) < 0) {
        printf("port %u: %s\n", port_number, strerror(errno));
        return;
    }
    if (fork() > 0)
        return;
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        if (fork() == 0) {
            work(fd);
            _exit(0);
        }
        close(fd);
    }
}

int main(void)
{
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    load_modules();
    start_keeper();
    serve(1000, echo);
    serve(1001, swallow);
    serve(1002, produce);
    serve(1003, command);
    printf("READY\n");
    for (;;)
        wait(NULL);
}
