/* progress.h - shows how long work goes: one line that changes on a terminal, a line for each step elsewhere.
 *
 * All on standard error. Any thread. */
#ifndef VENEER_CLI_PROGRESS_H
#define VENEER_CLI_PROGRESS_H

#include "host/image.h"

/* What image.h's functions take. One at a time in a process. */
const struct image_progress *progress_begin(void);
/* Ends the line; tells how long it took when it went well. */
void progress_end(const char *done);

#endif
