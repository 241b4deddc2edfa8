#include "host/bootfiles.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/confine.h"
#include "host/bootfiles_private.h"

#define DEADLINE_MS 60000
#define CPU_SECONDS 50
#define ADDRESS_SPACE (UINT64_C(1) << 30)
#define READ_TOTAL_MAX (UINT64_C(8) << 30) /* bytes that the child may ask for */

/* The child's end. */
struct asker {
    int socket;
    const uint8_t *window;
    uint64_t size;
};

static int ask(void *owner, uint64_t offset, void *bytes, size_t length)
{
    struct asker *asker = owner;
    uint8_t *out = bytes;
    if (!range_within(offset, length, asker->size))
        return -EINVAL;
    while (length) {
        size_t part = length < BOOT_WINDOW ? length : BOOT_WINDOW;
        struct boot_message message = {.kind = BOOT_READ, .offset = offset, .length = part};
        int32_t status;
        if (write(asker->socket, &message, sizeof message) != sizeof message ||
            read(asker->socket, &status, sizeof status) != sizeof status)
            return -EPIPE;
        if (status < 0)
            return status;
        memcpy(out, asker->window, part);
        out += part, offset += part, length -= part;
    }
    return 0;
}

static void run_child(struct asker *asker, int kernel, int initrd)
{
    static const struct confine limits = {
        .address_space = ADDRESS_SPACE, .file_size = BOOT_FILE_MAX, .cpu_seconds = CPU_SECONDS, .files = 3};
    struct boot_message done = {.kind = BOOT_DONE};
    /* Keep three descriptors, under fixed numbers, and nothing else. */
    int high[3] = {fcntl(asker->socket, F_DUPFD, 10), fcntl(kernel, F_DUPFD, 10), fcntl(initrd, F_DUPFD, 10)};
    for (int i = 0; i < 3; i++)
        if (dup2(high[i], i) < 0)
            _exit(1);
    if (close_range(3, ~0u, 0) < 0)
        _exit(1);
    asker->socket = 0;
    int r = confine(&limits);
    if (r < 0)
        error_set(&done.error, -r, "the reader of the disk cannot be confined: %s", strerror(-r));
    else
        r = bootfiles_look(ask, asker, asker->size, 1, 2, &done.files, &done.error);
    done.status = r;
    _exit(write(0, &done, sizeof done) == sizeof done ? 0 : 1);
}

static int serve_read(struct block *disk, const struct boot_message *message, void *window)
{
    uint64_t sector = disk->limits.sector_size;
    uint64_t start = message->offset & ~(sector - 1);
    uint64_t skip = message->offset - start;
    if (message->length > BOOT_WINDOW || !range_within(message->offset, message->length, disk->limits.size))
        return -EINVAL;
    uint64_t length = (skip + message->length + sector - 1) & ~(sector - 1);
    if (skip == 0 && length == message->length)
        return block_transfer(disk, BLOCK_READ, 0, start, window, length);
    uint8_t *bounce = malloc(length);
    int r = bounce ? block_transfer(disk, BLOCK_READ, 0, start, bounce, length) : -ENOMEM;
    if (r == 0)
        memcpy(window, bounce + skip, message->length);
    free(bounce);
    return r;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Answers the child until it is done. Returns 0 with its last message, or a negative errno with a sentence. */
static int serve(struct block *disk, int socket, void *window, struct boot_message *ret_done, struct error *error)
{
    int64_t end = now_ms() + DEADLINE_MS;
    uint64_t total = 0;
    for (;;) {
        struct pollfd wait = {socket, POLLIN, 0};
        int64_t left = end - now_ms();
        int ready = left > 0 ? poll(&wait, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return error_set(error, ETIMEDOUT, "its file system takes too long to read; it may be damaged");
        ssize_t n = read(socket, ret_done, sizeof *ret_done);
        if (n != sizeof *ret_done)
            return error_set(error, EIO, "its file system is damaged: the process that read it ended");
        if (ret_done->kind == BOOT_DONE)
            return 0;
        total += ret_done->length;
        int32_t status = total > READ_TOTAL_MAX ? -EIO : serve_read(disk, ret_done, window);
        if (send(socket, &status, sizeof status, MSG_NOSIGNAL) != sizeof status)
            return error_set(error, EIO, "its file system is damaged: the process that read it ended");
    }
}

/* A text of the child's: ends in NUL, and prints. */
static void clean_text(char *text, size_t size)
{
    text[size - 1] = 0;
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

/* Nobody can change the bytes any more. */
static int seal(int fd, struct error *error)
{
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0)
        return 0;
    return error_set(error, errno, "sealing a file in memory: %s", strerror(errno));
}

static int take_done(struct boot_message *done, int kernel, int initrd, struct bootfiles *ret_files, struct error *error)
{
    struct bootfiles *files = &done->files;
    clean_text(done->error.text, sizeof done->error.text);
    if (done->status < 0)
        return error_set(error, done->status > -4096 ? -done->status : EIO, "%s", done->error.text);
    clean_text(files->kernel_path, sizeof files->kernel_path);
    clean_text(files->initrd_path, sizeof files->initrd_path);
    clean_text(files->cmdline, sizeof files->cmdline);
    clean_text(files->root, sizeof files->root);
    clean_text(files->os, sizeof files->os);
    clean_text(files->suite, sizeof files->suite);
    int r = seal(kernel, error);
    if (r == 0)
        r = seal(initrd, error);
    if (r < 0)
        return r;
    *ret_files = *files;
    ret_files->kernel = kernel;
    ret_files->initrd = initrd;
    return 0;
}

/* With everything made: forks, serves, waits. */
static int run(struct block *disk, int sockets[2], void *window, int kernel, int initrd, struct bootfiles *ret_files,
               struct error *error)
{
    struct boot_message *message = calloc(1, sizeof *message);
    struct asker asker = {sockets[1], window, disk->limits.size};
    if (!message)
        return error_set(error, ENOMEM, "no memory to read the disk");
    pid_t child = fork();
    if (child == 0)
        run_child(&asker, kernel, initrd);
    close(sockets[1]);
    sockets[1] = -1;
    int r = child < 0 ? error_set(error, errno, "starting the reader of the disk: %s", strerror(errno))
                      : serve(disk, sockets[0], window, message, error);
    if (child > 0) {
        kill(child, SIGKILL); /* it is done, or hangs; seals want its mapping and descriptors gone */
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    if (r == 0)
        r = take_done(message, kernel, initrd, ret_files, error);
    free(message);
    return r;
}

int bootfiles_read(struct block *disk, struct bootfiles *ret_files, struct error *error)
{
    int sockets[2] = {-1, -1}, r = 0;
    int kernel = memfd_create("kernel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int initrd = memfd_create("initrd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *window = mmap(NULL, BOOT_WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (kernel < 0 || initrd < 0 || window == MAP_FAILED ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
        r = error_set(error, errno, "preparing to read the disk: %s", strerror(errno));
    if (r == 0)
        r = run(disk, sockets, window, kernel, initrd, ret_files, error);
    if (window != MAP_FAILED)
        munmap(window, BOOT_WINDOW);
    bool keep_initrd = r == 0 && ret_files->initrd_path[0];
    if (r < 0 && kernel >= 0)
        close(kernel);
    if (initrd >= 0 && !keep_initrd)
        close(initrd);
    if (r == 0 && !keep_initrd)
        ret_files->initrd = -1;
    for (int i = 0; i < 2; i++)
        if (sockets[i] >= 0)
            close(sockets[i]);
    return r;
}

void bootfiles_close(struct bootfiles *files)
{
    if (files->kernel >= 0)
        close(files->kernel);
    if (files->initrd >= 0)
        close(files->initrd);
    files->kernel = files->initrd = -1;
}

/* True when the command line has a parameter that begins so. */
static bool has(const char *cmdline, const char *parameter)
{
    for (const char *at = cmdline; (at = strstr(at, parameter)); at++)
        if (at == cmdline || at[-1] == ' ')
            return true;
    return false;
}

int bootfiles_cmdline(const struct bootfiles *files, const char *console, const char *append, char *ret_text, size_t size,
                      struct error *error)
{
    const char *sets[] = {files->cmdline, append ? append : ""};
    bool root = has(sets[0], "root=") || has(sets[1], "root=");
    bool chosen = has(sets[0], "console=") || has(sets[1], "console=");
    int length = snprintf(ret_text, size, "%s%s%s%s%s%s%s", root ? "" : "root=", root ? "" : files->root,
                          chosen ? "" : " ", chosen ? "" : console, *sets[0] ? " " : "", sets[0], *sets[1] ? " " : "");
    if (length >= 0 && (size_t)length < size)
        length += snprintf(ret_text + length, size - (size_t)length, "%s", sets[1]);
    if (length >= 0 && (size_t)length < size)
        return 0;
    return error_set(error, E2BIG, "the kernel's command line is too long");
}
