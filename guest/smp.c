/* smp.c - several CPUs (two at least): start-up, IPIs, LOCK between CPUs on aligned, page-crossing and
 * 16-byte operands, TSCs in step, store ordering, INIT and a second start. */
#include "kernel.h"

#define VECTOR 0x50
#define ROUNDS 20000u

static volatile u32 arrived, ipis;
static volatile u64 shared[4] __attribute__((aligned(64)));
static volatile u64 pair[2] __attribute__((aligned(16)));
static volatile u64 *crossing; /* 8 bytes across a page boundary */
static volatile u64 tsc_value, tsc_errors;
static u32 cpus;

static void locked_add(volatile u64 *at)
{
    __asm__ volatile("lock incq %0" : "+m"(*at) : : "memory", "cc");
}

/* Each CPU adds by a compare-and-exchange loop. */
static void compare_add(volatile u64 *at)
{
    u64 old = *at;
    while (!__atomic_compare_exchange_n(at, &old, old + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

static void pair_add(void)
{
    u64 low = pair[0], high = pair[1];
    u8 done;
    do
        __asm__ volatile("lock cmpxchg16b %1; setz %0"
                         : "=q"(done), "+m"(*(volatile __int128 *)pair), "+a"(low), "+d"(high)
                         : "b"(low + 1), "c"(high + 3)
                         : "memory", "cc");
    while (!done);
}

/* Passes the highest TSC seen around: none may see one from the future. */
static void tsc_turn(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        u64 old = tsc_value;
        __asm__ volatile("lfence" : : : "memory"); /* else RDTSC may be executed before the load */
        u64 now = rdtsc();
        if (now < old)
            __atomic_fetch_add(&tsc_errors, 1, __ATOMIC_SEQ_CST);
        while (old < now && !__atomic_compare_exchange_n(&tsc_value, &old, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            ;
    }
}

static void work(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        locked_add(&shared[0]);
        compare_add(&shared[1]);
    }
    for (unsigned i = 0; i < ROUNDS / 20; i++) {
        locked_add(crossing);
        pair_add();
    }
    tsc_turn();
}

static void barrier(u32 target)
{
    __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < target)
        pause();
}

/* Each pair of slots starts at 0. CPU 0 stores to one and loads the other, CPU 1 the reverse, each with a
 * full barrier between: not both may load 0. */
#define SLOTS 4096u
static volatile u32 slot_x[SLOTS], slot_y[SLOTS], saw_x[SLOTS], saw_y[SLOTS], ready[2];

static void store_then_load(unsigned me)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        __atomic_store_n(&ready[me], i + 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&ready[!me], __ATOMIC_SEQ_CST) < i + 1)
            pause();
        if (me == 0) {
            slot_x[i] = 1;
            __asm__ volatile("mfence" : : : "memory");
            saw_y[i] = slot_y[i];
        } else {
            slot_y[i] = 1;
            __asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
            saw_x[i] = slot_x[i];
        }
    }
}

static unsigned both_missed(void)
{
    unsigned missed = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        missed += !saw_x[i] && !saw_y[i];
    return missed;
}

static void on_ipi(struct frame *frame)
{
    (void)frame;
    __atomic_fetch_add(&ipis, 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

static volatile u32 started;

static void other(unsigned index)
{
    __atomic_fetch_add(&started, 1, __ATOMIC_SEQ_CST);
    barrier(cpus);
    work();
    if (index == 1)
        store_then_load(1);
    barrier(2 * cpus);
    for (;;)
        sti_hlt_cli();
}

static void wait_ipis(u32 target)
{
    for (u64 begin = rdtsc(); ipis < target && rdtsc() - begin < 20000000000ull;)
        pause();
}

static void check_ipis(void)
{
    trap_set_handler(VECTOR, on_ipi);
    apic_ipi(1, VECTOR);
    wait_ipis(1);
    check_equal("IPI to one CPU", ipis, 1);
    ipis = 0;
    apic_ipi(0, 0xc0000 | VECTOR); /* all but self */
    wait_ipis(cpus - 1);
    check_equal("IPI to all others", ipis, cpus - 1);
    ipis = 0;
    sti();
    apic_ipi(0, 0x80000 | VECTOR); /* all */
    wait_ipis(cpus);
    cli();
    check_equal("IPI to all", ipis, cpus);
    ipis = 0;
    for (unsigned i = 1; i <= 500; i++) {
        apic_ipi(1, VECTOR);
        wait_ipis(i);
    }
    check_equal("500 IPIs, one after another", ipis, 500);
}

static volatile u32 again;

static void second_life(unsigned index)
{
    again = index;
}

static u32 count_cpus(void)
{
    u32 out[4];
    cpuid(1, 0, out);
    u32 count = out[1] >> 16 & 0xff;
    return count < 2 ? 1 : count > CPUS - 2 ? CPUS - 2 : count;
}

void kernel_main(void)
{
    u8 *pages = pages_new(2);
    crossing = (volatile u64 *)(pages + 4096 - 3);
    apic_enable();
    const u32 most = count_cpus();
    cpus = most;
    for (u32 id = 1; id < most; id++)
        check(cpu_start(id, other), "CPU starts", "APIC ID %u does not answer", id);
    check(most >= 2, "at least two CPUs", "only %u", most);
    check_equal("CPUs that run", started, cpus - 1);
    barrier(cpus);
    work();
    store_then_load(0);
    barrier(2 * cpus);
    check_equal("stores that a full barrier did not order", both_missed(), 0);
    check_equal("LOCK INC", shared[0], (u64)cpus * ROUNDS);
    check_equal("LOCK CMPXCHG", shared[1], (u64)cpus * ROUNDS);
    u64 got;
    memcpy(&got, (const void *)(u64)crossing, 8);
    check_equal("LOCK INC across a page boundary", got, (u64)cpus * (ROUNDS / 20));
    check_equal("LOCK CMPXCHG16B, low", pair[0], (u64)cpus * (ROUNDS / 20));
    check_equal("LOCK CMPXCHG16B, high", pair[1], (u64)cpus * (ROUNDS / 20) * 3);
    check_equal("TSCs that went back", tsc_errors, 0);
    check_ipis();
    check(cpu_start(1, second_life), "INIT and a second start", "CPU 1 does not answer");
    for (u64 begin = rdtsc(); !again && rdtsc() - begin < 20000000000ull;)
        pause();
    check_equal("it runs something else now", again, cpus);
}
