/* spawn.h - runs another program, found along PATH and the system's folders for administrators. */
#ifndef VENEER_HOST_SPAWN_H
#define VENEER_HOST_SPAWN_H

#include <sys/types.h>

#include "base/error.h"

#define SPAWN_ERRORS 4096 /* bytes kept of a program's error output */

/* A program that runs, with its standard output and error as pipes. */
struct spawn {
    pid_t pid;
    int out, err; /* the caller reads; spawn_end closes those that are not -1 */
};

/* Starts argv[0]; its standard input is empty, and when this process dies it is told to end. argv ends in NULL.
 * Returns 0 or a negative errno with a sentence; -ENOENT when there is no such program. */
int spawn_start(char *const argv[], struct spawn *ret_spawn, struct error *error);
/* As that, with `in` as its standard input and `extra` as its descriptor 3; -1: empty, none. They stay the caller's. */
int spawn_start_with(char *const argv[], int in, int extra, struct spawn *ret_spawn, struct error *error);
/* Closes the pipes and waits. Returns 0, or -ECHILD with a sentence when it failed. */
int spawn_end(struct spawn *spawn, const char *name, struct error *error);
/* As that, with the last line of its error output in the sentence; for a program that does nothing but end any more. */
int spawn_end_said(struct spawn *spawn, const char *name, struct error *error);
/* Ends it and waits. */
void spawn_kill(struct spawn *spawn);

/* Runs a program to its end; its output is dropped, and its last words are in the error when it fails. */
int spawn_wait(char *const argv[], struct error *error);
/* Runs a program to its end and returns its standard output, at most `limit` bytes, NUL-terminated and the caller's
 * to free. Returns 0 or a negative errno with a sentence. */
int spawn_read(char *const argv[], size_t limit, char **ret_output, struct error *error);

#endif
