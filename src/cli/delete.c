/* delete.c - `veneer delete`: removes an instance that does not run, with its disk. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/option.h"
#include "host/store.h"

static const struct option_spec options[] = {{NULL, NULL, NULL, NULL}};

static int delete_run(int argc, char **argv)
{
    struct store *store = NULL;
    struct error error;
    int rest;
    int r = option_parse(options, argc, argv, NULL, &rest, &error);
    if (r > 0) {
        puts("usage: veneer delete NAME...\n\nRemoves instances (of 'veneer run IMAGE --name NAME') with their disks, for good.");
        return 0;
    }
    if (r == 0 && rest == argc)
        r = error_set(&error, EINVAL, "delete needs the name of an instance; 'veneer list' shows them");
    if (r < 0) {
        log_error("%s", error.text);
        return STATUS_USAGE;
    }
    r = store_open(NULL, &store, &error);
    for (; r == 0 && rest < argc; rest++)
        r = store_instance_delete(store, argv[rest], &error);
    store_close(store);
    if (r < 0)
        log_error("%s", error.text);
    return r < 0;
}

const struct command command_delete = {"delete", "remove an instance and its disk", delete_run};
