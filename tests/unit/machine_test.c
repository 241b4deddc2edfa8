/* Whole machines under the engine named by the argument, with guests of a few instructions: each way to end is told apart, a guest that was
 * saved midway goes on elsewhere as if nothing had happened, and damaged saves are refused. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "machine/machine.h"

#define BASE 0x100000

/* A Multiboot image, flat: counts timer ticks of 10 ms and prints a letter for each; after 7 it waits for
 * console input, after 20 it leaves through
 * the debug-exit port with the sum of what it kept in memory (210) and in an SSE register (20). */
__asm__(".pushsection .rodata\n"
        ".code32\n"
        ".set base, 0x100000\n"
        ".set ticks, base + 0x7000\n"
        ".set sum, base + 0x7004\n"
        ".set idt, base + 0x6000\n"
        "ticker:\n"
        ".long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000), base, base, 0, 0, base + (1f - ticker)\n"
        "1: mov $(base + 0x5000), %esp\n"
        "mov $(base + (9f - ticker)), %eax\n"
        "mov %ax, idt + 0x100\n"
        "movw $0x10, idt + 0x102\n"
        "movw $0x8e00, idt + 0x104\n"
        "shr $16, %eax\n"
        "mov %ax, idt + 0x106\n"
        "lidt base + (8f - ticker)\n"
        "mov $0x11, %al; out %al, $0x20; out %al, $0xa0\n"
        "mov $0x20, %al; out %al, $0x21; mov $0x28, %al; out %al, $0xa1\n"
        "mov $0x04, %al; out %al, $0x21; mov $0x02, %al; out %al, $0xa1\n"
        "mov $0x01, %al; out %al, $0x21; out %al, $0xa1\n"
        "mov $0xfe, %al; out %al, $0x21; mov $0xff, %al; out %al, $0xa1\n"
        "mov $0x34, %al; out %al, $0x43; mov $0x9c, %al; out %al, $0x40; mov $0x2e, %al; out %al, $0x40\n"
        "mov %cr4, %eax; or $0x200, %eax; mov %eax, %cr4\n"
        "xor %ebx, %ebx; mov $1, %eax; movd %eax, %xmm1; pxor %xmm0, %xmm0\n"
        "sti\n"
        "2: hlt\n"
        "cmp %ebx, ticks; je 2b\n"
        "inc %ebx; paddd %xmm1, %xmm0; add %ebx, sum\n"
        "lea 0x60(%ebx), %eax; mov $0x3f8, %dx; out %al, %dx\n"
        "cmp $7, %ebx; jne 4f\n" /* waits for a byte */
        "5: mov $0x3fd, %dx; in %dx, %al; test $1, %al; jz 5b; mov $0x3f8, %dx; in %dx, %al\n"
        "4: cmp $20, %ebx; jb 2b\n"
        "movd %xmm0, %eax; add sum, %eax; out %eax, $0xf4\n"
        "3: hlt; jmp 3b\n"
        "8: .word 0x107; .long idt\n"
        "9: push %eax; incl ticks; mov $0x20, %al; out %al, $0x20; pop %eax; iret\n"
        "ticker_end:\n"
        ".code64\n"
        ".popsection\n");
extern const uint8_t ticker[], ticker_end[];

static const struct engine_ops *engine;
static char path[] = "/tmp/veneer-machine-XXXXXX";

static void write_kernel(const void *bytes, size_t length)
{
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(bytes, 1, length, file) == length);
    if (file)
        fclose(file);
}

/* A kernel of these instructions. */
static void write_code(const void *code, size_t length)
{
    uint8_t image[256] = {0};
    uint32_t header[8] = {0x1badb002, 0x10000, -(0x1badb002u + 0x10000u), BASE, BASE, 0, 0, BASE + sizeof header};
    memcpy(image, header, sizeof header);
    memcpy(image + sizeof header, code, length);
    write_kernel(image, sizeof header + length);
}

struct console {
    struct machine *machine;
    char text[64], stop_at;
    size_t used;
};

static void console_write(void *owner, const void *bytes, size_t length)
{
    struct console *console = owner;
    for (size_t i = 0; i < length && console->used < sizeof console->text - 1; i++) {
        char c = ((const char *)bytes)[i];
        console->text[console->used++] = c;
        if (c == console->stop_at)
            machine_stop(console->machine);
    }
}

static struct machine_config config_for(struct console *console)
{
    return (struct machine_config){.kernel = path, .vcpus = 1, .memory = 2 << 20, .engine = engine,
                                   .debug_exit_port = 0xf4, .console_write = console_write, .console_owner = console};
}

static struct machine *create(struct console *console)
{
    struct machine_config config = config_for(console);
    struct error error = {0};
    struct machine *machine = NULL;
    CHECK_EQ(machine_create(&config, &machine, &error), 0);
    CHECK_STR(error.text, "");
    if (!machine)
        exit(1);
    console->machine = machine;
    return machine;
}

static struct machine_result run_code(const void *code, size_t length)
{
    struct console console = {0};
    struct machine_result result;
    write_code(code, length);
    struct machine *machine = create(&console);
    machine_run(machine, &result);
    machine_destroy(machine);
    return result;
}

#define OUT_AL(port) "\x66\xba" port "\xee" /* mov dx, port; out dx, al */
#define OUT_AX(port) "\x66\xba" port "\x66\xef"
#define HANG "\xf4\xeb\xfd"

static void check_ends(void)
{
    static const struct {
        const char *code;
        size_t length;
        enum machine_end end;
        int status;
        const char *text;
    } ends[] = {
#define END(code, end, status, text) {code, sizeof code - 1, end, status, text}
        END("\x66\xb8\x00\x34" OUT_AX("\x04\x06") HANG, MACHINE_END_POWER_OFF, 0, "powered off"),
        END("\xb0\x06" OUT_AL("\xf9\x0c") HANG, MACHINE_END_RESET, 3, "reset"),
        END("\xb0\xfe\xe6\x64" HANG, MACHINE_END_RESET, 3, "reset"),
        END("\x0f\x0b", MACHINE_END_TRIPLE_FAULT, 4, "triple-faulted"),
        END("\xb8\xef\xbe\xad\xde\xff\xe0", MACHINE_END_TRIPLE_FAULT, 4, "triple-faulted"), /* jmp 0xdeadbeef */
        END("\xb0\x01" OUT_AL("\x05\x05") HANG, MACHINE_END_PANIC, 5, "panicked"),
        END("\xb0\x4d\xe6\xf4" HANG, MACHINE_END_DEBUG_EXIT, 77, "77"),
        END("\xb8\x00\x01\x00\x00\xe7\xf4" HANG, MACHINE_END_DEBUG_EXIT, 255, "256"),
    };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct machine_result result = run_code(ends[i].code, ends[i].length);
        CHECK_EQ(result.end, ends[i].end);
        CHECK_EQ(result.status, ends[i].status);
        CHECK(strstr(result.text, ends[i].text) != NULL);
    }
}

/* A TSC deadline that is years away is met at once when the guest sets its TSC past it. */
static void check_tsc_moved(void)
{
    static const uint8_t code[] = {
        0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00,          /* local APIC on */
        0xc7, 0x05, 0x20, 0x03, 0xe0, 0xfe, 0x21, 0x00, 0x04, 0x00,          /* timer: TSC deadline, vector 21h */
        0xb9, 0xe0, 0x06, 0x00, 0x00, 0x31, 0xc0, 0xba, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x30, /* deadline 1000h << 32 */
        0x8b, 0x1d, 0x10, 0x02, 0xe0, 0xfe,                                  /* ebx = requests 20h-3Fh */
        0xb9, 0x10, 0x00, 0x00, 0x00, 0xba, 0x00, 0x20, 0x00, 0x00, 0x0f, 0x30, /* TSC = 2000h << 32 */
        0xa1, 0x10, 0x02, 0xe0, 0xfe,                                        /* eax = requests 20h-3Fh */
        0xc1, 0xe3, 0x04, 0x09, 0xd8, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd,          /* exit with ebx << 4 | eax */
    };
    if (engine->irqchip)
        return; /* the deadline is the kernel's affair */
    CHECK_EQ(run_code(code, sizeof code).status, 2);
}

/* Runs the ticker to its letter `stop_at` and saves it. The caller frees the stream. */
static struct stream *save_midway(char stop_at)
{
    struct console console = {.stop_at = stop_at};
    struct machine_result result;
    struct error error = {0};
    struct machine *machine = create(&console);
    machine_run(machine, &result);
    CHECK_EQ(result.end, MACHINE_END_STOPPED);
    CHECK_STR(console.text, "abcdefg");
    struct stream *stream = stream_new();
    CHECK_EQ(machine_save(machine, stream, &error), 0);
    CHECK_STR(error.text, "");
    machine_destroy(machine);
    return stream;
}

static void check_save(void)
{
    write_kernel(ticker, (size_t)(ticker_end - ticker));
    struct stream *saved = save_midway('g');
    size_t length;
    const void *bytes = stream_bytes(saved, &length);

    static const uint8_t other[] = {0x0f, 0x0b};
    write_code(other, sizeof other); /* what the load must replace */
    for (int again = 0; again < 2; again++) {
        struct console console = {0};
        struct machine_result result;
        struct error error = {0};
        struct machine *machine = create(&console);
        struct stream *stream = stream_open(bytes, length);
        CHECK_EQ(machine_load(machine, stream, &error), 0);
        CHECK_STR(error.text, "");
        stream_free(stream);
        CHECK_EQ(machine_console_input(machine, "!", 1), 1);
        machine_run(machine, &result);
        CHECK_EQ(result.end, MACHINE_END_DEBUG_EXIT);
        CHECK_EQ(result.status, 230);
        CHECK_STR(console.text, "hijklmnopqrst");
        machine_destroy(machine);
    }

    /* Cut short anywhere, it is refused; changed anywhere before RAM, it is refused or runs. */
    for (size_t cut = 0; cut < length; cut += length / 41 + 1) {
        struct console console = {0};
        struct error error = {0};
        struct machine *machine = create(&console);
        struct stream *stream = stream_open(bytes, cut);
        CHECK(machine_load(machine, stream, &error) < 0 && error.text[0]);
        stream_free(stream);
        machine_destroy(machine);
    }
    uint8_t *damaged = malloc(length);
    for (size_t at = 0; at < 6000 && at < length; at += 37) {
        struct console console = {0};
        struct error error = {0};
        struct machine *machine = create(&console);
        memcpy(damaged, bytes, length);
        damaged[at] ^= 0xff;
        struct stream *stream = stream_open(damaged, length);
        int status = machine_load(machine, stream, &error);
        CHECK(status == 0 || error.text[0]);
        stream_free(stream);
        machine_destroy(machine);
    }
    free(damaged);
    stream_free(saved);
}

static void check_refused(struct machine_config config, const char *word)
{
    struct error error = {0};
    struct machine *machine = NULL;
    CHECK(machine_create(&config, &machine, &error) < 0);
    CHECK(strstr(error.text, word) != NULL);
    machine_destroy(machine);
}

static void check_configs(void)
{
    static const uint8_t code[] = {0xf4};
    struct console console = {0};
    struct machine_config good = config_for(&console), config = good;
    write_code(code, sizeof code);
    config.vcpus = 17;
    check_refused(config, "17 vCPUs");
    config = good;
    config.memory = 4096;
    check_refused(config, "memory");
    config = good;
    config.memory = UINT64_C(1) << 39; /* more than any host of these tests has */
    check_refused(config, "memory");
    config.memory = UINT64_C(1) << 60;
    check_refused(config, "at most");
    config = good;
    config.memory = MACHINE_MEMORY_MIN; /* the kernel is at 1 MiB */
    check_refused(config, path);
    config = good;
    config.debug_exit_port = 0x3f8;
    check_refused(config, "debug-exit port");
    config = good;
    config.kernel = "/nonexistent";
    check_refused(config, "/nonexistent");
}

int main(int argc, char **argv)
{
    struct error error;
    engine = argc > 1 ? engine_find(argv[1]) : NULL;
    if (!engine || engine->probe(&error) < 0) {
        fprintf(stderr, "not run: %s\n", engine ? error.text : "give the name of an engine");
        return engine ? 77 : 1; /* 77: Meson counts it as skipped */
    }
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    check_ends();
    check_tsc_moved();
    check_save();
    check_configs();
    unlink(path);
    CHECK_DONE();
}
