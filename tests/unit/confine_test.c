/* What a confined process still can, and what ends it. Each case runs in a child. */
#include "base/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define FILE_SIZE 4096
#define KILLED (-SIGSYS)

static int file; /* open for reading and writing */

static int nothing(void)
{
    return 0;
}

static int reading(void)
{
    char byte;
    return read(file, &byte, 1) < 0 || write(file, "x", 1) != 1;
}

static int memory(void)
{
    size_t size = 64 << 20;
    char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return 1;
    bytes[size - 1] = 1;
    return munmap(bytes, size) < 0;
}

static int opening(void)
{
    return (int)syscall(__NR_openat, AT_FDCWD, "/dev/null", O_RDONLY) >= 0;
}

static int sockets(void)
{
    return (int)syscall(__NR_socket, 1, 1, 0) >= 0;
}

static int other_abi(void)
{
    return (int)syscall(0x40000000 | __NR_getpid) >= 0; /* x32 */
}

static int code_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

static int file_memory(void)
{
    return mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0) != MAP_FAILED;
}

static int placed_write(void)
{
    return pwrite(file, "x", 1, FILE_SIZE - 1) != 1;
}

static int beyond_size(void)
{
    return pwrite(file, "x", 1, FILE_SIZE) != -1 || errno != EFBIG;
}

static int duplicates(void)
{
    return dup(file) != -1 || errno != EMFILE;
}

/* Runs the case in a confined child. Returns its exit status, or minus the signal that ended it. */
static int run_confined(int (*call)(void), const int *calls)
{
    struct confine to = {.address_space = UINT64_C(1) << 30, .file_size = FILE_SIZE, .cpu_seconds = 10,
                         .files = (unsigned)file + 1, .calls = calls};
    int status;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN); /* to see the error instead */
        if (confine(&to) < 0)
            _exit(99);
        _exit(call());
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int main(void)
{
    static const int more[] = {__NR_pwrite64, __NR_dup, -1};
    int many[CONFINE_CALLS_MAX + 2];
    file = memfd_create("file", MFD_CLOEXEC);
    CHECK(file >= 0 && ftruncate(file, FILE_SIZE) == 0);
    CHECK_EQ(run_confined(nothing, NULL), 0);
    CHECK_EQ(run_confined(reading, NULL), 0);
    CHECK_EQ(run_confined(memory, NULL), 0);
    CHECK_EQ(run_confined(opening, NULL), KILLED);
    CHECK_EQ(run_confined(opening, more), KILLED);
    CHECK_EQ(run_confined(sockets, more), KILLED);
    CHECK_EQ(run_confined(other_abi, more), KILLED);
    CHECK_EQ(run_confined(code_memory, more), KILLED);
    CHECK_EQ(run_confined(file_memory, more), KILLED);
    CHECK_EQ(run_confined(placed_write, NULL), KILLED);
    CHECK_EQ(run_confined(placed_write, more), 0);
    CHECK_EQ(run_confined(beyond_size, more), 0);
    CHECK_EQ(run_confined(duplicates, more), 0);
    for (int i = 0; i <= CONFINE_CALLS_MAX; i++)
        many[i] = __NR_dup;
    many[CONFINE_CALLS_MAX + 1] = -1;
    CHECK_EQ(run_confined(nothing, many), 99); /* too many calls */
    many[CONFINE_CALLS_MAX] = -1;
    CHECK_EQ(run_confined(nothing, many), 0);
    CHECK_DONE();
}
