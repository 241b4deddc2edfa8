/* image_build.c - runs mmdebstrap, whose archive becomes the disk. */
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/image_private.h"
#include "host/rootfs.h"
#include "host/spawn.h"

#define ARGUMENTS_MAX 512
#define OUTPUT_MAX (1u << 20)
#define LAST_LINES 12
#define LINE_BYTES 240

struct arguments {
    char *list[ARGUMENTS_MAX + 1];
    unsigned count;
    bool failed; /* no memory, or too many */
};

__attribute__((format(printf, 2, 3))) static void add(struct arguments *arguments, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    if (arguments->count == ARGUMENTS_MAX || vasprintf(&arguments->list[arguments->count], format, values) < 0)
        arguments->failed = true;
    else
        arguments->list[++arguments->count] = NULL;
    va_end(values);
}

static void free_arguments(struct arguments *arguments)
{
    for (unsigned i = 0; i < arguments->count; i++)
        free(arguments->list[i]);
    arguments->count = 0;
}

/* How this machine reaches its mirror: proxies, certificates and the like. */
static int add_apt_options(struct arguments *arguments, struct error *error)
{
    static const char *const subtrees[] = {"Acquire::http", "Acquire::https", "Acquire::Check-Valid-Until",
                                           "Acquire::Check-Date", "Acquire::Retries", "Acquire::ForceIPv4",
                                           "Acquire::ForceIPv6"};
    for (unsigned i = 0; i < sizeof subtrees / sizeof subtrees[0]; i++) {
        char *argv[] = {"apt-config", "dump", "--no-empty", (char *)(uintptr_t)subtrees[i], NULL}, *output, *rest = NULL;
        int r = spawn_read(argv, OUTPUT_MAX, &output, error);
        if (r < 0)
            return r;
        for (char *line = strtok_r(output, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
            add(arguments, "--aptopt=%s", line);
        free(output);
    }
    return 0;
}

/* The codename of the distribution whose sources are configured, in front of its "-updates" and "-security". */
static size_t codename_length(const char *release)
{
    return strcspn(release, "-/");
}

/* One line for each of Debian's archives that this machine's apt knows, for the suite that is asked for. */
static int add_sources(struct arguments *arguments, const char *suite, struct error *error)
{
    char *argv[] = {"apt-get", "indextargets", "--format", "$(ORIGIN)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)",
                    "Created-By: Packages", NULL};
    char *output, *rest = NULL;
    unsigned count = 0;
    int r = spawn_read(argv, OUTPUT_MAX, &output, error);
    if (r < 0)
        return r;
    for (char *line = strtok_r(output, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char uri[1024], release[128], component[128];
        if (sscanf(line, "Debian\t%1023[^\t]\t%127[^\t]\t%127[^\t]", uri, release, component) != 3)
            continue;
        add(arguments, "deb %s %s%s %s", uri, suite, release + codename_length(release), component);
        count++;
    }
    free(output);
    if (count)
        return 0;
    return error_set(error, ENOENT, "this machine's apt knows no archive of Debian's; run 'apt-get update', or give "
                                    "one with --mirror");
}

static int check_words(const char *words, const char *what, struct error *error)
{
    for (const char *c = words; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("+-._:,", *c))
            return error_set(error, EINVAL, "'%s' is no %s", words, what);
    return words[0] && words[0] != '-' ? 0 : error_set(error, EINVAL, "'%s' is no %s", words, what);
}

static int check_build(const struct image_build *build, struct error *error)
{
    int r = store_name_check(build->name, "image", error);
    if (r == 0)
        r = check_words(build->suite, "suite of Debian; give one such as bookworm", error);
    if (r == 0 && build->packages)
        r = check_words(build->packages, "list of packages; give names with commas between", error);
    if (r == 0 && build->agent && (strchr(build->agent, '\'') || strchr(build->agent_unit, '\'')))
        r = error_set(error, EINVAL, "the agent's path '%s' has a quote", build->agent);
    return r;
}

static int make_arguments(const struct image_build *build, struct arguments *arguments, struct error *error)
{
    add(arguments, "mmdebstrap");
    add(arguments, "--format=tar");
    add(arguments, "--variant=apt");
    add(arguments, "--include=%s%s%s", debian_packages, build->packages ? "," : "", build->packages ? build->packages : "");
    add(arguments, "--dpkgopt=force-unsafe-io"); /* what a crash leaves is thrown away */
    add(arguments, "--extract-hook=%s", debian_extract_hook);
    add(arguments, "--extract-hook=%s", debian_initramfs_hook);
    if (build->agent) {
        add(arguments, "--customize-hook=mkdir -p \"$1/usr/lib/veneer\"");
        add(arguments, "--customize-hook=upload '%s' /usr/lib/veneer/veneer-agent", build->agent);
        add(arguments, "--customize-hook=upload '%s' /usr/lib/systemd/system/veneer-agent.service", build->agent_unit);
    }
    add(arguments, "--customize-hook=%s\nrm -f \"$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap\"\n", debian_customize_hook);
    int r = add_apt_options(arguments, error);
    add(arguments, "%s", build->suite);
    add(arguments, "-"); /* the archive goes to standard output */
    if (r == 0 && build->mirror)
        add(arguments, "%s", build->mirror);
    else if (r == 0)
        r = add_sources(arguments, build->suite, error);
    if (r == 0 && arguments->failed)
        r = error_set(error, ENOMEM, "mmdebstrap would get too many arguments");
    return r;
}

/* What mmdebstrap says: "I: ..." is a step; the last lines are kept for when it fails. */
struct listener {
    FILE *in;
    const struct image_progress *progress;
    char last[LAST_LINES][LINE_BYTES];
    unsigned lines;
};

/* The steps of mmdebstrap's that take time, and what they are to a person. */
static const char *const steps[][2] = {
    {"running apt-get update", "reading the lists of packages"}, {"downloading packages", "downloading packages"},
    {"extracting archives", "extracting packages"}, {"installing essential", "installing essential packages"},
    {"installing remaining", "installing the other packages"}, {"running --customize-hook", "configuring"},
    {"creating tarball", "writing the disk"},
};

static void take_step(const struct image_progress *progress, const char *line)
{
    for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++)
        if (strncmp(line, steps[i][0], strlen(steps[i][0])) == 0)
            image_step(progress, steps[i][1]);
}

static void *listen_to(void *owner)
{
    struct listener *listener = owner;
    char line[LINE_BYTES];
    while (fgets(line, sizeof line, listener->in)) {
        line[strcspn(line, "\r\n")] = 0;
        if (strncmp(line, "I: ", 3) == 0)
            take_step(listener->progress, line + 3);
        else if (line[0])
            memcpy(listener->last[listener->lines++ % LAST_LINES], line, sizeof line);
    }
    return NULL;
}

/* Puts the last lines before the error's sentence, with the one that tells most likely why. */
static void add_reason(const struct listener *listener, struct error *error)
{
    unsigned count = listener->lines < LAST_LINES ? listener->lines : LAST_LINES;
    for (unsigned i = 0; i < count; i++) {
        const char *line = listener->last[(listener->lines - 1 - i) % LAST_LINES];
        if (strncmp(line, "E: ", 3) != 0 || (i + 1 < count && strstr(line, "failed to run")))
            continue;
        error_prefix(error, "%s", line + 3);
        return;
    }
}

/* Runs mmdebstrap with its archive going into the draft. */
static int make_disk(const struct image_build *build, char *const argv[], const char *path,
                     const struct image_progress *progress, struct error *error)
{
    struct spawn spawn;
    pthread_t thread;
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return error_set(error, ENOMEM, "no memory to build an image");
    int r = spawn_start(argv, &spawn, error);
    if (r < 0) {
        free(listener);
        return r;
    }
    listener->progress = progress;
    listener->in = fdopen(spawn.err, "r");
    if (!listener->in || pthread_create(&thread, NULL, listen_to, listener) != 0) {
        spawn_kill(&spawn);
        free(listener);
        return error_set(error, ENOMEM, "no memory to build an image");
    }
    r = rootfs_make(path, build->size, spawn.out, NULL, NULL, error);
    if (r < 0 && r != -ENODATA)
        kill(spawn.pid, SIGTERM); /* it would write to nobody */
    close(spawn.out);
    spawn.out = -1;
    pthread_join(thread, NULL); /* its end is the end of what the program says */
    spawn.err = -1;             /* the FILE's */
    struct error ended_error;
    int ended = spawn_end(&spawn, "mmdebstrap", &ended_error);
    /* An archive that ends early is mmdebstrap's failure; any other failure is the disk's. */
    if (ended < 0 && (r == 0 || r == -ENODATA)) {
        r = ended;
        if (error)
            *error = ended_error;
        add_reason(listener, error);
    }
    fclose(listener->in);
    free(listener);
    return r;
}

int image_build_debian(struct store *store, const struct image_build *build, const struct image_progress *progress,
                       struct error *error)
{
    struct arguments arguments = {.count = 0};
    struct store_draft draft = {.fd = -1};
    int r = check_build(build, error);
    if (r == 0)
        r = make_arguments(build, &arguments, error);
    if (r == 0)
        r = store_draft_new(store, &draft, error);
    if (r == 0)
        r = make_disk(build, arguments.list, draft.path, progress, error);
    free_arguments(&arguments);
    if (r == 0)
        return image_finish(store, &draft, build->name, progress, error);
    store_draft_drop(&draft);
    return r;
}
