/* vm_devices.c - see vm_devices.h. Everything happens on the machine's loop, but for the last answers to detaches, which
 * machine_destroy gives: a detach therefore outlives the vm, and knows whether that is still there. */
#include "host/vm_devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/vm_private.h"

#define NANOSECONDS UINT64_C(1000000000)
#define NAMES_TRIED 32u

struct vm_detach {
    struct vm_detach *next;
    struct vm *vm;             /* NULL: it has gone, and `call` with it */
    struct control_call *call;
};

static int absolute(const char *path, struct error *error)
{
    return path[0] == '/' ? 0 : error_set(error, EINVAL, "'%s' is not an absolute path", path);
}

static int read_disk(struct json_object *request, struct machine_disk *disk, struct error *error)
{
    uint64_t queues = 0;
    int r = control_string(request, "path", true, &disk->path, error);
    if (r == 0)
        r = absolute(disk->path, error);
    if (r == 0)
        r = control_string(request, "id", false, &disk->id, error);
    if (r == 0)
        r = control_string(request, "format", false, &disk->format, error);
    if (r == 0)
        r = control_string(request, "serial", false, &disk->serial, error);
    if (r == 0)
        r = control_flag(request, "readonly", &disk->readonly, error);
    if (r == 0)
        r = control_flag(request, "direct", &disk->direct, error);
    if (r == 0)
        r = control_number(request, "iops", false, UINT64_MAX, &disk->iops, error);
    if (r == 0)
        r = control_number(request, "bps", false, UINT64_MAX, &disk->bps, error);
    if (r == 0)
        r = control_number(request, "queues", false, MACHINE_DISK_QUEUES_MAX, &queues, error);
    disk->queues = (unsigned)queues;
    if (r == 0 && disk->format && strcmp(disk->format, "raw") != 0 && strcmp(disk->format, "qcow2") != 0)
        r = error_set(error, EINVAL, "'%.20s' is no format of disks; give raw or qcow2", disk->format);
    if (r == 0 && disk->serial && strlen(disk->serial) > MACHINE_DISK_SERIAL)
        r = error_set(error, EINVAL, "the serial number has more than %u bytes", MACHINE_DISK_SERIAL);
    return r;
}

int vm_disk_attach(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                   struct error *error)
{
    const struct vm *vm = owner;
    struct machine_disk disk = {0};
    char id[16];
    (void)call;
    int r = read_disk(request, &disk, error);
    if (r < 0)
        return r;
    bool named = disk.id != NULL;
    for (unsigned n = 0; n < (named ? 1u : NAMES_TRIED); n++) {
        snprintf(id, sizeof id, "disk%u", n);
        if (!named)
            disk.id = id;
        r = machine_disk_add(vm->machine, &disk, error);
        if (r != -EEXIST)
            break;
    }
    if (r == 0)
        json_object_object_add(reply, "id", json_object_new_string(disk.id));
    return r;
}

int vm_disk_resize(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                   struct error *error)
{
    const struct vm *vm = owner;
    const char *id;
    uint64_t size;
    (void)call, (void)reply;
    int r = control_string(request, "id", true, &id, error);
    if (r == 0)
        r = control_number(request, "size", true, INT64_MAX, &size, error);
    return r < 0 ? r : machine_disk_resize(vm->machine, id, size, error);
}

int vm_share_attach(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                    struct error *error)
{
    const struct vm *vm = owner;
    struct machine_share share = {0};
    (void)call, (void)reply;
    int r = control_string(request, "folder", true, &share.folder, error);
    if (r == 0)
        r = absolute(share.folder, error);
    if (r == 0)
        r = control_string(request, "tag", true, &share.tag, error);
    if (r == 0)
        r = control_flag(request, "readonly", &share.read_only, error);
    return r < 0 ? r : machine_add_share(vm->machine, &share, error);
}

static void detached(void *owner, int status, const char *text)
{
    struct vm_detach *detach = owner;
    if (detach->vm) {
        struct vm_detach **at = &detach->vm->detaches;
        while (*at != detach)
            at = &(*at)->next;
        *at = detach->next;
        control_reply(detach->call, status, NULL, text);
    }
    free(detach);
}

static int detach(struct vm *vm, struct control_call *call, struct json_object *request, enum machine_kind kind,
                  const char *id, struct error *error)
{
    uint64_t seconds = VM_DETACH_SECONDS;
    int r = control_number(request, "timeout", false, VM_DETACH_SECONDS_MAX, &seconds, error);
    if (r < 0)
        return r;
    struct vm_detach *one = calloc(1, sizeof *one);
    if (!one)
        return error_set(error, ENOMEM, "no memory for the request");
    *one = (struct vm_detach){.next = vm->detaches, .vm = vm, .call = call};
    struct machine_unplug unplug = {.kind = kind, .timeout_ns = seconds * NANOSECONDS, .done = detached, .owner = one};
    r = machine_unplug(vm->machine, id, &unplug, error); /* `detached` comes later, on this thread */
    if (r < 0) {
        free(one);
        return r;
    }
    vm->detaches = one;
    return CONTROL_LATER;
}

int vm_disk_detach(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                   struct error *error)
{
    const char *id;
    (void)reply;
    int r = control_string(request, "id", true, &id, error);
    return r < 0 ? r : detach(owner, call, request, MACHINE_KIND_DISK, id, error);
}

int vm_share_detach(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                    struct error *error)
{
    char id[128];
    const char *tag;
    (void)reply;
    int r = control_string(request, "tag", true, &tag, error);
    if (r < 0)
        return r;
    if (snprintf(id, sizeof id, MACHINE_SHARE_ID "%s", tag) >= (int)sizeof id)
        return error_set(error, ENOENT, "there is no share with a tag as long as that");
    return detach(owner, call, request, MACHINE_KIND_SHARE, id, error);
}

void vm_detaches_end(struct vm *vm)
{
    for (struct vm_detach *one = vm->detaches; one; one = one->next) {
        control_reply(one->call, -ECANCELED, NULL, "the machine ended before the guest let go of it");
        one->call = NULL;
        one->vm = NULL;
    }
    vm->detaches = NULL;
}
