/* fault.c - host signals raised by guest instructions that run as they are.
 *
 * The faulting host instruction is a copy of a guest instruction that has changed nothing yet, so all
 * guest registers are in their places: the signal's context is made to continue at the `leave` thunk, as if
 * the trace had asked to interpret that instruction. Signals from anywhere else go to the handlers that
 * were there before. Translated code uses the host's RSP for the guest's, hence the alternate stack. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "engine/translate/vcpu.h"

#define STACK_SIZE 65536u

static _Thread_local struct translate_vcpu *running;
static const int caught[] = {SIGFPE, SIGSEGV, SIGBUS};
static struct sigaction previous[64];

/* By binary search. */
struct trace *trace_at(const struct translate_vcpu *t, uint32_t offset, unsigned *ret_insn)
{
    size_t low = 0, high = t->traces;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (t->by_address[middle]->end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == t->traces)
        return NULL;
    struct trace *trace = t->by_address[low];
    for (unsigned i = 0; i < trace->count; i++) {
        const struct trace_insn *insn = &trace->insn[i];
        uint32_t at = offset - trace->indirect_entry;
        if ((at >= insn[0].start && at < insn[1].start) || (at >= insn[0].second && at < insn[1].second)) {
            *ret_insn = i;
            return trace;
        }
    }
    return NULL;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    struct translate_vcpu *t = running;
    ucontext_t *uc = context;
    unsigned insn;
    uint64_t offset = t ? (uint64_t)uc->uc_mcontext.gregs[REG_RIP] - (uint64_t)(uintptr_t)t->code.exec : UINT64_MAX;
    struct trace *trace = t && offset < t->code.used ? trace_at(t, (uint32_t)offset, &insn) : NULL;
    if (!trace) {
        const struct sigaction *before = &previous[number];
        if (before->sa_flags & SA_SIGINFO) {
            before->sa_sigaction(number, info, context);
        } else if (before->sa_handler == SIG_DFL || before->sa_handler == SIG_IGN) {
            signal(number, SIG_DFL);
            raise(number);
        } else {
            before->sa_handler(number);
        }
        return;
    }
    uint32_t leave = insn >= trace->saved_from ? t->thunks.leave_saved : t->thunks.leave;
    t->fault = (struct site){.trace = trace, .insn = (uint16_t)insn, .kind = SITE_INTERPRET,
                             .at_fault = X86_FLAGS_ARITH};
    uc->uc_mcontext.gregs[REG_R11] = (greg_t)(uintptr_t)&t->fault;
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)(t->code.exec + leave);
}

int fault_install(struct error *error)
{
    static bool installed;
    if (installed)
        return 0;
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++)
        if (sigaction(caught[i], &action, &previous[caught[i]]) < 0)
            return error_set(error, errno, "catching signal %d failed", caught[i]);
    installed = true;
    return 0;
}

void fault_thread_begin(struct translate_vcpu *t)
{
    stack_t stack = {.ss_sp = t->signal_stack, .ss_size = STACK_SIZE};
    if (!t->signal_stack) {
        void *memory = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            abort(); /* 64 KiB: nothing can be done on a host without them */
        stack.ss_sp = t->signal_stack = memory;
    }
    if (running == t)
        return;
    sigaltstack(&stack, NULL);
    __asm__ volatile("wrgsbase %0" : : "r"(t));
    running = t;
}

void fault_thread_end(struct translate_vcpu *t)
{
    if (t->signal_stack)
        munmap(t->signal_stack, STACK_SIZE);
    t->signal_stack = NULL;
}
