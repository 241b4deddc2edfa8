/* x87.c - x87 and MMX instructions as host code.
 *
 * While a trace that uses them runs, the guest's x87 registers, tags, status and control word are in the host's
 * x87 unit (`x87_resident`). XSAVE and XRSTOR with only their lowest bit asked for move them, so that MXCSR
 * and the vector registers stay out of it. The guest's error pointers stay in x86_cpu.fx: they change only
 * when an unmasked exception becomes pending (exec_x87.c), which cannot happen here, because a guest with any
 * exception unmasked is interpreted. So no waiting instruction ever finds one pending either.
 *
 * Instructions that load or store the pointers, or that may unmask an exception, are interpreted; but FLDCW, which
 * compilers use for each conversion to an integer, looks at the value first (compile.c). */
#include "engine/translate/x87.h"

#include "isa/x86/vector.h"

#define FCW_MASKS 0x3fu
#define X87_AREA 576u /* of XSAVE: the legacy region and the header */
#define XSTATE_BV 512u

bool x87_encoding(const ZydisDecodedInstruction *insn)
{
    return insn->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
           (insn->opcode == 0x9b || (insn->opcode >= 0xd8 && insn->opcode <= 0xdf));
}

bool x87_runs(const ZydisDecodedInstruction *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
    case ZYDIS_MNEMONIC_CVTPI2PS: /* whether these touch the x87 state depends on the operand and the processor */
    case ZYDIS_MNEMONIC_CVTPI2PD:
    case ZYDIS_MNEMONIC_CVTPS2PI:
    case ZYDIS_MNEMONIC_CVTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPS2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
        return false;
    default:
        return true;
    }
}

bool x87_allowed(const struct x86_cpu *cpu)
{
    return !(cpu->cr0 & (X86_CR0_EM | X86_CR0_TS)) && (fx_get16(cpu, FX_FCW) & FCW_MASKS) == FCW_MASKS &&
           !(fx_get16(cpu, FX_FSW) & FSW_ES);
}

/* XSAVE wants its area on a 64-byte boundary, and the vCPU lies where it lies. */
static size_t area(const struct translate_vcpu *t)
{
    uintptr_t start = (uintptr_t)t + GS(x87_area);
    _Static_assert(sizeof t->x87_area >= X87_AREA + 63, "room to align");
    return GS(x87_area) + (size_t)(-start & 63);
}

/* XSAVE (group 4) or XRSTOR (5) of the x87 state alone: RFBM is 1. */
static void move_state(struct emit *e, unsigned group, size_t offset)
{
    emit_mov_imm(e, H_RAX, 1);
    emit_mov_imm(e, H_RDX, 0);
    emit8(e, 0x65);
    emit8(e, 0x0f);
    emit8(e, 0xae);
    emit8(e, group << 3 | 4);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offset);
}

/* Control, status and tag words lie in the first eight bytes, with the opcode, which is not the host's to tell. */
static void copy_words(struct emit *e, size_t to, size_t from)
{
    emit_gs(e, false, 0x8b, H_R10, from);
    emit_gs(e, false, 0x89, H_R10, to);
    emit8(e, 0x65); /* mov r10b, gs:[from + 4] */
    emit8(e, 0x44);
    emit8(e, 0x8a);
    emit8(e, 0x14);
    emit8(e, 0x25);
    emit32(e, (uint32_t)(from + FX_FTW));
    emit8(e, 0x65); /* mov gs:[to + 4], r10b */
    emit8(e, 0x44);
    emit8(e, 0x88);
    emit8(e, 0x14);
    emit8(e, 0x25);
    emit32(e, (uint32_t)(to + FX_FTW));
}

static void copy_registers(struct emit *e, size_t to, size_t from)
{
    for (size_t at = FX_ST; at < FX_ST + 128; at += 8) {
        emit_load(e, H_R10, from + at);
        emit_store(e, H_R10, to + at);
    }
}

static void set_resident(struct emit *e, unsigned value)
{
    emit8(e, 0x65); /* mov byte gs:[x87_resident], value */
    emit8(e, 0xc6);
    emit8(e, 0x04);
    emit8(e, 0x25);
    emit32(e, (uint32_t)GS(x87_resident));
    emit8(e, value);
}

void x87_emit_load(struct emit *e, const struct translate_vcpu *t)
{
    size_t image = area(t);
    copy_words(e, image, GS_CPU(fx));
    copy_registers(e, image, GS_CPU(fx));
    emit_mov_imm(e, H_RAX, 1);
    emit_store(e, H_RAX, image + XSTATE_BV);
    move_state(e, 5, image);
    set_resident(e, 1);
}

void x87_emit_save(struct emit *e, const struct translate_vcpu *t)
{
    size_t image = area(t);
    move_state(e, 4, image);
    copy_words(e, GS_CPU(fx), image);
    copy_registers(e, GS_CPU(fx), image);
    emit8(e, 0xdb); /* fninit: as the ABI wants it */
    emit8(e, 0xe3);
    set_resident(e, 0);
}
