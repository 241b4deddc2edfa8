/* memory.c - `veneer memory`: what a running machine's memory is used for, and how much its balloon is to take. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/option.h"
#include "host/control.h"

#define PATIENCE_MS 5000

struct memory_config {
    struct cli_format format;
    bool set;
    uint64_t balloon; /* bytes */
};

static int parse_balloon(void *config, const char *value, struct error *error)
{
    struct memory_config *memory = config;
    memory->set = true;
    return option_size(value, &memory->balloon, error);
}

static const struct option_spec options[] = {
    {"balloon", "SIZE", "set what the balloon is to take from the guest, such as 256M or 0", parse_balloon},
    CLI_FORMAT_OPTION,
    {NULL, NULL, NULL, NULL}};

/* "412.3M"; "-" for what is not told. */
static const char *size_text(struct json_object *object, const char *key, char ret_text[32])
{
    struct json_object *value;
    if (json_object_object_get_ex(object, key, &value))
        snprintf(ret_text, 32, "%.1fM", (double)json_object_get_uint64(value) / (1 << 20));
    else
        snprintf(ret_text, 32, "-");
    return ret_text;
}

static void print(struct json_object *memory)
{
    struct json_object *balloon = NULL, *guest = NULL;
    char one[32], two[32];
    json_object_object_get_ex(memory, "balloon", &balloon);
    json_object_object_get_ex(memory, "guest", &guest);
    printf("guest's memory      %s\n", size_text(memory, "size", one));
    printf("on the host         %s\n", size_text(memory, "resident", one));
    if (balloon) {
        printf("balloon             %s, to be %s\n", size_text(balloon, "actual", one), size_text(balloon, "target", two));
        printf("came back so far    %s by the balloon, %s by free page reporting\n", size_text(balloon, "inflated", one),
               size_text(balloon, "reported", two));
    } else {
        puts("balloon             none");
    }
    if (guest) {
        printf("free in the guest   %s\n", size_text(guest, "free", one));
        printf("available           %s\n", size_text(guest, "available", one));
        printf("caches              %s\n", size_text(guest, "caches", one));
    } else {
        puts("the guest has told nothing of its use yet");
    }
}

static int ask(const char *name, const struct memory_config *config, struct error *error)
{
    struct json_object *request = json_object_new_object(), *reply;
    json_object_object_add(request, "verb", json_object_new_string("memory"));
    if (config->set)
        json_object_object_add(request, "balloon", json_object_new_uint64(config->balloon));
    int r = control_ask(name, request, PATIENCE_MS, &reply, error);
    if (r < 0)
        return r;
    json_object_object_del(reply, "ok");
    if (config->format.json)
        puts(json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PRETTY));
    else
        print(reply);
    json_object_put(reply);
    return 0;
}

static int memory_run(int argc, char **argv)
{
    struct memory_config config = {.set = false};
    struct error error;
    const char *name;
    int r = option_parse_name(options, argc, argv, &config, &name, &error);
    if (r > 0) {
        puts("usage: veneer memory [OPTION...] NAME\n\nTells what the memory of the running machine NAME is used for, and sets its balloon.\n\noptions:");
        option_help(options, stdout);
        return 0;
    }
    if (r < 0) {
        log_error("%s", error.text);
        return STATUS_USAGE;
    }
    r = ask(name, &config, &error);
    if (r < 0)
        log_error("%s", error.text);
    return r < 0;
}

const struct command command_memory = {"memory", "show a running machine's memory, and set its balloon", memory_run};
