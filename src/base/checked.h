/* checked.h - ranges and sums of outside numbers, without wrapping. */
#ifndef VENEER_BASE_CHECKED_H
#define VENEER_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

/* True when [offset, offset + length) lies within [0, limit). */
static inline bool range_within(uint64_t offset, uint64_t length, uint64_t limit)
{
    return offset <= limit && length <= limit - offset;
}

#endif
