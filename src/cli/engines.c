/* engines.c - `veneer engines`: which engines work here, and where one does not, why. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/option.h"
#include "engine/engine.h"

static const struct option_spec options[] = {{NULL, NULL, NULL, NULL}};

static int engines_run(int argc, char **argv)
{
    struct error error;
    int rest;
    int r = option_parse(options, argc, argv, NULL, &rest, &error);
    if (r > 0) {
        puts("usage: veneer engines\n\nLists the engines, best first: which work here and, where one does not, why.\n"
             "The one that `veneer run --engine auto` would take is marked with '*'.");
        return 0;
    }
    if (r == 0 && rest < argc)
        r = error_set(&error, EINVAL, "'%s': this command takes no operand", argv[rest]);
    if (r < 0) {
        log_error("%s", error.text);
        return STATUS_USAGE;
    }
    char note[256];
    const struct engine_ops *chosen = engine_choose(note, sizeof note);
    for (const struct engine_ops *const *engine = engine_table; *engine; engine++) {
        bool works = (*engine)->probe(&error) == 0;
        printf("%c %-10s %-4s %s\n", *engine == chosen ? '*' : ' ', (*engine)->name, works ? "yes" : "no",
               works ? (*engine)->summary : error.text);
    }
    if (note[0])
        printf("note: %s\n", note);
    return 0;
}

const struct command command_engines = {"engines", "show which engines work here", engines_run};
