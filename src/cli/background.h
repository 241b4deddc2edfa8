/* background.h - a machine in a process of its own, apart from the terminal: for `veneer run --detach` and for a command in
 * a machine of its own. */
#ifndef VENEER_CLI_BACKGROUND_H
#define VENEER_CLI_BACKGROUND_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "host/vm.h"

struct background {
    pid_t pid;
    int console, messages; /* what the guest's console and the machine's process wrote, open for reading, or -1 */
};

/* Forks. In the child (returns 0 with *ret_child): a session of its own; standard input and output are /dev/null; standard
 * error is still the caller's, so that what goes wrong until background_started is said there. `bound`: the child is
 * told to end (SIGTERM) when its parent ends. In the parent (*ret_child false): waits for background_started. Returns 0; or,
 * when the child ended before, *ret_status is its exit status and the result -ECHILD; or another negative errno
 * with a sentence. */
int background_start(struct vm *vm, bool bound, struct background *ret_background, bool *ret_child, int *ret_status,
                     struct error *error);
/* In the child: all has gone well; standard error becomes the file "messages.log" of the machine. */
void background_started(struct vm *vm);

/* Prints the end of what the guest's console and the machine's process have written to standard error. */
void background_tell(const struct background *background);
/* Waits for the process to end; returns its exit status. Closes the files. */
int background_end(struct background *background);

#endif
