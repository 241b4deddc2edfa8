/* vm.h - a running machine as this host sees it: its entry in the registry, its control socket, and whether the agent in
 * its guest is ready.
 *
 * Order: vm_new (the name is taken, paths are known), vm_vsock, machine_create, vm_serve, machine_run, vm_free, machine_destroy; all
 * on one thread. */
#ifndef VENEER_HOST_VM_H
#define VENEER_HOST_VM_H

#include "base/error.h"
#include "host/registry.h"
#include "machine/machine.h"

struct vm;

/* Takes the name. Returns 0 or a negative errno with a sentence. */
int vm_new(const char *name, struct vm **ret_vm, struct error *error);
/* The path of one of its files: "vsock.sock", "console.log" ... */
void vm_file(const struct vm *vm, const char *file, char ret_path[REGISTRY_PATH_MAX]);
const char *vm_name(const struct vm *vm);
/* Sees to it that the guest is reached through the entry's "vsock.sock": the machine's sockets are there, or where the config
 * says, and the entry has a link to them. The config's path is the vm's from then on. Returns 0 or a negative errno. */
int vm_vsock(struct vm *vm, struct machine_config *config, struct error *error);
/* Serves the control socket, and waits for the agent, on the machine's loop. `config` is copied as far as it is told by the
 * control socket. Returns 0 or a negative errno with a sentence. */
int vm_serve(struct vm *vm, struct machine *machine, const struct machine_config *config, struct error *error);
/* Removes the entry with its sockets and logs. NULL is allowed. */
void vm_free(struct vm *vm);
/* Frees without removing anything, in a process whose child goes on to run the machine. NULL is allowed. */
void vm_hand_over(struct vm *vm);

#endif
