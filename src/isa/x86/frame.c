/* frame.c - stack frames of events and far transfers. */
#include "isa/x86/frame.h"

#include "isa/x86/mem.h"
#include "isa/x86/paging.h"

static uint64_t segment_mask(const struct x86_segment *ss)
{
    return ss->attr & X86_ATTR_DB ? UINT32_MAX : UINT16_MAX;
}

void x86_frame_current(const struct x86_core *core, uint32_t error, struct x86_frame *ret_frame)
{
    const struct x86_segment *ss = &core->cpu.seg[X86_SS];
    *ret_frame = (struct x86_frame){.ss = *ss,
                                    .sp = core->cpu.reg[X86_RSP],
                                    .mask = core->mode == X86_CODE64 ? UINT64_MAX : segment_mask(ss),
                                    .user = x86_cpl(&core->cpu) == 3,
                                    .error = error};
}

void x86_frame_new(const struct x86_segment *ss, uint64_t sp, uint32_t error, struct x86_frame *ret_frame)
{
    *ret_frame = (struct x86_frame){.ss = *ss, .sp = sp, .mask = segment_mask(ss), .error = error};
}

static uint64_t frame_linear(struct x86_core *core, const struct x86_frame *frame, unsigned size)
{
    uint64_t offset = frame->sp & frame->mask, last = offset + size - 1;
    const struct x86_segment *ss = &frame->ss;
    bool inside;
    if (frame->mask == UINT64_MAX) {
        if (!x86_canonical(offset) || !x86_canonical(last))
            x86_raise(core, X86_SSF, frame->error);
        return offset;
    }
    if (ss->attr & X86_ATTR_UNUSABLE)
        inside = false;
    else if ((ss->attr & 0xc) == 4)
        inside = offset > ss->limit && last <= frame->mask;
    else
        inside = last <= ss->limit;
    if (!inside)
        x86_raise(core, X86_SSF, frame->error);
    return (uint32_t)(ss->base + offset);
}

static uint64_t moved(const struct x86_frame *frame, uint64_t by)
{
    return (frame->sp & ~frame->mask) | ((frame->sp + by) & frame->mask);
}

void x86_frame_push(struct x86_core *core, struct x86_frame *frame, unsigned size, uint64_t value)
{
    frame->sp = moved(frame, (uint64_t)0 - size);
    x86_store_frame(core, frame_linear(core, frame, size), size, value, frame->user);
}

uint64_t x86_frame_pop(struct x86_core *core, struct x86_frame *frame, unsigned size)
{
    uint64_t value = x86_load_frame(core, frame_linear(core, frame, size), size, frame->user);
    frame->sp = moved(frame, size);
    return value;
}

void x86_frame_skip(struct x86_frame *frame, uint64_t bytes)
{
    frame->sp = moved(frame, bytes);
}
