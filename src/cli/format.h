/* format.h - the option --format of commands that list: text for people, JSON for programs. */
#ifndef VENEER_CLI_FORMAT_H
#define VENEER_CLI_FORMAT_H

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"

/* The first member of a command's config, so that the parser fits. */
struct cli_format {
    bool json;
};

static inline int cli_parse_format(void *config, const char *value, struct error *error)
{
    if (strcmp(value, "json") != 0 && strcmp(value, "text") != 0)
        return error_set(error, EINVAL, "is no format; give text or json");
    ((struct cli_format *)config)->json = value[0] == 'j';
    return 0;
}

#define CLI_FORMAT_OPTION {"format", "FORMAT", "text (the default) or json", cli_parse_format}

#endif
