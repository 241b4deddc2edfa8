#include "isa/x86/hostcode.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/codemem.h"

/* More than every possible thunk takes; only what is used is ever backed by memory. */
#define CODE_BYTES (8u << 20)
#define THUNK_BYTES 128u
#define KEY_BYTES 16u
#define FIRST_SLOTS 256u

struct slot {
    uint8_t key[KEY_BYTES]; /* length, use, normalised instruction; length 0: free */
    uint32_t offset;
};

struct x86_hostcode {
    struct codemem code;
    struct slot *slot; /* open addressing; at most half full */
    uint32_t slots, used;
};

/* A piece of code being put together. */
struct piece {
    uint8_t byte[THUNK_BYTES];
    unsigned length;
};

/* Where an operand sits in the thunk. */
enum place { PLACE_REG, PLACE_THIRD, PLACE_RM, PLACE_EXTRA, PLACES };
static const uint8_t place_vector[PLACES] = {1, 2, 3, 4};
static const uint8_t place_pointer[PLACES] = {6, 2, 7, 1}; /* rsi rdx rdi rcx, as ModRM.rm */

/* A vector or MMX operand to load before and store after. */
struct vector_use {
    bool present, read, written, mmx;
    uint8_t vector; /* host register */
    unsigned bytes; /* 8 16 32 */
};

struct plan {
    struct vector_use place[PLACES];
    bool vex, wide, mmx;
    bool gpr_reg, gpr_rm; /* ModRM.reg or .rm is a general register: rax */
    bool gpr_read, gpr_written;
    bool rax_read, rdx_read, rcx_written; /* implicit ones of PCMPxSTRx */
    bool memory;
};

int x86_hostcode_new(struct x86_hostcode **ret_host, struct error *error)
{
    struct x86_hostcode *host = calloc(1, sizeof *host);
    if (!host)
        return error_set(error, ENOMEM, "making the thunk cache: no memory");
    host->slots = FIRST_SLOTS;
    host->slot = calloc(host->slots, sizeof *host->slot);
    if (!host->slot) {
        free(host);
        return error_set(error, ENOMEM, "making the thunk cache: no memory");
    }
    int r = codemem_open(&host->code, CODE_BYTES, error);
    if (r < 0) {
        free(host->slot);
        free(host);
        return r;
    }
    *ret_host = host;
    return 0;
}

void x86_hostcode_free(struct x86_hostcode *host)
{
    if (!host)
        return;
    codemem_close(&host->code);
    free(host->slot);
    free(host);
}

static void put(struct piece *piece, const void *bytes, unsigned length)
{
    if (length <= THUNK_BYTES - piece->length)
        memcpy(piece->byte + piece->length, bytes, length);
    piece->length += length;
}

#define PUT(piece, ...) put(piece, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* ---- The cache ---- */

static struct slot *find_slot(struct slot *slot, uint32_t slots, const uint8_t key[KEY_BYTES])
{
    uint32_t hash = 2166136261u;
    for (unsigned i = 0; i < KEY_BYTES; i++)
        hash = (hash ^ key[i]) * 16777619u;
    uint32_t at = hash & (slots - 1);
    while (slot[at].key[0] && memcmp(slot[at].key, key, KEY_BYTES) != 0)
        at = (at + 1) & (slots - 1);
    return &slot[at];
}

static bool grow(struct x86_hostcode *host)
{
    if (host->used < host->slots / 2)
        return true;
    uint32_t slots = host->slots * 2;
    struct slot *slot = calloc(slots, sizeof *slot);
    if (!slot)
        return false;
    for (uint32_t i = 0; i < host->slots; i++)
        if (host->slot[i].key[0])
            *find_slot(slot, slots, host->slot[i].key) = host->slot[i];
    free(host->slot);
    host->slot = slot;
    host->slots = slots;
    return true;
}

static x86_thunk_fn *thunk_at(const struct x86_hostcode *host, uint32_t offset)
{
    x86_thunk_fn *fn;
    const void *code = host->code.exec + offset;
    memcpy(&fn, &code, sizeof fn);
    return fn;
}

static bool make_key(uint8_t key[KEY_BYTES], const struct piece *insn, unsigned use)
{
    if (insn->length > KEY_BYTES - 2)
        return false;
    memset(key, 0, KEY_BYTES);
    key[0] = (uint8_t)insn->length;
    key[1] = (uint8_t)use;
    memcpy(key + 2, insn->byte, insn->length);
    return true;
}

/* Gives the code that `body` holds a place and a slot. */
static x86_thunk_fn *keep(struct x86_hostcode *host, const uint8_t key[KEY_BYTES], const struct piece *body)
{
    if (body->length > THUNK_BYTES || !grow(host))
        return NULL;
    ptrdiff_t offset = codemem_take(&host->code, body->length);
    if (offset < 0)
        return NULL;
    memcpy(host->code.write + offset, body->byte, body->length);
    struct slot *slot = find_slot(host->slot, host->slots, key);
    memcpy(slot->key, key, KEY_BYTES);
    slot->offset = (uint32_t)offset;
    host->used++;
    return thunk_at(host, slot->offset);
}

/* ---- Vector instructions ---- */

static bool is_gpr(ZydisRegisterClass class)
{
    return class == ZYDIS_REGCLASS_GPR8 || class == ZYDIS_REGCLASS_GPR16 || class == ZYDIS_REGCLASS_GPR32 ||
           class == ZYDIS_REGCLASS_GPR64;
}

static void plan_vector(struct plan *plan, const ZydisDecodedOperand *operand, ZydisRegisterClass class)
{
    enum place place;
    bool implicit = operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    switch ((int)operand->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG: place = PLACE_REG; break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM: place = PLACE_RM; break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD: place = PLACE_THIRD; break;
    default: place = PLACE_EXTRA; break;
    }
    struct vector_use *use = &plan->place[place];
    use->present = true;
    use->vector = implicit ? 0 : place_vector[place];
    use->mmx = class == ZYDIS_REGCLASS_MMX;
    use->written = operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    /* A legacy form leaves the parts of its destination that it does not write. */
    use->read = (operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ) || !plan->vex;
    use->bytes = use->mmx ? 8 : class == ZYDIS_REGCLASS_YMM ? 32 : 16;
    plan->mmx |= use->mmx;
}

static void plan_gpr(struct plan *plan, const ZydisDecodedOperand *operand)
{
    bool read = operand->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    bool written = operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    if (operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
        int id = ZydisRegisterGetId(operand->reg.value);
        plan->rax_read |= id == 0 && read;
        plan->rdx_read |= id == 2 && read;
        plan->rcx_written |= id == 1 && written;
        return;
    }
    plan->gpr_reg |= operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
    plan->gpr_rm |= operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
    plan->gpr_read |= read;
    plan->gpr_written |= written;
}

static void plan_operands(struct plan *plan, const struct x86_zydis *z)
{
    memset(plan, 0, sizeof *plan);
    plan->vex = z->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    plan->wide = plan->vex && z->insn.raw.vex.L;
    for (unsigned i = 0; i < z->insn.operand_count; i++) {
        const ZydisDecodedOperand *operand = &z->operand[i];
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            plan->memory |= operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
        } else if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass class = ZydisRegisterGetClass(operand->reg.value);
            if (class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM || class == ZYDIS_REGCLASS_MMX)
                plan_vector(plan, operand, class);
            else if (is_gpr(class))
                plan_gpr(plan, operand);
        }
    }
}

/* Opcodes whose W chooses the size of a general register. Outside 64-bit code it is ignored there. */
static bool w_sizes_gpr(const ZydisDecodedInstruction *insn)
{
    switch (insn->opcode) {
    case 0x2a: case 0x2c: case 0x2d: case 0x6e: case 0x7e:
        return insn->opcode_map == ZYDIS_OPCODE_MAP_0F;
    case 0x16: case 0x22:
        return insn->opcode_map == ZYDIS_OPCODE_MAP_0F3A;
    default:
        return false;
    }
}

static void put_vex(struct piece *insn, const struct x86_zydis *z, const struct plan *plan)
{
    const ZydisDecodedInstruction *from = &z->insn;
    unsigned w = from->raw.vex.W;
    if (from->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 && w_sizes_gpr(from))
        w = 0;
    unsigned third = plan->place[PLACE_THIRD].present ? place_vector[PLACE_THIRD] : 0;
    PUT(insn, 0xc4, (uint8_t)(0xe0 | from->raw.vex.m_mmmm),
        (uint8_t)(w << 7 | (~third & 15) << 3 | (unsigned)from->raw.vex.L << 2 | from->raw.vex.pp));
}

static void put_legacy(struct piece *insn, const struct x86_zydis *z)
{
    const ZydisDecodedInstruction *from = &z->insn;
    for (unsigned i = 0; i < from->raw.prefix_count; i++)
        if (from->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            PUT(insn, from->raw.prefixes[i].value);
    if (from->raw.rex.W && from->machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
        PUT(insn, 0x48);
    PUT(insn, 0x0f);
    if (from->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        PUT(insn, 0x38);
    if (from->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        PUT(insn, 0x3a);
}

/* The instruction itself with its operands in their fixed places. */
static void put_normalised(struct piece *insn, const struct x86_zydis *z, const struct plan *plan)
{
    const ZydisDecodedInstruction *from = &z->insn;
    if (plan->vex)
        put_vex(insn, z, plan);
    else
        put_legacy(insn, z);
    PUT(insn, from->opcode);
    unsigned reg = from->raw.modrm.reg; /* an opcode extension, unless it names an operand */
    if (plan->gpr_reg)
        reg = 0;
    else if (plan->place[PLACE_REG].present)
        reg = place_vector[PLACE_REG];
    unsigned rm = plan->memory ? 7 : plan->gpr_rm ? 0 : 0xc0u | place_vector[PLACE_RM];
    if (plan->gpr_rm)
        rm |= 0xc0;
    PUT(insn, (uint8_t)(reg << 3 | rm));
    if (plan->vex && plan->place[PLACE_EXTRA].present && plan->place[PLACE_EXTRA].vector)
        PUT(insn, (uint8_t)(place_vector[PLACE_EXTRA] << 4)); /* is4 */
    else
        for (unsigned i = 0; i < 2; i++)
            if (from->raw.imm[i].size)
                PUT(insn, (uint8_t)from->raw.imm[i].value.u);
}

/* movq / movups / vmovups between a host vector register and [pointer]. */
static void put_move(struct piece *body, const struct plan *plan, enum place place, bool store)
{
    const struct vector_use *use = &plan->place[place];
    uint8_t modrm = (uint8_t)(use->vector << 3 | place_pointer[place]);
    if (use->mmx)
        PUT(body, 0x0f, store ? 0x7f : 0x6f, modrm);
    else if (!plan->vex)
        PUT(body, 0x0f, store ? 0x11 : 0x10, modrm);
    else if (store || use->bytes == 32)
        PUT(body, 0xc5, 0xfc, store ? 0x11 : 0x10, modrm);
    else
        PUT(body, 0xc5, 0xf8, 0x10, modrm);
}

#define IO(field) ((uint8_t)offsetof(struct x86_thunk_io, field))

static void put_flags_out(struct piece *body)
{
    PUT(body, 0x9c, 0x41, 0x8f, 0x40, IO(flags)); /* pushfq; pop [r8 + flags] */
}

static void put_vector_body(struct piece *body, const struct plan *plan, const struct piece *insn, unsigned use)
{
    for (enum place place = 0; place < PLACES; place++)
        if (plan->place[place].present && plan->place[place].read)
            put_move(body, plan, place, false);
    if (plan->gpr_read || plan->rax_read)
        PUT(body, 0x49, 0x8b, 0x40, IO(rax));
    if (plan->rdx_read)
        PUT(body, 0x49, 0x8b, 0x50, IO(rdx));
    if (use & X86_THUNK_MXCSR)
        PUT(body, 0x41, 0x0f, 0xae, 0x50, IO(mxcsr)); /* ldmxcsr */
    put(body, insn->byte, insn->length);
    if (use & X86_THUNK_FLAGS)
        put_flags_out(body);
    if (use & X86_THUNK_MXCSR)
        PUT(body, 0x41, 0x0f, 0xae, 0x58, IO(mxcsr_out)); /* stmxcsr */
    for (enum place place = 0; place < PLACES; place++)
        if (plan->place[place].present && plan->place[place].written)
            put_move(body, plan, place, true);
    if (plan->gpr_written)
        PUT(body, 0x49, 0x89, 0x40, IO(rax));
    if (plan->rcx_written)
        PUT(body, 0x49, 0x89, 0x48, IO(rcx));
    if (plan->mmx)
        PUT(body, 0x0f, 0x77); /* emms */
    if (plan->wide)
        PUT(body, 0xc5, 0xf8, 0x77); /* vzeroupper */
    PUT(body, 0xc3);
}

x86_thunk_fn *x86_hostcode_vector(struct x86_hostcode *host, const struct x86_zydis *z, unsigned use)
{
    struct plan plan;
    struct piece insn = {.length = 0}, body = {.length = 0};
    uint8_t key[KEY_BYTES];
    plan_operands(&plan, z);
    put_normalised(&insn, z, &plan);
    if (!make_key(key, &insn, use))
        return NULL;
    const struct slot *slot = find_slot(host->slot, host->slots, key);
    if (slot->key[0])
        return thunk_at(host, slot->offset);
    put_vector_body(&body, &plan, &insn, use);
    return keep(host, key, &body);
}

/* ---- x87 ---- */

x86_thunk_fn *x86_hostcode_x87(struct x86_hostcode *host, const struct x86_zydis *z, unsigned use)
{
    struct piece insn = {.length = 0}, body = {.length = 0};
    uint8_t key[KEY_BYTES];
    bool memory = z->insn.raw.modrm.mod != 3;
    /* The environment has a 16-bit form (14 bytes, FSAVE: 94). */
    if (memory && (z->operand[0].size == 14 * 8 || z->operand[0].size == 94 * 8))
        PUT(&insn, 0x66);
    unsigned modrm = memory ? 7u : 0xc0u | z->insn.raw.modrm.rm;
    PUT(&insn, z->insn.opcode, (uint8_t)(modrm | (unsigned)z->insn.raw.modrm.reg << 3));
    if (!make_key(key, &insn, use | 0x80))
        return NULL;
    const struct slot *slot = find_slot(host->slot, host->slots, key);
    if (slot->key[0])
        return thunk_at(host, slot->offset);
    PUT(&body, 0x48, 0x0f, 0xae, 0x0e); /* fxrstor64 [rsi] */
    if (use & X86_THUNK_FLAGS_IN)
        PUT(&body, 0x41, 0xff, 0x70, IO(flags), 0x9d); /* push [r8 + flags]; popfq */
    put(&body, insn.byte, insn.length);
    if (use & X86_THUNK_FLAGS)
        put_flags_out(&body);
    PUT(&body, 0x48, 0x0f, 0xae, 0x06); /* fxsave64 [rsi]: does not look at pending exceptions */
    /* Leave the unit empty: with an exception pending by FNINIT, which does not look at them either; else
     * by EMMS and FLDCW, which are ten times as fast. */
    PUT(&body, 0xf6, 0x46, 0x02, 0x80, 0x74, 0x03);          /* test byte [rsi + FSW], ES; jz 1f */
    PUT(&body, 0xdb, 0xe3, 0xc3);                            /* fninit; ret */
    PUT(&body, 0x0f, 0x77, 0x41, 0xd9, 0x68, IO(host_fcw), 0xc3); /* 1: emms; fldcw [r8 + host_fcw]; ret */
    return keep(host, key, &body);
}
