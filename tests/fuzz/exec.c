/* exec.c - fuzz target: any bytes, executed as guest code in every mode.
 *
 * The first bytes of the input choose the mode (16, 32 or 64 bits, paging, CPL), flags, control bits and register values; the
 * rest is code, which is repeated through memory, so that every jump finds some. RAM is small and holds page
 * tables, GDT, IDT and stacks where the code may overwrite them. Whatever it does must end in guest faults,
 * a halt, a shutdown, or the step limit. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "isa/x86/core.h"
#include "isa/x86/decode.h"
#include "isa/x86/exception.h"
#include "isa/x86/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM_SIZE 0x20000u /* 128 KiB */
#define STEPS 150u

/* Guest-physical layout; all of it below 64 KiB so that real mode reaches it as well. */
#define GDT 0x1000u
#define IDT 0x2000u
#define TSS 0x3000u
#define PML4 0x4000u
#define PDPT 0x5000u
#define PD 0x6000u
#define PT 0x7000u
#define CODE 0x8000u
#define CODE_SIZE 0x3000u
#define STACK 0xd000u

struct machine {
    struct x86_core *core;
    struct x86_decoder decoder;
    struct x86_cpuid cpuid;
    struct x86_cpu after_reset;
    struct x86_insn insn;
    uint8_t *ram;
    int bus_budget; /* accesses outside RAM that are left; a repeated instruction can make thousands */
    uint8_t flags[RAM_SIZE / 4096];
};

/* What the input chooses. */
struct choice {
    uint8_t mode;    /* bits 0-1: 16, 32, 64; 2: paging; 3: CPL 3; 4: TF; 5: AC; 6: VME bits; 7: single fault handler */
    uint8_t control; /* CR4 and CR0 bits */
    uint8_t reg[16]; /* each says what kind of value a register has */
};

static const struct x86_insn fetching = {.length = 0};

static bool env_page(void *owner, uint64_t gpa, struct x86_page *ret_page)
{
    struct machine *m = owner;

    if (gpa >= RAM_SIZE)
        return false;
    /* The last page is ROM. */
    *ret_page = (struct x86_page){.host = m->ram + gpa, .flags = &m->flags[gpa / 4096], .read_only = gpa == RAM_SIZE - 4096};
    return true;
}

static uint64_t env_mmio_read(void *owner, uint64_t gpa, unsigned size)
{
    (void)size;
    ((struct machine *)owner)->bus_budget--;
    return gpa * UINT64_C(0x9e3779b97f4a7c15);
}

static void env_mmio_write(void *owner, uint64_t gpa, unsigned size, uint64_t value)
{
    (void)gpa, (void)size, (void)value;
    ((struct machine *)owner)->bus_budget--;
}

static uint32_t env_port_in(void *owner, uint16_t port, unsigned size)
{
    (void)owner, (void)size;
    return port * 0x01010101u;
}

static void env_port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
    (void)owner, (void)port, (void)size, (void)value;
}

static int env_msr_read(void *owner, uint32_t msr, uint64_t *ret_value)
{
    (void)owner;
    *ret_value = msr;
    return msr & 1 ? -1 : 0;
}

static int env_msr_write(void *owner, uint32_t msr, uint64_t value)
{
    (void)owner, (void)value;
    return msr & 1 ? -1 : 0;
}

static uint8_t env_tpr_read(void *owner)
{
    (void)owner;
    return 5;
}

static void env_tpr_write(void *owner, uint8_t cr8) { (void)owner, (void)cr8; }

static void env_code_written(void *owner, uint64_t gpa, unsigned length) { (void)owner, (void)gpa, (void)length; }

static void env_mapping_changed(void *owner, enum x86_flush scope, uint64_t linear) { (void)owner, (void)scope, (void)linear; }

static void env_exclusive(void *owner) { (void)owner; }

static uint64_t env_hypercall(void *owner, uint64_t number, const uint64_t argument[4])
{
    (void)owner;
    return number + argument[0];
}

static const struct x86_env_ops env = {
    .page = env_page,
    .mmio_read = env_mmio_read,
    .mmio_write = env_mmio_write,
    .port_in = env_port_in,
    .port_out = env_port_out,
    .msr_read = env_msr_read,
    .msr_write = env_msr_write,
    .tpr_read = env_tpr_read,
    .tpr_write = env_tpr_write,
    .code_written = env_code_written,
    .mapping_changed = env_mapping_changed,
    .exclusive_begin = env_exclusive,
    .exclusive_end = env_exclusive,
    .hypercall = env_hypercall,
};

static struct machine *machine(void)
{
    static struct machine *m;

    if (m != NULL)
        return m;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        abort();
    m->core = aligned_alloc(64, (sizeof *m->core + 63) & ~(size_t)63);
    m->ram = malloc(RAM_SIZE);
    if (m->core == NULL || m->ram == NULL)
        abort();
    memset(m->core, 0, sizeof *m->core);
    x86_cpuid_init(&m->cpuid, X86_MODEL_DEFAULT, 1, 1000000000);
    if (x86_decoder_init(&m->decoder, &m->cpuid, NULL) != 0)
        abort();
    x86_cpu_reset(&m->after_reset, true);
    m->core->env = &env;
    m->core->owner = m;
    m->core->cpuid = &m->cpuid;
    return m;
}

/* ---- memory ---- */

static void put64(struct machine *m, uint32_t at, uint64_t value) { memcpy(m->ram + at, &value, 8); }

static void put_tables(struct machine *m, const struct choice *choice)
{
    static const uint16_t attr[] = {0, 0xa09b, 0xc093, 0xa0fb, 0xc0f3, 0xc09b, 0xc0fb, 0x009b, 0x0093, 0x40f7, 0xc09f, 0x80f3};
    uint64_t type = (choice->mode & 3) == 0 ? 0x8600 : 0x8e00;

    for (uint32_t i = 0; i < sizeof attr / sizeof *attr; i++)
        put64(m, GDT + i * 8, i == 0 ? 0 : UINT64_C(0x000f00000000ffff) | (uint64_t)attr[i] << 40);
    put64(m, GDT + 12 * 8, UINT64_C(0x0000890000000067) | (uint64_t)TSS << 16); /* TSS, also as the target of a far jump */
    put64(m, TSS + 4, STACK);
    put64(m, TSS + 8, 2 * 8);
    /* Paging: 4 KiB pages over RAM, then a 2 MiB and a reserved entry; the same tables serve 32-bit paging badly, PAE well. */
    put64(m, PML4, PDPT | 7);
    put64(m, PDPT, choice->mode & 2 ? PD | 7 : PD | 1);
    put64(m, PD, PT | 7);
    put64(m, PD + 8, 0x87);
    put64(m, PD + 16, UINT64_C(0x000ff00000000087));
    for (uint32_t i = 0; i < 512; i++)
        put64(m, PT + i * 8, i * 4096u | (i % 7 == 5 ? 5 : i % 11 == 9 ? 3 : 7) | (i % 13 == 12 ? UINT64_C(1) << 63 : 0));
    for (uint32_t vector = 0; vector < 64 && vector < 256; vector++) {
        uint32_t handler = CODE + vector * 37;
        unsigned entry = choice->mode & 2 ? 16 : 8;

        put64(m, IDT + vector * entry,
              (handler & 0xffff) | (choice->mode & 2 ? 1u : 5u) * 8 << 16 | (type | (vector % 3 == 0 ? 0x6000 : 0)) << 32);
        if (choice->mode & 2)
            put64(m, IDT + vector * entry + 8, 0);
    }
}

static void put_code(struct machine *m, const uint8_t *code, size_t size)
{
    for (size_t at = 0; at < CODE_SIZE; at += size)
        memcpy(m->ram + CODE + at, code, size < CODE_SIZE - at ? size : CODE_SIZE - at);
}

/* ---- registers ---- */

static struct x86_segment segment(uint16_t selector, uint32_t attr)
{
    return (struct x86_segment){.selector = selector, .attr = attr, .limit = UINT32_MAX};
}

static void set_segments(struct x86_cpu *cpu, const struct choice *choice)
{
    unsigned bits = choice->mode & 3;
    uint16_t rpl = choice->mode & 8 ? 3 : 0;
    uint16_t code = (uint16_t)((bits >= 2 ? (rpl ? 3 : 1) : (rpl ? 6 : 5)) * 8 + rpl);
    uint16_t data = (uint16_t)((rpl ? 4 : 2) * 8 + rpl);
    uint32_t dpl = (uint32_t)rpl << X86_ATTR_DPL_SHIFT;

    if (bits == 0 && !rpl)
        return; /* real mode, as after reset */
    cpu->seg[X86_CS] = segment(code, (bits >= 2 ? 0xa09bu : bits == 1 ? 0xc09bu : 0x009bu) | dpl);
    for (unsigned i = 0; i < X86_SEGS; i++)
        if (i != X86_CS)
            cpu->seg[i] = segment(data, (bits == 0 ? 0x0093u : 0xc093u) | dpl);
}

static uint64_t register_value(uint8_t kind)
{
    switch (kind & 7) {
    case 0: return CODE + kind * 16u;
    case 1: return STACK - kind * 8u;
    case 2: return kind >> 3;
    case 3: return UINT64_MAX - (kind >> 3);
    case 4: return RAM_SIZE - (kind >> 3);
    case 5: return UINT64_C(0x8000000000000000) >> (kind >> 3);
    case 6: return kind * UINT64_C(0x0101010101010101);
    default: return kind * UINT64_C(0x1000) - 4;
    }
}

static void set_state(struct machine *m, const struct choice *choice)
{
    struct x86_cpu *cpu = &m->core->cpu;
    unsigned bits = choice->mode & 3;
    bool paging = bits >= 2 || (choice->mode & 4);

    *cpu = m->after_reset;
    for (unsigned i = 0; i < 16; i++)
        cpu->reg[i] = register_value(choice->reg[i]);
    cpu->reg[X86_RSP] = STACK - 64;
    cpu->reg[X86_RIP] = CODE;
    cpu->rflags = X86_FLAG_FIXED | X86_FLAG_IF | (choice->mode & 0x10 ? X86_FLAG_TF : 0) |
                  (choice->mode & 0x20 ? X86_FLAG_AC : 0) | (choice->mode & 0x40 ? X86_FLAG_IOPL | X86_FLAG_DF : 0);
    cpu->cr0 = X86_CR0_ET | X86_CR0_NE | (choice->control & 1 ? X86_CR0_WP : 0) | (choice->control & 2 ? X86_CR0_AM : 0) |
               (choice->control & 0x80 ? X86_CR0_TS : 0);
    cpu->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_FSGSBASE | X86_CR4_OSXSAVE |
               (choice->control & 4 ? X86_CR4_UMIP | X86_CR4_TSD : 0) | (choice->control & 8 ? X86_CR4_SMEP : 0) |
               (choice->control & 16 ? X86_CR4_SMAP : 0) | (choice->control & 32 ? X86_CR4_VME | X86_CR4_PVI : 0);
    if (paging && (bits >= 2 || (choice->control & 64)))
        cpu->cr4 |= X86_CR4_PAE;
    if (bits != 0 || (choice->mode & 8))
        cpu->cr0 |= X86_CR0_PE;
    if (paging && (cpu->cr0 & X86_CR0_PE))
        cpu->cr0 |= X86_CR0_PG;
    cpu->cr3 = bits >= 2 ? PML4 : cpu->cr4 & X86_CR4_PAE ? PDPT : PD;
    if (bits >= 2)
        cpu->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    cpu->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX;
    cpu->gdtr = (struct x86_table){.base = GDT, .limit = 0x6f};
    cpu->idtr = (struct x86_table){.base = bits == 0 && !(choice->mode & 8) ? 0 : IDT, .limit = 0x3ff};
    cpu->tr = (struct x86_segment){.selector = 12 * 8, .attr = 0x8b, .limit = 0x67, .base = TSS};
    cpu->lstar = cpu->cstar = cpu->sysenter_eip = CODE + 64;
    cpu->star = UINT64_C(0x0013000800000000);
    cpu->sysenter_cs = 8;
    set_segments(cpu, choice);
    if (bits == 0 && !(choice->mode & 8)) {
        cpu->seg[X86_CS].base = 0;
        cpu->seg[X86_CS].selector = 0;
    }
}

/* ---- running ---- */

static void step(struct machine *m)
{
    struct x86_core *core = m->core;
    struct x86_page page;
    uint8_t bytes[X86_INSN_MAX];
    uint32_t error_code;
    uint64_t linear;
    unsigned have;

    core->insn = &fetching;
    if (core->mode != X86_CODE64) {
        core->cpu.reg[X86_RIP] = (uint32_t)core->cpu.reg[X86_RIP];
        if (core->cpu.reg[X86_RIP] > core->cpu.seg[X86_CS].limit)
            x86_raise_gp(core, 0);
    }
    linear = core->cpu.reg[X86_RIP];
    if (core->mode != X86_CODE64)
        linear = (uint32_t)(linear + core->cpu.seg[X86_CS].base);
    have = x86_fetch(core, linear, bytes, sizeof bytes, &error_code);
    if (have == 0 || x86_decode(&m->decoder, (enum x86_code_mode)core->mode, bytes, have, &m->insn) == 0) {
        x86_fetch_page(core, linear + have, &page);
        x86_raise_ud(core); /* code where there is no RAM */
    }
    core->insn = &m->insn;
    core->insn_end = core->insn + 1;
    core->cpu.reg[X86_RIP] += m->insn.length;
    m->insn.exec(core, &m->insn);
}

static void step_debugged(struct machine *m)
{
    struct x86_core *core = m->core;
    bool traced = (core->cpu.rflags & X86_FLAG_TF) != 0;

    if (core->debug_armed && x86_before_insn_debug(core))
        return;
    core->cpu.sti_shadow = core->cpu.mov_ss_shadow = false;
    step(m);
    if (core->debug_armed)
        x86_after_insn_debug(core, traced);
}

static void run(struct machine *m)
{
    struct x86_core *core = m->core;
    volatile unsigned steps = 0;
    jmp_buf escape;

    if (_setjmp(escape) != 0) {
        x86_fault_rewind(core);
        x86_deliver_raised(core);
    }
    core->escape = &escape;
    while (core->cpu.activity == X86_RUNNING && steps++ < STEPS && m->bus_budget > 0) {
        step_debugged(m);
        if (steps % 16 == 0 && x86_interruptible(core) && core->cpu.activity == X86_RUNNING)
            x86_deliver_interrupt(core, 0x21);
    }
    core->escape = NULL;
    if (core->cpu.reg[X86_ZERO] != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct machine *m = machine();
    struct choice choice;

    if (size <= sizeof choice)
        return 0;
    memcpy(&choice, data, sizeof choice);
    memset(m->ram, 0, RAM_SIZE);
    memset(m->flags, 0, sizeof m->flags);
    m->bus_budget = 3000;
    put_tables(m, &choice);
    put_code(m, data + sizeof choice, size - sizeof choice);
    set_state(m, &choice);
    x86_core_attach(m->core);
    run(m);
    return 0;
}
