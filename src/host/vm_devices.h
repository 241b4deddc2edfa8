/* vm_devices.h - the verbs of a control socket by which disks and shares come and go while the machine runs.
 *
 *   disk-attach   {"path", "id"?, "format"?, "readonly"?, "direct"?, "iops"?, "bps"?, "serial"?, "queues"?} -> {"id"}
 *   disk-resize   {"id", "size"}          bytes
 *   share-attach  {"folder", "tag", "readonly"?}
 *   disk-detach   {"id", "timeout"?}      seconds, 30 unless given; the reply comes when the guest has let go of it
 *   share-detach  {"tag", "timeout"?}
 * Paths are absolute: the machine's process has a working directory of its own. */
#ifndef VENEER_HOST_VM_DEVICES_H
#define VENEER_HOST_VM_DEVICES_H

#include "host/control.h"

#define VM_DETACH_SECONDS 30u
#define VM_DETACH_SECONDS_MAX 3600u

struct vm;

/* Of control.h's form; owner: the struct vm. */
int vm_disk_attach(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                   struct error *error);
int vm_disk_resize(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                   struct error *error);
int vm_disk_detach(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                   struct error *error);
int vm_share_attach(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                    struct error *error);
int vm_share_detach(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
                    struct error *error);

/* Ends what waits for a guest to let go of something, before the control socket is freed. */
void vm_detaches_end(struct vm *vm);

#endif
