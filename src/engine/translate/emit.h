/* emit.h - writes x86-64 host instructions.
 *
 * Registers are hardware numbers, 0 to 15. Guest state is reached through GS: a `gs` operand is an offset
 * from the start of struct translate_vcpu, optionally plus an index register. An emitter that runs out of
 * room drops bytes and sets `full`; the caller looks once, at the end. */
#ifndef VENEER_ENGINE_TRANSLATE_EMIT_H
#define VENEER_ENGINE_TRANSLATE_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum host_reg {
    H_RAX, H_RCX, H_RDX, H_RBX, H_RSP, H_RBP, H_RSI, H_RDI,
    H_R8, H_R9, H_R10, H_R11, H_R12, H_R13, H_R14, H_R15
};

/* Condition codes, as in Jcc. */
enum host_cc { CC_B = 2, CC_AE = 3, CC_E = 4, CC_NE = 5, CC_BE = 6, CC_A = 7 };

struct emit {
    uint8_t *start, *at, *end;
    bool full;
};

static inline uint32_t emit_offset(const struct emit *e) { return (uint32_t)(e->at - e->start); }

static inline void emit_bytes(struct emit *e, const void *bytes, size_t length)
{
    if (length > (size_t)(e->end - e->at)) {
        e->full = true;
        return;
    }
    memcpy(e->at, bytes, length);
    e->at += length;
}
static inline void emit8(struct emit *e, unsigned byte)
{
    uint8_t value = (uint8_t)byte;
    emit_bytes(e, &value, 1);
}
static inline void emit32(struct emit *e, uint32_t value) { emit_bytes(e, &value, 4); }
static inline void emit64(struct emit *e, uint64_t value) { emit_bytes(e, &value, 8); }

/* REX.W with the high bits of the ModRM fields. */
static inline void emit_rex(struct emit *e, bool wide, unsigned reg, unsigned index, unsigned base)
{
    emit8(e, 0x40u | (wide ? 8u : 0u) | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3);
}

/* opcode with ModRM operands reg, gs:[offset]. */
static inline void emit_gs(struct emit *e, bool wide, unsigned opcode, unsigned reg, size_t offset)
{
    emit8(e, 0x65);
    emit_rex(e, wide, reg, 0, 0);
    emit8(e, opcode);
    emit8(e, (reg & 7) << 3 | 4);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offset);
}
/* opcode with ModRM operands reg, gs:[index + offset]. index is not RSP. */
static inline void emit_gs_index(struct emit *e, bool wide, unsigned opcode, unsigned reg, unsigned index,
                                 size_t offset)
{
    emit8(e, 0x65);
    emit_rex(e, wide, reg, 0, index);
    emit8(e, opcode);
    if ((index & 7) == 4) { /* R12 needs a SIB byte */
        emit8(e, 0x80 | (reg & 7) << 3 | 4);
        emit8(e, 0x24);
    } else {
        emit8(e, 0x80 | (reg & 7) << 3 | (index & 7));
    }
    emit32(e, (uint32_t)offset);
}
static inline void emit_load(struct emit *e, unsigned reg, size_t offset) { emit_gs(e, true, 0x8b, reg, offset); }
static inline void emit_store(struct emit *e, unsigned reg, size_t offset) { emit_gs(e, true, 0x89, reg, offset); }

static inline void emit_mov(struct emit *e, unsigned to, unsigned from)
{
    emit_rex(e, true, from, 0, to);
    emit8(e, 0x89);
    emit8(e, 0xc0 | (from & 7) << 3 | (to & 7));
}

/* The shortest MOV of a constant; leaves the flags. */
static inline void emit_mov_imm(struct emit *e, unsigned reg, uint64_t value)
{
    if (value == (uint32_t)value) {
        if (reg >= 8)
            emit8(e, 0x41);
        emit8(e, 0xb8 | (reg & 7));
        emit32(e, (uint32_t)value);
    } else if ((int64_t)value == (int32_t)value) {
        emit_rex(e, true, 0, 0, reg);
        emit8(e, 0xc7);
        emit8(e, 0xc0 | (reg & 7));
        emit32(e, (uint32_t)value);
    } else {
        emit_rex(e, true, 0, 0, reg);
        emit8(e, 0xb8 | (reg & 7));
        emit64(e, value);
    }
}

#define EMIT_NONE 16u /* no base, or no index */

/* LEA to, [base + index << scale + disp], 64 bits wide; at least one register. */
static inline void emit_lea(struct emit *e, unsigned to, unsigned base, unsigned index, unsigned scale, int32_t disp)
{
    bool has_base = base != EMIT_NONE, has_index = index != EMIT_NONE;
    bool small = disp >= -128 && disp < 128;
    unsigned mod = !has_base ? 0 : small ? 1 : 2;
    emit_rex(e, true, to, has_index ? index : 0, has_base ? base : 0);
    emit8(e, 0x8d);
    if (has_index || !has_base || (base & 7) == 4) {
        emit8(e, mod << 6 | (to & 7) << 3 | 4);
        emit8(e, scale << 6 | (has_index ? index & 7 : 4u) << 3 | (has_base ? base & 7 : 5u));
    } else {
        emit8(e, mod << 6 | (to & 7) << 3 | (base & 7));
    }
    if (mod == 1)
        emit8(e, (uint8_t)disp);
    else
        emit32(e, (uint32_t)disp);
}

/* RORX to, from, count (BMI2; 64 bits; leaves the flags). */
static inline void emit_rorx(struct emit *e, unsigned to, unsigned from, unsigned count)
{
    emit8(e, 0xc4);
    emit8(e, (to < 8 ? 0x80u : 0) | 0x40 | (from < 8 ? 0x20u : 0) | 3);
    emit8(e, 0xfb);
    emit8(e, 0xf0);
    emit8(e, 0xc0 | (to & 7) << 3 | (from & 7));
    emit8(e, count);
}
/* PEXT to, from, gs:[offset] (BMI2; 64 bits; leaves the flags). */
static inline void emit_pext(struct emit *e, unsigned to, unsigned from, size_t offset)
{
    emit8(e, 0x65);
    emit8(e, 0xc4);
    emit8(e, (to < 8 ? 0x80u : 0) | 0x60 | 2);
    emit8(e, 0x80 | (~from & 15) << 3 | 2);
    emit8(e, 0xf5);
    emit8(e, (to & 7) << 3 | 4);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offset);
}
/* ADD reg, gs:[index + offset] (sets the flags). */
static inline void emit_add_gs_index(struct emit *e, unsigned reg, unsigned index, size_t offset)
{
    emit_gs_index(e, true, 0x03, reg, index, offset);
}
/* AND reg32, imm32; CMP reg64, imm32. */
static inline void emit_and_imm(struct emit *e, unsigned reg, uint32_t value)
{
    emit_rex(e, false, 0, 0, reg);
    emit8(e, 0x81);
    emit8(e, 0xe0 | (reg & 7));
    emit32(e, value);
}
static inline void emit_cmp_imm(struct emit *e, unsigned reg, uint32_t value)
{
    emit_rex(e, true, 0, 0, reg);
    emit8(e, 0x81);
    emit8(e, 0xf8 | (reg & 7));
    emit32(e, value);
}

/* Jumps with a 32-bit displacement to be filled in; each returns the offset of that field. */
static inline uint32_t emit_jmp(struct emit *e)
{
    emit8(e, 0xe9);
    emit32(e, 0);
    return emit_offset(e) - 4;
}
static inline uint32_t emit_jcc(struct emit *e, unsigned cc)
{
    emit8(e, 0x0f);
    emit8(e, 0x80 | cc);
    emit32(e, 0);
    return emit_offset(e) - 4;
}
/* JRCXZ over what follows: returns the offset of its 8-bit field. */
static inline uint32_t emit_jrcxz(struct emit *e)
{
    emit8(e, 0xe3);
    emit8(e, 0);
    return emit_offset(e) - 1;
}
static inline void emit_patch8(struct emit *e, uint32_t field)
{
    if (!e->full)
        e->start[field] = (uint8_t)(emit_offset(e) - field - 1);
}
/* Makes the 32-bit displacement at `field` lead to `target` (offsets in the same memory). */
static inline void emit_patch32(uint8_t *start, uint32_t field, uint32_t target)
{
    uint32_t displacement = target - (field + 4);
    memcpy(start + field, &displacement, 4);
}
static inline void emit_jmp_to(struct emit *e, uint32_t target)
{
    uint32_t field = emit_jmp(e);
    if (!e->full)
        emit_patch32(e->start, field, target);
}
/* JMP gs:[offset] */
static inline void emit_jmp_gs(struct emit *e, size_t offset)
{
    emit8(e, 0x65);
    emit8(e, 0xff);
    emit8(e, 0x24);
    emit8(e, 0x25);
    emit32(e, (uint32_t)offset);
}

#endif
