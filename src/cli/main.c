/* main.c - the program: finds the command in the table and runs it. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/command.h"

static const struct command *const commands[] = {
    &command_run, &command_exec, &command_list, &command_stop, &command_memory, &command_image, &command_delete, &command_disk,
    &command_share, &command_engines};

/* The level of messages by its name. Returns false, having said so, when there is none of that name. */
static bool set_log_level(const char *name, const char *whence)
{
    static const char *const names[] = {"error", "warning", "info", "debug"}; /* in the order of enum log_level */
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            log_set_level((enum log_level)i);
            return true;
        }
    log_error("%s: '%s' is no level of messages; give error, warning, info or debug", whence, name);
    return false;
}

static void help(FILE *out)
{
    fputs("veneer runs whole machines: unmodified kernels, with or without hardware help.\n\n"
          "usage: veneer [--log-level LEVEL] COMMAND [OPTION...]\n\ncommands:\n",
          out);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\nLEVEL says which messages are shown: error, warning (the default), info or debug; so does the environment\n"
          "variable VENEER_LOG.\n", out);
    fputs("\n'veneer COMMAND --help' tells more; so do the man pages. 'veneer --version' tells the version.\n", out);
}

int main(int argc, char **argv)
{
    const char *level = getenv("VENEER_LOG");
    if (level && level[0] && !set_log_level(level, "VENEER_LOG"))
        return STATUS_USAGE;
    if (argc > 1 && strcmp(argv[1], "--log-level") == 0) {
        if (argc == 2) {
            log_error("'--log-level' needs a level: error, warning, info or debug");
            return STATUS_USAGE;
        }
        if (!set_log_level(argv[2], "--log-level"))
            return STATUS_USAGE;
        argc -= 2;
        argv += 2;
    }
    if (argc < 2) { /* also after the level */
        help(stderr);
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("veneer " VENEER_VERSION);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i]->name) == 0)
            return commands[i]->run(argc - 1, argv + 1);
    log_error("there is no command '%s'; 'veneer --help' lists them", argv[1]);
    return STATUS_USAGE;
}
