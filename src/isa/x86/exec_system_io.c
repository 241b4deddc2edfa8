/* exec_system_io.c - ports: IN, OUT, INS, OUTS. */
#include "isa/x86/exception.h"
#include "isa/x86/system.h"

#define REPEAT_CHUNK 256u /* iterations before the runner may take an interrupt */

/* IOPL, then the TSS's I/O permission bitmap; #GP(0). */
static void check_port(struct x86_core *core, uint16_t port, unsigned size)
{
    const struct x86_cpu *cpu = &core->cpu;
    if (!(cpu->cr0 & X86_CR0_PE) || (!x86_v86(cpu) && x86_cpl(cpu) <= x86_iopl(cpu)))
        return;
    if (!(cpu->tr.attr & X86_ATTR_P) || (cpu->tr.attr & 15) < 9 || cpu->tr.limit < 103)
        x86_raise_gp(core, 0);
    uint32_t at = (uint32_t)x86_load_system(core, cpu->tr.base + 102, 2) + port / 8u;
    if (at + 1 > cpu->tr.limit)
        x86_raise_gp(core, 0);
    uint32_t map = (uint32_t)x86_load_system(core, cpu->tr.base + at, 2);
    if (map >> (port & 7) & ((1u << size) - 1))
        x86_raise_gp(core, 0);
}

/* Notes I/O breakpoints for a trap after the instruction. */
static void watch_port(struct x86_core *core, uint16_t port, unsigned size)
{
    const struct x86_cpu *cpu = &core->cpu;
    if (!(cpu->dr[7] & 0xff) || !(cpu->cr4 & X86_CR4_DE))
        return;
    for (unsigned i = 0; i < 4; i++) {
        static const uint8_t sizes[] = {1, 2, 8, 4};
        unsigned control = cpu->dr[7] >> (16 + 4 * i) & 15, length = sizes[control >> 2];
        uint64_t at = cpu->dr[i] & ~(uint64_t)(length - 1);
        if ((cpu->dr[7] >> (2 * i) & 3) && (control & 3) == 2 && port < at + length && at < (uint64_t)port + size)
            core->pending_dr6 |= UINT64_C(1) << i;
    }
}

static uint16_t port_operand(const struct x86_core *core, const struct x86_insn *insn)
{
    return insn->sub ? (uint16_t)core->cpu.reg[X86_RDX] : (uint8_t)insn->imm;
}

static void in(struct x86_core *core, const struct x86_insn *insn)
{
    uint16_t port = port_operand(core, insn);
    uint64_t *rax = &core->cpu.reg[X86_RAX];
    check_port(core, port, insn->opsize);
    uint32_t value = core->env->port_in(core->owner, port, insn->opsize);
    if (insn->opsize == 1)
        *rax = (*rax & ~UINT64_C(0xff)) | (uint8_t)value;
    else
        x86_gpr_set(core, 0, insn->opsize, value);
    watch_port(core, port, insn->opsize);
}

static void out(struct x86_core *core, const struct x86_insn *insn)
{
    uint16_t port = port_operand(core, insn);
    uint32_t value = (uint32_t)core->cpu.reg[X86_RAX];
    check_port(core, port, insn->opsize);
    if (insn->opsize < 4)
        value &= (1u << 8 * insn->opsize) - 1;
    core->env->port_out(core->owner, port, insn->opsize, value);
    watch_port(core, port, insn->opsize);
}

static uint64_t address_mask(const struct x86_insn *insn)
{
    return insn->addrsize == 8 ? UINT64_MAX : insn->addrsize == 4 ? UINT32_MAX : UINT16_MAX;
}

/* Adds to a count or index register at the address size. */
static void advance(struct x86_core *core, enum x86_reg reg, const struct x86_insn *insn, uint64_t by)
{
    uint64_t *at = &core->cpu.reg[reg], mask = address_mask(insn);
    *at = insn->addrsize == 2 ? (*at & ~mask) | ((*at + by) & mask) : (*at + by) & mask;
}

static uint64_t string_linear(struct x86_core *core, const struct x86_insn *insn, enum x86_seg seg,
                              enum x86_reg index, bool write)
{
    return x86_linear_access(core, seg, core->cpu.reg[index] & address_mask(insn), insn->opsize, write);
}

/* One INS: the destination is probed first, since a port read cannot be taken back. */
static void ins_once(struct x86_core *core, const struct x86_insn *insn, uint16_t port)
{
    uint64_t linear = string_linear(core, insn, X86_ES, X86_RDI, true);
    x86_probe_write(core, linear, insn->opsize);
    uint32_t value = core->env->port_in(core->owner, port, insn->opsize);
    x86_store_bytes(core, linear, &value, insn->opsize);
    advance(core, X86_RDI, insn, core->cpu.rflags & X86_FLAG_DF ? (uint64_t)0 - insn->opsize : insn->opsize);
}

static void outs_once(struct x86_core *core, const struct x86_insn *insn, uint16_t port)
{
    uint32_t value = 0;
    x86_load_bytes(core, string_linear(core, insn, insn->seg, X86_RSI, false), &value, insn->opsize);
    core->env->port_out(core->owner, port, insn->opsize, value);
    advance(core, X86_RSI, insn, core->cpu.rflags & X86_FLAG_DF ? (uint64_t)0 - insn->opsize : insn->opsize);
}

/* INS and OUTS (sub 1). A repeated one does a chunk and then comes back to itself, so that interrupts and
 * single steps get in between; a fault finds the registers as of the last whole iteration. */
static void string_io(struct x86_core *core, const struct x86_insn *insn)
{
    uint16_t port = (uint16_t)core->cpu.reg[X86_RDX];
    bool repeat = (insn->flags & (X86_INSN_REP | X86_INSN_REPNE)) != 0;
    unsigned chunk = core->debug_armed ? 1 : REPEAT_CHUNK;
    check_port(core, port, insn->opsize); /* also with a count of zero */
    if (repeat && !(core->cpu.reg[X86_RCX] & address_mask(insn)))
        return;
    for (unsigned i = 0; i < chunk; i++) {
        if (insn->sub)
            outs_once(core, insn, port);
        else
            ins_once(core, insn, port);
        watch_port(core, port, insn->opsize);
        if (!repeat)
            return;
        advance(core, X86_RCX, insn, UINT64_MAX);
        if (!(core->cpu.reg[X86_RCX] & address_mask(insn)))
            return;
    }
    core->cpu.reg[X86_RIP] -= insn->length;
}

static x86_exec_fn *select_string(struct x86_insn *insn, unsigned size, bool output)
{
    insn->opsize = (uint8_t)size;
    insn->sub = output;
    insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
    return string_io;
}

x86_exec_fn *x86_select_system_io(const struct x86_zydis *z, struct x86_insn *insn)
{
    switch (z->insn.mnemonic) {
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
        insn->sub = (insn->opcode & 8) != 0; /* EC-EF: the port is in DX */
        insn->opsize = insn->opcode & 1 ? insn->opsize : 1;
        if (insn->opsize == 8)
            insn->opsize = 4;
        insn->flags |= X86_INSN_ENDS | X86_INSN_PRIVILEGED;
        return z->insn.mnemonic == ZYDIS_MNEMONIC_IN ? in : out;
    case ZYDIS_MNEMONIC_INSB: return select_string(insn, 1, false);
    case ZYDIS_MNEMONIC_INSW: return select_string(insn, 2, false);
    case ZYDIS_MNEMONIC_INSD: return select_string(insn, 4, false);
    case ZYDIS_MNEMONIC_OUTSB: return select_string(insn, 1, true);
    case ZYDIS_MNEMONIC_OUTSW: return select_string(insn, 2, true);
    case ZYDIS_MNEMONIC_OUTSD: return select_string(insn, 4, true);
    default: return NULL;
    }
}
