/* verb.h - commands made of verbs (`veneer disk create ...`): one table gives their parser, usage and help. */
#ifndef VENEER_CLI_VERB_H
#define VENEER_CLI_VERB_H

#include <stddef.h>

#include "base/error.h"
#include "cli/option.h"

#define VERB_OPERANDS_MAX 2

struct verb {
    const char *name, *operands;
    const char *help;  /* what it does; '\n' breaks the line */
    int least, most;   /* operands, at most VERB_OPERANDS_MAX */
    const struct option_spec *options;
    /* operand[0 .. VERB_OPERANDS_MAX): NULL where none was given. Returns 0 or a negative errno with a sentence. */
    int (*run)(const char *const *operand, void *config, struct error *error);
};

struct verb_command {
    const char *name, *about; /* about: a sentence for the help */
    const struct verb *verbs;
    size_t count;
    /* Around run, when the command line is right; both or neither. end is called after a failed begin as well. */
    int (*begin)(void *config, struct error *error);
    void (*end)(void *config);
};

/* Parses argv (argv[0] is the command's name) into config and runs the verb. Prints what is wrong. Returns the program's exit
 * status. */
int verb_command_run(const struct verb_command *command, int argc, char **argv, void *config);

#endif
