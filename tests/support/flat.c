#include "support/flat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/plain_machine.h"

static void must(int result, const struct error *error)
{
    if (result == 0)
        return;
    fprintf(stderr, "setting up the flat machine: %s\n", error->text);
    exit(1);
}

/* ---- the machine's side: all ones from nowhere, the last write remembered ---- */

static uint64_t mmio_read(void *machine, unsigned vcpu, uint64_t gpa, unsigned size)
{
    (void)machine, (void)vcpu, (void)gpa, (void)size;
    return UINT64_MAX;
}

static void mmio_write(void *machine, unsigned vcpu, uint64_t gpa, unsigned size, uint64_t value)
{
    struct flat *flat = machine;
    (void)vcpu, (void)size;
    flat->mmio_gpa = gpa;
    flat->mmio_value = value;
}

static uint32_t port_in(void *machine, unsigned vcpu, uint16_t port, unsigned size)
{
    (void)machine, (void)vcpu, (void)port, (void)size;
    return UINT32_MAX;
}

static void port_out(void *machine, unsigned vcpu, uint16_t port, unsigned size, uint32_t value)
{
    struct flat *flat = machine;
    (void)vcpu, (void)size;
    flat->port = port;
    flat->port_value = value;
    if (flat->on_port)
        flat->on_port(flat);
}

static int interrupt_ack(void *machine, unsigned vcpu)
{
    struct flat *flat = machine;
    (void)vcpu;
    return atomic_exchange(&flat->vector, -1);
}

static bool interrupt_pending(void *machine, unsigned vcpu)
{
    struct flat *flat = machine;
    (void)vcpu;
    return atomic_load(&flat->vector) >= 0;
}

static uint64_t hypercall(void *machine, unsigned vcpu, uint64_t number, const uint64_t argument[4])
{
    (void)machine, (void)vcpu, (void)argument;
    return ~number;
}

static const struct engine_machine_ops machine_ops = {
    .mmio_read = mmio_read, .mmio_write = mmio_write, .port_in = port_in, .port_out = port_out,
    PLAIN_MACHINE_OPS,
    .interrupt_ack = interrupt_ack, .interrupt_pending = interrupt_pending, .hypercall = hypercall,
};

/* ---- memory ---- */

void flat_put(struct flat *flat, uint64_t gpa, const void *bytes, size_t length)
{
    if (ram_write(&flat->ram, gpa, bytes, length) == 0)
        return;
    fprintf(stderr, "0x%llx is not in the flat machine's RAM\n", (unsigned long long)gpa);
    exit(1);
}

static void put64(struct flat *flat, uint64_t gpa, uint64_t value)
{
    flat_put(flat, gpa, &value, sizeof(value));
}

uint64_t flat_get64(const struct flat *flat, uint64_t gpa)
{
    uint64_t value = 0;
    ram_read(&flat->ram, gpa, &value, sizeof(value));
    return value;
}

#define PRESENT_WRITABLE_USER 7u
#define LARGE 0x80u

void flat_tables(struct flat *flat)
{
    put64(flat, FLAT_TABLES, (FLAT_TABLES + 0x1000) | PRESENT_WRITABLE_USER);
    put64(flat, FLAT_TABLES + 0x1000, (FLAT_TABLES + 0x2000) | PRESENT_WRITABLE_USER);
    for (uint64_t i = 0; i < 512; i++)
        put64(flat, FLAT_TABLES + 0x2000 + 8 * i, i << 21 | LARGE | PRESENT_WRITABLE_USER);
    put64(flat, FLAT_GDT + FLAT_CS, UINT64_C(0x00af9b000000ffff));
    put64(flat, FLAT_GDT + FLAT_SS, UINT64_C(0x00cf93000000ffff));
}

void flat_split(struct flat *flat, uint64_t linear, uint64_t table)
{
    uint64_t base = linear & ~UINT64_C(0x1fffff);
    for (uint64_t i = 0; i < 512; i++)
        put64(flat, table + 8 * i, (base + i * 4096) | PRESENT_WRITABLE_USER);
    put64(flat, FLAT_TABLES + 0x2000 + 8 * (linear >> 21), table | PRESENT_WRITABLE_USER);
}

void flat_map(struct flat *flat, uint64_t table, uint64_t linear, uint64_t gpa)
{
    put64(flat, table + 8 * (linear >> 12 & 511), gpa | PRESENT_WRITABLE_USER);
}

void flat_gate(struct flat *flat, unsigned vector, uint64_t handler)
{
    uint64_t low = (handler & 0xffff) | FLAT_CS << 16 | UINT64_C(0x8e) << 40 | (handler >> 16 & 0xffff) << 48;
    put64(flat, FLAT_IDT + 16 * vector, low);
    put64(flat, FLAT_IDT + 16 * vector + 8, handler >> 32);
}

/* ---- the vCPUs ---- */

void flat_open(struct flat *flat, const struct engine_ops *engine, unsigned vcpus, unsigned megabytes)
{
    struct error error = {.text = ""};
    memset(flat, 0, sizeof(*flat));
    flat->engine = engine;
    flat->vcpus = vcpus;
    flat->vector = -1;
    must(ram_open(&flat->ram, (uint64_t)megabytes << 20, UINT64_C(1) << 30, UINT64_C(1) << 32, &error), &error);
    x86_cpuid_init(&flat->cpuid, X86_MODEL_HOST, vcpus, 1000000000);
    struct engine_config config = {.ram = &flat->ram, .vcpus = vcpus, .cpuid = &flat->cpuid,
                                   .tsc_hz = 1000000000, .machine_ops = &machine_ops, .machine = flat};
    must(engine->vm_create(&config, &flat->vm, &error), &error);
    for (unsigned i = 0; i < vcpus; i++)
        must(engine->vcpu_create(flat->vm, i, &flat->vcpu[i], &error), &error);
    flat_tables(flat);
}

void flat_close(struct flat *flat)
{
    for (unsigned i = 0; i < flat->vcpus; i++)
        flat->engine->vcpu_destroy(flat->vcpu[i]);
    flat->engine->vm_destroy(flat->vm);
    ram_close(&flat->ram);
}

void flat_state(const struct flat *flat, unsigned index, uint64_t rip, struct x86_cpu *ret_cpu)
{
    (void)flat;
    x86_cpu_reset(ret_cpu, true);
    memset(ret_cpu->reg, 0, sizeof(ret_cpu->reg));
    ret_cpu->reg[X86_RIP] = rip;
    ret_cpu->reg[X86_RSP] = FLAT_STACK - 4096 * index;
    ret_cpu->rflags = X86_FLAG_FIXED;
    ret_cpu->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
    ret_cpu->cr3 = FLAT_TABLES;
    ret_cpu->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
    ret_cpu->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE | X86_EFER_NXE;
    ret_cpu->gdtr = (struct x86_table){.base = FLAT_GDT, .limit = 0xfff};
    ret_cpu->idtr = (struct x86_table){.base = FLAT_IDT, .limit = 0xfff};
    struct x86_segment data = {.selector = FLAT_SS, .attr = 0xc093, .limit = UINT32_MAX};
    for (unsigned i = 0; i < X86_SEGS; i++)
        ret_cpu->seg[i] = data;
    ret_cpu->seg[X86_CS] = (struct x86_segment){.selector = FLAT_CS, .attr = 0xa09b, .limit = UINT32_MAX};
}

enum engine_exit_reason flat_run(struct flat *flat, unsigned index, const struct x86_cpu *cpu, struct x86_cpu *ret_cpu)
{
    struct error error = {.text = ""};
    struct engine_exit exit = {.reason = ENGINE_EXIT_ERROR};
    must(flat->engine->set_state(flat->vcpu[index], cpu, &error), &error);
    flat->engine->run(flat->vcpu[index], &exit);
    must(flat->engine->get_state(flat->vcpu[index], ret_cpu, &error), &error);
    return exit.reason;
}
