#include "cli/option.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct option_spec *find(const struct option_spec *table, const char *name, size_t length)
{
    for (; table->name; table++)
        if (strlen(table->name) == length && memcmp(table->name, name, length) == 0)
            return table;
    return NULL;
}

/* Parses one option at argv[*index] and moves the index past it. */
static int parse_one(const struct option_spec *table, int argc, char **argv, int *index, void *config,
                     struct error *error)
{
    const char *name = argv[*index] + 2;
    const char *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct option_spec *spec = find(table, name, length);
    if (!spec)
        return error_set(error, EINVAL, "there is no option '--%.*s'; 'veneer %s --help' lists them", (int)length,
                         name, argv[0]);
    const char *value = equals ? equals + 1 : NULL;
    if (!spec->value && value)
        return error_set(error, EINVAL, "option '--%s' takes no value, but was given '%s'", spec->name, value);
    if (spec->value && !value) {
        if (*index + 1 >= argc)
            return error_set(error, EINVAL, "option '--%s' needs a value: %s", spec->name, spec->value);
        value = argv[++*index];
    }
    ++*index;
    struct error reason = {""};
    int r = spec->parse(config, value, &reason);
    if (r < 0)
        error_set(error, EINVAL, "option '--%s': '%s' %s", spec->name, value ? value : "", reason.text);
    return r;
}

int option_parse(const struct option_spec *table, int argc, char **argv, void *config, int *ret_rest,
                 struct error *error)
{
    int index = 1;
    while (index < argc && argv[index][0] == '-' && argv[index][1]) {
        if (strcmp(argv[index], "--") == 0) {
            index++;
            break;
        }
        if (strcmp(argv[index], "--help") == 0 || strcmp(argv[index], "-h") == 0)
            return 1;
        if (argv[index][1] != '-')
            return error_set(error, EINVAL, "there is no option '%s'; 'veneer %s --help' lists them", argv[index],
                             argv[0]);
        int r = parse_one(table, argc, argv, &index, config, error);
        if (r < 0)
            return r;
    }
    *ret_rest = index;
    return 0;
}

void option_help(const struct option_spec *table, FILE *out)
{
    for (; table->name; table++) {
        fprintf(out, "  --%s%s%s\n      ", table->name, table->value ? " " : "", table->value ? table->value : "");
        for (const char *at = table->help; *at; at++)
            fprintf(out, *at == '\n' ? "\n      " : "%c", *at);
        fputc('\n', out);
    }
}

/* strtoull for unsigned numbers only: no sign, no leading space. 0 or -EINVAL. */
static int plain_number(const char *text, char **ret_end, uint64_t *ret_number)
{
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    *ret_number = strtoull(text, ret_end, hex ? 16 : 10);
    return errno ? -EINVAL : 0;
}

int option_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number, struct error *error)
{
    char *end;
    uint64_t number;
    if (plain_number(text, &end, &number) < 0 || *end)
        return error_set(error, EINVAL, "is not a number; give one from %" PRIu64 " to %" PRIu64, min, max);
    if (number < min || number > max)
        return error_set(error, EINVAL, "is out of range; give a number from %" PRIu64 " to %" PRIu64, min, max);
    *ret_number = number;
    return 0;
}

int option_size(const char *text, uint64_t *ret_bytes, struct error *error)
{
    static const char form[] = "give a number with K, M, G or T (powers of 1024; M when there is none), such as 512M";
    char *end;
    uint64_t number;
    if (plain_number(text, &end, &number) < 0)
        return error_set(error, EINVAL, "is not a size; %s", form);
    unsigned shift = 20;
    if (*end) {
        static const char units[] = "kmgt";
        const char *unit = strchr(units, tolower((unsigned char)*end));
        if (!unit || !*unit || (end[1] && strcasecmp(end + 1, "iB") != 0 && strcasecmp(end + 1, "B") != 0))
            return error_set(error, EINVAL, "has an unknown unit; %s", form);
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (number > UINT64_MAX >> shift)
        return error_set(error, EINVAL, "is too large; %s", form);
    *ret_bytes = number << shift;
    return 0;
}
