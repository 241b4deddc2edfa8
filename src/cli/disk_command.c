/* disk_command.c - `veneer disk`: creates, describes, resizes and converts the files that volumes are kept in, and gives
 * them to running machines. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/copy.h"
#include "block/open.h"
#include "block/qcow2.h"
#include "block/qcow2_format.h"
#include "cli/attach.h"
#include "cli/command.h"
#include "cli/disk.h"
#include "cli/format.h"
#include "cli/verb.h"

struct disk_config {
    struct cli_format format; /* first, for its parser */
    const char *disk_format, *to, *backing, *backing_format;
    unsigned cluster_bits;
    const char *id, *machine;
    unsigned seconds;
};

static int take_format(const char **ret_format, const char *value, struct error *error)
{
    if (strcmp(value, "raw") != 0 && strcmp(value, "qcow2") != 0)
        return error_set(error, EINVAL, "is no format of disks; give raw or qcow2");
    *ret_format = value;
    return 0;
}

static int parse_disk_format(void *config, const char *value, struct error *error)
{
    return take_format(&((struct disk_config *)config)->disk_format, value, error);
}

static int parse_to(void *config, const char *value, struct error *error)
{
    return take_format(&((struct disk_config *)config)->to, value, error);
}

static int parse_backing_format(void *config, const char *value, struct error *error)
{
    return take_format(&((struct disk_config *)config)->backing_format, value, error);
}

static int parse_backing(void *config, const char *value, struct error *error)
{
    (void)error;
    ((struct disk_config *)config)->backing = value;
    return 0;
}

static int parse_cluster(void *config, const char *value, struct error *error)
{
    uint64_t size;
    int r = option_size(value, &size, error);
    unsigned bits = r == 0 ? (unsigned)__builtin_ctzll(size | 1ull << 63) : 0;
    if (r == 0 && (size != 1ull << bits || bits < QCOW2_MIN_CLUSTER_BITS || bits > QCOW2_MAX_CLUSTER_BITS))
        r = error_set(error, EINVAL, "is no size of clusters; give a power of two from 1K to 2M");
    if (r == 0)
        ((struct disk_config *)config)->cluster_bits = bits;
    return r;
}

static int parse_id(void *config, const char *value, struct error *error)
{
    (void)error;
    ((struct disk_config *)config)->id = value;
    return 0;
}

static int parse_machine(void *config, const char *value, struct error *error)
{
    (void)error;
    ((struct disk_config *)config)->machine = value;
    return 0;
}

static int parse_timeout(void *config, const char *value, struct error *error)
{
    return attach_parse_timeout(value, &((struct disk_config *)config)->seconds, error);
}

static const struct option_spec create_options[] = {
    {"disk-format", "FORMAT", "raw or qcow2 (default: qcow2)", parse_disk_format},
    {"backing", "FILE", "what it reads as until it is written to; its size is the default", parse_backing},
    {"backing-format", "FORMAT", "raw or qcow2: must be given with --backing", parse_backing_format},
    {"cluster-size", "SIZE", "of a qcow2 disk, 1K to 2M (default: 64K)", parse_cluster},
    {NULL, NULL, NULL, NULL}};
static const struct option_spec info_options[] = {
    {"disk-format", "FORMAT", "raw or qcow2 (default: told from the file)", parse_disk_format},
    CLI_FORMAT_OPTION,
    {NULL, NULL, NULL, NULL}};
static const struct option_spec resize_options[] = {
    {"disk-format", "FORMAT", "raw or qcow2 (default: told from the file)", parse_disk_format},
    {"machine", "NAME", "FILE is not a file but the disk of that name in this running machine", parse_machine},
    {NULL, NULL, NULL, NULL}};
static const struct option_spec attach_options[] = {
    {"id", "ID", "the disk's name in the machine (default: disk0 or the next that is free; it is printed)", parse_id},
    {NULL, NULL, NULL, NULL}};
static const struct option_spec detach_options[] = {
    {"timeout", "SECONDS", ATTACH_TIMEOUT_HELP, parse_timeout},
    {NULL, NULL, NULL, NULL}};
static const struct option_spec convert_options[] = {
    {"disk-format", "FORMAT", "of FROM: raw or qcow2 (default: told from the file)", parse_disk_format},
    {"to", "FORMAT", "of TO: raw or qcow2 (default: qcow2)", parse_to},
    {"cluster-size", "SIZE", "of a qcow2 disk, 1K to 2M (default: 64K)", parse_cluster},
    {NULL, NULL, NULL, NULL}};

static int create_raw(const char *path, uint64_t size, struct error *error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set(error, errno, "making %s: %s", path, strerror(errno));
    int r = size > INT64_MAX || ftruncate(fd, (off_t)size) < 0 ? error_set(error, EFBIG, "making %s: it is too large", path) : 0;
    close(fd);
    if (r < 0)
        unlink(path);
    return r;
}

static int create_disk(const char *path, const char *format, uint64_t size, const struct disk_config *config, struct error *error)
{
    if (strcmp(format, "raw") == 0)
        return create_raw(path, size, error);
    struct qcow2_create create = {.path = path, .size = size, .cluster_bits = config->cluster_bits, .backing = config->backing,
                                  .backing_format = config->backing_format};
    return qcow2_create(&create, error);
}

static int take_size(const char *text, uint64_t *ret_size, struct error *error)
{
    int r = option_size(text, ret_size, error);
    if (r < 0)
        error_prefix(error, "the size '%s'", text);
    else if (*ret_size == 0 || *ret_size > INT64_MAX - 4096)
        r = error_set(error, ERANGE, "the size '%s' is out of range", text);
    return r;
}

static int create(const char *const *operand, void *context, struct error *error)
{
    const struct disk_config *config = context;
    uint64_t size = 0;
    const char *format = config->disk_format ? config->disk_format : "qcow2";
    bool raw = strcmp(format, "raw") == 0;
    if (raw && (config->backing || config->cluster_bits))
        return error_set(error, EINVAL, "a raw disk has neither a backing file nor clusters");
    if (config->backing_format && !config->backing)
        return error_set(error, EINVAL, "--backing-format without --backing");
    if (!operand[1] && !config->backing)
        return error_set(error, EINVAL, "give a size, as in 'veneer disk create %s 10G'", operand[0]);
    int r = operand[1] ? take_size(operand[1], &size, error) : 0;
    return r < 0 ? r : create_disk(operand[0], format, size, config, error);
}

static void add(struct json_object *object, const char *name, struct json_object *value)
{
    json_object_object_add(object, name, value);
}

/* What there is to say of a file; the fields of qcow2 are absent from the description of a raw disk. */
static void print_json(const char *path, const char *format, uint64_t size, uint64_t stored, const struct qcow2_header *header)
{
    struct json_object *object = json_object_new_object();
    add(object, "path", json_object_new_string(path));
    add(object, "format", json_object_new_string(format));
    add(object, "size", json_object_new_uint64(size));
    add(object, "stored", json_object_new_uint64(stored));
    if (header) {
        add(object, "version", json_object_new_int64(header->version));
        add(object, "cluster_size", json_object_new_int64(1ll << header->cluster_bits));
        add(object, "snapshots", json_object_new_int64(header->snapshot_count));
        add(object, "needs_repair", json_object_new_boolean(!!(header->incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT))));
        add(object, "backing", header->backing[0] ? json_object_new_string(header->backing) : NULL);
        add(object, "backing_format", header->backing_format[0] ? json_object_new_string(header->backing_format) : NULL);
    }
    puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(object);
}

static void print_text(const char *path, const char *format, uint64_t size, uint64_t stored, const struct qcow2_header *header)
{
    printf("file:     %s\nformat:   %s\nsize:     %" PRIu64 " bytes\nstored:   %" PRIu64 " bytes\n", path, format, size, stored);
    if (!header)
        return;
    printf("version:  %u\nclusters: %llu bytes\n", header->version, 1ull << header->cluster_bits);
    if (header->backing[0])
        printf("backing:  %s (%s)\n", header->backing, header->backing_format[0] ? header->backing_format : "its format is not recorded");
    if (header->snapshot_count)
        printf("holds %u snapshots\n", header->snapshot_count);
    if (header->incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT))
        puts("needs to be repaired");
}

static int info(const char *const *operand, void *context, struct error *error)
{
    const struct disk_config *config = context;
    const char *path = operand[0], *format = config->disk_format ? config->disk_format : block_probe(path, error);
    struct qcow2_header header;
    struct stat st;
    struct block *block = NULL;
    if (!format)
        return -EIO;
    bool qcow2 = strcmp(format, "qcow2") == 0;
    int r = 0;
    if (qcow2) {
        r = qcow2_read(path, &header, error);
    } else {
        struct block_options options = {.path = path, .format = "raw", .readonly = true, .unlocked = true};
        r = block_open(&options, NULL, &block, error);
    }
    if (r == 0 && stat(path, &st) < 0)
        r = error_set(error, errno, "%s: %s", path, strerror(errno));
    if (r == 0)
        (config->format.json ? print_json : print_text)(path, format, qcow2 ? header.size : block->limits.size,
                                                        (uint64_t)st.st_blocks * 512, qcow2 ? &header : NULL);
    block_close(block);
    return r;
}

static int resize(const char *const *operand, void *context, struct error *error)
{
    const struct disk_config *config = context;
    uint64_t size;
    struct block *block = NULL;
    struct block_options options = {.path = operand[0], .format = config->disk_format};
    int r = take_size(operand[1], &size, error);
    if (r == 0 && config->machine)
        return resize_attached_disk(config->machine, operand[0], size, error);
    if (r == 0)
        r = block_open(&options, NULL, &block, error);
    if (r == 0)
        r = block_resize(block, size, error);
    return block_close_file(block, options.path, r, error);
}

static int convert(const char *const *operand, void *context, struct error *error)
{
    const struct disk_config *config = context;
    const char *to_format = config->to ? config->to : "qcow2";
    struct block *from = NULL, *to = NULL;
    struct block_options source = {.path = operand[0], .format = config->disk_format, .readonly = true};
    struct block_options target = {.path = operand[1], .format = to_format};
    if (config->cluster_bits && strcmp(to_format, "raw") == 0)
        return error_set(error, EINVAL, "a raw disk has no clusters");
    int r = block_open(&source, NULL, &from, error);
    if (r < 0)
        return r;
    r = create_disk(operand[1], to_format, from->limits.size, config, error);
    if (r == 0) {
        r = block_open(&target, NULL, &to, error);
        if (r == 0)
            r = block_copy(from, to, NULL, NULL, error);
        r = block_close_file(to, target.path, r, error);
        if (r < 0)
            unlink(operand[1]); /* half a copy; it was made here */
    }
    block_close(from);
    return r;
}

static int attach(const char *const *operand, void *context, struct error *error)
{
    const struct disk_config *config = context;
    return attach_disk(operand[0], operand[1], config->id, error);
}

static int detach(const char *const *operand, void *context, struct error *error)
{
    const struct disk_config *config = context;
    return detach_disk(operand[0], operand[1], config->seconds, error);
}

static const struct verb verbs[] = {
    {"create", "FILE [SIZE]", "makes a disk of zeroes, or a thin clone of another", 1, 2, create_options, create},
    {"info", "FILE", "describes a disk, also one in use", 1, 1, info_options, info},
    {"resize", "FILE SIZE", "changes the size of a disk; a qcow2 disk can only grow", 2, 2, resize_options, resize},
    {"attach", "NAME " DISK_FORM, "gives a disk to the running machine NAME", 2, 2, attach_options, attach},
    {"detach", "NAME ID", "takes it back when the guest has let go of it", 2, 2, detach_options, detach},
    {"convert", "FROM TO", "copies a disk, with what its backing files hold, into a new file", 2, 2, convert_options, convert},
};

static int disk_run(int argc, char **argv)
{
    static const struct verb_command command = {
        .name = "disk", .about = "Disks are the files that 'veneer run --disk' gives to guests.",
        .verbs = verbs, .count = sizeof verbs / sizeof verbs[0]};
    struct disk_config config = {.seconds = ATTACH_TIMEOUT_SECONDS};
    return verb_command_run(&command, argc, argv, &config);
}

const struct command command_disk = {"disk", "create, describe, resize and convert disk files; attach and detach them", disk_run};
