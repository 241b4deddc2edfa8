/* share_command.c - `veneer share`: gives folders to a running machine and takes them back. */
#include "cli/attach.h"
#include "cli/command.h"
#include "cli/share.h"
#include "cli/verb.h"

struct share_config {
    unsigned seconds;
};

static int parse_timeout(void *config, const char *value, struct error *error)
{
    return attach_parse_timeout(value, &((struct share_config *)config)->seconds, error);
}

static const struct option_spec attach_options[] = {{NULL, NULL, NULL, NULL}};
static const struct option_spec detach_options[] = {
    {"timeout", "SECONDS", ATTACH_TIMEOUT_HELP, parse_timeout},
    {NULL, NULL, NULL, NULL}};

static int attach(const char *const *operand, void *context, struct error *error)
{
    (void)context;
    return attach_share(operand[0], operand[1], error);
}

static int detach(const char *const *operand, void *context, struct error *error)
{
    const struct share_config *config = context;
    return detach_share(operand[0], operand[1], config->seconds, error);
}

static const struct verb verbs[] = {
    {"attach", "NAME " SHARE_FORM, "gives a folder to the running machine NAME, as 'veneer run --share' does at its start", 2, 2,
     attach_options, attach},
    {"detach", "NAME TAG", "takes it back when the guest has let go of it", 2, 2, detach_options, detach},
};

static int share_run(int argc, char **argv)
{
    static const struct verb_command command = {.name = "share", .about = "Shares are folders of this host in a guest.",
                                                .verbs = verbs, .count = sizeof verbs / sizeof verbs[0]};
    struct share_config config = {.seconds = ATTACH_TIMEOUT_SECONDS};
    return verb_command_run(&command, argc, argv, &config);
}

const struct command command_share = {"share", "give folders to a running machine and take them back", share_run};
