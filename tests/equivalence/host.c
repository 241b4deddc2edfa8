/* host.c - runs a case on the host processor itself.
 *
 * How: the driver executes INT3 (host_enter). The signal handler keeps the driver's registers, writes the
 * case's whole state into the signal frame (general registers, flags, CS and SS, and the XSAVE image
 * that Linux puts there) and returns, so that the kernel's sigreturn loads everything at once. The code ends in an
 * exception, whose signal frame holds the complete result, trap number, error code and CR2; the handler copies them,
 * puts the driver's registers back, and returns into host_enter. Two signals a case, about 5 us, and no
 * assembly that the tested instruction could disturb.
 *
 * FS and GS bases and data selectors are not part of the frame: the handler loads and saves them itself. It therefore runs at
 * first without thread-local storage, so it is built without stack protector and sanitizers. */
#include "case.h"

#include <errno.h>
#include <immintrin.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define BARE __attribute__((no_sanitize("address", "undefined", "thread"), no_stack_protector, noinline))

/* Where things are in the XSAVE image of a signal frame: standard format (SDM 1, 13.4). */
#define XSAVE_HEADER 512
#define XSAVE_YMM_HIGH 576

struct executor {
    uint8_t *image;
};

static struct executor *the_host;

/* The handler's world: one thread, one case at a time. */
 
static enum { DRIVER, ENTERING, GUEST } phase;
static const struct eq_case *current;
static struct eq_result *result;
static greg_t driver_gregs[NGREG];
static uint64_t driver_fs_base, driver_gs_base; /* GS: an engine may keep something there */
static struct sigaction previous[NSIG];
static volatile bool alarmed; /* an alarm has found this case running */
static uint64_t fs_base_of_case; /* what the case left in FS base; read before anything else */

/* enum x86_reg order to the order of gregs. */
static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static BARE void copy(volatile uint8_t *to, const volatile uint8_t *from, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        to[i] = from[i];
}

static BARE void zero(volatile uint8_t *to, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        to[i] = 0;
}

static BARE uint16_t read_selector(enum x86_seg seg)
{
    uint16_t value = 0;

    switch (seg) {
    case X86_ES: __asm__ volatile("mov %%es, %0" : "=r"(value)); break;
    case X86_DS: __asm__ volatile("mov %%ds, %0" : "=r"(value)); break;
    case X86_FS: __asm__ volatile("mov %%fs, %0" : "=r"(value)); break;
    case X86_GS: __asm__ volatile("mov %%gs, %0" : "=r"(value)); break;
    case X86_CS:
    case X86_SS:
    case X86_SEGS: break;
    }
    return value;
}

/* Loads data selectors and bases, for the case or back for the driver. */
static BARE void load_selectors(const uint16_t seg[X86_SEGS], uint64_t fs_base, uint64_t gs_base)
{
    __asm__ volatile("mov %0, %%es" : : "r"(seg[X86_ES]));
    __asm__ volatile("mov %0, %%ds" : : "r"(seg[X86_DS]));
    __asm__ volatile("mov %0, %%fs" : : "r"(seg[X86_FS]));
    __asm__ volatile("mov %0, %%gs" : : "r"(seg[X86_GS]));
    __asm__ volatile("wrfsbase %0" : : "r"(fs_base));
    __asm__ volatile("wrgsbase %0" : : "r"(gs_base));
}

static BARE void put_fpu(uint8_t *xsave, const struct eq_state *s)
{
    uint64_t in_use = 7; /* x87, SSE, AVX; the rest takes its initial state */

    copy(xsave, s->fx, 160);
    copy(xsave + XSAVE_HEADER, (const uint8_t *)&in_use, 8);
    for (unsigned i = 0; i < 16; i++) {
        copy(xsave + 160 + 16 * i, s->ymm[i], 16);
        copy(xsave + XSAVE_YMM_HIGH + 16 * i, s->ymm[i] + 16, 16);
    }
}

static BARE void get_fpu(const uint8_t *xsave, struct eq_state *s)
{
    unsigned in_use = xsave[XSAVE_HEADER];

    copy(s->fx, xsave, 160);
    if (!(in_use & 1)) { /* x87 in its initial state: the image may hold anything (SDM 1, 13.6) */
        zero(s->fx, 24);
        zero(s->fx + 32, 128);
        s->fx[0] = 0x7f;
        s->fx[1] = 0x03;
    }
    for (unsigned i = 0; i < 16; i++) {
        if (in_use & 2)
            copy(s->ymm[i], xsave + 160 + 16 * i, 16);
        else
            zero(s->ymm[i], 16);
        if (in_use & 4)
            copy(s->ymm[i] + 16, xsave + XSAVE_YMM_HIGH + 16 * i, 16);
        else
            zero(s->ymm[i] + 16, 16);
    }
}

/* The first signal: remember the driver, become the case. */
static BARE void enter_case(ucontext_t *uc)
{
    greg_t *g = uc->uc_mcontext.gregs;
    const struct eq_state *s = &current->state;

    for (unsigned i = 0; i < NGREG; i++)
        driver_gregs[i] = g[i];
    for (unsigned i = 0; i < 16; i++)
        g[greg_of[i]] = (greg_t)s->gpr[i];
    g[REG_RIP] = (greg_t)s->rip;
    g[REG_EFL] = (greg_t)s->rflags;
    g[REG_CSGSFS] = (greg_t)((uint64_t)s->seg[X86_CS] | (uint64_t)s->seg[X86_SS] << 48);
    put_fpu((uint8_t *)uc->uc_mcontext.fpregs, s);
    phase = GUEST;
    load_selectors(s->seg, s->fs_base, s->gs_base);
}

/* The second: keep what the case became, become the driver again. */
static BARE void leave_case(ucontext_t *uc)
{
    static const uint16_t user[X86_SEGS] = {[X86_ES] = EQ_DS, [X86_DS] = EQ_DS};
    greg_t *g = uc->uc_mcontext.gregs;
    uint8_t *xsave = (uint8_t *)uc->uc_mcontext.fpregs;
    struct eq_state *s = &result->state;
    const uint16_t mxcsr = 0x1f80;

    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = (uint64_t)g[greg_of[i]];
    s->rip = (uint64_t)g[REG_RIP];
    s->rflags = (uint64_t)g[REG_EFL];
    s->seg[X86_ES] = read_selector(X86_ES);
    s->seg[X86_DS] = read_selector(X86_DS);
    s->seg[X86_GS] = read_selector(X86_GS);
    s->seg[X86_CS] = (uint16_t)g[REG_CSGSFS];
    s->seg[X86_SS] = (uint16_t)((uint64_t)g[REG_CSGSFS] >> 48);
    s->fs_base = fs_base_of_case;
    __asm__ volatile("rdgsbase %0" : "=r"(s->gs_base));
    get_fpu(xsave, s);
    result->vector = (uint8_t)g[REG_TRAPNO];
    result->error_code = (uint32_t)g[REG_ERR];
    result->cr2 = g[REG_TRAPNO] == 14 ? (uint64_t)g[REG_CR2] : 0;

    for (unsigned i = 0; i < NGREG; i++)
        g[i] = driver_gregs[i];
    zero(xsave + XSAVE_HEADER, 8); /* all components initial, but for MXCSR */
    copy(xsave + 24, (const uint8_t *)&mxcsr, 2);
    phase = DRIVER;
    load_selectors(user, driver_fs_base, driver_gs_base);
}

static BARE void on_signal(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    /* AC would make the handler's own unaligned accesses fault; the kernel leaves it as the case had it. */
    __asm__ volatile("pushfq; andl $0xfffbffff, (%%rsp); popfq" : : : "memory", "cc");
    if (phase == ENTERING && number == SIGTRAP) {
        enter_case(uc);
    } else if (phase == GUEST) {
        if (number == SIGALRM && !alarmed) { /* the next one, if it finds the same case, means it hangs */
            alarmed = true;
            return;
        }
        __asm__ volatile("rdfsbase %0" : "=r"(fs_base_of_case));
        result->state.seg[X86_FS] = read_selector(X86_FS);
        __asm__ volatile("mov %0, %%fs; wrfsbase %1" : : "r"(0), "r"(driver_fs_base));
        result->stuck = number == SIGALRM;
        leave_case(uc);
    } else if (number != SIGALRM) {
        /* Not of a case: an engine's, which catches faults as well, or the driver's own, to be seen. */
        if (previous[number].sa_flags & SA_SIGINFO)
            previous[number].sa_sigaction(number, info, context);
        else
            signal(number, SIG_DFL);
    }
}

static int map_windows(int fd)
{
    for (unsigned i = 0; i < EQ_WINDOWS; i++) {
        const struct eq_window *w = &eq_windows[i];
        int prot = PROT_READ | (w->prot & EQ_W ? PROT_WRITE : 0) | (w->prot & EQ_X ? PROT_EXEC : 0);
        void *want = (void *)(uintptr_t)w->linear; /* NOLINT: the address is the point */
        void *at = mmap(want, EQ_PAGE, prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, w->page * EQ_PAGE);

        if (at != want) {
            fprintf(stderr, "equivalence: mapping the window at %#llx: %s\n", (unsigned long long)w->linear,
                    strerror(errno));
            return -errno;
        }
    }
    return 0;
}

static int catch_signals(void)
{
    static uint8_t stack[65536] __attribute__((aligned(64)));
    static const int caught[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGALRM};
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    if (sigaltstack(&alternate, NULL) != 0)
        return -errno;
    for (unsigned i = 0; i < sizeof caught / sizeof *caught; i++)
        if (sigaction(caught[i], &action, &previous[caught[i]]) != 0)
            return -errno;
    return 0;
}

/* The handler uses the FS and GS base instructions (HWCAP2_FSGSBASE of Linux's x86) and the frame's AVX state. */
bool host_able(void) { return (getauxval(AT_HWCAP2) & 2) != 0 && __builtin_cpu_supports("avx"); }

static int host_open(struct executor **ret_executor)
{
    struct executor *executor;
    int fd, error;

    if (!host_able())
        return -ENOTSUP;
    executor = calloc(1, sizeof *executor);
    fd = memfd_create("equivalence", MFD_CLOEXEC);
    error = fd < 0 || ftruncate(fd, EQ_IMAGE_SIZE) != 0 ? -errno : map_windows(fd);

    if (error == 0 && executor != NULL) {
        void *image = mmap(NULL, EQ_IMAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        executor->image = image;
        error = image == MAP_FAILED ? -errno : catch_signals();
    }
    if (fd >= 0)
        close(fd);
    if (executor == NULL || error != 0) {
        free(executor);
        return executor == NULL ? -ENOMEM : error;
    }
    *ret_executor = the_host = executor;
    return 0;
}

static uint8_t *host_image(struct executor *executor) { return executor->image; }

static BARE void host_enter(void)
{
    /* The kernel's sigreturn takes most flags from the frame, but these from here. */
    uint64_t flags = X86_FLAG_FIXED | X86_FLAG_IF | (current->state.rflags & (X86_FLAG_NT | X86_FLAG_ID));

    __asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(driver_fs_base), "=r"(driver_gs_base));
    phase = ENTERING;
    __asm__ volatile("lea -128(%%rsp), %%rsp; push %0; popfq; int3; lea 128(%%rsp), %%rsp"
                     :
                     : "r"(flags)
                     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

/* A case that loops is ended by the timer: every few seconds an alarm that nobody minds elsewhere. */
static void host_run(struct executor *executor, const struct eq_case *c, struct eq_result *ret_result)
{
    static unsigned runs;
    long offset = eq_image_offset(c->address);
    unsigned fits = eq_code_fits(c);

    if (runs++ % 1024 == 0) {
        const struct itimerval patience = {.it_interval = {.tv_sec = 10}, .it_value = {.tv_sec = 10}};

        setitimer(ITIMER_REAL, &patience, NULL);
    }
    memcpy(executor->image + offset, c->code, fits);
    memset(ret_result, 0, sizeof *ret_result);
    alarmed = false;
    current = c;
    result = ret_result;
    host_enter();
    memset(executor->image + offset, 0xcc, fits);
}

static void host_close(struct executor *executor)
{
    munmap(executor->image, EQ_IMAGE_SIZE);
    free(executor);
}

/* The host a second time, on an image of its own that is swapped in: what differs then is not a function of
 * the case. */
static int again_open(struct executor **ret_executor)
{
    struct executor *executor = calloc(1, sizeof *executor);

    if (executor == NULL || (executor->image = malloc(EQ_IMAGE_SIZE)) == NULL) {
        free(executor);
        return -ENOMEM;
    }
    *ret_executor = executor;
    return 0;
}

static void again_run(struct executor *executor, const struct eq_case *c, struct eq_result *ret_result)
{
    static uint8_t aside[EQ_IMAGE_SIZE];

    memcpy(aside, the_host->image, EQ_IMAGE_SIZE);
    memcpy(the_host->image, executor->image, EQ_IMAGE_SIZE);
    host_run(the_host, c, ret_result);
    memcpy(executor->image, the_host->image, EQ_IMAGE_SIZE);
    memcpy(the_host->image, aside, EQ_IMAGE_SIZE);
}

static void again_close(struct executor *executor)
{
    free(executor->image);
    free(executor);
}

const struct executor_ops again_executor = {"host again", again_open, host_image, again_run, again_close, .translates = false};
const struct executor_ops host_executor = {"host", host_open, host_image, host_run, host_close, .translates = false};
