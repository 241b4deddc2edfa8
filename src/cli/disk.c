#include "cli/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/option.h"

/* Copies up to the next single comma, taking two for one, and moves *at past it (or to the end). NULL: no memory. */
static char *next_word(const char **at)
{
    char *word = malloc(strlen(*at) + 1), *to = word;
    if (!word)
        return NULL;
    for (; **at; (*at)++) {
        if (**at == ',' && (*at)[1] != ',')
            break;
        if (**at == ',')
            (*at)++;
        *to++ = **at;
    }
    *to = '\0';
    if (**at)
        (*at)++;
    return word;
}

static int take_rate(const char *name, const char *value, bool size, uint64_t *ret_rate, struct error *error)
{
    uint64_t number = 0;
    int status = size ? option_size(value, &number, error) : option_number(value, 0, UINT32_MAX, &number, error);
    if (status < 0)
        error_prefix(error, "has a bad %s", name);
    else if (number == 0)
        status = error_set(error, EINVAL, "has 0 as %s, which lets nothing through", name);
    else
        *ret_rate = number;
    return status;
}

static int take_format(const char *value, struct machine_disk *disk, struct error *error)
{
    static const char *const formats[] = {"raw", "qcow2"};
    for (unsigned i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(value, formats[i]) == 0)
            disk->format = formats[i];
    return disk->format ? 0 : error_set(error, EINVAL, "has the unknown format '%s'; give raw or qcow2", value);
}

static int take_serial(const char *value, struct machine_disk *disk, struct error *error)
{
    if (strlen(value) > MACHINE_DISK_SERIAL)
        return error_set(error, EINVAL, "has a serial number of more than %u bytes", MACHINE_DISK_SERIAL);
    free((void *)(uintptr_t)disk->serial);
    disk->serial = strdup(value);
    return disk->serial ? 0 : error_set(error, ENOMEM, "could not be stored: no memory");
}

/* One word after the file. */
static int take(char *word, struct machine_disk *disk, struct error *error)
{
    char *value = strchr(word, '=');
    uint64_t number = 0;
    int status = 0;
    if (!value) {
        if (strcmp(word, "ro") == 0)
            disk->readonly = true;
        else if (strcmp(word, "direct") == 0)
            disk->direct = true;
        else
            status = error_set(error, EINVAL, "has the unknown part '%s'; give %s", word, DISK_FORM);
        return status;
    }
    *value++ = '\0';
    if (strcmp(word, "format") == 0)
        return take_format(value, disk, error);
    if (strcmp(word, "serial") == 0)
        return take_serial(value, disk, error);
    if (strcmp(word, "iops") == 0)
        return take_rate(word, value, false, &disk->iops, error);
    if (strcmp(word, "bps") == 0)
        return take_rate(word, value, true, &disk->bps, error);
    if (strcmp(word, "queues") == 0) {
        status = option_number(value, 1, MACHINE_DISK_QUEUES_MAX, &number, error);
        if (status < 0)
            error_prefix(error, "has bad queues");
        disk->queues = (unsigned)number;
    } else {
        status = error_set(error, EINVAL, "has the unknown part '%s='; give %s", word, DISK_FORM);
    }
    return status;
}

int disk_parse(const char *text, struct machine_disk *ret_disk, struct error *error)
{
    struct machine_disk disk = {.path = next_word(&text)};
    int status = 0;
    if (!disk.path)
        status = error_set(error, ENOMEM, "could not be stored: no memory");
    else if (disk.path[0] == '\0')
        status = error_set(error, EINVAL, "names no file; give %s", DISK_FORM);
    while (status == 0 && *text) {
        char *word = next_word(&text);
        status = word ? take(word, &disk, error) : error_set(error, ENOMEM, "could not be stored: no memory");
        free(word);
    }
    if (status < 0)
        disk_free(&disk);
    else
        *ret_disk = disk;
    return status;
}

void disk_free(struct machine_disk *disk)
{
    free((void *)(uintptr_t)disk->path);
    free((void *)(uintptr_t)disk->serial);
    *disk = (struct machine_disk){0};
}
