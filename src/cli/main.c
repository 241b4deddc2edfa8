/* main.c - the program: finds the command in the table and runs it. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/command.h"

static const struct command *const commands[] = {&command_run, &command_image, &command_delete, &command_engines};

static void help(FILE *out)
{
    fputs("veneer runs whole machines: unmodified kernels, with or without hardware help.\n\n"
          "usage: veneer COMMAND [OPTION...]\n\ncommands:\n",
          out);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n'veneer COMMAND --help' tells more; so do the man pages. 'veneer --version' tells the version.\n", out);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
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
