/* codemem.h - memory for code made at run time, never writable and executable through one mapping.
 *
 * One memfd is mapped twice: `write` is read-write, `exec` is read-execute; the same offset is the same
 * byte. x86 hosts keep instruction fetch coherent with such stores once the code is reached by a jump. */
#ifndef VENEER_BASE_CODEMEM_H
#define VENEER_BASE_CODEMEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct codemem {
    uint8_t *write;
    const uint8_t *exec;
    size_t size; /* bytes, whole pages */
    size_t used; /* bytes handed out by codemem_take */
};

/* Maps `size` bytes (rounded up to pages; touched lazily). Returns 0 or a negative errno. */
int codemem_open(struct codemem *ret_codemem, size_t size, struct error *error);
void codemem_close(struct codemem *codemem);
/* Takes `length` bytes, 16-byte aligned, and returns their offset, or -ENOSPC. Not thread-safe. */
ptrdiff_t codemem_take(struct codemem *codemem, size_t length);

#endif
