/* list.c - `veneer list`: the machines that run, and instances of images that do not. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/option.h"
#include "host/control.h"
#include "host/registry.h"
#include "host/store.h"

#define PATIENCE_MS 2000

struct list {
    struct cli_format format;
    struct json_object *machines;
};

static const struct option_spec options[] = {CLI_FORMAT_OPTION, {NULL, NULL, NULL, NULL}};

/* What only the process of a machine knows; null where none runs or answers. */
static const char *const told[] = {"pid", "engine", "cpus", "memory", "started", "agent"};

/* status: the machine's reply, or NULL. */
static void add_told(struct json_object *machine, struct json_object *status)
{
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        struct json_object *value = NULL;
        if (status)
            json_object_object_get_ex(status, told[i], &value);
        json_object_object_add(machine, told[i], json_object_get(value));
    }
}

/* One machine's status, or what is known of one that does not answer. */
static int visit(void *owner, const char *name)
{
    struct list *list = owner;
    struct json_object *request = json_object_new_object(), *status = NULL;
    struct error error;
    char path[REGISTRY_PATH_MAX];
    json_object_object_add(request, "verb", json_object_new_string("status"));
    int r = registry_find(name, "control.sock", path, &error);
    bool gone = r == -ENOENT;
    if (r == 0)
        r = control_request(path, request, PATIENCE_MS, &status, &error);
    json_object_put(request);
    if (gone)
        return 0;
    struct json_object *machine = json_object_new_object();
    json_object_object_add(machine, "name", json_object_new_string(name));
    json_object_object_add(machine, "state", json_object_new_string(r == 0 ? "running" : "silent"));
    add_told(machine, status);
    json_object_put(status);
    json_object_array_add(list->machines, machine);
    return 0;
}

/* The image of a machine that is listed already, or an instance that does not run. */
static int visit_instance(void *owner, const struct store_instance *instance)
{
    struct list *list = owner;
    struct json_object *machine = NULL, *name;
    for (size_t i = 0; i < json_object_array_length(list->machines) && !machine; i++) {
        struct json_object *listed = json_object_array_get_idx(list->machines, i);
        if (json_object_object_get_ex(listed, "name", &name) && strcmp(json_object_get_string(name), instance->name) == 0)
            machine = listed;
    }
    if (!machine) {
        if (instance->running || instance->temporary) /* starting, or a leftover that the next change clears away */
            return 0;
        machine = json_object_new_object();
        json_object_object_add(machine, "name", json_object_new_string(instance->name));
        json_object_object_add(machine, "state", json_object_new_string("stopped"));
        add_told(machine, NULL);
        json_object_array_add(list->machines, machine);
    }
    json_object_object_add(machine, "image", json_object_new_string(instance->image));
    json_object_object_add(machine, "stored", json_object_new_uint64(instance->stored));
    return 0;
}

static int add_instances(struct list *list, struct error *error)
{
    struct store *store;
    int r = store_open(NULL, &store, error);
    if (r < 0)
        return r;
    r = store_instance_list(store, visit_instance, list, error);
    store_close(store);
    return r;
}

/* Null, and what is missing, is told by a dash. */
static const char *text(struct json_object *machine, const char *key)
{
    struct json_object *value;
    json_object_object_get_ex(machine, key, &value);
    return value && json_object_get_string(value)[0] ? json_object_get_string(value) : "-";
}

/* A number and its unit; width includes the unit. */
static void print_number(bool known, uint64_t number, char unit, int width)
{
    if (known)
        printf(" %*" PRIu64 "%c", width - 1, number, unit);
    else
        printf(" %*s", width, "-");
}

static void print_machine(struct json_object *machine)
{
    struct json_object *memory, *started, *agent;
    int64_t now = time(NULL);
    json_object_object_get_ex(machine, "memory", &memory);
    json_object_object_get_ex(machine, "started", &started);
    json_object_object_get_ex(machine, "agent", &agent);
    int64_t since = json_object_get_int64(started);
    bool stopped = strcmp(text(machine, "state"), "stopped") == 0;
    printf("%-20s %-8s %8s %-10s %4s", text(machine, "name"), text(machine, "state"), text(machine, "pid"),
           text(machine, "engine"), text(machine, "cpus"));
    print_number(memory, json_object_get_uint64(memory) >> 20, 'M', 8);
    print_number(started, now > since ? (uint64_t)(now - since) : 0, 's', 10);
    printf(" %-12s %s\n", text(machine, "image"), stopped ? "no" : json_object_get_boolean(agent) ? "yes" : "not yet");
}

static void print(struct json_object *machines)
{
    printf("%-20s %-8s %8s %-10s %4s %8s %10s %-12s %s\n", "NAME", "STATE", "PID", "ENGINE", "CPUS", "MEMORY", "UP", "IMAGE",
           "COMMANDS");
    for (size_t i = 0; i < json_object_array_length(machines); i++)
        print_machine(json_object_array_get_idx(machines, i));
}

static int list_run(int argc, char **argv)
{
    struct list list = {.format = {false}};
    struct error error;
    int rest;
    int r = option_parse(options, argc, argv, &list, &rest, &error);
    if (r > 0) {
        puts("usage: veneer list [OPTION...]\n\n"
             "Lists the machines of this user that run, and the instances of images that do not. COMMANDS tells\n"
             "whether the guest serves 'veneer exec' already; a machine that does not answer is \"silent\".\n\noptions:");
        option_help(options, stdout);
        return 0;
    }
    if (r == 0 && rest < argc)
        r = error_set(&error, EINVAL, "'%s': this command takes options only", argv[rest]);
    if (r < 0) {
        log_error("%s", error.text);
        return STATUS_USAGE;
    }
    list.machines = json_object_new_array();
    r = registry_each(visit, &list, &error);
    if (r == 0)
        r = add_instances(&list, &error);
    if (r < 0)
        log_error("%s", error.text);
    else if (list.format.json)
        puts(json_object_to_json_string_ext(list.machines, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    else
        print(list.machines);
    json_object_put(list.machines);
    return r < 0;
}

const struct command command_list = {"list", "show the machines that run, and instances that do not", list_run};
