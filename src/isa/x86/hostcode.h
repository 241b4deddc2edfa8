/* hostcode.h - runs a guest's vector or x87 instruction on the host processor, bit for bit.
 *
 * A guest instruction becomes a thunk: a few host instructions that load the registers it reads, the
 * instruction itself, and stores of what it wrote. The copy is normalised, so that one thunk serves every
 * choice of registers and addresses: operands sit in fixed host registers, and the thunk gets pointers to
 * their values,
 *     ModRM.reg -> xmm1 from *reg      VEX.vvvv -> xmm2 from *third      ModRM.rm -> xmm3 from *rm
 *     is4 -> xmm4, or implicit XMM0 -> xmm0, from *extra                 a general register -> rax in *io
 * a memory operand is [rdi], the same pointer as rm's. The number of thunks is so bounded by the number of
 * opcodes times immediates (about 45,000, 3.3 MiB in all; a guest that behaves needs a few hundred). All
 * loads come before all stores, so operands may be the same register.
 *
 * Legacy SSE forms store the low 16 bytes of a register and leave the rest; VEX forms store 32 with the
 * upper part as the processor left it: zero for the 128-bit forms.
 *
 * A struct x86_hostcode belongs to one thread. */
#ifndef VENEER_ISA_X86_HOSTCODE_H
#define VENEER_ISA_X86_HOSTCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "isa/x86/decode.h"

struct x86_hostcode;

/* Makes an empty thunk cache: lazily touched address space. Returns 0 or a negative errno. */
int x86_hostcode_new(struct x86_hostcode **ret_host, struct error *error);
/* NULL is allowed. No thunk of it may be called afterwards. */
void x86_hostcode_free(struct x86_hostcode *host);

/* What passes between a thunk and its caller besides vector registers and memory. */
struct x86_thunk_io {
    uint64_t rax, rdx, rcx; /* general operands; PCMPxSTRx's implicit ones */
    uint64_t flags;         /* RFLAGS in (FCMOVcc) and out */
    uint32_t mxcsr;         /* in: with exceptions masked and flags clear */
    uint32_t mxcsr_out;
    uint16_t host_fcw; /* x87 only, in: the host's own control word, put back after */
};

#define X86_HOST_FCW 0x037fu /* as the ABI wants it */

/* rm: the r/m register's value or the memory operand (16- or 32-byte aligned where the instruction
 * demands it). Pointers that the instruction has no operand for are not followed. */
typedef void x86_thunk_fn(void *rm, void *reg, void *third, void *extra, struct x86_thunk_io *io);

#define X86_THUNK_MXCSR 0x1u /* load MXCSR from io before, store it to io after */
#define X86_THUNK_FLAGS 0x2u /* RFLAGS out to io */
#define X86_THUNK_FLAGS_IN 0x4u /* x87 only: RFLAGS in from io */

/* The thunk of an SSE, AVX or MMX instruction, made if need be. `use`: X86_THUNK_*. NULL when there is no
 * memory for it. MMX registers are 8 bytes at their pointers; the host's x87 state is left empty. */
x86_thunk_fn *x86_hostcode_vector(struct x86_hostcode *host, const struct x86_zydis *z, unsigned use);

/* The thunk of an x87 instruction: *reg is a 16-byte aligned FXSAVE64 image (512 bytes) that it loads before and
 * stores after; *rm the memory operand. The image's MXCSR must be the host's default, 1F80h. */
x86_thunk_fn *x86_hostcode_x87(struct x86_hostcode *host, const struct x86_zydis *z, unsigned use);

#endif
