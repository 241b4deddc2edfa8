/* Option values: sizes and numbers, and the table-driven parser. */
#include "cli/option.h"

#include "check.h"

static void sizes(void)
{
    static const struct {
        const char *text;
        uint64_t bytes; /* 0: refused */
    } cases[] = {{"512", UINT64_C(512) << 20}, {"64k", 65536},      {"2G", UINT64_C(2) << 30},
                 {"1T", UINT64_C(1) << 40},    {"3MiB", 3u << 20},  {"3MB", 3u << 20},
                 {"0x10M", 16u << 20},         {"", 0},             {"G", 0},
                 {"-1G", 0},                   {" 1G", 0},          {"1X", 0},
                 {"1GG", 0},                   {"18446744073709551616", 0}, {"16777216T", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error error = {""};
        uint64_t bytes = 0;
        int r = option_size(cases[i].text, &bytes, &error);
        CHECK_EQ(bytes, cases[i].bytes);
        CHECK_EQ(r < 0, cases[i].bytes == 0);
        CHECK_EQ(error.text[0] != 0, r < 0);
    }
}

struct config {
    const char *name;
    int flags;
};

static int parse_name(void *config, const char *value, struct error *error)
{
    if (strcmp(value, "bad") == 0)
        return error_set(error, 22, "is bad; give good");
    ((struct config *)config)->name = value;
    return 0;
}

static int parse_flag(void *config, const char *value, struct error *error)
{
    (void)value, (void)error;
    ((struct config *)config)->flags++;
    return 0;
}

static const struct option_spec table[] = {{"name", "NAME", "a name", parse_name},
                                           {"flag", NULL, "a flag", parse_flag},
                                           {NULL, NULL, NULL, NULL}};

static int parse(struct config *config, int *rest, struct error *error, int argc, char **argv)
{
    *config = (struct config){NULL, 0};
    return option_parse(table, argc, argv, config, rest, error);
}

int main(void)
{
    struct config config;
    struct error error;
    int rest = 0;
    sizes();
    char *plain[] = {"x", "--name", "a", "--flag", "--flag", "word", "--flag"};
    CHECK_EQ(parse(&config, &rest, &error, 7, plain), 0);
    CHECK_STR(config.name, "a");
    CHECK_EQ(config.flags, 2);
    CHECK_EQ(rest, 5);
    char *joined[] = {"x", "--name=b=c", "--", "--flag"};
    CHECK_EQ(parse(&config, &rest, &error, 4, joined), 0);
    CHECK_STR(config.name, "b=c");
    CHECK_EQ(rest, 3);
    char *bad[] = {"x", "--name", "bad"};
    CHECK(parse(&config, &rest, &error, 3, bad) < 0);
    CHECK_STR(error.text, "option '--name': 'bad' is bad; give good");
    char *help[] = {"x", "--flag", "--help"};
    CHECK_EQ(parse(&config, &rest, &error, 3, help), 1);
    char *prefix[] = {"x", "--nam", "a"};
    CHECK(parse(&config, &rest, &error, 3, prefix) < 0);
    char *lone[] = {"x", "-n", "a"};
    CHECK(parse(&config, &rest, &error, 3, lone) < 0);
    CHECK_DONE();
}
