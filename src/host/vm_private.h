/* vm_private.h - a running machine's parts, for vm.c and for the files that add verbs to its control socket.
 *
 * A verb is a function of control.h's form whose owner is the struct vm; it is named here and listed in vm.c's table. */
#ifndef VENEER_HOST_VM_PRIVATE_H
#define VENEER_HOST_VM_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "host/control.h"
#include "host/vm.h"

#define VM_WAITING_MAX CONTROL_CLIENTS_MAX

struct vm {
    struct registry_entry *entry;
    char vsock[REGISTRY_PATH_MAX]; /* where the guest's sockets are */
    struct machine *machine; /* NULL until vm_serve */
    struct control *control;
    /* Told by "status". */
    const char *engine;
    unsigned cpus;
    uint64_t memory;
    int64_t started; /* seconds since 1970 */

    /* The agent connects to vsock port AGENT_READY_PORT of the host, which is this socket at `ready`. */
    char ready[REGISTRY_PATH_MAX];
    int ready_listener;
    struct loop_source *ready_source;
    bool agent_ready;
    struct control_call *waiting[VM_WAITING_MAX]; /* for the agent */
    unsigned waiting_count;
    struct vm_detach *detaches; /* of vm_devices.c */
};

#endif
