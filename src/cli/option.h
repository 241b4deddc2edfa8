/* option.h - one table per command gives its parser and its help.
 *
 * An option is `--name VALUE` or `--name=VALUE`, or `--name` when it takes none. A value that is not
 * accepted gets an error that names the option, the value, the reason and the accepted form. */
#ifndef VENEER_CLI_OPTION_H
#define VENEER_CLI_OPTION_H

#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

struct option_spec {
    const char *name;  /* without the dashes; NULL ends the table */
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

/* Prints the table, one option a paragraph. */
void option_help(const struct option_spec *table, FILE *out);

/* "512", "512M", "2G", "64k" (powers of 1024; a plain number is MiB) to bytes. 0 or -EINVAL with a reason. */
int option_size(const char *text, uint64_t *ret_bytes, struct error *error);

/* A decimal or 0x number from min to max. 0 or -EINVAL with a reason. */
int option_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number, struct error *error);

#endif
