#include "engine/translate/native.h"
#include "engine/translate/special.h"
#include "engine/translate/system.h"
#include "engine/translate/x87.h"

#define ARITHMETIC                                                                                           \
    ((uint32_t)(ZYDIS_CPUFLAG_CF | ZYDIS_CPUFLAG_PF | ZYDIS_CPUFLAG_AF | ZYDIS_CPUFLAG_ZF |                  \
                ZYDIS_CPUFLAG_SF | ZYDIS_CPUFLAG_OF))

unsigned native_register(ZydisRegister reg)
{
    if (reg == ZYDIS_REGISTER_NONE)
        return EMIT_NONE;
    return (unsigned)ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
}

/* Categories whose instructions touch registers, flags and their explicit memory operand only. */
static bool plain_category(ZydisInstructionCategory category)
{
    switch (category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_BMI1:
    case ZYDIS_CATEGORY_BMI2:
    case ZYDIS_CATEGORY_LZCNT:
    case ZYDIS_CATEGORY_ADOX_ADCX:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_SEMAPHORE:
    case ZYDIS_CATEGORY_SSE:
        return true;
    default:
        return false;
    }
}

/* Mnemonics of those categories, and others, by name. -1: as the category says. */
static int by_mnemonic(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR: /* the host may allow bits that the model reserves */
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return 0;
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_CMC:
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL:
        return 1;
    default:
        return -1;
    }
}

/* Vector instructions by extension: everything on XMM and YMM registers. */
static bool vector_extension(const ZydisDecodedInstruction *insn)
{
    switch (insn->meta.isa_ext) {
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
        return true;
    default:
        return false;
    }
}

/* Notes a register operand; false when translated code cannot have it. */
static bool take_register(struct native *n, const ZydisDecodedOperand *operand)
{
    ZydisRegister reg = operand->reg.value;
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
        n->vector = true;
        return true;
    case ZYDIS_REGCLASS_FLAGS:
        return true;
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_X87:
        n->x87 = true;
        return true;
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        break;
    default: /* segment, control, x87, MMX, MXCSR ... */
        return reg == ZYDIS_REGISTER_MXCSR || reg == ZYDIS_REGISTER_X87CONTROL || reg == ZYDIS_REGISTER_X87STATUS ||
               reg == ZYDIS_REGISTER_X87TAG;
    }
    unsigned number = native_register(reg);
    /* A partial write keeps the rest of the register, so it reads too; so does a conditional one. */
    bool read = true, write = (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
    if (number == H_R10) {
        n->reads_r10 |= read;
        n->writes_r10 |= write;
    } else if (number == H_R11) {
        n->reads_r11 |= read;
        n->writes_r11 |= write;
    }
    return true;
}

static bool take_memory(struct native *n, const ZydisDecodedOperand *operand)
{
    if (operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
        return true;
    if (operand->mem.type != ZYDIS_MEMOP_TYPE_MEM || operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
        n->memory || operand->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
        return false;
    n->memory = operand;
    n->size = operand->size / 8;
    n->read = (operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
    n->write = (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
    return n->size == 1 || n->size == 2 || n->size == 4 || n->size == 8 || n->size == 16 || n->size == 32 ||
           (n->size == 10 && x87_encoding(&n->insn));
}

static bool high_byte(const struct native *n)
{
    for (unsigned i = 0; i < n->insn.operand_count; i++)
        if (n->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER && n->operand[i].reg.value >= ZYDIS_REGISTER_AH &&
            n->operand[i].reg.value <= ZYDIS_REGISTER_BH)
            return true;
    return false;
}

/* The count of a shift or rotation is a constant that is not zero. */
static bool shifts_for_sure(const struct native *n)
{
    for (unsigned i = 0; i < n->insn.operand_count; i++)
        if (n->operand[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return (n->operand[i].imm.value.u & (n->insn.operand_width == 64 ? 63 : 31)) != 0;
    return false;
}

static void note_flags(struct native *n)
{
    const ZydisAccessedFlags *flags = n->insn.cpu_flags;
    if (!flags)
        return;
    n->flags_read = (uint32_t)flags->tested & ARITHMETIC;
    n->flags_written = (uint32_t)(flags->modified | flags->set_0 | flags->set_1 | flags->undefined) & ARITHMETIC;
    n->flags_undefined = (uint32_t)flags->undefined & ARITHMETIC;
    /* A count of zero leaves the flags as they are. */
    bool shift = n->insn.meta.category == ZYDIS_CATEGORY_SHIFT || n->insn.meta.category == ZYDIS_CATEGORY_ROTATE;
    if (shift && !shifts_for_sure(n)) {
        n->flags_read |= n->flags_written;
        n->flags_written = 0;
    }
}

/* Branches and the stack. */
static enum native_kind flow_kind(struct native *n)
{
    const ZydisDecodedInstruction *insn = &n->insn;
    bool near64 = insn->operand_width == 64 && !(insn->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE);
    const ZydisDecodedOperand *first = &n->operand[0];
    bool memory = first->type == ZYDIS_OPERAND_TYPE_MEMORY;
    if (!near64)
        return NATIVE_NO;
    if (memory && !take_memory(n, first))
        return NATIVE_NO;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        if (insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            return NATIVE_NO;
        return first->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? NATIVE_JMP : NATIVE_JMP_INDIRECT;
    case ZYDIS_MNEMONIC_CALL:
        if (insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            return NATIVE_NO;
        return first->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? NATIVE_CALL : NATIVE_CALL_INDIRECT;
    case ZYDIS_MNEMONIC_RET:
        return insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || insn->raw.imm[0].size ? NATIVE_NO : NATIVE_RET;
    case ZYDIS_MNEMONIC_PUSH:
        if (memory)
            return NATIVE_NO;
        return first->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ||
                       ZydisRegisterGetClass(first->reg.value) == ZYDIS_REGCLASS_GPR64 ? NATIVE_PUSH : NATIVE_NO;
    case ZYDIS_MNEMONIC_POP:
        if (memory || ZydisRegisterGetClass(first->reg.value) != ZYDIS_REGCLASS_GPR64)
            return NATIVE_NO;
        return NATIVE_POP;
    default:
        return NATIVE_NO;
    }
}

static enum native_kind kind_of(struct native *n)
{
    const ZydisDecodedInstruction *insn = &n->insn;
    enum native_kind kind = system_kind(n);
    if (kind == NATIVE_NO)
        kind = special_kind(n);
    if (kind != NATIVE_NO)
        return kind;
    switch (insn->meta.category) {
    case ZYDIS_CATEGORY_PREFETCH:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_WIDENOP:
        return NATIVE_NOP;
    case ZYDIS_CATEGORY_COND_BR:
        return insn->opcode >= 0xe0 && insn->opcode <= 0xe3 && insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT
                   ? NATIVE_NO : NATIVE_JCC;
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
        return flow_kind(n);
    default:
        break;
    }
    if (insn->mnemonic == ZYDIS_MNEMONIC_LEA)
        return insn->address_width == 64 && !(insn->operand_width == 16 && n->operand[1].mem.base == ZYDIS_REGISTER_RIP)
                   ? NATIVE_LEA : NATIVE_NO;
    int named = by_mnemonic(insn->mnemonic);
    n->x87 = x87_encoding(insn) || insn->meta.isa_ext == ZYDIS_ISA_EXT_MMX;
    if (insn->mnemonic == ZYDIS_MNEMONIC_FLDCW)
        return take_memory(n, &n->operand[0]) ? NATIVE_FLDCW : NATIVE_NO;
    if (named == 0 || !x87_runs(insn) ||
        (named < 0 && !plain_category(insn->meta.category) && !vector_extension(insn) && !n->x87))
        return NATIVE_NO;
    if (insn->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
        return NATIVE_NO;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const ZydisDecodedOperand *operand = &n->operand[i];
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER && !take_register(n, operand))
            return NATIVE_NO;
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && !take_memory(n, operand))
            return NATIVE_NO;
    }
    if (vector_extension(insn) && !x87_encoding(insn))
        n->vector = true;
    if (!n->memory)
        return NATIVE_REGISTER;
    /* Of 16 bits, which special.c leaves alone: its address depends on the register. */
    bool bit_string = insn->meta.category == ZYDIS_CATEGORY_BITBYTE && n->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                      n->operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    if (bit_string || high_byte(n) || (n->reads_r10 && n->reads_r11))
        return NATIVE_NO;
    return NATIVE_MEMORY;
}

void native_classify(const ZydisDecoder *decoder, const uint8_t *bytes, unsigned length, struct native *ret_native)
{
    memset(ret_native, 0, offsetof(struct native, operand));
    ret_native->kind = NATIVE_NO;
    ret_native->memory = NULL;
    ret_native->size = 0;
    ret_native->read = ret_native->write = ret_native->vector = ret_native->x87 = ret_native->unlocked = false;
    ret_native->reads_r10 = ret_native->reads_r11 = ret_native->writes_r10 = ret_native->writes_r11 = false;
    ret_native->flags_read = ARITHMETIC; /* until known better */
    ret_native->flags_written = 0;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, length, &ret_native->insn, ret_native->operand)))
        return;
    if (ret_native->insn.address_width != 64 && ret_native->insn.meta.category != ZYDIS_CATEGORY_NOP)
        return;
    enum native_kind kind = kind_of(ret_native);
    if (kind == NATIVE_NO)
        return;
    ret_native->kind = kind;
    ret_native->flags_read = 0;
    note_flags(ret_native);
}

/* Where the parts of a legacy-encoded instruction are. */
static void emit_legacy(struct emit *e, const struct native *n, const uint8_t *bytes, unsigned modrm, unsigned address,
                        unsigned index)
{
    unsigned at = 0;
    for (; at < n->insn.raw.prefix_count; at++) {
        uint8_t prefix = bytes[at];
        bool rex = (prefix & 0xf0) == 0x40; /* the one that counts is made anew */
        bool segment = prefix == 0x26 || prefix == 0x2e || prefix == 0x36 || prefix == 0x3e || prefix == 0x64 ||
                       prefix == 0x65;
        if (!rex && !segment && !(prefix == 0xf0 && n->unlocked))
            emit8(e, prefix);
    }
    unsigned rex = 0;
    if (n->insn.attributes & ZYDIS_ATTRIB_HAS_REX)
        rex = bytes[n->insn.raw.rex.offset] & 0x0cu;
    emit8(e, 0x40 | rex | (index != EMIT_NONE ? (index >> 3) << 1 : 0) | address >> 3);
    if ((n->insn.attributes & ZYDIS_ATTRIB_HAS_REX) && at <= n->insn.raw.rex.offset)
        at = n->insn.raw.rex.offset + 1u;
    emit_bytes(e, bytes + at, modrm - at);
}

static void emit_vex(struct emit *e, const struct native *n, const uint8_t *bytes, unsigned modrm, unsigned address,
                     unsigned index)
{
    unsigned at = n->insn.raw.vex.offset;
    bool two = n->insn.raw.vex.size == 2;
    unsigned second = two ? (bytes[at + 1] & 0x80u) | 1 : bytes[at + 1] & 0x9fu;
    unsigned third = two ? bytes[at + 1] & 0x7fu : bytes[at + 2];
    emit8(e, 0xc4);
    emit8(e, second | (index == EMIT_NONE || index < 8 ? 0x40 : 0) | (address < 8 ? 0x20 : 0));
    emit8(e, third);
    at += n->insn.raw.vex.size;
    emit_bytes(e, bytes + at, modrm - at);
}

void native_emit_memory(struct emit *e, const struct native *n, const uint8_t *bytes, unsigned address, unsigned index,
                        int32_t disp)
{
    unsigned modrm = n->insn.raw.modrm.offset;
    if (n->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        emit_vex(e, n, bytes, modrm, address, index);
    else
        emit_legacy(e, n, bytes, modrm, address, index);
    unsigned mod = disp == 0 && (address & 7) != 5 ? 0 : disp >= -128 && disp < 128 ? 1 : 2;
    bool sib = index != EMIT_NONE || (address & 7) == 4;
    emit8(e, mod << 6 | (bytes[modrm] & 0x38u) | (sib ? 4u : address & 7));
    if (sib)
        emit8(e, (index != EMIT_NONE ? index & 7 : 4u) << 3 | (address & 7));
    if (mod == 1)
        emit8(e, (uint8_t)disp);
    else if (mod == 2)
        emit32(e, (uint32_t)disp);
    unsigned after = modrm + 1 + (n->insn.raw.modrm.rm == 4 ? 1 : 0) + n->insn.raw.disp.size / 8;
    emit_bytes(e, bytes + after, n->insn.length - after);
}
