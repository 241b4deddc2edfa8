#include "base/confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOBODY 65534

/* A sanitizer's shadow takes terabytes of address space. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZER 1
#endif
#endif
#ifndef SANITIZER
#define SANITIZER 0
#endif

static int limit(int resource, rlim_t value)
{
    struct rlimit limits = {value, value};
    return setrlimit((__rlimit_resource_t)resource, &limits) < 0 ? -errno : 0;
}

static int set_limits(const struct confine *to)
{
    int r = to->cpu_seconds ? limit(RLIMIT_CPU, to->cpu_seconds) : 0;
    if (r == 0)
        r = limit(RLIMIT_FSIZE, to->file_size);
    if (r == 0)
        r = limit(RLIMIT_CORE, 0);
    if (r == 0)
        r = limit(RLIMIT_NOFILE, to->files);
    if (r == 0 && !SANITIZER)
        r = limit(RLIMIT_AS, to->address_space);
    return r;
}

/* Root becomes nobody; a user stays who it is, and has the filter. */
static int drop_user(void)
{
    if (geteuid() != 0)
        return 0;
    if (setgroups(0, NULL) < 0 && errno != EPERM)
        return -errno;
    if (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0) {
        /* In a user namespace that maps root alone there is nobody else to become. */
        return errno == EINVAL ? 0 : -errno;
    }
    return 0;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define JUMP(test, value, yes, no) BPF_JUMP(BPF_JMP | (test) | BPF_K, (value), (yes), (no))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, (action))

static const int common_calls[] = {
    __NR_read, __NR_write, __NR_exit_group, __NR_exit, __NR_brk, __NR_munmap, __NR_mremap, __NR_madvise, __NR_futex,
    __NR_rt_sigreturn, __NR_rt_sigprocmask,
    __NR_getrandom,     /* malloc's tcache */
    __NR_clock_gettime, /* libext2fs asks the time; the vDSO may not know it */
    __NR_sched_yield, __NR_gettid, __NR_getpid, __NR_getuid, __NR_geteuid, __NR_getgid, __NR_getegid,
#if SANITIZER
    __NR_sigaltstack, /* before a function that does not return */
#endif
    -1};

#define COMMON_CALLS (sizeof common_calls / sizeof common_calls[0] - 1)

static const struct sock_filter filter_head[] = {
    LOAD(arch), JUMP(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0), RETURN(SECCOMP_RET_KILL_PROCESS), LOAD(nr)};

/* mmap only of memory that is no file's and not executable, prctl only to ask what confine has set; nothing else. */
static const struct sock_filter filter_tail[] = {
    JUMP(BPF_JEQ, __NR_prctl, 0, 2),
    LOAD(args[0]), /* the low half */
    JUMP(BPF_JEQ, PR_GET_DUMPABLE, 6, 5), /* libext2fs asks before it believes the environment */
    JUMP(BPF_JEQ, __NR_mmap, 0, 4),
    LOAD(args[2]), /* protection */
    JUMP(BPF_JSET, PROT_EXEC, 2, 0),
    LOAD(args[3]), /* flags */
    JUMP(BPF_JSET, MAP_ANONYMOUS, 1, 0),
    RETURN(SECCOMP_RET_KILL_PROCESS),
    RETURN(SECCOMP_RET_ALLOW)};

/* Appends a test for each call; returns where the next instruction goes. */
static struct sock_filter *allow(struct sock_filter *at, const int *calls)
{
    for (; calls && *calls >= 0; calls++) {
        *at++ = (struct sock_filter)JUMP(BPF_JEQ, (uint32_t)*calls, 0, 1);
        *at++ = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    }
    return at;
}

static int filter_calls(const int *calls)
{
    struct sock_filter code[sizeof filter_head / sizeof filter_head[0] + sizeof filter_tail / sizeof filter_tail[0] +
                            2 * (COMMON_CALLS + CONFINE_CALLS_MAX)];
    unsigned count = 0;
    while (calls && calls[count] >= 0)
        count++;
    if (count > CONFINE_CALLS_MAX)
        return -E2BIG;
    memcpy(code, filter_head, sizeof filter_head);
    struct sock_filter *end = allow(code + sizeof filter_head / sizeof filter_head[0], common_calls);
    end = allow(end, calls);
    memcpy(end, filter_tail, sizeof filter_tail);
    end += sizeof filter_tail / sizeof filter_tail[0];
    struct sock_fprog program = {(unsigned short)(end - code), code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return -errno;
    return 0;
}

int confine(const struct confine *to)
{
    int r = set_limits(to);
    if (r == 0)
        r = drop_user();
    /* After the user is another: that clears both. */
    if (r == 0 && (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0))
        r = -errno;
    return r < 0 ? r : filter_calls(to->calls);
}
