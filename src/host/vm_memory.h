/* vm_memory.h - the verb of a control socket that tells about a machine's memory, and sets its balloon.
 *
 *   memory  {"balloon"?} -> {"size", "resident", "balloon"?: {"target", "actual", "inflated", "reported"},
 *                            "guest"?: {"total", "free", "available", "caches", "swap_in", ...}}
 * All in bytes, but for counts of faults. "balloon" in a request sets what the balloon is to take from the guest; it is missing
 * in the reply when the machine has none, "guest" when the guest has told nothing yet. */
#ifndef VENEER_HOST_VM_MEMORY_H
#define VENEER_HOST_VM_MEMORY_H

#include "host/control.h"

/* Of control.h's form; owner: the struct vm. */
int vm_memory(void *owner, struct control_call *call, struct json_object *request, struct json_object *reply,
              struct error *error);

#endif
