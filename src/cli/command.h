/* command.h - the commands of the program: one small file each, one table (main.c). */
#ifndef VENEER_CLI_COMMAND_H
#define VENEER_CLI_COMMAND_H

/* Exit status of a usage error, as is usual; the rest stand in machine.h. */
#define STATUS_USAGE 2

struct command {
    const char *name;
    const char *summary; /* one line for `veneer --help` */
    /* argv[0] is the command's name. Returns the program's exit status. */
    int (*run)(int argc, char **argv);
};

extern const struct command command_run;
extern const struct command command_image;
extern const struct command command_delete;
extern const struct command command_disk;
extern const struct command command_exec;
extern const struct command command_list;
extern const struct command command_memory;
extern const struct command command_share;
extern const struct command command_stop;
extern const struct command command_engines;

#endif
