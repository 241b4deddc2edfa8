#include "cli/share.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "device/virtio/fs.h"

/* What the options gave, for the machine's config to point to. */
static struct {
    char folder[PATH_MAX];
    char tag[VIRTIO_FS_TAG_MAX + 1];
} stored[MACHINE_SHARES_MAX];

/* Cuts ":ro" and the tag off the end, since a path may hold colons itself. */
int share_parse(const char *value, struct machine_config *config, struct error *error)
{
    size_t length = strlen(value);
    bool read_only = length >= 3 && strcmp(value + length - 3, ":ro") == 0;
    if (read_only)
        length -= 3;
    const char *colon = memrchr(value, ':', length);
    size_t folder = colon ? (size_t)(colon - value) : 0, tag = length - folder - 1;
    if (!colon)
        return error_set(error, EINVAL, "lacks a tag; give %s", SHARE_FORM);
    if (folder == 0)
        return error_set(error, EINVAL, "lacks the folder; give %s", SHARE_FORM);
    if (config->shares == MACHINE_SHARES_MAX)
        return error_set(error, EINVAL, "is one too many; at most %u folders can be shared", MACHINE_SHARES_MAX);
    if (folder >= PATH_MAX)
        return error_set(error, EINVAL, "has a path too long");
    if (tag > VIRTIO_FS_TAG_MAX)
        return error_set(error, EINVAL, "has a tag of %zu bytes; at most %u are possible", tag, VIRTIO_FS_TAG_MAX);
    char *to = stored[config->shares].tag;
    memcpy(to, colon + 1, tag);
    to[tag] = '\0';
    memcpy(stored[config->shares].folder, value, folder);
    stored[config->shares].folder[folder] = '\0';
    struct error reason;
    if (virtio_fs_check_tag(to, &reason) < 0)
        return error_set(error, EINVAL, "has a bad tag: %s; give %s", reason.text, SHARE_FORM);
    for (unsigned i = 0; i < config->shares; i++)
        if (strcmp(config->share[i].tag, to) == 0)
            return error_set(error, EINVAL, "has the tag of another share; a guest could not tell them apart");
    config->share[config->shares] = (struct machine_share){stored[config->shares].folder, to, read_only};
    config->shares++;
    return 0;
}
