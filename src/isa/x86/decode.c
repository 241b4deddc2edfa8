/* decode.c - bytes to struct x86_insn.
 *
 * Zydis says what the bytes are; fill_operands puts registers, memory and immediates where every exec
 * function looks for them; the family that owns the mnemonic gives the exec function. What Zydis refuses,
 * or the CPU model lacks, executes as #UD, so a caller has no error case. */
#include "isa/x86/decode.h"

#include <errno.h>
#include <string.h>

#include "isa/x86/core.h"
#include "isa/x86/hostcode.h"

int x86_decoder_init(struct x86_decoder *ret_decoder, const struct x86_cpuid *cpuid, struct error *error)
{
    static const struct {
        ZydisMachineMode mode;
        ZydisStackWidth stack;
    } mode[3] = {
        [X86_CODE16] = { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
        [X86_CODE32] = { ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
        [X86_CODE64] = { ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
    };

    const bool lzcnt = x86_cpuid_has(cpuid, X86_FEATURE(X86_WORD_81_ECX, 5));
    const bool tzcnt = x86_cpuid_has(cpuid, X86_FEATURE(X86_WORD_7_EBX, 3));

    memset(ret_decoder, 0, sizeof *ret_decoder);
    ret_decoder->cpuid = cpuid;
    for (unsigned i = 0; i < 3; i++) {
        ZydisDecoder *zydis = &ret_decoder->zydis[i];

        /* Without MPX and CET, which no model has, their encodings are the hint NOPs that they took over;
         * without LZCNT and BMI1, theirs are BSR and BSF. */
        if (!ZYAN_SUCCESS(ZydisDecoderInit(zydis, mode[i].mode, mode[i].stack)) ||
            !ZYAN_SUCCESS(ZydisDecoderEnableMode(zydis, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE)) ||
            !ZYAN_SUCCESS(ZydisDecoderEnableMode(zydis, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE)) ||
            !ZYAN_SUCCESS(ZydisDecoderEnableMode(zydis, ZYDIS_DECODER_MODE_LZCNT, lzcnt)) ||
            !ZYAN_SUCCESS(ZydisDecoderEnableMode(zydis, ZYDIS_DECODER_MODE_TZCNT, tzcnt)))
            return error_set(error, ENOTSUP, "setting up the instruction decoder: Zydis refused mode %u", i);
    }
    return 0;
}

void x86_decoder_destroy(struct x86_decoder *decoder)
{
    if (decoder == NULL)
        return;
    x86_hostcode_free(decoder->host);
    memset(decoder, 0, sizeof *decoder);
}

unsigned x86_register_number(ZydisRegister reg)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(reg);
    unsigned id = (unsigned)ZydisRegisterGetId(reg);

    switch (class) {
    case ZYDIS_REGCLASS_GPR8:
        if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
            return (unsigned)(reg - ZYDIS_REGISTER_AH) * 8 + 1;
        /* AL..BL, AH..BH, SPL..DIL, R8B.. are numbered in a row. */
        return (reg < ZYDIS_REGISTER_AH ? (unsigned)(reg - ZYDIS_REGISTER_AL)
                                        : (unsigned)(reg - ZYDIS_REGISTER_SPL) + 4) * 8;
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return id * 8;
    case ZYDIS_REGCLASS_IP:
        return X86_RIP * 8;
    case ZYDIS_REGCLASS_INVALID:
        return X86_ZERO * 8;
    default:
        return id;
    }
}

static void fill_memory(const struct x86_zydis *z, const ZydisDecodedOperand *operand, struct x86_insn *insn)
{
    const ZydisDecodedOperandMem *mem = &operand->mem;

    insn->base = (uint8_t)x86_register_number(mem->base);
    insn->index = (uint8_t)x86_register_number(mem->index);
    insn->scale = mem->scale > 1 ? (uint8_t)__builtin_ctz(mem->scale) : 0;
    insn->disp = (int32_t)mem->disp.value;
    if ((z->insn.raw.modrm.mod | (z->insn.raw.modrm.rm ^ 4)) == 0 && z->insn.raw.sib.base == 5 &&
        insn->addrsize != 2 && operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
        /* A displacement without base, whatever REX.B; Zydis 4.0 takes R13D under an address-size prefix. */
        insn->base = X86_ZERO * 8;
        insn->disp = (int32_t)z->insn.raw.disp.value;
    }
    insn->seg = mem->segment == ZYDIS_REGISTER_NONE ? X86_DS : (uint8_t)ZydisRegisterGetId(mem->segment);
    if (operand->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)
        insn->imm = mem->disp.value; /* moffs: up to 64 bits, so not a displacement */
    if (insn->mode == X86_CODE64 && insn->addrsize == 8 && insn->seg != X86_FS && insn->seg != X86_GS)
        insn->flags |= X86_INSN_FLAT;
    if (operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
        insn->flags |= X86_INSN_MEMORY;
}

/* F2 and F3 as repeat prefixes: the last one counts. MOVS, STOS, LODS, INS and OUTS repeat alike with both. */
static void fill_repeat(const struct x86_zydis *z, struct x86_insn *insn)
{
    ZydisInstructionCategory category = z->insn.meta.category;

    if (category != ZYDIS_CATEGORY_STRINGOP && category != ZYDIS_CATEGORY_IOSTRINGOP)
        return;
    for (unsigned i = 0; i < z->insn.raw.prefix_count; i++) {
        uint8_t prefix = z->insn.raw.prefixes[i].value;

        if (prefix != 0xf2 && prefix != 0xf3)
            continue;
        insn->flags = (uint16_t)(insn->flags & ~(X86_INSN_REP | X86_INSN_REPNE));
        insn->flags |= prefix == 0xf3 ? X86_INSN_REP : X86_INSN_REPNE;
    }
}

static void fill_immediate(const ZydisDecodedOperand *operand, bool first, struct x86_insn *insn)
{
    if (first)
        insn->imm = operand->imm.value.s;
    else
        insn->imm2 = (uint8_t)operand->imm.value.u;
}

static void fill_register(const ZydisDecodedOperand *operand, struct x86_insn *insn)
{
    uint8_t number = (uint8_t)x86_register_number(operand->reg.value);

    switch (operand->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_RM: insn->rm = number; break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD: insn->vvvv = number; break;
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
    case ZYDIS_OPERAND_ENCODING_OPCODE: insn->reg = number; break;
    default: break; /* implied, or the register in an immediate byte: for the family to find */
    }
}

static void fill_operands(const struct x86_zydis *z, struct x86_insn *insn)
{
    const ZydisDecodedOperand *memory = NULL;
    bool first_immediate = true;

    for (unsigned i = 0; i < z->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &z->operand[i];

        switch (operand->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            fill_register(operand, insn);
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            /* The encoded operand wins; of implied ones, what a prefix can override (not ES:rDI). */
            if (memory == NULL || operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
                (memory->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
                 memory->mem.segment == ZYDIS_REGISTER_ES))
                if (memory == NULL || memory->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
                    memory = operand;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            fill_immediate(operand, first_immediate, insn);
            first_immediate = false;
            break;
        case ZYDIS_OPERAND_TYPE_POINTER:
            insn->imm = (int64_t)((uint64_t)operand->ptr.segment << 32 | operand->ptr.offset);
            break;
        default:
            break;
        }
    }
    if (memory != NULL)
        fill_memory(z, memory, insn);
}

static x86_exec_fn *select_exec(const struct x86_zydis *z, struct x86_insn *insn)
{
    x86_exec_fn *exec;

    if (!x86_cpuid_allows(z->decoder->cpuid, &z->insn))
        return NULL;
    exec = x86_select_integer(z, insn);
    if (exec == NULL)
        exec = x86_select_system(z, insn);
    if (exec == NULL)
        exec = x86_select_vector(z, insn);
    return exec;
}

unsigned x86_decode(struct x86_decoder *decoder, enum x86_code_mode mode, const uint8_t *bytes,
                    size_t available, struct x86_insn *ret_insn)
{
    struct x86_zydis z __attribute__((uninitialized));
    size_t length = available < X86_INSN_MAX ? available : X86_INSN_MAX;
    ZyanStatus status;

    if (length == 0)
        return 0;
    z.decoder = decoder;
    status = ZydisDecoderDecodeFull(&decoder->zydis[mode], bytes, length, &z.insn, z.operand);
    if (status == ZYDIS_STATUS_NO_MORE_DATA && length < X86_INSN_MAX)
        return 0;

    memset(ret_insn, 0, sizeof *ret_insn);
    ret_insn->mode = (uint8_t)mode;
    ret_insn->base = ret_insn->index = X86_ZERO * 8;
    if (!ZYAN_SUCCESS(status)) {
        bool too_long = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG || status == ZYDIS_STATUS_NO_MORE_DATA;

        ret_insn->length = 1; /* it never completes; any length rewinds alike */
        ret_insn->bytes[0] = bytes[0];
        ret_insn->flags = X86_INSN_ENDS;
        ret_insn->exec = too_long ? x86_exec_gp : x86_exec_ud;
        return ret_insn->length;
    }
    ret_insn->length = z.insn.length;
    ret_insn->opsize = (uint8_t)(z.insn.operand_width / 8);
    ret_insn->addrsize = (uint8_t)(z.insn.address_width / 8);
    ret_insn->opcode = z.insn.opcode;
    ret_insn->modrm = bytes[z.insn.raw.modrm.offset];
    if (!(z.insn.attributes & ZYDIS_ATTRIB_HAS_MODRM))
        ret_insn->modrm = 0;
    if (z.insn.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        ret_insn->flags |= X86_INSN_LOCK;
    memcpy(ret_insn->bytes, bytes, z.insn.length);
    fill_repeat(&z, ret_insn);
    fill_operands(&z, ret_insn);
    ret_insn->exec = select_exec(&z, ret_insn);
    if (ret_insn->exec == NULL) {
        ret_insn->exec = x86_exec_ud;
        ret_insn->flags |= X86_INSN_ENDS;
    }
    return ret_insn->length;
}

void x86_exec_ud(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_raise_ud(core);
}

void x86_exec_gp(struct x86_core *core, const struct x86_insn *insn)
{
    (void)insn;
    x86_raise_gp(core, 0);
}
