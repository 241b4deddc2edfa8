#include "cli/verb.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/log.h"
#include "cli/command.h"

#define FAILED 1

static void help(const struct verb_command *command)
{
    printf("usage: veneer %s VERB [OPTION...]\n\n%s\n\n", command->name, command->about);
    for (size_t i = 0; i < command->count; i++) {
        const struct verb *verb = &command->verbs[i];
        printf("veneer %s %s %s\n  ", command->name, verb->name, verb->operands);
        for (const char *c = verb->help; *c; c++)
            fputs(*c == '\n' ? "\n  " : (const char[]){*c, 0}, stdout);
        putchar('\n');
        option_help(verb->options, stdout);
    }
}

static int unknown(const struct verb_command *command, const char *name)
{
    char names[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < command->count && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                 i == 0 ? "" : i + 1 == command->count ? " or " : ", ", command->verbs[i].name);
    if (name)
        log_error("there is no '%s'; give %s", name, names);
    else
        log_error("%s needs a verb; give %s", command->name, names);
    return STATUS_USAGE;
}

static int run_verb(const struct verb_command *command, const struct verb *verb, int argc, char **argv, void *config)
{
    const char *operand[VERB_OPERANDS_MAX] = {NULL};
    const char *options = verb->options->name ? " [OPTION...]" : "";
    char words[64]; /* what errors call it */
    struct error error;
    int operands, rest;
    bool dashes;
    snprintf(words, sizeof words, "%s %s", command->name, verb->name);
    argv[0] = words;
    int r = option_parse_operands(verb->options, argc, argv, config, operand, verb->most, &operands, &rest, &dashes, &error);
    if (r > 0) {
        help(command);
        return 0;
    }
    if (r == 0 && (rest < argc || operands < verb->least))
        r = error_set(&error, EINVAL, "usage: veneer %s %s%s", words, verb->operands, options);
    if (r < 0) {
        log_error("%s", error.text);
        return STATUS_USAGE;
    }
    r = command->begin ? command->begin(config, &error) : 0;
    if (r == 0)
        r = verb->run(operand, config, &error);
    if (command->end)
        command->end(config);
    if (r < 0)
        log_error("%s", error.text);
    return r < 0 ? FAILED : 0;
}

int verb_command_run(const struct verb_command *command, int argc, char **argv, void *config)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name && (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)) {
        help(command);
        return 0;
    }
    for (size_t i = 0; name && i < command->count; i++)
        if (strcmp(name, command->verbs[i].name) == 0)
            return run_verb(command, &command->verbs[i], argc - 1, argv + 1, config);
    return unknown(command, name);
}
