/* terminal.h - the person's terminal while a guest owns it: raw, and back whatever happens.
 *
 * The first settings are restored by terminal_restore, at exit, and by fatal signals. One terminal a process. */
#ifndef VENEER_CLI_TERMINAL_H
#define VENEER_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Makes the terminal at `fd` raw when it is one (else does nothing). Returns 0 or a negative errno. */
int terminal_raw(int fd, struct error *error);
/* Puts the settings back; safe to call more than once, and in a signal handler. */
void terminal_restore(void);

/* The escape: Ctrl-] and then 'q' leaves, Ctrl-] twice sends one Ctrl-]. */
#define TERMINAL_ESCAPE 0x1d
#define TERMINAL_ESCAPE_TEXT "Ctrl-] then q"

struct terminal_escape {
    bool pending; /* an escape character came last */
};

/* Filters typed bytes: copies to ret_bytes (room for length + 1) what is for the guest, its count in *ret_length;
 * returns true when the person asked to leave. */
bool terminal_filter(struct terminal_escape *state, const char *typed, size_t length, char *ret_bytes,
                     size_t *ret_length);

#endif
