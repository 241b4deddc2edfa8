/* share_command.c - `veneer share`: gives folders to a running machine and takes them back. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/attach.h"
#include "cli/command.h"
#include "cli/option.h"
#include "cli/share.h"

static int parse_timeout(void *config, const char *value, struct error *error)
{
    uint64_t seconds;
    int r = option_number(value, 1, ATTACH_TIMEOUT_MAX, &seconds, error);
    if (r == 0)
        *(unsigned *)config = (unsigned)seconds;
    return r;
}

static const struct option_spec options[] = {
    {"timeout", "SECONDS", "for detach: how long the guest may take to let go of it (default: 30)", parse_timeout},
    {NULL, NULL, NULL, NULL}};

static int share_run(int argc, char **argv)
{
    unsigned seconds = ATTACH_TIMEOUT_SECONDS;
    const char *operand[3] = {NULL, NULL, NULL};
    struct error error;
    int operands = 0, rest;
    bool dashes;
    int r = option_parse_operands(options, argc, argv, &seconds, operand, 3, &operands, &rest, &dashes, &error);
    if (r > 0) {
        puts("usage: veneer share attach NAME " SHARE_FORM "\n       veneer share detach [OPTION...] NAME TAG\n\n"
             "Gives a folder of this host to the running machine NAME, as 'veneer run --share' does at its start, and takes it\n"
             "back.\n\noptions:");
        option_help(options, stdout);
        return 0;
    }
    bool attach = operands > 0 && strcmp(operand[0], "attach") == 0;
    if (r == 0 && (operands != 3 || rest < argc || (!attach && strcmp(operand[0], "detach") != 0)))
        r = error_set(&error, EINVAL, "usage: veneer share attach NAME " SHARE_FORM ", or veneer share detach NAME TAG");
    if (r < 0) {
        log_error("%s", error.text);
        return STATUS_USAGE;
    }
    r = attach ? attach_share(operand[1], operand[2], &error) : detach_share(operand[1], operand[2], seconds, &error);
    if (r < 0)
        log_error("%s", error.text);
    return r < 0;
}

const struct command command_share = {"share", "give folders to a running machine and take them back", share_run};
