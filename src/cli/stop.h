/* stop.h - ending a running machine, for `veneer stop` and for `veneer run -- COMMAND`. */
#ifndef VENEER_CLI_STOP_H
#define VENEER_CLI_STOP_H

#include "base/error.h"

/* Asks the guest to shut down, waits up to `seconds` for the machine's process to end, then forces it; 0 forces at once.
 * Returns 0, -ENOENT when no machine of this name runs, or another negative errno with a sentence. */
int stop_machine(const char *name, unsigned seconds, struct error *error);

#endif
