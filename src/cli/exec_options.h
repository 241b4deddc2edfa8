/* exec_options.h - how to run a command in a guest: the options that `veneer exec` and `veneer run` share. */
#ifndef VENEER_CLI_EXEC_OPTIONS_H
#define VENEER_CLI_EXEC_OPTIONS_H

#include <stdbool.h>

#include "base/error.h"

#define EXEC_ENV_MAX 256

/* The first member of a command's config, so that its parsers fit both tables. */
struct exec_options {
    bool terminal, input;
    const char *env[EXEC_ENV_MAX + 2]; /* TERM may come, then NULL */
    unsigned envc;
    const char *directory, *user; /* NULL: the guest's choice */
    unsigned wait_seconds;        /* how long the guest may take until its agent is ready; 0: the default */
};

int exec_parse_terminal(void *config, const char *value, struct error *error);
int exec_parse_input(void *config, const char *value, struct error *error);
int exec_parse_env(void *config, const char *value, struct error *error);
int exec_parse_directory(void *config, const char *value, struct error *error);
int exec_parse_user(void *config, const char *value, struct error *error);
int exec_parse_wait(void *config, const char *value, struct error *error);

/* The rows of a table of options. */
#define EXEC_OPTIONS                                                                                                          \
    {"interactive/i", NULL, "give the command this standard input; else its is empty", exec_parse_input},                    \
    {"terminal/t", NULL, "give the command a terminal; with -i this one becomes raw until it ends,\n"                         \
     "and Ctrl-] then q leaves", exec_parse_terminal},                                                                        \
    {"env", "NAME=VALUE", "set a variable of the command's environment; may be repeated", exec_parse_env},                    \
    {"cwd", "FOLDER", "the command's working directory in the guest (default: its user's home)", exec_parse_directory},       \
    {"user", "USER", "whom it runs as: a name or number, with :GROUP if wanted (default: root)", exec_parse_user},            \
    {"wait", "SECONDS", "how long the guest may take until it serves commands (default: 180)", exec_parse_wait}

/* Runs a command in the running machine `name`, on this program's standard streams: waits for the guest's agent first.
 * argv is ended by NULL. Returns the program's exit status: the command's, 128 and the signal that ended it, or 125 when
 * veneer failed, having said why. *ret_reached tells whether the guest's agent was reached at all; NULL is allowed. */
int exec_command(const char *name, struct exec_options *options, int argc, char **argv, bool *ret_reached);

#endif
