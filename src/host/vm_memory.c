#include "host/vm_memory.h"

#include "host/vm_private.h"
#include "machine/balloon.h"

static void add_bytes(struct json_object *object, const char *key, uint64_t value)
{
    json_object_object_add(object, key, json_object_new_uint64(value));
}

static struct json_object *tell_balloon(const struct balloon_info *balloon)
{
    struct json_object *object = json_object_new_object();
    json_object_object_add(object, "driver", json_object_new_boolean(balloon->present));
    add_bytes(object, "target", balloon->target);
    add_bytes(object, "actual", balloon->actual);
    add_bytes(object, "inflated", balloon->inflated);
    add_bytes(object, "reported", balloon->reported);
    return object;
}

static struct json_object *tell_guest(const struct balloon_info *balloon)
{
    static const char *const keys[BALLOON_STATS] = {
        [BALLOON_SWAP_IN] = "swap_in", [BALLOON_SWAP_OUT] = "swap_out", [BALLOON_MAJOR_FAULTS] = "major_faults",
        [BALLOON_MINOR_FAULTS] = "minor_faults", [BALLOON_FREE] = "free", [BALLOON_TOTAL] = "total",
        [BALLOON_AVAILABLE] = "available", [BALLOON_CACHES] = "caches", [BALLOON_HUGE_PAGES] = "huge_pages",
        [BALLOON_HUGE_FAILED] = "huge_pages_failed"};
    struct json_object *object = json_object_new_object();
    for (unsigned i = 0; i < BALLOON_STATS; i++)
        if (balloon->known >> i & 1)
            add_bytes(object, keys[i], balloon->stat[i]);
    return object;
}

int vm_memory(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
              struct error *error)
{
    const struct vm *vm = owner;
    struct machine_memory memory;
    struct json_object *given;
    uint64_t balloon = 0;
    (void)call;
    int r = control_number(request, "balloon", false, INT64_MAX, &balloon, error);
    if (r == 0 && json_object_object_get_ex(request, "balloon", &given))
        r = machine_balloon_set(vm->machine, balloon, error);
    if (r < 0)
        return r;
    machine_memory(vm->machine, &memory);
    add_bytes(reply, "size", memory.size);
    add_bytes(reply, "resident", memory.resident);
    if (memory.has_balloon)
        json_object_object_add(reply, "balloon", tell_balloon(&memory.balloon));
    if (memory.balloon.known)
        json_object_object_add(reply, "guest", tell_guest(&memory.balloon));
    return 0;
}
