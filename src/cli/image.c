/* image.c - `veneer image`: builds, lists, imports, exports and deletes the images that instances are made from. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/progress.h"
#include "cli/verb.h"
#include "host/beside.h"
#include "host/image.h"

struct image_config {
    struct cli_format format; /* first, for its parser */
    struct image_build build;
    const char *disk_format;
    struct store *store; /* open while a verb runs */
};

static int parse_suite(void *config, const char *value, struct error *error)
{
    (void)error;
    ((struct image_config *)config)->build.suite = value;
    return 0;
}

static int parse_packages(void *config, const char *value, struct error *error)
{
    (void)error;
    ((struct image_config *)config)->build.packages = value;
    return 0;
}

static int parse_mirror(void *config, const char *value, struct error *error)
{
    if (!strstr(value, "://"))
        return error_set(error, EINVAL, "is no address; give one such as http://HOST/debian");
    ((struct image_config *)config)->build.mirror = value;
    return 0;
}

static int parse_size(void *config, const char *value, struct error *error)
{
    uint64_t size;
    int r = option_size(value, &size, error);
    if (r == 0 && (size < IMAGE_SIZE_MIN || size > IMAGE_SIZE_MAX))
        r = error_set(error, ERANGE, "is no size for a disk; give 64M to 8T");
    if (r == 0)
        ((struct image_config *)config)->build.size = size >> 20 << 20;
    return r;
}

static int parse_name(void *config, const char *value, struct error *error)
{
    if (!store_name_valid(value))
        return error_set(error, EINVAL, "is no name for an image; give " STORE_NAME_FORM);
    ((struct image_config *)config)->build.name = value;
    return 0;
}

static int parse_disk_format(void *config, const char *value, struct error *error)
{
    if (strcmp(value, "raw") != 0 && strcmp(value, "qcow2") != 0)
        return error_set(error, EINVAL, "is no format of disks; give raw or qcow2");
    ((struct image_config *)config)->disk_format = value;
    return 0;
}

static const struct option_spec build_options[] = {
    {"suite", "SUITE", "which Debian (default: bookworm)", parse_suite},
    {"packages", "A,B,...", "further packages", parse_packages},
    {"size", "SIZE", "the size that the guest sees (default: 4G); only what is written takes space", parse_size},
    {"name", "NAME", "the image's name (default: debian)", parse_name},
    {"mirror", "URI", "where the packages are (default: what this machine's apt is configured with)", parse_mirror},
    {NULL, NULL, NULL, NULL}};

static const struct option_spec list_options[] = {CLI_FORMAT_OPTION, {NULL, NULL, NULL, NULL}};

static const struct option_spec import_options[] = {
    {"disk-format", "FORMAT", "raw or qcow2 (default: told from the file)", parse_disk_format},
    {"size", "SIZE", "the size of the disk for an archive (default: 4G)", parse_size},
    {NULL, NULL, NULL, NULL}};

static const struct option_spec export_options[] = {
    {"disk-format", "FORMAT", "raw or qcow2 (default: raw)", parse_disk_format}, {NULL, NULL, NULL, NULL}};

static const struct option_spec no_options[] = {{NULL, NULL, NULL, NULL}};

static int build(const char *const *operand, void *context, struct error *error)
{
    struct image_config *config = context;
    char done[128];
    if (strcmp(operand[0], "debian") != 0)
        return error_set(error, EINVAL, "'%s' cannot be built; give debian", operand[0]);
    char agent[BESIDE_PATH_MAX], unit[BESIDE_PATH_MAX];
    if (beside_find("veneer-agent", agent, NULL) == 0 && beside_find("veneer-agent.service", unit, NULL) == 0) {
        config->build.agent = agent;
        config->build.agent_unit = unit;
    } else {
        log_warning("the guest agent is not installed; the image is built without it");
    }
    int r = image_build_debian(config->store, &config->build, progress_begin(), error);
    snprintf(done, sizeof done, "image '%s' built", config->build.name);
    progress_end(r == 0 ? done : NULL);
    return r;
}

static int import(const char *const *operand, void *context, struct error *error)
{
    struct image_config *config = context;
    char done[128];
    int r = store_name_check(operand[1], "image", error);
    if (r == 0)
        r = image_import(config->store, operand[0], config->disk_format, config->build.size, operand[1], progress_begin(), error);
    snprintf(done, sizeof done, "image '%.64s' imported", operand[1]);
    progress_end(r == 0 ? done : NULL);
    return r;
}

static int export(const char *const *operand, void *context, struct error *error)
{
    struct image_config *config = context;
    char done[128];
    const char *format = config->disk_format ? config->disk_format : "raw";
    int r = image_export(config->store, operand[0], operand[1], format, progress_begin(), error);
    snprintf(done, sizeof done, "image '%.64s' exported", operand[0]);
    progress_end(r == 0 ? done : NULL);
    return r;
}

static int delete(const char *const *operand, void *context, struct error *error)
{
    const struct image_config *config = context;
    return store_image_delete(config->store, operand[0], error);
}

static int print_image(void *owner, const struct store_image *image)
{
    (void)owner;
    char created[32];
    time_t time = (time_t)image->created;
    struct tm local;
    localtime_r(&time, &local);
    strftime(created, sizeof created, "%Y-%m-%d %H:%M", &local);
    printf("%-20s %-10s %-12s %-16s %9" PRIu64 "M %9" PRIu64 "M %5u  %.12s\n", image->name, image->os, image->suite, created,
           image->size >> 20, image->stored >> 20, image->instances, image->digest);
    return 0;
}

static int add_image(void *owner, const struct store_image *image)
{
    struct json_object *object = json_object_new_object();
    json_object_object_add(object, "name", json_object_new_string(image->name));
    json_object_object_add(object, "os", json_object_new_string(image->os));
    json_object_object_add(object, "suite", json_object_new_string(image->suite));
    json_object_object_add(object, "created", json_object_new_int64(image->created));
    json_object_object_add(object, "size", json_object_new_uint64(image->size));
    json_object_object_add(object, "stored", json_object_new_uint64(image->stored));
    json_object_object_add(object, "instances", json_object_new_uint64(image->instances));
    json_object_object_add(object, "sha256", json_object_new_string(image->digest));
    json_object_object_add(object, "kernel", json_object_new_string(image->kernel));
    json_object_object_add(object, "initrd", json_object_new_string(image->initrd));
    json_object_object_add(object, "cmdline", json_object_new_string(image->cmdline));
    json_object_object_add(object, "path", json_object_new_string(image->path));
    json_object_array_add(owner, object);
    return 0;
}

static int list(const char *const *operand, void *context, struct error *error)
{
    struct image_config *config = context;
    (void)operand;
    if (!config->format.json) {
        printf("%-20s %-10s %-12s %-16s %10s %10s %5s  %s\n", "NAME", "OS", "SUITE", "CREATED", "SIZE", "STORED", "USED", "SHA256");
        return store_image_list(config->store, print_image, NULL, error);
    }
    struct json_object *images = json_object_new_array();
    int r = store_image_list(config->store, add_image, images, error);
    if (r == 0)
        puts(json_object_to_json_string_ext(images, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(images);
    return r;
}

static const struct verb verbs[] = {
    {"build", "debian", "makes a bootable disk from Debian's packages, with veneer's agent in it;\n"
     "an image of that name is replaced, and instances of it keep the old one", 1, 1, build_options, build},
    {"list", "", "shows the images", 0, 0, list_options, list},
    {"import", "FILE NAME", "makes an image of a disk (a GPT or a bare ext4 with a Linux kernel in /boot, in a raw or\n"
     "qcow2 file), or of a tar archive of a root file system", 2, 2, import_options, import},
    {"export", "NAME FILE", "writes the disk of an image to a new file", 2, 2, export_options, export},
    {"delete", "NAME", "removes an image that no instance uses", 1, 1, no_options, delete},
};

static int begin(void *config, struct error *error)
{
    return store_open(NULL, &((struct image_config *)config)->store, error);
}

static void end(void *config)
{
    store_close(((struct image_config *)config)->store);
}

static int image_run(int argc, char **argv)
{
    static const struct verb_command command = {
        .name = "image", .about = "Images are the disks that 'veneer run IMAGE' starts from.",
        .verbs = verbs, .count = sizeof verbs / sizeof verbs[0], .begin = begin, .end = end};
    struct image_config config = {.build = {.name = "debian", .suite = "bookworm", .size = IMAGE_SIZE_DEFAULT}};
    return verb_command_run(&command, argc, argv, &config);
}

const struct command command_image = {"image", "build, list, import, export and delete disk images", image_run};
