/* other.c - see other.h. */
#include "other.h"

static void (*volatile work)(void *context);
static void *volatile work_context;
static volatile bool busy, there;

static void serve(unsigned index)
{
    (void)index;
    for (;;) {
        while (!__atomic_load_n(&busy, __ATOMIC_ACQUIRE))
            pause();
        work(work_context);
        __atomic_store_n(&busy, false, __ATOMIC_RELEASE);
    }
}

bool other_start(void)
{
    u32 out[4];
    cpuid(1, 0, out);
    if ((out[1] >> 16 & 0xff) < 2)
        return false;
    apic_enable();
    there = cpu_start(1, serve);
    check(there, "CPU 1", "does not start");
    return there;
}

bool other_there(void)
{
    return there;
}

void other_do(void (*what)(void *context), void *context)
{
    other_wait();
    work = what;
    work_context = context;
    __atomic_store_n(&busy, true, __ATOMIC_RELEASE);
}

void other_wait(void)
{
    while (__atomic_load_n(&busy, __ATOMIC_ACQUIRE))
        pause();
}
