/* flags.h - guest arithmetic flags from the host's own instructions.
 *
 * An operation runs on the host inside inline assembly that ends in X86_FLAGS_OUT: AH then holds
 * SF ZF AF PF CF as LAHF gives them, AL the overflow flag. x86_flags_merge puts them into RFLAGS. Where
 * an instruction reads flags, or leaves some of them as they were (architecturally, or because they are
 * undefined and the host happens to), X86_FLAGS_IN loads all six from x86_flags_ax before it; so even
 * undefined flags come out as this host's hardware gives them. */
#ifndef VENEER_ISA_X86_FLAGS_H
#define VENEER_ISA_X86_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "isa/x86/state.h"

#define X86_FLAGS_IN "addb $0x7f, %%al\n\tsahf\n\t" /* AL was 0 or 1: adding 7Fh overflows for 1 */
#define X86_FLAGS_OUT "\n\tlahf\n\tseto %%al"

/* RFLAGS with the six arithmetic flags from X86_FLAGS_OUT. AH's bits 1, 3 and 5 are RFLAGS' fixed bits. */
static inline uint64_t x86_flags_merge(uint64_t rflags, uint32_t ax)
{
    return (rflags & ~(uint64_t)X86_FLAGS_ARITH) | ((ax >> 8) & 0xff) | ((ax & 1) << 11);
}

/* As x86_flags_merge, but CF stays: INC and DEC. */
static inline uint64_t x86_flags_merge_keep_carry(uint64_t rflags, uint32_t ax)
{
    return (rflags & ~(uint64_t)(X86_FLAGS_ARITH & ~X86_FLAG_CF)) | ((ax >> 8) & 0xfe) | ((ax & 1) << 11);
}

/* What X86_FLAGS_IN expects in AX. */
static inline uint32_t x86_flags_ax(uint64_t rflags)
{
    return (uint32_t)(rflags << 8 | ((rflags >> 11) & 1)); /* only AH and AL count */
}

/* Whether condition cc (0 O, 1 NO, 2 B ... 15 G: the low four opcode bits) holds. */
static inline __attribute__((always_inline)) bool x86_condition(uint64_t rflags, unsigned cc)
{
    uint64_t less = (rflags >> 7) ^ (rflags >> 11); /* bit 0: SF != OF */
    uint64_t holds = 0;

    switch (cc >> 1) {
    case 0: holds = rflags & X86_FLAG_OF; break;
    case 1: holds = rflags & X86_FLAG_CF; break;
    case 2: holds = rflags & X86_FLAG_ZF; break;
    case 3: holds = rflags & (X86_FLAG_CF | X86_FLAG_ZF); break;
    case 4: holds = rflags & X86_FLAG_SF; break;
    case 5: holds = rflags & X86_FLAG_PF; break;
    case 6: holds = less & 1; break;
    default: holds = (less & 1) | (rflags & X86_FLAG_ZF); break;
    }
    return (holds != 0) != (cc & 1);
}

#endif
