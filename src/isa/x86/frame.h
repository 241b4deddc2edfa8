/* frame.h - a stack on which an event or a far transfer builds or reads its frame, before it is committed.
 *
 * Values are pushed to and popped from memory while SS and RSP stay as they were; when nothing can fault
 * any more the caller installs frame.ss and frame.sp. */
#ifndef VENEER_ISA_X86_FRAME_H
#define VENEER_ISA_X86_FRAME_H

#include "isa/x86/core.h"

struct x86_frame {
    struct x86_segment ss; /* not looked at when mask is 64 bits */
    uint64_t sp;           /* bits above the mask are kept */
    uint64_t mask;         /* 16, 32 or 64 ones */
    bool user;             /* accessed with the rights of CPL 3 */
    uint32_t error;        /* #SS error code when it is out of bounds */
};

/* The current stack. error: EXT for an event. */
void x86_frame_current(const struct x86_core *core, uint32_t error, struct x86_frame *ret_frame);
/* A stack in `ss`, at `sp`, for supervisor code (legacy and compatibility mode). */
void x86_frame_new(const struct x86_segment *ss, uint64_t sp, uint32_t error, struct x86_frame *ret_frame);

/* size: 2 4 8 bytes. Raise #SS(error) or #PF. */
void x86_frame_push(struct x86_core *core, struct x86_frame *frame, unsigned size, uint64_t value);
uint64_t x86_frame_pop(struct x86_core *core, struct x86_frame *frame, unsigned size);
/* Steps over bytes without reading them. */
void x86_frame_skip(struct x86_frame *frame, uint64_t bytes);

#endif
