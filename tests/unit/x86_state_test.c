/* x86_state_test.c - reset, INIT, SIPI; saving and loading, and what a load refuses. */
#include "isa/x86/state.h"

#include <stddef.h>

#include "check.h"

static void test_reset(void)
{
    struct x86_cpu cpu;
    memset(&cpu, 0xff, sizeof cpu);
    x86_cpu_reset(&cpu, true);
    CHECK_EQ(cpu.reg[X86_RIP], 0xfff0);
    CHECK_EQ(cpu.seg[X86_CS].selector, 0xf000);
    CHECK_EQ(cpu.seg[X86_CS].base, 0xffff0000u);
    CHECK_EQ(cpu.cr0, 0x60000010);
    CHECK_EQ(cpu.rflags, 2);
    CHECK_EQ(cpu.dr[6], 0xffff0ff0u);
    CHECK_EQ(cpu.dr[7], 0x400);
    CHECK_EQ(cpu.activity, X86_RUNNING);
    CHECK_EQ(x86_cpl(&cpu), 0);
    x86_cpu_reset(&cpu, false);
    CHECK_EQ(cpu.activity, X86_WAIT_FOR_SIPI);
}

static void test_init_and_sipi(void)
{
    struct x86_cpu cpu;
    x86_cpu_reset(&cpu, false);
    x86_cpu_sipi(&cpu, 0x9a);
    CHECK_EQ(cpu.activity, X86_RUNNING);
    CHECK_EQ(cpu.seg[X86_CS].selector, 0x9a00);
    CHECK_EQ(cpu.seg[X86_CS].base, 0x9a000);
    CHECK_EQ(cpu.reg[X86_RIP], 0);
    x86_cpu_sipi(&cpu, 0x10); /* a processor that runs ignores it */
    CHECK_EQ(cpu.seg[X86_CS].selector, 0x9a00);
    cpu.cr0 = 0x80000011u;
    cpu.cr3 = 0x1000;
    cpu.ymm[3][7] = 42;
    cpu.tsc_offset = 77;
    cpu.kernel_gs_base = 5;
    cpu.pat = 0x0606060606060606;
    x86_cpu_init(&cpu, false);
    CHECK_EQ(cpu.cr0, 0x10); /* CD and NW stay as they were */
    CHECK_EQ(cpu.cr3, 0);
    CHECK_EQ(cpu.ymm[3][7], 42);
    CHECK_EQ(cpu.tsc_offset, 77);
    CHECK_EQ(cpu.kernel_gs_base, 5);
    CHECK_EQ(cpu.pat, 0x0606060606060606);
    CHECK_EQ(cpu.activity, X86_WAIT_FOR_SIPI);
}

/* A state in which every byte that may be is different from 0 and from its neighbours. */
static void fill(struct x86_cpu *cpu)
{
    x86_cpu_reset(cpu, true);
    for (unsigned i = 0; i < X86_ZERO; i++)
        cpu->reg[i] = 0x0101010101010101u * (i + 1);
    cpu->reg[X86_RIP] = 0x123456789a;
    cpu->rflags = 0x246;
    for (unsigned i = 0; i < X86_SEGS; i++)
        cpu->seg[i] = (struct x86_segment){.selector = (uint16_t)(i + 1), .attr = 0xc093, .limit = i + 7, .base = i + 9};
    cpu->seg[X86_CS].attr = 0xa09b;
    cpu->gdtr = (struct x86_table){0xffff800000001234, 0x7f};
    cpu->idtr = (struct x86_table){0xffff800000005678, 0xfff};
    cpu->cr0 = 0x80050033u;
    cpu->cr2 = 0xdeadbeef;
    cpu->cr3 = 0x1234000;
    cpu->cr4 = X86_CR4_PAE;
    cpu->cr8 = 3;
    cpu->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE;
    cpu->xcr0 = 7;
    for (unsigned i = 0; i < 4; i++)
        cpu->dr[i] = 0x1000 + i;
    cpu->star = 1, cpu->lstar = 2, cpu->cstar = 3, cpu->sfmask = 4, cpu->kernel_gs_base = 5;
    cpu->sysenter_cs = 6, cpu->sysenter_esp = 7, cpu->sysenter_eip = 8, cpu->tsc_aux = 9, cpu->misc_enable = 10;
    cpu->spec_ctrl = 1, cpu->mcg_status = 2, cpu->tsc_offset = 11, cpu->tsc_adjust = 12;
    for (unsigned i = 0; i < 11; i++)
        cpu->mtrr.fixed[i] = i + 20;
    for (unsigned i = 0; i < 8; i++)
        cpu->mtrr.base[i] = i + 40, cpu->mtrr.mask[i] = i + 60;
    cpu->activity = X86_HALTED;
    cpu->sti_shadow = cpu->nmi_blocked = true;
    cpu->event = (struct x86_event){.valid = true, .has_error = true, .vector = 14, .error_code = 7};
    for (unsigned i = 32; i < sizeof cpu->fx; i++)
        cpu->fx[i] = (uint8_t)i;
    for (unsigned i = 0; i < 16; i++)
        memset(cpu->ymm[i], (int)i + 1, 32);
}

static int reload(const struct x86_cpu *cpu, struct x86_cpu *ret_cpu, struct error *error)
{
    struct stream *out = stream_new();
    size_t length;
    x86_cpu_save(cpu, out);
    const void *bytes = stream_bytes(out, &length);
    struct stream *in = stream_open(bytes, length);
    int rc = x86_cpu_load(ret_cpu, in, error);
    stream_free(in);
    stream_free(out);
    return rc;
}

/* Fields compared one by one would miss one that was forgotten: the saved bytes of the copy must be the same, and
 * changing any byte of the state must change them, padding aside. */
static void test_round_trip(void)
{
    struct x86_cpu cpu, back;
    struct error error;
    fill(&cpu);
    memset(&back, 0, sizeof back);
    CHECK_EQ(reload(&cpu, &back, &error), 0);
    CHECK_EQ(memcmp(cpu.reg, back.reg, sizeof cpu.reg), 0);
    CHECK_EQ(memcmp(cpu.fx, back.fx, sizeof cpu.fx), 0);
    CHECK_EQ(memcmp(cpu.ymm, back.ymm, sizeof cpu.ymm), 0);
    CHECK_EQ(memcmp(&cpu.mtrr, &back.mtrr, sizeof cpu.mtrr), 0);
    struct stream *first = stream_new(), *second = stream_new();
    size_t length, other;
    x86_cpu_save(&cpu, first);
    x86_cpu_save(&back, second);
    const uint8_t *a = stream_bytes(first, &length), *b = stream_bytes(second, &other);
    CHECK_EQ(length, other);
    CHECK(length == other && memcmp(a, b, length) == 0);
    unsigned unsaved = 0;
    for (size_t i = 0; i < sizeof cpu; i++) {
        struct x86_cpu changed = cpu;
        ((uint8_t *)&changed)[i] ^= 0x01;
        struct stream *stream = stream_new();
        x86_cpu_save(&changed, stream);
        const uint8_t *c = stream_bytes(stream, &other);
        unsaved += other == length && memcmp(a, c, length) == 0;
        stream_free(stream);
    }
    /* What is not saved is padding: 2 after each of 8 selectors, 4 after each of 8 limits... */
    size_t padding = sizeof cpu - (sizeof cpu.reg + 8 + 8 * 18 + 2 * 10 + 6 * 8 + sizeof cpu.dr + 12 * 8 + 3 * 8 +
                                   sizeof cpu.mtrr + 2 * 8 + 5 + 9 + sizeof cpu.fx + sizeof cpu.ymm);
    CHECK_EQ(unsaved, padding);
    stream_free(first);
    stream_free(second);
}

#define REFUSED(change)                                                                                      \
    do {                                                                                                     \
        struct x86_cpu cpu, back;                                                                            \
        struct error error = {""};                                                                           \
        fill(&cpu);                                                                                          \
        memset(&back, 0x5a, sizeof back);                                                                    \
        change;                                                                                              \
        CHECK(reload(&cpu, &back, &error) < 0);                                                              \
        CHECK(strstr(error.text, "processor state") != NULL);                                                \
        CHECK_EQ(back.reg[0], 0x5a5a5a5a5a5a5a5a);                                                           \
    } while (0)

static void test_refusals(void)
{
    REFUSED(cpu.reg[X86_ZERO] = 1);
    REFUSED(cpu.reg[X86_RIP] = UINT64_C(1) << 47);
    REFUSED(cpu.rflags = 0);
    REFUSED(cpu.rflags |= 8);
    REFUSED(cpu.rflags |= X86_FLAG_VM); /* in long mode */
    REFUSED(cpu.cr0 &= ~(uint64_t)X86_CR0_PE);
    REFUSED(cpu.cr0 |= UINT64_C(1) << 32);
    REFUSED(cpu.cr3 = UINT64_C(1) << 52);
    REFUSED(cpu.cr4 |= UINT64_C(1) << 40);
    REFUSED(cpu.cr4 = 0); /* no PAE in long mode */
    REFUSED(cpu.cr8 = 16);
    REFUSED(cpu.efer &= ~(uint64_t)X86_EFER_LMA);
    REFUSED(cpu.efer |= 2);
    REFUSED(cpu.xcr0 = 5);
    REFUSED(cpu.xcr0 = 6);
    REFUSED(cpu.seg[2].attr |= 0x20000);
    REFUSED(cpu.seg[4].base = UINT64_C(1) << 63);
    REFUSED(cpu.seg[X86_CS].attr |= X86_ATTR_DB);
    REFUSED(cpu.gdtr.base = UINT64_C(1) << 50);
    REFUSED(cpu.lstar = UINT64_C(1) << 50);
    REFUSED(cpu.dr[7] |= UINT64_C(1) << 32);
    REFUSED(cpu.pat = 2);
    REFUSED(cpu.fx[26] = 1); /* MXCSR bit 16 */
    REFUSED(cpu.activity = 4);
    REFUSED(memset(&cpu.sti_shadow, 2, 1));
    REFUSED(memset(&cpu.event.valid, 0xff, 1));
}

/* Every truncation is an error and leaves the state alone. */
static void test_truncation(void)
{
    struct x86_cpu cpu, back;
    struct stream *out = stream_new();
    size_t length;
    fill(&cpu);
    x86_cpu_save(&cpu, out);
    const void *bytes = stream_bytes(out, &length);
    for (size_t cut = 0; cut < length; cut++) {
        struct stream *in = stream_open(bytes, cut);
        memset(&back, 0x5a, sizeof back);
        CHECK(x86_cpu_load(&back, in, NULL) < 0);
        CHECK_EQ(back.reg[0], 0x5a5a5a5a5a5a5a5a);
        stream_free(in);
    }
    stream_free(out);
}

int main(void)
{
    test_reset();
    test_init_and_sipi();
    test_round_trip();
    test_refusals();
    test_truncation();
    CHECK_DONE();
}
