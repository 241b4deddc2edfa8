/* engine_test.c - an engine against a small kernel (guest/engine.S), without a machine: ports, MMIO, halt and
 * interrupts, kick, a triple fault, and the whole state moved to a new VM in between, of the same engine
 * or of another.
 *
 * engine_test IMAGE ENGINE [ENGINE]: with two, the state moves to the other at each save. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "../check.h"
#include "../support/plain_machine.h"
#include "base/stream.h"
#include "engine/engine.h"

#define SKIPPED 77 /* what meson takes for it */
#define RAM_SIZE (UINT64_C(16) << 20)
#define ENTRY 0x10000u
#define TABLES 0x1000u
#define STACK 0x80000u
#define VECTOR 0x40
#define SAID_MAX 64u

struct board {
    struct ram ram;
    struct x86_cpuid cpuid;
    const struct engine_ops *engine;
    struct engine_vm *vm;
    struct engine_vcpu *vcpu;
    uint32_t said[SAID_MAX];
    unsigned count;
    char text[16];
    unsigned text_length;
    uint64_t reg[8];  /* of the MMIO device, one each 16 bytes */
    unsigned size[8]; /* of the last write to it */
    bool pending;     /* an interrupt, for an engine without chips of its own */
    bool want_move, want_kick;
};

/* ---- the machine ---- */

static void send_interrupt(struct board *board)
{
    if (board->engine->irqchip) {
        CHECK_EQ(board->engine->msi(board->vm, 0xfee00000, VECTOR), 0);
    } else {
        board->pending = true;
        board->engine->interrupt(board->vcpu);
    }
}

static void said(struct board *board, uint32_t value)
{
    if (board->count < SAID_MAX)
        board->said[board->count++] = value;
    if (value == 0x100)
        send_interrupt(board);
    board->want_move = value >= 0x200 && value <= 0x202;
    board->want_kick = value == 0x400;
    if (board->want_move || board->want_kick)
        board->engine->kick(board->vcpu);
}

static void port_out(void *machine, unsigned vcpu, uint16_t port, unsigned size, uint32_t value)
{
    struct board *board = machine;
    CHECK_EQ(vcpu, 0);
    if (port == 0x518) {
        CHECK_EQ(size, 1);
        if (board->text_length < sizeof board->text - 1)
            board->text[board->text_length++] = (char)value;
        return;
    }
    CHECK_EQ(port, 0x500);
    CHECK_EQ(size, 4);
    said(board, value);
}

static uint32_t port_in(void *machine, unsigned vcpu, uint16_t port, unsigned size)
{
    (void)machine, (void)vcpu;
    CHECK_EQ(port, 0x510);
    return size == 1 ? 0x5a : size == 2 ? 0xa5a5 : 0xdeadbeef;
}

#define MMIO_BASE 0xd0000000u

static bool is_apic(uint64_t gpa)
{
    return gpa >> 12 == 0xfee00; /* the kernel switches it on and ends interrupts, whoever models it */
}

static void mmio_write(void *machine, unsigned vcpu, uint64_t gpa, unsigned size, uint64_t value)
{
    struct board *board = machine;
    (void)vcpu;
    if (is_apic(gpa))
        return;
    CHECK(gpa >= MMIO_BASE && gpa < MMIO_BASE + 0x80);
    uint64_t i = (gpa - MMIO_BASE) / 16 % 8;
    board->reg[i] = value;
    board->size[i] = size;
}

static uint64_t mmio_read(void *machine, unsigned vcpu, uint64_t gpa, unsigned size)
{
    struct board *board = machine;
    (void)vcpu;
    CHECK(gpa >= MMIO_BASE && gpa < MMIO_BASE + 0x80);
    uint64_t i = (gpa - MMIO_BASE) / 16 % 8;
    CHECK_EQ(size, board->size[i]);
    return board->reg[i];
}

static int interrupt_ack(void *machine, unsigned vcpu)
{
    struct board *board = machine;
    (void)vcpu;
    int vector = board->pending ? VECTOR : -1;
    board->pending = false;
    return vector;
}

static bool interrupt_pending(void *machine, unsigned vcpu)
{
    const struct board *board = machine;
    (void)vcpu;
    return board->pending;
}

static uint64_t hypercall(void *machine, unsigned vcpu, uint64_t number, const uint64_t argument[4])
{
    (void)machine, (void)vcpu, (void)number, (void)argument;
    return UINT64_MAX;
}

static const struct engine_machine_ops machine_ops = {
    .mmio_read = mmio_read, .mmio_write = mmio_write, .port_in = port_in, .port_out = port_out,
    PLAIN_MACHINE_OPS,
    .interrupt_ack = interrupt_ack, .interrupt_pending = interrupt_pending, .hypercall = hypercall,
};

/* ---- the VM ---- */

static void die(const char *what, const struct error *error)
{
    fprintf(stderr, "%s: %s\n", what, error->text);
    exit(1);
}

static void make_vm(struct board *board, const struct engine_ops *engine)
{
    struct error error = { { 0 } };
    struct engine_config config = { .ram = &board->ram, .vcpus = 1, .cpuid = &board->cpuid, .tsc_hz = board->cpuid.tsc_hz,
                                    .machine_ops = &machine_ops, .machine = board };
    board->engine = engine;
    if (engine->vm_create(&config, &board->vm, &error) < 0)
        die("vm_create", &error);
    if (engine->vcpu_create(board->vm, 0, &board->vcpu, &error) < 0)
        die("vcpu_create", &error);
}

static void drop_vm(struct board *board)
{
    board->engine->vcpu_destroy(board->vcpu);
    board->engine->vm_destroy(board->vm);
}

/* Long mode, ring 0, the first 4 GiB one to one. */
static void set_start(struct board *board)
{
    struct x86_cpu cpu;
    struct error error = { { 0 } };
    uint64_t entry = (TABLES + 0x1000) | 3;
    ram_write(&board->ram, TABLES, &entry, sizeof entry);
    for (unsigned i = 0; i < 4; i++) {
        entry = (TABLES + 0x2000 + 0x1000 * i) | 3;
        ram_write(&board->ram, TABLES + 0x1000 + 8 * i, &entry, sizeof entry);
        for (uint64_t j = 0; j < 512; j++) {
            entry = ((uint64_t)i << 30 | j << 21) | 0x83;
            ram_write(&board->ram, TABLES + 0x2000 + 0x1000 * i + 8 * j, &entry, sizeof entry);
        }
    }
    x86_cpu_reset(&cpu, true);
    cpu.cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_PG;
    cpu.cr3 = TABLES;
    cpu.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR;
    cpu.efer = X86_EFER_LME | X86_EFER_LMA;
    cpu.reg[X86_RIP] = ENTRY;
    cpu.reg[X86_RSP] = STACK;
    cpu.seg[X86_CS] = (struct x86_segment){ .selector = 8, .attr = 0xa09b, .limit = UINT32_MAX };
    const struct x86_segment data = { .selector = 16, .attr = 0xc093, .limit = UINT32_MAX };
    cpu.seg[X86_SS] = cpu.seg[X86_DS] = cpu.seg[X86_ES] = cpu.seg[X86_FS] = cpu.seg[X86_GS] = data;
    if (board->engine->set_state(board->vcpu, &cpu, &error) < 0)
        die("set_state", &error);
}

/* Saves everything as bytes, makes a new VM over the same RAM, and loads it there. */
static void move(struct board *board, const struct engine_ops *to)
{
    struct x86_cpu cpu;
    struct error error = { { 0 } };
    struct stream *out = stream_new();
    const bool chips = board->engine->irqchip && to->irqchip;
    size_t length;
    if (board->engine->get_state(board->vcpu, &cpu, &error) < 0)
        die("get_state", &error);
    x86_cpu_save(&cpu, out);
    if (chips)
        board->engine->irqchip_save(board->vm, out);
    if (stream_status(out, &error) < 0)
        die("save", &error);
    drop_vm(board);
    make_vm(board, to);
    const void *bytes = stream_bytes(out, &length);
    struct stream *in = stream_open(bytes, length);
    memset(&cpu, 0, sizeof cpu);
    if (x86_cpu_load(&cpu, in, &error) < 0)
        die("load", &error);
    if (chips && to->irqchip_load(board->vm, in, &error) < 0)
        die("irqchip_load", &error);
    if (to->set_state(board->vcpu, &cpu, &error) < 0)
        die("set_state", &error);
    stream_free(in);
    stream_free(out);
}

/* ---- the test ---- */

static void load_image(struct board *board, const char *path)
{
    uint8_t bytes[16384];
    FILE *file = fopen(path, "rb");
    size_t length = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    if (file)
        fclose(file);
    if (length == 0 || ram_write(&board->ram, ENTRY, bytes, length) < 0) {
        fprintf(stderr, "cannot load %s\n", path);
        exit(1);
    }
}

static void check_said(const struct board *board)
{
    static const uint32_t want[] = { 1, 0x5aa5a5, 0xdeadbeef, 0x88, 0x7788, 0x55667788, 0x11223344, 0x100, 0x100, 0x100, 3,
                                     0x200, 0x201, 0x202, 1, 1, 2, 0x12345678, 0x1000, 1, 7, 0x300, 0x400, 0x401 };
    CHECK_EQ(board->count, sizeof want / sizeof want[0]);
    for (unsigned i = 0; i < board->count && i < sizeof want / sizeof want[0]; i++)
        CHECK_EQ(board->said[i], want[i]);
    CHECK_STR(board->text, "string");
    static const unsigned sizes[] = { 1, 2, 4, 8 };
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(board->size[i + 1], sizes[i]);
}

/* Runs to the end; moves at each kick that asks for it. */
static void run(struct board *board, const struct engine_ops *const engine[2])
{
    unsigned moves = 0, kicks = 0;
    for (unsigned exits = 0; exits < 1000; exits++) {
        struct engine_exit why;
        CHECK_EQ(board->engine->run(board->vcpu, &why), 0);
        if (why.reason == ENGINE_EXIT_SHUTDOWN) {
            CHECK_EQ(moves, 3);
            CHECK_EQ(kicks, 1);
            return;
        }
        if (why.reason == ENGINE_EXIT_ERROR) {
            fprintf(stderr, "%s: %s\n", board->engine->name, why.text);
            check_failures++;
            return;
        }
        if (why.reason == ENGINE_EXIT_KICK && board->want_move)
            move(board, engine[++moves % 2]);
        else if (why.reason == ENGINE_EXIT_KICK && board->want_kick)
            kicks++;
        else if (why.reason == ENGINE_EXIT_HALT)
            CHECK(board->pending); /* it only sleeps with an interrupt on the way */
        board->want_move = board->want_kick = false;
    }
    CHECK(!"the guest ends");
}

int main(int argc, char **argv)
{
    static struct board board;
    struct error error = { { 0 } };
    const struct engine_ops *engine[2] = { argc > 2 ? engine_find(argv[2]) : NULL, NULL };
    engine[1] = argc > 3 ? engine_find(argv[3]) : engine[0];
    if (!engine[0] || !engine[1]) {
        fprintf(stderr, "usage: engine_test IMAGE ENGINE [ENGINE]\n");
        return 2;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (engine[i]->probe(&error) < 0) {
            printf("SKIP: engine %s cannot be used here: %s\n", engine[i]->name, error.text);
            return SKIPPED;
        }
    }
    if (ram_open(&board.ram, RAM_SIZE, UINT64_C(3) << 30, UINT64_C(4) << 30, &error) < 0)
        die("ram_open", &error);
    x86_cpuid_init(&board.cpuid, X86_MODEL_DEFAULT, 1, 1000000000);
    load_image(&board, argv[1]);
    make_vm(&board, engine[0]);
    set_start(&board);
    run(&board, engine);
    check_said(&board);
    board.engine->stats(board.vm, stdout);
    drop_vm(&board);
    ram_close(&board.ram);
    CHECK_DONE();
}
