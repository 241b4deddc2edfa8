/* plug.c - see plug.h.
 *
 * Three threads meet here: whoever plugs and unplugs, the vCPU that writes the eject register, and the thread that
 * serves the machine's loop. The list of plugs is under the board's lock. A vCPU only marks what happened and takes
 * the function off the bus, after which no access reaches the device; the loop's thread, in settle(), does what may
 * take long or calls out: it destroys the device and tells who asked.
 *
 * A plug: PLUGGED --unplug--> ASKED --eject--> LEAVING --its I/O has ended--> GONE. After a time-out or a refusal it is
 * PLUGGED again, but an eject that comes late still counts (hotplug.c remembers), since the guest has let go of the
 * device then. */
#include "machine/plug.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "device/platform/hotplug.h"
#include "machine/machine_private.h"

enum plug_state { PLUG_PLUGGED, PLUG_ASKED, PLUG_LEAVING, PLUG_GONE };

struct plug {
    struct plug *next;
    struct machine *machine;
    char id[PLUG_ID];
    enum machine_kind kind;
    struct device *device;
    struct pci_function *function;
    unsigned slot;
    enum plug_state state;
    struct machine_unplug unplug; /* done is NULL when nobody waits */
    int outcome;                  /* what `done` is to be told, or 1: nothing yet */
    unsigned refusal;             /* the guest's status, with outcome -EPERM */
    uint64_t deadline;
    struct clock_timer *timer;    /* the request's time-out; fires on the loop's thread without the lock */
    void (*detach)(struct device *device, void (*gone)(void *context), void *context);
    void (*released)(void *owner);
    void *owner;
};

#define NO_OUTCOME 1

/* ---- the list; the board's lock is held ---- */

static struct plug *find_id(struct machine *machine, const char *id)
{
    struct plug *plug = machine->plugs;
    while (plug && (plug->state >= PLUG_LEAVING || strcmp(plug->id, id) != 0))
        plug = plug->next;
    return plug;
}

static struct plug *find_slot(struct machine *machine, unsigned slot)
{
    struct plug *plug = machine->plugs;
    while (plug && (plug->state >= PLUG_LEAVING || plug->slot != slot))
        plug = plug->next;
    return plug;
}

static void unlink_plug(struct plug *plug)
{
    struct plug **at = &plug->machine->plugs;
    while (*at != plug)
        at = &(*at)->next;
    *at = plug->next;
}

static void forget_device(struct machine *machine, const struct device *device)
{
    unsigned i = 0;
    while (i < machine->devices && machine->device[i] != device)
        i++;
    if (i == machine->devices)
        return;
    machine->devices--;
    memmove(&machine->device[i], &machine->device[i + 1], (machine->devices - i) * sizeof machine->device[0]);
}

static void settle(void *context);

static void gone(struct plug *plug)
{
    plug->state = PLUG_GONE;
    pthread_cond_broadcast(&plug->machine->plug_gone);
    loop_post(plug->machine->loop, settle, plug->machine); /* without memory, the next settling does it */
}

static void detached(void *context)
{
    struct plug *plug = context;
    struct machine *machine = plug->machine;
    pthread_mutex_lock(&machine->lock);
    gone(plug);
    pthread_mutex_unlock(&machine->lock); /* from here on the plug may be freed */
}

static void take_off(struct plug *plug, int outcome)
{
    plug->outcome = outcome;
    plug->state = PLUG_LEAVING;
    forget_device(plug->machine, plug->device);
    if (plug->detach) {
        plug->detach(plug->device, detached, plug);
        return;
    }
    pci_remove(plug->function);
    gone(plug);
}

/* ---- what the loop's thread does; no lock is held ---- */

static void free_plug(struct plug *plug)
{
    if (plug->device)
        plug->device->ops->destroy(plug->device);
    if (plug->released)
        plug->released(plug->owner);
    clock_timer_free(&plug->machine->loop_clock, plug->timer);
    free(plug);
}

static void tell(const struct plug *plug, const struct machine_unplug *unplug, int outcome)
{
    char text[PLUG_ID + 160] = "";
    if (!unplug->done)
        return;
    if (outcome == -EPERM)
        snprintf(text, sizeof text, "the guest does not let go of '%s' (its ACPI status is 0x%x)", plug->id, plug->refusal);
    else if (outcome == -ETIMEDOUT)
        snprintf(text, sizeof text, "the guest has not let go of '%s' in time; it goes if the guest still does", plug->id);
    else if (outcome == -ECANCELED)
        snprintf(text, sizeof text, "the machine ended before the guest let go of '%s'", plug->id);
    unplug->done(unplug->owner, outcome, text);
}

/* Ends one request or one plug; false when there is nothing to end. */
static bool settle_one(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    struct plug *plug = machine->plugs;
    while (plug && (plug->state == PLUG_LEAVING || (plug->state != PLUG_GONE && plug->outcome == NO_OUTCOME)))
        plug = plug->next;
    if (!plug) {
        pthread_mutex_unlock(&machine->lock);
        return false;
    }
    bool over = plug->state == PLUG_GONE;
    int outcome = plug->outcome;
    struct machine_unplug unplug = plug->unplug;
    plug->outcome = NO_OUTCOME;
    plug->unplug.done = NULL;
    if (over)
        unlink_plug(plug);
    else
        plug->state = PLUG_PLUGGED;
    struct plug copy = *plug; /* for the text: the plug may be removed once the lock is free */
    pthread_mutex_unlock(&machine->lock);
    if (over)
        free_plug(plug);
    tell(&copy, &unplug, outcome);
    return true;
}

static void settle(void *context)
{
    while (settle_one(context))
        ;
}

static void timed_out(void *context)
{
    struct plug *plug = context;
    struct machine *machine = plug->machine;
    pthread_mutex_lock(&machine->lock);
    /* An earlier request's time may be up while a later one has just begun. */
    bool late = clock_now(&machine->loop_clock) >= plug->deadline;
    if (late && plug->state == PLUG_ASKED && plug->outcome == NO_OUTCOME)
        plug->outcome = -ETIMEDOUT;
    pthread_mutex_unlock(&machine->lock);
    /* Not here: the timer must not be freed in its own callback. */
    loop_post(machine->loop, settle, machine);
}

/* ---- what the guest does; the board's lock is held ---- */

void plug_ejected(void *owner, unsigned slot)
{
    struct machine *machine = owner;
    struct plug *plug = find_slot(machine, slot);
    if (plug)
        take_off(plug, 0);
}

void plug_refused(void *owner, unsigned slot, unsigned status)
{
    struct machine *machine = owner;
    struct plug *plug = find_slot(machine, slot);
    if (!plug || plug->state != PLUG_ASKED)
        return;
    plug->outcome = -EPERM;
    plug->refusal = status;
    loop_post(machine->loop, settle, machine);
}

/* ---- what the host does ---- */

static struct plug *new_plug(struct machine *machine, const struct plug_config *config)
{
    struct plug *plug = calloc(1, sizeof *plug);
    if (!plug)
        return NULL;
    plug->machine = machine;
    snprintf(plug->id, sizeof plug->id, "%s", config->id);
    plug->kind = config->kind;
    plug->device = config->device;
    plug->function = config->function;
    plug->detach = config->detach;
    plug->outcome = NO_OUTCOME;
    plug->timer = clock_timer_new(&machine->loop_clock, timed_out, plug);
    if (!plug->timer) {
        free(plug);
        return NULL;
    }
    return plug;
}

static int add_locked(struct machine *machine, struct plug *plug, unsigned slot, struct error *error)
{
    if (find_id(machine, plug->id))
        return error_set(error, EEXIST, "the machine has a device '%s' already", plug->id);
    if (machine->devices == BOARD_DEVICES)
        return error_set(error, ENOSPC, "the board has no room for '%s'", plug->id);
    int status = pci_add(machine->pci, plug->function, slot);
    if (status == -EBUSY)
        return error_set(error, EBUSY, "PCI slot %u of '%s' is taken", slot, plug->id);
    if (status < 0)
        return error_set(error, -status, "the PCI bus has no room for '%s': %s", plug->id, strerror(-status));
    plug->slot = plug->function->slot;
    machine->device[machine->devices++] = plug->device;
    plug->next = machine->plugs;
    machine->plugs = plug;
    hotplug_arrived(machine->hotplug, plug->slot, machine->started);
    return 0;
}

int plug_add(struct machine *machine, const struct plug_config *config, struct error *error)
{
    if (!config->id[0] || strlen(config->id) >= PLUG_ID)
        return error_set(error, EINVAL, "a device's name has 1 to %u bytes", PLUG_ID - 1);
    struct plug *plug = new_plug(machine, config);
    if (!plug)
        return error_set(error, ENOMEM, "no memory for '%s'", config->id);
    pthread_mutex_lock(&machine->lock);
    int status = add_locked(machine, plug, config->slot, error);
    if (status == 0) {
        plug->released = config->released;
        plug->owner = config->owner;
    }
    pthread_mutex_unlock(&machine->lock);
    if (status < 0) {
        plug->device = NULL; /* the caller's still */
        free_plug(plug);
    }
    return status;
}

static int wrong_kind(const struct plug *plug, enum machine_kind due, struct error *error)
{
    static const char *const names[] = {"device of the machine's own", "disk", "share"};
    return error_set(error, EINVAL, "'%s' is no %s but a %s", plug->id, names[due], names[plug->kind]);
}

int machine_unplug(struct machine *machine, const char *id, const struct machine_unplug *request, struct error *error)
{
    int status = 0;
    pthread_mutex_lock(&machine->lock);
    struct plug *plug = find_id(machine, id);
    if (!plug) {
        status = error_set(error, ENOENT, "the machine has no device '%s' that could be removed", id);
    } else if (request->kind != MACHINE_KIND_OTHER && request->kind != plug->kind) {
        status = wrong_kind(plug, request->kind, error);
    } else if (plug->state == PLUG_ASKED) {
        status = error_set(error, EBUSY, "'%s' is being removed already", id);
    } else {
        plug->state = PLUG_ASKED;
        plug->unplug = *request;
        plug->deadline = clock_now(&machine->loop_clock) + request->timeout_ns;
        clock_timer_arm(&machine->loop_clock, plug->timer, plug->deadline);
        hotplug_want(machine->hotplug, plug->slot);
    }
    pthread_mutex_unlock(&machine->lock);
    return status;
}

void plug_started(struct machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    machine->started = true;
    pthread_mutex_unlock(&machine->lock);
}

static bool any_left(const struct machine *machine)
{
    const struct plug *plug = machine->plugs;
    while (plug && plug->state == PLUG_GONE)
        plug = plug->next;
    return plug != NULL;
}

void plug_destroy_all(struct machine *machine)
{
    if (!machine->loop)
        return;
    pthread_mutex_lock(&machine->lock);
    for (struct plug *plug = machine->plugs; plug; plug = plug->next)
        if (plug->state < PLUG_LEAVING)
            take_off(plug, -ECANCELED);
    while (any_left(machine))
        pthread_cond_wait(&machine->plug_gone, &machine->lock);
    pthread_mutex_unlock(&machine->lock);
    settle(machine);
}
