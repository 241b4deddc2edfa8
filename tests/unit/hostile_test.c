/* A guest that reads and writes random values at every device's ports and registers, taking interrupts in between: the machine
 * ends in one of its ways, or is stopped from outside; veneer itself stays well (run it under sanitizers). */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "machine/machine.h"

/* Flat Multiboot image; `seed`, `count`, `ports` are patched. Ports come from a table whose last entries can end the
 * machine. 256 interrupt gates lead to an IRET that
 * leaves interrupts off. */
__asm__(".pushsection .rodata\n"
        ".code32\n"
        ".set base, 0x100000\n"
        ".set idt, base + 0x6000\n"
        "hostile:\n"
        ".long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000), base, base, 0, 0, base + (1f - hostile)\n"
        "hostile_seed: .long 1\n"
        "hostile_count: .long 1\n"
        "hostile_ports: .long 1\n"
        "1: mov $(base + 0x5000), %esp\n"
        "mov $idt, %edi; xor %ecx, %ecx\n"
        "2: movl $(0x100000 + (9f - hostile)), (%edi)\n" /* offset's low word, selector */
        "movw $0x10, 2(%edi); movl $0x00108e00, 4(%edi)\n" /* and its high word: 0x10 */
        "add $8, %edi; inc %ecx; cmp $256, %ecx; jb 2b\n"
        "lidt base + (8f - hostile)\n"
        "mov base + (hostile_seed - hostile), %esi\n"
        "mov base + (hostile_count - hostile), %ebp\n"
        "3: test $0x3f, %ebp; jnz 31f\n"
        "sti; nop; cli\n" /* only now and then: a storm of its own making must not keep the guest from its work */
        "31: call 7f\n"
        "mov %eax, %ebx\n" /* what to do */
        "test $0x80, %bl; jnz 5f\n"
        /* A port: base from the table, offset by the descriptor's mask. */
        "call 7f; xor %edx, %edx; divl base + (hostile_ports - hostile); mov %edx, %ecx\n"
        "call 7f; and base + 2 + (hostile_table - hostile)(,%ecx,4), %ax; mov %ax, %dx\n"
        "add base + (hostile_table - hostile)(,%ecx,4), %dx\n"
        "call 7f\n"
        "test $0x40, %bl; jnz 4f\n"
        "test $0x20, %bl; jnz 41f; out %al, %dx; jmp 6f\n"
        "41: test $0x10, %bl; jnz 42f; out %ax, %dx; jmp 6f\n"
        "42: out %eax, %dx; jmp 6f\n"
        "4: test $0x20, %bl; jnz 41f; in %dx, %al; jmp 6f\n"
        "41: test $0x10, %bl; jnz 42f; in %dx, %ax; jmp 6f\n"
        "42: in %dx, %eax; jmp 6f\n"
        /* Memory: one of eight bases, a random offset. */
        "5: mov %ebx, %ecx; shr $8, %ecx; and $7, %ecx\n"
        "call 7f; and base + (hostile_offsets - hostile)(,%ecx,4), %eax\n"
        "mov %eax, %edi; add base + (hostile_bases - hostile)(,%ecx,4), %edi\n"
        "call 7f\n"
        "test $0x08, %bl; jz 51f; and $-4, %edi\n" /* often aligned */
        "51: test $0x40, %bl; jnz 54f\n"
        "test $0x20, %bl; jnz 52f; mov %al, (%edi); jmp 6f\n"
        "52: test $0x10, %bl; jnz 53f; mov %ax, (%edi); jmp 6f\n"
        "53: mov %eax, (%edi); jmp 6f\n"
        "54: test $0x20, %bl; jnz 55f; mov (%edi), %al; jmp 6f\n"
        "55: test $0x10, %bl; jnz 56f; mov (%edi), %ax; jmp 6f\n"
        "56: mov (%edi), %eax\n"
        "6: dec %ebp; jnz 3b\n"
        "mov $0x51, %al; out %al, $0xf4\n"
        "61: hlt; jmp 61b\n"
        "7: mov %esi, %eax; shl $13, %eax; xor %eax, %esi; mov %esi, %eax; shr $17, %eax; xor %eax, %esi\n"
        "mov %esi, %eax; shl $5, %eax; xor %eax, %esi; mov %esi, %eax; ret\n"
        "8: .word 0x7ff; .long idt\n"
        "9: andl $~0x200, 8(%esp); iret\n"
        ".balign 4\n"
        "hostile_bases: .long 0xfec00000, 0xfee00000, 0xe0000000, 0xe0000000, 0xc0000000, 0xfeb00000, 0xfffff000, 0xbffff000\n"
        "hostile_offsets: .long 0xfff, 0xfff, 0xfff, 0xfffff, 0xfffff, 0xfffff, 0xfff, 0xfff\n"
        /* Base and offset mask. */
        "hostile_table: .word 0x20,1, 0xa0,1, 0x40,3, 0x70,1, 0x80,0, 0xed,0, 0x3f8,7, 0x4d0,1, 0xcfc,3, 0x608,7\n"
        ".word 0xc000,0x3fff, 0x0,0xf, 0x1f0,7, 0x3c0,0x1f\n"
        ".word 0x600,7, 0xcf8,7, 0x60,7, 0x0,0xffff\n"
        "hostile_end:\n"
        ".code64\n"
        ".popsection\n");
extern const uint8_t hostile[], hostile_seed[], hostile_count[], hostile_ports[], hostile_end[];
#define PORTS_ALL 18u
#define PORTS_HARMLESS 14u /* however wide the access, it reaches nothing that ends the machine */

static char path[] = "/tmp/veneer-hostile-XXXXXX";

static void write_kernel(uint32_t seed, uint32_t count, uint32_t ports)
{
    size_t length = (size_t)(hostile_end - hostile);
    uint8_t *image = malloc(length);
    memcpy(image, hostile, length);
    memcpy(image + (hostile_seed - hostile), &seed, sizeof seed);
    memcpy(image + (hostile_count - hostile), &count, sizeof count);
    memcpy(image + (hostile_ports - hostile), &ports, sizeof ports);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(image, 1, length, file) == length);
    if (file)
        fclose(file);
    free(image);
}

/* Stops a machine whose guest does not end by itself: random INITs and masked interrupts can do that. */
struct watch {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    struct machine *machine;
};

static void *watch_thread(void *argument)
{
    struct watch *watch = argument;
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 2;
    pthread_mutex_lock(&watch->lock);
    while (!watch->done && pthread_cond_timedwait(&watch->changed, &watch->lock, &deadline) == 0)
        continue;
    if (!watch->done)
        machine_stop(watch->machine);
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

static enum machine_end run(uint32_t seed, uint32_t count, uint32_t ports, unsigned vcpus)
{
    struct watch watch = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, NULL};
    struct machine_config config = {.kernel = path, .vcpus = vcpus, .memory = 2 << 20, .engine = engine_find("interpret"),
                                    .debug_exit_port = 0xf4};
    struct machine_result result = {.end = MACHINE_END_FAILED};
    struct error error = {0};
    pthread_t thread;
    write_kernel(seed, count, ports);
    CHECK_EQ(machine_create(&config, &watch.machine, &error), 0);
    if (!watch.machine)
        return MACHINE_END_FAILED;
    CHECK_EQ(pthread_create(&thread, NULL, watch_thread, &watch), 0);
    machine_run(watch.machine, &result);
    pthread_mutex_lock(&watch.lock);
    watch.done = true;
    pthread_cond_signal(&watch.changed);
    pthread_mutex_unlock(&watch.lock);
    pthread_join(thread, NULL);
    machine_destroy(watch.machine);
    return result.end;
}

int main(int argc, char **argv)
{
    uint32_t seeds = argc > 1 ? (uint32_t)atoi(argv[1]) : 10, completed = 0;
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    for (uint32_t seed = 1; seed <= seeds; seed++) {
        bool harmless = seed % 2;
        enum machine_end end = run(seed * 2654435761u, 20000, harmless ? PORTS_HARMLESS : PORTS_ALL, seed % 3 ? 1 : 2);
        if (argc > 1)
            printf("seed %u: end %d\n", seed, (int)end);
        CHECK(end != MACHINE_END_FAILED && end != MACHINE_END_ENGINE);
        completed += end == MACHINE_END_DEBUG_EXIT;
    }
    CHECK(completed > 0);
    unlink(path);
    CHECK_DONE();
}
