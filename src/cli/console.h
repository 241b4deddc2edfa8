/* console.h - the host's side of a guest's serial console: the terminal, a file, a socket, or nothing.
 *
 * A console has a thread of its own that carries typed bytes to the guest; what the guest prints is
 * written on the caller's thread. It also turns SIGINT, SIGTERM and SIGHUP into a request to leave:
 * create it before any other thread, so that they are blocked everywhere else. */
#ifndef VENEER_CLI_CONSOLE_H
#define VENEER_CLI_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct console;

struct console_ops {
    /* Offers bytes to the guest; returns how many it took. Bytes it did not take are offered again. */
    size_t (*input)(void *owner, const void *bytes, size_t length);
    /* The person or a signal asked to leave; `why` is a sentence. */
    void (*leave)(void *owner, const char *why);
    /* The terminal's size, at the start and when it changes. May be NULL. */
    void (*resize)(void *owner, unsigned columns, unsigned rows);
};

/* The accepted forms, for help and errors. */
#define CONSOLE_FORM "stdio, none, unix:PATH or file:PATH"

/* Checks a specification without opening anything. Returns 0 or -EINVAL with reason and accepted form. */
int console_check(const char *spec, struct error *error);

/* Opens the console. Returns 0 or a negative errno with a sentence. */
int console_open(const char *spec, struct console **ret_console, struct error *error);
/* Starts the thread; from here on ops are called on it. */
int console_start(struct console *console, const struct console_ops *ops, void *owner, struct error *error);
/* file: keeps the file from growing without end: what is longer than `bytes` is renamed to PATH.1, over the one before, and
 * begun anew. Before console_start. */
void console_keep(struct console *console, uint64_t bytes);
/* What the guest printed. Any thread. */
void console_write(void *console, const void *bytes, size_t length);
/* The guest can take input again. Any thread. */
void console_ready(void *console);
/* Stops the thread, restores the terminal, frees. NULL is allowed. */
void console_close(struct console *console);

#endif
