/* exec.c - `veneer exec`: runs a command in the guest of a running machine. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/exec_options.h"
#include "cli/option.h"

static const struct option_spec options[] = {EXEC_OPTIONS, {NULL, NULL, NULL, NULL}};

static void help(void)
{
    puts("usage: veneer exec [OPTION...] NAME -- COMMAND [ARGUMENT...]\n\n"
         "Runs a command in the guest of the running machine NAME, by veneer's agent in the guest, and passes on its\n"
         "output and status. A guest that still starts is waited for.\n\noptions:");
    option_help(options, stdout);
    puts("\nexit status: the command's; 128 and the signal's number when a signal ended it; 126 when it cannot be\n"
         "executed, 127 when it is not found; 125 when veneer failed; 2 for a usage error");
}

static int exec_run(int argc, char **argv)
{
    struct exec_options config = {.terminal = false};
    struct error error;
    const char *name;
    int names, rest;
    bool dashes;
    int r = option_parse_operands(options, argc, argv, &config, &name, 1, &names, &rest, &dashes, &error);
    if (r > 0) {
        help();
        return 0;
    }
    if (r == 0 && names != 1)
        r = error_set(&error, EINVAL, "exec needs the name of a running machine; 'veneer exec --help' tells more");
    if (r == 0 && rest == argc)
        r = error_set(&error, EINVAL, "exec needs a command after '--'; 'veneer exec --help' tells more");
    if (r < 0) {
        log_error("%s", error.text);
        return STATUS_USAGE;
    }
    return exec_command(name, &config, argc - rest, argv + rest, NULL);
}

const struct command command_exec = {"exec", "run a command in a running machine's guest", exec_run};
