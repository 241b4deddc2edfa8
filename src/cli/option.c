#include "cli/option.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static size_t name_length(const struct option_spec *spec)
{
    return strcspn(spec->name, "/");
}

static const struct option_spec *find(const struct option_spec *table, const char *name, size_t length)
{
    for (; table->name; table++)
        if (name_length(table) == length && memcmp(table->name, name, length) == 0)
            return table;
    return NULL;
}

static const struct option_spec *find_letter(const struct option_spec *table, char letter)
{
    for (; table->name; table++)
        if (strchr(table->name, '/') && strchr(table->name, '/')[1] == letter)
            return table;
    return NULL;
}

/* Gives a spec its value. */
static int apply(const struct option_spec *spec, const char *value, void *config, struct error *error)
{
    struct error reason = {""};
    int r = spec->parse(config, value, &reason);
    if (r < 0)
        error_set(error, EINVAL, "option '--%.*s': '%s' %s", (int)name_length(spec), spec->name, value ? value : "", reason.text);
    return r;
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
        return error_set(error, EINVAL, "option '--%.*s' takes no value, but was given '%s'", (int)length, name, value);
    if (spec->value && !value) {
        if (*index + 1 >= argc)
            return error_set(error, EINVAL, "option '--%.*s' needs a value: %s", (int)length, name, spec->value);
        value = argv[++*index];
    }
    ++*index;
    return apply(spec, value, config, error);
}

/* Parses "-it" and the like: letters of options without a value, the last of which may be one with a value in the next word. */
static int parse_letters(const struct option_spec *table, int argc, char **argv, int *index, void *config, struct error *error)
{
    const char *word = argv[(*index)++];
    int r = 0;
    for (const char *letter = word + 1; r == 0 && *letter; letter++) {
        const struct option_spec *spec = find_letter(table, *letter);
        const char *value = NULL;
        if (!spec)
            return error_set(error, EINVAL, "there is no option '%s'; 'veneer %s --help' lists them", word, argv[0]);
        if (spec->value) {
            if (letter[1] || *index >= argc)
                return error_set(error, EINVAL, "option '-%c' needs a value: %s", *letter, spec->value);
            value = argv[(*index)++];
        }
        r = apply(spec, value, config, error);
    }
    return r;
}

/* Parses the options that start at argv[*index]; stops at a word that is none, and past a "--". */
static int parse_options(const struct option_spec *table, int argc, char **argv, int *index, void *config, bool *ret_dashes,
                         struct error *error)
{
    *ret_dashes = false;
    while (*index < argc && argv[*index][0] == '-' && argv[*index][1]) {
        if (strcmp(argv[*index], "--") == 0) {
            ++*index;
            *ret_dashes = true;
            return 0;
        }
        if (strcmp(argv[*index], "--help") == 0 || strcmp(argv[*index], "-h") == 0)
            return 1;
        int r = argv[*index][1] == '-' ? parse_one(table, argc, argv, index, config, error)
                                       : parse_letters(table, argc, argv, index, config, error);
        if (r < 0)
            return r;
    }
    return 0;
}

int option_parse(const struct option_spec *table, int argc, char **argv, void *config, int *ret_rest,
                 struct error *error)
{
    int index = 1;
    bool dashes;
    int r = parse_options(table, argc, argv, &index, config, &dashes, error);
    if (r == 0)
        *ret_rest = index;
    return r;
}

int option_parse_operands(const struct option_spec *table, int argc, char **argv, void *config, const char **ret_operand,
                          int max, int *ret_operands, int *ret_rest, bool *ret_dashes, struct error *error)
{
    int index = 1, operands = 0;
    for (;;) {
        bool dashes;
        int r = parse_options(table, argc, argv, &index, config, &dashes, error);
        if (r != 0)
            return r;
        if (dashes || index == argc) {
            *ret_operands = operands;
            *ret_rest = index;
            *ret_dashes = dashes;
            return 0;
        }
        if (operands == max)
            return error_set(error, EINVAL, "'%s': this word is one too many; 'veneer %s --help' tells more", argv[index], argv[0]);
        ret_operand[operands++] = argv[index++];
    }
}

int option_parse_name(const struct option_spec *table, int argc, char **argv, void *config, const char **ret_name,
                      struct error *error)
{
    int names, rest;
    bool dashes;
    int r = option_parse_operands(table, argc, argv, config, ret_name, 1, &names, &rest, &dashes, error);
    if (r == 0 && (names != 1 || rest != argc))
        r = error_set(error, EINVAL, "%s needs the name of one running machine; 'veneer %s --help' tells more", argv[0], argv[0]);
    return r;
}

void option_help(const struct option_spec *table, FILE *out)
{
    for (; table->name; table++) {
        const char *letter = strchr(table->name, '/');
        fprintf(out, "  --%.*s%s%s", (int)name_length(table), table->name, table->value ? " " : "", table->value ? table->value : "");
        if (letter)
            fprintf(out, ", -%c%s%s", letter[1], table->value ? " " : "", table->value ? table->value : "");
        fputs("\n      ", out);
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
