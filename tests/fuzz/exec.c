/* exec.c - fuzz target: any bytes, executed as guest code in every mode.
 *
 * The first bytes of the input choose the mode (16, 32 or 64 bits, paging, CPL), flags, control bits and register values; the
 * rest is code, which is repeated through memory, so that every jump finds some. RAM is small and holds page
 * tables, GDT, IDT and stacks where the code may overwrite them. Whatever it does must end in guest faults,
 * a halt, a shutdown, or the step limit. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "isa/x86/exception.h"
#include "support/bare.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM_SIZE 0x20000u /* 128 KiB */
#define STEPS 150u
#define BUS_ACCESSES 3000u

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
    struct bare bare;
    struct x86_cpu after_reset;
    unsigned steps; /* of this input */
};

/* What the input chooses. */
struct choice {
    uint8_t mode;    /* bits 0-1: 16, 32, 64; 2: paging; 3: CPL 3; 4: TF; 5: AC; 6: VME bits; 7: single fault handler */
    uint8_t control; /* CR4 and CR0 bits */
    uint8_t reg[16]; /* each says what kind of value a register has */
};

static struct machine *machine(void)
{
    static struct machine *m;

    if (m != NULL)
        return m;
    m = calloc(1, sizeof *m);
    if (m == NULL || bare_open(&m->bare, X86_MODEL_DEFAULT, RAM_SIZE, NULL) != 0)
        abort();
    m->bare.rom = RAM_SIZE - 4096;
    x86_cpu_reset(&m->after_reset, true);
    return m;
}

/* ---- memory ---- */

static void put64(struct machine *m, uint32_t at, uint64_t value) { memcpy(m->bare.ram + at, &value, 8); }

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
        memcpy(m->bare.ram + CODE + at, code, size < CODE_SIZE - at ? size : CODE_SIZE - at);
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
    struct x86_cpu *cpu = &m->bare.core->cpu;
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

/* The bus is bounded as well: a repeated instruction can make thousands of accesses. */
static bool more(void *context)
{
    struct machine *m = context;
    struct x86_core *core = m->bare.core;

    if (m->steps > 0 && m->steps % 16 == 0 && core->cpu.activity == X86_RUNNING && x86_interruptible(core))
        x86_deliver_interrupt(core, 0x21);
    return core->cpu.activity == X86_RUNNING && m->steps++ < STEPS && m->bare.mmio < BUS_ACCESSES;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct machine *m = machine();
    struct choice choice;

    if (size <= sizeof choice)
        return 0;
    memcpy(&choice, data, sizeof choice);
    memset(m->bare.ram, 0, RAM_SIZE);
    memset(m->bare.flags, 0, RAM_SIZE / 4096);
    m->bare.mmio = 0;
    m->steps = 0;
    put_tables(m, &choice);
    put_code(m, data + sizeof choice, size - sizeof choice);
    set_state(m, &choice);
    x86_core_attach(m->bare.core);
    bare_run(&m->bare, more, m);
    if (m->bare.core->cpu.reg[X86_ZERO] != 0)
        abort();
    return 0;
}
