/* guest.c - see guest.h. */
#include "guest.h"

#include <string.h>

/* Guest-physical addresses. */
#define PML4 0x1000u
#define TABLES 0x2000u /* and on, as needed */
#define GDT 0x40000u
#define TSS 0x41000u
#define IDT 0x42000u
#define HANDLERS 0x43000u
#define STACK_TOP 0x50000u

/* The same pages for the supervisor: linear = physical + SUPERVISOR. */
#define SUPERVISOR UINT64_C(0xffff800000000000)

#define PTE_P 1u
#define PTE_W 2u
#define PTE_U 4u
#define PTE_NX (UINT64_C(1) << 63)

#define ATTR_CODE64 0xa0fbu
#define ATTR_CODE32 0xc0fbu
#define ATTR_DATA 0xc0f3u
#define ATTR_KERNEL_CODE 0xa09bu

struct builder {
    uint8_t *ram;
    uint32_t next; /* free table page */
};

static void put64(uint8_t *ram, uint64_t at, uint64_t value) { memcpy(ram + at, &value, 8); }

static uint64_t get64(const uint8_t *ram, uint64_t at)
{
    uint64_t value;

    memcpy(&value, ram + at, 8);
    return value;
}

static void map_page(struct builder *b, uint64_t linear, uint64_t physical, uint64_t bits)
{
    uint64_t table = PML4;

    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t slot = table + (linear >> shift & 511) * 8;

        if (get64(b->ram, slot) == 0) {
            put64(b->ram, slot, b->next | PTE_P | PTE_W | PTE_U);
            b->next += 0x1000;
        }
        table = get64(b->ram, slot) & ~UINT64_C(0xfff);
    }
    put64(b->ram, table + (linear >> 12 & 511) * 8, physical | bits);
}

static void put_descriptor(uint8_t *ram, unsigned index, uint16_t attr)
{
    put64(ram, GDT + index * 8, UINT64_C(0x000f00000000ffff) | (uint64_t)attr << 40);
}

/* As Linux lays it out: 32-bit and 64-bit kernel code, kernel data, 32-bit user code, user data, 64-bit user code, TSS. */
static void put_gdt(uint8_t *ram)
{
    uint64_t base = SUPERVISOR + TSS;

    put_descriptor(ram, 1, 0xc09b);
    put_descriptor(ram, 2, ATTR_KERNEL_CODE);
    put_descriptor(ram, 3, 0xc093);
    put_descriptor(ram, 4, ATTR_CODE32);
    put_descriptor(ram, 5, ATTR_DATA);
    put_descriptor(ram, 6, ATTR_CODE64);
    put64(ram, GDT + 15 * 8, UINT64_C(0x0040f50000000000)); /* the CPU number, by LSL */
    put64(ram, GDT + 8 * 8, 0x67 | (base & 0xffffff) << 16 | UINT64_C(0x8b) << 40 | (base >> 24 & 0xff) << 56);
    put64(ram, GDT + 9 * 8, base >> 32);
    put64(ram, TSS + 4, SUPERVISOR + STACK_TOP);
    ram[TSS + 102] = 0x68; /* no I/O permission bitmap */
}

static void put_idt(uint8_t *ram)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t handler = SUPERVISOR + HANDLERS + vector * 16;
        uint64_t gate = vector == 3 || vector == 4 ? 0xee : 0x8e; /* INT3 and INTO from CPL 3 */

        ram[HANDLERS + vector * 16] = 0xf4;
        put64(ram, IDT + vector * 16, (handler & 0xffff) | 0x10u << 16 | gate << 40 | (handler >> 16 & 0xffff) << 48);
        put64(ram, IDT + vector * 16 + 8, handler >> 32);
    }
}

static struct x86_segment segment(uint16_t selector)
{
    uint32_t attr = selector == EQ_CS64 ? ATTR_CODE64 : selector == EQ_CS32 ? ATTR_CODE32 : ATTR_DATA;

    return (struct x86_segment){.selector = selector, .attr = selector == 0 ? X86_ATTR_UNUSABLE : attr,
                                .limit = selector == 0 ? 0 : UINT32_MAX};
}

void guest_build(uint8_t *ram, struct x86_cpu *ret_cpu)
{
    struct builder b = {.ram = ram, .next = TABLES};

    for (unsigned i = 0; i < EQ_WINDOWS; i++) {
        const struct eq_window *w = &eq_windows[i];

        map_page(&b, w->linear, GUEST_IMAGE + w->page * EQ_PAGE,
                 PTE_P | PTE_U | (w->prot & EQ_W ? PTE_W : 0) | (w->prot & EQ_X ? 0 : PTE_NX));
    }
    for (uint64_t page = GDT; page < STACK_TOP; page += EQ_PAGE)
        map_page(&b, SUPERVISOR + page, page, PTE_P | PTE_W);
    put_gdt(ram);
    put_idt(ram);

    x86_cpu_reset(ret_cpu, true);
    ret_cpu->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
    ret_cpu->cr3 = PML4;
    ret_cpu->cr4 = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_UMIP | X86_CR4_FSGSBASE |
                   X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_SMAP;
    ret_cpu->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    ret_cpu->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX;
    ret_cpu->gdtr = (struct x86_table){.base = SUPERVISOR + GDT, .limit = 0x7f};
    ret_cpu->idtr = (struct x86_table){.base = SUPERVISOR + IDT, .limit = 0xfff};
    ret_cpu->tr = (struct x86_segment){.selector = 0x40, .attr = 0x8b, .limit = 0x67, .base = SUPERVISOR + TSS};
    ret_cpu->ldtr = (struct x86_segment){.attr = X86_ATTR_UNUSABLE};
}

void guest_enter(const struct eq_case *c, struct x86_cpu *cpu)
{
    const struct eq_state *s = &c->state;

    memcpy(cpu->reg, s->gpr, sizeof s->gpr);
    cpu->reg[X86_RIP] = s->rip;
    cpu->rflags = s->rflags;
    for (unsigned i = 0; i < X86_SEGS; i++)
        cpu->seg[i] = segment(s->seg[i]);
    cpu->seg[X86_FS].base = s->fs_base;
    cpu->seg[X86_GS].base = s->gs_base;
    memcpy(cpu->fx, s->fx, sizeof s->fx);
    memcpy(cpu->ymm, s->ymm, sizeof s->ymm);
    cpu->activity = X86_RUNNING;
    cpu->cr2 = 0;
    cpu->dr[6] = 0xffff0ff0;
    cpu->mov_ss_shadow = cpu->sti_shadow = false;
    memset(&cpu->event, 0, sizeof cpu->event);
}

static bool pushes_error(unsigned vector) { return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; }

bool guest_leave(const uint8_t *ram, const struct x86_cpu *cpu, struct eq_result *ret_result)
{
    struct eq_state *s = &ret_result->state;
    uint64_t handler = cpu->reg[X86_RIP] - SUPERVISOR - HANDLERS;
    uint64_t frame = STACK_TOP - 40;

    if (x86_cpl(cpu) != 0 || handler >= 256 * 16)
        return false;
    ret_result->vector = (uint8_t)(handler / 16);
    if (pushes_error(ret_result->vector))
        ret_result->error_code = (uint32_t)get64(ram, frame - 8);
    ret_result->cr2 = ret_result->vector == 14 ? cpu->cr2 : 0;
    memcpy(s->gpr, cpu->reg, sizeof s->gpr);
    s->rip = get64(ram, frame);
    s->rflags = get64(ram, frame + 16);
    s->gpr[X86_RSP] = get64(ram, frame + 24);
    for (unsigned i = 0; i < X86_SEGS; i++)
        s->seg[i] = cpu->seg[i].selector;
    s->seg[X86_CS] = (uint16_t)get64(ram, frame + 8);
    s->seg[X86_SS] = (uint16_t)get64(ram, frame + 32);
    s->fs_base = cpu->seg[X86_FS].base;
    s->gs_base = cpu->seg[X86_GS].base;
    memcpy(s->fx, cpu->fx, sizeof s->fx);
    memcpy(s->ymm, cpu->ymm, sizeof s->ymm);
    return true;
}
