/* registry.h - which machines run on this host, for this user: one folder for each, RUNTIME/NAME/, mode 0700.
 *
 * RUNTIME is $VENEER_RUNTIME, or /run/veneer for root, or $XDG_RUNTIME_DIR/veneer, or /tmp/veneer-UID. A folder holds
 * `lock`, on which the machine's process keeps a flock for as long as it lives, and the machine's sockets and logs. An
 * entry whose lock is free is a leftover of a process that died, and whoever meets it clears it away. All changes are
 * made under a lock on RUNTIME itself. */
#ifndef VENEER_HOST_REGISTRY_H
#define VENEER_HOST_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define REGISTRY_NAME_MAX 63u
#define REGISTRY_PATH_MAX 108u /* every path in an entry fits a socket's address */

struct registry_entry;

/* A name starts with a letter or digit and goes on with those, '.', '_' and '-'. 0, or -EINVAL with reason and form. */
int registry_check_name(const char *name, struct error *error);

/* Takes a name that no running machine has; makes its folder. Returns 0, -EEXIST, or another negative errno with a sentence.
 * The entry lasts until registry_release, or until every process that inherited it has ended. */
int registry_claim(const char *name, struct registry_entry **ret_entry, struct error *error);
/* Removes the folder with all in it. NULL is allowed. */
void registry_release(struct registry_entry *entry);
/* Frees an entry that a child process goes on to hold: nothing is removed. NULL is allowed. */
void registry_hand_over(struct registry_entry *entry);
const char *registry_name(const struct registry_entry *entry);
/* The path of one of the entry's files. */
void registry_file(const struct registry_entry *entry, const char *file, char ret_path[REGISTRY_PATH_MAX]);

/* The path of a file of a machine that runs. Returns 0, or -ENOENT (nobody of this name runs) or another negative errno
 * with a sentence. */
int registry_find(const char *name, const char *file, char ret_path[REGISTRY_PATH_MAX], struct error *error);
/* Calls visit for every machine that runs, in the order of names; a result that is not 0 ends the walk and is returned. */
int registry_each(int (*visit)(void *owner, const char *name), void *owner, struct error *error);

#endif
