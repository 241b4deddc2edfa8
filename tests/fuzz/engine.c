/* engine.c - fuzz target: any bytes as a program for a whole software engine.
 *
 * exec.c tries each instruction on its own; this one has the engine's block cache, code tracking and loop
 * around them, and the code lies where it can overwrite itself, the page tables and the descriptor tables. The first bytes
 * choose the engine, the mode and the registers. A program ends by HLT, by a triple fault, or when a second thread has had
 * enough of it, so how far it gets may differ from run to run; that veneer survives it may not. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support/flat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CODE_AT 0x8000u
#define CODE_SIZE 0x4000u
#define PDPT_AT 0x4000u /* of PAE paging */
#define TSS_AT 0x7000u
#define PATIENCE_NS 1000000

struct choice {
    uint8_t engine, mode, flags, gates;
    uint8_t reg[16];
};

static struct engine_vcpu *_Atomic running; /* to be kicked now and then */
static const struct engine_ops *_Atomic running_engine;
static struct flat *flats[2]; /* one machine per engine, kept: making one costs more than most programs */
static pthread_t kicker;
static _Atomic bool over;

static void *kick_forever(void *unused)
{
    const struct timespec pause = {.tv_nsec = PATIENCE_NS};
    while (!atomic_load(&over)) {
        nanosleep(&pause, NULL);
        struct engine_vcpu *vcpu = atomic_load(&running);
        if (vcpu)
            atomic_load(&running_engine)->kick(vcpu);
    }
    return unused;
}

/* A leak check does not look into a mapped vCPU for what it points to. */
static void close_machines(void)
{
    atomic_store(&over, true);
    pthread_join(kicker, NULL);
    for (unsigned i = 0; i < 2; i++)
        if (flats[i]) {
            flat_close(flats[i]);
            free(flats[i]);
        }
}

static struct flat *machine(unsigned which)
{
    static const char *const name[] = {"interpret", "translate"};
    if (flats[which])
        return flats[which];
    if (!flats[0] && !flats[1] && (pthread_create(&kicker, NULL, kick_forever, NULL) != 0 || atexit(close_machines) != 0))
        abort();
    flats[which] = calloc(1, sizeof(struct flat));
    if (!flats[which])
        abort();
    flat_open(flats[which], engine_find(name[which]), 1, 2);
    return flats[which];
}

static uint64_t register_value(uint8_t kind)
{
    switch (kind & 7) {
    case 0: return CODE_AT + kind * 64u;
    case 1: return FLAT_STACK - kind * 8u;
    case 2: return kind >> 3;
    case 3: return UINT64_MAX - (kind >> 3);
    case 4: return 0x200000u - (kind >> 3); /* where RAM ends */
    case 5: return UINT64_C(0x8000000000000000) >> (kind >> 3);
    case 6: return kind * UINT64_C(0x0101010101010101);
    default: return kind * UINT64_C(0x1000) - 4;
    }
}

static struct x86_segment legacy_segment(uint16_t selector, uint32_t attr, uint64_t base, uint32_t limit)
{
    return (struct x86_segment){.selector = selector, .attr = attr, .base = base, .limit = limit};
}

/* mode: 64-bit ring 0 and 3, 32-bit with PAE paging and without, real mode, virtual-8086 mode. */
static void set_mode(struct x86_cpu *cpu, unsigned mode)
{
    if (mode == 1) {
        cpu->seg[X86_CS].attr |= 3u << X86_ATTR_DPL_SHIFT;
        cpu->seg[X86_CS].selector |= 3;
        for (unsigned i = 0; i < X86_SEGS; i++)
            if (i != X86_CS) {
                cpu->seg[i].attr |= 3u << X86_ATTR_DPL_SHIFT;
                cpu->seg[i].selector |= 3;
            }
    }
    if (mode < 2)
        return;
    cpu->efer = 0;
    cpu->cr0 &= mode == 2 ? ~0u : ~X86_CR0_PG;
    cpu->cr3 = PDPT_AT;
    if (mode == 4)
        cpu->cr0 &= ~X86_CR0_PE;
    if (mode == 5)
        cpu->rflags |= X86_FLAG_VM | X86_FLAG_IOPL;
    bool small = mode >= 4;
    for (unsigned i = 0; i < X86_SEGS; i++) {
        uint32_t attr = (i == X86_CS ? 0x9bu : 0x93u) | (small ? 0 : 0xc000u) | (mode == 5 ? 3u << X86_ATTR_DPL_SHIFT : 0);
        cpu->seg[i] = legacy_segment(small ? 0 : i == X86_CS ? 8 : 16, attr, 0, small ? 0xffff : UINT32_MAX);
    }
    if (mode == 4)
        cpu->idtr = (struct x86_table){.base = FLAT_IDT, .limit = 0x3ff};
}

static void put_tables(struct flat *flat, const struct choice *choice)
{
    static const uint8_t zero[RAM_PAGE_SIZE];
    const uint64_t pdpte = (FLAT_TABLES + 0x2000) | 1, rsp0 = FLAT_STACK - 1024;
    flat_tables(flat);
    flat_put(flat, PDPT_AT, &pdpte, sizeof(pdpte));
    flat_put(flat, TSS_AT + 4, &rsp0, sizeof(rsp0));
    flat_put(flat, FLAT_IDT, zero, sizeof(zero));
    for (unsigned vector = 0; vector < 32 && (choice->gates & 1); vector++)
        flat_gate(flat, vector, CODE_AT + vector * choice->gates);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct choice choice;
    struct x86_cpu cpu;
    if (size <= sizeof(choice))
        return 0;
    memcpy(&choice, data, sizeof(choice));
    data += sizeof(choice);
    size -= sizeof(choice);
    struct flat *flat = machine(choice.engine & 1);
    put_tables(flat, &choice);
    for (unsigned at = 0; at < CODE_SIZE; at += (unsigned)size)
        flat_put(flat, CODE_AT + at, data, size < CODE_SIZE - at ? size : CODE_SIZE - at);
    flat_state(flat, 0, CODE_AT, &cpu);
    for (unsigned i = 0; i < 16; i++)
        cpu.reg[i] = register_value(choice.reg[i]);
    cpu.reg[X86_RSP] = FLAT_STACK - 256;
    cpu.tr = legacy_segment(0x40, 0x8b, TSS_AT, 0x67);
    cpu.rflags |= ((uint64_t)choice.flags << 6 & (X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF)) | (choice.flags & X86_FLAGS_ARITH);
    set_mode(&cpu, choice.mode % 6);
    atomic_store(&running_engine, flat->engine);
    atomic_store(&running, flat->vcpu[0]);
    flat_run(flat, 0, &cpu, &cpu);
    atomic_store(&running, NULL);
    return 0;
}
