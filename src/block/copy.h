/* copy.h - the contents of one volume into another. */
#ifndef VENEER_BLOCK_COPY_H
#define VENEER_BLOCK_COPY_H

#include "block/block.h"

/* Copies all of `from` to the start of `to`, which is as large and reads as zeroes: what is zero is not written, so that it
 * takes no space. Ends with a flush. amount: told how far it is, in bytes; may be NULL. Blocking. */
int block_copy(struct block *from, struct block *to, void (*amount)(void *context, uint64_t done, uint64_t total), void *context,
               struct error *error);

#endif
