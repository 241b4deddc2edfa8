/* main.c - the differential test: every instruction form on the host processor and under veneer.
 *
 * Each form gets a number of random cases, each run by both executors and compared. Forms are dealt to
 * worker processes; a form's cases depend on the seed and the form alone, so --seed and --form repeat them. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "compare.h"
#include "generate.h"
#include "values.h"

#define WORKERS_MAX 64u

/* Shared by the workers; each adds to its own. */
struct tally {
    uint64_t cases, sequences, discarded, differences, thin; /* thin: forms that got too few cases */
    char now[80];                                            /* what runs, should the worker die */
};

struct options {
    uint64_t seed;
    unsigned cases, sequences, workers, shown;
    long only; /* sequence; -1: all */
    const char *form, *against;
    bool list;
};

struct run {
    const struct options *options;
    const struct form_list *forms;
    const struct executor_ops *ops[2]; /* the host second: what veneer finds unmapped is not tried on it */
    struct executor *executor[2];
    struct eq_memory memory;
    struct tally *tally;
};

/* ---- one case ---- */

/* True when the host process has something at or around this address besides the windows: a test must not
 * write there. */
static bool host_has(uint64_t address)
{
    unsigned long long from, to;
    bool found = false;
    FILE *maps;

    if (address < 0x7fff0000 || address >= UINT64_C(0x800000001000))
        return false;
    maps = fopen("/proc/self/maps", "re");
    while (maps != NULL && !found && fscanf(maps, "%llx-%llx%*[^\n]", &from, &to) == 2)
        found = address + 0x2000 > from && address < to + 0x2000;
    if (maps != NULL)
        fclose(maps);
    return found;
}

static void synchronise(struct run *run) { memcpy(run->memory.image[0], run->memory.image[1], EQ_IMAGE_SIZE); }

static void report(struct run *run, const char *name, const struct eq_case *c, const struct eq_result result[2],
                   const struct eq_leeway *leeway)
{
    const char *names[2] = {run->ops[0]->name, run->ops[1]->name};

    if (run->tally->differences++ < run->options->shown) {
        printf("DIFFERENCE in %s, seed %llu (%s | %s; * marks what differs)\n", name,
               (unsigned long long)run->options->seed, names[0], names[1]);
        eq_print_difference(stdout, c, result, run->memory.image, names, leeway);
        fflush(stdout);
    }
}

/* Runs the case on both. False when it could not be tried on the host. */
static bool run_case(struct run *run, const char *name, const struct eq_case *c, const struct eq_leeway *leeway)
{
    struct eq_result result[2];

    run->ops[0]->run(run->executor[0], c, &result[0]);
    if (result[0].vector == 14 && host_has(result[0].cr2)) {
        synchronise(run);
        run->tally->discarded++;
        return false;
    }
    run->ops[1]->run(run->executor[1], c, &result[1]);
    if (leeway->stale_flags && leeway->segment_offset && result[0].vector != result[1].vector &&
        result[1].vector == 13) {
        synchronise(run);
        run->tally->discarded++;
        return false;
    }
    if (result[0].stuck && result[1].stuck) { /* a loop without an end has no state after it */
        synchronise(run);
        return true;
    }
    eq_level(run->memory.image, result, leeway);
    if (!eq_same(c, &result[0], &result[1], leeway) ||
        memcmp(run->memory.image[0], run->memory.image[1], EQ_IMAGE_SIZE) != 0) {
        report(run, name, c, result, leeway);
        synchronise(run);
    }
    return true;
}

/* ---- forms ---- */

static uint64_t hash_name(uint64_t seed, const char *name)
{
    uint64_t hash = seed ^ UINT64_C(0xcbf29ce484222325);

    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return hash;
}

static void fresh_memory(struct run *run, struct eq_random *random)
{
    uint8_t *image = run->memory.image[0];

    memset(image, 0xcc, EQ_CODE_PAGES * EQ_PAGE);
    eq_lanes(random, image + EQ_CODE_PAGES * EQ_PAGE, EQ_IMAGE_SIZE - EQ_CODE_PAGES * EQ_PAGE);
    memcpy(run->memory.image[1], image, EQ_IMAGE_SIZE);
}

static void run_form(struct run *run, const struct form *form)
{
    struct generator g;
    struct eq_case c;
    struct eq_insn insn;
    struct eq_leeway leeway;
    unsigned done = 0;

    if (form->code32 && run->ops[0]->translates)
        return;
    generator_init(&g, &run->memory, hash_name(run->options->seed, form->name));
    fresh_memory(run, &g.random);
    snprintf(run->tally->now, sizeof run->tally->now, "%s", form->name);
    for (unsigned attempt = 0; attempt < 2 * run->options->cases + 20 && done < run->options->cases; attempt++)
        if (generate_case(&g, form, &c, &insn)) {
            eq_leeway_of(&insn, &c.state, &leeway);
            leeway.stale_flags = run->ops[0]->translates;
            done += run_case(run, form->name, &c, &leeway);
        }
    run->tally->cases += done;
    if (done < run->options->cases) {
        run->tally->thin++;
        printf("FORM %s: only %u of %u cases could be run\n", form->name, done, run->options->cases);
    }
}

static void run_sequences(struct run *run, unsigned worker)
{
    const struct eq_leeway none = {.stale_flags = run->ops[0]->translates};
    struct generator g;
    struct eq_case c;

    for (unsigned i = worker; i < run->options->sequences; i += run->options->workers) {
        char name[48];

        snprintf(name, sizeof name, "sequence %u", i);
        memcpy(run->tally->now, name, sizeof name);
        generator_init(&g, &run->memory, hash_name(run->options->seed, name));
        if (run->options->only >= 0 && run->options->only != (long)i)
            continue;
        fresh_memory(run, &g.random);
        if (generate_sequence(&g, run->forms, i % 8 >= 6, &c) && run_case(run, name, &c, &none))
            run->tally->sequences++;
    }
}

static int work(struct run *run, unsigned worker)
{
    run->memory.images = 2;
    for (unsigned i = 0; i < 2; i++) {
        int error = run->ops[i]->open(&run->executor[i]);

        if (error != 0) {
            fprintf(stderr, "equivalence: starting %s: %s\n", run->ops[i]->name, strerror(-error));
            return 2;
        }
        run->memory.image[i] = run->ops[i]->image(run->executor[i]);
    }
    for (unsigned i = worker; i < run->forms->count; i += run->options->workers)
        if (run->options->form == NULL || strstr(run->forms->form[i].name, run->options->form) != NULL)
            run_form(run, &run->forms->form[i]);
    run_sequences(run, worker);
    for (unsigned i = 0; i < 2; i++)
        run->ops[i]->close(run->executor[i]);
    return 0;
}

/* ---- workers ---- */

static unsigned wait_for(const pid_t *pid, const struct tally *tally, unsigned workers)
{
    unsigned failed = 0;

    for (unsigned i = 0; i < workers; i++) {
        int status;

        if (waitpid(pid[i], &status, 0) == pid[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        failed++;
        fprintf(stderr, "equivalence: worker %u ended %s %d while running %s\n", i,
                WIFSIGNALED(status) ? "by signal" : "with status",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), tally[i].now);
    }
    return failed;
}

static int run_all(const struct options *options, const struct form_list *forms, const struct executor_ops *ours)
{
    struct tally *tally =
        mmap(NULL, WORKERS_MAX * sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct tally sum = {0};
    pid_t pid[WORKERS_MAX];
    struct timespec start, end;
    unsigned failed;

    if (tally == MAP_FAILED)
        return 2;
    clock_gettime(CLOCK_MONOTONIC, &start);
    fflush(stdout);
    for (unsigned i = 0; i < options->workers; i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            struct run run = {.options = options, .forms = forms, .ops = {ours, &host_executor}, .tally = &tally[i]};
            int status = work(&run, i);

            free(forms->form);
            exit(status);
        }
    }
    failed = wait_for(pid, tally, options->workers);
    clock_gettime(CLOCK_MONOTONIC, &end);
    for (unsigned i = 0; i < options->workers; i++) {
        sum.cases += tally[i].cases;
        sum.sequences += tally[i].sequences;
        sum.discarded += tally[i].discarded;
        sum.differences += tally[i].differences;
        sum.thin += tally[i].thin;
    }
    munmap(tally, WORKERS_MAX * sizeof *tally);
    printf("%u forms, %llu cases, %llu sequences, %llu discarded, %llu differences, %llu forms with too few cases, "
           "%.1f s\n",
           forms->count, (unsigned long long)sum.cases, (unsigned long long)sum.sequences,
           (unsigned long long)sum.discarded, (unsigned long long)sum.differences, (unsigned long long)sum.thin,
           (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec));
    return failed != 0 || sum.differences != 0 || sum.thin != 0 || sum.cases + sum.sequences == 0;
}

/* ---- command line ---- */

static void usage(FILE *to)
{
    fprintf(to, "usage: equivalence [--seed N] [--cases N] [--sequences N] [--form SUBSTRING] [--workers N] [--show N]\n"
                "                   [--against WHO] [--repeat N] [--long] [--list]\n"
                "  --cases N      cases per form (200)\n"
                "  --sequences N  random pieces of code (20000)\n"
                "  --only-sequence N\n"
                "                 run just this one of them\n"
                "  --against WHO  who is compared with the host: veneer's instruction code (isa), an engine (interpret,\n"
                "                 translate), or, to test the test, the host itself (host)\n"
                "  --repeat N     an engine runs each case N times, so that it takes the code for hot\n"
                "  --long         2000 cases per form and a million sequences\n"
                "  --show N       differences that each worker prints (5)\n"
                "  --list         print the forms and leave\n");
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},  {"cases", required_argument, NULL, 'c'},
        {"form", required_argument, NULL, 'f'},  {"sequences", required_argument, NULL, 'q'},
        {"workers", required_argument, NULL, 'w'}, {"show", required_argument, NULL, 'd'},
        {"only-sequence", required_argument, NULL, 'o'}, {"against", required_argument, NULL, 'a'},
        {"repeat", required_argument, NULL, 'r'}, {"long", no_argument, NULL, 'l'},
        {"list", no_argument, NULL, 'L'},        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};

    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 's': o->seed = strtoull(optarg, NULL, 0); break;
        case 'c': o->cases = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'q': o->sequences = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'w': o->workers = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'd': o->shown = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'o': o->only = strtol(optarg, NULL, 0); break;
        case 'f': o->form = optarg; break;
        case 'r': engine_repeats = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'a': o->against = optarg; break;
        case 'l': o->cases = 2000, o->sequences = 1000000; break;
        case 'L': o->list = true; break;
        case 'h': usage(stdout); exit(0);
        default: usage(stderr); return -1;
        }
    }
    if (o->workers < 1 || o->workers > WORKERS_MAX)
        o->workers = 2;
    if (engine_repeats < 1)
        engine_repeats = 1;
    return 0;
}

static const struct executor_ops *executor_named(const char *name)
{
    static const struct {
        const char *name;
        const struct executor_ops *ops;
    } known[] = {{"isa", &isa_executor}, {"interpret", &interpret_executor}, {"translate", &translate_executor},
                 {"host", &again_executor}};

    for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].ops;
    return NULL;
}

int main(int argc, char **argv)
{
    struct options options = {.seed = 1, .only = -1, .cases = 200, .sequences = 20000, .workers = 2, .shown = 5,
                              .against = "isa"};
    struct form_list forms;
    struct x86_cpuid cpuid;
    const struct executor_ops *ours;
    unsigned missing;
    int status;

    if (parse(argc, argv, &options) != 0)
        return 2;
    if (!host_able()) {
        fprintf(stderr, "equivalence: this host gives user code no FSGSBASE instructions or no AVX: skipped\n");
        return 77;
    }
    ours = executor_named(options.against);
    if (ours == NULL) {
        fprintf(stderr, "equivalence: --against %s: there is no such executor\n", options.against);
        return 2;
    }
    /* The host model has all that the default model has, and more. */
    x86_cpuid_init(&cpuid, X86_MODEL_HOST, 1, 1000000000);
    forms_enumerate(&forms, &cpuid);
    printf("seed %llu: %u forms, %u cases each; by instruction set:\n", (unsigned long long)options.seed, forms.count,
           options.cases);
    missing = forms_report(&forms, &cpuid, options.form == NULL);
    for (unsigned i = 0; options.list && i < forms.count; i++)
        printf("%s\n", forms.form[i].name);
    status = options.list ? 0 : run_all(&options, &forms, ours);
    free(forms.form);
    return missing != 0 ? 1 : status;
}
