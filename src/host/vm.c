#include "host/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "engine/engine.h"
#include "host/agent_protocol.h"
#include "host/vm_devices.h"
#include "host/vm_memory.h"
#include "host/vm_private.h"

static int serve_status(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                        struct error *error)
{
    const struct vm *vm = owner;
    (void)call, (void)request, (void)error;
    json_object_object_add(reply, "name", json_object_new_string(registry_name(vm->entry)));
    json_object_object_add(reply, "pid", json_object_new_int(getpid()));
    json_object_object_add(reply, "engine", json_object_new_string(vm->engine));
    json_object_object_add(reply, "cpus", json_object_new_uint64(vm->cpus));
    json_object_object_add(reply, "memory", json_object_new_uint64(vm->memory));
    json_object_object_add(reply, "started", json_object_new_int64(vm->started));
    json_object_object_add(reply, "agent", json_object_new_boolean(vm->agent_ready));
    json_object_object_add(reply, "button", json_object_new_boolean(machine_power_button_heard(vm->machine)));
    return 0;
}

/* "force": the machine ends at once. Else its power button is pressed, and the guest does what it does then. */
static int serve_stop(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                      struct error *error)
{
    const struct vm *vm = owner;
    bool force = false;
    (void)call, (void)reply;
    int r = control_flag(request, "force", &force, error);
    if (r < 0)
        return r;
    if (force)
        machine_stop(vm->machine);
    else
        machine_power_button(vm->machine);
    return 0;
}

/* Replies once the agent in the guest is ready. */
static int serve_wait(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                      struct error *error)
{
    struct vm *vm = owner;
    (void)request, (void)reply;
    if (vm->agent_ready)
        return 0;
    for (unsigned i = 0; i < vm->waiting_count;) { /* the places of those who left are free */
        if (control_call_waited_for(vm->waiting[i])) {
            i++;
            continue;
        }
        control_reply(vm->waiting[i], 0, NULL, NULL);
        vm->waiting[i] = vm->waiting[--vm->waiting_count];
    }
    if (vm->waiting_count == VM_WAITING_MAX)
        return error_set(error, EBUSY, "too many wait for the guest's agent already");
    vm->waiting[vm->waiting_count++] = call;
    return CONTROL_LATER;
}

static const struct control_verb verbs[] = {
    {"status", serve_status},
    {"stop", serve_stop},
    {"wait", serve_wait},
    {"memory", vm_memory},
    {"disk-attach", vm_disk_attach},
    {"disk-resize", vm_disk_resize},
    {"disk-detach", vm_disk_detach},
    {"share-attach", vm_share_attach},
    {"share-detach", vm_share_detach},
    {NULL, NULL}};

static void on_ready(void *context, uint32_t events)
{
    struct vm *vm = context;
    (void)events;
    int fd = accept4(vm->ready_listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    close(fd); /* that it connects is all it has to say */
    vm->agent_ready = true;
    while (vm->waiting_count)
        control_reply(vm->waiting[--vm->waiting_count], 0, NULL, NULL);
}

static int listen_for_agent(struct vm *vm, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (snprintf(vm->ready, sizeof vm->ready, "%s_%u", vm->vsock, AGENT_READY_PORT) >= (int)sizeof vm->ready)
        return error_set(error, ENAMETOOLONG, "'%s' is too long for a socket's path", vm->vsock);
    memcpy(address.sun_path, vm->ready, sizeof address.sun_path);
    unlink(vm->ready); /* of a machine before this one */
    vm->ready_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r = 0;
    if (vm->ready_listener < 0 || bind(vm->ready_listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(vm->ready_listener, 8) < 0)
        r = -errno;
    if (r == 0)
        r = loop_add_fd(machine_loop(vm->machine), vm->ready_listener, EPOLLIN, on_ready, vm, &vm->ready_source);
    return r < 0 ? error_set(error, -r, "making the socket '%s': %s", vm->ready, strerror(-r)) : 0;
}

int vm_new(const char *name, struct vm **ret_vm, struct error *error)
{
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return error_set(error, ENOMEM, "no memory for a machine's entry");
    vm->ready_listener = -1;
    int r = registry_claim(name, &vm->entry, error);
    if (r < 0) {
        free(vm);
        return r;
    }
    *ret_vm = vm;
    return 0;
}

void vm_file(const struct vm *vm, const char *file, char ret_path[REGISTRY_PATH_MAX])
{
    registry_file(vm->entry, file, ret_path);
}

const char *vm_name(const struct vm *vm)
{
    return registry_name(vm->entry);
}

int vm_vsock(struct vm *vm, struct machine_config *config, struct error *error)
{
    char link[REGISTRY_PATH_MAX], *whole = NULL;
    vm_file(vm, "vsock.sock", link);
    if (!config->vsock) {
        memcpy(vm->vsock, link, sizeof vm->vsock);
        config->vsock = vm->vsock;
        return 0;
    }
    snprintf(vm->vsock, sizeof vm->vsock, "%s", config->vsock);
    if (config->vsock[0] != '/') { /* the link is read from another folder */
        char *here = getcwd(NULL, 0);
        if (!here || asprintf(&whole, "%s/%s", here, config->vsock) < 0)
            whole = NULL;
        free(here);
    }
    int r = symlink(whole ? whole : config->vsock, link) < 0 ? -errno : 0;
    free(whole);
    return r < 0 ? error_set(error, -r, "making the link '%s': %s", link, strerror(-r)) : 0;
}

int vm_serve(struct vm *vm, struct machine *machine, const struct machine_config *config, struct error *error)
{
    char path[REGISTRY_PATH_MAX];
    vm->machine = machine;
    vm->engine = config->engine->name;
    vm->cpus = config->vcpus;
    vm->memory = config->memory;
    vm->started = (int64_t)time(NULL);
    int r = listen_for_agent(vm, error);
    if (r < 0)
        return r;
    vm_file(vm, "control.sock", path);
    return control_new(machine_loop(machine), path, verbs, vm, &vm->control, error);
}

static void stop_serving(struct vm *vm)
{
    while (vm->waiting_count) /* their connections end instead of a reply */
        control_reply(vm->waiting[--vm->waiting_count], -ESHUTDOWN, NULL, "the machine ended before the guest's agent was ready");
    vm_detaches_end(vm);
    control_free(vm->control);
    loop_remove(vm->ready_source);
    if (vm->ready_listener >= 0) {
        close(vm->ready_listener);
        unlink(vm->ready);
    }
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    stop_serving(vm);
    registry_release(vm->entry);
    free(vm);
}

void vm_hand_over(struct vm *vm)
{
    if (!vm)
        return;
    registry_hand_over(vm->entry);
    free(vm);
}
