/* attach.c - see attach.h. Values are parsed here, so that a mistake is told in the words of run's options. */
#include "cli/attach.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/disk.h"
#include "cli/option.h"
#include "cli/share.h"
#include "host/control.h"

#define PATIENCE_MS 20000 /* for the machine's own work */
#define TIMEOUT_MAX 3600u /* seconds */

int attach_parse_timeout(const char *value, unsigned *ret_seconds, struct error *error)
{
    uint64_t seconds;
    int r = option_number(value, 1, TIMEOUT_MAX, &seconds, error);
    if (r == 0)
        *ret_seconds = (unsigned)seconds;
    return r;
}

static struct json_object *new_request(const char *verb)
{
    struct json_object *request = json_object_new_object();
    json_object_object_add(request, "verb", json_object_new_string(verb));
    return request;
}

static void add_text(struct json_object *request, const char *key, const char *value)
{
    if (value)
        json_object_object_add(request, key, json_object_new_string(value));
}

static void add_number(struct json_object *request, const char *key, uint64_t value)
{
    if (value)
        json_object_object_add(request, key, json_object_new_uint64(value));
}

static void add_flag(struct json_object *request, const char *key, bool value)
{
    if (value)
        json_object_object_add(request, key, json_object_new_boolean(true));
}

/* The machine's process has a working directory of its own. To be freed. */
static int whole_path(const char *path, char **ret_path, struct error *error)
{
    *ret_path = realpath(path, NULL);
    return *ret_path ? 0 : error_set(error, errno, "'%s': %s", path, strerror(errno));
}

int attach_disk(const char *machine, const char *value, const char *id, struct error *error)
{
    struct machine_disk disk = {0};
    struct json_object *reply, *name = NULL;
    char *path = NULL;
    int r = disk_parse(value, &disk, error);
    if (r < 0)
        error_prefix(error, "the disk '%s'", value);
    if (r == 0)
        r = whole_path(disk.path, &path, error);
    if (r < 0) {
        disk_free(&disk);
        return r;
    }
    struct json_object *request = new_request("disk-attach");
    add_text(request, "path", path);
    add_text(request, "id", id);
    add_text(request, "format", disk.format);
    add_text(request, "serial", disk.serial);
    add_flag(request, "readonly", disk.readonly);
    add_flag(request, "direct", disk.direct);
    add_number(request, "iops", disk.iops);
    add_number(request, "bps", disk.bps);
    add_number(request, "queues", disk.queues);
    free(path);
    disk_free(&disk);
    r = control_ask(machine, request, PATIENCE_MS, &reply, error);
    if (r < 0)
        return r;
    if (json_object_object_get_ex(reply, "id", &name))
        puts(json_object_get_string(name));
    json_object_put(reply);
    return 0;
}

static int detach(const char *machine, const char *verb, const char *key, const char *value, unsigned seconds, struct error *error)
{
    struct json_object *request = new_request(verb);
    add_text(request, key, value);
    json_object_object_add(request, "timeout", json_object_new_uint64(seconds));
    return control_ask(machine, request, (int)seconds * 1000 + PATIENCE_MS, NULL, error);
}

int detach_disk(const char *machine, const char *id, unsigned seconds, struct error *error)
{
    return detach(machine, "disk-detach", "id", id, seconds, error);
}

int detach_share(const char *machine, const char *tag, unsigned seconds, struct error *error)
{
    return detach(machine, "share-detach", "tag", tag, seconds, error);
}

int resize_attached_disk(const char *machine, const char *id, uint64_t size, struct error *error)
{
    struct json_object *request = new_request("disk-resize");
    add_text(request, "id", id);
    json_object_object_add(request, "size", json_object_new_uint64(size));
    return control_ask(machine, request, PATIENCE_MS, NULL, error);
}

int attach_share(const char *machine, const char *value, struct error *error)
{
    struct machine_config config = {0};
    char *folder = NULL;
    int r = share_parse(value, &config, error);
    if (r < 0)
        error_prefix(error, "the share '%s'", value);
    if (r == 0)
        r = whole_path(config.share[0].folder, &folder, error);
    if (r < 0)
        return r;
    struct json_object *request = new_request("share-attach");
    add_text(request, "folder", folder);
    add_text(request, "tag", config.share[0].tag);
    add_flag(request, "readonly", config.share[0].read_only);
    free(folder);
    return control_ask(machine, request, PATIENCE_MS, NULL, error);
}
