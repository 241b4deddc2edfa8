/* option.h - one table per command gives its parser and its help.
 *
 * An option is `--name VALUE` or `--name=VALUE`, or `--name` when it takes none. A value that is not
 * accepted gets an error that names the option, the value, the reason and the accepted form. */
#ifndef VENEER_CLI_OPTION_H
#define VENEER_CLI_OPTION_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

struct option_spec {
    const char *name;  /* without the dashes; "/x" at its end makes -x the same; NULL ends the table */
    const char *value; /* its form for the help ("SIZE"), or NULL when it takes none */
    const char *help;  /* what it does; '\n' breaks the line */
    /* Stores the value (NULL when it takes none) in the command's config. On a bad value returns a negative
     * errno and fills error with the reason and the accepted form only: the caller names option and value. */
    int (*parse)(void *config, const char *value, struct error *error);
};

/* Parses argv[1..argc). Stops at "--" or at the first word that is no option; *ret_rest is its index
 * (argc when all was consumed). Returns 0, -EINVAL with the whole sentence in error, or 1 when --help
 * was asked for. */
int option_parse(const struct option_spec *table, int argc, char **argv, void *config, int *ret_rest,
                 struct error *error);

/* As option_parse, but options may also stand between and after operands; up to `max` operands are left in
 * ret_operand[0 .. *ret_operands), more are an error. *ret_rest is the index of the word after "--", or argc without one;
 * *ret_dashes tells which. */
int option_parse_operands(const struct option_spec *table, int argc, char **argv, void *config, const char **ret_operand,
                          int max, int *ret_operands, int *ret_rest, bool *ret_dashes, struct error *error);

/* As option_parse_operands, for a command (argv[0]) that takes options and the name of one running machine. */
int option_parse_name(const struct option_spec *table, int argc, char **argv, void *config, const char **ret_name,
                      struct error *error);

/* Prints the table, one option a paragraph. */
void option_help(const struct option_spec *table, FILE *out);

/* "512", "512M", "2G", "64k" (powers of 1024; a plain number is MiB) to bytes. 0 or -EINVAL with a reason. */
int option_size(const char *text, uint64_t *ret_bytes, struct error *error);

/* A decimal or 0x number from min to max. 0 or -EINVAL with a reason. */
int option_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number, struct error *error);

#endif
